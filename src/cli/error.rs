//! Why a command failed, and which exit code says so.

use std::{error::Error, io};

use kube::core::Status;

use crate::{
    app::{StartError, TaskFailure, backup::BackupError, plan::PlanError},
    config::ConfigError,
    worker::WorkerError,
};

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line does not make sense; clap could not tell.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Our own output could not be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    #[error("{doing}")]
    File { doing: String, source: io::Error },
    /// The server said no, or nothing.
    #[error("{doing}")]
    Server { doing: String, source: Refusal },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The server ended by itself.
    #[error(transparent)]
    Ended(#[from] TaskFailure),
    /// A worker did.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error("{0}")]
    Failed(String),
    /// Of `diff`, where 1 has another meaning.
    #[error(transparent)]
    Diff(Box<CliError>),
}

/// How a server answers when it does not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{}", explain(.0))]
    Status(Box<Status>),
    #[error("cannot reach {server}: {why}")]
    Unreachable { server: String, why: String },
}

impl Refusal {
    pub fn is_not_found(&self) -> bool {
        matches!(self, Refusal::Status(status) if status.code == 404)
    }
}

/// Turns a refusal into an error that says what was being done.
pub fn while_(doing: impl Into<String>) -> impl FnOnce(Refusal) -> CliError {
    let doing = doing.into();
    |source| CliError::Server { doing, source }
}

impl CliError {
    pub fn file(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        |source| CliError::File { doing, source }
    }

    /// Failures of `diff`, but for a reader that went away.
    pub fn of_diff(self) -> Self {
        match self {
            CliError::Output(e) => CliError::Output(e),
            other => CliError::Diff(Box::new(other)),
        }
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) | CliError::Config(_) | CliError::Diff(_) => 2,
            CliError::Output(_)
            | CliError::File { .. }
            | CliError::Server { .. }
            | CliError::Start(_)
            | CliError::Plan(_)
            | CliError::Backup(_)
            | CliError::Ended(_)
            | CliError::Worker(_)
            | CliError::Failed(_) => 1,
        }
    }

    /// The error and everything beneath it.
    pub fn report(&self) -> String {
        chain(self)
    }
}

/// An error with its causes, on one line unless a part has several.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some libraries repeat their cause in their own message.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The message, and each cause whose field the message does not name.
fn explain(status: &Status) -> String {
    let mut text = match status.code {
        401 => format!("{} (give a token with --token or GAIA_TOKEN)", status.message),
        _ => status.message.clone(),
    };
    for cause in status.details.iter().flat_map(|d| &d.causes) {
        if !cause.field.is_empty() && !status.message.contains(&cause.field) {
            text.push_str(&format!("\n  {}: {}", cause.field, cause.message));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(message: &str, field: &str) -> CliError {
        let cause = json!({"reason": "FieldManagerConflict", "message": "of bob", "field": field});
        let status = json!({"code": 409, "message": message, "details": {"causes": [cause]}});
        let status: Status = serde_json::from_value(status).expect("a Status");
        while_("cannot apply web")(Refusal::Status(Box::new(status)))
    }

    #[test]
    fn a_refusal_names_every_field_once() {
        assert_eq!(
            refused("1 conflict", ".spec.active").report(),
            "cannot apply web: 1 conflict\n  .spec.active: of bob"
        );
        assert_eq!(refused("spec.x: Required", "spec.x").report(), "cannot apply web: spec.x: Required");
    }
}
