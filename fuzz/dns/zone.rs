//! A definition's DNS, as a person or a program writes it: what is valid is served, whole.
#![no_main]

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use libfuzzer_sys::fuzz_target;
use vnet_dns::fuzzing::{Fate, Server};
use vnet_fuzz::{dns_network, dns_zone};
use vnet_types::{Dns, RecordName};

fuzz_target!(|bytes: &[u8]| {
    let Ok(dns) = serde_json::from_slice::<Dns>(bytes) else { return };
    let mut network = dns_network();
    network.dns = dns;
    if network.validate().is_err() {
        return;
    }
    let dns = network.dns;
    let mut zone = dns_zone();
    for (name, target) in &dns.cname {
        zone.cname(name, target).unwrap();
    }
    for (name, texts) in &dns.txt {
        texts.iter().for_each(|text| zone.txt(name, text).unwrap());
    }
    for (name, exchangers) in &dns.mx {
        exchangers.iter().for_each(|mx| zone.mx(name, mx).unwrap());
    }
    for (name, services) in &dns.srv {
        services.iter().for_each(|srv| zone.srv(name, srv).unwrap());
    }
    let server = Server::new(zone.build());
    let ask = |name: &RecordName, kind| {
        let text = if name.as_str() == "@" { String::new() } else { format!("{name}.") };
        let suffix = "lab.vnet.";
        let full = if format!(".{text}").to_ascii_lowercase().ends_with(&format!(".{suffix}")) {
            text
        } else {
            text + suffix
        };
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        let labels = full.trim_end_matches('.').split('.').map(str::as_bytes);
        let mut name = Name::from_labels(labels).unwrap();
        name.set_fqdn(true);
        message.add_query(Query::query(name, kind));
        match server.request(&message.to_vec().unwrap(), false) {
            Fate::Answered(answer) => {
                let answer = Message::from_vec(&answer).unwrap();
                assert_eq!(answer.metadata.response_code, ResponseCode::NoError, "{full}");
                assert!(answer.answers.iter().any(|record| record.record_type() == kind), "{full}");
            }
            other => panic!("{full}: {other:?}"),
        }
    };
    dns.cname.keys().for_each(|name| ask(name, RecordType::CNAME));
    dns.txt.keys().for_each(|name| ask(name, RecordType::TXT));
    dns.mx.keys().for_each(|name| ask(name, RecordType::MX));
    dns.srv.keys().for_each(|name| ask(name, RecordType::SRV));
});
