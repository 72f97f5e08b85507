//! netd killed after each operation while a port is published, and while it is no more: what netd
//! says it publishes is what the firewall holds, in each mode that publishes, over IPv4 and IPv6.

use vnet_api::client::{ClientError, Run};
use vnet_api::model::{CreateNetwork, ErrorKind};
use vnet_testkit::HostState;
use vnet_types::{Forward, Mode};

use crate::crash::dies_at_every_operation;
use vnet_tests::{Host, nat, refusal, request, request6, wait};

const FOUR: &str = "192.168.122.9";
const PREFIX: &str = "fd12:3456:789a::/64";
const SIX: &str = "fd12:3456:789a::9";

/// A network, and the guest's address behind its published port.
struct Case {
    network: CreateNetwork,
    target: &'static str,
}

/// Publishes a port of the NAT network `default`.
pub(crate) fn add(host: &Host) -> Result<(), ClientError> {
    Case { network: nat("default"), target: FOUR }.add(host)
}

fn cases() -> [Case; 4] {
    [
        Case { network: nat("default"), target: FOUR },
        Case { network: request(Mode::Routed, "default"), target: FOUR },
        Case { network: request6(Mode::Nat, "default", PREFIX), target: SIX },
        Case { network: request6(Mode::Routed, "default", PREFIX), target: SIX },
    ]
}

impl Case {
    fn forward(&self) -> Forward {
        let (listen, target) = match self.target {
            SIX => ("[::]:8080", format!("[{SIX}]:80")),
            four => ("8080", format!("{four}:80")),
        };
        Forward::new(listen.parse().unwrap(), target.parse().unwrap())
    }

    fn create(&self, host: &Host) {
        host.create(&self.network).unwrap();
    }

    fn add(&self, host: &Host) -> Result<(), ClientError> {
        wait(host.client().add_forward(&self.network.name, &self.forward(), Run::Real)).map(drop)
    }

    fn remove(&self, host: &Host) -> Result<(), ClientError> {
        let listen = self.forward().listen();
        wait(host.client().remove_forward(&self.network.name, &listen, Run::Real)).map(drop)
    }

    fn is_whole(&self, host: &Host) -> bool {
        let said = !wait(host.client().forwards(None)).unwrap().is_empty();
        let rules = host.ns().run(["nft", "list", "table", "inet", "vnet"]);
        let held = rules.contains(&format!("tcp . 8080 : {}", self.target));
        // The kernel leads nothing from ::1 elsewhere, so that needs no setting.
        let localnet = host.ns().sysctl("net.ipv4.conf.virbr0.route_localnet") == "1";
        said == held && localnet == (said && self.target == FOUR)
    }
}

#[test]
fn while_it_publishes_a_port() {
    for case in cases() {
        let operations = dies_at_every_operation(
            |host| case.create(host),
            |host| case.add(host),
            |host| case.is_whole(host),
        );
        assert!(operations > 1, "only {operations} operations for {}", case.target);
    }
}

#[test]
fn while_it_publishes_a_port_no_more() {
    for case in cases() {
        let operations = dies_at_every_operation(
            |host| {
                case.create(host);
                case.add(host).unwrap();
            },
            |host| case.remove(host),
            |host| case.is_whole(host),
        );
        assert!(operations > 1, "only {operations} operations for {}", case.target);
    }
}

#[test]
fn a_port_of_a_hostonly_network_is_refused_before_the_first_operation() {
    let host = Host::new();
    {
        let _netd = host.netd();
        host.create(&request(Mode::Hostonly, "default")).unwrap();
    }
    let before = HostState::of(host.ns());
    // The first netd that gets through its start would die of the next operation.
    let next =
        |operations: u32| host.try_netd(&[("VNET_CRASH_AFTER", &operations.to_string())]).ok();
    let _netd = (1..20).find_map(next).unwrap();
    let case = Case { network: request(Mode::Hostonly, "default"), target: FOUR };
    let (kind, text) = refusal(case.add(&host));
    assert!(text.contains("hostonly"), "{kind:?} {text}");
    assert_ne!(kind, ErrorKind::Failed);
    assert_eq!(host.network("default").state, vnet_api::model::State::Active);
    assert!(host.network("default").definition.forwards.is_empty());
    before.assert_same(&HostState::of(host.ns()));
}
