//! One suite for the container engines and probes: every case of [`cases`] runs on the simulated one and on Docker.
//! Beneath it what only Docker can be asked: [`docker_only`].

mod cases;
mod docker_only;
mod gate;
#[path = "../support/mod.rs"]
mod support;
mod world;

/// Each case on both engines.
macro_rules! suite {
    ($($case:ident),* $(,)?) => {
        mod simulated {
            $(
                #[tokio::test(start_paused = true)]
                async fn $case() {
                    crate::cases::$case(&crate::world::simulated()).await;
                }
            )*
        }

        mod docker {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::world::on_docker(async |world| crate::cases::$case(world).await).await;
                }
            )*
        }
    };
}

suite!(
    lives_from_create_to_remove,
    a_summary_says_what_a_look_shows,
    reaching_an_end_twice_is_reaching_it_once,
    keeps_the_exit_code,
    refuses_a_name_that_is_taken,
    refuses_an_image_that_is_not_there,
    refuses_a_network_that_is_not_there,
    publishes_ports_on_the_loopback,
    refuses_a_port_that_is_in_use,
    picks_a_port_when_it_may,
    joins_every_network_it_was_asked_to,
    moves_aliases,
    renames,
    takes_restart_policies_away,
    kills_what_ignores_the_stop_signal,
    tells_how_a_process_took_the_stop_signal,
    tells_why_a_start_failed,
    lists_by_label_and_nothing_else,
    takes_no_part_of_an_id_for_a_name,
    says_when_its_health_check_passes,
    says_when_its_health_check_fails,
    runs_commands_inside,
    refuses_to_run_commands_in_what_does_not_run,
    refuses_to_remove_what_runs,
    does_not_find_what_is_not_there,
    tells_what_happens,
    probes_over_the_network,
    probes_by_command_and_by_health_check,
    probes_fail_once_the_container_has_ended,
);
