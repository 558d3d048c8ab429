//! Runs the program and reads what it says, with deadlines.

use std::{
    process::{Command, Output},
    str,
};

/// `gaia` with an environment that nothing on this machine can change.
pub fn gaia() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gaia"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// Runs `gaia` with these arguments to its end.
pub fn run(args: &[&str]) -> Output {
    gaia().args(args).output().expect("the binary runs")
}

/// What it printed, given that it succeeded.
pub fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    str::from_utf8(&output.stdout).expect("output is UTF-8")
}

/// What it complained about, given that it ended with this code.
pub fn complaint(output: &Output, code: i32) -> &str {
    let text = str::from_utf8(&output.stderr).expect("output is UTF-8");
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}
