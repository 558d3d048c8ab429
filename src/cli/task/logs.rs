//! What the attempts at a task printed; with `--follow` until it has ended.

use std::{collections::HashMap, io::Write, time::Duration};

use axum::http::Request;
use serde_json::Value;

use crate::{
    api::task::Task,
    cli::{
        CliError, Outcome,
        error::while_,
        session::{ServerArgs, Session},
        target::check_name,
    },
};

/// Between looks at a log that is followed: it is a file and tells nobody.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// Id of the task
    id: String,
    /// Go on until the task has ended
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(args: LogsArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    check_name("a task", &args.id)?;
    let mut read: HashMap<String, Text> = HashMap::new();
    loop {
        // Before the logs, so that what it printed last is among them.
        let task: Task = session.get(Some(super::NAMESPACE), &args.id).await?;
        let ended = task.phase().is_terminal();
        more(&session, &args.id, &mut read, out).await?;
        if ended || !args.follow {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    if read.is_empty() {
        eprintln!("nothing was told of what it printed; MLOC's own workers tell nothing");
    }
    Ok(0)
}

/// How far the log of an attempt was read.
#[derive(Debug, Default)]
struct Text {
    bytes: u64,
    /// The beginning of a line whose end is not written yet.
    begun: Vec<u8>,
}

async fn more(
    session: &Session,
    id: &str,
    read: &mut HashMap<String, Text>,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let path = format!("{}/{id}/logs", super::TASKS);
    let asked = |path: String| super::built(Request::get(path).body(Vec::new()));
    let doing = || while_(format!("cannot get the logs of {id}"));
    let listed = session.ask(asked(path.clone())?).await.map_err(doing())?;
    for log in listed["logs"].as_array().into_iter().flatten() {
        let attempt = super::words(&log["attempt"]).to_owned();
        let text = read.entry(attempt.clone()).or_default();
        if log["size_bytes"].as_u64().is_none_or(|size| size <= text.bytes) {
            continue;
        }
        let name = percent_encoding::utf8_percent_encode(&attempt, percent_encoding::NON_ALPHANUMERIC);
        let bytes = session.fetch(asked(format!("{path}/{name}?from={}", text.bytes))?).await.map_err(doing())?;
        for line in text.take(&bytes) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(out.flush()?)
}

impl Text {
    /// The whole lines that there are with these bytes.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        self.bytes += bytes.len() as u64;
        self.begun.extend_from_slice(bytes);
        let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let whole: Vec<u8> = self.begun.drain(..=end).collect();
        whole[..end].split(|byte| *byte == b'\n').map(printed).collect()
    }
}

/// What stands in a line; one that is not as expected, whole.
fn printed(line: &[u8]) -> String {
    let told = serde_json::from_slice::<Value>(line).ok().and_then(|line| line["text"].as_str().map(str::to_owned));
    told.unwrap_or_else(|| String::from_utf8_lossy(line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_whatever_is_read_at_once() {
        let mut text = Text::default();
        assert!(text.take(br#"{"text":"on"#).is_empty());
        assert_eq!(text.take(b"e\"}\nplain\n{\"te"), ["one", "plain"]);
        assert_eq!(text.take(b"xt\":\"two\"}\n"), ["two"]);
        assert_eq!(text.bytes, 36);
    }
}
