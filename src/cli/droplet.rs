//! `gaia droplet`: who can be called, one call, and those that were made.

use std::io::Write;

use axum::http::Request;
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{
    CliError, Outcome,
    error::while_,
    session::{ServerArgs, Session},
    table,
};

const TASKS: &str = "/orchestrator/tasks";

#[derive(Debug, Subcommand)]
pub enum DropletCommand {
    /// All droplets, as they can be called
    List(ListArgs),
    /// Call one; 0: it answered with 2xx, 1: otherwise
    Call(CallArgs),
    /// The latest calls
    History(HistoryArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct CallArgs {
    /// Name of the droplet, in any case
    name: String,
    /// GET, POST, PUT, DELETE or PATCH
    method: String,
    /// Path, with its query
    path: String,
    /// A JSON object to send
    #[arg(short, long, value_name = "JSON")]
    data: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Only those that ended so: success, error or timeout (or are queued)
    #[arg(long)]
    status: Option<String>,
    /// Only those of this droplet
    #[arg(long, value_name = "NAME")]
    droplet: Option<String>,
    /// So many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(command: DropletCommand, out: &mut dyn Write) -> Outcome {
    match command {
        DropletCommand::List(args) => list(args, out).await,
        DropletCommand::Call(args) => call(args, out).await,
        DropletCommand::History(args) => history(args, out).await,
    }
}

async fn list(args: ListArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let request = built(Request::get("/orchestrator/droplets").body(Vec::new()))?;
    let answer = session.ask(request).await.map_err(while_("cannot list the droplets"))?;
    let rows = answer["droplets"].as_array().into_iter().flatten();
    let rows =
        rows.map(|droplet| [&droplet["name"], &droplet["endpoint"], &droplet["status"]].map(Clone::clone).into());
    show(&["Name", "Endpoint", "Status"], rows.collect(), out)?;
    if answer["cache_status"] == "stale" {
        eprintln!("the registry does not answer: this list is what it last said");
    }
    Ok(0)
}

async fn call(args: CallArgs, out: &mut dyn Write) -> Outcome {
    let payload = match args.data.as_deref().map(serde_json::from_str::<Value>) {
        None => Value::Null,
        Some(Ok(payload @ Value::Object(_))) => payload,
        Some(Ok(_)) => return Err(CliError::Usage("--data: must be a JSON object".to_owned())),
        Some(Err(error)) => return Err(CliError::Usage(format!("--data: is not JSON: {error}"))),
    };
    let session = Session::connect(&args.server)?;
    let body =
        json!({"droplet_name": args.name, "method": args.method.to_uppercase(), "path": args.path, "payload": payload});
    let request = Request::post(TASKS).header("content-type", "application/json").body(body.to_string().into_bytes());
    let answer = session.ask(built(request)?).await.map_err(while_(format!("cannot call {}", args.name)))?;
    let word = |key: &str| match &answer[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if let Some(why) = answer["error"]["details"]["last_error"].as_str().or(answer["error"]["message"].as_str()) {
        eprintln!("{}: {why}", word("status"));
    } else if answer["status"] != "success" {
        eprintln!("{}: {}", word("status"), word("response_status"));
    }
    match &answer["response_body"] {
        Value::Null => {}
        Value::String(text) => writeln!(out, "{text}")?,
        body => writeln!(out, "{body:#}")?,
    }
    Ok(u8::from(answer["status"] != "success"))
}

async fn history(args: HistoryArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let mut path = format!("{TASKS}?limit={}", args.limit);
    for (key, value) in [("status", &args.status), ("droplet_name", &args.droplet)] {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        }
    }
    let request = built(Request::get(path).body(Vec::new()))?;
    let answer = session.ask(request).await.map_err(while_("cannot read the history of calls"))?;
    let rows = answer["tasks"].as_array().into_iter().flatten().map(|task| {
        let at = task["created_at"].as_f64().and_then(|at| jiff::Timestamp::from_microsecond((at * 1e6) as i64).ok());
        let at = at.map(|at| at.strftime("%Y-%m-%d %H:%M:%S").to_string());
        let cells =
            ["droplet_name", "method", "target_url", "status", "response_status", "retry_count", "duration_ms", "id"];
        std::iter::once(json!(at)).chain(cells.iter().map(|key| task[*key].clone())).collect()
    });
    let names = ["At", "Droplet", "Method", "Url", "Status", "Code", "Retries", "Ms", "Id"];
    show(&names, rows.collect(), out)?;
    Ok(0)
}

fn show(names: &[&str], rows: Vec<Vec<Value>>, out: &mut dyn Write) -> Result<(), CliError> {
    let columns = names.iter().map(|name| table::Column { name: (*name).to_owned(), priority: 0 }).collect();
    let rows = rows.into_iter().map(|cells| table::Row { cells, object: Value::Null }).collect();
    let table = table::Table { column_definitions: columns, rows, metadata: table::TableMeta::default() };
    let style = table::Style { headers: true, ..table::Style::default() };
    let text = table::render(&table, style);
    writeln!(out, "{}", text.trim_end())?;
    Ok(())
}

fn built(request: Result<Request<Vec<u8>>, axum::http::Error>) -> Result<Request<Vec<u8>>, CliError> {
    request.map_err(|error| CliError::Usage(format!("this makes no request: {error}")))
}
