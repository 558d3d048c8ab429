//! `gaia task`: documents for MLOC's workers are submitted, followed, shown and stopped; results are read and files fetched.

mod logs;
mod workers;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use axum::http::Request;
use clap::{Args, Subcommand};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use kube::{
    ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::Value;

use super::{
    CliError, Outcome,
    error::while_,
    follow::{End, INTERRUPTED, follow},
    objects::label,
    print::{self, Format},
    session::{ServerArgs, Session},
    target::check_name,
};
use crate::api::task::{Task, TaskPhase, TaskStatus};

const TASKS: &str = "/api/v1/tasks";
const RESULTS: &str = "/api/v1/results";
/// Where MLOC's tasks are.
const NAMESPACE: &str = "default";

#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Hand in a document; with --wait follow its steps to their end
    Submit(SubmitArgs),
    /// All tasks, or those in a phase
    List(ListArgs),
    /// One task, and why it is as it is
    Show(ShowArgs),
    /// Do not run it; if it runs, take no notice of how it ends
    Cancel(ManyArgs),
    /// Try a task again that has failed, as often as a new one; what failed only with it follows
    Retry(ManyArgs),
    /// What it printed, where its worker tells
    Logs(logs::LogsArgs),
    /// Who runs tasks, and what each is at
    Workers(WorkersArgs),
    /// The result of a task, as JSON
    Results(OneArgs),
    /// A file that belongs to the result of a task
    Download(DownloadArgs),
}

