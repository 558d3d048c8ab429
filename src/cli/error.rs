//! Why a command failed, and which exit code says so.

use std::{error::Error, io};

use crate::config::ConfigError;

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
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    pub fn file(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        |source| CliError::File { doing, source }
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) | CliError::Config(_) => 2,
            CliError::Output(_) | CliError::File { .. } | CliError::Failed(_) => 1,
        }
    }

    /// The error and everything beneath it, on one line unless a part has several.
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
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
}
