//! Router solicitations and the advertisements of others: no panic, and all nodes are told no more
//! often than every three seconds (RFC 4861 §6.2.6), by messages that fit the link.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use vnet_dhcp::frame::Checksum;
use vnet_dhcp::ip6;
use vnet_dhcp::ra::{
    Addressing, Advertiser, Config, Prefix, PrefixUse, Received, Target, parse_advertisement,
    parse_solicitation,
};
use vnet_fuzz::{Input, SERVER_MAC, link_local};

const MTU: u32 = 1280;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let config = Config {
        prefixes: vec![Prefix::new("fd00::/64".parse().unwrap(), PrefixUse::Both)],
        dns_servers: vec!["fd00::1".parse().unwrap()],
        search: vec!["default.vnet".parse().unwrap()],
        ..Config::new(SERVER_MAC, MTU, Addressing::Dhcp)
    };
    let mut now = Duration::from_secs(1000);
    let mut last = None;
    let mut router = Advertiser::new(config.clone(), now).unwrap();
    for _ in 0..32 {
        if input.is_empty() {
            break;
        }
        let random = u64::from(input.short()) << 48 | u64::from(input.byte());
        match input.byte() % 4 {
            0 | 1 => {
                let frame = input.sized();
                let Ok(packet) = ip6::parse(frame, Checksum::Trust) else { continue };
                let Some(received) = Received::new(&packet) else { continue };
                hears(&mut router, now, &received, random);
            }
            2 => {
                let message = input.sized();
                let received = Received {
                    src_mac: Some(SERVER_MAC),
                    src_ip: link_local(input.byte() % 16),
                    hop_limit: 255,
                    message,
                };
                hears(&mut router, now, &received, random);
            }
            _ => now += Duration::from_millis(input.short().into()),
        }
        while router.next().is_some_and(|due| due <= now) {
            let Some(said) = router.poll(now, random) else { break };
            assert!(said.message.len() + 40 <= MTU as usize);
            if said.to == Target::AllNodes {
                assert!(last.is_none_or(|last| now - last >= Duration::from_secs(3)));
                last = Some(now);
            }
            let received = Received {
                src_mac: Some(SERVER_MAC),
                src_ip: link_local(1),
                hop_limit: 255,
                message: &said.message,
            };
            let ours = parse_advertisement(&received).expect("our own can be read");
            assert_eq!(config.differences(&ours), []);
        }
    }
});

fn hears(router: &mut Advertiser, now: Duration, received: &Received<'_>, random: u64) {
    if let Ok(solicitation) = parse_solicitation(received) {
        router.solicited(now, &solicitation, random);
    }
    if let Ok(other) = parse_advertisement(received) {
        let _ = router.config().differences(&other);
    }
}
