//! Frames as they come from the bridge: what is taken apart can be put together again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vnet_dhcp::frame::{self, Checksum, Endpoint};
use vnet_dhcp::{arp, ip6};

fuzz_target!(|bytes: &[u8]| {
    let _ = arp::claim(bytes);
    for checksum in [Checksum::Verify, Checksum::Trust] {
        if let Ok(received) = frame::parse(bytes, checksum) {
            let from = Endpoint { mac: received.src_mac, ip: received.src_ip, port: 68 };
            let to = Endpoint { mac: received.dst_mac, ip: received.dst_ip, port: 67 };
            let mut again = Vec::new();
            frame::build(&mut again, from, to, received.payload);
            assert_eq!(frame::parse(&again, Checksum::Verify), Ok(received));
        }
        let Ok(packet) = ip6::parse(bytes, checksum) else { continue };
        if let ip6::Content::Udp { src_port, dst_port, payload } = packet.content {
            let end = |mac, ip, port| ip6::Endpoint { mac, ip, port };
            let from = end(packet.src_mac, packet.src_ip, src_port);
            let to = end(packet.dst_mac, packet.dst_ip, dst_port);
            let mut again = Vec::new();
            ip6::build_udp(&mut again, from, to, payload);
            assert_eq!(ip6::parse(&again, Checksum::Verify).unwrap().content, packet.content);
        }
    }
});
