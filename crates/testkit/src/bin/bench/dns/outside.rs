//! A name server that knows every name, so that what is measured is never its own lookups.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use vnet_testkit::Netns;

/// Bytes in a header (RFC 1035 §4.1.1).
const HEADER: usize = 12;

/// Answers queries until it is dropped.
pub(super) struct Outside {
    address: SocketAddr,
    ns: Netns,
    thread: Option<JoinHandle<()>>,
}

impl Outside {
    /// Serves at port 53 of `address` in `ns`.
    pub(super) fn start(ns: &Netns, address: Ipv4Addr) -> Result<Self> {
        let address = SocketAddr::new(address.into(), 53);
        let socket = ns.enter(|| UdpSocket::bind(address))?;
        let thread = std::thread::spawn(move || serve(&socket));
        Ok(Self { address, ns: ns.clone(), thread: Some(thread) })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let address = self.address;
        // What is no query is the word to end.
        let told = self.ns.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_write_timeout(Some(Duration::from_secs(1)))?;
            socket.send_to(b"end", address)
        });
        if told.is_ok()
            && let Some(thread) = self.thread.take()
        {
            // A panic of its own was printed.
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((len, client)) = socket.recv_from(&mut buffer) {
        if len < HEADER {
            return;
        }
        let Some(end) = question_end(&buffer[..len]) else { continue };
        // An answer, with recursion available; one question, one answer, nothing else: the
        // client's OPT is left out, as an old server leaves it out.
        buffer[2] |= 0x80;
        buffer[3] = 0x80;
        buffer[6..HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
        let record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04\xc6\x33\x64\x0a";
        buffer[end..end + record.len()].copy_from_slice(record);
        // A client that is gone needs no answer.
        let _ = socket.send_to(&buffer[..end + record.len()], client);
    }
}

/// Where the question ends, if there is room for an answer behind it.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    while *message.get(at)? != 0 {
        at += 1 + usize::from(message[at]);
    }
    (at + 5 <= 512).then_some(at + 5)
}
