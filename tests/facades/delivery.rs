//! Notifications on their way to gaia-web: a real receiver that fails, hangs, refuses, and comes back.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::post};
use gaia::facades::gaia::{Delivery, Patience, WebTarget};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
    time::timeout,
};

use super::world::{DEADLINE, World};

/// What the receiver does with the next requests, in this order; afterwards it takes everything.
#[derive(Clone, Copy)]
enum Does {
    Fails,
    Hangs,
    Refuses,
}

struct Web {
    script: Mutex<std::vec::IntoIter<Does>>,
    /// Each request, and whether it was taken.
    came: mpsc::UnboundedSender<(String, bool)>,
}

async fn receive(State(web): State<Arc<Web>>, body: String) -> StatusCode {
    let frame: Value = serde_json::from_str(&body).expect("JSON");
    let model = frame["data"]["fallback_model"].as_str().expect("an oracle").to_owned();
    let does = web.script.lock().await.next();
    web.came.send((model, does.is_none())).expect("the test listens");
    match does {
        None => StatusCode::NO_CONTENT,
        Some(Does::Fails) => StatusCode::SERVICE_UNAVAILABLE,
        Some(Does::Refuses) => StatusCode::UNPROCESSABLE_ENTITY,
        Some(Does::Hangs) => std::future::pending().await,
    }
}

struct Receiver {
    came: mpsc::UnboundedReceiver<(String, bool)>,
}

impl Receiver {
    async fn start(listener: TcpListener, script: Vec<Does>) -> Self {
        let (told, came) = mpsc::unbounded_channel();
        let web = Arc::new(Web { script: Mutex::new(script.into_iter()), came: told });
        let routes = Router::new().route("/api/notifications", post(receive)).with_state(web);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { came }
    }

    /// The next requests: whose, and whether taken.
    async fn requests(&mut self, count: usize) -> Vec<(String, bool)> {
        let mut seen = Vec::new();
        while seen.len() < count {
            seen.push(timeout(DEADLINE, self.came.recv()).await.expect("in time").expect("it runs"));
        }
        seen
    }
}

fn expected(list: &[(&str, bool)]) -> Vec<(String, bool)> {
    list.iter().map(|(model, taken)| ((*model).to_owned(), *taken)).collect()
}

async fn tell(world: &World, models: &[&str]) {
    for model in models {
        let body = format!(r#"{{"fallback_model":"{model}","original_role":"prime"}}"#);
        world.done("/notify/oracle-fallback", &body).await;
    }
}

fn deliver(world: &World, address: std::net::SocketAddr, attempts: usize) {
    let patience = Patience {
        answer_within: Duration::from_millis(300),
        first_delay: Duration::from_millis(10),
        longest_delay: Duration::from_millis(50),
        attempts,
    };
    let target = WebTarget::parse(&format!("http://{address}")).expect("an URL");
    let delivery = Delivery { hub: world.gaia.hub.clone(), target, patience };
    tokio::spawn(delivery.run(world.shutdown.clone()));
}

#[tokio::test]
async fn each_is_brought_in_order_through_failures_and_silence() {
    let world = World::bare().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let mut web = Receiver::start(listener, vec![Does::Fails, Does::Hangs, Does::Fails, Does::Refuses]).await;
    deliver(&world, address, 50);
    world.listening(1).await;
    tell(&world, &["one", "two", "three"]).await;
    // Refused (422) is not asked again: it would be refused again.
    let told = [("one", false), ("one", false), ("one", false), ("one", false), ("two", true), ("three", true)];
    assert_eq!(web.requests(6).await, expected(&told));
}

#[tokio::test]
async fn a_receiver_that_is_away_gets_what_it_missed_when_it_comes_back() {
    let world = World::bare().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it listens");
    drop(listener);
    deliver(&world, address, 10_000);
    world.listening(1).await;
    tell(&world, &["one", "two"]).await;
    let listener = TcpListener::bind(address).await.expect("its port is free still");
    let mut web = Receiver::start(listener, Vec::new()).await;
    assert_eq!(web.requests(2).await, expected(&[("one", true), ("two", true)]));
}

#[tokio::test]
async fn what_cannot_be_brought_is_given_up_and_holds_up_no_other() {
    let world = World::bare().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let mut web = Receiver::start(listener, vec![Does::Fails, Does::Fails]).await;
    deliver(&world, address, 2);
    world.listening(1).await;
    tell(&world, &["one", "two"]).await;
    assert_eq!(web.requests(3).await, expected(&[("one", false), ("one", false), ("two", true)]));
}
