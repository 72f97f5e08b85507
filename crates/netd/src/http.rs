//! The HTTP API on its Unix socket.

use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection, StringRejection};
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use vnet_api::client::{Guests, Run};
use vnet_api::model::{
    Changed, CreateNetwork, ErrorBody, ErrorKind, ForwardView, Lease, Network, Reserve, Status,
};
use vnet_types::{Forward, Listen, MacAddr, NetworkName};

use crate::access;
use crate::daemon::Shared;
use crate::failure::{failed, refuse};

type Daemon = State<Arc<Shared>>;
type Answer<T> = Result<Json<T>, Failure>;

/// Binds the socket at `path` and serves the API on it until netd ends.
///
/// # Errors
/// The socket cannot be made.
pub fn serve(path: &Path, daemon: Arc<Shared>) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    access::protect(path)?;
    let router = router(daemon).into_make_service_with_connect_info::<Peer>();
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!("the API has ended: {error}");
        }
    });
    Ok(())
}

fn router(daemon: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/networks", get(networks).post(create))
        .route("/v1/networks/{name}", get(network).delete(delete))
        .route("/v1/networks/{name}/start", post(start))
        .route("/v1/networks/{name}/stop", post(stop))
        .route("/v1/networks/{name}/autostart", put(autostart))
        .route(
            "/v1/networks/{name}/forwards",
            get(network_forwards).post(add_forward).delete(remove_forward),
        )
        .route("/v1/forwards", get(forwards))
        .route("/v1/networks/{name}/definition", get(definition).put(edit))
        .route("/v1/networks/{name}/reservations/{mac}", put(reserve).delete(unreserve))
        .route("/v1/leases", get(leases))
        .fallback(async || Failure(refuse(ErrorKind::NotFound, "there is no such path in the API")))
        .method_not_allowed_fallback(async || {
            Failure(refuse(ErrorKind::Invalid, "this path of the API does not take that method"))
        })
        .layer(from_fn(authorise))
        .with_state(daemon)
}

/// Whether the process at the other end may speak to us.
#[derive(Debug, Clone, Copy)]
struct Peer {
    allowed: bool,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        // Who cannot be asked who he is may do nothing.
        Self { allowed: access::allowed(stream.io()).unwrap_or(false) }
    }
}

async fn authorise(ConnectInfo(peer): ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    if peer.allowed {
        return next.run(request).await;
    }
    let message = "this user may not speak to netd: run as root, or join the group vnet";
    Failure(refuse(ErrorKind::Forbidden, message)).into_response()
}

/// An error in the form in which it leaves.
struct Failure(ErrorBody);

impl From<ErrorBody> for Failure {
    fn from(body: ErrorBody) -> Self {
        Self(body)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.kind.status());
        (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(self.0)).into_response()
    }
}

macro_rules! rejected {
    ($($rejection:ty),*) => {
        $(impl From<$rejection> for Failure {
            fn from(rejection: $rejection) -> Self {
                Self(refuse(ErrorKind::Invalid, rejection.body_text()))
            }
        })*
    };
}

rejected!(JsonRejection, PathRejection, QueryRejection, StringRejection);

#[derive(FromRequest)]
#[from_request(via(Json), rejection(Failure))]
struct Body<T>(T);

#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Failure))]
struct Name<T>(T);

#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Failure))]
struct Query<T>(T);

/// A body that is text, whatever its sender calls it.
struct Text(String);

impl<S: Send + Sync> FromRequest<S> for Text {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        Ok(Self(String::from_request(request, state).await?))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    force: bool,
}

impl Options {
    fn run(&self) -> Run {
        if self.dry_run { Run::Dry } else { Run::Real }
    }

    fn guests(&self) -> Guests {
        if self.force { Guests::CutOff } else { Guests::Respect }
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    network: Option<NetworkName>,
}

/// Does a change to its end, though the one who asked for it may go away meanwhile.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, ErrorBody>> + Send + 'static,
) -> Answer<T> {
    match tokio::spawn(change).await {
        Ok(result) => Ok(Json(result?)),
        Err(error) => Err(failed(&error).into()),
    }
}

async fn status(State(daemon): Daemon) -> Json<Status> {
    Json(daemon.status().await)
}

async fn networks(State(daemon): Daemon) -> Answer<Vec<Network>> {
    Ok(Json(daemon.networks().await?))
}

async fn network(State(daemon): Daemon, Name(name): Name<NetworkName>) -> Answer<Network> {
    Ok(Json(daemon.network(&name).await?))
}

async fn create(
    State(daemon): Daemon,
    Query(options): Query<Options>,
    Body(request): Body<CreateNetwork>,
) -> Answer<Changed> {
    to_its_end(async move { daemon.create(request, options.run()).await }).await
}

async fn delete(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
    Query(options): Query<Options>,
) -> Answer<Changed> {
    to_its_end(async move { daemon.delete(&name, options.guests(), options.run()).await }).await
}

async fn start(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
    Query(options): Query<Options>,
) -> Answer<Changed> {
    to_its_end(async move { daemon.start(&name, options.run()).await }).await
}

async fn stop(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
    Query(options): Query<Options>,
) -> Answer<Changed> {
    to_its_end(async move { daemon.stop(&name, options.guests(), options.run()).await }).await
}

async fn autostart(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
    Body(on): Body<bool>,
) -> Answer<Changed> {
    to_its_end(async move { daemon.autostart(&name, on).await }).await
}

async fn leases(State(daemon): Daemon, Query(filter): Query<Filter>) -> Answer<Vec<Lease>> {
    Ok(Json(daemon.leases(filter.network.as_ref()).await?))
}

async fn forwards(State(daemon): Daemon, Query(filter): Query<Filter>) -> Answer<Vec<ForwardView>> {
    Ok(Json(daemon.forwards(filter.network.as_ref()).await?))
}

async fn network_forwards(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
) -> Answer<Vec<ForwardView>> {
    Ok(Json(daemon.forwards(Some(&name)).await?))
}

async fn add_forward(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
    Query(options): Query<Options>,
    Body(forward): Body<Forward>,
) -> Answer<Changed> {
    to_its_end(async move { daemon.add_forward(&name, forward, options.run()).await }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    listen: Listen,
    #[serde(default)]
    dry_run: bool,
}

async fn remove_forward(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
    Query(Published { listen, dry_run }): Query<Published>,
) -> Answer<Changed> {
    let run = if dry_run { Run::Dry } else { Run::Real };
    to_its_end(async move { daemon.remove_forward(&name, listen, run).await }).await
}

async fn definition(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
) -> Result<impl IntoResponse, Failure> {
    let text = daemon.definition_text(&name).await?;
    Ok(([(CONTENT_TYPE, "application/toml")], text))
}

async fn edit(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
    Query(options): Query<Options>,
    Text(text): Text,
) -> Answer<Changed> {
    to_its_end(async move { daemon.edit(&name, text, options.run()).await }).await
}

async fn reserve(
    State(daemon): Daemon,
    Name((name, mac)): Name<(NetworkName, MacAddr)>,
    Query(options): Query<Options>,
    Body(request): Body<Reserve>,
) -> Answer<Changed> {
    to_its_end(async move { daemon.reserve(&name, mac, request, options.run()).await }).await
}

async fn unreserve(
    State(daemon): Daemon,
    Name((name, mac)): Name<(NetworkName, MacAddr)>,
    Query(options): Query<Options>,
) -> Answer<Changed> {
    to_its_end(async move { daemon.unreserve(&name, mac, options.run()).await }).await
}
