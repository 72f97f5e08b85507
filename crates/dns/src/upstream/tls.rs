//! DNS over TLS (RFC 7858): whom to believe, and the beginning of a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use vnet_types::DnsName;

/// The protocol's name within TLS (RFC 7858 has none; the registry of ALPN names has this one).
const ALPN: &[u8] = b"dot";

/// Who says that a server is who it claims to be.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// The authorities that the host trusts.
    #[default]
    Host,
    /// These, by their certificates, and no others.
    Authorities(Arc<Vec<CertificateDer<'static>>>),
}

/// Why a query has no answer over TLS.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no connection to be had.
    NoTls(io::Error),
    /// There was one, which has ended.
    Lost(io::Error),
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoTls(error) | Failure::Lost(error) => error,
        }
    }
}

/// Read once: a host has more than a hundred.
static HOST_ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read the authorities that this host trusts");
    }
    Arc::new(store(found.certs))
});

/// For servers that need not prove anything.
static ANYBODY: LazyLock<Option<Arc<ClientConfig>>> = LazyLock::new(|| {
    let provider = Arc::new(ring::default_provider());
    let believer = Arc::new(Believer(provider.clone()));
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.ok()?.dangerous().with_custom_certificate_verifier(believer);
    Some(with_alpn(builder.with_no_client_auth()))
});

/// Opens a connection to `server`, which is to prove that it is `name`, if one is given.
///
/// # Errors
/// It cannot be reached, speaks no TLS, or is not who it is to be.
pub(super) async fn connect(
    server: SocketAddr,
    name: Option<&DnsName>,
    trust: &Trust,
) -> io::Result<TlsStream<TcpStream>> {
    let unable = || io::Error::other("this build has no TLS");
    let config = match name {
        Some(_) => strict(trust).ok_or_else(unable)?,
        None => ANYBODY.clone().ok_or_else(unable)?,
    };
    let name = match name {
        Some(name) => ServerName::try_from(name.to_string()).map_err(io::Error::other)?,
        None => ServerName::from(server.ip()),
    };
    let stream = TcpStream::connect(server).await?;
    // A query is one write: nothing is gained by waiting for more.
    stream.set_nodelay(true)?;
    TlsConnector::from(config).connect(name, stream).await
}

fn strict(trust: &Trust) -> Option<Arc<ClientConfig>> {
    let roots = match trust {
        Trust::Host => HOST_ROOTS.clone(),
        Trust::Authorities(certificates) => Arc::new(store(certificates.to_vec())),
    };
    let provider = Arc::new(ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Some(with_alpn(builder.ok()?.with_root_certificates(roots).with_no_client_auth()))
}

fn with_alpn(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

fn store(certificates: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    roots
}

/// Believes any certificate: encryption against those who listen, not against those who interfere
/// (RFC 8310 §5, the opportunistic profile).
#[derive(Debug)]
struct Believer(Arc<CryptoProvider>);

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
