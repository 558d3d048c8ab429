//! Every template of the contract's section 8, with what it asks for and what is special about it: it expands, runs, and each step
//! gets what it needs. Those of one step reach their workers as they were written.

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    doubles::{Double, Manners},
    world::World,
};

/// As much as the greediest template asks for.
const CORES: u32 = 16;

fn hardware(cpu: u32, memory: &str, gpus: Option<u32>) -> Value {
    let mut hardware = json!({"cpu": cpu.to_string(), "memory": memory});
    if let Some(count) = gpus {
        hardware["gpu"] = json!({"count": count, "type": "any"});
    }
    json!({"replicas": 1, "hardware": hardware})
}

fn template(kind: &str, task_type: &str, resources: Value, rest: Value) -> Value {
    let mut spec = json!({"taskType": task_type, "resources": resources, "model": {"source": {"type": "huggingface", "identifier": "m"}}});
    json_patch::merge(&mut spec, &rest);
    json!({"apiVersion": "mloc/v1", "kind": kind, "metadata": {"name": "template", "owner": "tests", "annotations": {"description": "d"}}, "spec": spec})
}

fn inference(resources: Value, rest: Value) -> Value {
    template("InferenceTask", "inference", resources, rest)
}

/// A template that was handed in, and workers that could run any.
struct Run {
    world: World,
    ids: Vec<String>,
    _workers: Vec<Double>,
}

impl Run {
    /// Hands it in, with our URL where it delivers over HTTP, and waits for its end.
    async fn of(mut template: Value) -> Self {
        let world = World::start().await;
        let workers = world.workers(4, Manners { cores: CORES, ..Manners::default() }).await;
        if let Some(destination) = template.pointer_mut("/spec/output/destination").filter(|to| to["type"] == "http") {
            destination["url"] = json!(format!("{}/api/v1/results", world.url()));
        }
        let ids = world.submitted(&serde_saphyr::to_string(&template).expect("YAML")).await;
        world.all_done(&ids).await;
        Self { world, ids, _workers: workers }
    }

    /// What the worker of a step got.
    fn got(&self, step: usize) -> Value {
        let runs = self.world.ledger.documents(&self.ids[step]);
        assert_eq!(runs.len(), 1, "it runs once");
        runs[0].clone()
    }

    /// The stored result of a step, without its envelope.
    async fn result(&self, step: usize) -> Value {
        let (status, mut stored) = self.world.get(&format!("/api/v1/results/{}", self.ids[step])).await;
        assert_eq!(status, 200, "{stored}");
        stored["result"].take()
    }

    /// The ids of the steps that each waits for.
    async fn dependencies(&self, step: usize) -> Value {
        self.world.object(&format!("tasks/{}", self.ids[step])).await["spec"]["dependsOn"].clone()
    }
}

/// Where the results of most templates go.
fn local() -> Value {
    json!({"destination": {"type": "local", "path": "./"}, "artifacts": ["responses.json", "logs"]})
}

