//! TCP (RFC 7766): connections within limits, queries answered as their answers come.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{sleep, timeout};

use super::Limits;
use crate::handler::{Handler, Step, Transport};

/// Answers that one connection may have waiting to be written, and queries that it may have in
/// flight: when that many wait, no more are read.
const PIPELINE: usize = 16;

/// Accepts connections until `stopped`'s sender is gone.
pub(super) async fn serve(
    listener: TcpListener,
    handler: Arc<Handler>,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
) {
    let mut tasks = JoinSet::new();
    let mut open = Open::default();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(done) = tasks.join_next_with_id() => {
                open.remove(match done {
                    Ok((id, ())) => id,
                    Err(error) => error.id(),
                });
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    handler.tally.connections.fetch_add(1, Relaxed);
                    if open.make_room(client.ip(), &limits) {
                        handler.tally.evicted.fetch_add(1, Relaxed);
                    }
                    let serve = connection(stream, client, handler.clone(), limits.idle);
                    open.add(client.ip(), tasks.spawn(serve));
                }
                // The client was gone already, or descriptors are short: the latter lasts.
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a DNS connection");
                    sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
    tasks.shutdown().await;
}

/// The open connections, the oldest first.
#[derive(Default)]
struct Open {
    next: u64,
    by_age: BTreeMap<u64, (IpAddr, AbortHandle)>,
    by_task: HashMap<Id, u64>,
    by_client: HashMap<IpAddr, usize>,
}

impl Open {
    /// Closes the oldest connection (of the client's own, if it has too many) where there is no
    /// room for one more. Idle connections are the server's to close (RFC 7766 §6.2.3), and a
    /// client that keeps very many cannot keep others out.
    fn make_room(&mut self, client: IpAddr, limits: &Limits) -> bool {
        let own = self.by_client.get(&client).copied().unwrap_or(0);
        let oldest = if own >= limits.connections_per_client {
            self.by_age.values().find(|(other, _)| *other == client)
        } else if self.by_age.len() >= limits.connections {
            self.by_age.values().next()
        } else {
            None
        };
        let Some((_, task)) = oldest else { return false };
        task.abort();
        let id = task.id();
        self.remove(id);
        true
    }

    fn add(&mut self, client: IpAddr, task: AbortHandle) {
        self.by_task.insert(task.id(), self.next);
        self.by_age.insert(self.next, (client, task));
        *self.by_client.entry(client).or_default() += 1;
        self.next += 1;
    }

    fn remove(&mut self, id: Id) {
        let Some(age) = self.by_task.remove(&id) else { return };
        let Some((client, _)) = self.by_age.remove(&age) else { return };
        if let Some(own) = self.by_client.get_mut(&client) {
            *own -= 1;
            if *own == 0 {
                self.by_client.remove(&client);
            }
        }
    }
}

async fn connection(stream: TcpStream, client: SocketAddr, handler: Arc<Handler>, idle: Duration) {
    let (reader, writer) = stream.into_split();
    let (replies, queue) = mpsc::channel(PIPELINE);
    // When writing ends, for whatever reason, so does reading: nobody is left to be answered.
    // When reading ends, what is in flight is still answered.
    let mut reading = std::pin::pin!(read(reader, client, handler, idle, replies));
    let mut writing = std::pin::pin!(write(writer, queue, idle));
    tokio::select! {
        _ = &mut writing => {}
        _ = &mut reading => drop(writing.await),
    }
}

async fn read(
    mut reader: OwnedReadHalf,
    client: SocketAddr,
    handler: Arc<Handler>,
    idle: Duration,
    replies: mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    let mut forwards = JoinSet::new();
    let mut request = Vec::new();
    loop {
        // One limit for silence and for a message that trickles in.
        let message = async {
            let len = reader.read_u16().await?;
            request.resize(usize::from(len), 0);
            reader.read_exact(&mut request).await
        };
        match timeout(idle, message).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => break,
        }
        let mut reply = Vec::new();
        match handler.step(&request, client, Transport::Tcp, &mut reply) {
            // Whoever sends what is no query has nothing to say.
            Step::Drop => break,
            Step::Reply => {
                if replies.send(reply).await.is_err() {
                    break;
                }
            }
            Step::Forward(pending) => {
                // RFC 7766 §6.2.1.1: queries do not wait for each other's answers.
                while forwards.len() >= PIPELINE && forwards.join_next().await.is_some() {}
                let (handler, replies) = (handler.clone(), replies.clone());
                forwards.spawn(async move {
                    let mut reply = Vec::new();
                    handler.forward(&pending, &mut reply).await;
                    drop(replies.send(reply).await);
                });
            }
        }
        while forwards.try_join_next().is_some() {}
    }
    while forwards.join_next().await.is_some() {}
    Ok(())
}

async fn write(
    mut writer: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Vec<u8>>,
    idle: Duration,
) -> io::Result<()> {
    let mut framed = Vec::new();
    while let Some(reply) = queue.recv().await {
        let Ok(len) = u16::try_from(reply.len()) else { continue };
        // RFC 7766 §8: length and message in one write.
        framed.clear();
        framed.extend_from_slice(&len.to_be_bytes());
        framed.extend_from_slice(&reply);
        timeout(idle, writer.write_all(&framed)).await??;
    }
    Ok(())
}
