//! FPAI's orchestrator as its clients, droplets and registry know it: real HTTP on loopback, with targets and registries that answer,
//! lie, hang, drip, reset and vanish. Waits are milliseconds here; their lengths are tabled in `src/droplets/retry.rs`.

#[path = "../support/mod.rs"]
mod support;

mod errors;
mod fuzz;
mod limits;
mod registry;
mod routing;
mod seed;
mod services;
mod world;
