//! DNS: records of the definition, what leaves and what doesn't, real servers upstream, and guests
//! that mean harm.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use vnet_api::client::Run;
use vnet_testkit::{Guest, Lan, Netd};
use vnet_tests::{Host, network, refusal, wait};

const GATEWAY: &str = "192.168.122.1";

fn start() -> (Host, Netd, Guest) {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    let guest = host.lan.guest_on("virbr0");
    guest.ns.address("eth0", "192.168.122.200/24");
    (host, netd, guest)
}

/// Adds to the definition of `default` while it is up.
fn add(host: &Host, more: &str) -> Result<(), vnet_api::client::ClientError> {
    let path = host.paths().network(&network("default"));
    let text = std::fs::read_to_string(path).unwrap() + more;
    wait(host.client().edit(&network("default"), text, Run::Real)).map(drop)
}

fn dig(guest: &Guest, name: &str, kind: &str) -> String {
    let server = format!("@{GATEWAY}");
    let arguments = ["dig", "+short", "+time=5", "+tries=1", &server, kind, name];
    guest.ns.run(arguments).trim().to_owned()
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn records_of_the_definition_are_served_from_the_moment_of_the_edit() {
    let (host, _netd, guest) = start();
    assert_eq!(dig(&guest, "www.default.vnet", "A"), "");
    add(
        &host,
        r#"
[dns]
hosts.web = ["192.168.122.9"]
cname.www = "web"

[dns.txt]
"@" = ["v=spf1 -all", "second"]

[dns.mx]
"@" = [{ preference = 10, target = "web" }, { preference = 20, target = "mail.example.com" }]

[dns.srv]
"_http._tcp" = [{ port = 80, target = "web" }]
"#,
    )
    .unwrap();
    assert_eq!(dig(&guest, "www.default.vnet", "A"), "web.default.vnet.\n192.168.122.9");
    assert_eq!(dig(&guest, "default.vnet", "TXT"), "\"v=spf1 -all\"\n\"second\"");
    assert_eq!(dig(&guest, "default.vnet", "MX"), "10 web.default.vnet.\n20 mail.example.com.");
    assert_eq!(dig(&guest, "_http._tcp.default.vnet", "SRV"), "0 0 80 web.default.vnet.");
    assert_eq!(dig(&guest, "9.122.168.192.in-addr.arpa", "PTR"), "web.default.vnet.");
    let (_, reason) = refusal(add(&host, "\n[dns.cname]\nftp = \"web\"\n"));
    assert!(reason.contains("line"), "a table that is there twice has a place: {reason}");
    assert_eq!(dig(&guest, "www.default.vnet", "CNAME"), "web.default.vnet.");
}

#[test]
fn nothing_private_leaves_the_host() {
    let (host, _netd, guest) = start();
    let upstream = host.lan.outside.enter(|| UdpSocket::bind((Lan::ROUTER, 5353)).unwrap());
    upstream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    add(
        &host,
        &format!(
            "\n[dns]\nupstreams = [\"{}:5353\"]\nsplit.\"secret.example\" = []\n",
            Lan::ROUTER
        ),
    )
    .unwrap();
    for (name, kind) in [
        ("nobody.default.vnet", "A"),
        ("web.other.vnet", "A"),
        ("fileserver", "A"),
        ("x.secret.example", "A"),
        ("printer.local", "A"),
        ("x.onion", "A"),
        ("x.invalid", "A"),
        ("x.home.arpa", "A"),
        ("x.localhost", "MX"),
        ("1.1.168.192.in-addr.arpa", "PTR"),
        ("1.0.0.10.in-addr.arpa", "PTR"),
        ("1.0.31.172.in-addr.arpa", "PTR"),
        ("8.b.d.0.1.0.0.2.ip6.arpa", "PTR"),
        ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.e.f.ip6.arpa", "PTR"),
        ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", "PTR"),
    ] {
        assert_eq!(dig(&guest, name, kind), "", "{name} {kind}");
    }
    // The first question that is heard outside is the first that may be.
    let mut buffer = [0; 512];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            guest.ns.try_run(["dig", "+time=1", "+tries=1", "@192.168.122.1", "x.example.com"])
        });
        let (len, from) = upstream.recv_from(&mut buffer).unwrap();
        assert!(
            buffer[..len].windows(8).any(|window| window == b"\x07example"),
            "{:?}",
            &buffer[..len]
        );
        assert_eq!(from.ip(), Lan::HOST);
    });
}

