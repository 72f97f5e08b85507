use std::collections::BTreeSet;

use hickory_proto::op::Message;
use proptest::prelude::*;

use super::*;
use crate::upstream::{Rules, Timing, Trust, Upstreams};

static HANDLER: std::sync::LazyLock<Handler> = std::sync::LazyLock::new(handler);

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9)), 1);

fn handler() -> Handler {
    let mut zone = Zone::builder("lab.vnet".parse().unwrap(), "10.0.0.0/24".parse().unwrap());
    for octet in 2..200 {
        let addr = std::net::Ipv4Addr::new(10, 0, 0, octet);
        zone.insert(&"web".parse().unwrap(), addr.into()).unwrap();
    }
    // Nobody is asked here: what would be is dropped by the test.
    let rules = Rules::new(Upstreams::list(["192.0.2.1".parse().unwrap()]));
    let forwarder = Forwarder::new(rules, BTreeSet::new(), Timing::default(), 0, Trust::Host);
    let limits = FlightLimits { total: 8, per_client: 4 };
    Handler::new(zone.build(), vec![], Forwarding::On, forwarder, limits)
}

/// What holds for every answer to every request.
fn check(handler: &Handler, request: &[u8]) {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut out = Vec::new();
        match handler.step(request, CLIENT, transport, &mut out) {
            Step::Drop => assert!(request.len() < wire::HEADER || request[2] & 0x80 != 0),
            Step::Forward(pending) => assert_eq!(pending.query.id.to_be_bytes(), request[..2]),
            Step::Reply => {
                assert_eq!(out[..2], request[..2], "the id");
                assert_eq!(out[2] & 0x80, 0x80, "an answer");
                if transport == Transport::Udp {
                    assert!(out.len() <= 1232);
                }
                Message::from_vec(&out).unwrap();
            }
        }
    }
}

fn web() -> Vec<u8> {
    let mut request = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    request.extend_from_slice(b"\x03web\x03lab\x04vnet\x00\x00\x01\x00\x01");
    request.extend_from_slice(b"\x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00");
    request
}

#[tokio::test]
async fn flights_end_with_their_queries() {
    let handler = handler();
    let mut request = web();
    request[14] = b'x';
    request[17] = b'x';
    request[21] = b'x';
    let mut flights = Vec::new();
    for _ in 0..5 {
        let mut out = Vec::new();
        flights.push(handler.step(&request, CLIENT, Transport::Udp, &mut out));
    }
    assert!(matches!(flights[3], Step::Forward(_)) && matches!(flights[4], Step::Reply));
    drop(flights);
    let flights = handler.flights.lock().unwrap();
    assert!(flights.total == 0 && flights.clients.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes_can_be_a_request(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&HANDLER, &bytes);
    }

    #[test]
    fn any_change_of_a_request_is_answered(
        changes in prop::collection::vec((0..50_usize, any::<u8>()), 1..6),
        cut in 0..60_usize,
    ) {
        let mut request = web();
        for (at, value) in changes {
            if let Some(byte) = request.get_mut(at) {
                *byte = value;
            }
        }
        request.truncate(cut);
        check(&HANDLER, &request);
    }
}
