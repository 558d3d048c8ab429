//! MLOC's `inference` templates (section 8 of the contract), as their files have them but for data sets and hardware, on
//! `gaia worker --executors inference` before an endpoint over real HTTP.

use serde_json::{Value, json};

use super::{
    command::result,
    http::Endpoint,
    workers::Program,
    world::{World, document},
};

struct Run {
    world: World,
    endpoint: Endpoint,
    _workers: Vec<Program>,
}

impl Run {
    async fn with(workers: usize) -> Self {
        let world = World::without_redis(&[("RETRY_BASE_DELAY_SEC", "0"), ("ORCHESTRATOR_BASE_URL", "{url}")]).await;
        let endpoint = Endpoint::default();
        let url = endpoint.start().await;
        let mut all = Vec::new();
        for n in 0..workers {
            let args = ["--executors", "inference", "--http-url", &url];
            all.push(Program::start(&world, &format!("w{n}"), &args).await);
        }
        Self { world, endpoint, _workers: all }
    }

    /// The ids of its steps, once all are done.
    async fn of(&self, spec: Value) -> Vec<String> {
        let ids = self.world.submitted(&inference(spec)).await;
        self.world.all_done(&ids).await;
        ids
    }

    async fn outputs(&self, id: &str) -> Vec<String> {
        outputs(&result(&self.world, id).await)
    }

    /// What was asked for one model, without what we always add.
    fn asked(&self, model: &str) -> Vec<Value> {
        let of_model = self.endpoint.asked().into_iter().filter(|(_, _, body)| body["model"] == model);
        let bare = |(path, _, mut body): (String, Option<String>, Value)| {
            assert_eq!((path.as_str(), &body["stream"]), ("/v1/chat/completions", &json!(true)));
            for ours in ["model", "stream", "stream_options"] {
                body.as_object_mut().expect("a map").remove(ours);
            }
            body
        };
        of_model.map(bare).collect()
    }
}

/// Without what the endpoint puts before everything.
fn outputs(result: &Value) -> Vec<String> {
    let items = result["items"].as_array().expect("items").iter();
    items.map(|item| item["output"].as_str().expect("a text").replace("You said:\n", "")).collect()
}

