//! A client of the HTTP API.

use std::io;
use std::path::PathBuf;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use vnet_types::{Forward, IfName, Listen, MacAddr, NetworkName};

use crate::model::{
    AnyNetwork, BridgeChanged, BridgedNetwork, Changed, CreateNetwork, EnslaveUplink, ErrorBody,
    Explained, ForwardView, Lease, Network, Reserve, Status,
};

/// Bytes in the largest answer that is read.
const MAX_ANSWER: usize = 256 << 20;

/// Why a request was not answered as asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "netd cannot be reached at {path}: start it with `systemctl start vnet-netd`, or by hand \
         with `netd --root DIR`"
    )]
    Unreachable {
        /// The socket.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody listens, but not to this user.
    #[error("netd's socket {path} is not for this user: run as root, or join the group vnet")]
    Permission {
        /// The socket.
        path: String,
    },
    /// netd said no, and why.
    #[error(transparent)]
    Refused(#[from] ErrorBody),
    /// The conversation failed.
    #[error("netd's answer at {path} cannot be understood: {reason}")]
    Broken {
        /// The socket.
        path: String,
        /// What went wrong.
        reason: String,
    },
}

/// Whether a request is to be done or only to be planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Do it.
    Real,
    /// Say what would be done.
    Dry,
}

/// Whether guests that are on a network keep it from being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guests {
    /// They do.
    Respect,
    /// They lose their link.
    CutOff,
}

