//! DNS over TLS (RFC 7858), to a server that the test makes, with a certificate that it makes.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use hickory_proto::op::{Message, ResponseCode};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use vnet_dns::{DnsServer, Rules, Trust, Upstreams};

/// A server that proves to be `dns.example`, its certificate, and how many connections it has had.
async fn server() -> (SocketAddr, Trust, Arc<AtomicUsize>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["dns.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.8:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let connections = Arc::<AtomicUsize>::default();
    let counted = connections.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                while let Ok(len) = stream.read_u16().await {
                    let mut message = vec![0; usize::from(len)];
                    stream.read_exact(&mut message).await.unwrap();
                    let reply = answer(&Message::from_vec(&message).unwrap());
                    stream.write_u16(reply.len() as u16).await.unwrap();
                    stream.write_all(&reply).await.unwrap();
                    // It closes the connection on this name, as servers do at any time.
                    if reply.windows(4).any(|window| window == b"last") {
                        break;
                    }
                }
            });
        }
    });
    (addr, Trust::Authorities(Arc::new(vec![cert.der().clone()])), connections)
}

fn forwarder(upstream: String, trust: Trust) -> DnsServer {
    let mut config = config(&[]);
    config.rules = Rules::new(Upstreams::List(vec![upstream.parse().unwrap()]));
    config.trust = trust;
    serve(config)
}

#[tokio::test]
async fn a_server_that_proves_its_name_is_asked_over_one_connection() {
    let (addr, trust, connections) = server().await;
    let server = forwarder(format!("tls://{addr}#dns.example"), trust);
    for number in 0..10 {
        let reply = ask(&server, &format!("a{number}.example.com.")).await;
        assert_eq!(reply.answers[0].data.to_string(), "192.0.2.1");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    // A connection that was closed is opened again, and no query is lost.
    for text in ["last.example.com.", "b.example.com.", "c.example.com."] {
        let reply = ask(&server, text).await;
        assert_eq!(reply.answers[0].data.to_string(), "192.0.2.1", "{text}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_server_with_another_name_or_an_unknown_authority_is_not_asked() {
    let (addr, trust, connections) = server().await;
    let (_, stranger, _) = server().await;
    for (name, trust) in [("other.example", trust), ("dns.example", stranger)] {
        let server = forwarder(format!("tls://{addr}#{name}"), trust);
        let reply = ask(&server, "a.example.com.").await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail, "{name}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn without_a_name_anybody_is_asked_over_tls() {
    let (addr, _, connections) = server().await;
    let server = forwarder(format!("tls://{addr}"), Trust::Host);
    let reply = ask(&server, "a.example.com.").await;
    assert_eq!(reply.answers[0].data.to_string(), "192.0.2.1");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_must_prove_its_name_is_never_asked_in_the_clear() {
    // It speaks no TLS.
    let plain = Upstream::good().await;
    let server = forwarder(format!("tls://{}#dns.example", plain.addr), Trust::Host);
    let reply = ask(&server, "a.example.com.").await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}
