//! Who changed what: a line of JSON for each request that may change something, refused ones too, as upstream's audit log has it
//! (`audit.k8s.io/v1` Event, level `Metadata`, <https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/>), so that what
//! reads those reads ours. Bodies are not in it, and neither are reads.

use std::{io::Write as _, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State, connect_info::Connected},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{self, Next},
    response::Response,
    serve::IncomingStream,
};
use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::counter::ConstCounter,
    registry::Registry as Exposition,
};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use uuid::Uuid;

use super::{Auth, path, resources, reviews, tls::Secured};
use crate::{
    runtime::clock::Clock,
    telemetry::file::{LogFile, Rolling},
};

/// Lines that may wait for the disk. What would come beyond them is lost and counted: a host's cards cannot wait for it.
const LINES_WAITING: usize = 4096;

/// Where lines go; nowhere by default. Clones share the file. The last one writes what waits, for a second at most.
#[derive(Clone, Default)]
pub struct Audit {
    to: Option<Arc<To>>,
}

struct To {
    lines: NonBlocking,
    clock: Arc<dyn Clock>,
    _writer: WorkerGuard,
}

impl Audit {
    /// Appends to this file, of which others can read nothing, and shows how many lines were lost.
    pub fn to(file: &LogFile, clock: Arc<dyn Clock>, exposition: &mut Exposition) -> std::io::Result<Self> {
        let waiting = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING);
        let (lines, writer) = waiting.thread_name("gaia-audit").finish(Rolling::open(file)?);
        exposition.register_collector(Box::new(Lost(lines.error_counter())));
        Ok(Self { to: Some(Arc::new(To { lines, clock, _writer: writer })) })
    }

    pub(super) fn is_on(&self) -> bool {
        self.to.is_some()
    }

    /// Notes down what comes to these routes, before anybody looks at its token.
    pub fn over(&self, routes: Router, auth: Auth) -> Router {
        match &self.to {
            None => routes,
            Some(to) => routes.layer(middleware::from_fn_with_state((to.clone(), auth), record)),
        }
    }
}

async fn record(State((to, auth)): State<(Arc<To>, Auth)>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) || is_question(request.uri().path()) {
        return next.run(request).await;
    }
    let event = event(&request, &auth, to.clock.now());
    // Written by its end: a client that leaves early may have changed something too.
    let mut line = Line { to, event, code: None };
    let response = next.run(request).await;
    if let Some(Created(name)) = response.extensions().get() {
        line.event["objectRef"]["name"] = json!(name);
    }
    line.code = Some(response.status());
    response
}

/// The name that the path of a create does not tell; goes along with the answer.
#[derive(Clone)]
pub struct Created(pub String);

/// Asks only, with a POST.
fn is_question(path: &str) -> bool {
    match path::parse(path) {
        path::Target::Resource(at) => reviews::at(&at.group, &at.version, &at.plural).is_some(),
        _ => false,
    }
}

fn event(request: &Request, auth: &Auth, now: Timestamp) -> Value {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let from = request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| peer.0.ip().to_string());
    let mut event = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": header("Audit-ID").map_or_else(|| Uuid::new_v4().to_string(), str::to_owned),
        "requestURI": request.uri().path_and_query().map(|path| path.as_str()),
        "verb": request.method().as_str().to_lowercase(),
        "user": user(auth, request.headers()),
        "sourceIPs": Vec::from_iter(from),
        "userAgent": header(header::USER_AGENT.as_str()),
        "requestReceivedTimestamp": stamp(now),
    });
    if let path::Target::Resource(at) = path::parse(request.uri().path()) {
        event["verb"] = json!(resources::verb(request.method(), at.name.is_some(), false));
        let parts = [
            ("resource", Some(at.plural)),
            ("namespace", at.namespace),
            ("name", at.name),
            ("apiGroup", Some(at.group)),
            ("apiVersion", Some(at.version)),
            ("subresource", at.subresource),
        ];
        let told = parts.into_iter().filter_map(|(key, value)| Some((key, value.filter(|value| !value.is_empty())?)));
        event["objectRef"] =
            told.map(|(key, value)| (key.to_owned(), Value::String(value))).collect::<Map<_, _>>().into();
    }
    event
}

/// The token is told by its number among those of the file, from 1.
fn user(auth: &Auth, headers: &HeaderMap) -> Value {
    let admin = |extra| json!({"username": reviews::USER, "groups": reviews::GROUPS, "extra": extra});
    match auth.number(headers) {
        Some(number) => admin(json!({"gaia.dev/token": [number.to_string()]})),
        None if auth.is_open() => admin(json!({})),
        None => json!({"username": "system:anonymous", "groups": ["system:unauthenticated"]}),
    }
}

/// Upstream's MicroTime.
fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

struct Line {
    to: Arc<To>,
    event: Value,
    /// None: nobody waited for the answer.
    code: Option<StatusCode>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.event["stageTimestamp"] = json!(stamp(self.to.clock.now()));
        match self.code {
            Some(code) => {
                self.event["stage"] = json!("ResponseComplete");
                self.event["responseStatus"] = json!({"metadata": {}, "code": code.as_u16()});
            }
            None => self.event["stage"] = json!("RequestReceived"),
        }
        // Lossy: it never fails, and what is lost is counted.
        self.to.lines.clone().write_all(format!("{}\n", self.event).as_bytes()).ok();
    }
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(SocketAddr);

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, Secured>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Secured>) -> Self {
        Self(*stream.remote_addr())
    }
}

#[derive(Debug)]
struct Lost(ErrorCounter);

impl Collector for Lost {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let lost = ConstCounter::new(self.0.dropped_lines() as u64);
        let help = "Lines of the audit log that the disk did not take in time";
        lost.encode(encoder.encode_descriptor("gaia_audit_lines_lost", help, None, lost.metric_type())?)
    }
}
