//! UDP: read, answer, read the next.

use std::io;
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::handler::{Handler, Step, Transport};

/// Bytes in the largest query that is read whole. One that is longer does not parse.
const MAX_QUERY: usize = 4096;

/// Datagrams that are answered before other tasks get a turn.
const BATCH: usize = 64;

/// Answers what comes, until `stopped`'s sender is gone.
pub(super) async fn serve(
    socket: UdpSocket,
    handler: Arc<Handler>,
    mut stopped: watch::Receiver<()>,
) {
    let socket = Arc::new(socket);
    let mut forwards = JoinSet::new();
    let mut request = vec![0; MAX_QUERY];
    let mut reply = Vec::with_capacity(MAX_QUERY);
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = forwards.join_next() => {}
            ready = socket.readable() => {
                if let Err(error) = ready {
                    tracing::error!(%error, "cannot wait for DNS queries");
                    break;
                }
            }
        }
        let mut answered = 0;
        while answered < BATCH {
            let (len, client) = match socket.try_recv_from(&mut request) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The device went down, say: readiness is gone, or the next call succeeds.
                Err(error) => {
                    tracing::trace!(%error, "cannot receive a DNS query");
                    break;
                }
            };
            answered += 1;
            match handler.step(&request[..len], client, Transport::Udp, &mut reply) {
                Step::Drop => {}
                // Where the buffer is full or the client unreachable, the client asks again.
                Step::Reply => drop(socket.try_send_to(&reply, client)),
                Step::Forward(pending) => {
                    let (socket, handler) = (socket.clone(), handler.clone());
                    forwards.spawn(async move {
                        let mut reply = Vec::new();
                        handler.forward(&pending, &mut reply).await;
                        drop(socket.try_send_to(&reply, client));
                    });
                }
            }
        }
        while forwards.try_join_next().is_some() {}
        if answered == BATCH {
            tokio::task::yield_now().await;
        }
    }
    // The tasks hold the socket: it is closed when the last of them is gone.
    forwards.shutdown().await;
}