/// A client of the netd that listens on one socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The client of the netd that listens at `socket`. Nothing is sent yet.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// netd itself.
    ///
    /// # Errors
    /// netd cannot be reached, or breaks the protocol.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.call(Method::GET, "/v1/status", &()).await
    }

    /// All networks, by name.
    ///
    /// # Errors
    /// netd cannot be reached, or breaks the protocol.
    pub async fn networks(&self) -> Result<Vec<Network>, ClientError> {
        self.call(Method::GET, "/v1/networks", &()).await
    }

    /// One network.
    ///
    /// # Errors
    /// It is not there, or netd cannot be reached.
    pub async fn network(&self, name: &NetworkName) -> Result<AnyNetwork, ClientError> {
        self.call(Method::GET, &format!("/v1/networks/{name}"), &()).await
    }

    /// Defines a network and starts it.
    ///
    /// # Errors
    /// The request clashes with something, or the host refuses: nothing has changed then.
    pub async fn create(&self, network: &CreateNetwork, run: Run) -> Result<Changed, ClientError> {
        self.call(Method::POST, &format!("/v1/networks?{}", query(run)), network).await
    }

    /// Stops a network and removes its definition and its leases.
    ///
    /// # Errors
    /// It is not there, or guests are on it.
    pub async fn delete(
        &self,
        name: &NetworkName,
        guests: Guests,
        run: Run,
    ) -> Result<Changed<AnyNetwork>, ClientError> {
        let path = format!("/v1/networks/{name}?{}{}", query(run), force(guests));
        self.call(Method::DELETE, &path, &()).await
    }

    /// Starts a network.
    ///
    /// # Errors
    /// It is not there, clashes with something, or the host refuses.
    pub async fn start(
        &self,
        name: &NetworkName,
        run: Run,
    ) -> Result<Changed<AnyNetwork>, ClientError> {
        self.call(Method::POST, &format!("/v1/networks/{name}/start?{}", query(run)), &()).await
    }

    /// Stops a network; its definition and its leases stay.
    ///
    /// # Errors
    /// It is not there, or guests are on it.
    pub async fn stop(
        &self,
        name: &NetworkName,
        guests: Guests,
        run: Run,
    ) -> Result<Changed<AnyNetwork>, ClientError> {
        let path = format!("/v1/networks/{name}/stop?{}{}", query(run), force(guests));
        self.call(Method::POST, &path, &()).await
    }

    /// Sets whether netd starts a network when it starts itself.
    ///
    /// # Errors
    /// It is not there, or its definition cannot be written.
    pub async fn autostart(
        &self,
        name: &NetworkName,
        on: bool,
    ) -> Result<Changed<AnyNetwork>, ClientError> {
        self.call(Method::PUT, &format!("/v1/networks/{name}/autostart"), &on).await
    }

    /// The text of a network's definition, as a person wrote it.
    ///
    /// # Errors
    /// It is not there, or netd cannot be reached.
    pub async fn definition(&self, name: &NetworkName) -> Result<String, ClientError> {
        let path = format!("/v1/networks/{name}/definition");
        let bytes = self.send(Method::GET, &path, "application/json", Bytes::new()).await?;
        String::from_utf8(bytes.into()).map_err(|error| self.broken(&error))
    }

    /// Puts `text` in place of a network's definition, and makes the network what it says.
    ///
    /// # Errors
    /// It is not there, the text is no definition or clashes with something, or the host refuses:
    /// nothing has changed then.
    pub async fn edit(
        &self,
        name: &NetworkName,
        text: String,
        run: Run,
    ) -> Result<Changed<AnyNetwork>, ClientError> {
        let path = format!("/v1/networks/{name}/definition?{}", query(run));
        let bytes = self.send(Method::PUT, &path, "application/toml", text.into()).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.broken(&error))
    }

    /// Keeps an address for the guest with the address `mac`.
    ///
    /// # Errors
    /// As [`Client::edit`].
    pub async fn reserve(
        &self,
        name: &NetworkName,
        mac: MacAddr,
        reserve: &Reserve,
        run: Run,
    ) -> Result<Changed, ClientError> {
        let path = format!("/v1/networks/{name}/reservations/{mac}?{}", query(run));
        self.call(Method::PUT, &path, reserve).await
    }

    /// Keeps no address for the guest with the address `mac` any more.
    ///
    /// # Errors
    /// As [`Client::edit`], or nothing is reserved for it.
    pub async fn unreserve(
        &self,
        name: &NetworkName,
        mac: MacAddr,
        run: Run,
    ) -> Result<Changed, ClientError> {
        let path = format!("/v1/networks/{name}/reservations/{mac}?{}", query(run));
        self.call(Method::DELETE, &path, &()).await
    }

    /// The leases of one network, or of all.
    ///
    /// # Errors
    /// The network is not there, or netd cannot be reached.
    pub async fn leases(&self, network: Option<&NetworkName>) -> Result<Vec<Lease>, ClientError> {
        let query = network.map(|name| format!("?network={name}")).unwrap_or_default();
        self.call(Method::GET, &format!("/v1/leases{query}"), &()).await
    }

    /// What DHCP has heard of a guest, and what came of it. `guest` is a domain, a guest's name,
    /// an address or a MAC address.
    ///
    /// # Errors
    /// Nobody is known by that name, or netd cannot be reached.
    pub async fn explain(&self, guest: &str) -> Result<Vec<Explained>, ClientError> {
        self.call(Method::GET, &format!("/v1/explain/{guest}"), &()).await
    }

    /// The forwards of one network, or of all.
    ///
    /// # Errors
    /// The network is not there, or netd cannot be reached.
    pub async fn forwards(
        &self,
        network: Option<&NetworkName>,
    ) -> Result<Vec<ForwardView>, ClientError> {
        let query = network.map(|name| format!("?network={name}")).unwrap_or_default();
        self.call(Method::GET, &format!("/v1/forwards{query}"), &()).await
    }

    /// Publishes a port of a guest.
    ///
    /// # Errors
    /// The port is taken, the network is not there, or the host refuses: nothing has changed then.
    pub async fn add_forward(
        &self,
        network: &NetworkName,
        forward: &Forward,
        run: Run,
    ) -> Result<Changed, ClientError> {
        let path = format!("/v1/networks/{network}/forwards?{}", query(run));
        self.call(Method::POST, &path, forward).await
    }

    /// Publishes a port no more.
    ///
    /// # Errors
    /// There is no such forward, or the host refuses: nothing has changed then.
    pub async fn remove_forward(
        &self,
        network: &NetworkName,
        listen: &Listen,
        run: Run,
    ) -> Result<Changed, ClientError> {
        let path = format!("/v1/networks/{network}/forwards?listen={listen}&{}", query(run));
        self.call(Method::DELETE, &path, &()).await
    }

    /// All bridged networks, by name.
    ///
    /// # Errors
    /// netd cannot be reached, or breaks the protocol.
    pub async fn bridges(&self) -> Result<Vec<BridgedNetwork>, ClientError> {
        self.call(Method::GET, "/v1/bridges", &()).await
    }

    /// All networks of both sorts, each sort by name.
    ///
    /// # Errors
    /// netd cannot be reached, or breaks the protocol.
    pub async fn all_networks(&self) -> Result<Vec<AnyNetwork>, ClientError> {
        let (networks, bridges) = tokio::try_join!(self.networks(), self.bridges())?;
        let networks = networks.into_iter().map(AnyNetwork::from);
        Ok(networks.chain(bridges.into_iter().map(AnyNetwork::from)).collect())
    }

    /// Puts an uplink under a bridge, with all of the host's own network that was on it.
    ///
    /// # Errors
    /// The uplink cannot have a bridge, or its gateway did not answer: all is as it was then.
    pub async fn enslave(
        &self,
        request: &EnslaveUplink,
        run: Run,
    ) -> Result<BridgeChanged, ClientError> {
        self.call(Method::POST, &format!("/v1/bridges?{}", query(run)), request).await
    }

    /// Says that the host can still be reached, so that its bridge stays.
    ///
    /// # Errors
    /// Nothing waits for that.
    pub async fn confirm(&self, bridge: &IfName) -> Result<BridgeChanged, ClientError> {
        self.call(Method::POST, &format!("/v1/bridges/{bridge}/confirm"), &()).await
    }

    /// Takes an uplink from its bridge, and gives it back all of the host's own network.
    ///
    /// # Errors
    /// It is no port of that bridge, or guests are on it.
    pub async fn release(
        &self,
        bridge: &IfName,
        uplink: &IfName,
        guests: Guests,
        run: Run,
    ) -> Result<BridgeChanged, ClientError> {
        let path = format!("/v1/bridges/{bridge}/release?{}{}", query(run), force(guests));
        self.call(Method::POST, &path, uplink).await
    }

    fn broken(&self, reason: &dyn std::fmt::Display) -> ClientError {
        let path = self.socket.display().to_string();
        ClientError::Broken { path, reason: reason.to_string() }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(&error))?;
        let answer = self.send(method, path, "application/json", body.into()).await?;
        serde_json::from_slice(&answer).map_err(|error| self.broken(&error))
    }

    /// Sends one request, and returns the body of the answer to it.
    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Bytes, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            let path = self.socket.display().to_string();
            match source.kind() {
                io::ErrorKind::PermissionDenied => ClientError::Permission { path },
                _ => ClientError::Unreachable { path, source },
            }
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        // It ends with the answer; an error in it is an error of the request too.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "netd")
            .header(hyper::header::CONTENT_TYPE, content_type)
            .body(Full::new(body))
            .map_err(|error| self.broken(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        let status = answer.status();
        let bytes = http_body_util::Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| self.broken(&error))?
            .to_bytes();
        if status == StatusCode::OK {
            return Ok(bytes);
        }
        Err(serde_json::from_slice::<ErrorBody>(&bytes).map_or_else(
            |_| self.broken(&format!("status {status}: {}", String::from_utf8_lossy(&bytes))),
            ClientError::Refused,
        ))
    }
}

fn query(run: Run) -> &'static str {
    match run {
        Run::Real => "",
        Run::Dry => "dry_run=true",
    }
}

fn force(guests: Guests) -> &'static str {
    match guests {
        Guests::Respect => "",
        Guests::CutOff => "&force=true",
    }
}
