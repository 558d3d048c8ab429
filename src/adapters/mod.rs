//! How reality is touched: a trait first, the real adapter beneath it, the simulated one beside it. Nothing here decides.

pub mod bus;
pub mod calls;
pub mod containers;
pub mod gpus;
pub mod outbox;
pub mod peers;
pub mod probes;
pub mod results;
pub mod simulated;
