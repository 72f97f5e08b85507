//! UDP: receive all that waits, answer, receive again.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::batch::{self, BATCH};
use crate::handler::{Handler, Step, Transport};

/// Answers what comes, until `stopped`'s sender is gone.
pub(super) async fn serve(
    socket: UdpSocket,
    handler: Arc<Handler>,
    mut stopped: watch::Receiver<()>,
) {
    let socket = Arc::new(socket);
    let mut forwards = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = forwards.join_next() => {}
            ready = socket.readable() => {
                if let Err(error) = ready {
                    tracing::error!(%error, "cannot wait for DNS queries");
                    break;
                }
                let mut received = 0;
                let done = socket.try_io(Interest::READABLE, || {
                    received = answer(&socket, &handler, &mut forwards)?;
                    // When there was less than there is room for, there is nothing more: no need
                    // to ask the kernel once more.
                    if received < BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
                });
                match done {
                    // There may be more: others get their turn first.
                    Ok(()) => tokio::task::yield_now().await,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // The device went down, say: readiness is gone, or the next call succeeds.
                    Err(error) => tracing::trace!(%error, "cannot receive a DNS query"),
                }
                while forwards.try_join_next().is_some() {}
            }
        }
    }
    // The tasks hold the socket: it is closed when the last of them is gone.
    forwards.shutdown().await;
}

/// Answers one batch on the spot, but for what has to be asked elsewhere, and says how many
/// datagrams there were.
fn answer(
    socket: &Arc<UdpSocket>,
    handler: &Arc<Handler>,
    forwards: &mut JoinSet<()>,
) -> io::Result<usize> {
    batch::with(|batch| {
        let received = batch.receive(socket.as_fd())?;
        let begun = Instant::now();
        for place in 0..received {
            let Some(query) = batch.query(place) else { continue };
            let Some(client) = query.client else { continue };
            match handler.step(query.bytes, client, Transport::Udp, query.reply) {
                Step::Drop => {}
                Step::Reply => batch.answer(place),
                Step::Forward(pending) => {
                    let (socket, handler) = (socket.clone(), handler.clone());
                    forwards.spawn(async move {
                        let mut reply = Vec::new();
                        handler.forward(&pending, &mut reply).await;
                        // Where the buffer is full or the client unreachable, it asks again.
                        drop(socket.try_send_to(&reply, client));
                        handler.tally.took(begun.elapsed(), 1);
                    });
                }
            }
        }
        let answers = batch.send(socket.as_fd());
        if answers > 0 {
            handler.tally.took(begun.elapsed(), answers as u64);
        }
        Ok(received)
    })
}
