//! What is fuzzed: plain functions over bytes, which panic when something is wrong. `./test` calls them with what
//! `tests/fuzz/generate` makes, `fuzz/` with what libFuzzer comes to.
//!
//! What must hold everywhere: no panic, no overflowed stack, an answer soon, memory in proportion. What holds beside that
//! stands with each target.
#![allow(dead_code, unused_imports, reason = "compiled into every target of fuzz/, each of which uses some of it")]

mod docker;
mod facades;
mod files;
mod http;
mod patches;
mod selectors;
mod world;

pub use docker::docker_events;
pub use facades::{LAST_ID, TOKEN, gaia_facade, tasks_facade};
pub use files::{compose_file, desired_yaml};
pub use http::{json_body, path_and_query, protobuf_body, samples};
pub use patches::patch;
pub use selectors::selectors;
pub use world::CASES_PER_WORLD;

/// Looks the present worlds over and forgets them.
pub fn renew() {
    world::renew();
    facades::renew();
}
