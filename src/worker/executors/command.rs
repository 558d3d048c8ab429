//! `command`: a program of this host, as the user that the worker is.
//!
//! ```yaml
//! spec:
//!   taskType: command
//!   command: {argv: [python3, /opt/train.py], env: {EPOCHS: "3"}, timeoutSeconds: 3600}
//!   output: {artifacts: [out/final_model.tar.gz]}    # below its working directory, beside what it puts into $GAIA_ARTIFACTS
//! ```
//!
//! It begins in an empty directory and finds `$GAIA_DOCUMENT` (its document), `$GAIA_ARTIFACTS` (what is put there is uploaded) and
//! `$GAIA_RESULT` (JSON that it writes there is `value` of the result). Of the worker's environment it gets a few harmless
//! variables: that one may hold secrets. Of a task that holds cards `CUDA_VISIBLE_DEVICES` names these, whatever else names others. Nothing of
//! it goes on after its end.

use std::{collections::BTreeMap, io, path::Path, process::ExitStatus, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

use super::{Executor, Failure, Job, STOP_GRACE, Work, check_variables, last_lines, time_limit};
use crate::worker::{
    artifacts::{self, Named},
    home::Home,
    logs::Stream,
    output::Output,
    processes::{Guard, MARK, Tree},
};

/// Of the worker's own environment.
const PASSED: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "TZ",
    "LD_LIBRARY_PATH",
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
];
/// What was printed is read to its end, unless a process that nobody can end holds it open.
const READ_WITHIN: Duration = Duration::from_secs(2);

pub struct Programs {
    /// Further variables of the worker's environment that programs get.
    pub passed: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    argv: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    timeout_seconds: Option<u64>,
}

enum End {
    Exited(ExitStatus),
    Cancelled,
    TimedOut,
}

impl Executor for Programs {
    fn task_type(&self) -> &'static str {
        "command"
    }

    fn data_types(&self) -> Option<&'static [&'static str]> {
        None
    }

    fn run<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Value, Failure>> {
        self.execute(job).boxed()
    }

    /// Processes and directories are seen to with the worker's directory.
    fn clear_away<'a>(&'a self, _: &'a Home) -> BoxFuture<'a, ()> {
        std::future::ready(()).boxed()
    }
}

impl Programs {
    async fn execute(&self, job: &Job) -> Result<Value, Failure> {
        let spec: Spec = job.part("command")?;
        check(&spec)?;
        let limit = time_limit("spec.command.timeoutSeconds", spec.timeout_seconds)?;
        let named = Named::of(job.spec())?;
        let work = Work::prepare(job).await?;
        let mut child = self.spawn(&spec, job, &work)?;
        let tree = Tree::below(&job.directory).with_group(child.id());
        let guard = Guard(tree.clone());
        let out = follow(child.stdout.take(), Output::new(job.log.clone(), Stream::Stdout));
        let err = follow(child.stderr.take(), Output::new(job.log.clone(), Stream::Stderr));
        let end = end_of(&mut child, job, limit).await?;
        let (found, left) = tree.end(STOP_GRACE).await;
        if left > 0 {
            job.log.line(Stream::Worker, &format!("processes that cannot be ended: {left}"));
        } else if found > 0 && matches!(end, End::Exited(_)) {
            job.log.line(Stream::Worker, &format!("processes that it left behind, and that were ended: {found}"));
        }
        drop(guard);
        let (stdout, stderr) = (printed(out).await, printed(err).await);
        match end {
            End::Cancelled => Err(Failure::Cancelled),
            End::TimedOut => Err(Failure::Failed(format!(
                "spec.command.timeoutSeconds: it was stopped after {} seconds{}",
                limit.as_secs(),
                last_lines(&stdout, &stderr)
            ))),
            End::Exited(status) if !status.success() => {
                Err(Failure::Failed(format!("{}{}", ending(status), last_lines(&stdout, &stderr))))
            }
            End::Exited(_) => {
                named.collect(&work.directory, &job.artifacts).await?;
                let mut result = artifacts::told(job).await?;
                let said = json!({"ok": true, "exit_code": 0, "stdout": stdout, "stderr": stderr, "value": work.value().await?});
                result.extend(said.as_object().cloned().unwrap_or_default());
                Ok(Value::Object(result))
            }
        }
    }

