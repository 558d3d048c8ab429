//! The `gaia` program: everything it does is [`gaia::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    gaia::cli::main()
}
