//! What FPAI's orchestrator decides: which droplet a name means, where a path leads, what follows from an attempt, how old a list
//! may be. Pure: no network, clock or randomness.

pub mod address;
pub mod body;
pub mod breaker;
pub mod cache;
pub mod idempotency;
pub mod listing;
pub mod names;
pub mod record;
pub mod retry;
pub mod tally;
