//! The real binary, as its users meet it.

mod client;
mod offline;
mod program;
mod serve;
