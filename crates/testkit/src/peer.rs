//! A peer outside that does not stop talking to the host: a TCP stream that must stay whole, and
//! datagrams that show for how long nobody could be heard.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::{Lan, Netns};

/// How long the other end may be silent before the stream counts as broken.
const BROKEN: Duration = Duration::from_secs(20);
/// From one word, or one datagram, to the next.
const PACE: Duration = Duration::from_millis(1);
const ECHO_PORT: u16 = 9999;
const DATAGRAM_PORT: u16 = 7777;

/// An established TCP stream between the host and the server outside, in use all the time: each
/// word goes there and comes back.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    words: Arc<AtomicU64>,
    client: JoinHandle<io::Result<()>>,
    server: JoinHandle<io::Result<()>>,
}

impl Stream {
    /// Connects `lan`'s host with its server at this address.
    ///
    /// # Errors
    /// There is no connection.
    pub fn start(lan: &Lan, server: IpAddr) -> Result<Self> {
        let address = SocketAddr::new(server, ECHO_PORT);
        let listener = lan.outside.enter(|| TcpListener::bind(address))?;
        let server = std::thread::spawn(move || echo(&listener));
        let stream = lan.host.enter(|| TcpStream::connect(address))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(BROKEN))?;
        let (stop, words) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = {
            let (stop, words) = (stop.clone(), words.clone());
            std::thread::spawn(move || talk(stream, &stop, &words))
        };
        Ok(Self { stop, words, client, server })
    }

    /// Waits until so many more words have come back.
    ///
    /// # Errors
    /// The stream has broken.
    pub fn hear(&self, more: u64) -> Result<()> {
        let goal = self.words.load(Ordering::Relaxed) + more;
        while self.words.load(Ordering::Relaxed) < goal {
            ensure!(!self.client.is_finished(), "the stream has broken");
            std::thread::park_timeout(PACE);
        }
        Ok(())
    }

    /// Closes it; returns how many bytes have gone there and back, all as they were sent.
    ///
    /// # Errors
    /// It has broken, or a byte was another one.
    pub fn end(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = |thread: JoinHandle<io::Result<()>>| {
            thread.join().map_err(|_| anyhow!("its thread has panicked"))
        };
        ended(self.client)?.context("the stream has broken")?;
        ended(self.server)?.context("the stream has broken at its other end")?;
        Ok(self.words.load(Ordering::Relaxed) * size_of::<u64>() as u64)
    }
}

fn echo(listener: &TcpListener) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut word = [0; size_of::<u64>()];
    loop {
        match stream.read_exact(&mut word) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        stream.write_all(&word)?;
    }
}

fn talk(mut stream: TcpStream, stop: &AtomicBool, words: &AtomicU64) -> io::Result<()> {
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        // All bits of it are in use.
        let sent = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        stream.write_all(&sent)?;
        let mut back = [0; size_of::<u64>()];
        stream.read_exact(&mut back)?;
        if back != sent {
            return Err(io::Error::other(format!("word {number} came back as another one")));
        }
        number += 1;
        words.store(number, Ordering::Relaxed);
        std::thread::park_timeout(PACE);
    }
    Ok(())
}

/// Sends the host a numbered datagram each millisecond, and listens for its answers.
#[derive(Debug)]
pub struct Pulse {
    stop: Arc<AtomicBool>,
    heard: Arc<AtomicU64>,
    peer: JoinHandle<io::Result<Duration>>,
    answering: JoinHandle<io::Result<()>>,
}

impl Pulse {
    /// Starts it outside of `lan`.
    ///
    /// # Errors
    /// A socket cannot be made.
    pub fn start(lan: &Lan) -> Result<Self> {
        let (stop, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let host = lan.host.enter(|| UdpSocket::bind(("0.0.0.0", DATAGRAM_PORT)))?;
        let answering = std::thread::spawn({
            let stop = stop.clone();
            move || answer(&host, &stop)
        });
        let socket = socket_to_host(&lan.outside)?;
        let peer = std::thread::spawn({
            let (stop, heard) = (stop.clone(), heard.clone());
            move || longest_silence(&socket, &stop, &heard)
        });
        Ok(Self { stop, heard, peer, answering })
    }

    /// Waits until so many more answers have come.
    pub fn hear(&self, more: u64) {
        let goal = self.heard.load(Ordering::Relaxed) + more;
        while self.heard.load(Ordering::Relaxed) < goal && !self.peer.is_finished() {
            std::thread::park_timeout(PACE);
        }
    }

    /// Ends it; returns the longest time in which every datagram was lost. What is late because
    /// the machine is busy isn't lost.
    ///
    /// # Errors
    /// A socket has failed.
    pub fn end(self) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let silence = self.peer.join().map_err(|_| anyhow!("the peer has panicked"))??;
        self.answering.join().map_err(|_| anyhow!("the host's end has panicked"))??;
        Ok(silence)
    }
}

fn socket_to_host(outside: &Netns) -> io::Result<UdpSocket> {
    let socket = outside.enter(|| UdpSocket::bind("0.0.0.0:0"))?;
    socket.connect(SocketAddr::new(IpAddr::V4(Lan::HOST), DATAGRAM_PORT))?;
    Ok(socket)
}

fn answer(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    let mut buffer = [0; 16];
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            // The way back may be missing for a moment.
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
    Ok(())
}

fn longest_silence(
    socket: &UdpSocket,
    stop: &AtomicBool,
    heard: &AtomicU64,
) -> io::Result<Duration> {
    let (mut sent, mut answered) = (Vec::new(), BTreeSet::new());
    let mut buffer = [0; 8];
    let mut listen = |patience: Duration| -> io::Result<bool> {
        socket.set_read_timeout(Some(patience))?;
        let answer = socket.recv(&mut buffer).is_ok_and(|length| length == buffer.len());
        if answer {
            answered.insert(usize::from_ne_bytes(buffer));
            heard.fetch_add(1, Ordering::Relaxed);
        }
        Ok(answer)
    };
    while !stop.load(Ordering::Relaxed) {
        sent.push(Instant::now());
        // The host may be unreachable for a moment.
        let _ = socket.send(&(sent.len() - 1).to_ne_bytes());
        while sent.last().is_some_and(|last| last.elapsed() < PACE) {
            listen(PACE)?;
        }
    }
    while listen(Duration::from_millis(200))? {}
    let (mut longest, mut lost_since) = (Duration::ZERO, None);
    for (number, time) in sent.iter().enumerate() {
        if !answered.contains(&number) {
            lost_since.get_or_insert(*time);
        } else if let Some(since) = lost_since.take() {
            longest = longest.max(*time - since);
        }
    }
    Ok(longest)
}
