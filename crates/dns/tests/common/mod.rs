//! A DNS server that misbehaves on demand, and a client.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use vnet_dns::zone::Zone;
use vnet_dns::{Config, DnsServer, Rules, Timing, Upstreams};

/// Far longer than anything here takes: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(8);

pub(crate) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(crate) fn zone() -> Zone {
    let mut builder =
        Zone::builder("default.vnet".parse().unwrap(), "192.168.122.0/24".parse().unwrap());
    builder.insert(&"web".parse().unwrap(), "192.168.122.9".parse().unwrap()).unwrap();
    for octet in 2..200 {
        let addr = Ipv4Addr::new(192, 168, 122, octet);
        builder.insert(&"many".parse().unwrap(), addr.into()).unwrap();
    }
    builder.build()
}

/// A configuration whose clients are on the loopback device.
pub(crate) fn config(upstreams: &[SocketAddr]) -> Config {
    let list = upstreams.iter().map(|addr| addr.to_string().parse().unwrap());
    let mut config = Config::new(zone(), Rules::new(Upstreams::List(list.collect())));
    config.clients = vec!["127.0.0.0/8".parse().unwrap()];
    config.timing = Timing {
        stagger: Duration::from_millis(150),
        deadline: Duration::from_millis(1200),
        backoff: Duration::from_secs(60),
        patience: Duration::from_millis(300),
    };
    config
}

pub(crate) fn serve(config: Config) -> DnsServer {
    DnsServer::spawn_at("127.0.0.7:0".parse().unwrap(), &[], config).unwrap()
}

/// What a fake upstream sends for one query: none, one or several messages.
type Behaviour = dyn Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync;

/// An upstream on UDP and TCP.
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    asked: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<(Message, SocketAddr)>>>,
}

impl Upstream {
    /// `behaviour` is given the query and whether it came by TCP.
    pub(crate) async fn start(
        behaviour: impl Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let tcp = TcpListener::bind("127.0.0.8:0").await.unwrap();
        let addr = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(addr).await.unwrap();
        let (asked, seen) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<_>>>::default());
        let upstream = Self { addr, asked: asked.clone(), seen: seen.clone() };
        let note = move |query: &Message, from| {
            asked.fetch_add(1, Ordering::SeqCst);
            seen.lock().unwrap().push((query.clone(), from));
        };
        let (tcp_note, tcp_behaviour) = (note.clone(), behaviour.clone());
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (len, from) = udp.recv_from(&mut buffer).await.unwrap();
                let query = Message::from_vec(&buffer[..len]).unwrap();
                note(&query, from);
                for reply in behaviour(&query, false) {
                    udp.send_to(&reply, from).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, from) = tcp.accept().await.unwrap();
                let query = Message::from_vec(&read_framed(&mut stream).await).unwrap();
                tcp_note(&query, from);
                for reply in tcp_behaviour(&query, true) {
                    write_framed(&mut stream, &reply).await;
                }
            }
        });
        upstream
    }

    /// One that answers every query with `192.0.2.1`.
    pub(crate) async fn good() -> Self {
        Self::start(|query, _| vec![answer(query)]).await
    }

    /// One that never answers.
    pub(crate) async fn silent() -> Self {
        Self::start(|_, _| vec![]).await
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self) -> Vec<(Message, SocketAddr)> {
        self.seen.lock().unwrap().clone()
    }
}

/// An empty answer to `query`.
pub(crate) fn reply_to(query: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(query.metadata.id, OpCode::Query);
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.add_queries(query.queries.clone());
    reply
}

/// An answer with the address 192.0.2.1 for 300 s.
pub(crate) fn answer(query: &Message) -> Vec<u8> {
    let mut reply = reply_to(query, ResponseCode::NoError);
    let data = RData::A(A(Ipv4Addr::new(192, 0, 2, 1)));
    reply.add_answer(Record::from_rdata(query.queries[0].name.clone(), 300, data));
    reply.to_vec().unwrap()
}

pub(crate) fn query(text: &str, rtype: RecordType) -> Message {
    let mut query = Message::new(4711, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name(text), rtype));
    query
}

pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Sends bytes over UDP and returns the answer's bytes.
pub(crate) async fn udp_bytes(server: &DnsServer, request: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.addr()).await.unwrap();
    socket.send(request).await.unwrap();
    let mut buffer = vec![0; 65536];
    let len = in_time(socket.recv(&mut buffer)).await.unwrap();
    buffer.truncate(len);
    buffer
}

pub(crate) async fn udp(server: &DnsServer, query: &Message) -> Message {
    Message::from_vec(&udp_bytes(server, &query.to_vec().unwrap()).await).unwrap()
}

/// Asks for an A record over UDP.
pub(crate) async fn ask(server: &DnsServer, text: &str) -> Message {
    udp(server, &query(text, RecordType::A)).await
}

pub(crate) async fn tcp(server: &DnsServer, query: &Message) -> Message {
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    write_framed(&mut stream, &query.to_vec().unwrap()).await;
    Message::from_vec(&in_time(read_framed(&mut stream)).await).unwrap()
}

pub(crate) async fn write_framed(stream: &mut TcpStream, message: &[u8]) {
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await.unwrap();
}

pub(crate) async fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let len = stream.read_u16().await.unwrap();
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await.unwrap();
    message
}
