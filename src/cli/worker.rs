//! `gaia worker`: a process that takes tasks from a server and runs them.

use std::{io::Write, path::PathBuf, sync::Arc, time::Duration};

use axum::http::Uri;
use clap::{Args, ValueEnum};

use super::{CliError, Outcome, session::ServerArgs};
use crate::{
    config::host_name,
    telemetry::{self, LogFormat, LogSettings},
    worker::{
        Settings, agent,
        executors::{
            Executor,
            command::Programs,
            container::DockerTasks,
            echo::Echo,
            http::{OpenAi, inference::Inference},
        },
        home,
        processes::Tree,
        recipients::{Recipient, Recipients},
    },
};

#[derive(Debug, Args)]
#[command(after_help = "The first SIGTERM or SIGINT lets the running task end within --grace, and tells the server; \
a second one ends the worker at once, and the server gives its task to another.")]
pub struct WorkerArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// File whose first line is the bearer token of the server
    #[arg(long, value_name = "FILE", env = "GAIA_WORKER_TOKEN_FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// What the worker calls itself; one process at a time [default: the host name]
    #[arg(long, value_name = "NAME", env = "WORKER_ID")]
    id: Option<String>,
    /// Words that are shown with the worker
    #[arg(long, value_name = "TAG", value_delimiter = ',', env = "WORKER_TAGS")]
    tags: Vec<String>,
    /// Which tasks it runs, by their spec.taskType
    #[arg(long, alias = "executor", value_enum, value_delimiter = ',', default_values = ["echo"])]
    executors: Vec<Kind>,
    /// Variables of this environment that programs of `command` get, beside PATH, HOME, LANG and the like
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    command_env: Vec<String>,
    /// The OpenAI-compatible endpoint that `http` and `inference` ask, up to where the paths of the API begin: http://127.0.0.1:8000/v1
    #[arg(long, value_name = "URL", env = "GAIA_WORKER_HTTP_URL")]
    http_url: Option<String>,
    /// File whose first line is the endpoint's key
    #[arg(long, value_name = "FILE", env = "GAIA_WORKER_HTTP_TOKEN_FILE")]
    http_token_file: Option<PathBuf>,
    /// Requests to the endpoint at a time, of a task with several items
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    http_concurrency: u16,
    /// Who may have results beside the server, where documents name them: hosts (`example.com`, `10.0.0.7:8443`), beginnings of URLs
    /// (`https://example.com/hooks`), or `nobody` [default: whoever a document names]
    #[arg(long, value_name = "HOST|URL", value_delimiter = ',', env = "GAIA_WORKER_DELIVER_TO")]
    deliver_to: Vec<Recipient>,
    /// The network of containers of `container`; it must exist [default: the engine's usual one]
    #[arg(long, value_name = "NAME")]
    container_network: Option<String>,
    /// Seconds between heartbeats
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600), env = "HEARTBEAT_INTERVAL_SEC")]
    heartbeat: u64,
    /// Seconds that a running task has when the worker is asked to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    grace: u64,
    /// Where tasks have their directories while they run: this worker's alone [default: gaia/workers/<id> below
    /// $XDG_STATE_HOME, else below ~/.local/state]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// How log lines look
    #[arg(long, value_name = "text|json", default_value = "text")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace or a filter as in RUST_LOG
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "LOG_LEVEL")]
    log_level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Gives back the items of spec.data
    Echo,
    /// Runs the program in spec.command, as the user of this worker: whoever may submit tasks may do here what that user may.
    /// So it must be asked for
    Command,
    /// Asks the endpoint of --http-url what spec.http says, with its key
    Http,
    /// Asks the endpoint of --http-url, with its key, what MLOC's documents of this type say: spec.model, spec.data, spec.inference
    Inference,
    /// Runs the container in spec.container on the engine of DOCKER_HOST: any image, as any user in it, with nothing of the host
    /// but a directory of its own. So it must be asked for
    Container,
}

impl WorkerArgs {
    fn settings(&self) -> Result<Settings, CliError> {
        self.server.url()?;
        let token = match &self.token_file {
            Some(path) => Some(first_line(path)?),
            None => self.server.token.clone(),
        };
        let id = self.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(host_name);
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let directory = self.directory.clone().or_else(|| home::usual(&id, variable));
        let directory = directory.ok_or_else(|| {
            CliError::Usage("--directory is needed, for neither XDG_STATE_HOME nor HOME names a directory".to_owned())
        })?;
        Ok(Settings {
            server: self.server.server.trim_end_matches('/').to_owned(),
            token,
            tags: self.tags.iter().filter(|tag| !tag.is_empty()).cloned().collect(),
            executors: self.executors.iter().map(|kind| self.executor(*kind)).collect::<Result<_, _>>()?,
            deliver_to: Recipients::only(self.deliver_to.clone()),
            heartbeat: Duration::from_secs(self.heartbeat),
            grace: Duration::from_secs(self.grace),
            directory,
            id,
        })
    }
}

impl WorkerArgs {
    fn executor(&self, kind: Kind) -> Result<Arc<dyn Executor>, CliError> {
        Ok(match kind {
            Kind::Echo => Arc::new(Echo),
            Kind::Command => Arc::new(Programs { passed: self.command_env.clone() }),
            Kind::Container => Arc::new(DockerTasks::new(self.container_network.clone())),
            Kind::Http => Arc::new(self.endpoint()?),
            Kind::Inference => Arc::new(Inference(self.endpoint()?)),
        })
    }

    fn endpoint(&self) -> Result<OpenAi, CliError> {
        let usage = |why: &str| CliError::Usage(format!("--http-url {why}"));
        let url = self.http_url.as_deref().ok_or_else(|| usage("is needed for the executors http and inference"))?;
        let parsed: Uri = url.parse().map_err(|error| usage(&format!("is no URL: {error}")))?;
        if !matches!(parsed.scheme_str(), Some("http" | "https")) {
            return Err(usage("must begin with http:// or https://"));
        }
        let token = self.http_token_file.as_deref().map(first_line).transpose()?;
        Ok(OpenAi::new(url, token, self.http_concurrency.into())?)
    }
}

fn first_line(path: &std::path::Path) -> Result<String, CliError> {
    let text = std::fs::read_to_string(path).map_err(CliError::file(format!("cannot read {}", path.display())))?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.next().map(str::to_owned).ok_or_else(|| CliError::Usage(format!("{} holds no token", path.display())))
}

pub fn run(args: &WorkerArgs, out: &mut dyn Write) -> Outcome {
    let settings = args.settings()?;
    let log = LogSettings { format: args.log_format, filter: args.log_level.clone() };
    let _logging = telemetry::init(&log).map_err(|error| CliError::Usage(format!("--log-level: {error}")))?;
    writeln!(out, "gaia worker {} works for {}", settings.id, settings.server)?;
    out.flush()?;
    super::serve::run_to_its_end(async {
        // Programs of tasks are in process groups of their own: nobody else would end them.
        let directory = settings.directory.clone();
        let last = move || Tree::below(&std::fs::canonicalize(&directory).unwrap_or(directory)).kill();
        let stop = super::signals::first_and_then(last)?;
        match agent::run(settings, stop).await {
            Ok(()) => Ok(0),
            Err(error) => Err(error.into()),
        }
    })
}
