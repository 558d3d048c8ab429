//! `http`: asks an OpenAI-compatible endpoint (vLLM, Ollama, a provider's). Which one, and its key, the worker's command line says;
//! no task does: it would be a way to send requests in the worker's name, with its key, to anywhere.
//!
//! ```yaml
//! spec:
//!   taskType: http
//!   http:
//!     model: Qwen/Qwen3-8B
//!     messages: [{role: system, content: Be short.}, {role: user, content: Hello}]    # or prompt: a text to go on with
//!     parameters: {temperature: 0, max_tokens: 64}                                    # as the endpoint knows them
//!     timeoutSeconds: 600
//!   data: {type: list, items: [one, two]}    # a request for each, its messages behind those above
//! ```
//!
//! Answers are streamed. The result is an inference's: `items` with `output`, `usage`, `model`.

mod answer;
mod ask;
pub mod inference;

use std::time::Duration;

use ask::{Asked, Endpoint, Refusal};
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Executor, Failure, Job, time_limit};
use crate::worker::{WorkerError, home::Home, logs::Stream};

/// Of a task that does not say how long it may take.
const USUAL_SECONDS: u64 = 3600;
/// What the endpoint is asked to do is ours to say.
const OURS: [&str; 6] = ["model", "messages", "prompt", "stream", "stream_options", "n"];

/// Asks one endpoint.
pub struct OpenAi {
    endpoint: Endpoint,
    /// Requests at a time.
    concurrency: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    model: String,
    messages: Option<Vec<Map<String, Value>>>,
    prompt: Option<String>,
    #[serde(default)]
    parameters: Map<String, Value>,
    timeout_seconds: Option<u64>,
}

/// What one item comes to.
#[derive(Debug, Clone, PartialEq)]
enum Question {
    Chat(Vec<Value>),
    Completion(String),
}

impl OpenAi {
    /// `base` ends where the paths of the API begin: `http://host:8000/v1`.
    pub fn new(base: &str, token: Option<String>, concurrency: usize) -> Result<Self, WorkerError> {
        Ok(Self { endpoint: Endpoint::new(base, token)?, concurrency })
    }

    async fn execute(&self, job: &Job) -> Result<Value, Failure> {
        let spec: Spec = job.part("http")?;
        let items = job.items()?;
        let questions = questions(&spec, &items)?;
        let limit = time_limit("spec.http.timeoutSeconds", Some(spec.timeout_seconds.unwrap_or(USUAL_SECONDS)))?;
        let within = self.answers_within(limit, job, &spec, &items, questions).await?;
        within.ok_or_else(|| Failure::Failed(format!("spec.http.timeoutSeconds: {}", late(limit))))
    }

    /// None: not all came in time.
    async fn answers_within(
        &self,
        limit: Duration,
        job: &Job,
        spec: &Spec,
        items: &[Value],
        questions: Vec<Question>,
    ) -> Result<Option<Value>, Failure> {
        let work = self.answers(job, spec, items, questions, Instant::now() + limit);
        // What is given up here is a request, whose connection closes with it.
        let within = job.cancel.run_until_cancelled(tokio::time::timeout(limit, work)).await;
        within.ok_or(Failure::Cancelled)?.ok().transpose()
    }

    async fn answers(
        &self,
        job: &Job,
        spec: &Spec,
        items: &[Value],
        questions: Vec<Question>,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let total = questions.len();
        let one = |(n, question): (usize, Question)| async move {
            let begun = Instant::now();
            let asked = Asked {
                path: question.path(),
                body: body(spec, &question),
                // Of several at a time the lines would mix.
                log: (total == 1).then_some(&job.log),
                deadline,
            };
            let told = |why: String, wait: Duration| {
                let line = format!("item {n}: {why}; it is asked again in {:.1} s", wait.as_secs_f64());
                job.log.line(Stream::Worker, &line);
            };
            let answer = self.endpoint.answer(&asked, &told).await.map_err(|refusal| failure(n, total, refusal))?;
            let line = format!("item {n} of {total} is answered after {:.1} s", begun.elapsed().as_secs_f64());
            job.log.line(Stream::Worker, &line);
            Ok::<_, Failure>(answer)
        };
        // In the order of the items. At the first that fails the others are given up.
        let answers: Vec<_> = stream::iter(questions.into_iter().enumerate().map(one))
            .buffered(self.concurrency.max(1))
            .try_collect()
            .await?;
        Ok(answer::result(&spec.model, items, answers))
    }
}

impl Executor for OpenAi {
    fn task_type(&self) -> &'static str {
        "http"
    }

    fn data_types(&self) -> Option<&'static [&'static str]> {
        Some(&["list"])
    }

    fn run<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Value, Failure>> {
        self.execute(job).boxed()
    }

    /// Nothing of it is on this host.
    fn clear_away<'a>(&'a self, _: &'a Home) -> BoxFuture<'a, ()> {
        std::future::ready(()).boxed()
    }
}

impl Question {
    fn path(&self) -> &'static str {
        match self {
            Self::Chat(_) => "chat/completions",
            Self::Completion(_) => "completions",
        }
    }
}

fn late(limit: Duration) -> String {
    format!("not everything was answered within {} seconds", limit.as_secs())
}

fn failure(n: usize, total: usize, refusal: Refusal) -> Failure {
    let Refusal(why) = refusal;
    Failure::Failed(if total == 1 { why } else { format!("spec.data.items[{n}]: {why}") })
}

