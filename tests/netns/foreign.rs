//! Firewalls of others in the way: `vnet check` names what drops, and what it advises helps.

use serde_json::Value;
use vnet_testkit::{Lan, Netd, Udhcpc, ping, ping6, udp_seen_as};
use vnet_types::Mode;

use vnet_tests::{Host, nat, request6};

const BRIDGE_NETFILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// What Docker makes of iptables, with its DOCKER-USER and DOCKER-FORWARD.
const DOCKER: &str = "iptables -N DOCKER-USER; iptables -N DOCKER-FORWARD; iptables -P FORWARD DROP
    iptables -A FORWARD -j DOCKER-USER; iptables -A FORWARD -j DOCKER-FORWARD
    iptables -A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    iptables -A DOCKER-FORWARD -i docker0 -j ACCEPT";

/// What ufw makes of iptables when it is enabled, in the order of its chains.
const UFW: &str = "for chain in before-input user-input before-forward user-forward; do
        iptables -N ufw-$chain; done
    iptables -P INPUT DROP; iptables -P FORWARD DROP
    iptables -A INPUT -j ufw-before-input; iptables -A FORWARD -j ufw-before-forward
    for chain in input forward; do
        iptables -A ufw-before-$chain -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables -A ufw-before-$chain -j ufw-user-$chain; done
    iptables -A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT";

/// firewalld's table with the uplink and all else in the zone `public`.
const FIREWALLD: &str = "table inet firewalld {
    chain filter_FWD_public { reject with icmpx admin-prohibited; }
    chain filter_FORWARD_ZONES { iifname \"eth0\" goto filter_FWD_public; goto filter_FWD_public; }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        iifname \"lo\" accept
        jump filter_FORWARD_ZONES
        reject with icmpx admin-prohibited
    }
}";

pub(crate) fn host_with_default() -> (Host, Netd) {
    let host = Host::new();
    // Where the kernel has br_netfilter in itself, it is on in each new namespace.
    if host.ns().enter(|| std::path::Path::new(BRIDGE_NETFILTER).exists()) {
        host.ns().set_sysctl("net.bridge.bridge-nf-call-iptables", "0");
    }
    let netd = host.netd();
    host.create_default();
    (host, netd)
}

/// The rows of `vnet check` on rules of others.
pub(crate) fn foreign_rules(netd: &Netd) -> Vec<Value> {
    let output = netd.vnet(["check", "--json"]);
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    rows.into_iter().filter(|row| row["name"] == "foreign rules").collect()
}

pub(crate) fn all_pass(rows: &[Value]) -> bool {
    rows.iter().all(|row| row["state"] == "ok")
}

pub(crate) fn commands(rows: &[Value]) -> Vec<&str> {
    let all = rows.iter().flat_map(|row| row["fix"].as_array().unwrap());
    let mut commands: Vec<_> = all.map(|command| command.as_str().unwrap()).collect();
    commands.sort_unstable();
    commands.dedup();
    commands
}

#[test]
fn dockers_policy_is_named_and_its_own_place_for_exceptions_helps() {
    let (host, netd) = host_with_default();
    assert!(all_pass(&foreign_rules(&netd)));
    host.ns().run(["sh", "-ec", DOCKER]);
    let guest = host.lan.guest_on("virbr0");
    Udhcpc::obtain(&guest.ns, "eth0");
    ping(&guest.ns, Lan::SERVER).unwrap_err();
    let rows = foreign_rules(&netd);
    assert_eq!(rows.len(), 2, "{rows:?}");
    for row in &rows {
        let found = row["found"].as_str().unwrap();
        assert!(found.contains("Docker, table ip filter chain FORWARD (its policy)"), "{found}");
        assert_eq!(row["state"], "failed");
    }
    let before = host.ns().run(["iptables", "-S", "FORWARD"]);
    for command in commands(&rows) {
        host.ns().run(["sh", "-ec", command]);
    }
    ping(&guest.ns, Lan::SERVER).unwrap();
    assert!(all_pass(&foreign_rules(&netd)));
    // Nothing but Docker's own place was touched.
    assert_eq!(host.ns().run(["iptables", "-S", "FORWARD"]), before);
}