    fn spawn(&self, spec: &Spec, job: &Job, work: &Work) -> Result<Child, Failure> {
        let (program, arguments) = spec.argv.split_first().ok_or_else(|| wrong("argv", "must name a program"))?;
        let passed = PASSED.iter().copied().chain(self.passed.iter().map(String::as_str));
        let inherited = passed.filter_map(|name| Some((name, std::env::var_os(name)?)));
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&work.directory).env_clear().envs(inherited).env("TMPDIR", &work.temporary);
        command.envs(&spec.env).envs(job.visible_cards()).envs(work.variables(job, Path::new("")));
        command.env(MARK, &job.directory);
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        // A group of its own: a Ctrl-C at the worker's terminal is for the worker to judge.
        command.process_group(0).kill_on_drop(true);
        command.spawn().map_err(|error| wrong("argv[0]", &format!("cannot run {program}: {error}")))
    }
}

fn check(spec: &Spec) -> Result<(), Failure> {
    if spec.argv.first().is_none_or(String::is_empty) {
        return Err(wrong("argv", "must name a program"));
    }
    if let Some(n) = spec.argv.iter().position(|word| word.contains('\0')) {
        return Err(wrong(&format!("argv[{n}]"), "must not hold a zero byte"));
    }
    check_variables("spec.command.env", &spec.env)
}

fn wrong(field: &str, why: &str) -> Failure {
    Failure::Failed(format!("spec.command.{field}: {why}"))
}

async fn end_of(child: &mut Child, job: &Job, limit: Duration) -> Result<End, Failure> {
    // Each arm loses nothing when another one wins: a child's status is kept until it was told.
    tokio::select! {
        biased;
        () = job.cancel.cancelled() => Ok(End::Cancelled),
        status = child.wait() => {
            status.map(End::Exited).map_err(|error| Failure::Failed(format!("cannot wait for the program: {error}")))
        }
        () = tokio::time::sleep(limit) => Ok(End::TimedOut),
    }
}

/// Reads a stream to its end beside everything else: a program that nobody listens to would stand still.
fn follow(from: Option<impl AsyncRead + Send + Unpin + 'static>, mut output: Output) -> Follower {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let reading = tokio::spawn(async move {
        let Some(mut from) = from else { return output.finish() };
        let mut buffer = vec![0; 64 * 1024];
        let mut stopped = stopped;
        loop {
            // A read that is given up has taken nothing.
            let read: io::Result<usize> = tokio::select! {
                biased;
                read = from.read(&mut buffer) => read,
                _ = &mut stopped => Ok(0),
            };
            match read {
                Ok(0) | Err(_) => return output.finish(),
                Ok(read) => output.take(&buffer[..read]),
            }
        }
    });
    Follower { reading, stop }
}

struct Follower {
    reading: JoinHandle<String>,
    /// Dropped, the reading ends with what there is.
    stop: tokio::sync::oneshot::Sender<()>,
}

async fn printed(follower: Follower) -> String {
    let Follower { mut reading, stop } = follower;
    let read = match timeout(READ_WITHIN, &mut reading).await {
        Ok(read) => read,
        Err(_) => {
            drop(stop);
            reading.await
        }
    };
    read.unwrap_or_default()
}

fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => format!("it ended as {status}"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(json!({"argv": []}), "spec.command.argv: ")]
    #[case(json!({"argv": [""]}), "spec.command.argv: ")]
    #[case(json!({"argv": ["a", "b\0"]}), "spec.command.argv[1]: ")]
    #[case(json!({"argv": ["a"], "env": {"A=B": "c"}}), "spec.command.env.A=B: ")]
    #[case(json!({"argv": ["a"], "env": {"GAIA_TASK_DIRECTORY": "/"}}), "spec.command.env.GAIA_TASK_DIRECTORY: ")]
    fn a_wrong_field_is_told_with_its_path(#[case] spec: Value, #[case] told: &str) {
        let Err(Failure::Failed(why)) = check(&serde_json::from_value(spec).expect("a spec")) else { panic!("taken") };
        assert!(why.starts_with(told), "{why}");
    }
}
