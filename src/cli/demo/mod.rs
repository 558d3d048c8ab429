//! `gaia demo`: a whole server on simulated containers and cards, with the example files, on any laptop. What it makes
//! lies in one temporary directory, which goes when it ends.

mod examples;
mod flights;
mod guide;
mod progress;

use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::{
    CliError, Outcome, kubeconfig,
    serve::run_to_its_end,
    session::{ServerArgs, Session},
    signals,
};
use crate::{
    api::gpu::Gpu,
    app::{self, Running},
    config::{Config, DEFAULT_LISTEN, Droplets, Orchestrator, Reality, Tasks},
    telemetry::{self, LogFormat, LogSettings},
};

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Address to listen on; loopback only
    #[arg(long, default_value_t = DEFAULT_LISTEN, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// End as soon as everything is ready; exit code 1 if it does not get there in time
    #[arg(long)]
    exit_when_ready: bool,
    /// How long to wait for everything to be ready
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
    /// What is logged to stderr: error, warn, info, debug, trace or a filter
    #[arg(long, env = "RUST_LOG", default_value = "error", value_name = "LEVEL")]
    log_level: String,
}

pub fn run(args: &DemoArgs, out: &mut dyn Write) -> Outcome {
    let log = LogSettings { format: LogFormat::Text, filter: args.log_level.clone() };
    let _logging = telemetry::init(&log).map_err(|e| CliError::Usage(format!("--log-level: {e}")))?;
    if !args.listen.ip().is_loopback() {
        return Err(CliError::Usage(format!(
            "--listen {}: the demo asks for no token, so it is loopback only",
            args.listen
        )));
    }
    // Removed when this function ends, however it ends.
    let dir = tempfile::Builder::new()
        .prefix("gaia-demo-")
        .tempdir()
        .map_err(CliError::file("cannot make a temporary directory"))?;
    let files = Files::write(dir.path())?;
    run_to_its_end(async {
        let stop = signals::first()?;
        let running = app::start(files.settings(args, log)).await?;
        Demo { running, files }.show(args, out, stop).await
    })
}

/// What lies in the temporary directory.
struct Files {
    desired: PathBuf,
    data: PathBuf,
    kubeconfig: PathBuf,
}

impl Files {
    fn write(dir: &Path) -> Result<Self, CliError> {
        let files = Self { desired: dir.join("desired"), data: dir.join("data"), kubeconfig: dir.join("kubeconfig") };
        examples::write(&files.desired)?;
        Ok(files)
    }

    fn settings(&self, args: &DemoArgs, log: LogSettings) -> Config {
        Config {
            listen: args.listen,
            data_dir: self.data.clone(),
            desired: Some(self.desired.clone()),
            reality: Reality::Simulated,
            nvml_library: None,
            tokens: Vec::new(),
            tls: None,
            audit_log: None,
            node_name: "demo".to_owned(),
            log,
            tasks: Tasks::default(),
            droplets: Droplets::default(),
            orchestrator: Orchestrator::default(),
        }
    }
}

struct Demo {
    running: Running,
    files: Files,
}

impl Demo {
    async fn show(mut self, args: &DemoArgs, out: &mut dyn Write, stop: impl Future<Output = ()>) -> Outcome {
        let server = ServerArgs::open(self.running.url());
        kubeconfig::write_private(&self.files.kubeconfig, &kubeconfig::render(&server)?)?;
        writeln!(out, "gaia listens on {} (simulated containers and cards)", server.server)?;
        writeln!(out, "desired state: {}", self.files.desired.display())?;
        out.flush()?;
        let session = Session::connect(&server)?;
        let deadline = Duration::from_secs(args.timeout);
        let mut stop = std::pin::pin!(stop);
        // Each arm only waits or prints; what it had printed stays printed.
        let converged = tokio::select! {
            biased;
            () = &mut stop => None,
            () = self.running.ended() => None,
            converged = tokio::time::timeout(deadline, progress::follow(&session, out)) => Some(converged),
        };
        let late = match converged {
            None => return self.end(0).await,
            Some(Ok(result)) => {
                result?;
                false
            }
            Some(Err(_)) => true,
        };
        if args.exit_when_ready {
            let code = self.end(u8::from(late)).await?;
            return match late {
                true => Err(CliError::Failed(format!("not everything was ready after {} s", args.timeout))),
                false => Ok(code),
            };
        }
        if late {
            writeln!(out, "Not everything is ready after {} s; `describe` tells why.", args.timeout)?;
        }
        let cards: Vec<Gpu> = session.list(None, None).await?;
        let held = cards.iter().any(|card| card.status.as_ref().is_some_and(|status| status.holder.is_some()));
        let Files { desired, kubeconfig, .. } = &self.files;
        out.write_all(guide::text(&server.server, kubeconfig, desired, examples::WORKLOAD, held).as_bytes())?;
        out.flush()?;
        // Telling only waits and prints, and never ends; it does so before the server, or it would tell that it lost it.
        tokio::select! {
            biased;
            () = &mut stop => {}
            () = self.running.ended() => {}
            never = flights::tell(&session, out) => match never {},
        }
        self.end(0).await
    }

    async fn end(self, code: u8) -> Outcome {
        self.running.shutdown().await?;
        Ok(code)
    }
}
