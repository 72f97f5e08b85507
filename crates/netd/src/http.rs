//! The HTTP API on its Unix socket, and its description.
#![expect(unused_qualifications, reason = "utoipa's macros qualify the types that they are given")]

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
use axum::routing::get;
use axum::serve::IncomingStream;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use vnet_api::client::{Guests, Run};
use vnet_api::model::{
    AnyNetwork, BridgeChanged, BridgedNetwork, Changed, CreateNetwork, EnslaveUplink, ErrorBody,
    ErrorKind, Explained, ForwardView, Lease, Network, Reserve, Status,
};
use vnet_types::{Forward, IfName, Listen, MacAddr, NetworkName};

use crate::access;
use crate::daemon::Shared;
use crate::failure::{failed, refuse};
use crate::metrics;

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
    let (router, document) = described().split_for_parts();
    // It does not change while netd runs.
    let document = Arc::new(document);
    router
        .route("/metrics", get(metrics))
        .route("/v1/openapi.json", get(async move || Json(document.as_ref().clone())))
        .fallback(async || Failure(refuse(ErrorKind::NotFound, "there is no such path in the API")))
        .method_not_allowed_fallback(async || {
            Failure(refuse(ErrorKind::Invalid, "this path of the API does not take that method"))
        })
        .layer(from_fn(authorise))
        .with_state(daemon)
}

/// Each path with its description: one that isn't described cannot be added here.
fn described() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(status))
        .routes(routes!(networks, create))
        .routes(routes!(network, delete))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(autostart))
        .routes(routes!(definition, edit))
        .routes(routes!(reserve, unreserve))
        .routes(routes!(network_forwards, add_forward, remove_forward))
        .routes(routes!(forwards))
        .routes(routes!(leases))
        .routes(routes!(explain))
        .routes(routes!(bridges, enslave))
        .routes(routes!(confirm))
        .routes(routes!(release))
}

/// The API as an OpenAPI document, in JSON.
///
/// # Errors
/// The document has a value that JSON cannot hold.
pub fn openapi() -> serde_json::Result<String> {
    described().split_for_parts().1.to_pretty_json().map(|text| text + "\n")
}

/// What is described beside the paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "netd",
        description = "Networks for virtual machines, on a Unix socket: `curl --unix-socket \
                       /run/vnet/api.sock http://netd/v1/networks`. A request that changes \
                       something and has `dry_run=true` is answered with what would be done, and \
                       nothing is.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(ErrorBody, ErrorKind))
)]
struct Description;

/// How a request is refused; nothing has changed then.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "only its description is used")]
enum Refusals {
    /// The request makes no sense
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// The caller may not do this
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// The object is not there
    #[response(status = 404)]
    NotFound(ErrorBody),
    /// The object is there already, or something else is in its way
    #[response(status = 409)]
    Conflict(ErrorBody),
    /// The host refused
    #[response(status = 500)]
    Failed(ErrorBody),
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

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Options {
    /// Change nothing, and say what would be done
    #[serde(default)]
    dry_run: bool,
    /// Do it though guests are on the network
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

#[derive(Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only what is on this network
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

/// netd itself, and the definitions that it cannot use
#[utoipa::path(
    get,
    path = "/v1/status",
    responses((status = 200, description = "Done", body = Status), Refusals),
)]
async fn status(State(daemon): Daemon) -> Json<Status> {
    Json(daemon.status().await)
}

/// What the services have done, for Prometheus, which has paths of its own.
async fn metrics(State(daemon): Daemon) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], daemon.metrics().await)
}

/// All networks, by name
#[utoipa::path(
    get,
    path = "/v1/networks",
    responses((status = 200, description = "Done", body = Vec<Network>), Refusals),
)]
async fn networks(State(daemon): Daemon) -> Answer<Vec<Network>> {
    Ok(Json(daemon.networks().await?))
}

/// One network
#[utoipa::path(
    get,
    path = "/v1/networks/{name}",
    params(("name" = NetworkName, Path, description = "The network")),
    responses((status = 200, description = "Done", body = AnyNetwork), Refusals),
)]
async fn network(State(daemon): Daemon, Name(name): Name<NetworkName>) -> Answer<AnyNetwork> {
    Ok(Json(daemon.network(&name).await?))
}

/// Define a network and start it; what is left out is chosen
#[utoipa::path(
    post,
    path = "/v1/networks",
    params(Options),
    request_body = CreateNetwork,
    responses((status = 200, description = "Done", body = Changed), Refusals),
)]
async fn create(
    State(daemon): Daemon,
    Query(options): Query<Options>,
    Body(request): Body<CreateNetwork>,
) -> Answer<Changed> {
    to_its_end(async move { daemon.create(request, options.run()).await }).await
}

