//! FPAI's orchestrator as its clients, droplets and registry know it: real HTTP on loopback, with targets and registries that answer,
//! lie, hang, drip, reset and vanish. Waits are milliseconds here; their lengths are tabled in `src/droplets/retry.rs`.

#[path = "../cli/program.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod program;
#[path = "../support/mod.rs"]
mod support;

mod errors;
mod examples;
mod figures;
mod fuzz;
mod http2;
mod idempotency;
mod limits;
mod process;
mod registries;
mod registry;
mod routing;
mod seed;
mod services;
mod world;