#[rstest]
#[case::echo_local(template("EchoTask", "echo", hardware(1, "1Gi", None), json!({"data": {"type": "list", "items": ["a"]}})))]
#[case::inference_hf_tiny(inference(hardware(2, "4Gi", None), json!({"data": {"type": "list", "items": ["a"]}})))]
#[case::inference_tf_llama(inference(hardware(8, "16Gi", None), json!({"enforce_cpu": true, "data": {"type": "dataset", "url": "d", "split": "train[:1%]"}, "inference": {"max_tokens": 128, "temperature": 0.2}})))]
#[case::sft_llama_1b(template("SFTTask", "sft", hardware(8, "32G", Some(1)), json!({"training": {"num_train_epochs": 1, "learning_rate": 2e-5}})))]
#[case::sft_llama_3b(template("SFTTask", "sft", hardware(8, "32G", Some(2)), json!({"training": {"fsdp": "full_shard", "deepspeed": {"zero": 3}, "allow_multi_gpu": true}})))]
#[case::lora_sft_llama(template("LoRASFTTask", "lora_sft", hardware(8, "48GiB", Some(1)), json!({"lora": {"r": 8, "alpha": 16.0, "target_modules": ["q_proj", "v_proj"]}})))]
#[case::ppo_training_llama_1b(template("TrainingTask", "ppo", hardware(16, "64Gi", Some(1)), json!({"data": {"prompts": ["p"]}, "reward_model": {"identifier": "r"}})))]
#[case::ppo_training_mistral(template("TrainingTask", "ppo", hardware(16, "64Gi", Some(1)), json!({"data": {"prompts": ["p", "q"]}, "reward_model": {"identifier": "r", "weights": [0.5, 1]}})))]
#[case::dpo_training_llama_1b(template("TrainingTask", "dpo", hardware(8, "32Gi", Some(1)), json!({"data": {"preferences": [{"prompt": "p", "chosen": "c", "rejected": "r"}]}})))]
#[case::dpo_training_mistral(template("TrainingTask", "dpo", hardware(16, "64Gi", Some(1)), json!({"data": {"preferences": [{"prompt": "p", "chosen": "c", "rejected": "r"}]}})))]
#[case::rag_query_qdrant(template("RetrievalTask", "rag", hardware(2, "4Gi", None), json!({"retrieval": {"url": "https://q", "api_key": "${QDRANT_API_KEY}", "top_k": 3}})))]
#[case::agent_simple_test(template("AgentTask", "agent", hardware(1, "2Gi", Some(0)), json!({"configName": "simple", "task": "t"})))]
#[case::agent_query_search(template("AgentTask", "agent", hardware(2, "4Gi", Some(0)), json!({"configName": "search", "task": "find x: y"})))]
#[case::agent_paper_collector(template("AgentTask", "agent", hardware(4, "8Gi", Some(0)), json!({"configName": "papers", "task": "several\nlines\n"})))]
#[case::agent_static_list(template("AgentTask", "agent", hardware(2, "4Gi", Some(0)), json!({"configName": "simple", "data": {"type": "list", "items": ["a", "b"]}})))]
#[case::agent_dataset_batch(template("AgentTask", "agent", hardware(2, "4Gi", Some(0)), json!({"configName": "simple", "data": {"type": "dataset", "url": "d", "split": "train[:5]", "column": "question"}})))]
#[tokio::test]
async fn a_template_of_one_step_reaches_its_worker_as_it_is(#[case] mut template: Value) {
    template["spec"]["output"] = local();
    let run = Run::of(template.clone()).await;
    assert_eq!(run.ids.len(), 1);
    assert_eq!(run.got(0), template);
}

/// `inference_vllm_mistral`, `inference_vllm_llama`: four idle workers with cards are enough to divide it.
#[rstest]
#[case::inference_vllm_mistral(json!({}))]
#[case::inference_vllm_llama(json!({"sloSeconds": 60}))]
#[tokio::test]
async fn a_parallel_template_is_divided_and_its_result_is_one(#[case] more: Value) {
    let mut spec = json!({
        "parallel": {"enabled": true, "max_shards": 8}, "data": {"type": "dataset", "url": "d", "split": "train[:200]"},
        "output": {"destination": {"type": "http"}},
    });
    json_patch::merge(&mut spec, &more);
    let run = Run::of(inference(hardware(8, "32Gi", Some(1)), spec)).await;
    assert_eq!(run.ids.len(), 1);
    let parts: Vec<Value> = (0..4).flat_map(|n| run.world.ledger.documents(&format!("{}-{n}", run.ids[0]))).collect();
    let splits: Vec<&str> = parts.iter().filter_map(|part| part["spec"]["data"]["split"].as_str()).collect();
    assert_eq!(splits, ["train[0:50]", "train[50:100]", "train[100:150]", "train[150:200]"]);
    assert!(
        parts
            .iter()
            .all(|part| part["spec"]["sloSeconds"] == more["sloSeconds"] && part["spec"].get("shard").is_none())
    );
    let result = run.result(0).await;
    assert_eq!((result["shards"].as_array().map(Vec::len), &result["merged"]["model"]), (Some(4), &json!("canned")));
}

#[tokio::test]
async fn inference_vllm_http_callback_delivers_with_the_headers_it_names() {
    let headers = json!({"Content-Type": "application/json", "X-Note": "n"});
    let destination = json!({"type": "http", "method": "POST", "headers": headers, "timeoutSec": 15});
    let spec = json!({"data": {"type": "list", "items": ["a", "b"]}, "output": {"destination": destination}});
    let run = Run::of(inference(hardware(4, "16GiB", Some(1)), spec)).await;
    assert_eq!(run.result(0).await["items"], json!(["a", "b"]));
    assert_eq!(run.got(0)["spec"]["output"]["destination"]["headers"], headers);
}

