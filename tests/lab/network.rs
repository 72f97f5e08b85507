//! A stock kernel on vnet's networks, in each of their modes.

use vnet_tests::{Host, request};
use vnet_types::Mode;

use crate::machine::{Ended, Machine};

/// What every guest does first: DHCP, with busybox' client.
const DHCP: &str = "
cat >/tmp/bound <<'END'
#!/bin/busybox sh
case $1 in
bound)
    ip addr add $ip/$mask dev $interface
    [ -z \"$router\" ] || ip route add default via $router
    echo \"nameserver $dns\" >/etc/resolv.conf
    echo address $ip
    echo gateway $router
    ;;
esac
END
chmod +x /tmp/bound
ip link set lo up
ip link set eth0 up
udhcpc -i eth0 -q -n -t 10 -T 2 -s /tmp/bound 2>/dev/null || echo no lease
";

/// Asks the server outside for a page, and says who it saw.
const OUTSIDE: &str = "
page=$(printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 10 nc -w 5 198.51.100.10 80 2>/dev/null | tail -n 1)
echo outside ${page:-unreachable}
";

fn boot(host: &Host, net: &str, more: &str) -> Ended {
    let name = net.replace(':', "-");
    Machine::new(&name).on(host).with(&["--net", net]).run(&format!("{DHCP}{OUTSIDE}{more}")).well()
}

#[test]
fn a_guest_on_nat_gets_its_address_and_reaches_the_outside_as_the_host() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let more = "
nslookup server.example >/dev/null 2>&1 && echo resolved
echo mtu $(cat /sys/class/net/eth0/mtu)
echo carrier $(cat /sys/class/net/eth0/carrier)
";
    let ended = boot(&host, "nat:default", more);
    let lease = &host.leases()[0];
    assert_eq!(ended.value("address"), lease.address.to_string());
    assert!(ended.value("outside").contains("203.0.113.2"), "{ended}");
    assert_eq!((ended.value("mtu"), ended.value("carrier")), ("1500", "1"));
    ended.says("resolved");
}

#[test]
fn a_guest_on_hostonly_reaches_the_gateway_and_nothing_beyond() {
    let host = Host::new();
    let _netd = host.netd();
    host.create(&request(Mode::Hostonly, "lab")).unwrap();
    let more = "ping -c 1 -W 5 $(ip route | sed -n 's/.*src \\(.*\\)\\.[0-9]* *$/\\1.1/p') >/dev/null && echo pinged";
    let ended = boot(&host, "hostonly:lab", more);
    ended.says("pinged").says("outside unreachable");
}

#[test]
fn a_guest_on_a_routed_network_is_seen_by_its_own_address() {
    let host = Host::new();
    let _netd = host.netd();
    let created = host.create(&request(Mode::Routed, "lab")).unwrap().network.unwrap();
    let subnet = created.definition.subnet.to_string();
    host.lan.outside.route(&subnet, "203.0.113.2");
    let ended = boot(&host, "routed:lab", "");
    assert!(ended.value("outside").contains(ended.value("address")), "{ended}");
}

/// Both ways through one card, with as many processors as cards have queues.
#[test]
fn a_guest_moves_data_both_ways_and_every_byte_arrives() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let mut server = host
        .ns()
        .command("iperf3")
        .args(["-s", "-1"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let work = format!(
        "{DHCP}
for way in '' -R; do
    iperf3 -c 192.168.122.1 -t 3 $way --connect-timeout 5000 >/tmp/out 2>&1 || cat /tmp/out
    echo speed$way $(sed -n 's/.* \\([0-9.]* [GM]bits\\).*receiver.*/\\1/p' /tmp/out)
    sleep 1
done
echo queues $(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)
"
    );
    let restart = host.ns().clone();
    let machine =
        Machine::new("iperf").on(&host).with(&["--net", "nat:default", "--cpus", "2"]).start(&work);
    machine.wait_for("speed ");
    server.wait().unwrap();
    let mut server = restart
        .command("iperf3")
        .args(["-s", "-1"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let ended = machine.end().well();
    server.kill().unwrap();
    server.wait().unwrap();
    for way in ["speed", "speed-R"] {
        assert!(ended.value(way).contains("bits"), "{ended}");
    }
    // The driver uses as many pairs as there are processors.
    assert_eq!(ended.value("queues"), "2");
    let nic = &ended.report["nics"][0];
    assert_eq!((&nic["malformed"], &nic["rx_dropped"]), (&0.into(), &0.into()), "{ended}");
}

/// Linux' driver spins, with its processor, until a command has been answered.
#[test]
fn every_command_to_a_card_is_answered() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let work = "
ip link set eth0 up
n=0
while [ $n -lt 150 ]; do
    ip link set eth0 promisc on
    ip link set eth0 promisc off
    n=$((n + 1))
done
echo times $n
";
    let ended = Machine::new("commands").on(&host).with(&["--net", "nat:default"]).run(work).well();
    assert_eq!(ended.value("times"), "150");
    assert!(ended.report["nics"][0]["commands"].as_u64().unwrap() >= 600, "{ended}");
}
