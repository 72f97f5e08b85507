//! Forwarding, over real sockets on the loopback device, to upstreams good and bad.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::*;
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::{NULL, SOA, TXT};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;
use vnet_dns::{HostServers, Rules, Upstreams};

fn rules(servers: &[std::net::SocketAddr]) -> Rules {
    config(servers).rules
}

fn address(reply: &Message) -> String {
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    reply.answers[0].data.to_string()
}

#[tokio::test]
async fn other_names_are_asked_upstream_and_kept() {
    let upstream = Upstream::good().await;
    let server = serve(config(&[upstream.addr]));
    for text in ["www.example.com.", "WWW.example.COM.", "www.example.com."] {
        let reply = ask(&server, text).await;
        assert_eq!(address(&reply), "192.0.2.1");
        assert!(reply.queries[0].name.eq_case(&name(text)), "the client's own case comes back");
        assert!(!reply.metadata.authoritative && reply.metadata.recursion_available);
        assert!((299..=300).contains(&reply.answers[0].ttl));
    }
    assert_eq!(upstream.asked(), 1);
    let counters = server.counters();
    assert_eq!((counters.forwarded, counters.cache_hits, counters.failures), (1, 2, 0));
}

#[tokio::test]
async fn an_answer_is_kept_apart_for_dnssec_and_for_none() {
    let upstream = Upstream::good().await;
    let server = serve(config(&[upstream.addr]));
    let mut asked = query("www.example.com.", RecordType::A);
    udp(&server, &asked).await;
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true).set_max_payload(4000);
    asked.set_edns(edns);
    let reply = udp(&server, &asked).await;
    assert!(reply.edns.unwrap().flags().dnssec_ok);
    let seen: Vec<_> = upstream.seen().into_iter().map(|(query, _)| query.edns.unwrap()).collect();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].max_payload(), 1232);
    assert!(!seen[0].flags().dnssec_ok && seen[1].flags().dnssec_ok);
}

