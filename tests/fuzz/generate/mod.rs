//! Cases from numbers: what is valid, changed in few places, so that most of it gets past the first check.

mod connections;
mod docker;
mod facades;
mod json;
mod protobuf;
mod requests;
mod text;
mod yaml;

pub use docker::docker_events;
pub use facades::{gaia_facade, tasks_facade};
pub use protobuf::protobuf_body;
pub use requests::{json_body, patch, path_and_query, selectors};
pub use yaml::{compose_file, desired_yaml};

/// One of them.
pub fn pick<T: Clone>(rng: &mut fastrand::Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())].clone()
}

/// True once in so many times.
pub fn once_in(rng: &mut fastrand::Rng, times: u32) -> bool {
    rng.u32(..times) == 0
}