fn inference(spec: Value) -> String {
    let mut laid =
        json!({"taskType": "inference", "data": null, "model": {"source": {"type": "huggingface", "identifier": "m"}}});
    json_patch::merge(&mut laid, &spec);
    document(laid)
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn system(text: &str) -> Value {
    json!({"role": "system", "content": text})
}

#[tokio::test]
async fn inference_vllm_http_callback_is_answered_and_delivered() {
    let run = Run::with(1).await;
    let destination = json!({"type": "http", "url": format!("{}/api/v1/results", run.world.url()), "method": "POST",
        "timeoutSec": 10, "headers": {"Content-Type": "application/json"}});
    let ids = run
        .of(json!({
            "parallel": {"enabled": false},
            "model": {"vllm": {"tensor_parallel_size": 1, "max_model_len": 4096}},
            "data": {"type": "list", "items": ["one", "two"]},
            "inference": {"max_tokens": 256, "temperature": 0.6, "top_p": 0.9},
            "output": {"destination": destination, "artifacts": ["responses.json"]},
        }))
        .await;
    let parameters = json!({"max_tokens": 256, "temperature": 0.6, "top_p": 0.9});
    let mut asked = run.asked("m");
    // Both at a time.
    asked.sort_by_key(|body| body["messages"].to_string());
    for (body, text) in asked.iter_mut().zip(["one", "two"]) {
        let messages = body.as_object_mut().expect("a map").remove("messages");
        assert_eq!((messages, &*body), (Some(json!([user(text)])), &parameters));
    }
    let result = result(&run.world, &ids[0]).await;
    assert_eq!((asked.len(), outputs(&result)), (2, vec!["one".to_owned(), "two".to_owned()]));
    assert_eq!((&result["model"], &result["usage"]["prompt_tokens"]), (&json!("m"), &json!(6)));
}

#[tokio::test]
async fn multi_step_cot_asks_each_stage_its_own_model_in_its_own_words() {
    let run = Run::with(1).await;
    let stage = |name: &str, model: &str, asks: &str| {
        json!({"name": name, "spec": {
            "model": {"source": {"identifier": model, "revision": "main"}, "transformers": {"device_map": "cpu"}},
            "data": {"type": "list", "items": [asks]},
            "inference": {"system_prompt": format!("You {name}."), "temperature": 0.5},
            "output": {"destination": {"type": "local", "path": "./"}, "artifacts": ["responses.json", "logs"]}}})
    };
    let stages = [
        stage("draft", "small", "why"),
        stage("refine", "large", "better: ${draft.result.items[0].output}"),
        stage("format", "small-again", "as JSON: ${refine.result.items[0].output}"),
    ];
    let ids = run.of(json!({"stages": stages, "inference": {"max_tokens": 128, "temperature": 0.7}})).await;
    let asked = |model: &str| run.asked(model).remove(0);
    let expected = |name: &str, text: &str| json!({"messages": [system(&format!("You {name}.")), user(text)], "max_tokens": 128, "temperature": 0.5});
    assert_eq!(asked("small"), expected("draft", "why"));
    assert_eq!(asked("large"), expected("refine", "better: You said:\nwhy"));
    assert_eq!(asked("small-again"), expected("format", "as JSON: You said:\nbetter: You said:\nwhy"));
    assert_eq!(run.outputs(&ids[2]).await, ["as JSON: better: why"]);
}

#[tokio::test]
async fn dag_inference_example_weighs_what_both_branches_found() {
    let run = Run::with(1).await;
    let branch = |name: &str, asks: &str| json!({"name": name, "spec": {"data": {"type": "list", "items": [asks]}}});
    let column = |label: &str, node: &str| json!({"label": label, "node": node, "path": "result.items[0].output"});
    let template = json!({"name": "two_column_briefing",
        "columns": [column("Benefits", "branch-a"), column("Challenges", "branch-b")]});
    let synthesis = json!({"name": "synthesis", "dependsOn": ["branch-a", "branch-b"], "spec": {
        "model": {"source": {"identifier": "last"}}, "data": {"type": "graph_template", "template": template}}});
    let nodes = [branch("branch-a", "what is good"), branch("branch-b", "what is hard"), synthesis];
    let ids = run.of(json!({"parallel": {"enabled": false}, "graph": {"nodes": nodes}})).await;
    let asked = run.asked("last").remove(0);
    let text = asked["messages"][0]["content"].as_str().expect("a text").to_owned();
    for line in ["- Benefits: You said:\n  what is good\n", "- Challenges: You said:\n  what is hard\n"] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(run.outputs(&ids[2]).await, [text.replace("You said:\n", "")]);
}

/// `inference_vllm_mistral`, `inference_vllm_llama`, with a list.
#[tokio::test]
async fn a_parallel_template_is_divided_among_workers_of_ours() {
    let run = Run::with(4).await;
    let ids = run
        .of(json!({"parallel": {"enabled": true, "max_shards": 8}, "sloSeconds": 60,
            "data": {"type": "list", "items": ["a", "b", "c", "d"]}}))
        .await;
    let result = result(&run.world, &ids[0]).await;
    assert_eq!(result["shards"].as_array().map(Vec::len), Some(4), "{result}");
    assert_eq!(outputs(&result["merged"]), ["a", "b", "c", "d"]);
    assert_eq!(
        (&result["merged"]["model"], &result["merged"]["usage"]["completion_tokens"]),
        (&json!("m"), &json!(16))
    );
}

#[tokio::test]
async fn a_dataset_waits_for_a_worker_that_loads_it() {
    let run = Run::with(1).await;
    let data = json!({"type": "dataset", "url": "d", "split": "train[:1%]"});
    let id = run.world.submitted(&inference(json!({"data": data, "enforce_cpu": true}))).await.remove(0);
    run.world.status_is(&id, "WAITING").await;
    let why = run.world.object(&format!("tasks/{id}")).await["status"]["conditions"][0].clone();
    let message = "none of 1 workers can do it: 1 run its taskType with data of other types";
    assert_eq!((&why["reason"], &why["message"]), (&json!("NoWorkerFits"), &json!(message)));
}

#[tokio::test]
async fn what_the_endpoint_cannot_do_fails_and_says_where() {
    let run = Run::with(1).await;
    let list = json!({"type": "list", "items": ["a"]});
    let cases = [
        (json!({"data": list, "model": {"adapters": [{"type": "lora", "url": "u"}]}}), "spec.model.adapters: "),
        (
            json!({"data": list, "model": {"source": {"identifier": "absent"}}}),
            "chat/completions: 404 Not Found: no such model",
        ),
    ];
    let mut submitted = Vec::new();
    for (spec, told) in cases {
        submitted.push((run.world.submitted(&inference(spec)).await.remove(0), told));
    }
    for (id, told) in submitted {
        let task = run.world.status_is(&id, "FAILED").await;
        assert!(task["error"].as_str().is_some_and(|error| error.starts_with(told)), "{}: {told}", task["error"]);
    }
}
