//! What comes along with an answer.

use dhcproto::v6::{DhcpOption, MessageType, NtpSuboption, OptionCode};
use vnet_dhcp::v6::{Reservation, ReservedFor, ServerConfig};

use super::client::{
    Net, Says, config, confirm, inform, ip, mac, release, renew, request, says, solicit,
};

/// The value of the option `code`, undecoded.
fn raw(heard: &super::client::Heard, code: u16) -> Option<Vec<u8>> {
    let mut rest = &heard.bytes[4..];
    while let [a, b, c, d, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*c, *d]));
        if u16::from_be_bytes([*a, *b]) == code {
            return Some(tail[..length].to_vec());
        }
        rest = &tail[length..];
    }
    None
}

#[test]
fn information_is_given_without_an_address() {
    // RFC 9915 §18.3.6
    let mut net = Net::new();
    let heard = net.hears(&inform(1).wants(&[23, 24, 31, 32, 56, 82, 83]));
    let message = heard.of_kind(MessageType::Reply);
    let get = |code: u16| message.opts().get(OptionCode::from(code)).cloned();
    assert_eq!(get(23), Some(DhcpOption::DomainNameServers(vec![ip("fd00::1")])));
    let Some(DhcpOption::DomainSearchList(names)) = get(24) else { panic!() };
    assert_eq!(names[0].to_string(), "default.vnet.");
    assert_eq!(raw(&heard, 32).unwrap(), 1800_u32.to_be_bytes());
    let ntp = message.opts().get_all(OptionCode::NtpServer).unwrap();
    let address = |text| DhcpOption::NtpServer(vec![NtpSuboption::ServerAddress(ip(text))]);
    assert_eq!(ntp, [address("fd00::1"), address("fd00::2")]);
    assert_eq!(raw(&heard, 31).unwrap().len(), 32);
    assert_eq!(raw(&heard, 82).unwrap(), 3600_u32.to_be_bytes());
    assert_eq!(raw(&heard, 83).unwrap(), 3600_u32.to_be_bytes());
    assert_eq!(heard.persist, []);
}

#[test]
fn nothing_is_given_that_was_not_asked_for() {
    let mut net = Net::new();
    let heard = net.hears(&inform(1).wants(&[24]));
    assert_eq!((raw(&heard, 23), raw(&heard, 56), raw(&heard, 82)), (None, None, None));
    // One who does not say what it wants gets what everybody needs.
    let heard = net.hears(&inform(1));
    assert!(raw(&heard, 23).is_some() && raw(&heard, 24).is_some());
    // RFC 9915 §21.23: the refresh time goes with INFORMATION-REQUEST alone.
    let heard = net.hears(&request(1, &[]).wants(&[23, 32]));
    assert!(raw(&heard, 23).is_some() && raw(&heard, 32).is_none());
}

#[test]
fn a_client_without_an_identifier_may_ask_for_information() {
    // RFC 9915 §16.12
    let mut net = Net::new();
    let heard = net.hears(&inform(1).without(1));
    assert_eq!(heard.option(1), None);
    heard.of_kind(MessageType::Reply);
}

#[test]
fn every_answer_names_both_ends() {
    // RFC 9915 §18.3.9, §18.3.10: `message` checks the server's.
    let mut net = Net::new();
    let own = net.obtain(1).to_string();
    for says in [
        solicit(1),
        solicit(1).rapid(),
        request(1, &[]),
        renew(1, &[&own]),
        confirm(1, &[&own]),
        inform(1),
        release(1, &[&own]),
    ] {
        let heard = net.hears(&says);
        assert_eq!(heard.message().xid(), [0, 0, 1]);
        assert!(
            matches!(heard.option(1), Some(DhcpOption::ClientId(id)) if id == says.options[0].1)
        );
    }
}

#[test]
fn a_name_is_answered_with_what_became_of_it() {
    // RFC 4704 §6
    let mut net = Net::new();
    let heard = net.hears(&request(1, &[]).named("Web"));
    assert_eq!(raw(&heard, 39).unwrap(), b"\x01\x03web\x07default\x04vnet\x00");
    assert_eq!(net.lease(heard.leased()).unwrap().hostname, Some("web".parse().unwrap()));
    // A client that wants nobody to serve it (N) is told that nobody does in its own sense.
    let value = b"\x04\x01a";
    let heard = net.hears(&request(3, &[]).option(39, value));
    assert_eq!(raw(&heard, 39).unwrap()[0], 0x04);
    // One that would serve it itself is overruled (S, O).
    let heard = net.hears(&request(4, &[]).option(39, b"\x00\x01b"));
    assert_eq!(raw(&heard, 39).unwrap()[0], 0x03);
}

#[test]
fn a_name_is_the_first_ones_while_its_lease_runs() {
    let mut net = Net::new();
    net.hears(&request(1, &[]).named("web"));
    let heard = net.hears(&request(2, &[]).named("web"));
    assert_eq!(heard.event.name_refused, Some("web".parse().unwrap()));
    assert_eq!(raw(&heard, 39), None);
    // The client keeps its name though it does not repeat it.
    let own = net.hears(&solicit(1)).advertised().to_string();
    net.hears(&renew(1, &[&own]));
    assert_eq!(net.lease(ip(&own)).unwrap().hostname, Some("web".parse().unwrap()));
    net.pass(3600);
    let heard = net.hears(&request(2, &[]).named("web"));
    assert_eq!(net.lease(heard.leased()).unwrap().hostname, Some("web".parse().unwrap()));
}

#[test]
fn names_of_reservations_are_those_guests_own() {
    let names = [("kept".parse().unwrap(), mac(5))].into();
    let hostname = Some("db".parse().unwrap());
    let client = ReservedFor::Card(mac(1));
    let reservations = vec![Reservation { client, ip: ip("fd00::77"), hostname }];
    let mut net = Net::with(ServerConfig { names, reservations, ..config() });
    for name in ["db", "kept"] {
        let heard = net.hears(&request(2, &[]).named(name));
        assert_eq!(heard.event.name_refused, Some(name.parse().unwrap()));
    }
    let heard = net.hears(&request(5, &[]));
    assert_eq!(net.lease(heard.leased()).unwrap().hostname, Some("kept".parse().unwrap()));
}

#[test]
fn where_guests_make_their_own_addresses_they_get_options() {
    let mut net = Net::with(ServerConfig { range: None, ..config() });
    let heard = net.hears(&solicit(1));
    assert_eq!(heard.association(1).1, Some(dhcproto::v6::Status::NoAddrsAvail));
    assert!(raw(&heard, 23).is_some());
    // Those with a reservation get it nevertheless.
    let client = ReservedFor::Card(mac(1));
    let reservations = vec![Reservation { client, ip: ip("fd00::77"), hostname: None }];
    let mut net = Net::with(ServerConfig { range: None, reservations, ..config() });
    assert_eq!(net.obtain(1), ip("fd00::77"));
}

#[test]
fn a_reply_goes_to_where_the_client_is() {
    let mut net = Net::new();
    let says = Says { src: ip("fe80::abcd"), ..says(11, 1) };
    assert_eq!(net.hears(&says).to, Some((ip("fe80::abcd"), 546)));
}
