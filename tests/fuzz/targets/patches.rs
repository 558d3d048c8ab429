//! Patches of every type, through the server: merge, JSON, strategic, apply.

use axum::{
    body::Body,
    http::{Method, Request, header},
};

use super::{
    http::{judged, parse},
    world,
};

/// A merge or an apply says how an object shall be, so that saying it again changes nothing.
pub fn patch(data: &[u8]) {
    let Some((parts, body)) = parse(data).map(Request::into_parts) else { return };
    let Ok(bytes) = futures::executor::block_on(axum::body::to_bytes(body, usize::MAX)) else { return };
    let make = || {
        let mut request = Request::from_parts(parts.clone(), Body::from(bytes.clone()));
        *request.method_mut() = Method::PATCH;
        request
    };
    let media = parts.headers.get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    let wishes = ["application/merge-patch+json", "application/apply-patch+yaml"].contains(&media);
    world::with(|world| {
        let first = judged(world, make());
        if !wishes || !first.status.is_success() {
            return;
        }
        let before = world.revision();
        let second = judged(world, make());
        // Unless it names a version that it has left behind itself, or has just let go of what kept it, or is refused for what
        // it wished the first time.
        if second.status.is_success() {
            let (first, second) = (String::from_utf8_lossy(&first.body), String::from_utf8_lossy(&second.body));
            assert_eq!(world.revision(), before, "said again, it changed something:\n{first}\n{second}");
        }
    });
}
