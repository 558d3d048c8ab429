//! `inference`: MLOC's documents of this type, asked of the endpoint that `http` asks, which must serve the model that they name.
//!
//! ```yaml
//! spec:
//!   taskType: inference
//!   model: {source: {identifier: Qwen/Qwen3-8B}}
//!   data: {type: list, items: [one, two]}              # or graph_template: one text made of the results before it
//!   inference: {system_prompt: Be short., max_tokens: 64}    # the rest as the endpoint knows it
//! ```
//!
//! Every prompt is what a user says in a chat, which is what such models are made for; MLOC's workers have it continued as a text. What
//! concerns how a worker loads a model (`model.vllm`, `model.transformers`, `enforce_cpu`) is the endpoint's affair. What would change the
//! answers and cannot be had there is refused: adapters, checkpoints, datasets.

use futures::{FutureExt, future::BoxFuture};
use serde_json::{Map, Value, json};

use super::{OURS, OpenAi, Spec, late, questions};
use crate::{
    mloc::{Refused, document::is_something, prompts::prompts},
    worker::{
        executors::{Executor, Failure, Job, USUAL_LIMIT},
        home::Home,
    },
};

/// Asks one endpoint.
pub struct Inference(pub OpenAi);

impl Inference {
    async fn execute(&self, job: &Job) -> Result<Value, Failure> {
        let prompts = prompts(job.spec()).map_err(|Refused(why)| Failure::Failed(why))?;
        let spec = asked(job.spec(), prompts.with_system_prompt)?;
        let questions = questions(&spec, &prompts.items)?;
        let within = self.0.answers_within(USUAL_LIMIT, job, &spec, &prompts.items, questions).await?;
        within.ok_or_else(|| Failure::Failed(late(USUAL_LIMIT)))
    }
}

impl Executor for Inference {
    fn task_type(&self) -> &'static str {
        "inference"
    }

    fn data_types(&self) -> Option<&'static [&'static str]> {
        Some(&["list", "graph_template"])
    }

    fn run<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Value, Failure>> {
        self.execute(job).boxed()
    }

    /// Nothing of it is on this host.
    fn clear_away<'a>(&'a self, _: &'a Home) -> BoxFuture<'a, ()> {
        std::future::ready(()).boxed()
    }
}

/// Which model, and how.
fn asked(spec: &Value, with_system_prompt: bool) -> Result<Spec, Failure> {
    let wrong = |field: &str, why: &str| Failure::Failed(format!("spec.{field}: {why}"));
    for (field, path) in [("model.adapters", "/model/adapters"), ("checkpoint.load", "/checkpoint/load")] {
        if spec.pointer(path).is_some_and(is_something) {
            return Err(wrong(field, "the endpoint has its own models; give a worker of MLOC's the task"));
        }
    }
    let model = spec.pointer("/model/source/identifier").and_then(Value::as_str).filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| wrong("model.source.identifier", "must name a model of the endpoint"))?;
    let mut parameters: Map<String, Value> = match &spec["inference"] {
        Value::Null => Map::new(),
        Value::Object(given) => given.clone(),
        _ => return Err(wrong("inference", "must be a map")),
    };
    let said = ["system_prompt", "systemPrompt"].map(|name| (name, parameters.remove(name).unwrap_or_default()));
    let mut system = None;
    for (name, said) in said {
        match said {
            Value::String(said) if !said.is_empty() => system = system.or(Some(said)),
            Value::String(_) | Value::Null => {}
            _ => return Err(wrong(&format!("inference.{name}"), "must be a text")),
        }
    }
    if let Some(name) = OURS.iter().find(|name| parameters.contains_key(**name)) {
        return Err(wrong(&format!("inference.{name}"), "is no parameter; it follows from the other fields"));
    }
    parameters.retain(|_, value| !value.is_null());
    let system = system.filter(|_| with_system_prompt).map(|said| json!({"role": "system", "content": said}));
    let messages = system.and_then(|message| Some(vec![message.as_object()?.clone()]));
    Ok(Spec { model: model.to_owned(), messages, prompt: None, parameters, timeout_seconds: None })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_document_says_which_model_and_how() {
        let spec = json!({"model": {"source": {"identifier": "m"}, "vllm": {"max_model_len": 1}},
            "inference": {"system_prompt": "s", "temperature": 0.2, "stop": null}});
        for (with, messages) in [(true, json!([{"role": "system", "content": "s"}])), (false, json!(null))] {
            let asked = asked(&spec, with).expect("asked");
            assert_eq!((asked.model.as_str(), json!(asked.messages)), ("m", messages));
            assert_eq!(json!(asked.parameters), json!({"temperature": 0.2}));
        }
    }

    #[rstest]
    #[case(json!({}), "spec.model.source.identifier: ")]
    #[case(json!({"model": {"source": {"identifier": "m"}, "adapters": [{"type": "lora"}]}}), "spec.model.adapters: ")]
    #[case(json!({"model": {"source": {"identifier": "m"}}, "checkpoint": {"load": {"url": "u"}}}), "spec.checkpoint.load: ")]
    #[case(json!({"model": {"source": {"identifier": "m"}}, "inference": [1]}), "spec.inference: ")]
    #[case(json!({"model": {"source": {"identifier": "m"}}, "inference": {"n": 2}}), "spec.inference.n: ")]
    #[case(json!({"model": {"source": {"identifier": "m"}}, "inference": {"systemPrompt": 1}}), "spec.inference.systemPrompt: ")]
    fn what_cannot_be_had_is_told_with_its_path(#[case] spec: Value, #[case] told: &str) {
        let Err(Failure::Failed(why)) = asked(&spec, true) else { panic!("taken") };
        assert!(why.starts_with(told), "{why}");
    }
}
