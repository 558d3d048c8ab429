//! gaia: keeps GPU hosts in the state their owner declared, behind the Kubernetes API for its own kinds.
//!
//! The modules, in reading order; who may use whom is held by `tests/tidy.rs`:
//!
//! | module | question it answers |
//! |---|---|
//! | [`api`] | what can be said: the kinds, their fields, their rules |
//! | [`store`] | where it is kept: versioned objects, durable, watchable |
//! | [`registry`] | the rules of every write |
//! | [`runtime`] | how work is scheduled |
//! | [`adapters`] | how reality is touched |
//! | [`controllers`] | what is decided |
//! | [`yaml`] | which values a text holds, on which lines |
//! | [`compose`] | what a Compose file comes to in our words |
//! | [`mloc`] | what an MLOC document says |
//! | [`droplets`] | what follows from a droplet's answer, or from none |
//! | [`gitops`] | files in |
//! | [`facades`] | the old APIs, on our objects |
//! | [`server`] | the API on the wire |
//! | [`worker`] | tasks are run |
//! | [`cli`] | the command line |
//! | [`app`] | how all of it is put together |

pub mod adapters;
pub mod api;
pub mod app;
pub mod cli;
pub mod compose;
pub mod config;
pub mod controllers;
pub mod droplets;
pub mod facades;
pub mod gitops;
pub mod mloc;
pub mod registry;
pub mod runtime;
pub mod server;
pub mod store;
mod sync;
pub mod telemetry;
pub mod worker;
pub mod yaml;
