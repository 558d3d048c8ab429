//! Which path and method is which call. 404, 405 and 307 are answered as GAIA's own service does.

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{RawPathParams, Request},
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::any,
};

use super::{
    Gaia, availability, containers, gpu, handoff, openapi, oracle, overview, power,
    reply::{Answer, Refusal, method_not_allowed, without_slash},
    socket, stacks,
    transfer::Direction,
    watch,
};
use crate::api::workload::Variant;

/// Bodies of the old clients are a few hundred bytes.
const LIMIT_BYTES: usize = 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Health,
    Status,
    Openapi,
    HaStatus,
    WatchState,
    GpuStatus,
    GpuAcquire,
    GpuRelease,
    GpuWait,
    GpuSleep,
    GpuWake,
    GpuHandoff,
    Handoff(Direction),
    HandoffStatus,
    HandoffCancel,
    ContainersStatus,
    StackStop(Variant),
    StackStart(Variant),
    Swap,
    Restart,
    OracleFallback,
    Notifications,
}

/// `{}` in a path is a name or an id.
const ROUTES: &[(&str, Method, Call)] = &[
    ("/health", Method::GET, Call::Health),
    ("/status", Method::GET, Call::Status),
    ("/openapi.json", Method::GET, Call::Openapi),
    ("/ha/status", Method::GET, Call::HaStatus),
    ("/watch/state", Method::GET, Call::WatchState),
    ("/gpu/status", Method::GET, Call::GpuStatus),
    ("/gpu/acquire", Method::POST, Call::GpuAcquire),
    ("/gpu/release", Method::POST, Call::GpuRelease),
    ("/gpu/wait", Method::POST, Call::GpuWait),
    ("/gpu/sleep", Method::POST, Call::GpuSleep),
    ("/gpu/wake", Method::POST, Call::GpuWake),
    ("/gpu/handoff", Method::POST, Call::GpuHandoff),
    ("/handoff/prime-to-study", Method::POST, Call::Handoff(Direction::PRIME_TO_STUDY)),
    ("/handoff/study-to-prime", Method::POST, Call::Handoff(Direction::STUDY_TO_PRIME)),
    ("/handoff/live-to-candidate", Method::POST, Call::Handoff(Direction::LIVE_TO_CANDIDATE)),
    ("/handoff/candidate-to-live", Method::POST, Call::Handoff(Direction::CANDIDATE_TO_LIVE)),
    ("/handoff/{}/status", Method::GET, Call::HandoffStatus),
    ("/handoff/{}/cancel", Method::POST, Call::HandoffCancel),
    ("/containers/status", Method::GET, Call::ContainersStatus),
    ("/containers/live/stop", Method::POST, Call::StackStop(Variant::Live)),
    ("/containers/live/start", Method::POST, Call::StackStart(Variant::Live)),
    ("/containers/candidate/stop", Method::POST, Call::StackStop(Variant::Candidate)),
    ("/containers/candidate/start", Method::POST, Call::StackStart(Variant::Candidate)),
    ("/containers/swap", Method::POST, Call::Swap),
    ("/containers/{}/restart", Method::POST, Call::Restart),
    ("/notify/oracle-fallback", Method::POST, Call::OracleFallback),
    ("/ws/notifications", Method::GET, Call::Notifications),
];

/// A call as it is published.
pub struct Listed {
    pub path: String,
    pub method: &'static str,
    /// Name of the schema of its body.
    pub body: Option<&'static str>,
    pub needs_body: bool,
    /// What stands for `{}`.
    pub parameter: Option<&'static str>,
}

