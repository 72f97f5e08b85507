//! A resolv.conf: any text, of which no server comes twice.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use vnet_dns::resolv::ResolvConf;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let conf = ResolvConf::parse(&text);
    let _ = conf.is_resolved_stub();
    let servers: BTreeSet<_> = conf.nameservers.iter().collect();
    assert_eq!(servers.len(), conf.nameservers.len());
    for server in &conf.nameservers {
        let addr = server.socket_addr(|_| Some(7)).unwrap();
        assert!(addr.port() == 53 && !addr.ip().is_unspecified());
    }
});
