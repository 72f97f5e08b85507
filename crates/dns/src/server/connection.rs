//! One TCP connection (RFC 7766): queries are answered as their answers come, not in their order.
//!
//! What is read and what is written on the spot is in the thread's buffers; a connection itself
//! holds no more than the beginning of a message that has not come whole yet.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::handler::{Handler, Step, Transport};
use crate::wire::{self, rcode};

/// Queries of one connection that may be in flight: when that many are, no more are read.
const PIPELINE: usize = 16;

/// Bytes of the largest query: far more than a name and a few options take. Who sends more is not
/// listened to any longer.
const MAX_QUERY: usize = 4096;

/// Bytes that are read at once.
const READ: usize = 16 * 1024;

thread_local! {
    static SHARED: RefCell<Buffers> = RefCell::new(Buffers {
        input: vec![0; READ],
        reply: Vec::new(),
        output: Vec::new(),
    });
}

/// The buffers that all connections of a thread share.
struct Buffers {
    input: Vec<u8>,
    reply: Vec<u8>,
    output: Vec<u8>,
}

/// What a connection holds between two events.
struct Connection {
    stream: TcpStream,
    client: SocketAddr,
    handler: Arc<Handler>,
    /// The beginning of a message, or messages that wait for others to be answered.
    unread: Vec<u8>,
    /// What has to be written before anything else.
    unsent: Vec<u8>,
    forwards: JoinSet<Vec<u8>>,
    /// Nothing more is read: the client has said all, or something that is no query.
    ended: bool,
}

/// Serves a connection until the client closes it, is silent for `idle`, or takes that long for
/// one message, sent or received.
pub(super) async fn connection(
    stream: TcpStream,
    client: SocketAddr,
    handler: Arc<Handler>,
    idle: Duration,
) {
    let mut connection = Connection {
        stream,
        client,
        handler,
        unread: Vec::new(),
        unsent: Vec::new(),
        forwards: JoinSet::new(),
        ended: false,
    };
    // The client was gone, or too slow: there is nobody to be told.
    let _ = connection.serve(idle).await;
}

impl Connection {
    async fn serve(&mut self, idle: Duration) -> io::Result<()> {
        // One limit for silence and for a message that trickles in.
        let mut until = Instant::now() + idle;
        loop {
            if !self.unsent.is_empty() {
                let sent = timeout(idle, self.stream.write_all(&self.unsent)).await;
                sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                self.unsent = Vec::new();
            }
            if self.ended && self.forwards.is_empty() {
                return Ok(());
            }
            let has_room = !self.ended && self.forwards.len() < PIPELINE;
            tokio::select! {
                Some(reply) = self.forwards.join_next(), if !self.forwards.is_empty() => {
                    if let Ok(reply) = reply {
                        frame(&reply, &mut self.unsent);
                    }
                    self.take(0);
                    until = Instant::now() + idle;
                }
                ready = timeout_at(until, self.stream.readable()), if has_room => {
                    ready.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                    if self.read()? {
                        until = Instant::now() + idle;
                    }
                }
            }
        }
    }

    /// Reads what has come and answers what is whole. Says whether there was something whole.
    fn read(&mut self) -> io::Result<bool> {
        let read = SHARED.with_borrow_mut(|shared| self.stream.try_read(&mut shared.input));
        match read {
            Ok(0) => {
                self.ended = true;
                Ok(true)
            }
            Ok(len) => Ok(self.take(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Answers what is whole of what was left unread and of the first `len` bytes of the shared
    /// buffer, and keeps the rest. Says whether there was something whole.
    fn take(&mut self, len: usize) -> bool {
        let begun = std::time::Instant::now();
        SHARED.with_borrow_mut(|shared| {
            let Buffers { input, reply, output } = shared;
            let new = input.get(..len).unwrap_or_default();
            let held = std::mem::take(&mut self.unread);
            let all = if held.is_empty() { new } else { &[held.as_slice(), new].concat() };
            output.clear();
            let (mut rest, mut messages, mut answers) = (all, 0, 0);
            while self.forwards.len() < PIPELINE && !self.ended {
                let Some(len) = wire::u16_at(rest, 0).map(usize::from) else { break };
                if len > MAX_QUERY {
                    let header = rest.get(2..2 + wire::HEADER).unwrap_or_default();
                    wire::bare_error(header, rcode::FORMERR, reply);
                    frame(reply, output);
                    self.ended = true;
                    break;
                }
                let Some(message) = rest.get(2..2 + len) else { break };
                rest = rest.get(2 + len..).unwrap_or_default();
                messages += 1;
                match self.handler.step(message, self.client, Transport::Tcp, reply) {
                    // Whoever sends what is no query has nothing to say.
                    Step::Drop => self.ended = true,
                    Step::Reply => {
                        frame(reply, output);
                        answers += 1;
                    }
                    Step::Forward(pending) => {
                        let handler = self.handler.clone();
                        self.forwards.spawn(async move {
                            let mut reply = Vec::new();
                            handler.forward(&pending, &mut reply).await;
                            handler.tally.took(begun.elapsed(), 1);
                            reply
                        });
                    }
                }
            }
            if !self.ended && !rest.is_empty() {
                self.unread = rest.to_vec();
            }
            self.write(output);
            if answers > 0 {
                self.handler.tally.took(begun.elapsed(), answers);
            }
            messages > 0
        })
    }

    /// Writes what can be written at once, and keeps the rest.
    fn write(&mut self, output: &[u8]) {
        let sent = if output.is_empty() || !self.unsent.is_empty() {
            0
        } else {
            // An error comes again when the rest is written.
            self.stream.try_write(output).unwrap_or(0)
        };
        self.unsent.extend_from_slice(output.get(sent..).unwrap_or_default());
    }
}

/// Appends length and message (RFC 7766 §8).
fn frame(message: &[u8], out: &mut Vec<u8>) {
    if let Ok(len) = u16::try_from(message.len()) {
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(message);
    }
}
