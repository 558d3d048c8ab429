//! Commands in a running container.

use std::time::Duration;

use bollard::{
    Docker,
    errors::Error,
    exec::{StartExecOptions, StartExecResults},
    models::ExecConfig,
};
use futures::StreamExt;

use crate::adapters::containers::ExecResult;

/// The end of what the command said is kept.
const OUTPUT: usize = 4096;
/// Docker ends the output a little before it knows the exit code.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Runs until the command has ended; the caller sets the deadline. Docker cannot end an exec: one that is given up
/// runs on in its container.
pub(super) async fn exec(docker: &Docker, id: &str, command: &[String]) -> Result<ExecResult, Error> {
    let config = ExecConfig {
        cmd: Some(command.to_vec()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let exec = docker.create_exec(id, config).await?.id;
    let mut kept = Vec::new();
    if let StartExecResults::Attached { mut output, .. } = docker.start_exec(&exec, None::<StartExecOptions>).await? {
        while let Some(chunk) = output.next().await {
            kept.extend_from_slice(&chunk?.into_bytes());
            kept.drain(..kept.len().saturating_sub(OUTPUT));
        }
    }
    loop {
        if let Some(exit_code) = docker.inspect_exec(&exec).await?.exit_code {
            return Ok(ExecResult { exit_code, output: String::from_utf8_lossy(&kept).into_owned() });
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}
