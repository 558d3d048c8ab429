//! Three queues of Python on the same machine, as `queues.py` runs them: first on a Redis that keeps nothing, then on one that syncs before
//! it answers, which is what a durable result takes there.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde::Deserialize;

use super::{IN_FLIGHT, Redis, SPAN, common::Latencies, here};

const QUEUES: [&str; 3] = ["celery", "rq", "dramatiq"];

#[derive(Deserialize)]
struct Told {
    seconds: f64,
    latencies_us: Vec<u64>,
}

/// The workers of a queue, with all processes that they made.
struct Workers(Child);

impl Drop for Workers {
    fn drop(&mut self) {
        // They are a group of their own.
        Command::new("kill").args(["-KILL", "--", &format!("-{}", self.0.id())]).status().ok();
        self.0.wait().ok();
    }
}

/// `ours`: the program's rate with most in flight, from the same run.
pub async fn measure(ours: Option<f64>) {
    let Some(packages) = packages() else {
        return println!("the queues of Python are NOT installed (python3 -m pip), so nothing is compared with them");
    };
    for durable in [false, true] {
        let mut best: f64 = 0.0;
        for name in QUEUES {
            let redis = Redis::start(durable).await;
            let _workers = work(&packages, name, &redis.url);
            for in_flight in IN_FLIGHT {
                let figure = call(&packages, name, &redis.url, in_flight);
                let kept = if durable { "synced" } else { "in memory" };
                println!("{in_flight:>3} in flight  {name:<8} {figure}  results {kept}");
                best = best.max(figure.rate());
            }
        }
        if let Some(ours) = ours {
            let kept = if durable { "synced as ours are" } else { "in memory only" };
            println!(" 64 in flight  gaia / the best of them, their results {kept}: rate {:.1}", ours / best);
        }
    }
}

fn python(packages: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.arg(here().join("queues.py")).args(args).env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn work(packages: &Path, name: &str, url: &str) -> Workers {
    let mut command = python(packages, &["work", name, url]);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Workers(command.spawn().expect("python3 runs"))
}

fn call(packages: &Path, name: &str, url: &str, in_flight: usize) -> Latencies {
    let (count, seconds) = (in_flight.to_string(), SPAN.as_secs().to_string());
    let output = python(packages, &["call", name, url, &count, &seconds]).output().expect("python3 runs");
    let told: Told = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{name}: {error}: {}", String::from_utf8_lossy(&output.stderr)));
    let all = told.latencies_us.into_iter().map(Duration::from_micros).collect();
    Latencies::new(all, Duration::from_secs_f64(told.seconds))
}

/// Below target/tools, each pinned by its hash, as `./test` does it.
fn packages() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let packages = std::path::absolute(target.join("tools/python-queues")).ok()?;
    let wanted = std::fs::read(here().join("requirements.txt")).expect("it is there");
    if std::fs::read(packages.join("installed")).is_ok_and(|installed| installed == wanted) {
        return Some(packages);
    }
    std::fs::remove_dir_all(&packages).ok();
    let install = "-m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --no-compile \
        --only-binary :all: --require-hashes --requirement";
    let mut command = Command::new("python3");
    command.args(install.split_whitespace()).arg(here().join("requirements.txt")).arg("--target").arg(&packages);
    let installed = command.status().is_ok_and(|status| status.success());
    installed.then(|| std::fs::write(packages.join("installed"), wanted).expect("the directory can be written in"))?;
    Some(packages)
}