/// The one of the spec, or one for each item: a text is what the user says, a map has `messages` or `prompt`.
fn questions(spec: &Spec, items: &[Value]) -> Result<Vec<Question>, Failure> {
    let wrong = |field: &str, why: &str| Failure::Failed(format!("spec.{field}: {why}"));
    if spec.model.is_empty() {
        return Err(wrong("http.model", "must name a model"));
    }
    if let Some(name) = OURS.iter().find(|name| spec.parameters.contains_key(**name)) {
        return Err(wrong(&format!("http.parameters.{name}"), "is no parameter; it follows from the other fields"));
    }
    let before: Vec<Value> = spec.messages.iter().flatten().cloned().map(Value::Object).collect();
    match (&spec.messages, &spec.prompt) {
        (Some(_), Some(_)) => return Err(wrong("http.prompt", "only one of messages and prompt may be given")),
        (_, Some(_)) if !items.is_empty() => {
            return Err(wrong("http.prompt", "with spec.data.items every item is a prompt itself"));
        }
        (None, None) if items.is_empty() => {
            return Err(wrong("http", "messages, prompt or spec.data.items must be given"));
        }
        (Some(messages), None) if messages.is_empty() && items.is_empty() => {
            return Err(wrong("http.messages", "must not be empty"));
        }
        (None, Some(prompt)) => return Ok(vec![Question::Completion(prompt.clone())]),
        (Some(_), None) if items.is_empty() => return Ok(vec![Question::Chat(before)]),
        (Some(_) | None, None) => {}
    }
    let one = |(n, item): (usize, &Value)| {
        let chat = |messages: Vec<Value>| Ok(Question::Chat([before.clone(), messages].concat()));
        match item {
            Value::String(text) => chat(vec![json!({"role": "user", "content": text})]),
            Value::Object(item) => match (item.get("messages"), item.get("prompt")) {
                (Some(Value::Array(messages)), None) if !messages.is_empty() => chat(messages.clone()),
                (None, Some(Value::String(prompt))) if before.is_empty() => Ok(Question::Completion(prompt.clone())),
                (None, Some(Value::String(_))) => {
                    Err(wrong(&format!("data.items[{n}].prompt"), "cannot come behind spec.http.messages"))
                }
                _ => Err(wrong(&format!("data.items[{n}]"), "must have messages, a list, or prompt, a text")),
            },
            _ => Err(wrong(&format!("data.items[{n}]"), "must be a text, or a map with messages or prompt")),
        }
    };
    items.iter().enumerate().map(one).collect()
}

fn body(spec: &Spec, question: &Question) -> Value {
    let mut body = spec.parameters.clone();
    let (name, asked) = match question {
        Question::Chat(messages) => ("messages", json!(messages)),
        Question::Completion(prompt) => ("prompt", json!(prompt)),
    };
    body.insert(name.to_owned(), asked);
    body.insert("model".to_owned(), json!(spec.model));
    body.insert("stream".to_owned(), json!(true));
    // Or no usage is told of what is streamed.
    body.insert("stream_options".to_owned(), json!({"include_usage": true}));
    Value::Object(body)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn asked(http: Value, items: Value) -> Result<Vec<Question>, Failure> {
        let spec = serde_json::from_value(http).expect("a spec");
        questions(&spec, items.as_array().expect("a list"))
    }

    #[test]
    fn every_item_is_a_question_behind_the_messages() {
        let system = json!({"role": "system", "content": "s"});
        let user = |text: &str| json!({"role": "user", "content": text});
        let both = asked(json!({"model": "m", "messages": [system]}), json!(["a", {"messages": [user("b")]}]));
        let expected = ["a", "b"].map(|text| Question::Chat(vec![system.clone(), user(text)]));
        assert_eq!(both, Ok(expected.to_vec()));
        let alone = asked(json!({"model": "m", "prompt": "p"}), json!([]));
        assert_eq!(alone, Ok(vec![Question::Completion("p".to_owned())]));
        let prompts = asked(json!({"model": "m"}), json!([{"prompt": "p"}]));
        assert_eq!(prompts, alone);
    }

    #[rstest]
    #[case(json!({"model": ""}), json!(["a"]), "spec.http.model: ")]
    #[case(json!({"model": "m"}), json!([]), "spec.http: ")]
    #[case(json!({"model": "m", "messages": []}), json!([]), "spec.http.messages: ")]
    #[case(json!({"model": "m", "messages": [{}], "prompt": "p"}), json!([]), "spec.http.prompt: ")]
    #[case(json!({"model": "m", "prompt": "p"}), json!(["a"]), "spec.http.prompt: ")]
    #[case(json!({"model": "m", "parameters": {"stream": false}}), json!(["a"]), "spec.http.parameters.stream: ")]
    #[case(json!({"model": "m"}), json!(["a", 1]), "spec.data.items[1]: ")]
    #[case(json!({"model": "m"}), json!([{"text": "a"}]), "spec.data.items[0]: ")]
    #[case(json!({"model": "m", "messages": [{}]}), json!([{"prompt": "a"}]), "spec.data.items[0].prompt: ")]
    fn what_is_no_question_is_told_with_its_path(#[case] http: Value, #[case] items: Value, #[case] told: &str) {
        let Err(Failure::Failed(why)) = asked(http, items) else { panic!("taken") };
        assert!(why.starts_with(told), "{why}");
    }

    #[test]
    fn parameters_go_along() {
        let spec = serde_json::from_value(json!({"model": "m", "parameters": {"temperature": 0}})).expect("a spec");
        let body = body(&spec, &Question::Completion("p".to_owned()));
        let expected = json!({"model": "m", "prompt": "p", "temperature": 0, "stream": true,
            "stream_options": {"include_usage": true}});
        assert_eq!(body, expected);
    }
}
