//! GAIA's one card goes from hand to hand on real parts: the stack as it is shipped, its images replaced by a peer that holds
//! memory of a simulated card; containers of a real Docker engine, which takes requests for GPUs; the real binary, which sees
//! their processes through NVML, finds their containers by cgroup, and asks them over HTTP.
//!
//! Every test has an engine, a card and a server of its own, and none may ever see two on the card: a peer tells in the card's
//! journal who else was there when it took its memory.

#[path = "../nvml/fake.rs"]
#[allow(dead_code, reason = "shared with the tests of NVML")]
mod fake;
#[path = "../docker/host.rs"]
#[allow(dead_code, reason = "shared with the tests of containers")]
mod host;
#[path = "../cli/program.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod program;
#[path = "../support/mod.rs"]
mod support;
#[path = "../docker/watcher.rs"]
#[allow(dead_code, reason = "shared with the tests of containers")]
mod watcher;

mod card;
mod contract;
mod interrupted;
mod promotions;
mod round_trip;
#[allow(dead_code, reason = "a part of it is for benches/handoff.rs")]
mod stack;
mod unwilling;
mod world;
