//! What a packet costs on its way over a bridge and through the rules: with one network, and with
//! many networks, guests and forwards. The kernel carries a packet all the way within the system
//! call that sends it: the processor time of many such calls, over their number. A kernel that
//! accounts soft interrupts apart (`IRQ_TIME_ACCOUNTING`) shows too little of it; then the time
//! that passes is taken, and the machine should have nothing else to do.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use tempfile::TempDir;
use vnet_api::paths::Paths;
use vnet_api::ports::{PortConnection, Request};
use vnet_testkit::frames::{Arp, Udp};
use vnet_testkit::{FakeGuest, Lan, Netd};
use vnet_types::{LinkLimits, MacAddr};

/// Packets between two looks at the clock: fewer than a tap keeps for its reader.
const BATCH: u16 = 400;
/// Batches that are taken together.
const BATCHES: u16 = 10;
/// Rounds at most, each with a batch of everything.
const MOST_RUNS: u32 = 40;
/// The header of virtio-net in front of each frame of a tap.
const HEADER: usize = 12;
/// Nobody: the outside drops what is for it, without a word.
const NOBODY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);
/// What the first network's first forward publishes.
const PUBLISHED: u16 = 10_000;

/// How much there is on a host.
struct Size {
    networks: u8,
    guests: u16,
    forwards: u16,
}

const SIZES: [Size; 2] = [
    Size { networks: 1, guests: 2, forwards: 1 },
    Size { networks: 100, guests: 250, forwards: 1000 },
];

/// The ways of a packet.
#[derive(Clone, Copy)]
enum Way {
    Guests,
    Out,
    OutNew,
    Published,
    PublishedNew,
}

const WAYS: [(Way, &str); 5] = [
    (Way::Guests, "from a guest to another one"),
    (Way::Out, "from a guest to the outside, a known connection"),
    (Way::OutNew, "from a guest to the outside, a new connection"),
    (Way::Published, "from outside to a published port, a known connection"),
    (Way::PublishedNew, "from outside to a published port, a new connection"),
];

/// What a packet cost, in processor time and in time that passed.
#[derive(Clone, Copy)]
struct Cost {
    processor: Duration,
    passed: Duration,
}

/// Prints the cost of a packet on each way, at each size.
pub(crate) fn packets(runs: u32) -> Result<()> {
    let mut one = CpuSet::new();
    one.set(0)?;
    let hosts = SIZES.iter().map(Bench::new).collect::<Result<Vec<_>>>()?;
    // From here on, so that what the hosts need besides may run elsewhere.
    sched_setaffinity(Pid::from_raw(0), &one)?;
    let mut costs = vec![vec![Vec::new(); hosts.len()]; WAYS.len()];
    for round in 0..u16::try_from(runs.min(MOST_RUNS))? {
        for ((way, _), costs) in WAYS.iter().zip(&mut costs) {
            for (host, costs) in hosts.iter().zip(costs) {
                costs.push(host.cost(*way, round)?);
            }
        }
    }
    print(&costs);
    Ok(())
}

fn print(costs: &[Vec<Vec<Cost>>]) {
    let least = |time: fn(&Cost) -> Duration| costs.iter().flatten().flatten().map(time).min();
    let apart = least(|cost| cost.processor * 2) < least(|cost| cost.passed);
    let time = |cost: &Cost| if apart { cost.passed } else { cost.processor };
    let what = if apart { "time that passes" } else { "processor time" };
    println!("{what} of a packet on one processor");
    let width = WAYS.iter().map(|(_, what)| what.len()).max().unwrap_or(0);
    let mut head = format!("{:width$}", "ns: median (least)");
    for Size { networks, guests, forwards } in SIZES {
        let _ =
            write!(head, "  {:>26}", format!("{networks} net, {guests} guests, {forwards} fwd"));
    }
    println!("{head}");
    for ((_, what), costs) in WAYS.iter().zip(costs) {
        let mut line = format!("{what:width$}");
        for costs in costs {
            let mut costs: Vec<_> = costs.iter().map(|cost| time(cost).as_nanos()).collect();
            costs.sort_unstable();
            let (median, least) = (costs[costs.len() / 2], costs[0]);
            let _ = write!(line, "  {:>26}", format!("{median} ({least})"));
        }
        println!("{line}");
    }
}

