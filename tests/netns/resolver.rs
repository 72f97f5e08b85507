//! What systemd-resolved has for the uplink goes with it, and comes back, and names of guests are
//! asked at their network: a real one, with its own bus, in the host's namespace.

use std::time::Duration;

use vnet_api::client::{ClientError, Guests, Run};
use vnet_api::model::{BridgeChanged, EnslaveUplink};
use vnet_testkit::{Lan, Netd, Running, Userland};

use vnet_tests::{Host, network, wait};

const RESOLVED: &str = "/usr/lib/systemd/systemd-resolved";
/// More steps than anything here has.
const MANY: u32 = 40;

/// A host whose resolved asks the outside's server, by way of the uplink.
struct Resolving {
    host: Host,
    files: Userland,
    _daemons: [Running; 2],
}

impl Resolving {
    fn new() -> Self {
        let (host, files) = (Host::new(), Userland::with(RESOLVED));
        files.write("/etc/resolv.conf", "");
        files.write("/etc/systemd/resolved.conf", "[Resolve]\nFallbackDNS=\nDNSStubListener=no\n");
        let bus = files.bus(host.ns());
        let resolved = files.daemon(
            host.ns(),
            RESOLVED,
            "busctl --auto-start=no status \
                                                          org.freedesktop.resolve1",
        );
        let this = Self { host, files, _daemons: [bus, resolved] };
        for line in [
            format!("dns eth0 {} 203.0.113.9:5353#dns.example", Lan::SERVER),
            "domain eth0 lan.example ~example".to_owned(),
            "default-route eth0 no".to_owned(),
            "llmnr eth0 resolve".to_owned(),
            "dnsovertls eth0 opportunistic".to_owned(),
            "nta eth0 lan.example".to_owned(),
        ] {
            this.resolvectl(&line);
        }
        this
    }

    fn resolvectl(&self, line: &str) -> String {
        self.files.run(self.host.ns(), &format!("resolvectl {line}"))
    }

    /// A netd that finds resolved.
    fn netd(&self, environment: &[(&str, &str)]) -> anyhow::Result<Netd> {
        Netd::try_start_with(self.host.ns(), self.host.root.path(), |command| {
            command.arg("--resolv-conf").arg(self.host.resolv_conf()).args(["--log", "debug"]);
            self.files.enter(command.envs(environment.iter().copied()));
        })
    }

    /// What resolved has for a link, without its name and number.
    fn settings(&self, link: &str) -> Vec<String> {
        let settings =
            ["dns", "domain", "default-route", "llmnr", "mdns", "dnsovertls", "dnssec", "nta"];
        let of = |setting: &&str| {
            let text = self.resolvectl(&format!("{setting} {link}"));
            format!("{setting}:{}", text.split_once(':').unwrap().1.trim_end())
        };
        settings.iter().map(of).collect()
    }

    fn enslave(
        &self,
        confirm_seconds: Option<u64>,
        run: Run,
    ) -> Result<BridgeChanged, ClientError> {
        let request = EnslaveUplink {
            bridge: "br0".parse().unwrap(),
            uplink: "eth0".parse().unwrap(),
            name: Some(network("lan")),
            mtu: None,
            confirm_seconds,
        };
        wait(self.host.client().enslave(&request, run))
    }

    fn release(&self) -> Result<BridgeChanged, ClientError> {
        let (bridge, uplink) = ("br0".parse().unwrap(), "eth0".parse().unwrap());
        wait(self.host.client().release(&bridge, &uplink, Guests::Respect, Run::Real))
    }
}

#[test]
fn what_resolved_has_for_the_uplink_goes_with_it_and_comes_back() {
    let resolving = Resolving::new();
    let _netd = resolving.netd(&[]).unwrap();
    let was = resolving.settings("eth0");
    let bare = resolving.settings("lo");
    assert!(was[0].contains("198.51.100.10 203.0.113.9:5353#dns.example"), "{was:?}");
    assert_eq!(was[1], "domain: lan.example ~example");
    let name = format!("query {}", Lan::SERVER_NAME);
    assert!(resolving.resolvectl(&name).contains("198.51.100.10"));

    let dry = resolving.enslave(None, Run::Dry).unwrap().plan.join("\n");
    let step = "have systemd-resolved know for br0: DNS servers 198.51.100.10 \
                203.0.113.9:5353#dns.example, domains lan.example ~example";
    assert!(dry.contains(step), "{dry}");
    assert_eq!(resolving.settings("eth0"), was);

    let changed = resolving.enslave(None, Run::Real).unwrap();
    assert!(!changed.notes.join("\n").contains("systemd-resolved"), "{:?}", changed.notes);
    assert_eq!(resolving.settings("br0"), was);
    assert_eq!(resolving.settings("eth0")[..2], bare[..2]);
    resolving.resolvectl("flush-caches");
    let answer = resolving.resolvectl(&name);
    assert!(answer.contains("198.51.100.10") && answer.contains("link: br0"), "{answer}");

    // What somebody sets meanwhile is the host's own, too.
    resolving.resolvectl("domain br0 lan.example new.example");
    let set = resolving.settings("br0");
    resolving.release().unwrap();
    assert_eq!(resolving.settings("eth0"), set);
    resolving.resolvectl("flush-caches");
    resolving.resolvectl("domain eth0 ~.");
    assert!(resolving.resolvectl(&name).contains("link: eth0"));
}