#[test]
fn ufws_policies_are_named_with_its_commands() {
    let (host, netd) = host_with_default();
    host.ns().run(["sh", "-ec", UFW]);
    let guest = host.lan.guest_on("virbr0");
    // DHCP is beyond the reach of any firewall.
    Udhcpc::obtain(&guest.ns, "eth0");
    ping(&guest.ns, Lan::SERVER).unwrap_err();
    let rows = foreign_rules(&netd);
    assert_eq!(
        commands(&rows),
        [
            "ufw allow in on virbr0 to any port 53",
            "ufw route allow in on virbr0",
            "ufw route allow out on virbr0",
        ]
    );
    // What these commands add to ufw's chains.
    for rule in [
        "ufw-user-input -i virbr0 -p udp --dport 53 -j ACCEPT",
        "ufw-user-input -i virbr0 -p tcp --dport 53 -j ACCEPT",
        "ufw-user-forward -i virbr0 -j ACCEPT",
        "ufw-user-forward -o virbr0 -j ACCEPT",
    ] {
        host.ns().run(["sh", "-ec", &format!("iptables -A {rule}")]);
    }
    assert!(all_pass(&foreign_rules(&netd)), "{:?}", foreign_rules(&netd));
    ping(&guest.ns, Lan::SERVER).unwrap();
    let answer = guest.ns.run(["dig", "+short", "@192.168.122.1", "server.example"]);
    assert_eq!(answer.trim(), Lan::SERVER.to_string());
}

#[test]
fn firewalls_in_nft_are_named_by_chain_and_handle() {
    let (host, netd) = host_with_default();
    host.ns().nft(FIREWALLD);
    let guest = host.lan.guest_on("virbr0");
    Udhcpc::obtain(&guest.ns, "eth0");
    ping(&guest.ns, Lan::SERVER).unwrap_err();
    let rows = foreign_rules(&netd);
    assert_eq!(rows.len(), 1, "{rows:?}");
    let found = rows[0]["found"].as_str().unwrap();
    let listing =
        host.ns().run(["nft", "-a", "list", "chain", "inet", "firewalld", "filter_FWD_public"]);
    let rule = listing.lines().find(|line| line.contains("reject")).unwrap();
    let handle = rule.rsplit("# ").next().unwrap();
    assert!(found.contains("table inet firewalld chain filter_FWD_public"), "{found}");
    assert!(found.ends_with(&format!("rule {handle}")), "{found} but {rule}");
    assert!(commands(&rows)[0].contains("--zone=trusted --add-interface=virbr0"));
    // As in the zone `trusted`.
    host.ns().run(["nft", "insert rule inet firewalld filter_FORWARD_ZONES iifname virbr0 accept"]);
    assert!(all_pass(&foreign_rules(&netd)));
    let server = std::net::SocketAddr::new(Lan::SERVER.into(), 7);
    udp_seen_as(&guest.ns, server).unwrap();
}

#[test]
fn a_rule_of_somebody_with_nft_is_named_with_the_command_that_helps() {
    let (host, netd) = host_with_default();
    host.ns().nft(
        "table inet mine { chain forward { type filter hook forward priority 5; policy drop;\n}\n}",
    );
    let guest = host.lan.guest_on("virbr0");
    Udhcpc::obtain(&guest.ns, "eth0");
    ping(&guest.ns, Lan::SERVER).unwrap_err();
    let rows = foreign_rules(&netd);
    for command in commands(&rows) {
        host.ns().run(["sh", "-ec", command]);
    }
    ping(&guest.ns, Lan::SERVER).unwrap();
    assert!(all_pass(&foreign_rules(&netd)));
}

#[test]
fn br_netfilter_makes_foreign_rules_drop_frames_between_guests_and_that_is_said() {
    let (host, netd) = host_with_default();
    host.ns().set_sysctl("net.bridge.bridge-nf-call-iptables", "1");
    let (one, two) = (host.lan.guest_on("virbr0"), host.lan.guest_on("virbr0"));
    Udhcpc::obtain(&one.ns, "eth0");
    let lease = Udhcpc::obtain(&two.ns, "eth0");
    ping(&one.ns, lease.address).unwrap();
    assert!(all_pass(&foreign_rules(&netd)));
    host.ns().run(["sh", "-ec", DOCKER]);
    ping(&one.ns, lease.address).unwrap_err();
    let rows = foreign_rules(&netd);
    let between = |row: &Value| {
        row["found"].as_str().unwrap().starts_with("frames between guests on virbr0 are dropped")
    };
    assert!(rows.iter().any(between), "{rows:?}");
    for command in commands(&rows) {
        host.ns().run(["sh", "-ec", command]);
    }
    ping(&one.ns, lease.address).unwrap();
    assert!(all_pass(&foreign_rules(&netd)));
}

