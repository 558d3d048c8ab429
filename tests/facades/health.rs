//! What of the stack is well, as GAIA's watchdog saw it (contract, section 9.1; section 8, 20): told on the socket when it
//! changes, and by `/ha/status` to whoever asks.

use serde_json::{Value, json};

use super::{
    sockets::{connect, next},
    world::World,
};

/// The next change of this kind, others passed over.
async fn told(socket: &mut super::sockets::Socket, type_: &str) -> Value {
    loop {
        let frame = next(socket).await;
        if frame["notification_type"] == type_ {
            return frame["data"].clone();
        }
    }
}

#[tokio::test]
async fn core_and_its_standby_make_cognition_available() {
    let world = World::gaia().await;
    // GAIA's own periods are half a minute; here a single failure counts.
    let readiness = json!({"periodSeconds": 1, "failureThreshold": 1, "successThreshold": 1});
    world.edit_workload("gaia-core", json!({"probes": {"readiness": readiness}})).await;
    world.containers_are("core is well", |status| status["live"]["core"]["healthy"] == true).await;
    let (_, ha) = world.get("/ha/status").await;
    assert_eq!((&ha["ha_status"], &ha["maintenance_mode"]), (&json!("active"), &json!(false)), "{ha}");
    assert_eq!((&ha["live"]["gaia-core"], &ha["candidate"]), (&json!("healthy"), &json!({})), "no standby is no alarm");

    let mut socket = connect(&world, "").await;
    world.listening(1).await;
    world.edit_workload("gaia-core", json!({"candidate": {"running": true}})).await;
    world.containers_are("the standby is well", |status| status["candidate"]["core"]["healthy"] == true).await;
    let changes = [
        ("gaia-core-candidate", false, "active", "degraded", "warning"),
        ("gaia-core-live", false, "degraded", "failed", "critical"),
        ("gaia-core-candidate", true, "failed", "failover_active", "warning"),
        ("gaia-core-live", true, "failover_active", "active", "info"),
    ];
    for (container, answers, old, new, severity) in changes {
        assert!(world.engine.set_answering(container, Some(answers)));
        let service = container.trim_end_matches("-live");
        let changed = told(&mut socket, "service_health_change").await;
        let word = |well: bool| if well { "healthy" } else { "unhealthy" };
        assert_eq!(
            changed,
            json!({"service": service, "old_state": word(!answers), "new_state": word(answers)}),
            "{container}"
        );
        let changed = told(&mut socket, "ha_status_change").await;
        assert_eq!(changed, json!({"old_status": old, "new_status": new, "severity": severity}));
        let (_, ha) = world.get("/ha/status").await;
        let side = if container.ends_with("-candidate") { "candidate" } else { "live" };
        assert_eq!((&ha["ha_status"], &ha[side][service]), (&json!(new), &json!(word(answers))), "{ha}");
        assert_eq!(ha["consecutive_failures"][service] == 0, answers, "{ha}");
    }
}