/// Every call but the socket, which is none.
pub fn listed() -> impl Iterator<Item = Listed> {
    let calls = ROUTES.iter().filter(|(_, _, call)| *call != Call::Notifications);
    calls.map(|(path, method, call)| {
        let parameter = match call {
            Call::HandoffStatus | Call::HandoffCancel => Some("handoff_id"),
            Call::Restart => Some("name"),
            _ => None,
        };
        let (body, needs_body) = match call {
            Call::GpuAcquire | Call::GpuWait => (Some("GPUAcquireRequest"), true),
            Call::GpuHandoff => (Some("HandoffTarget"), true),
            Call::Handoff(_) => (Some("HandoffRequest"), false),
            Call::StackStart(_) => (Some("ContainerStartRequest"), false),
            Call::Swap => (Some("ContainerSwapRequest"), true),
            Call::OracleFallback => (Some("OracleNotification"), true),
            _ => (None, false),
        };
        let path = path.replace("{}", &format!("{{{}}}", parameter.unwrap_or_default()));
        let method = if *method == Method::GET { "GET" } else { "POST" };
        Listed { path, method, body, needs_body, parameter }
    })
}

#[derive(serde::Deserialize)]
struct Replay {
    #[serde(default)]
    replay: usize,
}

/// What a call may read of its request.
pub struct Asked {
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What stands for `{}` in the path.
    pub name: String,
}

impl Asked {
    pub fn query(&self, name: &str) -> Option<String> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&self.uri).ok()?;
        pairs.0.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

pub fn router(gaia: Gaia) -> Router {
    let mut router = Router::new();
    for (path, method, call) in ROUTES {
        let (gaia, method, call) = (gaia.clone(), method.clone(), *call);
        let answer = move |params: RawPathParams, request: Request| {
            let gaia = gaia.clone();
            let name = params.iter().next().map(|(_, value)| value.to_owned()).unwrap_or_default();
            let allowed = request.method() == method;
            let refusal = (!allowed).then(|| method_not_allowed([&method].into_iter()));
            async move {
                match refusal {
                    Some(refusal) => refusal,
                    None => run(gaia, call, name, request).await,
                }
            }
        };
        let path = path.replace("{}", "{name}");
        router = router.route(&path, any(answer)).route(&format!("{path}/"), any(without_slash));
    }
    router
}

async fn run(gaia: Gaia, call: Call, name: String, request: Request) -> Response {
    if call == Call::Notifications {
        let replay = axum::extract::Query::<Replay>::try_from_uri(request.uri()).map_or(0, |query| query.0.replay);
        return socket::upgrade(&gaia, replay, request).await.unwrap_or_else(IntoResponse::into_response);
    }
    let (parts, body) = request.into_parts();
    let answer = match read(body).await {
        Ok(body) => {
            let asked = Asked { uri: parts.uri, headers: parts.headers, body, name };
            answer(&gaia, call, &asked).await
        }
        Err(refusal) => Err(refusal),
    };
    answer.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(gaia: &Gaia, call: Call, asked: &Asked) -> Answer {
    match call {
        Call::Health => overview::health(),
        Call::Status => overview::status(gaia).await,
        Call::Openapi => openapi::document(),
        Call::HaStatus => availability::status(gaia).await,
        Call::WatchState => watch::state(gaia).await,
        Call::GpuStatus => gpu::status(gaia).await,
        Call::GpuAcquire => gpu::acquire(gaia, asked).await,
        Call::GpuRelease => gpu::release(gaia, asked).await,
        Call::GpuWait => gpu::wait(gaia, asked).await,
        Call::GpuSleep => power::sleep(gaia, asked).await,
        Call::GpuWake => power::wake(gaia, asked).await,
        Call::GpuHandoff => handoff::to_target(gaia, asked).await,
        Call::Handoff(direction) => handoff::start(gaia, direction, asked).await,
        Call::HandoffStatus => handoff::status(gaia, asked).await,
        Call::HandoffCancel => handoff::cancel(gaia, asked).await,
        Call::ContainersStatus => containers::status(gaia).await,
        Call::StackStop(variant) => stacks::stop(gaia, variant).await,
        Call::StackStart(variant) => stacks::start(gaia, variant, asked).await,
        Call::Swap => stacks::swap(gaia, asked).await,
        Call::Restart => stacks::restart(gaia, asked).await,
        Call::OracleFallback => oracle::notify(gaia, asked),
        Call::Notifications => Err(Refusal::failed("a socket is no call")),
    }
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "Request body is too large or broke off");
    to_bytes(body, LIMIT_BYTES).await.map_err(|_| too_large())
}
