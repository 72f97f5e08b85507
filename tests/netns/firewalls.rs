//! ufw and firewalld themselves beside a network: what `vnet check` advises is run as it stands, and
//! what they do when they are loaded anew leaves networks working.

use std::net::SocketAddr;

use vnet_api::model::State;
use vnet_testkit::{DhcpClient, Guest, Lan, Netd, Running, Userland, tcp_seen_as, udp_seen_as};

use vnet_tests::{Host, nat};

use crate::foreign::{all_pass, commands, foreign_rules, host_with_default};
use crate::forwards::{add, guest, serve};

/// A host whose network `default` has a guest `web` with a published port, and a firewall's files.
struct Beside {
    host: Host,
    netd: Netd,
    files: Userland,
    web: Guest,
    _client: DhcpClient,
}

impl Beside {
    fn new(program: &str) -> Self {
        let (host, netd) = host_with_default();
        let (web, client) = guest(&host, "virbr0", "web");
        serve(&web.ns, 80);
        add(&host, "8080", "web:80");
        let this = Self { host, netd, files: Userland::with(program), web, _client: client };
        this.works();
        this
    }

    fn run(&self, line: &str) -> String {
        self.files.run(self.host.ns(), line)
    }

    /// Not by ping: ufw lets that through everywhere.
    fn reaches_the_outside(&self) -> anyhow::Result<()> {
        udp_seen_as(&self.web.ns, SocketAddr::new(Lan::SERVER.into(), 7)).map(drop)
    }

    /// The guest reaches the outside and is reached by its port, and names are resolved.
    #[track_caller]
    fn works(&self) {
        self.reaches_the_outside().unwrap();
        let answer = self.web.ns.run(["dig", "+short", "@192.168.122.1", "server.example"]);
        assert_eq!(answer.trim(), Lan::SERVER.to_string());
        tcp_seen_as(&self.host.lan.outside, SocketAddr::new(Lan::HOST.into(), 8080)).unwrap();
        assert_eq!(self.host.network("default").state, State::Active);
    }

    /// Runs what `vnet check` advises, and gives back the commands.
    fn follow_the_advice(&self, owner: &str) -> Vec<String> {
        let rows = foreign_rules(&self.netd);
        assert!(!all_pass(&rows), "nothing is said to be in the way");
        for row in rows.iter().filter(|row| row["state"] == "failed") {
            let found = row["found"].as_str().unwrap();
            assert!(found.contains(owner), "{found}");
        }
        let commands: Vec<_> = commands(&rows).into_iter().map(str::to_owned).collect();
        for command in &commands {
            self.run(command);
        }
        let rows = foreign_rules(&self.netd);
        assert!(all_pass(&rows), "after {commands:?}: {rows:?}");
        commands
    }
}

#[test]
fn beside_ufw_its_own_commands_let_a_network_work_and_its_reload_leaves_it_working() {
    let beside = Beside::new("/usr/sbin/ufw");
    // As its package does when it is installed.
    beside.run("cp -r /usr/share/ufw/iptables/. /etc/ufw/");
    beside.run(
        "cp /usr/share/ufw/ufw.conf /usr/share/ufw/before.init /usr/share/ufw/after.init /etc/ufw/",
    );
    beside.run("ufw --force enable");
    beside.reaches_the_outside().unwrap_err();
    let told = beside.host.create(&nat("second")).unwrap().notes;
    assert!(told.iter().any(|note| note.contains("ufw route allow in on virbr1")), "{told:?}");
    beside.host.delete("second").unwrap();

    beside.follow_the_advice("ufw, table");
    beside.works();
    beside.run("ufw reload");
    beside.works();
    assert!(all_pass(&foreign_rules(&beside.netd)));
    beside.run("ufw --force disable");
    beside.works();
}

/// firewalld on its own bus.
fn firewalld(beside: &Beside) -> [Running; 2] {
    let ns = beside.host.ns();
    // As its package does when it is installed.
    let actions = "/usr/share/polkit-1/actions/org.fedoraproject.FirewallD1";
    beside.run(&format!("cp {actions}.server.policy.choice {actions}.policy"));
    let bus = beside.files.bus(ns);
    let daemon = beside.files.daemon(ns, "firewalld --nofork --nopid", "firewall-cmd --state");
    [bus, daemon]
}

#[test]
fn beside_firewalld_its_own_commands_let_a_network_work_and_reloads_leave_it_working() {
    let beside = Beside::new("/usr/sbin/firewalld");
    let _daemons = firewalld(&beside);
    beside.reaches_the_outside().unwrap_err();
    let told = beside.host.create(&nat("second")).unwrap().notes;
    assert!(told.iter().any(|note| note.contains("--add-interface=virbr1")), "{told:?}");
    beside.host.delete("second").unwrap();

    let commands = beside.follow_the_advice("firewalld, table inet firewalld");
    assert!(commands.iter().any(|command| command.contains("--permanent")), "{commands:?}");
    beside.works();
    for reload in ["--reload", "--complete-reload"] {
        beside.run(&format!("firewall-cmd {reload}"));
        beside.works();
        assert!(all_pass(&foreign_rules(&beside.netd)), "after {reload}");
    }
}
