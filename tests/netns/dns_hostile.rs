//! Guests, and servers outside, that mean no good: whatever they do to DNS, others are served.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use vnet_testkit::{Lan, Netns};

use vnet_tests::Host;

const SERVER: &str = "192.168.122.1:53";
const PATIENCE: Duration = Duration::from_secs(20);

fn guest(host: &Host, address: &str) -> Netns {
    let guest = host.lan.guest_on("virbr0").ns;
    guest.address("eth0", &format!("{address}/24"));
    guest
}

fn is_served(guest: &Netns) {
    for transport in ["+notcp", "+tcp"] {
        let words = ["dig", "+short", "+time=5", "+tries=1", transport, "@192.168.122.1"];
        let answer = guest.run(words.into_iter().chain(["gateway.default.vnet"]));
        assert_eq!(answer.trim(), "192.168.122.1", "{transport}");
    }
}

#[test]
fn connections_that_trickle_end_and_halves_of_messages_hold_nobody_up() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (one, other) = (guest(&host, "192.168.122.66"), guest(&host, "192.168.122.77"));
    let mut trickle = one.enter(|| TcpStream::connect(SERVER).unwrap());
    // A length, and never the message.
    trickle.write_all(&[0, 100, 1]).unwrap();
    is_served(&other);
    trickle.set_read_timeout(Some(PATIENCE * 2)).unwrap();
    let ended = trickle.read(&mut [0]);
    assert!(
        matches!(ended, Ok(0)) || ended.is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock)
    );
}

#[test]
fn messages_that_make_no_sense_are_answered_with_an_error_or_not_at_all() {
    let host = Host::new();
    let _netd = host.netd();
    host.create_default();
    let (one, other) = (guest(&host, "192.168.122.66"), guest(&host, "192.168.122.77"));
    let header = |counts: [u8; 4]| {
        let [questions, answers, authority, additional] = counts;
        vec![7, 7, 1, 0, 0, questions, 0, answers, 0, authority, 0, additional]
    };
    let with = |counts, rest: &[u8]| [header(counts), rest.to_vec()].concat();
    let messages = [
        // A name that is itself, one that points to itself, two that point to each other.
        with([1, 0, 0, 0], b"\xc0\x0c\x00\x01\x00\x01"),
        with([1, 0, 0, 0], b"\x01a\xc0\x0c\x00\x01\x00\x01"),
        with([1, 0, 0, 1], b"\x01a\x00\x00\x01\x00\x01\xc0\x15\xc0\x13\x00\x29\x10\x00"),
        // A label and a name that are too long, a label of a kind that there is not.
        with([1, 0, 0, 0], &[&[0x7f][..], &[b'a'; 127], &[0, 0, 1, 0, 1]].concat()),
        with(
            [1, 0, 0, 0],
            &[[&[63][..], &[b'a'; 63]].concat().repeat(5), vec![0, 0, 1, 0, 1]].concat(),
        ),
        with([1, 0, 0, 0], b"\x80a\x00\x00\x01\x00\x01"),
        // Counts that promise more than there is, and more than there may be.
        header([1, 0, 0, 0]),
        header([255, 255, 255, 255]),
        with([2, 0, 0, 0], b"\x01a\x00\x00\x01\x00\x01\x01a\x00\x00\x01\x00\x01"),
        // OPT with more options than it has room for.
        with(
            [1, 0, 0, 1],
            b"\x01a\x00\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x00\x00\x00\xff\xff",
        ),
    ];
    let socket = one.enter(|| UdpSocket::bind("192.168.122.66:0").unwrap());
    socket.connect(SERVER).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0; 2048];
    for message in &messages {
        socket.send(message).unwrap();
        let length =
            socket.recv(&mut answer).unwrap_or_else(|error| panic!("{message:?}: {error}"));
        assert_eq!(answer[..2], [7, 7]);
        assert_eq!(answer[3] & 0xf, 1, "FORMERR for {message:?}: {:?}", &answer[..length]);
        assert!(length <= message.len().max(12), "no answer is larger than its question here");
    }
    // What is no request, or too short to be one, has no answer; and a datagram of any size is none.
    socket.send(&[7; 11]).unwrap();
    socket.send(&[0xff; 12]).unwrap();
    socket.send(&vec![0xff; 60_000]).unwrap();
    is_served(&other);
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(socket.recv(&mut answer).is_err());
}

#[test]
fn an_upstream_that_answers_a_byte_at_a_time_holds_up_nobody_else() {
    let host = Host::new();
    let outside = &host.lan.outside;
    outside.ip("address add 198.51.100.66/32 dev lo");
    let (udp, tcp) = outside.enter(|| {
        let at = "198.51.100.66:53";
        (UdpSocket::bind(at).unwrap(), TcpListener::bind(at).unwrap())
    });
    // It says that TCP has the answer, and then never gives it.
    std::thread::spawn(move || {
        let mut query = [0; 1024];
        while let Ok((length, from)) = udp.recv_from(&mut query) {
            query[2] |= 0x82;
            let _ = udp.send_to(&query[..length], from);
        }
    });
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in tcp.incoming().flatten() {
            let mut slow = stream.try_clone().unwrap();
            kept.push(stream);
            let _ = slow.write_all(&[0xff]);
        }
    });
    let text = "name = \"default\"\nmode = \"nat\"\nbridge = \"virbr0\"\nsubnet = \"192.168.122.0/24\"\n\
         domain = \"default.vnet\"\n\n[dns]\nupstreams = [\"198.51.100.66\", \"198.51.100.10\"]\n";
    host.define("default", text);
    let _netd = host.netd();
    let one = guest(&host, "192.168.122.66");
    let words = ["dig", "+short", "+time=8", "+tries=1", "@192.168.122.1", Lan::SERVER_NAME];
    assert_eq!(one.run(words).trim(), Lan::SERVER.to_string(), "from the other upstream");
    is_served(&one);
}
