//! What cannot be done is refused in one clear message, and leaves the host as it was.

use std::net::TcpListener;

use vnet_api::client::{ClientError, Run};
use vnet_api::model::{CreateNetwork, ErrorKind, State};
use vnet_testkit::HostState;

use vnet_tests::{Host, nat, network, refusal, request, wait};
use vnet_types::{LinkLimits, Mode};

const DEFINITION: &str = r#"name = "default"
mode = "nat"
bridge = "virbr0"
subnet = "192.168.122.0/24"
domain = "default.vnet"

[dhcp]
range = "192.168.122.2-192.168.122.254"
"#;

/// netd refuses `request` with a message that has all of `words`, and nothing has changed.
fn refuses(host: &Host, request: &CreateNetwork, kind: ErrorKind, words: &[&str]) {
    let before = HostState::of(host.ns());
    let (found, text) = refusal(host.create(request));
    assert_eq!(found, kind, "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    before.assert_same(&HostState::of(host.ns()));
    assert!(!host.paths().network(&request.name).exists());
}

#[test]
fn a_network_that_exists() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let before = HostState::of(host.ns());
    let (kind, text) = refusal(host.create(&nat("default")));
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(text.contains("there is a network default already"), "{text}");
    before.assert_same(&HostState::of(host.ns()));
}

#[test]
fn a_subnet_that_clashes_with_the_host() {
    let host = Host::new();
    let _netd = host.netd();
    let mut request = nat("default");
    request.subnet = Some("203.0.0.0/16".parse().unwrap());
    refuses(&host, &request, ErrorKind::Conflict, &["203.0.113.2/24", "eth0", "is free"]);
    host.ns().route("10.7.0.0/16", "203.0.113.1");
    request.subnet = Some("10.7.7.0/24".parse().unwrap());
    refuses(&host, &request, ErrorKind::Conflict, &["route to 10.7.0.0/16", "eth0"]);
}

#[test]
fn the_usual_subnet_is_taken_so_the_next_is_chosen_and_said() {
    let host = Host::new();
    let _netd = host.netd();
    host.ns().route("192.168.122.0/24", "203.0.113.1");
    let changed = host.create(&nat("default")).unwrap();
    assert_eq!(changed.network.unwrap().definition.subnet.to_string(), "192.168.123.0/24");
    let note = &changed.notes[0];
    assert!(note.contains("192.168.123.0/24") && note.contains("192.168.122.0/24"), "{note}");
}

#[test]
fn a_range_outside_its_subnet() {
    let host = Host::new();
    let _netd = host.netd();
    let mut request = nat("default");
    request.subnet = Some("10.1.0.0/24".parse().unwrap());
    request.range = Some("10.1.1.2-10.1.1.9".parse().unwrap());
    refuses(&host, &request, ErrorKind::Invalid, &["10.1.1.2-10.1.1.9", "10.1.0.0/24", "within"]);
}

#[test]
fn a_bridge_that_is_somebody_elses() {
    let host = Host::new();
    let _netd = host.netd();
    host.ns().ip("link add br9 type bridge");
    let mut request = nat("default");
    request.bridge = Some("br9".parse().unwrap());
    refuses(&host, &request, ErrorKind::Conflict, &["br9", "already"]);
}

#[test]
fn the_dns_port_is_taken() {
    let host = Host::new();
    let _netd = host.netd();
    let _taken = host.ns().enter(|| TcpListener::bind("0.0.0.0:53").unwrap());
    refuses(&host, &nat("default"), ErrorKind::Failed, &["DNS", "virbr0", "192.168.122.1:53"]);
}

#[test]
fn a_dns_server_on_another_address_is_no_obstacle() {
    let host = Host::new();
    let _netd = host.netd();
    let _other = host.ns().enter(|| TcpListener::bind("127.0.0.53:53").unwrap());
    host.create_default();
}

#[test]
fn no_nft() {
    let host = Host::new();
    let before = HostState::of(host.ns());
    // What is found first under the library's name is no library.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("libnftables.so.1"), "").unwrap();
    let path = folder.path().to_str().unwrap();
    let text = match host.try_netd(&[("LD_LIBRARY_PATH", path)]) {
        Ok(_) => panic!("netd started without nftables"),
        Err(error) => format!("{error:#}"),
    };
    assert!(text.contains("libnftables.so.1") && text.contains("file too short"), "{text}");
    assert!(text.contains("install the package nftables"), "{text}");
    before.assert_same(&HostState::of(host.ns()));
}

#[test]
fn two_netds_in_one_namespace() {
    let host = Host::new();
    let _netd = host.netd();
    let text = format!("{:#}", host.try_netd(&[]).err().unwrap());
    assert!(text.contains("another netd runs in this network namespace"), "{text}");
}

#[test]
fn two_netds_with_one_root() {
    let host = Host::new();
    let _netd = host.netd();
    let elsewhere = vnet_testkit::Netns::new();
    let result = vnet_testkit::Netd::try_start_with(&elsewhere, host.root.path(), |_| {});
    let text = format!("{:#}", result.err().unwrap());
    assert!(text.contains("another netd has") && text.contains("--root"), "{text}");
    host.create_default();
}

