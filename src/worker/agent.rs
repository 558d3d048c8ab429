//! What a worker is at: one attempt at a time, what waits behind it, and what has ended and is not acknowledged. One task owns all of it;
//! the connection and the attempts are beside it and talk to it.
//!
//! What it says is repeated until it is known to be heard: what it runs with every heartbeat and every new connection, how
//! an attempt ended until TASK_RELEASED. So nothing here depends on a message that arrives.

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Settings, WorkerError,
    delivery::{Delivery, Undelivered},
    executors::{Failure, Job},
    hardware,
    home::Home,
    link::{self, Heard, Say},
    logs::LogBuffer,
    message::{Command, Ended, Order, Speaker},
};
use crate::{
    adapters::bus::stamp,
    mloc::{destination, needs},
    runtime::clock::{Clock, SystemClock},
};

/// Messages that wait for the connection.
const MOST_SAID: usize = 256;
/// Tasks that wait for the one that runs. The server gives tasks to workers that are free; more is a mistake, and told again later.
const MOST_WAITING: usize = 16;
/// Attempts that are remembered, so that none is run twice.
const MOST_SEEN: usize = 1024;
/// Ends of attempts that the server has not acknowledged.
const MOST_UNSETTLED: usize = 64;
const LOGS_EVERY: Duration = Duration::from_millis(250);
const REPEAT_EVERY: Duration = Duration::from_secs(2);
/// For what was to be said last, when the worker ends.
const LAST_WORDS: Duration = Duration::from_secs(5);

struct Agent {
    settings: Arc<Settings>,
    home: Arc<Home>,
    speaker: Speaker,
    started_at: String,
    hardware: Value,
    delivery: Delivery,
    /// The connection that is there, by its number.
    connection: Option<u64>,
    say: mpsc::Sender<Say>,
    current: Option<Running>,
    waiting: VecDeque<Order>,
    /// Task and attempt, the latest last.
    seen: VecDeque<(String, String)>,
    /// With the message that says how it ended.
    unsettled: Vec<(Order, String)>,
    last_task: Option<String>,
    logs: LogBuffer,
    /// An attempt is about to deliver: what it printed is told before.
    printed: Arc<Notify>,
    finished: mpsc::Sender<End>,
    /// It was asked to end, and ends the running task at this time.
    draining: Option<tokio::time::Instant>,
}

struct Running {
    order: Order,
    cancel: CancellationToken,
    /// Nobody waits for it.
    released: bool,
    started_at: String,
    begun: Instant,
}

/// What an attempt came to.
enum End {
    Delivered,
    NotWanted(String),
    Failed(String),
    Cancelled,
}

fn now() -> String {
    stamp(SystemClock.now())
}

/// Works until `stop` is ready and what was begun has ended.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> Result<(), WorkerError> {
    let settings = Arc::new(settings);
    let home = Arc::new(Home::open(&settings.directory)?);
    home.clear().await;
    for executor in &settings.executors {
        executor.clear_away(&home).await;
    }
    let (say, said) = mpsc::channel(MOST_SAID);
    let (heard_tx, heard) = mpsc::channel(MOST_WAITING);
    let (finished, ends) = mpsc::channel(1);
    let agent = Agent {
        speaker: Speaker { worker: settings.id.clone() },
        started_at: now(),
        hardware: hardware::announced().await,
        delivery: Delivery::new(settings.clone())?,
        connection: None,
        say,
        current: None,
        waiting: VecDeque::new(),
        seen: VecDeque::new(),
        unsettled: Vec::new(),
        last_task: None,
        logs: LogBuffer::default(),
        printed: Arc::default(),
        finished,
        draining: None,
        settings: settings.clone(),
        home,
    };
    // Ends when the agent does, after what it said last.
    let link = tokio::spawn(link::run(settings, heard_tx, said));
    let outcome = agent.work(heard, ends, stop).await;
    if tokio::time::timeout(LAST_WORDS, link).await.is_err() {
        warn!("the server did not take the leave of this worker");
    }
    outcome
}