/// Stop a network and remove its definition and its leases
#[utoipa::path(
    delete,
    path = "/v1/networks/{name}",
    params(("name" = NetworkName, Path, description = "The network"), Options),
    responses((status = 200, description = "Done", body = Changed<AnyNetwork>), Refusals),
)]
async fn delete(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
    Query(options): Query<Options>,
) -> Answer<Changed<AnyNetwork>> {
    to_its_end(async move { daemon.delete(&name, options.guests(), options.run()).await }).await
}

/// Start a network
#[utoipa::path(
    post,
    path = "/v1/networks/{name}/start",
    params(("name" = NetworkName, Path, description = "The network"), Options),
    responses((status = 200, description = "Done", body = Changed<AnyNetwork>), Refusals),
)]
async fn start(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
    Query(options): Query<Options>,
) -> Answer<Changed<AnyNetwork>> {
    to_its_end(async move { daemon.start(&name, options.run()).await }).await
}

/// Stop a network; its definition and its leases stay
#[utoipa::path(
    post,
    path = "/v1/networks/{name}/stop",
    params(("name" = NetworkName, Path, description = "The network"), Options),
    responses((status = 200, description = "Done", body = Changed<AnyNetwork>), Refusals),
)]
async fn stop(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
    Query(options): Query<Options>,
) -> Answer<Changed<AnyNetwork>> {
    to_its_end(async move { daemon.stop(&name, options.guests(), options.run()).await }).await
}

/// Set whether netd starts a network when it starts itself
#[utoipa::path(
    put,
    path = "/v1/networks/{name}/autostart",
    params(("name" = NetworkName, Path, description = "The network")),
    request_body = bool,
    responses((status = 200, description = "Done", body = Changed<AnyNetwork>), Refusals),
)]
async fn autostart(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
    Body(on): Body<bool>,
) -> Answer<Changed<AnyNetwork>> {
    to_its_end(async move { daemon.autostart(&name, on).await }).await
}

/// The leases of one network, or of all that are up
#[utoipa::path(
    get,
    path = "/v1/leases",
    params(Filter),
    responses((status = 200, description = "Done", body = Vec<Lease>), Refusals),
)]
async fn leases(State(daemon): Daemon, Query(filter): Query<Filter>) -> Answer<Vec<Lease>> {
    Ok(Json(daemon.leases(filter.network.as_ref()).await?))
}

/// What DHCP has heard of a guest, and the reason for each answer and each silence
#[utoipa::path(
    get,
    path = "/v1/explain/{guest}",
    params(("guest" = String, Path, description = "A domain, a guest's name, its address or its MAC address")),
    responses((status = 200, description = "Done", body = Vec<Explained>), Refusals),
)]
async fn explain(State(daemon): Daemon, Name(guest): Name<String>) -> Answer<Vec<Explained>> {
    Ok(Json(daemon.explain(&guest).await?))
}

/// The forwards of one network, or of all
#[utoipa::path(
    get,
    path = "/v1/forwards",
    params(Filter),
    responses((status = 200, description = "Done", body = Vec<ForwardView>), Refusals),
)]
async fn forwards(State(daemon): Daemon, Query(filter): Query<Filter>) -> Answer<Vec<ForwardView>> {
    Ok(Json(daemon.forwards(filter.network.as_ref()).await?))
}

/// The forwards of a network
#[utoipa::path(
    get,
    path = "/v1/networks/{name}/forwards",
    params(("name" = NetworkName, Path, description = "The network")),
    responses((status = 200, description = "Done", body = Vec<ForwardView>), Refusals),
)]
async fn network_forwards(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
) -> Answer<Vec<ForwardView>> {
    Ok(Json(daemon.forwards(Some(&name)).await?))
}

/// Publish a port of a guest
#[utoipa::path(
    post,
    path = "/v1/networks/{name}/forwards",
    params(("name" = NetworkName, Path, description = "The network"), Options),
    request_body = Forward,
    responses((status = 200, description = "Done", body = Changed), Refusals),
)]
async fn add_forward(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
    Query(options): Query<Options>,
    Body(forward): Body<Forward>,
) -> Answer<Changed> {
    to_its_end(async move { daemon.add_forward(&name, forward, options.run()).await }).await
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Published {
    /// Where the host listens: `[ADDR:]PORT[-PORT][/tcp|/udp]`
    #[param(value_type = String, example = "8080/tcp")]
    listen: Listen,
    /// Change nothing, and say what would be done
    #[serde(default)]
    dry_run: bool,
}

/// Publish a port no more
#[utoipa::path(
    delete,
    path = "/v1/networks/{name}/forwards",
    params(("name" = NetworkName, Path, description = "The network"), Published),
    responses((status = 200, description = "Done", body = Changed), Refusals),
)]
async fn remove_forward(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
    Query(Published { listen, dry_run }): Query<Published>,
) -> Answer<Changed> {
    let run = if dry_run { Run::Dry } else { Run::Real };
    to_its_end(async move { daemon.remove_forward(&name, listen, run).await }).await
}

