//! The real binary, as its users meet it.

mod backup;
mod client;
mod demo;
mod disk;
mod import;
mod offline;
mod orchestrator;
mod plan;
mod program;
mod rollback;
mod serve;
mod source;
mod stack;
