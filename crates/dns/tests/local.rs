//! What the server answers by itself, over real sockets on the loopback device.

mod common;

use common::*;
use hickory_proto::op::{Edns, Message, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UdpSocket};
use vnet_dns::{DnsServer, Forwarding, ServerError};

#[tokio::test]
async fn guests_are_answered_over_udp_and_tcp() {
    let server = serve(config(&[]));
    for reply in [
        ask(&server, "WEB.default.vnet.").await,
        tcp(&server, &query("WEB.default.vnet.", RecordType::A)).await,
    ] {
        assert_eq!(reply.metadata.id, 4711);
        assert!(reply.metadata.authoritative && reply.metadata.recursion_available);
        assert!(reply.queries[0].name.eq_case(&name("WEB.default.vnet.")), "case is kept");
        assert_eq!(reply.answers[0].data.to_string(), "192.168.122.9");
        assert!(reply.edns.is_none());
    }
    assert_eq!(server.counters().local, 2);
}

#[tokio::test]
async fn a_negative_answer_carries_the_soa() {
    let server = serve(config(&[]));
    let reply = ask(&server, "none.default.vnet.").await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
    let reply = udp(&server, &query("web.default.vnet.", RecordType::AAAA)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
}

#[tokio::test]
async fn a_new_zone_counts_at_once() {
    let server = serve(config(&[]));
    let empty = "default.vnet".parse().unwrap();
    let subnet = "192.168.122.0/24".parse().unwrap();
    server.set_zone(vnet_dns::zone::Zone::builder(empty, subnet).build());
    let reply = ask(&server, "web.default.vnet.").await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn what_does_not_fit_is_truncated_on_udp_and_whole_on_tcp() {
    let server = serve(config(&[]));
    let mut many = query("many.default.vnet.", RecordType::A);
    let reply = udp_bytes(&server, &many.to_vec().unwrap()).await;
    assert!(reply.len() <= 512);
    assert!(Message::from_vec(&reply).unwrap().metadata.truncation);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    many.set_edns(edns);
    let bytes = udp_bytes(&server, &many.to_vec().unwrap()).await;
    let reply = Message::from_vec(&bytes).unwrap();
    assert!(bytes.len() <= 1232 && reply.metadata.truncation);
    assert_eq!(reply.edns.unwrap().max_payload(), 1232);
    let reply = tcp(&server, &many).await;
    assert!(!reply.metadata.truncation);
    assert_eq!(reply.answers.len(), 198);
}

#[tokio::test]
async fn edns_is_answered_with_edns_and_other_versions_with_badvers() {
    let server = serve(config(&[]));
    let mut asked = query("web.default.vnet.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true);
    asked.set_edns(edns.clone());
    let reply = udp(&server, &asked).await;
    assert!(reply.edns.unwrap().flags().dnssec_ok);
    edns.set_version(1);
    let mut asked = query("web.default.vnet.", RecordType::A);
    asked.set_edns(edns);
    let reply = udp(&server, &asked).await;
    assert_eq!(u16::from(reply.metadata.response_code), 16);
    assert_eq!(reply.edns.unwrap().version(), 0);
    assert!(reply.answers.is_empty());
}

#[tokio::test]
async fn what_is_not_served_is_answered_with_the_right_code() {
    let server = serve(config(&[]));
    let mut status = query("web.default.vnet.", RecordType::A);
    status.metadata.op_code = OpCode::Status;
    assert_eq!(udp(&server, &status).await.metadata.response_code, ResponseCode::NotImp);
    let mut chaos = query("version.bind.", RecordType::TXT);
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(udp(&server, &chaos).await.metadata.response_code, ResponseCode::Refused);
    let transfer = query("default.vnet.", RecordType::AXFR);
    assert_eq!(tcp(&server, &transfer).await.metadata.response_code, ResponseCode::Refused);
    let mut two = query("web.default.vnet.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(udp(&server, &two).await.metadata.response_code, ResponseCode::FormErr);
    let mut none = query("web.default.vnet.", RecordType::A);
    none.queries.clear();
    assert_eq!(udp(&server, &none).await.metadata.response_code, ResponseCode::FormErr);
    let unknown = query("web.default.vnet.", RecordType::Unknown(65280));
    let reply = udp(&server, &unknown).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    let mut cut = query("web.default.vnet.", RecordType::A).to_vec().unwrap();
    cut.truncate(20);
    let reply = Message::from_vec(&udp_bytes(&server, &cut).await).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
}

#[tokio::test]
async fn an_answer_is_never_answered() {
    let server = serve(config(&[]));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.addr()).await.unwrap();
    let mut reply = query("web.default.vnet.", RecordType::A).to_vec().unwrap();
    reply[2] |= 0x80;
    socket.send(&reply).await.unwrap();
    socket.send(&[1, 2, 3]).await.unwrap();
    reply[2] &= !0x80;
    reply[1] ^= 1;
    socket.send(&reply).await.unwrap();
    let mut buffer = [0; 512];
    in_time(socket.recv(&mut buffer)).await.unwrap();
    assert_eq!(buffer[..2], reply[..2], "the first answer is the one to the query");
    assert_eq!(server.counters().queries, 1);
}

#[tokio::test]
async fn strangers_are_refused() {
    let mut config = config(&[]);
    config.clients.clear();
    let server = serve(config);
    let reply = ask(&server, "web.default.vnet.").await;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    assert!(reply.answers.is_empty());
}

#[tokio::test]
async fn a_network_without_an_outside_refuses_other_names_and_knows_its_own() {
    let upstream = Upstream::good().await;
    let mut config = config(&[upstream.addr]);
    config.forwarding = Forwarding::Off;
    let server = serve(config);
    let reply = ask(&server, "www.example.com.").await;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    assert_eq!(ask(&server, "web.default.vnet.").await.answers.len(), 1);
    assert_eq!(upstream.asked(), 0);
}

#[tokio::test]
async fn private_names_are_never_forwarded() {
    let upstream = Upstream::good().await;
    let server = serve(config(&[upstream.addr]));
    for (text, rtype) in [
        ("nobody.default.vnet.", RecordType::A),
        ("nobody.", RecordType::A),
        ("250.122.168.192.in-addr.arpa.", RecordType::PTR),
        ("1.1.1.10.in-addr.arpa.", RecordType::PTR),
        ("a.invalid.", RecordType::A),
    ] {
        let reply = udp(&server, &query(text, rtype)).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain, "{text}");
    }
    assert_eq!(upstream.asked(), 0);
}

#[tokio::test]
async fn a_thousand_idle_connections_keep_nobody_out() {
    let server = serve(config(&[]));
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(TcpStream::connect(server.addr()).await.unwrap());
        // The accept queue is short; the connection is there when the server has taken it.
        while server.counters().connections < idle.len() as u64 {
            tokio::task::yield_now().await;
        }
    }
    let reply = tcp(&server, &query("web.default.vnet.", RecordType::A)).await;
    assert_eq!(reply.answers.len(), 1);
    assert_eq!(server.counters().evicted, 1001 - 32);
    // The oldest was closed.
    assert!(matches!(in_time(idle[0].read(&mut [0])).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn an_alias_is_answered_with_what_it_leads_to() {
    let mut builder = vnet_dns::zone::Zone::builder(
        "default.vnet".parse().unwrap(),
        "192.168.122.0/24".parse().unwrap(),
    );
    builder.insert(&"web".parse().unwrap(), "192.168.122.9".parse().unwrap()).unwrap();
    builder.insert(&"web".parse().unwrap(), "192.168.122.10".parse().unwrap()).unwrap();
    let mut cname = |name: &str, target: &str| {
        builder.cname(&name.parse().unwrap(), &target.parse().unwrap()).unwrap();
    };
    cname("www", "ftp");
    cname("ftp", "web.default.vnet");
    cname("a", "b");
    cname("b", "a");
    cname("gone", "nobody");
    let server = serve(config(&[]));
    server.set_zone(builder.build());
    for text in ["WWW.default.vnet.", "www."] {
        let reply = ask(&server, text).await;
        let answers: Vec<_> =
            reply.answers.iter().map(|r| format!("{} {}", r.name, r.data)).collect();
        let expected = [
            format!("{text} ftp.default.vnet."),
            "ftp.default.vnet. web.default.vnet.".to_owned(),
            "web.default.vnet. 192.168.122.9".to_owned(),
            "web.default.vnet. 192.168.122.10".to_owned(),
        ];
        assert_eq!(answers, expected);
    }
    let reply = udp(&server, &query("www.default.vnet.", RecordType::CNAME)).await;
    assert_eq!(reply.answers.len(), 1);
    let reply = udp(&server, &query("www.default.vnet.", RecordType::AAAA)).await;
    assert_eq!((reply.answers.len(), reply.authorities.len()), (2, 1), "RFC 2308 §2.2");
    let reply = ask(&server, "gone.default.vnet.").await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain, "RFC 2308 §2.1");
    assert_eq!(reply.answers.len(), 1);
    let reply = ask(&server, "a.default.vnet.").await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail, "a circle ends");
}

#[tokio::test]
async fn unknown_flags_and_options_are_answered_as_if_they_were_not_there() {
    let server = serve(config(&[]));
    let mut asked = query("web.default.vnet.", RecordType::A).to_vec().unwrap();
    // RFC 8906 §8.1.2 to §8.2.6: the reserved bit, an unknown EDNS option, an unknown EDNS flag.
    asked[3] |= 0x40;
    asked[11] = 1;
    asked.extend_from_slice(b"\x00\x00\x29\x04\xd0\x00\x00\x40\x00\x00\x06\xfd\xe9\x00\x02hi");
    let reply = udp_bytes(&server, &asked).await;
    assert_eq!(reply[3], 0x80, "recursion available, NOERROR, and no reserved bit");
    assert_eq!(reply[reply.len() - 11..], *b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00");
}

#[tokio::test]
async fn messages_that_are_made_to_harm_are_answered_or_passed_over() {
    let server = serve(config(&[]));
    let header = [1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    // A name that points to itself, names without end, and a message longer than any query.
    let pointer = [&header[..], b"\xc0\x0c\x00\x01\x00\x01"].concat();
    let endless = [&header[..], &[1; 600]].concat();
    let long = [&header[..], &[0; 60_000]].concat();
    for request in [&pointer, &endless, &long] {
        let reply = Message::from_vec(&udp_bytes(&server, request).await).unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::FormErr, "{} bytes", request.len());
    }
    // Over TCP, too much closes the connection once it has been refused.
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    write_framed(&mut stream, &long).await;
    let reply = Message::from_vec(&in_time(read_framed(&mut stream)).await).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
    assert!(matches!(in_time(stream.read(&mut [0])).await, Ok(0) | Err(_)));
    assert_eq!(ask(&server, "web.default.vnet.").await.answers.len(), 1);
}

#[tokio::test]
async fn one_who_trickles_and_one_who_never_reads_are_closed_in_time() {
    let mut config = config(&[]);
    config.limits.idle = std::time::Duration::from_millis(300);
    let server = serve(config);
    let mut trickler = TcpStream::connect(server.addr()).await.unwrap();
    let started = std::time::Instant::now();
    loop {
        // Each byte is in time, and the message is not.
        let byte = tokio::io::AsyncWriteExt::write_all(&mut trickler, &[0]).await;
        let closed = trickler.try_read(&mut [0]);
        if byte.is_err() || matches!(closed, Ok(0)) {
            break;
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "it may trickle for ever");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(tcp(&server, &query("web.default.vnet.", RecordType::A)).await.answers.len(), 1);
}

#[tokio::test]
async fn a_pipeline_of_queries_is_answered() {
    let server = serve(config(&[]));
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    for id in 0..100 {
        let mut asked = query("web.default.vnet.", RecordType::A);
        asked.metadata.id = id;
        write_framed(&mut stream, &asked.to_vec().unwrap()).await;
    }
    for id in 0..100 {
        let reply = Message::from_vec(&in_time(read_framed(&mut stream)).await).unwrap();
        assert_eq!(reply.metadata.id, id);
    }
}

#[tokio::test]
async fn a_stopped_server_leaves_its_port_free() {
    let server = serve(config(&[]));
    let addr = server.addr();
    let _client = TcpStream::connect(addr).await.unwrap();
    let error = DnsServer::spawn_at(addr, &[], config(&[])).unwrap_err();
    assert!(matches!(error, ServerError::Taken { .. }), "{error}");
    in_time(server.stop()).await;
    let again = DnsServer::spawn_at(addr, &[], config(&[])).unwrap();
    assert_eq!(ask(&again, "web.default.vnet.").await.answers.len(), 1);
}
