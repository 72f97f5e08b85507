//! A request from a guest, byte by byte: whatever it is, the answer is one, small enough, and to the
//! same question; and nothing that is private is asked elsewhere.
#![no_main]

use std::sync::LazyLock;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use libfuzzer_sys::fuzz_target;
use vnet_dns::fuzzing::{Fate, Server};
use vnet_fuzz::{Input, dns_zone};

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::new(dns_zone().build()));

/// Domains that are never asked elsewhere.
const PRIVATE: [&str; 9] = [
    "vnet.",
    "test.",
    "local.",
    "localhost.",
    "invalid.",
    "onion.",
    "home.arpa.",
    "10.in-addr.arpa.",
    "d.f.ip6.arpa.",
];

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let udp = input.byte() & 1 == 0;
    let request = input.0;
    match SERVER.request(request, udp) {
        Fate::Dropped => assert!(request.len() < 12 || request[2] & 0x80 != 0),
        Fate::Answered(answer) => {
            assert_eq!(answer[..2], request[..2], "the id");
            assert!(answer[2] & 0x80 != 0 && answer.len() <= if udp { 1232 } else { 65535 });
            // RFC 1035 §2.3.4: who has no EDNS takes 512 bytes.
            if udp && request[10..12] == [0, 0] {
                assert!(answer.len() <= 512);
            }
            let answer = Message::from_vec(&answer).unwrap();
            if let (Some(answered), Ok(asked)) =
                (answer.queries.first(), Message::from_vec(request))
            {
                assert!(answered.name.eq_case(&asked.queries[0].name));
            }
        }
        Fate::Asked(message) => {
            let asked = Message::from_vec(&message).unwrap();
            let question = &asked.queries[0];
            let name = question.name.to_lowercase();
            let delegated = question.query_type == RecordType::DS;
            for private in PRIVATE.iter().filter(|_| !delegated) {
                let private = private.parse().unwrap();
                assert!(!hickory_proto::rr::Name::zone_of(&private, &name), "{name}");
            }
        }
    }
});