#[test]
fn an_uplink_that_is_not_there() {
    let host = Host::new();
    let _netd = host.netd();
    let mut request = nat("default");
    request.uplink = Some("eth9".parse().unwrap());
    refuses(&host, &request, ErrorKind::Conflict, &["eth9", "uplink"]);
}

#[test]
fn two_networks_with_one_domain() {
    let host = Host::new();
    let _netd = host.netd();
    host.create(&nat("a-b")).unwrap();
    refuses(&host, &nat("a_b"), ErrorKind::Conflict, &["a-b.vnet", "--domain"]);
}

#[test]
fn an_mtu_at_either_bound_works() {
    let host = Host::new();
    let _netd = host.netd();
    for (name, mtu) in [("small", 576), ("large", 65521)] {
        let mut request = nat(name);
        request.mtu = Some(mtu);
        let network = host.create(&request).unwrap().network.unwrap();
        let link = &host.ns().json(&format!("link show {}", network.definition.bridge))[0];
        assert_eq!(link["mtu"], mtu);
    }
}

#[test]
fn a_broken_definition_hides_no_other_and_is_named_with_its_line() {
    let host = Host::new();
    host.define("default", DEFINITION);
    host.define("broken", &DEFINITION.replace("bridge =", "brigde ="));
    let netd = host.netd();
    assert_eq!(host.network("default").state, State::Active);
    let line = netd.wait_for_log("broken.toml", std::time::Duration::from_secs(5));
    assert!(line.contains("line 3"), "{line}");
    let (kind, text) = refusal(wait(host.client().network(&network("broken"))));
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(text.contains("broken.toml") && text.contains("brigde"), "{text}");
    let (_, text) = refusal(host.create(&nat("broken")));
    assert!(text.contains("broken.toml is there, but cannot be used"), "{text}");
}

