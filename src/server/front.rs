//! What every request of a listener goes through before its routes: the audit log, where there is one; the compression of large answers;
//! tokens. It is plain services around the routes: as layers of a router each would be boxed and cloned for each request, which costs
//! several times what it does.

use std::{
    convert::Infallible,
    future::ready,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::Request,
    http::{HeaderValue, Method, header},
    response::Response,
};
use futures::future::Either;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::compression::{CompressionLayer, predicate::Predicate};

use super::{Audit, Auth, watch};

/// Whatever answers requests.
pub trait Answers:
    Service<Request, Response = Response, Error = Infallible, Future: Send + 'static> + Clone + Send + Sync + 'static
{
}

impl<S> Answers for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Some service, behind an audit log or not.
#[derive(Clone)]
pub enum Front<S> {
    Plain(S),
    Audited(Router),
}

impl<S: Answers> Front<S> {
    pub(super) fn new(service: S, auth: Auth, audit: &Audit) -> Self {
        match audit.is_on() {
            false => Self::Plain(service),
            true => Self::Audited(audit.over(Router::new().fallback_service(service), auth)),
        }
    }
}

impl<S: Answers> Service<Request> for Front<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, <Router as Service<Request>>::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self {
            Self::Plain(service) => Either::Left(service.call(request)),
            Self::Audited(router) => Either::Right(router.call(request)),
        }
    }
}

/// Lets in whoever [`Auth`] does.
pub fn entrance<A, F>(auth: Auth, answer: A) -> impl Answers
where
    A: FnOnce(Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    service_fn(move |request: Request| {
        let refused = auth.refused(&request);
        let answer = answer.clone();
        let of_head = request.method() == Method::HEAD;
        async move {
            let response = match refused {
                Some(refused) => refused,
                None => answer(request).await,
            };
            Ok(if of_head { without_body(response) } else { response })
        }
    })
}

/// HTTP/2 sends whatever body there is, and clients take one that answers a HEAD for a broken connection. Its length is told all the same.
fn without_body(mut response: Response) -> Response {
    let body = std::mem::take(response.body_mut());
    if let (Some(length), header::Entry::Vacant(untold)) =
        (body.size_hint().exact(), response.headers_mut().entry(header::CONTENT_LENGTH))
    {
        untold.insert(length.into());
    }
    response
}

const LARGE_BYTES: u16 = 32 * 1024;

/// Answers that are large and end: a watch must not wait for a block to fill.
fn compression() -> CompressionLayer<impl Predicate> {
    let ends = |_, _, _: &_, extensions: &axum::http::Extensions| extensions.get::<watch::Streaming>().is_none();
    CompressionLayer::new().compress_when(tower_http::compression::predicate::SizeAbove::new(LARGE_BYTES).and(ends))
}

/// Compresses answers that are worth it. Small ones do not even pass the layer, which would box them.
pub fn compressing(service: impl Answers) -> impl Answers {
    service_fn(move |request: Request| {
        let mut service = service.clone();
        async move {
            let accepted: Vec<HeaderValue> =
                request.headers().get_all(header::ACCEPT_ENCODING).iter().cloned().collect();
            let Ok(response) = service.call(request).await;
            let small = response.body().size_hint().exact().is_some_and(|bytes| bytes < u64::from(LARGE_BYTES));
            Ok(if small { response } else { compressed(accepted, response).await })
        }
    })
}

async fn compressed(accepted: Vec<HeaderValue>, response: Response) -> Response {
    let mut asked = Request::new(Body::empty());
    for value in accepted {
        asked.headers_mut().append(header::ACCEPT_ENCODING, value);
    }
    let mut response = Some(response);
    // Called once, by `oneshot`.
    let given = service_fn(move |_: Request| ready(Ok::<_, Infallible>(response.take().unwrap_or_default())));
    let Ok(response) = compression().layer(given).oneshot(asked).await;
    response.map(Body::new)
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn a_head_is_answered_without_a_body_whoever_answers() {
        for (auth, status) in [(Auth::tokens(["a".to_owned()]), 401), (Auth::open(), 200)] {
            let said = |_| async { Response::new(Body::from("said")) };
            let service = compressing(entrance(auth, said));
            let ask = async |method: Method| {
                let mut request = Request::new(Body::empty());
                *request.method_mut() = method;
                let Ok(response) = service.clone().oneshot(request).await;
                assert_eq!(response.status(), status);
                let length = response.headers().get(header::CONTENT_LENGTH).cloned();
                (length, to_bytes(response.into_body(), usize::MAX).await.expect("a body").len())
            };
            let (_, bytes) = ask(Method::GET).await;
            assert!(bytes > 0);
            assert_eq!(ask(Method::HEAD).await, (Some(bytes.into()), 0));
        }
    }
}