#[test]
fn a_real_server_is_asked_for_its_domain_and_answers_that_are_private_are_refused() {
    let (host, _netd, guest) = start();
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("unbound.conf");
    std::fs::write(
        &conf,
        format!(
            "server:\n interface: {0}@5354\n access-control: 0.0.0.0/0 allow\n do-daemonize: no\n \
             username: \"\"\n chroot: \"\"\n pidfile: \"\"\n use-syslog: no\n directory: \"{1}\"\n \
             module-config: \"iterator\"\n local-zone: \"corp.example.\" static\n \
             local-data: \"db.corp.example. A 10.1.2.3\"\n \
             local-data: 'big.corp.example. TXT \"{2}\" \"{2}\" \"{2}\" \"{2}\" \"{2}\" \"{2}\"'\n \
             local-zone: \"example.org.\" static\n local-data: \"evil.example.org. A 10.1.2.3\"\n \
             local-data: \"good.example.org. A 192.0.2.9\"\nremote-control:\n control-enable: no\n",
            Lan::ROUTER,
            folder.path().display(),
            "x".repeat(250),
        ),
    )
    .unwrap();
    let mut command = host.lan.outside.command("unbound");
    command.arg("-d").arg("-c").arg(&conf).stderr(Stdio::null());
    let _unbound = Running(command.spawn().unwrap());
    let server = format!("{}:5354", Lan::ROUTER);
    add(
        &host,
        &format!(
            "\n[dns]\nupstreams = [\"{server}\"]\nrebind_protection = true\n\
             split.\"corp.example\" = [\"{server}\"]\n"
        ),
    )
    .unwrap();
    // Until it serves, nobody answers.
    let deadline = Instant::now() + Duration::from_secs(30);
    while dig(&guest, "good.example.org", "A") != "192.0.2.9" {
        assert!(Instant::now() < deadline, "unbound does not answer");
    }
    assert_eq!(dig(&guest, "db.corp.example", "A"), "10.1.2.3");
    assert_eq!(dig(&guest, "evil.example.org", "A"), "");
    let whole = guest.ns.run(["dig", "+time=5", "@192.168.122.1", "evil.example.org"]);
    assert!(whole.contains("REFUSED") && whole.contains("EDE: 15"), "RFC 8914: {whole}");
    // What does not fit is fetched over TCP, by us and by dig.
    assert!(dig(&guest, "big.corp.example", "TXT").len() > 1500);
}

#[test]
fn a_thousand_silent_connections_keep_nobody_out() {
    let (host, netd, guest) = start();
    add(&host, "\n[dns]\nhosts.web = [\"192.168.122.9\"]\n").unwrap();
    let other = host.lan.guest_on("virbr0");
    other.ns.address("eth0", "192.168.122.201/24");
    let server = SocketAddr::from((Ipv4Addr::new(192, 168, 122, 1), 53));
    let silent: Vec<TcpStream> = guest.ns.enter(|| {
        let connect = |_| TcpStream::connect_timeout(&server, Duration::from_secs(20));
        (0..1000).filter_map(|number| connect(number).ok()).collect()
    });
    assert!(silent.len() > 900, "{}", silent.len());
    for transport in ["+notcp", "+tcp"] {
        let arguments = [
            "dig",
            "+short",
            "+time=5",
            "+tries=1",
            transport,
            "@192.168.122.1",
            "web.default.vnet",
        ];
        assert_eq!(other.ns.run(arguments).trim(), "192.168.122.9", "{transport}");
    }
    // netd holds few of them.
    let open = std::fs::read_dir(format!("/proc/{}/fd", netd.pid())).unwrap().count();
    assert!(open < 200, "{open} descriptors");
}

#[test]
fn queries_are_counted_for_prometheus_and_logged_for_those_who_debug() {
    let (host, netd, guest) = start();
    for _ in 0..2 {
        assert_eq!(dig(&guest, Lan::SERVER_NAME, "A"), Lan::SERVER.to_string());
    }
    assert_eq!(dig(&guest, "gateway.default.vnet", "A"), GATEWAY);
    let socket = host.paths().api_socket();
    let text = host.ns().run([
        "curl",
        "-sS",
        "-D",
        "-",
        "--unix-socket",
        socket.to_str().unwrap(),
        "http://netd/metrics",
    ]);
    assert!(text.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{text}");
    for line in [
        "vnet_dns_queries_total{network=\"default\",transport=\"udp\"} 3",
        "vnet_dns_query_types_total{network=\"default\",type=\"A\"} 3",
        "vnet_dns_answers_total{network=\"default\",source=\"zone\"} 1",
        // What the outside says is not to be kept.
        "vnet_dns_answers_total{network=\"default\",source=\"upstream\"} 2",
        "vnet_dns_answers_total{network=\"default\",source=\"cache\"} 0",
        "vnet_dns_responses_total{network=\"default\",rcode=\"NOERROR\"} 3",
        "vnet_dns_response_seconds_count{network=\"default\"} 3",
        "vnet_leases{network=\"default\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let line = netd.wait_for_log("name=gateway.default.vnet.", Duration::from_secs(20));
    assert!(line.contains("192.168.122.200") && line.contains("local"), "{line}");
}

#[test]
fn a_dead_first_upstream_costs_one_wait_and_no_more() {
    let (host, _netd, guest) = start();
    // Nobody has this address: what is sent there is lost without a word.
    host.lan.outside.run([
        "ip",
        "neigh",
        "add",
        "203.0.113.77",
        "lladdr",
        "02:00:00:00:00:77",
        "dev",
        "eth0",
    ]);
    host.ns().run([
        "ip",
        "neigh",
        "add",
        "203.0.113.77",
        "lladdr",
        "02:00:00:00:00:77",
        "dev",
        "eth0",
    ]);
    let mut conf = std::fs::File::create(host.resolv_conf()).unwrap();
    write!(conf, "nameserver 203.0.113.77\nnameserver {}\n", Lan::SERVER).unwrap();
    drop(conf);
    assert_eq!(dig(&guest, Lan::SERVER_NAME, "A"), Lan::SERVER.to_string());
    let begun = Instant::now();
    for number in 0..30 {
        let _ = dig(&guest, &format!("x{number}.{}", Lan::SERVER_NAME), "A");
    }
    // Each would wait for 400 ms: 12 s in all.
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}
