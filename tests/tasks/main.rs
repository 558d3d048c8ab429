//! MLOC's orchestrator as its clients and workers know it: the binary itself, over HTTP, with a real Redis and workers that speak the
//! wire of each generation. Redis is Debian's `redis-server`, started here on a loopback port and ended with the test.
//!
//! Which of the contract's faults (section 7) is shown to be gone, and where:
//!
//! | | |
//! |---|---|
//! | 1 dispatch race | `running::a_burst_of_instant_tasks_…` |
//! | 2 lost dispatch at worker start | `losses::a_worker_that_listens_late_…` |
//! | 3 no crash detection | `losses::a_task_of_a_dead_worker_…` |
//! | 4 waiting tasks are polled | `running::a_burst_of_instant_tasks_…` |
//! | 5 no retry with one worker | `running::one_worker_retries_…` |
//! | 6 failed upstream | `running::what_depends_on_a_failure_…` |
//! | 7 shards | `shards`, `src/mloc/shards` |
//! | 8 amounts | `src/mloc/amounts`, `src/mloc/needs` |
//! | 9 two-stage templates | `pipelines::an_archive_…` |
//! | 10 restart | `losses::a_kill_of_gaia_…` |
//! | 10 no trimming | `keeping` |
//! | 12 Redis restart | `losses::a_restart_of_redis_…` |
//! | 14 foreign results | `src/facades/tasks/results`, `wire` |
//! | 15 poison documents | `wire`, `src/mloc/document` |
//! | 16 unschedulable | `running::a_task_says_why_it_waits` |
//!
//! Section 8, every template: `templates`. Real workers of three generations, from recordings: `recorded`.

#[path = "../support/mod.rs"]
mod support;

mod cards;
mod command;
mod containers;
mod doubles;
mod elsewhere;
mod http;
mod inference;
mod keeping;
mod losses;
mod many;
mod pipelines;
mod recorded;
mod redis;
mod running;
mod shards;
mod templates;
mod wire;
mod workers;
mod world;
