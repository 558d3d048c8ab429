//! The old APIs, request by request as their contracts say: over HTTP, on the real router, registry and controllers, with
//! GAIA's stack from `desired/gaia`. Only the engine, the card and GAIA's services are simulated.
//!
//! What the contract lists, and which test shows it. Section 10, its checklist:
//!
//! | | |
//! |---|---|
//! | 1 | `calls`, `leases`, `handoffs`, `containers`; byte by byte and client by client in `clients` |
//! | 2 | `legacy`; as a process: `tests/cli/orchestrator` |
//! | 3 | `handoffs::the_services_are_told_in_order_and_without_words` |
//! | 4 | `tests/docker` (kill -9 of the process), `tests/live/handoffs`, `tests/sim` |
//! | 5 | `failures` |
//! | 6, 7 | `leases::who_asks_during_a_handoff_…`, `leases::a_release_grants_exactly_one_waiter_by_priority` |
//! | 8 | `sockets::a_client_that_does_not_read_delays_nobody` |
//! | 9 | `handoffs::the_card_goes_to_study_and_back_whatever_the_body_says`, `clients::the_commands_of_the_plan` |
//! | 10 | `hanging` |
//! | 11 | `leases::the_end_of_the_process_waits_for_no_waiter`; as a process: `tests/cli/orchestrator` |
//!
//! Section 8, what users of GAIA suffered from:
//!
//! | | |
//! |---|---|
//! | 1 stuck after a crash | `tests/live/handoffs::a_restart_of_gaia_half_way_…`, `legacy::it_waits_for_the_card_…` |
//! | 2, 3 half released, or completed in name only | `failures`, `handoffs::the_card_goes_…` |
//! | 4, 5 blocking, and refused bodies | `handoffs::who_does_not_wait_…`, `handoffs::the_card_goes_…` |
//! | 6 proof of free memory | `failures::memory_that_stays_…`; the driver: `tests/nvml`, `tests/gpu` |
//! | 7 dead container calls | `containers::a_side_of_the_stack_stops_and_starts`: no command line, and never ourselves |
//! | 8 leases that bind nobody | `leases::a_release_needs_the_right_lease_…`, `…who_asks_during_…`, `containers::a_stack_that_starts_…` |
//! | 9 a queue that grants nothing | `leases::a_release_grants_…`, `…who_hangs_up_…`, `…who_asks_while_prime_…` |
//! | 10 a holder that died | `leases::a_lease_that_was_told_…`; `src/controllers/gpuclaim` (`ttlSeconds`) |
//! | 11 notifications never sent | `sockets::a_handoff_is_told_…`, `delivery`, `health`, `src/facades/gaia/observer` |
//! | 12 one stalled client | `sockets::a_client_that_does_not_read_…` |
//! | 13 no prime, and health that is not readiness | `containers::services_are_listed_…`; `/v1/models`: `tests/live/promotions` |
//! | 14 slow and stale status | `hanging`, `calls::the_status_has_every_key_…` |
//! | 15, 16 two on one card | `containers::the_candidate_stack_gets_the_card_once_…`, `handoffs::live_and_candidate_…` |
//! | 17 swaps that get lost | `containers::a_swap_changes_who_answers`, `objects::a_swap` |
//! | 18 the state file | `legacy`; `tests/store_crash` for what replaces it |
//! | 19 waits that hold up the exit | `leases::the_end_of_the_process_…`, `tests/cli/orchestrator` |
//! | 20 the watchdog's secret | `health` |
//! | 21 small things | `calls::a_body_that_cannot_be_meant_is_422` (`none`), `sockets::an_oracle_…` (binary), `src/config` (environment first) |
//! | 22 a script beside the service | `objects`, `tests/cli/stack` |
//! | 23 metrics, auth | `calls::only_health_needs_no_token`; `tests/cli/serve` (`/metrics` among what tokens guard) |

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod clients;
mod containers;
mod delivery;
mod failures;
mod handoffs;
mod hanging;
mod health;
mod leases;
mod legacy;
mod objects;
mod peers;
mod sleep;
mod sockets;
mod wire;
mod world;
