//! The real binary, as its users meet it.

mod audit;
mod backup;
#[path = "../support/certificates.rs"]
mod certificates;
mod client;
mod demo;
mod disk;
mod git;
#[path = "../support/gitserver.rs"]
#[allow(dead_code, reason = "tests/gitops uses the rest")]
mod gitserver;
mod import;
mod offline;
mod orchestrator;
mod plan;
#[path = "../support/port.rs"]
mod port;
mod program;
mod rollback;
mod serve;
mod source;
mod stack;
mod tls;
