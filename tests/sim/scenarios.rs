//! What happens on a host on ordinary days, for [`crate::plans`]: the state before, and what people do.

use std::time::Duration;

use futures::{FutureExt, future::LocalBoxFuture};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    people::{self, HANDMADE},
    world::{World, converge},
};

pub struct Scenario {
    pub name: &'static str,
    /// Whether it leads to anything being done to the engine.
    pub does_something: bool,
    /// In a world with a card.
    pub has_card: bool,
    pub before: fn(&World),
    pub act: for<'a> fn(&'a World) -> LocalBoxFuture<'a, ()>,
}

pub const ORDINARY: [Scenario; 17] = [
    does(
        "a stack is started in order",
        |world| people::run_foreign(world, "database"),
        |world| write_stack(world).boxed_local(),
    ),
    does("a stack is stopped", stack, |world| {
        async {
            for name in ["a", "b", "c"] {
                patch(world, name, json!({"live": {"running": false}})).await;
            }
        }
        .boxed_local()
    }),
    does("a spec is changed", stack, |world| {
        people::write(world, "b", spec("app:2", json!({"dependsOn": [{"workload": "a", "condition": "Healthy"}]})));
        nothing().boxed_local()
    }),
    does("variants are swapped", with_candidate, |world| {
        patch(world, "a", json!({"active": "Candidate"})).boxed_local()
    }),
    does("and swapped back", with_candidate, |world| {
        async {
            patch(world, "a", json!({"active": "Candidate"})).await;
            settle(world).await;
            patch(world, "a", json!({"active": "Live"})).await;
        }
        .boxed_local()
    }),
    does(
        "a container is adopted, stopped and started",
        |world| people::run_foreign(world, HANDMADE),
        |world| {
            async {
                people::write(world, "d", json!({"live": {"container": {"adopt": {"name": HANDMADE}}}}));
                settle(world).await;
                patch(world, "d", json!({"live": {"running": false}})).await;
                settle(world).await;
                patch(world, "d", json!({"live": {"running": true}})).await;
            }
            .boxed_local()
        },
    ),
    does("a file is added", stack, |world| {
        people::write(world, "d", spec("slow:1", json!({})));
        nothing().boxed_local()
    }),
    Scenario {
        does_something: false,
        ..does("a file is broken and mended", stack, |world| {
            async {
                people::break_file(world, "b");
                sleep(Duration::from_secs(30)).await;
                write_stack(world).await;
            }
            .boxed_local()
        })
    },
    does("a file is removed", stack, |world| {
        people::remove_file(world, "c");
        nothing().boxed_local()
    }),
    does(
        "an image must be pulled",
        |_| (),
        |world| {
            people::write(world, "a", spec("app:2", json!({})));
            nothing().boxed_local()
        },
    ),
    Scenario {
        does_something: false,
        ..does("the engine is away for a moment", stack, |world| away(world, 2).boxed_local())
    },
    Scenario {
        does_something: false,
        ..does("the engine is away for long", stack, |world| away(world, 90).boxed_local())
    },
    does("the engine dies with its containers", stack, |world| {
        world.engine.engine_crash();
        away(world, 5).boxed_local()
    }),
    does("the engine dies and has lost a container", stack, |world| {
        world.engine.engine_crash();
        world.engine.remove_by_hand("b-live");
        away(world, 5).boxed_local()
    }),
    does("somebody stops a container", stack, |world| {
        world.engine.stop_by_hand("b-live");
        nothing().boxed_local()
    }),
    does("somebody removes a container", stack, |world| {
        world.engine.remove_by_hand("a-live");
        nothing().boxed_local()
    }),
    does("somebody renames a container", stack, |world| {
        world.engine.rename_by_hand("a-live", "mine");
        nothing().boxed_local()
    }),
];

pub const fn does(
    name: &'static str,
    before: fn(&World),
    act: for<'a> fn(&'a World) -> LocalBoxFuture<'a, ()>,
) -> Scenario {
    Scenario { name, does_something: true, has_card: false, before, act }
}

fn spec(image: &str, more: Value) -> Value {
    let mut spec = json!({"live": {"container": {"image": image}}});
    spec.as_object_mut().expect("a map").extend(more.as_object().cloned().unwrap_or_default());
    spec
}

/// `c` needs `b` needs `a`, which becomes healthy by and by.
fn stack(world: &World) {
    people::run_foreign(world, "database");
    write_all(world);
}

fn write_all(world: &World) {
    let needs = |name: &str, condition: &str| json!({"dependsOn": [{"workload": name, "condition": condition}]});
    people::write(world, "a", spec("checked:1", json!({})));
    people::write(world, "b", spec("app:1", needs("a", "Healthy")));
    people::write(world, "c", spec("app:1", needs("b", "Started")));
}

async fn write_stack(world: &World) {
    write_all(world);
}

fn with_candidate(world: &World) {
    let candidate = json!({"candidate": {"running": true, "container": {"image": "app:1", "env": {"LEVEL": "1"}}}});
    people::write(world, "a", spec("app:1", candidate));
}

pub async fn nothing() {}

/// Until it is acknowledged: whoever is refused asks again.
async fn patch(world: &World, name: &str, change: Value) {
    while !people::send(world, name, &change).await {
        sleep(Duration::from_secs(1)).await;
        world.registry().await;
    }
}

/// Before they do the next thing, people see the last one done.
pub async fn settle(world: &World) {
    if let Err(why) = converge(world).await {
        world.violated(why);
    }
}

async fn away(world: &World, seconds: u64) {
    world.engine.engine_down();
    sleep(Duration::from_secs(seconds)).await;
    world.engine.engine_up();
}
