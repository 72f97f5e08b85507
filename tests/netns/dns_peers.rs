//! Other people's name servers as upstreams: dnsmasq and unbound, in the outside's namespace.

use std::fs::File;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vnet_testkit::Netns;

use vnet_tests::Host;

const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again and again.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "there is no {what} within {PATIENCE:?}");
    }
}

/// A name server of somebody else's, in the outside.
struct Peer {
    child: Child,
    _folder: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    fn start(
        host: &Host,
        address: &str,
        program: &str,
        arguments: &[&str],
        folder: TempDir,
    ) -> Self {
        let outside = &host.lan.outside;
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = outside.command(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let peer = Self { child: command.spawn().unwrap(), _folder: folder };
        // It is asked, rather than its socket looked for: only then its names are read in.
        until(&format!("{program} at {address}"), || {
            let at = format!("@{address}");
            let asked = ["dig", "+time=1", "+tries=1", &at, "ready.example", "TXT"];
            outside.try_run(asked).is_ok_and(|text| text.contains("status: "))
        });
        peer
    }

    fn dnsmasq(host: &Host, address: &str, names: &[&str]) -> Self {
        host.lan.outside.ip(&format!("address add {address}/32 dev lo"));
        let listen = format!("--listen-address={address}");
        let mut arguments = vec!["--keep-in-foreground", "--conf-file=/dev/null", "--user=root"];
        arguments.extend(["--pid-file=", "--no-resolv", "--no-hosts", "--bind-interfaces"]);
        arguments.extend(["--local=//", &listen]);
        arguments.extend(names);
        Self::start(host, address, "dnsmasq", &arguments, tempfile::tempdir().unwrap())
    }

    fn unbound(host: &Host, address: &str, data: &[&str]) -> Self {
        host.lan.outside.ip(&format!("address add {address}/32 dev lo"));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("unbound.conf");
        let data: String = data.iter().map(|one| format!("  local-data: '{one}'\n")).collect();
        let text = format!(
            "server:\n  interface: {address}\n  access-control: 0.0.0.0/0 allow\n  \
             username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  num-threads: 1\n  \
             module-config: \"iterator\"\n  local-zone: \".\" static\n{data}\
             remote-control:\n  control-enable: no\n"
        );
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap().to_owned();
        Self::start(host, address, "unbound", &["-d", "-c", &file], folder)
    }
}

fn definition(dns: &str) -> String {
    format!(
        "name = \"default\"\nmode = \"nat\"\nbridge = \"virbr0\"\nsubnet = \"192.168.122.0/24\"\n\
         domain = \"default.vnet\"\n\n[dns]\n{dns}\n"
    )
}

/// What the network's server says, asked from a machine on the bridge.
fn dig(guest: &Netns, question: &str) -> String {
    let words = ["dig", "+time=6", "+tries=1", "@192.168.122.1"].into_iter();
    guest.run(words.chain(question.split_whitespace()))
}

fn guest(host: &Host) -> Netns {
    let guest = host.lan.guest_on("virbr0").ns;
    guest.address("eth0", "192.168.122.77/24");
    guest
}

const RESOLVERS: [&str; 3] = ["198.51.100.21", "198.51.100.22", "198.51.100.23"];

#[test]
fn a_dead_upstream_costs_one_query_a_moment_and_the_others_nothing() {
    let host = Host::new();
    let [dead, alive, _] = RESOLVERS;
    let _peer = Peer::dnsmasq(&host, alive, &["--address=/example.com/192.0.2.7"]);
    // Nothing comes back from there, not even that nobody is there.
    host.lan.outside.nft(
        "table ip dead { chain in { type filter hook prerouting priority 0; \
         ip daddr 198.51.100.21 drop; }; }",
    );
    host.define("default", &definition(&format!("upstreams = [\"{dead}\", \"{alive}\"]")));
    let _netd = host.netd();
    let guest = guest(&host);
    assert!(dig(&guest, "first.example.com").contains("192.0.2.7"));
    let begun = Instant::now();
    for number in 0..20 {
        let answer = dig(&guest, &format!("n{number}.example.com"));
        assert!(answer.contains("192.0.2.7"), "{answer}");
    }
    // Were each of them to wait for the dead one as the first did, it would be 8 s and more.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn a_domain_is_asked_of_its_own_servers_and_others_are_not() {
    let host = Host::new();
    let [all, corp, _] = RESOLVERS;
    let _all = Peer::dnsmasq(&host, all, &["--address=/#/192.0.2.1"]);
    let _corp = Peer::unbound(&host, corp, &["a.corp.example. 60 IN A 10.9.9.9"]);
    let dns = format!(
        "upstreams = [\"{all}\"]\nrebind_protection = true\n[dns.split]\n\
         \"corp.example\" = [\"{corp}\"]\n\"secret.example\" = []"
    );
    host.define("default", &definition(&dns));
    let _netd = host.netd();
    let guest = guest(&host);
    let short = |question: &str| dig(&guest, &format!("+short {question}")).trim().to_owned();
    assert_eq!(short("a.corp.example"), "10.9.9.9", "it may be private");
    assert_eq!(short("a.corp.example.com"), "192.0.2.1");
    assert!(dig(&guest, "b.corp.example").contains("NXDOMAIN"));
    assert!(dig(&guest, "a.secret.example").contains("NXDOMAIN"));
    // Names that are nobody's outside stay here: dnsmasq would know them all.
    for name in ["web", "x.default.vnet", "x.vnet", "x.test", "x.home.arpa", "x.local", "x.onion"] {
        let answer = dig(&guest, name);
        assert!(answer.contains("NXDOMAIN"), "{answer}");
    }
    for address in ["10.1.1.1", "172.20.1.1", "192.168.7.7", "169.254.1.1", "fd00::7", "fe80::7"] {
        let answer = dig(&guest, &format!("-x {address}"));
        assert!(answer.contains("NXDOMAIN"), "{answer}");
    }
}

#[test]
fn large_answers_and_dnssecs_records_pass_as_they_are() {
    let host = Host::new();
    let [unbound, _, _] = RESOLVERS;
    let text = "x".repeat(250);
    let texts: Vec<_> =
        (0..9).map(|number| format!("big.example. 60 IN TXT \"{number}{text}\"")).collect();
    let mut data: Vec<&str> = texts.iter().map(String::as_str).collect();
    data.extend([
        "signed.example. 60 IN A 192.0.2.9",
        "signed.example. 60 IN RRSIG A 13 2 60 20370101000000 20260101000000 1 example. c2lnbmF0dXJl",
        "odd.example. 60 IN TYPE65280 \\# 4 0a0b0c0d",
    ]);
    let _peer = Peer::unbound(&host, unbound, &data);
    host.define("default", &definition(&format!("upstreams = [\"{unbound}\"]")));
    let _netd = host.netd();
    let guest = guest(&host);
    let cut = dig(&guest, "+ignore big.example TXT");
    assert!(cut.contains("flags: qr tc") && cut.contains("ANSWER: 0"), "{cut}");
    let whole = dig(&guest, "big.example TXT");
    assert!(whole.contains("ANSWER: 9") && whole.contains("(TCP)"), "{whole}");
    let odd = dig(&guest, "odd.example TYPE65280");
    assert!(odd.contains("0A0B0C0D"), "{odd}");
    let signature = dig(&guest, "+dnssec signed.example RRSIG");
    assert!(signature.contains("c2lnbmF0dXJl") && signature.contains("flags: do"), "{signature}");
}

#[test]
fn what_was_known_is_given_while_nobody_can_be_asked() {
    let host = Host::new();
    let [only, _, _] = RESOLVERS;
    let peer = Peer::unbound(&host, only, &["short.example. 1 IN A 192.0.2.9"]);
    host.define("default", &definition(&format!("upstreams = [\"{only}\"]")));
    let _netd = host.netd();
    let guest = guest(&host);
    assert!(dig(&guest, "short.example").contains("192.0.2.9"));
    drop(peer);
    let stale = |answer: &str| answer.contains("30\tIN\tA\t192.0.2.9");
    until("an answer that has expired (RFC 8767)", || stale(&dig(&guest, "short.example")));
}

#[test]
fn records_of_a_definition_count_when_it_is_edited() {
    let host = Host::new();
    let netd = host.netd();
    host.create_default();
    let guest = guest(&host);
    let path = host.root.path().join("new.toml");
    let dns = "hosts.wiki = [\"192.168.122.9\"]\ncname.www = \"wiki\"\ntxt.\"@\" = [\"v=spf1 -all\"]\n\
         mx.\"@\" = [{ preference = 10, target = \"wiki\" }]\n\
         srv.\"_ldap._tcp\" = [{ port = 389, target = \"wiki\" }]";
    std::fs::write(&path, definition(dns)).unwrap();
    let file = path.to_str().unwrap();
    netd.vnet_ok(["edit", "default", "--file", file]);
    for (question, answers) in [
        ("www.default.vnet", "wiki.default.vnet.\n192.168.122.9"),
        ("default.vnet TXT", "\"v=spf1 -all\""),
        ("default.vnet MX", "10 wiki.default.vnet."),
        ("_ldap._tcp.default.vnet SRV", "0 0 389 wiki.default.vnet."),
        ("-x 192.168.122.9", "wiki.default.vnet."),
    ] {
        assert_eq!(dig(&guest, &format!("+short {question}")).trim(), answers, "{question}");
    }
    std::fs::write(&path, definition("cname.www = \"wiki\"\nhosts.www = [\"192.168.122.9\"]"))
        .unwrap();
    let (status, said) = netd.vnet_fails(["edit", "default", "--file", file]);
    assert_eq!(status, 1);
    assert!(said.contains("line 8, column") && said.contains("`www`"), "{said}");
    assert!(dig(&guest, "+short www.default.vnet").contains("192.168.122.9"), "as before");
}
