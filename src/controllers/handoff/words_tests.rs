//! What each kind of step says to whom, word for word, and what it does in a container.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use rstest::rstest;
use serde_json::{Value, json};

use super::{
    runner::{Job, Runner, StepKey},
    runner_tests::{carried_out, ours, prime},
};
use crate::{
    adapters::{
        containers::{ContainerState, ExecResult},
        peers::{Peer, PeerError, PeerRequest, Peers},
        simulated::containers::Behaviour,
    },
    api::{
        gpustep::{AcquireStep, ReleaseStep},
        handoff::StepStage,
    },
    runtime::wakeups::Wakeups,
};

/// Writes down what it is asked, and knows some answers.
#[derive(Default)]
struct Notebook(Mutex<Vec<String>>);

impl Notebook {
    fn said(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }
}

impl Peers for Notebook {
    fn call<'a>(&'a self, request: &'a PeerRequest, _: Duration) -> BoxFuture<'a, Result<String, PeerError>> {
        let place = match &request.peer {
            Peer::Url(url) => url.clone(),
            Peer::Container { container, port, path } => format!("{}:{port}{path}", container.name),
        };
        let headers: String = request.headers.iter().map(|(name, value)| format!(" {name}: {value}")).collect();
        let body = request.body.as_deref().unwrap_or_default();
        self.0
            .lock()
            .expect("no panic")
            .push(format!("{:?} {place}{headers} {body}", request.method).trim_end().to_owned());
        let answer = match place.split_once(':').map(|(_, rest)| rest.trim_start_matches(char::is_numeric)) {
            Some("/api/ps") => json!({"models": [{"name": "llama3:8b"}, {"name": "nomic"}]}),
            Some("/models") => json!({"data": [
                {"id": "on-disk", "status": {"value": "unloaded"}}, {"id": "in-use", "status": {"value": "loaded"}},
                {"id": "dozing", "status": {"value": "sleeping"}}, {"id": "coming", "status": {"value": "loading"}},
                {"id": "on-its-way", "status": {"value": "downloading"}}, {"id": "of-an-older-router"},
            ]}),
            _ => json!({}),
        };
        std::future::ready(Ok(answer.to_string())).boxed()
    }
}

/// What is said for a step, and what it comes to.
async fn said(stage: StepStage, step: Value, behaviour: Behaviour) -> (Vec<String>, Result<String, String>, bool) {
    let (engine, prime, clock) = prime(behaviour, ours()).await;
    let (notebook, wakeups) = (Arc::new(Notebook::default()), Wakeups::default());
    let runner = Runner::new(Arc::new(engine.clone()), notebook.clone(), clock, wakeups.clone());
    let job = match stage {
        StepStage::Release => {
            let step: ReleaseStep = serde_json::from_value(step).expect("a step");
            Job::Release(Box::new(step), Box::new(prime))
        }
        StepStage::Acquire => {
            let step: AcquireStep = serde_json::from_value(step).expect("a step");
            Job::Acquire(Box::new(step), Box::new(prime))
        }
    };
    let answer = carried_out(&runner, &wakeups, StepKey { back: false, stage, index: 0 }, job).await;
    let runs = engine.observed().iter().any(|container| container.state == ContainerState::Running);
    (notebook.said(), answer, runs)
}

const JSON: &str = "content-type: application/json";

