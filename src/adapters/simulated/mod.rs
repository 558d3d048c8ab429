//! Simulated reality, shipped: `gaia demo` runs on it, `gaia plan` runs on a copy of what was observed, `tests/sim`
//! breaks it on purpose.

pub mod containers;
pub mod gpus;
pub mod peers;
pub mod probes;
