//! `gaia serve`: settings in, a server until a signal says otherwise.

use std::{io::Write, path::PathBuf, time::Duration};

use clap::Args;

use super::{CliError, Outcome, error::chain};
use crate::{
    app::{self, Running},
    config::{Config, DEFAULT_LISTEN, Layers},
    telemetry,
};

/// For threads that were at work when everything had ended.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// Each of these can also be given as `GAIA_…` in the environment or in the file; a flag wins.
#[derive(Debug, Args)]
#[command(after_help = "Every flag but --config is also a variable (--data-dir: GAIA_DATA_DIR) and a key of the file \
(dataDir). A flag wins over the variable, the variable over the file.")]
pub struct ServeArgs {
    /// Settings file, YAML; /etc/gaia/gaia.yaml if that is there [env: GAIA_CONFIG=]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(long, value_name = "ADDRESS", help = format!("Address to listen on; other than loopback only with --token-file [default: {DEFAULT_LISTEN}]"))]
    listen: Option<String>,
    /// Where objects are kept [default: $XDG_STATE_HOME/gaia, ~/.local/state/gaia or /var/lib/gaia]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Directory of desired files to follow
    #[arg(long, value_name = "DIR")]
    desired: Option<String>,
    /// What the controllers act on: docker, or simulated containers [default: docker]
    #[arg(long, value_name = "docker|simulated")]
    reality: Option<String>,
    /// The library of the GPU driver (NVML) [default: libnvidia-ml.so.1 where the linker finds it]
    #[arg(long, value_name = "PATH")]
    nvml_library: Option<String>,
    /// File of bearer tokens, one a line; without one of them only health is answered
    #[arg(long, value_name = "FILE")]
    token_file: Option<String>,
    /// Certificate chain of the main listener, in PEM: https instead of http. Read again when it changes
    #[arg(long, value_name = "FILE")]
    tls_cert_file: Option<String>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE")]
    tls_key_file: Option<String>,
    /// Append a line here for each request that may change something (audit.k8s.io/v1); 100 MiB, and ten of them put aside
    #[arg(long, value_name = "FILE")]
    audit_log_file: Option<String>,
    /// Address of MLOC's API on a port of its own, beside the main one [default: none; its usual port is 8000]
    #[arg(long, value_name = "ADDRESS")]
    tasks_listen: Option<String>,
    /// Address of FPAI's API on a port of its own, beside the main one [default: none; its usual port is 8001]
    #[arg(long, value_name = "ADDRESS")]
    droplets_listen: Option<String>,
    /// Name of this host among the nodes [default: the host name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// How log lines look: text or json [default: text]
    #[arg(long, value_name = "text|json")]
    log_format: Option<String>,
    /// What is logged: error, warn, info, debug, trace or a filter as in RUST_LOG [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl ServeArgs {
    fn settings(self) -> Result<Config, CliError> {
        let flags = [
            ("listen", self.listen),
            ("dataDir", self.data_dir),
            ("desired", self.desired),
            ("reality", self.reality),
            ("nvmlLibrary", self.nvml_library),
            ("tokenFile", self.token_file),
            ("tlsCertFile", self.tls_cert_file),
            ("tlsKeyFile", self.tls_key_file),
            ("auditLogFile", self.audit_log_file),
            ("tasksListen", self.tasks_listen),
            ("dropletsListen", self.droplets_listen),
            ("nodeName", self.node_name),
            ("logFormat", self.log_format),
            ("logLevel", self.log_level),
        ];
        let flags = flags.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        // A variable that is not UTF-8 cannot be any value we know.
        let variable = |name: &str| std::env::var(name).ok();
        Ok(Config::from_layers(&Layers::read(flags, self.config.as_deref(), &variable)?)?)
    }
}

pub fn run(args: ServeArgs, out: &mut dyn Write) -> Outcome {
    let config = args.settings()?;
    let log = telemetry::init_with_file(&config.log, config.tasks.log_file.as_ref());
    let _logging = log.map_err(|e| CliError::Failed(chain(&e)))?;
    run_to_its_end(async {
        let stop = super::signals::first()?;
        let running = app::start(config).await?;
        writeln!(out, "gaia listens on {}", running.url())?;
        out.flush()?;
        until(running, stop).await
    })
}

/// Everything of a server, on all cores.
pub fn run_to_its_end(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(CliError::file("cannot start the runtime"))?;
    let outcome = runtime.block_on(work);
    // A thread may hang in the kernel: a disk that does not answer, a directory of a file server that is gone. It ends with
    // the process, which does not wait for it.
    runtime.shutdown_timeout(STRAGGLERS);
    outcome
}

/// Serves until `stop` or until a task of the server fails; either way everything is ended in order.
async fn until(mut running: Running, stop: impl Future<Output = ()>) -> Outcome {
    // Both arms are cancel-safe: `ended` only waits, and `stop` is not used again.
    tokio::select! {
        biased;
        () = stop => {}
        () = running.ended() => {}
    }
    running.shutdown().await?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    fn the_end_waits_for_no_thread_that_hangs() {
        let (_held, never) = mpsc::channel::<()>();
        let (tell, ended) = mpsc::channel();
        thread::spawn(move || {
            let outcome = run_to_its_end(async move {
                tokio::task::spawn_blocking(move || never.recv());
                Ok(0)
            });
            tell.send(matches!(outcome, Ok(0)))
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(30)), Ok(true));
    }
}
