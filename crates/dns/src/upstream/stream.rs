//! A connection to a server over TLS, shared by all queries (RFC 7858 §3.4): they do not wait for
//! each other's answers (RFC 7766 §6.2.1.1), and it ends when it has been idle.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use vnet_types::DnsName;

use super::exchange::{answers, framed, random_id};
use super::tls::{Failure, Trust, connect};
use crate::wire::Query;

/// How long a connection may be idle (RFC 7858 §3.4: servers keep them for some seconds).
const IDLE: Duration = Duration::from_secs(10);

/// How long the opening of a connection may take; the next server is asked before.
const OPENING: Duration = Duration::from_secs(3);

/// How long nobody tries to open a connection where there was none to be had.
const NO_TLS: Duration = Duration::from_secs(60);

/// Queries on one connection.
const PIPELINE: usize = 256;

/// A query on its way, and where its answer goes.
type Request = (Vec<u8>, oneshot::Sender<Vec<u8>>);

/// The connection to one server: none until somebody asks, and none after it has ended.
#[derive(Debug, Default)]
pub(super) struct Connection {
    open: AsyncMutex<Option<mpsc::Sender<Request>>>,
    task: Mutex<Option<AbortHandle>>,
    /// When a connection was last not to be had, in milliseconds of [`BEGIN`], or 0.
    no_tls: AtomicU64,
}

static BEGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

fn now() -> u64 {
    BEGIN.elapsed().as_millis() as u64 + 1
}

impl Connection {
    /// Asks, over a connection that is opened if there is none.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(super) async fn ask(
        &self,
        server: SocketAddr,
        name: Option<&DnsName>,
        trust: &Trust,
        query: &Query,
    ) -> Result<Vec<u8>, Failure> {
        let mut message = Vec::new();
        query.upstream(random_id().map_err(Failure::Lost)?, true, &mut message);
        // One that the server has just closed is no reason to give up (RFC 7766 §6.2.4).
        for _ in 0..2 {
            let sender = self.sender(server, name, trust).await?;
            let (answer, receiver) = oneshot::channel();
            if sender.send((message.clone(), answer)).await.is_ok()
                && let Ok(reply) = receiver.await
            {
                return Ok(reply);
            }
            let mut open = self.open.lock().await;
            if open.as_ref().is_some_and(mpsc::Sender::is_closed) {
                *open = None;
            }
        }
        Err(Failure::Lost(io::ErrorKind::ConnectionReset.into()))
    }

    /// Ends it.
    pub(super) fn close(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        task.iter().for_each(AbortHandle::abort);
    }

    async fn sender(
        &self,
        server: SocketAddr,
        name: Option<&DnsName>,
        trust: &Trust,
    ) -> Result<mpsc::Sender<Request>, Failure> {
        let mut open = self.open.lock().await;
        if let Some(sender) = open.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let failed = self.no_tls.load(Relaxed);
        // Who insists on TLS has no other way, and tries.
        if name.is_none() && failed != 0 && now() < failed + NO_TLS.as_millis() as u64 {
            return Err(Failure::NoTls(io::ErrorKind::ConnectionRefused.into()));
        }
        // An attempt that its query gives up leaves this behind.
        self.no_tls.store(now(), Relaxed);
        let connecting = timeout(OPENING, connect(server, name, trust)).await;
        let stream = match connecting {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Failure::NoTls(error)),
            Err(_) => return Err(Failure::NoTls(io::ErrorKind::TimedOut.into())),
        };
        self.no_tls.store(0, Relaxed);
        let (sender, requests) = mpsc::channel(PIPELINE);
        let task = tokio::spawn(serve(stream, requests)).abort_handle();
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        *open = Some(sender.clone());
        Ok(sender)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

/// Sends requests and gives out their answers until the connection ends or has been idle; what
/// waits for an answer then learns that there is none.
async fn serve(stream: TlsStream<TcpStream>, mut requests: mpsc::Receiver<Request>) {
    let (mut reader, mut writer) = split(stream);
    let mut waiting: HashMap<u16, Request> = HashMap::new();
    let mut reading = std::pin::pin!(read(&mut reader));
    loop {
        tokio::select! {
            request = timeout(IDLE, requests.recv()) => {
                let Ok(Some((message, answer))) = request else {
                    // Nobody has asked, and who has waits for no longer than that.
                    break;
                };
                if send(&mut writer, &mut waiting, message, answer).await.is_err() {
                    break;
                }
            }
            reply = &mut reading => {
                let Ok((reply, rest)) = reply else { break };
                let id = crate::wire::u16_at(&reply, 0).unwrap_or(0);
                if let Some((message, _)) = waiting.get(&id)
                    && answers(message, &reply)
                    && let Some((_, answer)) = waiting.remove(&id)
                {
                    // Who asked may have gone.
                    let _ = answer.send(reply);
                }
                reading.set(read(rest));
            }
        }
        waiting.retain(|_, (_, answer)| !answer.is_closed());
    }
    // The peer may be gone, and then there is nobody to say farewell to.
    let _ = timeout(Duration::from_secs(1), writer.shutdown()).await;
}

/// Sends a request under an id that no other one on this connection has.
async fn send(
    writer: &mut WriteHalf<TlsStream<TcpStream>>,
    waiting: &mut HashMap<u16, Request>,
    mut message: Vec<u8>,
    answer: oneshot::Sender<Vec<u8>>,
) -> io::Result<()> {
    let mut id = crate::wire::u16_at(&message, 0).unwrap_or(0);
    while waiting.contains_key(&id) {
        id = id.wrapping_add(1);
    }
    crate::wire::put_u16(&mut message, 0, id);
    writer.write_all(&framed(&message)).await?;
    writer.flush().await?;
    waiting.insert(id, (message, answer));
    Ok(())
}

/// The next message, and the reader for the one after it.
async fn read(
    reader: &mut ReadHalf<TlsStream<TcpStream>>,
) -> io::Result<(Vec<u8>, &mut ReadHalf<TlsStream<TcpStream>>)> {
    let len = reader.read_u16().await?;
    let mut reply = vec![0; usize::from(len)];
    reader.read_exact(&mut reply).await?;
    Ok((reply, reader))
}
