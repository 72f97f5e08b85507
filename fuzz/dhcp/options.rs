//! Options as a definition writes them: what is accepted can be sent, within the client's limit.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use vnet_dhcp::frame::Received;
use vnet_dhcp::{Now, Server, ServerConfig};
use vnet_fuzz::{Input, SERVER_MAC, START, card, network};
use vnet_types::{DhcpOptions, MacAddr};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let wanted = input.sized();
    let Ok(options) = serde_json::from_slice::<DhcpOptions>(input.0) else { return };
    let written = serde_json::to_vec(&options).unwrap();
    assert_eq!(serde_json::from_slice::<DhcpOptions>(&written).unwrap(), options);
    let config = ServerConfig::for_network(&network(), SERVER_MAC).unwrap();
    let mut server = Server::new(ServerConfig { options, ..config }, []).unwrap();
    let mut payload = vec![0; 240];
    payload[..3].copy_from_slice(&[1, 1, 6]);
    payload[28..34].copy_from_slice(&card(1).octets());
    payload[236..].copy_from_slice(&[99, 130, 83, 99]);
    payload.extend([53, 1, 1, 55, wanted.len().min(255) as u8]);
    payload.extend(wanted.iter().take(255));
    payload.push(255);
    let received = Received {
        src_mac: card(1),
        dst_mac: MacAddr::BROADCAST,
        src_ip: [0; 4].into(),
        dst_ip: [255; 4].into(),
        payload: &payload,
    };
    let mut frame = Vec::new();
    let now = Now { unix: START, uptime: Duration::from_secs(1) };
    let _ = server.handle(now, &received, &mut frame);
    // RFC 2131 §2: a client that says nothing takes 576 bytes.
    assert!(!frame.is_empty() && frame.len() - 14 <= 576);
});