/// The text of a definition, as a person wrote it
#[utoipa::path(
    get,
    path = "/v1/networks/{name}/definition",
    params(("name" = NetworkName, Path, description = "The network")),
    responses((status = 200, description = "Done", content_type = "application/toml", body = String), Refusals),
)]
async fn definition(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
) -> Result<impl IntoResponse, Failure> {
    let text = daemon.definition_text(&name).await?;
    Ok(([(CONTENT_TYPE, "application/toml")], text))
}

/// Put a text in place of a definition, and make the network what it says while it is up
#[utoipa::path(
    put,
    path = "/v1/networks/{name}/definition",
    params(("name" = NetworkName, Path, description = "The network"), Options),
    request_body(content = String, content_type = "application/toml"),
    responses((status = 200, description = "Done", body = Changed<AnyNetwork>), Refusals),
)]
async fn edit(
    State(daemon): Daemon,
    Name(name): Name<NetworkName>,
    Query(options): Query<Options>,
    Text(text): Text,
) -> Answer<Changed<AnyNetwork>> {
    to_its_end(async move { daemon.edit(&name, text, options.run()).await }).await
}

/// Keep an address for a guest
#[utoipa::path(
    put,
    path = "/v1/networks/{name}/reservations/{mac}",
    params(("name" = NetworkName, Path, description = "The network"), ("mac" = MacAddr, Path, description = "The guest's network card"), Options),
    request_body = Reserve,
    responses((status = 200, description = "Done", body = Changed), Refusals),
)]
async fn reserve(
    State(daemon): Daemon,
    Name((name, mac)): Name<(NetworkName, MacAddr)>,
    Query(options): Query<Options>,
    Body(request): Body<Reserve>,
) -> Answer<Changed> {
    to_its_end(async move { daemon.reserve(&name, mac, request, options.run()).await }).await
}

/// Keep no address for a guest any more
#[utoipa::path(
    delete,
    path = "/v1/networks/{name}/reservations/{mac}",
    params(("name" = NetworkName, Path, description = "The network"), ("mac" = MacAddr, Path, description = "The guest's network card"), Options),
    responses((status = 200, description = "Done", body = Changed), Refusals),
)]
async fn unreserve(
    State(daemon): Daemon,
    Name((name, mac)): Name<(NetworkName, MacAddr)>,
    Query(options): Query<Options>,
) -> Answer<Changed> {
    to_its_end(async move { daemon.unreserve(&name, mac, options.run()).await }).await
}

/// All bridged networks, by name
#[utoipa::path(
    get,
    path = "/v1/bridges",
    responses((status = 200, description = "Done", body = Vec<BridgedNetwork>), Refusals),
)]
async fn bridges(State(daemon): Daemon) -> Answer<Vec<BridgedNetwork>> {
    Ok(Json(daemon.bridges().await?))
}

/// Put an uplink under a bridge, with all of the host's own network that was on it
#[utoipa::path(
    post,
    path = "/v1/bridges",
    params(Options),
    request_body = EnslaveUplink,
    responses((status = 200, description = "Done", body = BridgeChanged), Refusals),
)]
async fn enslave(
    State(daemon): Daemon,
    Query(options): Query<Options>,
    Body(request): Body<EnslaveUplink>,
) -> Answer<BridgeChanged> {
    to_its_end(async move { daemon.enslave(request, options.run()).await }).await
}

/// Keep a bridge that waits to be confirmed
#[utoipa::path(
    post,
    path = "/v1/bridges/{bridge}/confirm",
    params(("bridge" = IfName, Path, description = "The bridge")),
    responses((status = 200, description = "Done", body = BridgeChanged), Refusals),
)]
async fn confirm(State(daemon): Daemon, Name(bridge): Name<IfName>) -> Answer<BridgeChanged> {
    to_its_end(async move { daemon.confirm(&bridge).await }).await
}

/// Take an uplink from its bridge, and give it back all of the host's own network
#[utoipa::path(
    post,
    path = "/v1/bridges/{bridge}/release",
    params(("bridge" = IfName, Path, description = "The bridge"), Options),
    request_body = IfName,
    responses((status = 200, description = "Done", body = BridgeChanged), Refusals),
)]
async fn release(
    State(daemon): Daemon,
    Name(bridge): Name<IfName>,
    Query(options): Query<Options>,
    Body(uplink): Body<IfName>,
) -> Answer<BridgeChanged> {
    let change =
        async move { daemon.release(&bridge, &uplink, options.guests(), options.run()).await };
    to_its_end(change).await
}