impl Agent {
    async fn work(
        mut self,
        mut heard: mpsc::Receiver<Heard>,
        mut ends: mpsc::Receiver<End>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), WorkerError> {
        let mut stop = std::pin::pin!(stop);
        let mut beat = tokio::time::interval(self.settings.heartbeat);
        let mut logs = tokio::time::interval(LOGS_EVERY);
        let mut repeat = tokio::time::interval(REPEAT_EVERY);
        let printed = self.printed.clone();
        info!(worker = self.settings.id, server = self.settings.server, "the worker begins");
        loop {
            let drained = self.draining;
            // Each arm loses nothing when another one wins.
            tokio::select! {
                biased;
                () = &mut stop, if drained.is_none() => self.drain(),
                end = ends.recv() => if let Some(end) = end { self.ended(end) },
                told = heard.recv() => match told {
                    Some(Heard::Connected(number)) => self.introduce(number),
                    Some(Heard::Command(command)) => self.take(command),
                    Some(Heard::Lost) => self.connection = None,
                    Some(Heard::Refused(why)) => return Err(WorkerError::Refused(why)),
                    None => return Err(WorkerError::Refused("the connection ended".to_owned())),
                },
                () = until(drained) => if self.is_over(drained) { break },
                _ = beat.tick() => {
                    self.say(self.speaker.heartbeat(&now(), hardware::load()));
                    self.tell_state();
                }
                _ = repeat.tick() => self.tell_ends(),
                () = printed.notified() => self.tell_logs(),
                _ = logs.tick() => self.tell_logs(),
            }
            self.begin();
            if drained.is_some() && self.current.is_none() && self.unsettled.is_empty() {
                break;
            }
        }
        self.tell_logs();
        self.say(self.speaker.unregister(&now()));
        info!(worker = self.settings.id, "the worker has ended");
        Ok(())
    }

    /// The first words of a connection: who it is, what it is at, what has ended.
    fn introduce(&mut self, connection: u64) {
        self.connection = Some(connection);
        let takes = |types: &[&str]| types.iter().map(|type_| (*type_).to_owned()).collect();
        let executors = self.settings.executors.iter();
        let executors = executors.map(|one| (one.task_type().to_owned(), one.data_types().map(takes))).collect();
        let mut env = needs::announce(&executors);
        env.insert("version".to_owned(), json!(crate::telemetry::VERSION));
        let payload = Map::from_iter([
            ("env".to_owned(), Value::Object(env)),
            ("hardware".to_owned(), self.hardware.clone()),
            ("started_at".to_owned(), json!(self.started_at)),
            ("pid".to_owned(), json!(std::process::id())),
        ]);
        self.say(self.speaker.register(&now(), &self.settings.tags, payload));
        self.tell_ends();
        self.tell_state();
    }

    fn tell_state(&mut self) {
        let message = match (&self.current, self.draining) {
            (Some(running), _) if !running.released => self.speaker.running(&now(), &running.order),
            // It is not free yet.
            (Some(_), _) => return,
            (None, Some(_)) => self.speaker.draining(&now()),
            (None, None) => self.speaker.idle(&now(), self.last_task.as_deref()),
        };
        self.say(message);
    }

    fn tell_ends(&mut self) {
        for (_, message) in self.unsettled.clone() {
            self.say(message);
        }
    }

    fn tell_logs(&mut self) {
        while self.connection.is_some() && self.say.capacity() > MOST_SAID / 2 {
            let Some(batch) = self.logs.take() else { return };
            self.say(self.speaker.log(&now(), &batch.task, &batch.attempt, &batch.lines));
        }
    }

    /// Without a connection, or when it is slow, this is said again later.
    fn say(&self, text: String) {
        let Some(connection) = self.connection else { return };
        if self.say.try_send(Say { connection, text }).is_err() {
            warn!("the connection is slow; what was to be said is said later");
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Run(order) => self.order(order),
            Command::Release { task, attempt } => {
                let meant = |order: &Order| order.task == task && attempt.as_ref().is_none_or(|a| *a == order.attempt);
                self.unsettled.retain(|(order, _)| !meant(order));
                self.waiting.retain(|order| !meant(order));
                if let Some(running) =
                    self.current.as_mut().filter(|running| meant(&running.order) && !running.released)
                {
                    info!(task, attempt = running.order.attempt, "nobody waits for it; it is stopped");
                    running.released = true;
                    running.cancel.cancel();
                }
            }
        }
    }

    fn order(&mut self, order: Order) {
        let name = (order.task.clone(), order.attempt.clone());
        if self.seen.contains(&name) {
            // The server does not know how it stands: it is told.
            self.tell_ends();
            self.tell_state();
            return;
        }
        if self.draining.is_some() || self.waiting.len() >= MOST_WAITING {
            return;
        }
        if let Some(running) = self.current.as_mut().filter(|running| running.order.task == order.task) {
            running.released = true;
            running.cancel.cancel();
        }
        self.waiting.retain(|waiting| waiting.task != order.task);
        self.unsettled.retain(|(ended, _)| ended.task != order.task);
        self.seen.push_back(name);
        if self.seen.len() > MOST_SEEN {
            self.seen.pop_front();
        }
        self.waiting.push_back(order);
    }