#[rstest]
#[case::vllm(json!({"vllmSleep": {"port": 8000, "level": 2}}), &["POST prime-live:8000/sleep?level=2"], "answered")]
#[case::ollama_by_name(
    json!({"ollamaUnload": {"port": 11434, "models": ["a"]}}),
    &["POST prime-live:11434/api/generate JSON {\"keep_alive\":0,\"model\":\"a\",\"stream\":false}"],
    "a"
)]
#[case::ollama_all_that_is_loaded(
    json!({"ollamaUnload": {"port": 11434}}),
    &[
        "GET prime-live:11434/api/ps",
        "POST prime-live:11434/api/generate JSON {\"keep_alive\":0,\"model\":\"llama3:8b\",\"stream\":false}",
        "POST prime-live:11434/api/generate JSON {\"keep_alive\":0,\"model\":\"nomic\",\"stream\":false}",
    ],
    "llama3:8b, nomic"
)]
#[case::llama_cpp_by_name(
    json!({"llamaCppUnload": {"port": 8080, "models": ["a"]}}),
    &["POST prime-live:8080/models/unload JSON {\"model\":\"a\"}"],
    "a"
)]
#[case::llama_cpp_all_that_is_loaded(
    json!({"llamaCppUnload": {"port": 8080}}),
    &[
        "GET prime-live:8080/models",
        "POST prime-live:8080/models/unload JSON {\"model\":\"in-use\"}",
        "POST prime-live:8080/models/unload JSON {\"model\":\"dozing\"}",
        "POST prime-live:8080/models/unload JSON {\"model\":\"coming\"}",
        "POST prime-live:8080/models/unload JSON {\"model\":\"of-an-older-router\"}",
    ],
    "in-use, dozing, coming, of-an-older-router"
)]
#[case::comfy(
    json!({"comfyFree": {"port": 8188}}),
    &["POST prime-live:8188/free JSON {\"free_memory\":true,\"unload_models\":true}"],
    "answered"
)]
#[case::http(
    json!({"http": {"method": "PUT", "port": 80, "path": "/off", "headers": {"x-who": "gaia"}, "body": "now"}}),
    &["PUT prime-live:80/off x-who: gaia now"],
    "answered"
)]
#[case::http_elsewhere(
    json!({"http": {"url": "http://far:1/off", "body": "{}"}}),
    &["POST http://far:1/off {}"],
    "answered"
)]
#[tokio::test(start_paused = true)]
async fn a_release_is_asked_for(#[case] step: Value, #[case] words: &[&str], #[case] message: &str) {
    let (said, answer, runs) = said(StepStage::Release, step, Behaviour::default()).await;
    let words: Vec<String> = words.iter().map(|line| line.replace("JSON", JSON)).collect();
    assert_eq!((said, answer, runs), (words, Ok(message.to_owned()), true));
}

#[rstest]
#[case::vllm(json!({"vllmWake": {"port": 8000}}), &["POST prime-live:8000/wake_up"], "answered")]
#[case::ollama(
    json!({"ollamaLoad": {"port": 11434, "models": ["a"]}}),
    &["POST prime-live:11434/api/generate JSON {\"keep_alive\":-1,\"model\":\"a\",\"stream\":false}"],
    "a"
)]
#[case::llama_cpp(
    json!({"llamaCppLoad": {"port": 8080, "models": ["a", "b"]}}),
    &[
        "POST prime-live:8080/models/load JSON {\"model\":\"a\"}",
        "POST prime-live:8080/models/load JSON {\"model\":\"b\"}",
    ],
    "a, b"
)]
#[case::exec(json!({"exec": {"command": ["on"]}}), &[], "exit code 0")]
#[tokio::test(start_paused = true)]
async fn a_card_is_told_of(#[case] step: Value, #[case] words: &[&str], #[case] message: &str) {
    let (said, answer, _) = said(StepStage::Acquire, step, Behaviour::default()).await;
    let words: Vec<String> = words.iter().map(|line| line.replace("JSON", JSON)).collect();
    assert_eq!((said, answer), (words, Ok(message.to_owned())));
}

/// One that would sit out the longest grace.
#[tokio::test(start_paused = true)]
async fn a_kill_gives_no_grace() {
    let stubborn = Behaviour { ignores_stop: true, ..Behaviour::default() };
    let begun = tokio::time::Instant::now();
    let (said, answer, runs) = said(StepStage::Release, json!({"kill": {}}), stubborn).await;
    assert_eq!((said, answer, runs), (vec![], Ok("prime-live stopped".to_owned()), false));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[rstest]
#[case::done(0, "", Ok("exit code 0"))]
#[case::refused(3, " a job runs\n", Err("exit code 3: a job runs"))]
#[tokio::test(start_paused = true)]
async fn a_command_is_judged_by_its_exit_code(
    #[case] exit_code: i64,
    #[case] output: &str,
    #[case] expected: Result<&str, &str>,
) {
    let mut behaviour = Behaviour::default();
    behaviour.exec.insert(vec!["off".to_owned()], ExecResult { exit_code, output: output.to_owned() });
    let (said, answer, _) = said(StepStage::Release, json!({"exec": {"command": ["off"]}}), behaviour).await;
    assert_eq!((said, answer), (vec![], expected.map(str::to_owned).map_err(str::to_owned)));
}
