//! No input makes it panic, hang, grow without bound or answer 5xx: 10,000 cases a target, made from what is valid.
//!
//! | file | question |
//! |---|---|
//! | `targets/` | what is called, and what must hold; `fuzz/` has libFuzzer call the same |
//! | `generate/` | what cases are made of |
//! | `harness` | how they are run, played again and made smaller |
//! | `findings` | what was found once, each a row |

mod findings;
mod generate;
mod harness;
mod memory;
mod targets;

use harness::every_case;

#[test]
fn desired_yaml() {
    every_case("desired_yaml", targets::desired_yaml, generate::desired_yaml);
}

#[test]
fn compose_file() {
    every_case("compose_file", targets::compose_file, generate::compose_file);
}

#[test]
fn patch() {
    every_case("patch", targets::patch, generate::patch);
}

#[test]
fn json_body() {
    every_case("json_body", targets::json_body, generate::json_body);
}

#[test]
fn protobuf_body() {
    every_case("protobuf_body", targets::protobuf_body, generate::protobuf_body);
}

#[test]
fn path_and_query() {
    every_case("path_and_query", targets::path_and_query, generate::path_and_query);
}

#[test]
fn selectors() {
    every_case("selectors", targets::selectors, generate::selectors);
}

#[test]
fn docker_events() {
    every_case("docker_events", targets::docker_events, generate::docker_events);
}

#[test]
fn gaia_facade() {
    every_case("gaia_facade", targets::gaia_facade, generate::gaia_facade);
}

#[test]
fn tasks_facade() {
    every_case("tasks_facade", targets::tasks_facade, generate::tasks_facade);
}