    /// Begins what waits, if nothing runs.
    fn begin(&mut self) {
        if self.current.is_some() || self.unsettled.len() >= MOST_UNSETTLED {
            return;
        }
        let Some(order) = self.waiting.pop_front() else { return };
        info!(task = order.task, attempt = order.attempt, task_type = order.task_type(), "a task begins");
        let cancel = CancellationToken::new();
        let started_at = now();
        self.say(self.speaker.running(&started_at, &order));
        self.say(self.speaker.started(&started_at, &order));
        let means = Means {
            settings: self.settings.clone(),
            home: self.home.clone(),
            delivery: self.delivery.clone(),
            logs: self.logs.clone(),
            printed: self.printed.clone(),
        };
        let attempt = attempt(means, order.clone(), cancel.clone());
        let finished = self.finished.clone();
        tokio::spawn(async move {
            let end = AssertUnwindSafe(attempt).catch_unwind().await;
            let end = end.unwrap_or_else(|_| {
                End::Failed("the executor panicked; its message is in the worker's log".to_owned())
            });
            // The agent may have ended.
            finished.send(end).await.ok();
        });
        self.current = Some(Running { order, cancel, released: false, started_at, begun: Instant::now() });
    }

    fn ended(&mut self, end: End) {
        let Some(running) = self.current.take() else { return };
        let Running { order, released, started_at, begun, .. } = running;
        self.tell_logs();
        let ended = match end {
            _ if released => None,
            End::Delivered => Some(Ended::Succeeded),
            End::NotWanted(why) => {
                warn!(task = order.task, attempt = order.attempt, why, "its result is not wanted");
                None
            }
            End::Failed(error) => Some(Ended::Failed(error)),
            End::Cancelled => Some(Ended::Failed("the worker was asked to end".to_owned())),
        };
        info!(task = order.task, attempt = order.attempt, ?ended, "a task has ended");
        self.last_task = Some(order.task.clone());
        if let Some(ended) = ended {
            let message = self.speaker.ended(&now(), &order, &ended, &started_at, begun.elapsed().as_secs_f64());
            self.say(message.clone());
            self.unsettled.push((order, message));
        }
        if self.waiting.is_empty() {
            self.tell_state();
        }
    }

    fn drain(&mut self) {
        info!(grace = ?self.settings.grace, running = self.current.is_some(), "the worker takes nothing new");
        self.draining = Some(tokio::time::Instant::now() + self.settings.grace);
        self.waiting.clear();
        self.say(self.speaker.draining(&now()));
    }

    /// The grace is over: first the task is stopped, and when that has not helped, the worker ends all the same.
    fn is_over(&mut self, deadline: Option<tokio::time::Instant>) -> bool {
        match &self.current {
            Some(running) if !running.cancel.is_cancelled() => {
                warn!(task = running.order.task, "its grace is over; it is stopped");
                running.cancel.cancel();
                self.draining = deadline.map(|deadline| deadline + 2 * LAST_WORDS);
                false
            }
            Some(_) | None => true,
        }
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What an attempt needs of its worker.
struct Means {
    settings: Arc<Settings>,
    home: Arc<Home>,
    delivery: Delivery,
    logs: LogBuffer,
    printed: Arc<Notify>,
}

/// One attempt, from its directory to the answer of the server.
async fn attempt(means: Means, order: Order, cancel: CancellationToken) -> End {
    let Means { settings, home, delivery, logs, printed } = means;
    let executor = settings.executors.iter().find(|executor| executor.task_type() == order.task_type());
    let Some(executor) = executor else {
        return End::Failed(format!("spec.taskType: this worker has no executor {:?}", order.task_type()));
    };
    // Before it costs anything.
    let elsewhere = destination::of(&order.document).filter(|_| order.delivers_elsewhere);
    if let Some(Err(why)) = elsewhere.map(|to| settings.deliver_to.check(&to.url)) {
        return End::Failed(format!("spec.output.destination.url: {why}"));
    }
    // Removed with its end, whatever that is.
    let directory = match home.attempt() {
        Ok(directory) => directory,
        Err(error) => return End::Failed(format!("cannot make a directory for the task: {error}")),
    };
    let artifacts = directory.path().join("artifacts");
    if let Err(error) = tokio::fs::create_dir(&artifacts).await {
        return End::Failed(format!("cannot make a directory for the task: {error}"));
    }
    let log = logs.of(&order);
    let files_url = format!("{}/api/v1/results/{}/files", settings.server, order.task);
    let job = Job { order, log, home, directory: directory.path().to_owned(), artifacts, files_url, cancel };
    let outcome = executor.run(&job).await;
    // With the result the task is done, and whoever waited for that reads what it printed.
    printed.notify_one();
    let end = match outcome {
        Err(Failure::Cancelled) => End::Cancelled,
        Err(Failure::Failed(error)) => End::Failed(error),
        Ok(result) => match delivery.deliver(&job.order, &result, &job.artifacts, &job.cancel).await {
            Ok(()) => End::Delivered,
            Err(Undelivered::NotWanted(why)) => End::NotWanted(why),
            Err(Undelivered::Refused(why)) => End::Failed(why),
            Err(Undelivered::Cancelled) => End::Cancelled,
        },
    };
    // It may be large.
    let path = directory.path().to_owned();
    match tokio::task::spawn_blocking(move || directory.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(path = %path.display(), %error, "a task's directory was not removed"),
        Err(_) => warn!(path = %path.display(), "a task's directory was not removed"),
    }
    end
}