#[test]
fn a_definition_that_clashes_at_start_is_failed_and_hinders_no_other() {
    let host = Host::new();
    host.define("default", DEFINITION);
    host.define(
        "other",
        &DEFINITION
            .replace("default", "other")
            .replace("virbr0", "virbr1")
            .replace("192.168.122", "192.168.130"),
    );
    host.ns().route("192.168.122.0/24", "203.0.113.1");
    let _netd = host.netd();
    assert_eq!(host.network("other").state, State::Active);
    match host.network("default").state {
        State::Failed { reason } => assert!(reason.contains("192.168.122.0/24"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let (kind, text) = refusal(host.start("default"));
    assert_eq!(kind, ErrorKind::Conflict, "{text}");
    host.ns().ip("route del 192.168.122.0/24");
    host.start("default").unwrap();
}

#[test]
fn a_name_that_is_not_there() {
    let host = Host::new();
    let _netd = host.netd();
    for result in [host.delete("x"), host.start("x"), host.stop("x")] {
        let (kind, text) = refusal(result);
        assert_eq!(kind, ErrorKind::NotFound);
        assert!(text.contains("there is no network x") && text.contains("vnet list"), "{text}");
    }
}

#[test]
fn a_dry_run_changes_nothing() {
    let host = Host::new();
    let _netd = host.netd();
    let before = HostState::of(host.ns());
    let changed = wait(host.client().create(&nat("default"), Run::Dry)).unwrap();
    assert!(
        changed
            .plan
            .iter()
            .any(|step| step == "create bridge virbr0 with address 52:54:00:23:d4:c0"),
        "{:?}",
        changed.plan
    );
    before.assert_same(&HostState::of(host.ns()));
    assert!(!host.paths().network(&network("default")).exists());
    host.create_default();
}

/// A port on the network, held until it is dropped.
fn guest_on_default(host: &Host) -> impl Sized {
    let request = vnet_api::ports::Request::Attach {
        network: network("default"),
        domain: "web".parse().unwrap(),
        nic: 0,
        mac: "52:54:00:00:00:09".parse().unwrap(),
        queues: 1,
        limits: LinkLimits::default(),
    };
    let opened =
        vnet_api::ports::PortConnection::open(&host.paths().ports_socket(), &request).unwrap();
    host.ns().settle("virbr0");
    opened
}

/// The definitions and the ledger, byte by byte.
fn files(host: &Host) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(host.paths().networks())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .chain([host.paths().ledger()])
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn every_refusal_leaves_the_host_as_it_was() {
    let host = Host::new();
    let _netd = host.netd();
    host.ns().ip("link add br9 type bridge");
    host.ns().ip("neigh add 203.0.113.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent");
    host.create_default();
    host.create(&request(Mode::Hostonly, "closed")).unwrap();
    host.create(&nat("down")).unwrap();
    host.stop("down").unwrap();
    let _guest = guest_on_default(&host);
    let _taken = host.ns().enter(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    let (client, default) = (host.client(), network("default"));
    let text = std::fs::read_to_string(host.paths().network(&default)).unwrap();
    let create = |change: &dyn Fn(&mut CreateNetwork)| {
        let mut request = nat("new");
        change(&mut request);
        host.create(&request).map(drop)
    };
    let edit = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        wait(client.edit(&default, text.replace(from, to), Run::Real)).map(drop)
    };
    let forward = |network: &str, listen: &str, target: &str| {
        let forward = vnet_types::Forward::new(listen.parse().unwrap(), target.parse().unwrap());
        wait(client.add_forward(&network.parse().unwrap(), &forward, Run::Real)).map(drop)
    };
    let reserve = |network: &str, mac: &str, ip: &str| {
        let reserve = vnet_api::model::Reserve { ip: ip.parse().ok(), ip6: None, hostname: None };
        let network = network.parse().unwrap();
        wait(client.reserve(&network, mac.parse().unwrap(), &reserve, Run::Real)).map(drop)
    };
    type Attempt<'a> = Box<dyn Fn() -> Result<(), ClientError> + 'a>;
    let attempts: Vec<(&str, Attempt<'_>)> = vec![
        ("create: exists", Box::new(|| create(&|new| new.name = network("default")))),
        ("create: subnet", Box::new(|| create(&|new| new.subnet = "203.0.0.0/16".parse().ok()))),
        (
            "create: other network",
            Box::new(|| create(&|new| new.subnet = "192.168.122.0/24".parse().ok())),
        ),
        ("create: range", Box::new(|| create(&|new| new.range = "10.1.1.2-10.1.1.9".parse().ok()))),
        ("create: bridge", Box::new(|| create(&|new| new.bridge = "br9".parse().ok()))),
        ("create: uplink", Box::new(|| create(&|new| new.uplink = "eth9".parse().ok()))),
        ("create: mtu", Box::new(|| create(&|new| new.mtu = Some(9)))),
        ("create: domain", Box::new(|| create(&|new| new.domain = "default.vnet".parse().ok()))),
        ("edit: no TOML", Box::new(|| edit("mode", "mode mode"))),
        ("edit: unknown key", Box::new(|| edit("autostart", "autostrat"))),
        ("edit: name", Box::new(|| edit("name = \"default\"", "name = \"other\""))),
        ("edit: bridge", Box::new(|| edit("\"virbr0\"", "\"br9\""))),
        ("edit: bridge of ours", Box::new(|| edit("\"virbr0\"", "\"virbr1\""))),
        ("edit: subnet", Box::new(|| edit("192.168.122.", "203.0.113."))),
        ("edit: rate", Box::new(|| edit("[dhcp]", "[limits]\nin = \"10mbps\"\n[dhcp]"))),
        ("edit: rate too low", Box::new(|| edit("[dhcp]", "[limits]\nin = \"1bit\"\n[dhcp]"))),
        ("edit: limit of what", Box::new(|| edit("[dhcp]", "[limits]\nup = \"1mbit\"\n[dhcp]"))),
        ("start: not there", Box::new(|| host.start("nothing").map(drop))),
        ("stop: not there", Box::new(|| host.stop("nothing").map(drop))),
        ("stop: guests", Box::new(|| host.stop("default").map(drop))),
        ("delete: not there", Box::new(|| host.delete("nothing").map(drop))),
        ("delete: guests", Box::new(|| host.delete("default").map(drop))),
        ("forward: port taken", Box::new(|| forward("default", "8080", "web:80"))),
        ("forward: hostonly", Box::new(|| forward("closed", "81", "web:80"))),
        ("forward: elsewhere", Box::new(|| forward("default", "81", "10.9.9.9:80"))),
        ("forward: ranges", Box::new(|| forward("default", "81-82", "web:80-89"))),
        ("forward: not there", Box::new(|| forward("nothing", "81", "web:80"))),
        (
            "unforward",
            Box::new(|| {
                wait(client.remove_forward(&default, &"81".parse().unwrap(), Run::Real)).map(drop)
            }),
        ),
        ("reserve: elsewhere", Box::new(|| reserve("default", "52:54:00:00:00:01", "10.9.9.9"))),
        ("reserve: gateway", Box::new(|| reserve("default", "52:54:00:00:00:01", "192.168.122.1"))),
        ("reserve: group", Box::new(|| reserve("default", "01:00:5e:00:00:01", "192.168.122.9"))),
        (
            "reserve: not there",
            Box::new(|| reserve("nothing", "52:54:00:00:00:01", "192.168.122.9")),
        ),
        (
            "unreserve",
            Box::new(|| {
                wait(client.unreserve(&default, "52:54:00:00:00:01".parse().unwrap(), Run::Real))
                    .map(drop)
            }),
        ),
    ];
    let (before, written) = (HostState::of(host.ns()), files(&host));
    for (what, attempt) in attempts {
        let (_, message) = refusal(attempt());
        assert!(!message.is_empty(), "{what}");
        let difference = before.difference(&HostState::of(host.ns()));
        assert!(difference.is_empty(), "{what}: {message}\n{difference}");
        assert_eq!(files(&host), written, "{what}: {message}");
    }
    host.ns().ip("route add 192.168.124.0/24 via 203.0.113.1");
    let before = HostState::of(host.ns());
    let (_, message) = refusal(host.start("down"));
    assert!(message.contains("192.168.124.0/24"), "{message}");
    before.assert_same(&HostState::of(host.ns()));
}