#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// A document of MLOC in YAML; - for stdin
    file: PathBuf,
    /// Wait until every step has ended; the exit code says whether all are done
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those in this phase: pending, waiting, dispatched, done, failed or cancelled
    #[arg(long, value_name = "PHASE")]
    status: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Id of the task
    id: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct OneArgs {
    /// Id of the task
    id: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct ManyArgs {
    /// Id of the task
    id: String,
    /// And everything that was submitted with it: all stages of a pipeline
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct WorkersArgs {
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct DownloadArgs {
    /// Id of the task
    id: String,
    /// Name of the file
    name: String,
    /// Where to write it [default: a file of its name here]
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(command: TaskCommand, out: &mut dyn Write) -> Outcome {
    match command {
        TaskCommand::Submit(args) => submit(args, out).await,
        TaskCommand::List(args) => list(args, out).await,
        TaskCommand::Show(args) => show(args, out).await,
        TaskCommand::Cancel(args) => wish(args, "cancel", "cancelled", out).await,
        TaskCommand::Retry(args) => wish(args, "retry", "retried", out).await,
        TaskCommand::Logs(args) => logs::run(args, out).await,
        TaskCommand::Workers(args) => workers::list(args.output, &args.server, out).await,
        TaskCommand::Results(args) => results(args, out).await,
        TaskCommand::Download(args) => download(args, out).await,
    }
}

async fn submit(args: SubmitArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let yaml = match args.file.to_str() {
        Some("-") => {
            let mut yaml = Vec::new();
            std::io::stdin().read_to_end(&mut yaml).map_err(CliError::file("cannot read stdin"))?;
            yaml
        }
        _ => std::fs::read(&args.file).map_err(CliError::file(&format!("cannot read {}", args.file.display())))?,
    };
    let request = Request::post(TASKS).header("content-type", "text/yaml").body(yaml);
    let answer = session.ask(built(request)?).await.map_err(while_("cannot submit the document".to_owned()))?;
    let ids: Vec<String> = answer["tasks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|task| task["task_id"].as_str().map(str::to_owned))
        .collect();
    let Some(first) = ids.first() else { return Err(CliError::Failed("the server's answer names no task".to_owned())) };
    if !args.wait {
        for task in answer["tasks"].as_array().into_iter().flatten() {
            writeln!(out, "{}  {}", words(&task["task_id"]), words(&task["status"]))?;
        }
        return Ok(0);
    }
    let Some(tasks) = wait(&session, first, ids.len()).await? else {
        eprintln!("the tasks go on. Look: gaia task list; stop one: gaia task cancel {first}");
        return Ok(INTERRUPTED);
    };
    for id in &ids {
        if let Some(task) = tasks.get(id) {
            writeln!(out, "{}", line(task))?;
        }
    }
    let done = ids.iter().all(|id| tasks.get(id).is_some_and(|task| status(task).phase == TaskPhase::Done));
    Ok(u8::from(!done))
}

/// Follows all tasks of a submission to their ends. None: who waits was interrupted.
async fn wait(session: &Session, submission: &str, count: usize) -> Result<Option<BTreeMap<String, Task>>, CliError> {
    let bar = ProgressBar::new(count as u64);
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    let config = watcher::Config::default().fields(&format!("spec.submission={submission}"));
    let tasks = session.within::<Task>(NAMESPACE);
    let mut news = watcher(tasks, config).default_backoff().applied_objects().boxed();
    let mut seen: BTreeMap<String, Task> = BTreeMap::new();
    let end = follow(&mut news, None, |task: Task| {
        // Parts of a step are counted with it.
        if task.spec.shard.is_none() {
            let shards = status(&task).shards.map(|shards| format!(" ({} of {} shards)", shards.done, shards.total));
            bar.set_message(format!("{} {:?}{}", title(&task), status(&task).phase, shards.unwrap_or_default()));
            seen.insert(task.name_any(), task);
        }
        let ended = seen.values().filter(|task| status(task).phase.is_terminal()).count();
        bar.set_position(ended as u64);
        Ok((ended == count).then_some(()))
    })
    .await?;
    bar.finish_and_clear();
    Ok(match end {
        End::Came(()) => Some(seen),
        End::TimedOut | End::Interrupted => None,
    })
}

async fn list(args: ListArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let mut tasks: Vec<Task> = session.list(Some(NAMESPACE), None).await?;
    if let Some(wanted) = &args.status {
        tasks.retain(|task| format!("{:?}", status(task).phase).eq_ignore_ascii_case(wanted));
    }
    tasks.sort_by_key(|task| task.spec.submitted_at.as_ref().map(|at| at.0));
    let text = || tasks.iter().map(|task| line(task) + "\n").collect();
    print::result(out, args.output, &print::list(&tasks), text)?;
    Ok(0)
}

async fn show(args: ShowArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    let task: Task = session.get(Some(NAMESPACE), &args.id).await?;
    print::result(out, args.output, &task, || account(&task))?;
    Ok(0)
}

/// `verb` is asked of a task, or of all that were submitted with it; the answer names them under `told`.
async fn wish(args: ManyArgs, verb: &str, told: &str, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    check_name("a task", &args.id)?;
    let scope = if args.all { "submission" } else { "task" };
    let request = built(Request::post(format!("{TASKS}/{}/{verb}?scope={scope}", args.id)).body(Vec::new()))?;
    let answer = session.ask(request).await.map_err(while_(format!("cannot {verb} {}", args.id)))?;
    let tasks: Vec<&str> = answer[told].as_array().into_iter().flatten().map(words).collect();
    if tasks.is_empty() {
        writeln!(out, "nothing is left to {verb}")?;
    }
    for task in tasks {
        writeln!(out, "{} {told}", label::<Task>(task))?;
    }
    Ok(0)
}

async fn results(args: OneArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    check_name("a task", &args.id)?;
    let request = built(Request::get(format!("{RESULTS}/{}", args.id)).body(Vec::new()))?;
    let result = session.ask(request).await.map_err(while_(format!("cannot get the result of {}", args.id)))?;
    writeln!(out, "{result:#}")?;
    Ok(0)
}

async fn download(args: DownloadArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.server)?;
    check_name("a task", &args.id)?;
    let name = percent_encoding::utf8_percent_encode(&args.name, percent_encoding::NON_ALPHANUMERIC).to_string();
    let request = built(Request::get(format!("{RESULTS}/{}/files/{name}", args.id)).body(Vec::new()))?;
    let own = PathBuf::from(&args.name);
    let file = args.file.or_else(|| own.file_name().map(PathBuf::from)).unwrap_or(own);
    let doing = format!("cannot write {}", file.display());
    // Beside its place, so that half of it is never taken for all of it; removed however this ends.
    let beside = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    // As a new file has it: the umask takes from it.
    let mode = std::fs::Permissions::from_mode(0o666);
    let part = tempfile::Builder::new().prefix(".gaia-").permissions(mode).tempfile_in(beside);
    let mut part = part.map_err(CliError::file(&doing))?;
    let take = |chunk: &[u8]| part.write_all(chunk).map_err(CliError::file(&doing));
    let length = session.stream(request, take, &format!("cannot download {:?}", args.name)).await?;
    part.persist(&file).map_err(|error| CliError::file(&doing)(error.error))?;
    writeln!(out, "{length} bytes in {}", file.display())?;
    Ok(0)
}

fn built(request: Result<Request<Vec<u8>>, axum::http::Error>) -> Result<Request<Vec<u8>>, CliError> {
    request.map_err(|error| CliError::Usage(error.to_string()))
}

fn status(task: &Task) -> TaskStatus {
    task.status.clone().unwrap_or_default()
}

fn title(task: &Task) -> &str {
    &task.spec.document.metadata.name
}

fn words(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// `ID  Phase  worker  title  error`
fn line(task: &Task) -> String {
    let status = status(task);
    let worker = status.assigned_worker.as_deref().unwrap_or("-");
    let line = format!("{}  {:<10}  {worker:<12}  {}", task.name_any(), format!("{:?}", status.phase), title(task));
    match status.error {
        Some(error) => format!("{line}  {error}"),
        None => line,
    }
}

fn account(task: &Task) -> String {
    let status = status(task);
    let mut lines = vec![line(task)];
    let why = status.conditions.first().map(|condition| format!("{}: {}", condition.reason, condition.message));
    lines.extend(why);
    if !task.spec.depends_on.is_empty() {
        lines.push(format!("depends on {}", task.spec.depends_on.join(", ")));
    }
    if let Some(shards) = status.shards {
        lines.push(format!("shards: {} of {} done, {} failed", shards.done, shards.total, shards.failed));
    }
    lines.push(format!(
        "attempts {}, failures {} of at most {}",
        status.attempts,
        status.retries,
        task.spec.max_retries + 1
    ));
    lines.extend(status.result.map(|result| format!("result: {} ({} bytes)", result.path, result.size_bytes)));
    lines.extend(status.artifacts.iter().map(|file| format!("file: {} ({} bytes)", file.name, file.size_bytes)));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::task::{Artifact, TaskSpec};

    #[test]
    fn a_task_is_told_in_lines() {
        let mut task =
            Task::new("t1", TaskSpec { max_retries: 3, depends_on: vec!["t0".to_owned()], ..TaskSpec::default() });
        task.spec.document.metadata.name = "echo:two".to_owned();
        task.status = Some(TaskStatus {
            phase: TaskPhase::Failed,
            attempts: 4,
            retries: 4,
            error: Some("boom".to_owned()),
            artifacts: vec![Artifact { name: "a.zip".to_owned(), size_bytes: 7, sha256: None }],
            ..TaskStatus::default()
        });
        let expected = "t1  Failed      -             echo:two  boom\ndepends on t0\nattempts 4, failures 4 of at most 4\nfile: a.zip (7 bytes)\n";
        assert_eq!(account(&task), expected);
    }
}
