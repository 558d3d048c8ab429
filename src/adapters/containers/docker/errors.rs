//! What Docker's errors mean for the caller. Docker tells many of its reasons in prose only, so the words are read here,
//! and nowhere else.

use bollard::errors::Error;

use crate::adapters::containers::{EngineError, TerminalReason};

/// What was asked, for people and for the verdict.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    /// `start`, `list containers`.
    pub verb: &'a str,
    /// The container, image or network; may be empty.
    pub subject: &'a str,
    /// A read that fails has done nothing.
    pub effect: bool,
}

impl<'a> Call<'a> {
    pub fn read(verb: &'a str, subject: &'a str) -> Self {
        Self { verb, subject, effect: false }
    }

    pub fn effect(verb: &'a str, subject: &'a str) -> Self {
        Self { verb, subject, effect: true }
    }

    /// The answer is missing or makes no sense.
    pub fn unanswered(&self, why: impl std::fmt::Display) -> EngineError {
        let message = format!("{self}: {why}");
        if self.effect { EngineError::MayHaveTakenEffect(message) } else { EngineError::Unreachable(message) }
    }

    fn terminal(&self, reason: TerminalReason, message: &str) -> EngineError {
        EngineError::Terminal { reason, message: format!("{self}: {message}") }
    }

    pub fn failed(&self, error: Error) -> EngineError {
        match error {
            Error::DockerResponseServerError { status_code, message } => self.answered(status_code, message.trim()),
            Error::SocketNotFoundError(path) => EngineError::Unreachable(format!("{path} does not exist")),
            Error::UnsupportedURISchemeError { uri } => EngineError::Unreachable(format!("{uri} is not supported")),
            Error::HyperLegacyError { err } if err.is_connect() => EngineError::Unreachable(innermost(&err)),
            other => self.unanswered(innermost(&other)),
        }
    }

    fn answered(&self, status: u16, message: &str) -> EngineError {
        if let Some(reason) = reason_in(status, message) {
            return self.terminal(reason, message);
        }
        match status {
            404 => EngineError::NotFound(self.subject.to_owned()),
            // Somebody is at it already.
            409 if message.contains("already in progress") => EngineError::Unreachable(message.to_owned()),
            400..=499 => self.terminal(TerminalReason::Refused, message),
            _ => self.unanswered(message),
        }
    }
}

impl std::fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.subject {
            "" => f.write_str(self.verb),
            subject => write!(f, "{} {}", self.verb, short(subject)),
        }
    }
}

/// An id as people see ids; anything else whole.
fn short(subject: &str) -> &str {
    const FULL: usize = 64;
    let is_id = subject.len() == FULL && subject.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { &subject[..12] } else { subject }
}

/// The reason a message tells, whatever its status: Docker uses 500 for most failures of a start.
fn reason_in(status: u16, message: &str) -> Option<TerminalReason> {
    let has = |words: &str| message.contains(words);
    if has("port is already allocated") || has("address already in use") {
        Some(TerminalReason::PortInUse)
    } else if has("could not select device driver") || has("nvidia-container-cli") {
        Some(TerminalReason::Refused)
    } else if has("OCI runtime") || has("runc create failed") || has("executable file not found") {
        Some(TerminalReason::StartFailed)
    } else if status == 409 && has("is already in use by container") {
        Some(TerminalReason::NameTaken)
    } else if status == 404 && has("No such image") {
        Some(TerminalReason::ImageNotFound)
    } else if status == 404 && has("network") {
        Some(TerminalReason::NetworkNotFound)
    } else {
        None
    }
}

/// What lies at the bottom: `Connection refused`, not `client error (Connect)`.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn verdict(call: Call<'_>, status: u16, message: &str) -> EngineError {
        call.failed(Error::DockerResponseServerError { status_code: status, message: message.to_owned() })
    }

    /// Docker's own words, of 20.10 and later.
    #[rstest]
    #[case(
        409,
        r#"Conflict. The container name "/a" is already in use by container "f00"."#,
        TerminalReason::NameTaken
    )]
    #[case(404, "No such image: nowhere:latest", TerminalReason::ImageNotFound)]
    #[case(404, "network other not found", TerminalReason::NetworkNotFound)]
    #[case(
        500,
        "driver failed programming external connectivity on endpoint a: Bind for 127.0.0.1:80 failed: port is already allocated",
        TerminalReason::PortInUse
    )]
    #[case(
        500,
        "Error starting userland proxy: listen tcp4 127.0.0.1:80: bind: address already in use",
        TerminalReason::PortInUse
    )]
    #[case(
        400,
        "failed to create shim: OCI runtime create failed: exec: \"/nope\": stat /nope: no such file",
        TerminalReason::StartFailed
    )]
    #[case(500, "could not select device driver \"\" with capabilities: [[gpu]]", TerminalReason::Refused)]
    #[case(
        409,
        "You cannot remove a running container f00. Stop the container before attempting removal",
        TerminalReason::Refused
    )]
    #[case(400, "invalid mount config for type \"bind\": bind source path does not exist: /x", TerminalReason::Refused)]
    fn words_tell_the_reason(#[case] status: u16, #[case] message: &str, #[case] expected: TerminalReason) {
        let error = verdict(Call::effect("start", "a"), status, message);
        assert!(matches!(error, EngineError::Terminal { reason, .. } if reason == expected), "{error:?}");
    }

    #[test]
    fn absent_container_is_not_found() {
        let error = verdict(Call::effect("start", "a"), 404, "No such container: a");
        assert_eq!(error, EngineError::NotFound("a".to_owned()));
    }

    #[test]
    fn ids_are_shown_short_and_names_whole() {
        let id = "d1d460f58a49d52d3479f1593a1c85cbd4902dbfef8da3b972e1213c87d8b4df";
        assert_eq!(Call::effect("start", id).to_string(), "start d1d460f58a49");
        assert_eq!(Call::effect("pull", "registry/app:1").to_string(), "pull registry/app:1");
    }

    #[test]
    fn internal_error_in_an_effect_leaves_it_open() {
        let error = verdict(Call::effect("start", "a"), 500, "context deadline exceeded");
        assert!(matches!(error, EngineError::MayHaveTakenEffect(_)));
        let error = verdict(Call::read("inspect", "a"), 500, "context deadline exceeded");
        assert!(matches!(error, EngineError::Unreachable(_)));
    }

    #[test]
    fn lost_connection_in_an_effect_leaves_it_open() {
        let broken = || Error::IOError { err: std::io::ErrorKind::BrokenPipe.into() };
        let lost = Call::effect("stop", "a").failed(broken());
        assert!(matches!(lost, EngineError::MayHaveTakenEffect(_)));
        assert!(matches!(Call::read("list", "").failed(broken()), EngineError::Unreachable(_)));
    }
}
