//! The real binary, as its users meet it.

mod offline;
mod program;
