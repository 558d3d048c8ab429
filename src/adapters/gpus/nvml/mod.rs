//! The cards of this host, by NVML; by `nvidia-smi` where NVML cannot be loaded.
//!
//! 1. One thread owns the handle and keeps it open ([`worker`]); it is asked through a bounded channel.
//! 2. Whoever asks waits no longer than the deadline. The call goes on: a driver cannot be interrupted.
//! 3. While a call is overdue, everybody else is told so at once. When it returns, all is well again.
//! 4. A library that cannot be loaded is tried again on a later call, not more than every 30 s.

mod read;
mod worker;

use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    sync::mpsc::{SyncSender, TrySendError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use tokio::{sync::oneshot, time::timeout};

use self::worker::{NoAnswer, Progress, Reply, Request, SharedProgress, Worker};
use super::{GpuDevice, GpuError, GpuSample, Gpus, smi};

/// Callers that may wait for the thread. More than one a card and controller is a mistake somewhere.
const QUEUE: usize = 32;

#[derive(Debug, Clone)]
pub struct Settings {
    /// None: `libnvidia-ml.so.1`, wherever the dynamic linker finds it.
    pub library: Option<PathBuf>,
    pub smi: OsString,
    pub proc_root: PathBuf,
    /// Of every call. The first one of a driver without persistence mode takes seconds.
    pub deadline: Duration,
    /// How long a library that could not be loaded is not tried again.
    pub retry_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            library: None,
            smi: "nvidia-smi".into(),
            proc_root: "/proc".into(),
            deadline: Duration::from_secs(5),
            retry_after: Duration::from_secs(30),
        }
    }
}

/// The driver of this host. Its thread ends when this is dropped, unless a call hangs.
pub struct NvmlGpus {
    requests: SyncSender<Request>,
    progress: SharedProgress,
    settings: Settings,
}

impl NvmlGpus {
    /// Starts the thread. Nothing is loaded before the first call. Fails only when the host gives no thread.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let (requests, inbox) = sync_channel(QUEUE);
        let progress = SharedProgress::default();
        let worker = Worker {
            library: settings.library.clone(),
            proc_root: settings.proc_root.clone(),
            retry_after: settings.retry_after,
            progress: progress.clone(),
        };
        thread::Builder::new().name("nvml".to_owned()).spawn(move || worker.run(inbox))?;
        Ok(Self { requests, progress, settings })
    }

    /// How long ago the driver last gave a reading.
    pub fn age(&self) -> Option<Duration> {
        self.progress.get().last_reading.map(|at| at.elapsed())
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, NoAnswer> {
        if self.progress.get().is_overdue {
            return Err(self.unreachable());
        }
        let (reply, answer) = oneshot::channel();
        match self.requests.try_send(request(reply)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(self.unreachable()),
            Err(TrySendError::Disconnected(_)) => return Err(died()),
        }
        match timeout(self.settings.deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(died()),
            Err(_) => {
                self.progress.give_up();
                Err(self.unreachable())
            }
        }
    }

    fn unreachable(&self) -> NoAnswer {
        NoAnswer::Failed(GpuError::Unreachable(overdue(self.progress.get())))
    }

    async fn by_smi(&self, no_nvml: String) -> Result<Vec<GpuDevice>, GpuError> {
        let Settings { smi, proc_root, deadline, .. } = &self.settings;
        smi::inventory(smi, proc_root, *deadline).await.map_err(|error| match error {
            GpuError::NoDriver(why) => GpuError::NoDriver(format!("{no_nvml}; {why}")),
            other => other,
        })
    }
}

impl Gpus for NvmlGpus {
    fn inventory(&self) -> BoxFuture<'_, Result<Vec<GpuDevice>, GpuError>> {
        async move {
            match self.ask(Request::Inventory).await {
                Ok(devices) => Ok(devices),
                Err(NoAnswer::Failed(error)) => Err(error),
                Err(NoAnswer::Unloaded(why)) => self.by_smi(why).await,
            }
        }
        .boxed()
    }

    fn sample<'a>(&'a self, uuid: &'a str) -> BoxFuture<'a, Result<GpuSample, GpuError>> {
        async move {
            match self.ask(|reply| Request::Sample(uuid.to_owned(), reply)).await {
                Ok(sample) => Ok(sample),
                Err(NoAnswer::Failed(error)) => Err(error),
                Err(NoAnswer::Unloaded(why)) => {
                    let device = self.by_smi(why).await?.into_iter().find(|device| device.uuid == uuid);
                    device.map(sampled).ok_or_else(|| GpuError::NotFound(uuid.to_owned()))
                }
            }
        }
        .boxed()
    }
}

fn sampled(device: GpuDevice) -> GpuSample {
    GpuSample {
        memory_total_mib: device.memory_total_mib,
        memory_used_mib: device.memory_used_mib,
        processes: device.processes,
    }
}

fn died() -> NoAnswer {
    NoAnswer::Failed(GpuError::Unreachable("the thread of NVML has ended".to_owned()))
}

fn overdue(progress: Progress) -> String {
    let seconds = |at: Instant| at.elapsed().as_secs();
    let call = match progress.busy_since {
        Some(since) => format!("a call hangs since {} s", seconds(since)),
        None => "no answer in time".to_owned(),
    };
    match progress.last_reading {
        Some(at) => format!("{call}; the last reading is {} s old", seconds(at)),
        None => format!("{call}; there has been no reading"),
    }
}