/// A host at one size.
struct Bench {
    _lan: Lan,
    _netd: Netd,
    _root: TempDir,
    /// The first two are measured.
    guests: Vec<Guest>,
    outside: FakeGuest,
    bridge: MacAddr,
    uplink: MacAddr,
}

struct Guest {
    _connection: PortConnection,
    queue: OwnedFd,
}

fn mac(guest: u16) -> MacAddr {
    let [high, low] = guest.to_be_bytes();
    MacAddr([0x52, 0x54, 0, 1, high, low])
}

/// A guest is on this network, with this address.
fn place(guest: u16, size: &Size) -> (u8, Ipv4Addr) {
    // The first two are neighbours; the others are spread.
    let (network, host) = match guest {
        0 | 1 => (0, 2 + guest),
        _ => (guest % u16::from(size.networks), 2 + guest / u16::from(size.networks) + 2),
    };
    let [.., network] = network.to_be_bytes();
    let [.., host] = host.to_be_bytes();
    (network, Ipv4Addr::new(10, 77, network, host))
}

fn definition(network: u8, size: &Size) -> String {
    let mut text = format!(
        "name = \"n{network}\"\nmode = \"nat\"\nbridge = \"vb{network}\"\nsubnet = \
         \"10.77.{network}.0/24\"\ndomain = \"n{network}.vnet\"\nautostart = true\n[dhcp]\nrange = \
         \"10.77.{network}.100-10.77.{network}.199\"\n"
    );
    for guest in 0..size.guests {
        let (on, address) = place(guest, size);
        if on == network {
            let mac = mac(guest);
            let _ = write!(text, "[[dhcp.reservations]]\nmac = \"{mac}\"\nip = \"{address}\"\n");
        }
    }
    let forwards =
        (0..size.forwards).filter(|number| number % u16::from(size.networks) == u16::from(network));
    for number in forwards {
        let port = PUBLISHED + number;
        let _ = write!(
            text,
            "[[forwards]]\nprotocol = \"udp\"\nport = {port}\ntarget = \"10.77.{network}.2:7\"\n"
        );
    }
    text
}

impl Bench {
    fn new(size: &Size) -> Result<Self> {
        let (lan, root) = (Lan::new(), tempfile::tempdir()?);
        let paths = Paths::new(root.path());
        std::fs::create_dir_all(paths.networks())?;
        for network in 0..size.networks {
            let name = format!("n{network}").parse()?;
            std::fs::write(paths.network(&name), definition(network, size))?;
        }
        let netd = Netd::try_start(&lan.host, root.path())?;
        let guests = (0..size.guests)
            .map(|guest| Guest::attach(&paths, guest, size))
            .collect::<Result<Vec<_>>>()?;
        let host = &lan.host;
        host.settle("vb0");
        // Nobody answers for a guest here, and the bridge is to know its port.
        for (port, guest) in guests.iter().zip(0..2) {
            let (_, address) = place(guest, size);
            let announced = Arp::request(mac(guest), address, address);
            port.send(&announced.frame(MacAddr::BROADCAST, mac(guest)))?;
            host.wait_for("guest that its bridge knows", Duration::from_secs(20), || {
                let known = |line: &str| {
                    line.starts_with(&mac(guest).to_string()) && !line.contains("permanent")
                };
                host.run(["bridge", "fdb", "show", "br", "vb0"]).lines().any(known)
            });
            host.ip(&format!("neigh replace {address} lladdr {} dev vb0", mac(guest)));
        }
        // What only ever goes one way is forgotten soon.
        host.set_sysctl("net.netfilter.nf_conntrack_udp_timeout", "2");
        let (bridge, uplink) = (host.mac("vb0"), host.mac("eth0"));
        let outside = FakeGuest::on(&lan.outside, "eth0");
        let bench = Self { _lan: lan, _netd: netd, _root: root, guests, outside, bridge, uplink };
        bench.check()?;
        Ok(bench)
    }

