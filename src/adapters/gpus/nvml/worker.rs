//! The thread that owns NVML. A call into a driver can hang for ever and cannot be cancelled, so nobody else makes one.

use std::{
    ffi::OsString,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, mpsc::Receiver},
    time::{Duration, Instant},
};

use nvml_wrapper::{Nvml, error::NvmlError};
use tokio::sync::oneshot;
use tracing::info;

use super::{
    super::{GpuDevice, GpuError, GpuSample},
    read::{Failure, Session},
};

/// As the wrapper has it.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// NVML cannot be loaded: ask somebody else.
    Unloaded(String),
    Failed(GpuError),
}

pub type Reply<T> = oneshot::Sender<Result<T, NoAnswer>>;

pub enum Request {
    Inventory(Reply<Vec<GpuDevice>>),
    Sample(String, Reply<GpuSample>),
}

/// What the thread is at, for those who wait.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// When the call that is being made began.
    pub busy_since: Option<Instant>,
    /// Somebody waited for it in vain.
    pub is_overdue: bool,
    pub last_reading: Option<Instant>,
}

#[derive(Debug, Clone, Default)]
pub struct SharedProgress(Arc<Mutex<Progress>>);

impl SharedProgress {
    pub fn get(&self) -> Progress {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of the call that is being made, if one is.
    pub fn give_up(&self) {
        self.update(|progress| progress.is_overdue = progress.busy_since.is_some());
    }

    fn begin(&self) {
        self.update(|progress| *progress = Progress { busy_since: Some(Instant::now()), ..*progress });
    }

    fn end(&self) {
        self.update(|progress| *progress = Progress { busy_since: None, is_overdue: false, ..*progress });
    }

    fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

pub struct Worker {
    pub library: Option<PathBuf>,
    pub proc_root: PathBuf,
    pub retry_after: Duration,
    pub progress: SharedProgress,
}

impl Worker {
    /// Until nobody can ask any more.
    pub fn run(self, requests: Receiver<Request>) {
        let mut failed: Option<(Instant, String)> = None;
        while let Ok(request) = requests.recv() {
            if let Some((at, why)) = &failed
                && at.elapsed() < self.retry_after
            {
                request.refuse(why);
                continue;
            }
            self.progress.begin();
            match self.open() {
                Ok(nvml) => {
                    failed = None;
                    self.serve(&nvml, request, &requests);
                }
                Err(error) => {
                    let why = format!("NVML cannot be loaded: {error}");
                    if failed.is_none() {
                        info!(why, "no NVML");
                    }
                    request.refuse(&why);
                    failed = Some((Instant::now(), why));
                }
            }
            self.progress.end();
        }
    }

    fn open(&self) -> Result<Nvml, NvmlError> {
        let library = self.library.as_ref().map_or_else(|| OsString::from(LIBRARY), |path| path.clone().into());
        let nvml = Nvml::builder().lib_path(&library).init()?;
        let driver = nvml.sys_driver_version().unwrap_or_else(|error| format!("unknown ({error})"));
        info!(driver, library = %library.display(), "NVML is open");
        Ok(nvml)
    }

    /// Answers with one handle for as long as that one is good.
    fn serve(&self, nvml: &Nvml, first: Request, requests: &Receiver<Request>) {
        let mut session = Session::new(nvml, &self.proc_root);
        let mut next = Some(first);
        while let Some(request) = next.take() {
            if request.is_given_up() {
                // No answer is needed; but what is overdue has ended.
                self.progress.end();
            } else if !self.answer(&mut session, request) {
                return;
            }
            next = requests.recv().ok();
        }
    }

    fn answer(&self, session: &mut Session<'_>, request: Request) -> bool {
        self.progress.begin();
        match request {
            Request::Inventory(reply) => self.reply(session.inventory(), reply),
            Request::Sample(uuid, reply) => self.reply(session.sample(&uuid), reply),
        }
    }

    /// Whether the handle is still good.
    fn reply<T>(&self, reading: Result<T, Failure>, reply: Reply<T>) -> bool {
        let (answer, is_good) = match reading {
            Ok(reading) => (Ok(reading), true),
            Err(Failure::Told(error)) => (Err(NoAnswer::Failed(error)), true),
            Err(Failure::Reopen(error)) => (Err(NoAnswer::Failed(error)), false),
        };
        self.progress.end();
        if answer.is_ok() {
            self.progress.update(|progress| progress.last_reading = Some(Instant::now()));
        }
        // Whoever asked may have given up.
        reply.send(answer).ok();
        is_good
    }
}

impl Request {
    fn is_given_up(&self) -> bool {
        match self {
            Request::Inventory(reply) => reply.is_closed(),
            Request::Sample(_, reply) => reply.is_closed(),
        }
    }

    fn refuse(self, why: &str) {
        let why = || NoAnswer::Unloaded(why.to_owned());
        // Whoever asked may have given up.
        match self {
            Request::Inventory(reply) => reply.send(Err(why())).ok(),
            Request::Sample(_, reply) => reply.send(Err(why())).map_err(drop).ok(),
        };
    }
}
