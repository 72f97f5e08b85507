//! The port socket: a VMM asks for a tap here, gets its descriptors, and hears of its link.
//!
//! netd keeps no descriptor of a tap. It lives as long as the VMM does, and as long as netd is
//! not told to take it away, whatever becomes of netd.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, socket,
};
use tokio::io::unix::AsyncFd;
use vnet_api::ports::{Event, Reply, Request, receive, send};
use vnet_plan::Alias;

use crate::access;
use crate::daemon::Shared;
use crate::watch::watch;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;
/// How long to rest when none can be accepted.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// How long one who has connected may take to say what it wants.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// Serves ports on the socket at `path` until netd ends.
///
/// # Errors
/// The socket cannot be made.
pub fn serve(path: &Path, daemon: Arc<Shared>) -> io::Result<()> {
    let listener = listen_at(path)?;
    tokio::spawn(async move {
        loop {
            match accept(&listener).await {
                Ok(connection) => {
                    tokio::spawn(converse(connection, daemon.clone()));
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection for a port: {error}");
                    // As a rule, descriptors are short: others must have time to give some up.
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    });
    Ok(())
}

fn listen_at(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    access::protect(path)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    watch(socket)
}

async fn accept(listener: &AsyncFd<OwnedFd>) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    loop {
        let mut ready = listener.readable().await?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let accepted = ready.try_io(|listener| Ok(accept4(listener.as_raw_fd(), flags)?));
        if let Ok(result) = accepted {
            // SAFETY: accept4 has just made this descriptor, and nothing else knows its number.
            return result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}

async fn converse(connection: OwnedFd, daemon: Arc<Shared>) {
    if let Err(error) = try_converse(connection, daemon).await {
        tracing::debug!("a connection for a port has failed: {error}");
    }
}

async fn try_converse(connection: OwnedFd, daemon: Arc<Shared>) -> io::Result<()> {
    let connection = watch(connection)?;
    let request = tokio::time::timeout(REQUEST_WITHIN, next::<Request>(&connection)).await;
    let Some(request) = request.map_err(io::Error::from)?? else { return Ok(()) };
    if !access::allowed(&connection)? {
        let reason = "this user may not ask for ports: run as root, or join the group vnet";
        return send(connection.as_raw_fd(), &Reply::Refused(reason.into()), &[]);
    }
    let answer = match request {
        Request::Attach { network, domain, nic, mac, queues, limits } => {
            let alias = Alias::Port { network: network.clone(), domain, nic, mac, limits };
            daemon.attach(&network, alias, mac, queues).await
        }
        Request::Resume { port } => daemon.resume(&port).await.map(|port| (port, Vec::new())),
    };
    let (port, queues) = match answer {
        Ok(answer) => answer,
        Err(error) => {
            return send(connection.as_raw_fd(), &Reply::Refused(error.message), &[]);
        }
    };
    let name = port.name.clone();
    let mut mtu = daemon.owners.follow(&port);
    let fds: Vec<_> = queues.iter().map(AsRawFd::as_raw_fd).collect();
    let mut ended = send(connection.as_raw_fd(), &Reply::Attached(port), &fds);
    drop(queues);
    // Nothing more is asked; the end of the stream is the end of the VMM, and of its tap, though
    // it should have made the tap persistent.
    while ended.is_ok() {
        tokio::select! {
            request = next::<Request>(&connection) => match request {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => ended = Err(error),
            },
            Ok(()) = mtu.changed() => {
                let now = *mtu.borrow_and_update();
                ended = tell(&connection, &Event::Mtu(now)).await;
            }
        }
    }
    daemon.detach(&name).await;
    ended
}

/// Sends an event as soon as the other end has room for it.
async fn tell(connection: &AsyncFd<OwnedFd>, event: &Event) -> io::Result<()> {
    loop {
        let mut ready = connection.writable().await?;
        if let Ok(sent) = ready.try_io(|connection| send(connection.as_raw_fd(), event, &[])) {
            return sent;
        }
    }
}

async fn next<T: serde::de::DeserializeOwned>(
    connection: &AsyncFd<OwnedFd>,
) -> io::Result<Option<T>> {
    loop {
        let mut ready = connection.readable().await?;
        if let Ok(packet) = ready.try_io(|connection| receive::<T>(connection.as_raw_fd())) {
            // Descriptors that nobody asked for are closed here.
            return Ok(packet?.map(|(value, _)| value));
        }
    }
}
