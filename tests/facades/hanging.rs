//! Ten services that hang (contract, section 10, 10; section 8, 14): `/containers/status` asks all of them at once, and waits
//! for none of them longer than its bound. Concurrency is counted, and the services say when they let go; no clock is read.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use gaia::{
    adapters::{
        containers::Container,
        probes::{ProbeOutcome, Probes},
    },
    api::{
        container::{ContainerSpec, Port},
        workload::{LiveSpec, Probe, Workload, WorkloadSpec},
    },
    runtime::objects::Objects,
};
use tokio::sync::watch;

use super::world::{Made, World};

const SERVICES: usize = 10;

/// Answers nobody until it is told to; knows who asks at this moment.
struct Hanging {
    asked: watch::Sender<BTreeSet<String>>,
    let_go: watch::Sender<bool>,
    /// How many were given up on.
    given_up: Arc<Mutex<usize>>,
}

/// Counts a question that its asker dropped.
struct Question<'a> {
    of: &'a Hanging,
    answered: bool,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if !self.answered {
            *self.of.given_up.lock().expect("nobody panicked") += 1;
        }
    }
}

impl Probes for Hanging {
    fn probe<'a>(&'a self, target: &'a Container, _: &'a Probe, _: Duration) -> BoxFuture<'a, ProbeOutcome> {
        Box::pin(async move {
            let mut question = Question { of: self, answered: false };
            self.asked.send_modify(|asked| {
                asked.insert(target.name.clone());
            });
            self.let_go.subscribe().wait_for(|let_go| *let_go).await.expect("the world holds it");
            question.answered = true;
            ProbeOutcome::Success
        })
    }

    fn models<'a>(
        &'a self,
        _: &'a Container,
        _: u16,
        _: &'a str,
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, String>> {
        Box::pin(std::future::ready(Err("it hangs".to_owned())))
    }
}

async fn ten_services() -> (World, Arc<Hanging>) {
    let hanging = Arc::new(Hanging {
        asked: watch::Sender::new(BTreeSet::new()),
        let_go: watch::Sender::new(false),
        given_up: Arc::default(),
    });
    let world = World::made(Made { probes: Some(hanging.clone()), ..Made::default() }).await;
    for number in 0..SERVICES {
        let port = Port { container_port: 80, host_port: None, host_ip: None, protocol: None };
        let container = ContainerSpec { image: "any:1".to_owned(), ports: vec![port], ..ContainerSpec::default() };
        let live = Some(LiveSpec { running: true, container });
        let mut workload = Workload::new(&format!("gaia-x{number}"), WorkloadSpec { live, ..WorkloadSpec::default() });
        workload.metadata.namespace = Some("default".to_owned());
        workload.metadata.labels = Some([("app.kubernetes.io/part-of".to_owned(), "gaia".to_owned())].into());
        world.objects.create(workload).await.expect("a workload");
    }
    let up = |status: &serde_json::Value| {
        (0..SERVICES).all(|n| status["containers"]["live"][format!("x{n}")]["state"] == "running")
    };
    world.status_is("all run", up).await;
    (world, hanging)
}

#[tokio::test]
async fn all_are_asked_at_once() {
    let (world, hanging) = ten_services().await;
    let mut asked = hanging.asked.subscribe();
    let everybody = async {
        asked.wait_for(|asked| asked.len() == SERVICES).await.expect("it lives");
        // Only when all ten wait does the first get its answer: one after the other they would never come to it.
        hanging.let_go.send_replace(true);
    };
    let ((status, answer), ()) = tokio::join!(world.get("/containers/status"), everybody);
    assert_eq!(status, 200);
    for number in 0..SERVICES {
        assert_eq!(answer["live"][format!("x{number}")]["healthy"], true, "{answer}");
    }
    assert_eq!(*hanging.given_up.lock().expect("nobody panicked"), 0);
}

#[tokio::test]
async fn none_is_waited_for_for_ever() {
    let (world, hanging) = ten_services().await;
    let (status, answer) = world.get("/containers/status").await;
    assert_eq!(status, 200);
    for number in 0..SERVICES {
        let service = &answer["live"][format!("x{number}")];
        assert_eq!((&service["state"], &service["healthy"]), (&"running".into(), &false.into()), "{answer}");
    }
    assert_eq!(hanging.asked.borrow().len(), SERVICES, "each was asked");
    assert_eq!(*hanging.given_up.lock().expect("nobody panicked"), SERVICES, "and given up on by us, not by itself");
}