#[tokio::test]
async fn records_of_unknown_types_pass_untouched() {
    let upstream = Upstream::start(|query, _| {
        let mut reply = reply_to(query, ResponseCode::NoError);
        let rdata = NULL::with((0..=255).collect());
        let data = RData::Unknown { code: RecordType::Unknown(65280), rdata };
        reply.add_answer(Record::from_rdata(query.queries[0].name.clone(), 60, data));
        reply.set_edns(Edns::new());
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let server = serve(config(&[upstream.addr]));
    let reply = udp(&server, &query("x.example.com.", RecordType::Unknown(65280))).await;
    let RData::Unknown { rdata, .. } = &reply.answers[0].data else { panic!("{reply}") };
    assert_eq!(rdata.anything, (0..=255).collect::<Vec<u8>>());
    assert!(reply.edns.is_none(), "the upstream's EDNS is not the client's");
}

#[tokio::test]
async fn a_negative_answer_is_kept_as_its_soa_says() {
    let upstream = Upstream::start(|query, _| {
        let mut reply = reply_to(query, ResponseCode::NXDomain);
        if query.queries[0].name == name("soa.example.com.") {
            let soa = SOA::new(name("ns."), name("x."), 1, 2, 3, 4, 60);
            reply.add_authority(Record::from_rdata(name("example.com."), 600, RData::SOA(soa)));
        }
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let server = serve(config(&[upstream.addr]));
    for (text, asked) in [("soa.example.com.", 1), ("none.example.com.", 3)] {
        for _ in 0..2 {
            let reply = ask(&server, text).await;
            assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
        }
        assert_eq!(upstream.asked(), asked, "RFC 2308 §5: {text}");
    }
}

#[tokio::test]
async fn forged_answers_are_passed_over() {
    let upstream = Upstream::start(|query, _| {
        let forge = |change: &dyn Fn(&mut Message)| {
            let mut reply = Message::from_vec(&answer(query)).unwrap();
            reply.answers[0].data = RData::A(hickory_proto::rr::rdata::A([6, 6, 6, 6].into()));
            change(&mut reply);
            reply.to_vec().unwrap()
        };
        vec![
            forge(&|reply| reply.metadata.id ^= 1),
            forge(&|reply| {
                reply.queries[0].set_name(name("evil.example.com."));
            }),
            forge(&|reply| {
                reply.queries[0].set_query_type(RecordType::AAAA);
            }),
            forge(&|reply| reply.queries.clear()),
            forge(&|reply| reply.metadata.message_type = hickory_proto::op::MessageType::Query),
            vec![1, 2, 3],
            answer(query),
        ]
    })
    .await;
    let server = serve(config(&[upstream.addr]));
    assert_eq!(address(&ask(&server, "www.example.com.").await), "192.0.2.1");
}

#[tokio::test]
async fn each_query_has_its_own_port_and_id() {
    let upstream = Upstream::good().await;
    let server = serve(config(&[upstream.addr]));
    for number in 0..20 {
        ask(&server, &format!("host{number}.example.com.")).await;
    }
    let seen = upstream.seen();
    let ports: std::collections::BTreeSet<_> = seen.iter().map(|(_, from)| from.port()).collect();
    let ids: std::collections::BTreeSet<_> = seen.iter().map(|(q, _)| q.metadata.id).collect();
    assert!(ports.len() > 15, "{ports:?}");
    assert!(ids.len() > 15, "{ids:?}");
}

#[tokio::test]
async fn a_silent_upstream_costs_one_query_a_moment_and_the_next_nothing() {
    let (silent, good) = (Upstream::silent().await, Upstream::good().await);
    let server = serve(config(&[silent.addr, good.addr]));
    assert_eq!(address(&ask(&server, "a.example.com.").await), "192.0.2.1");
    assert_eq!(silent.asked(), 1);
    for number in 0..10 {
        ask(&server, &format!("b{number}.example.com.")).await;
    }
    assert_eq!(silent.asked(), 1, "it is passed over");
    assert_eq!(good.asked(), 11);
}

#[tokio::test]
async fn a_closed_port_and_a_refusal_lead_to_the_next_upstream_at_once() {
    let closed = UdpSocket::bind("127.0.0.8:0").await.unwrap().local_addr().unwrap();
    let refusing =
        Upstream::start(|query, _| vec![reply_to(query, ResponseCode::Refused).to_vec().unwrap()])
            .await;
    let good = Upstream::good().await;
    let mut config = config(&[closed, refusing.addr, good.addr]);
    config.timing.stagger = Duration::from_secs(60);
    config.timing.deadline = Duration::from_secs(60);
    let server = serve(config);
    assert_eq!(address(&ask(&server, "a.example.com.").await), "192.0.2.1");
}

#[tokio::test]
async fn a_lost_packet_is_sent_again() {
    let lossy = Upstream::start({
        let first = std::sync::atomic::AtomicBool::new(true);
        move |query, _| {
            let lost = first.swap(false, std::sync::atomic::Ordering::SeqCst);
            if lost { vec![] } else { vec![answer(query)] }
        }
    })
    .await;
    let server = serve(config(&[lossy.addr]));
    assert_eq!(address(&ask(&server, "a.example.com.").await), "192.0.2.1");
}

#[tokio::test]
async fn without_an_answer_it_is_servfail_in_time() {
    let silent = Upstream::silent().await;
    let server = serve(config(&[silent.addr]));
    let start = Instant::now();
    let reply = ask(&server, "a.example.com.").await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert!(start.elapsed() < Duration::from_secs(4));
    let server = serve(config(&[]));
    let reply = ask(&server, "a.example.com.").await;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_by_tcp() {
    let upstream = Upstream::start(|query, tcp| {
        let mut reply = reply_to(query, ResponseCode::NoError);
        if tcp {
            for _ in 0..20 {
                let data = RData::TXT(TXT::new(vec!["x".repeat(200)]));
                reply.add_answer(Record::from_rdata(query.queries[0].name.clone(), 60, data));
            }
        } else {
            reply.metadata.truncation = true;
        }
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let server = serve(config(&[upstream.addr]));
    let asked = query("big.example.com.", RecordType::TXT);
    let reply = udp(&server, &asked).await;
    assert!(reply.metadata.truncation && reply.answers.is_empty());
    let reply = tcp(&server, &asked).await;
    assert!(!reply.metadata.truncation);
    assert_eq!(reply.answers.len(), 20);
    assert_eq!(upstream.asked(), 2, "UDP and TCP once each; the client's TCP query is kept ready");
}

#[tokio::test]
async fn an_upstream_without_edns_is_asked_without() {
    let upstream = Upstream::start(|query, _| {
        let plain = query.edns.is_none();
        let refusal = || reply_to(query, ResponseCode::FormErr).to_vec().unwrap();
        vec![if plain { answer(query) } else { refusal() }]
    })
    .await;
    let server = serve(config(&[upstream.addr]));
    assert_eq!(address(&ask(&server, "a.example.com.").await), "192.0.2.1");
}

#[tokio::test]
async fn equal_queries_wait_for_one_answer() {
    let silent = Upstream::silent().await;
    let server = serve(config(&[silent.addr]));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.addr()).await.unwrap();
    for id in 0..50_u8 {
        let mut asked = query("a.example.com.", RecordType::A).to_vec().unwrap();
        asked[0] = id;
        socket.send(&asked).await.unwrap();
    }
    let mut buffer = [0; 512];
    for _ in 0..50 {
        in_time(socket.recv(&mut buffer)).await.unwrap();
    }
    assert_eq!(server.counters().forwarded, 50);
    assert!(silent.asked() <= 6, "{}", silent.asked());
}

#[tokio::test]
async fn too_many_in_flight_are_servfail_at_once_and_others_go_on() {
    let silent = Upstream::silent().await;
    let mut config = config(&[silent.addr]);
    config.limits.in_flight_per_client = 4;
    config.timing.deadline = Duration::from_secs(60);
    let server = serve(config);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.addr()).await.unwrap();
    for number in 0..10 {
        let asked = query(&format!("a{number}.example.com."), RecordType::A);
        socket.send(&asked.to_vec().unwrap()).await.unwrap();
    }
    let mut buffer = [0; 512];
    for _ in 0..6 {
        let len = in_time(socket.recv(&mut buffer)).await.unwrap();
        let reply = Message::from_vec(&buffer[..len]).unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    }
    assert_eq!(server.counters().overloads, 6);
    assert_eq!(ask(&server, "web.default.vnet.").await.answers.len(), 1);
    in_time(server.stop()).await;
}

#[tokio::test]
async fn it_never_asks_itself() {
    let good = Upstream::good().await;
    let server = serve(config(&[]));
    server.set_rules(rules(&[server.addr(), good.addr]));
    assert_eq!(server.upstreams(), [good.addr]);
    assert_eq!(address(&ask(&server, "a.example.com.").await), "192.0.2.1");
}

#[tokio::test]
async fn other_upstreams_answer_anew() {
    let (one, two) = (Upstream::good().await, Upstream::good().await);
    let server = serve(config(&[one.addr]));
    ask(&server, "a.example.com.").await;
    server.set_rules(rules(&[two.addr]));
    ask(&server, "a.example.com.").await;
    assert_eq!((one.asked(), two.asked()), (1, 1));
}

#[tokio::test]
async fn a_followed_file_is_read_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("resolv.conf");
    fs::write(&path, "nameserver 192.0.2.1\nnameserver 127.0.0.7\n").unwrap();
    let mut config = config(&[]);
    config.rules = Rules::new(Upstreams::Host(HostServers::new(path, dir.path().join("none"))));
    let server = serve(config);
    assert_eq!(server.upstreams().len(), 2);
}

#[tokio::test]
async fn without_recursion_desired_nobody_is_asked() {
    let good = Upstream::good().await;
    let server = serve(config(&[good.addr]));
    let mut asked = query("a.example.com.", RecordType::A);
    asked.metadata.recursion_desired = false;
    assert_eq!(udp(&server, &asked).await.metadata.response_code, ResponseCode::Refused);
    assert_eq!(good.asked(), 0);
}

#[tokio::test]
async fn a_server_that_is_well_again_has_its_place_again_and_nobody_waits_for_it_meanwhile() {
    let well = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let first = Upstream::start({
        let well = well.clone();
        move |query, _| {
            let well = well.load(std::sync::atomic::Ordering::SeqCst);
            if well { vec![answer(query)] } else { vec![] }
        }
    })
    .await;
    let second = Upstream::good().await;
    let mut config = config(&[first.addr, second.addr]);
    config.timing.stagger = Duration::from_secs(1);
    config.timing.deadline = Duration::from_secs(20);
    config.timing.backoff = Duration::from_millis(1);
    let server = serve(config);
    ask(&server, "first.example.com.").await;
    // It is looked at again with each query, and still nobody waits for the second to be asked.
    let start = Instant::now();
    for number in 0..20 {
        ask(&server, &format!("dead{number}.example.com.")).await;
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(first.asked() > 1, "it is looked at");
    well.store(true, std::sync::atomic::Ordering::SeqCst);
    let start = Instant::now();
    for number in 0.. {
        let asked = second.asked();
        ask(&server, &format!("well{number}.example.com.")).await;
        if second.asked() == asked {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "it is never asked first again");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn names_of_a_split_domain_go_to_its_servers_and_no_others() {
    let (public, corp, deep) =
        (Upstream::good().await, Upstream::good().await, Upstream::good().await);
    let mut config = config(&[public.addr]);
    for (domain, server) in [("corp.example", &corp), ("deep.corp.example", &deep)] {
        let server = server.addr.to_string().parse().unwrap();
        config.rules.split.insert(domain.parse().unwrap(), vec![server]);
    }
    let server = serve(config);
    for text in ["a.corp.example.", "CORP.example.", "x.deep.corp.example.", "notcorp.example."] {
        assert_eq!(address(&ask(&server, text).await), "192.0.2.1");
    }
    assert_eq!((public.asked(), corp.asked(), deep.asked()), (1, 2, 1));
}

#[tokio::test]
async fn private_addresses_of_public_names_are_refused_where_that_is_wanted() {
    let upstream = Upstream::start(|query, _| {
        let mut reply = reply_to(query, ResponseCode::NoError);
        let data = RData::A(hickory_proto::rr::rdata::A([192, 168, 1, 1].into()));
        reply.add_answer(Record::from_rdata(query.queries[0].name.clone(), 300, data));
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let mut config = config(&[upstream.addr]);
    config.rules.rebind_protection = true;
    config.rules.rebind_allowed = vec!["home.example".parse().unwrap()];
    let server = serve(config.clone());
    for _ in 0..2 {
        let reply = ask(&server, "evil.example.com.").await;
        assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
        assert!(reply.answers.is_empty());
    }
    assert_eq!(address(&ask(&server, "nas.home.example.").await), "192.168.1.1");
    assert_eq!(server.counters().blocked, 2);
    config.rules.rebind_protection = false;
    server.set_rules(config.rules);
    assert_eq!(address(&ask(&server, "evil.example.com.").await), "192.168.1.1");
}

#[tokio::test]
async fn an_answer_that_has_expired_is_given_when_nobody_answers() {
    let dead = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let upstream = Upstream::start({
        let dead = dead.clone();
        move |query, _| {
            if dead.load(std::sync::atomic::Ordering::SeqCst) {
                return vec![];
            }
            let mut reply = Message::from_vec(&answer(query)).unwrap();
            reply.answers[0].ttl = 1;
            vec![reply.to_vec().unwrap()]
        }
    })
    .await;
    let server = serve(config(&[upstream.addr]));
    ask(&server, "a.example.com.").await;
    dead.store(true, std::sync::atomic::Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let reply = ask(&server, "a.example.com.").await;
    assert_eq!((address(&reply).as_str(), reply.answers[0].ttl), ("192.0.2.1", 30));
    assert_eq!(server.counters().stale, 1);
    // The asking goes on after the answer; when it has failed, the next answer comes at once.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let start = Instant::now();
        ask(&server, "a.example.com.").await;
        if start.elapsed() < Duration::from_millis(250) {
            break;
        }
        assert!(Instant::now() < deadline, "each query waits");
    }
    let reply = ask(&server, "b.example.com.").await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_large_answer_that_trickles_in_over_tcp_stalls_nobody() {
    let slow = Upstream::start(|query, tcp| {
        let mut reply = reply_to(query, ResponseCode::NoError);
        reply.metadata.truncation = !tcp;
        // Over TCP, the length says more than ever comes.
        let bytes = reply.to_vec().unwrap();
        vec![if tcp { bytes[..bytes.len() / 2].to_vec() } else { bytes }]
    })
    .await;
    let good = Upstream::good().await;
    let server = serve(config(&[slow.addr, good.addr]));
    assert_eq!(address(&ask(&server, "a.example.com.").await), "192.0.2.1");
    assert_eq!(ask(&server, "web.default.vnet.").await.answers.len(), 1);
}

#[tokio::test]
async fn signatures_pass_to_those_who_ask_for_them() {
    let upstream = Upstream::start(|query, _| {
        let mut reply = Message::from_vec(&answer(query)).unwrap();
        let rdata = NULL::with(vec![0, 1, 13, 2, 0, 0, 1, 44, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 0, 1]);
        let data = RData::Unknown { code: RecordType::Unknown(46), rdata };
        reply.add_answer(Record::from_rdata(query.queries[0].name.clone(), 300, data));
        reply.metadata.authentic_data = true;
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let server = serve(config(&[upstream.addr]));
    let mut asked = query("www.example.com.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true).set_max_payload(4000);
    asked.set_edns(edns);
    asked.metadata.checking_disabled = true;
    for _ in 0..2 {
        let bytes = udp_bytes(&server, &asked.to_vec().unwrap()).await;
        assert_eq!(bytes[3] & 0x30, 0x30, "AD and CD");
        assert_eq!(bytes[7], 2, "the address and its signature");
        assert!(bytes.windows(20).any(|window| window.ends_with(&[8, 9, 9, 0, 1])));
    }
    assert!(upstream.seen()[0].0.metadata.checking_disabled);
    assert_eq!(upstream.asked(), 1);
}