#[tokio::test]
async fn multi_step_cot_gives_each_stage_what_it_asks_for_and_the_answers_before_it() {
    let stages = json!([
        {"name": "think", "spec": {"data": {"type": "list", "items": ["why"]}, "resources": {"hardware": {"memory": "32Gi", "gpu": {"count": 1, "type": "any"}}}}},
        {"name": "check", "spec": {"data": {"type": "list", "items": ["is ${think.result.items[0]} right"]}}},
        {"name": "answer", "spec": {"data": {"type": "list", "items": ["so ${check.result.items[0]}"]}, "output": {"artifacts": ["responses.json"]}}},
    ]);
    let spec = json!({"stages": stages, "output": {"destination": {"type": "http"}}});
    let run = Run::of(inference(hardware(8, "16Gi", None), spec)).await;
    assert_eq!(run.ids.len(), 3);
    let asked = [0, 1, 2].map(|n| run.got(n)["spec"]["data"]["items"][0].clone());
    assert_eq!(asked, [json!("why"), json!("is why right"), json!("so is why right")]);
    let hardware = [0, 1, 2].map(|n| run.got(n)["spec"]["resources"]["hardware"].clone());
    assert_eq!(hardware[0], json!({"cpu": "8", "memory": "32Gi", "gpu": {"count": 1, "type": "any"}}));
    assert_eq!(hardware[1], json!({"cpu": "8", "memory": "16Gi"}));
    let outputs = [1, 2].map(|n| run.got(n)["spec"]["output"]["artifacts"].clone());
    assert_eq!(outputs, [Value::Null, json!(["responses.json"])]);
    let names = [0, 1, 2].map(|n| run.got(n)["metadata"]["name"].clone());
    assert_eq!(names, [json!("template:think"), json!("template:check"), json!("template:answer")]);
    assert_eq!((run.dependencies(1).await, run.dependencies(2).await), (json!([run.ids[0]]), json!([run.ids[1]])));
    assert!(run.got(0)["spec"].get("stages").is_none());
}

#[tokio::test]
async fn dag_inference_example_hands_both_answers_to_the_last() {
    let columns = json!([
        {"name": "first", "node": "a", "path": "result.items[0].output"}, {"name": "second", "expr": "${b.result.items[0].output}"},
    ]);
    let item = |text: &str| json!({"data": {"type": "list", "items": [{"output": text}]}});
    let nodes = json!([
        {"name": "a", "spec": item("A")}, {"name": "b", "spec": item("B")},
        {"name": "synthesis", "dependsOn": ["a", "b"], "spec": {"data": {"type": "graph_template", "template": "{first} {second}", "columns": columns}}},
    ]);
    let spec = json!({"graph": {"nodes": nodes}, "output": {"destination": {"type": "http"}}});
    let run = Run::of(inference(hardware(4, "16GiB", None), spec)).await;
    assert_eq!(run.ids.len(), 3);
    let got = run.got(2);
    // The worker looks the columns up itself, in what came with its task.
    let upstream = &got["spec"]["_upstreamResults"];
    assert_eq!(upstream.pointer("/a/result/items/0/output"), Some(&json!("A")));
    assert_eq!(upstream.pointer("/b/task_id"), Some(&json!(run.ids[1])));
    assert_eq!(got["spec"]["data"]["columns"][0], columns[0]);
    assert_eq!(got["spec"]["data"]["columns"][1]["expr"], "B", "a placeholder is one wherever it stands");
    assert!(got["spec"].get("graph").is_none());
    assert_eq!(run.dependencies(2).await, json!([run.ids[0], run.ids[1]]));
}

/// The archive of the first stage goes up with the headers of JSON, and the second loads it by its URL.
#[rstest]
#[case::sft_llama_two_stage("SFTTask", "sft", "32GiB", "final_model")]
#[case::lora_sft_llama_two_stage("LoRASFTTask", "lora_sft", "48GiB", "final_lora")]
#[tokio::test]
async fn a_two_stage_template_loads_the_archive_of_its_first_stage(
    #[case] kind: &str,
    #[case] task_type: &str,
    #[case] memory: &str,
    #[case] archive: &str,
) {
    let url = format!("${{gsm8k-stage.result.{archive}_archive_url}}");
    let stages = json!([
        {"name": "gsm8k-stage", "spec": {"double": {"archive": format!("{archive}.zip")}}},
        {"name": "alpaca-stage", "spec": {"checkpoint": {"load": {"type": "http", "url": url}}}},
    ]);
    let destination = json!({"type": "http", "headers": {"Content-Type": "application/json"}, "timeoutSec": 30});
    let spec = json!({"stages": stages, "output": {"destination": destination}});
    let run = Run::of(template(kind, task_type, hardware(8, memory, Some(1)), spec)).await;
    assert_eq!(run.ids.len(), 2);
    let load = run.got(1)["spec"]["checkpoint"]["load"]["url"].clone();
    let load = load.as_str().expect("a URL");
    assert!(load.ends_with(&format!("/{}/files/{archive}.zip", run.ids[0])), "{load}");
    let loaded = reqwest::get(load).await.expect("an answer").text().await.expect("a body");
    assert_eq!(loaded, format!("archive of {}", run.ids[0]));
}
