//! Every kind of template in the contract's section 8, with what it asks for and what is special about it: it expands, runs, and
//! each step gets what it needs.

use rstest::rstest;
use serde_json::{Value, json};

use super::{doubles::Manners, world::World};

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

#[rstest]
#[case::echo_local(template("EchoTask", "echo", hardware(1, "1Gi", None), json!({"data": {"type": "list", "items": ["a"]}})), 1)]
#[case::inference_hf_tiny(template("InferenceTask", "inference", hardware(2, "4Gi", None), json!({"data": {"type": "list", "items": ["a"]}})), 1)]
#[case::inference_tf(template("InferenceTask", "inference", hardware(8, "16Gi", None), json!({"enforce_cpu": true, "data": {"type": "dataset", "split": "train[:1%]"}})), 1)]
#[case::inference_vllm(template("InferenceTask", "inference", hardware(8, "32Gi", Some(1)), json!({"parallel": {"enabled": true, "max_shards": 8}, "data": {"type": "dataset", "split": "train[:200]"}, "sloSeconds": 60})), 1)]
#[case::inference_http(template("InferenceTask", "inference", hardware(4, "16GiB", Some(1)), json!({"data": {"type": "list", "items": ["a"]}, "output": {"destination": {"type": "http", "method": "POST", "headers": {"Content-Type": "application/json"}, "timeoutSec": 15}}})), 1)]
#[case::multi_step_cot(template("InferenceTask", "inference", hardware(8, "16Gi", None), json!({"stages": [{"name": "think", "spec": {"resources": {"hardware": {"memory": "32Gi", "gpu": {"count": 0, "type": "any"}}}}}, {"name": "check", "spec": {"prompt": "${think.result.items[0]}"}}, {"name": "answer", "spec": {"resources": {"hardware": {"gpu": {"count": 1, "type": "any"}}}, "output": {"destination": {"type": "local", "path": "./x"}}}}]})), 3)]
#[case::dag(template("InferenceTask", "inference", hardware(4, "16GiB", None), json!({"graph": {"nodes": [{"name": "a"}, {"name": "b"}, {"name": "synthesis", "dependsOn": ["a", "b"], "spec": {"data": {"type": "graph_template", "columns": {"x": {"node": "a", "path": "result.items[0].output"}}}}}]}})), 3)]
#[case::sft(template("SFTTask", "sft", hardware(8, "32G", Some(2)), json!({"training": {"fsdp": "full_shard", "deepspeed": null}})), 1)]
#[case::sft_two_stage(template("SFTTask", "sft", hardware(8, "32GiB", Some(1)), json!({"stages": [{"name": "gsm8k-stage", "spec": {"double": {"archive": "final_model.zip"}}}, {"name": "next", "spec": {"checkpoint": {"load": {"type": "http", "url": "${gsm8k-stage.result.final_model_archive_url}"}}}}], "output": {"destination": {"type": "http", "headers": {"Content-Type": "application/json"}}}})), 2)]
#[case::lora(template("LoRASFTTask", "lora_sft", hardware(8, "48GiB", Some(1)), json!({"lora": {"r": 8, "alpha": 16.0}})), 1)]
#[case::ppo(template("TrainingTask", "ppo", hardware(8, "64Gi", Some(1)), json!({"data": {"prompts": ["p"]}, "reward": {"model": "r"}})), 1)]
#[case::dpo(template("TrainingTask", "dpo", hardware(8, "64Gi", Some(1)), json!({"data": {"preferences": [{"prompt": "p", "chosen": "c", "rejected": "r"}]}})), 1)]
#[case::rag(template("RetrievalTask", "rag", hardware(2, "4Gi", None), json!({"qdrant": {"api_key": "${QDRANT_API_KEY}"}})), 1)]
#[case::agent(template("AgentTask", "agent", hardware(1, "2Gi", Some(0)), json!({"configName": "simple", "task": "t"})), 1)]
#[tokio::test]
async fn a_template_expands_and_runs(#[case] mut template: Value, #[case] steps: usize) {
    let world = World::start().await;
    let _workers = world.workers(2, Manners::default()).await;
    if let Some(destination) = template.pointer_mut("/spec/output/destination") {
        destination["url"] = json!(format!("{}/api/v1/results", world.url()));
    }
    let ids = world.submitted(&serde_saphyr::to_string(&template).expect("YAML")).await;
    assert_eq!(ids.len(), steps);
    world.all_done(&ids).await;
    for id in &ids {
        // What is divided runs in parts.
        let runs = [id.clone(), format!("{id}-0")].map(|id| world.ledger.documents(&id)).concat();
        let got = &runs[0];
        assert_eq!((&got["kind"], &got["metadata"]["owner"]), (&template["kind"], &json!("tests")));
        let model = &template["spec"]["model"];
        assert_eq!(&got["spec"]["model"], model);
        assert!(got["spec"].get("stages").is_none() && got["spec"].get("graph").is_none(), "{got}");
    }
    let last = ids.last().expect("a step");
    let got = &[last.clone(), format!("{last}-0")].map(|id| world.ledger.documents(&id)).concat()[0]["spec"];
    if let Some(key) = template.pointer("/spec/qdrant/api_key") {
        assert_eq!(&got["qdrant"]["api_key"], key, "what depends on nothing is sent as it is");
    }
    if let Some(url) = got.pointer("/checkpoint/load/url").and_then(Value::as_str) {
        assert!(url.ends_with("/files/final_model.zip"), "{url}");
    }
}
