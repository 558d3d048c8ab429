//! The old APIs, request by request as their contracts say, over HTTP against the real router and registry. What the
//! controllers would do is done by a stand-in that obeys the same rules, so that each answer has one cause.

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod containers;
mod handoffs;
mod judge;
mod leases;
mod legacy;
mod sockets;
mod world;