#[test]
fn whoever_starts_a_network_learns_at_once_what_drops_its_packets_and_what_helps() {
    let (host, netd) = host_with_default();
    // Rules that drop nothing of a network's are not worth a word.
    host.ns().run(["iptables", "-A", "INPUT", "-p", "tcp", "--dport", "23", "-j", "DROP"]);
    // The subnet that was chosen is noted, too.
    let on_rules = |notes: Vec<String>| -> Vec<String> {
        notes.into_iter().filter(|note| note.contains("dropped")).collect()
    };
    assert_eq!(on_rules(host.create(&nat("quiet")).unwrap().notes), Vec::<String>::new());
    host.delete("quiet").unwrap();
    host.ns().run(["sh", "-ec", DOCKER]);
    let changed = host.create(&nat("second")).unwrap();
    let notes = on_rules(changed.notes);
    let [note] = &notes[..] else { panic!("{notes:?}") };
    assert!(note.contains("Docker, table ip filter chain FORWARD (its policy)"), "{note}");
    let commands: Vec<_> = note.split('`').filter(|part| part.starts_with("iptables")).collect();
    assert_eq!(commands.len(), 2, "{note}");
    assert!(netd.log().contains(note), "{}", netd.log());
    for command in commands {
        host.ns().run(["sh", "-ec", command]);
    }
    host.stop("second").unwrap();
    assert_eq!(host.start("second").unwrap().notes, Vec::<String>::new());
    let guest = host.lan.guest_on("virbr1");
    Udhcpc::obtain(&guest.ns, "eth0");
    ping(&guest.ns, Lan::SERVER).unwrap();
    // The other one is still in Docker's way; netd says so when it starts.
    netd.kill9();
    let netd = host.netd();
    assert!(netd.log().contains("iptables -I DOCKER-USER -i virbr0 -j ACCEPT"), "{}", netd.log());
}

#[test]
fn dockers_policy_for_ipv6_is_named_and_its_own_place_helps() {
    let host = Host::dual_stack();
    // Where the kernel has br_netfilter in itself, it is on in each new namespace.
    if host.ns().enter(|| std::path::Path::new(BRIDGE_NETFILTER).exists()) {
        host.ns().set_sysctl("net.bridge.bridge-nf-call-iptables", "0");
        host.ns().set_sysctl("net.bridge.bridge-nf-call-ip6tables", "0");
    }
    let netd = host.netd();
    host.ns().run(["sh", "-ec", &DOCKER.replace("iptables", "ip6tables")]);
    let changed = host.create(&request6(Mode::Nat, "default", "fd12:3456:789a::/64")).unwrap();
    let told = |notes: &[String]| notes.iter().any(|note| note.contains("ip6 filter"));
    assert!(told(&changed.notes), "{:?}", changed.notes);
    let guest = host.lan.guest_on("virbr0");
    guest.ns.ip("addr add fd12:3456:789a::50/64 dev eth0 nodad");
    guest.ns.route("default", "fd12:3456:789a::1");
    ping6(&guest.ns, Lan::SERVER6).unwrap_err();
    let rows = foreign_rules(&netd);
    assert_eq!(
        commands(&rows),
        [
            "ip6tables -I DOCKER-USER -i virbr0 -j ACCEPT",
            "ip6tables -I DOCKER-USER -o virbr0 -j ACCEPT",
        ]
    );
    for command in commands(&rows) {
        host.ns().run(["sh", "-ec", command]);
    }
    ping6(&guest.ns, Lan::SERVER6).unwrap();
    assert!(all_pass(&foreign_rules(&netd)), "{:?}", foreign_rules(&netd));
}