    /// Whether packets arrive at all: what is dropped on the way would cost little.
    fn check(&self) -> Result<()> {
        for (way, what) in WAYS {
            self.send(way, 1000, 0)?;
            let came = match way {
                Way::Guests => self.guests[1].drain()?,
                Way::Published | Way::PublishedNew => self.guests[0].drain()?,
                Way::Out | Way::OutNew => {
                    let masqueraded = |frame: &[u8]| {
                        frame.get(26..30) == Some(&Lan::HOST.octets())
                            && frame.get(30..34) == Some(&NOBODY.octets())
                    };
                    usize::from(self.outside.seen(Duration::from_secs(5), masqueraded).is_some())
                }
            };
            ensure!(came == 1, "{came} packets came where one was sent {what}");
        }
        Ok(())
    }

    /// What one packet costs.
    fn cost(&self, way: Way, round: u16) -> Result<Cost> {
        let (mut processor, mut passed) = (Duration::ZERO, Duration::ZERO);
        for batch in 0..BATCHES {
            let (begun, used) = (Instant::now(), thread_time()?);
            for number in 0..BATCH {
                self.send(way, batch * BATCH + number, round)?;
            }
            processor += thread_time()?.saturating_sub(used);
            passed += begun.elapsed();
            for guest in &self.guests[..2] {
                guest.drain()?;
            }
        }
        let packets = u32::from(BATCH * BATCHES);
        Ok(Cost { processor: processor / packets, passed: passed / packets })
    }

    /// Sends one packet. New connections have a source port by `number`, and by `round` what they
    /// go to or come from.
    fn send(&self, way: Way, number: u16, round: u16) -> Result<()> {
        let [.., last] = round.to_be_bytes();
        let guest = Ipv4Addr::new(10, 77, 0, 2);
        let stranger = Ipv4Addr::new(203, 0, 113, 100 + last);
        let new_port = 20_000 + number;
        let udp = |from, from_port, to, to_port| Udp {
            from,
            from_port,
            to,
            to_port,
            payload: vec![0; 64],
        };
        let from_guest = |udp: Udp, to| self.guests[0].send(&udp.frame(to, mac(0)));
        let from_outside = |udp: Udp| {
            self.outside.send(&udp.frame(self.uplink, self.outside.mac()));
            Ok(())
        };
        match way {
            Way::Guests => from_guest(udp(guest, 5000, Ipv4Addr::new(10, 77, 0, 3), 5000), mac(1)),
            Way::Out => from_guest(udp(guest, 5000, NOBODY, 9), self.bridge),
            Way::OutNew => from_guest(udp(guest, new_port, NOBODY, 1000 + round), self.bridge),
            Way::Published => from_outside(udp(stranger, 5000, Lan::HOST, PUBLISHED)),
            Way::PublishedNew => from_outside(udp(stranger, new_port, Lan::HOST, PUBLISHED)),
        }
    }
}

impl Guest {
    fn attach(paths: &Paths, guest: u16, size: &Size) -> Result<Self> {
        let (network, _) = place(guest, size);
        let request = Request::Attach {
            network: format!("n{network}").parse()?,
            domain: format!("g{guest}").parse()?,
            nic: 0,
            mac: mac(guest),
            queues: 1,
            limits: LinkLimits::default(),
        };
        let (connection, _, mut queues) = PortConnection::open(&paths.ports_socket(), &request)?;
        let queue = queues.pop().context("a port has a queue")?;
        fcntl(queue.as_fd(), FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        Ok(Self { _connection: connection, queue })
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        let bytes = [&[0; HEADER][..], frame].concat();
        nix::unistd::write(&self.queue, &bytes)?;
        Ok(())
    }

    /// Takes what has come for the guest, and counts the datagrams.
    fn drain(&self) -> Result<usize> {
        let mut buffer = [0; 2048];
        let mut datagrams = 0;
        loop {
            match nix::unistd::read(&self.queue, &mut buffer) {
                Ok(length) => {
                    let frame = &buffer[HEADER..length.max(HEADER)];
                    datagrams += usize::from(frame.get(23) == Some(&17));
                }
                Err(nix::Error::EAGAIN) => return Ok(datagrams),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The processor time of this thread so far.
fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
