//! `echo`: gives back the items of `spec.data.items`, in the shape of an inference's result. For trying things out.
//! `spec.echo.seconds` makes it take its time.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Executor, Failure, Job};
use crate::worker::{home::Home, logs::Stream};

pub struct Echo;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Spec {
    #[serde(default)]
    seconds: f64,
}

impl Executor for Echo {
    fn task_type(&self) -> &'static str {
        "echo"
    }

    fn data_types(&self) -> Option<&'static [&'static str]> {
        Some(&["list"])
    }

    fn run<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Value, Failure>> {
        async move {
            let spec: Spec = if job.spec().get("echo").is_some() { job.part("echo")? } else { Spec::default() };
            let pause = Duration::try_from_secs_f64(spec.seconds)
                .map_err(|_| Failure::Failed("spec.echo.seconds: must be a number of seconds, from 0".to_owned()))?;
            let items = job.items()?;
            job.log.line(Stream::Worker, &format!("echoes {} items", items.len()));
            job.cancel.run_until_cancelled(tokio::time::sleep(pause)).await.ok_or(Failure::Cancelled)?;
            let echoed = |(index, item): (usize, Value)| json!({"index": index, "input": item, "output": item});
            Ok(json!({"ok": true, "items": items.into_iter().enumerate().map(echoed).collect::<Vec<_>>()}))
        }
        .boxed()
    }

    fn clear_away<'a>(&'a self, _: &'a Home) -> BoxFuture<'a, ()> {
        std::future::ready(()).boxed()
    }
}