#[test]
fn a_move_that_is_not_confirmed_leaves_resolved_as_it_was() {
    let resolving = Resolving::new();
    let netd = resolving.netd(&[]).unwrap();
    let was = resolving.settings("eth0");
    resolving.enslave(Some(1), Run::Real).unwrap();
    netd.wait_for_log("br0 was not confirmed in time", Duration::from_secs(20));
    assert_eq!(wait(resolving.host.client().bridges()).unwrap(), []);
    assert_eq!(resolving.settings("eth0"), was);
}

#[test]
fn a_bridge_with_servers_of_its_own_keeps_them() {
    let resolving = Resolving::new();
    let ns = resolving.host.ns();
    ns.bridge("br0");
    resolving.resolvectl("dns br0 10.55.0.53");
    let (eth0, br0) = (resolving.settings("eth0"), resolving.settings("br0"));
    let _netd = resolving.netd(&[]).unwrap();
    resolving.enslave(None, Run::Real).unwrap();
    let both = resolving.settings("br0");
    assert!(both[0].contains("10.55.0.53 198.51.100.10 203.0.113.9:5353"), "{both:?}");
    resolving.release().unwrap();
    assert_eq!((resolving.settings("eth0"), resolving.settings("br0")), (eth0, br0));
}

#[test]
fn netd_killed_at_every_step_leaves_servers_where_the_addresses_are() {
    let resolving = Resolving::new();
    let was = resolving.settings("eth0");
    let dies_at_every_step =
        |prepare: &dyn Fn(), act: &dyn Fn() -> Result<BridgeChanged, ClientError>| {
            for survived in 1..MANY {
                {
                    let _netd = resolving.netd(&[]).unwrap();
                    prepare();
                }
                let netd = resolving.netd(&[("VNET_CRASH_AFTER", &survived.to_string())]);
                let acted = netd.as_ref().ok().map(|_| act());
                drop(netd);
                let _netd = resolving.netd(&[]).unwrap();
                let up = !wait(resolving.host.client().bridges()).unwrap().is_empty();
                let link = if up { "br0" } else { "eth0" };
                assert_eq!(resolving.settings(link), was, "{link}, after {survived} steps");
                if up {
                    let empty = "dns:";
                    assert_eq!(resolving.settings("eth0")[0], empty, "after {survived} steps");
                    resolving.release().unwrap();
                }
                assert_eq!(resolving.settings("eth0"), was, "after {survived} steps");
                if matches!(acted, Some(Ok(_))) {
                    return survived;
                }
            }
            panic!("netd died {MANY} times");
        };
    let enslave = || resolving.enslave(None, Run::Real);
    assert!(dies_at_every_step(&|| (), &enslave) > 9);
    assert!(dies_at_every_step(&|| drop(enslave().unwrap()), &|| resolving.release()) > 6);
}

#[test]
fn the_host_resolves_guests_through_resolved_and_asks_their_network_nothing_else() {
    let resolving = Resolving::new();
    let netd = resolving.netd(&[]).unwrap();
    netd.vnet_ok(["create", "nat", "default"]);
    netd.vnet_ok([
        "reserve",
        "default",
        "--mac",
        "52:54:00:00:00:10",
        "--ip",
        "192.168.122.9",
        "--name",
        "web",
    ]);
    // resolved uses no link without a carrier; a bridge has one from its first guest on.
    let _guest = resolving.host.lan.guest_on("virbr0");
    // netd does not wait for resolved, and resolved takes its time to hear of a new link.
    let query = |name: &str| {
        resolving.files.try_run(resolving.host.ns(), &format!("resolvectl query {name}"))
    };
    let eventually = |name: &str| {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            match query(name) {
                Ok(answer) => return answer,
                Err(reason) => assert!(std::time::Instant::now() < deadline, "{name}: {reason}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let answer = eventually("web.default.vnet");
    assert!(answer.contains("192.168.122.9") && answer.contains("link: virbr0"), "{answer}");
    let virbr0 = resolving.settings("virbr0");
    assert_eq!(virbr0[1..3], ["domain: ~default.vnet", "default-route: no"]);
    // Other names go the host's own way.
    resolving.resolvectl("domain eth0 ~.");
    assert!(resolving.resolvectl(&format!("query {}", Lan::SERVER_NAME)).contains("link: eth0"));
    let path = resolving.host.paths().network(&network("default"));
    let text = std::fs::read_to_string(path).unwrap().replace("default.vnet", "lab.vnet");
    wait(resolving.host.client().edit(&network("default"), text, Run::Real)).unwrap();
    assert!(eventually("web.lab.vnet").contains("192.168.122.9"));
}

#[test]
fn a_resolved_of_another_namespace_is_left_alone() {
    let resolving = Resolving::new();
    let was = resolving.settings("eth0");
    // The same numbers of links, in another namespace.
    let other = Host::new();
    let _netd = Netd::try_start_with(other.ns(), other.root.path(), |command| {
        command.arg("--resolv-conf").arg(other.resolv_conf()).args(["--log", "debug"]);
        resolving.files.enter(command);
    })
    .unwrap();
    let index = |host: &Host| host.ns().json("link show eth0")[0]["ifindex"].clone();
    assert_eq!(index(&other), index(&resolving.host));
    let request = EnslaveUplink {
        bridge: "br0".parse().unwrap(),
        uplink: "eth0".parse().unwrap(),
        name: None,
        mtu: None,
        confirm_seconds: None,
    };
    let changed = wait(other.client().enslave(&request, Run::Real)).unwrap();
    assert!(!changed.plan.join("\n").contains("resolved"), "{:?}", changed.plan);
    assert_eq!(resolving.settings("eth0"), was);
}
