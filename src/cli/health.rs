//! `gaia health`: whether a server is ready, as an exit code, for health checks in images that have no curl.

use std::{io::Write, time::Duration};

use axum::http::Request;
use clap::Args;

use super::{
    CliError, Outcome,
    error::while_,
    session::{ServerArgs, Session},
};

#[derive(Debug, Args)]
pub struct HealthArgs {
    /// How long to wait for the answer
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: HealthArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let client = session.client();
    let request = Request::get("/readyz?verbose").body(Vec::new()).expect("a constant path makes a request");
    let limit = Duration::from_secs(args.timeout);
    let answer = tokio::time::timeout(limit, client.request_text(request)).await;
    let Ok(answer) = answer else {
        return Err(CliError::Failed(format!("{} did not answer within {} s", args.server.server, args.timeout)));
    };
    let text = answer.map_err(|e| while_("the server is not ready")(session.refused(e)))?;
    writeln!(out, "{}", text.trim_end())?;
    Ok(0)
}
