//! Commands in a running container.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bollard::{
    Docker,
    errors::Error,
    exec::{StartExecOptions, StartExecResults},
    models::ExecConfig,
};
use futures::StreamExt;

use crate::adapters::containers::{ContainerId, ExecResult};

/// The end of what the command said is kept.
const OUTPUT: usize = 4096;
/// Docker ends the output a little before it knows the exit code.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Of runs that were given up, this many are remembered; then all are forgotten, and the worst that follows is one more run.
const MOST_OVERDUE: usize = 1024;

/// Runs that were given up and may go on, for Docker cannot end an exec. Their command is not begun again beside them: a probe
/// that hangs would fill its container with processes.
#[derive(Debug, Clone, Default)]
pub(super) struct Overdue(Arc<Mutex<HashMap<Command, ExecId>>>);

type Command = (ContainerId, Vec<String>);
type ExecId = String;

impl Overdue {
    async fn still_runs(&self, docker: &Docker, command: &Command) -> Result<bool, Error> {
        let Some(exec) = self.lock().get(command).cloned() else { return Ok(false) };
        let runs = match docker.inspect_exec(&exec).await {
            Ok(seen) => seen.running == Some(true),
            // Engines forget an exec that has ended, and all of a container that is gone.
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => false,
            Err(error) => return Err(error),
        };
        if !runs {
            self.lock().remove(command);
        }
        Ok(runs)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Command, ExecId>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

/// A run under way. Dropped before its end it is overdue.
struct Run<'a> {
    overdue: &'a Overdue,
    command: Command,
    exec: ExecId,
    ended: bool,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut overdue = self.overdue.lock();
        if overdue.len() >= MOST_OVERDUE {
            overdue.clear();
        }
        overdue.insert(self.command.clone(), self.exec.clone());
    }
}

/// Runs until the command has ended; the caller sets the deadline and gives it up by dropping. `None`: a run of the same command
/// that was given up is still there, and no other was begun.
pub(super) async fn exec(
    docker: &Docker,
    overdue: &Overdue,
    id: &ContainerId,
    command: &[String],
) -> Result<Option<ExecResult>, Error> {
    let command = (id.clone(), command.to_vec());
    if overdue.still_runs(docker, &command).await? {
        return Ok(None);
    }
    let config = ExecConfig {
        cmd: Some(command.1.clone()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let exec = docker.create_exec(&id.0, config).await?.id;
    let mut run = Run { overdue, command, exec, ended: false };
    let mut kept = Vec::new();
    if let StartExecResults::Attached { mut output, .. } =
        docker.start_exec(&run.exec, None::<StartExecOptions>).await?
    {
        while let Some(chunk) = output.next().await {
            kept.extend_from_slice(&chunk?.into_bytes());
            kept.drain(..kept.len().saturating_sub(OUTPUT));
        }
    }
    loop {
        if let Some(exit_code) = docker.inspect_exec(&run.exec).await?.exit_code {
            run.ended = true;
            return Ok(Some(ExecResult { exit_code, output: String::from_utf8_lossy(&kept).into_owned() }));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}
