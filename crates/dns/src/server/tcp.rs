//! TCP (RFC 7766): connections within limits.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::sleep;

use super::Limits;
use super::connection::connection;
use crate::counters::count;
use crate::handler::Handler;

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
                    count(&handler.tally.connections);
                    if open.make_room(client.ip(), &limits) {
                        count(&handler.tally.evicted);
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
