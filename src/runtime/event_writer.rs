//! Turns notes into `Event` objects. The same thing told again counts up the event that is there, at a bounded rate; an
//! object that talks too much is cut short. [`Aggregates`] decides, [`EventWriter`] writes.

use std::{collections::HashMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    backoff::seed_of,
    events::{EventType, Recorded},
    metrics::RuntimeMetrics,
    objects::Objects,
};
use crate::registry::Reason;

/// A series is written at most this often; counts in between are kept in memory.
const BETWEEN_COUNTS: SignedDuration = SignedDuration::from_secs(10);
/// Silence after which the same thing is a new event.
const SERIES_ENDS: SignedDuration = SignedDuration::from_mins(15);
/// Series kept in memory; beyond it the one silent longest is let go (told again, it becomes a new event).
const MOST_SERIES: usize = 1024;
/// New events of one object: so many at once, then one each `REFILL`.
const BURST: u32 = 25;
const REFILL: SignedDuration = SignedDuration::from_secs(10);
/// Upstream's bound on `note`.
const LONGEST_NOTE: usize = 1024;

/// The task that writes events.
pub struct EventWriter<O: Objects> {
    pub objects: O,
    pub inbox: mpsc::Receiver<Recorded>,
    /// `reportingInstance`: the node.
    pub instance: String,
    pub metrics: RuntimeMetrics,
}

impl<O: Objects> EventWriter<O> {
    /// Runs until `shutdown`, then writes what is waiting and ends.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut aggregates = Aggregates::new(self.instance.clone());
        let mut tick = tokio::time::interval(Duration::from_secs(10));
        let mut last = Timestamp::MIN;
        loop {
            // All three arms are cancel-safe: a token, an interval, and `recv`, which takes nothing when dropped.
            let recorded = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                recorded = self.inbox.recv() => recorded,
                _ = tick.tick() => {
                    // The notes' own time: the latest one, moved on by what has passed since.
                    last = last.saturating_add(BETWEEN_COUNTS).unwrap_or(Timestamp::MAX);
                    for key in aggregates.due(last) {
                        self.count_up(&mut aggregates, key).await;
                    }
                    continue;
                }
            };
            let Some(recorded) = recorded else { break };
            last = recorded.at;
            self.write(&mut aggregates, recorded).await;
        }
        self.inbox.close();
        while let Ok(recorded) = self.inbox.try_recv() {
            self.write(&mut aggregates, recorded).await;
        }
        for key in aggregates.due(Timestamp::MAX) {
            self.count_up(&mut aggregates, key).await;
        }
    }

    async fn write(&self, aggregates: &mut Aggregates, recorded: Recorded) {
        match aggregates.record(recorded) {
            Step::Create(key, event) => match self.objects.create(*event).await {
                Ok(stored) => {
                    self.metrics.events_written.inc();
                    aggregates.stored(key, (*stored).clone());
                }
                Err(error) => {
                    debug!(%error, "event not written");
                    self.metrics.events_dropped.inc();
                    aggregates.forget(key);
                }
            },
            Step::Count(key) => self.count_up(aggregates, key).await,
            Step::Later => {}
            Step::Drop => {
                self.metrics.events_dropped.inc();
            }
        }
    }

    async fn count_up(&self, aggregates: &mut Aggregates, key: SeriesKey) {
        let Some(event) = aggregates.counted(key) else { return };
        match self.objects.update(event).await {
            Ok(stored) => {
                self.metrics.events_written.inc();
                aggregates.stored(key, (*stored).clone());
            }
            // Somebody deleted or changed it, or the store is away: told again, it becomes a new event.
            Err(error) => {
                if !matches!(error.reason, Reason::NotFound | Reason::Conflict) {
                    debug!(%error, "event not counted up");
                }
                self.metrics.events_dropped.inc();
                aggregates.forget(key);
            }
        }
    }
}

/// A series of the same: object, type, reason, message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeriesKey(u64);

/// What to do with a note.
#[derive(Debug, PartialEq)]
pub enum Step {
    Create(SeriesKey, Box<Event>),
    /// The series is due to be written.
    Count(SeriesKey),
    /// Counted in memory.
    Later,
    /// The object talks too much.
    Drop,
}

/// The memory of the writer. No I/O, no clock: the notes carry their time.
#[derive(Debug)]
pub struct Aggregates {
    instance: String,
    series: HashMap<SeriesKey, Series>,
    budgets: HashMap<String, Budget>,
}

#[derive(Debug)]
struct Series {
    /// As stored last; none while the creation is under way.
    event: Option<Event>,
    count: i32,
    written_count: i32,
    last_seen: Timestamp,
    last_written: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Budget {
    left: u32,
    since: Timestamp,
}

impl Aggregates {
    pub fn new(instance: String) -> Self {
        Self { instance, series: HashMap::new(), budgets: HashMap::new() }
    }

    pub fn record(&mut self, recorded: Recorded) -> Step {
        let key = key_of(&recorded);
        match self.series.get_mut(&key) {
            Some(series) if recorded.at.duration_since(series.last_seen) < SERIES_ENDS => {
                series.count = series.count.saturating_add(1);
                series.last_seen = recorded.at;
                if recorded.at.duration_since(series.last_written) < BETWEEN_COUNTS {
                    Step::Later
                } else {
                    Step::Count(key)
                }
            }
            Some(_) | None => self.begin(key, recorded),
        }
    }

    fn begin(&mut self, key: SeriesKey, recorded: Recorded) -> Step {
        if !self.spend(&recorded) {
            return Step::Drop;
        }
        if self.series.len() >= MOST_SERIES
            && let Some(oldest) = self.series.iter().min_by_key(|(_, s)| s.last_seen).map(|(key, _)| *key)
        {
            self.series.remove(&oldest);
        }
        let at = recorded.at;
        let series = Series { event: None, count: 1, written_count: 1, last_seen: at, last_written: at };
        self.series.insert(key, series);
        Step::Create(key, Box::new(self.event(key, recorded)))
    }

    /// Takes one from the object's budget; false when it is used up.
    fn spend(&mut self, recorded: &Recorded) -> bool {
        let at = recorded.at;
        if self.budgets.len() > MOST_SERIES {
            self.budgets.retain(|_, budget| at.duration_since(budget.since) < REFILL * (BURST as i32));
        }
        let budget = self.budgets.entry(about(&recorded.regarding)).or_insert(Budget { left: BURST, since: at });
        let refilled = at.duration_since(budget.since).as_secs().max(0) / REFILL.as_secs();
        if let Ok(refilled @ 1..) = u32::try_from(refilled) {
            *budget = Budget { left: budget.left.saturating_add(refilled).min(BURST), since: at };
        }
        match budget.left.checked_sub(1) {
            Some(left) => {
                budget.left = left;
                true
            }
            None => false,
        }
    }

    fn event(&self, key: SeriesKey, Recorded { regarding, note, at }: Recorded) -> Event {
        // As upstream, `object.<time in hex>`: kubectl shows events in the order of their names. A part of the series' hash
        // keeps two of the same instant apart.
        let object = regarding.name.as_deref().unwrap_or("unknown");
        let (nanoseconds, hash) = (at.as_nanosecond().max(0), key.0 & 0xffff_ffff);
        let type_: &'static str = note.type_.into();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{object}.{nanoseconds:016x}{hash:08x}")),
                namespace: Some(regarding.namespace.clone().unwrap_or_else(|| "default".to_owned())),
                ..ObjectMeta::default()
            },
            action: Some(note.action.to_owned()),
            event_time: Some(MicroTime(at)),
            note: Some(shortened(note.message)),
            reason: Some(note.reason.to_owned()),
            regarding: Some(regarding),
            reporting_controller: Some(format!("{}/gaia", crate::api::GROUP)),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(type_.to_owned()),
            ..Event::default()
        }
    }

    /// What the store holds of the series now.
    pub fn stored(&mut self, key: SeriesKey, event: Event) {
        if let Some(series) = self.series.get_mut(&key) {
            series.written_count = event.series.as_ref().map_or(1, |s| s.count);
            series.event = Some(event);
        }
    }

    pub fn forget(&mut self, key: SeriesKey) {
        self.series.remove(&key);
    }

    /// The event to store for what has been counted.
    pub fn counted(&mut self, key: SeriesKey) -> Option<Event> {
        let series = self.series.get_mut(&key)?;
        let mut event = series.event.clone()?;
        event.series = Some(EventSeries { count: series.count, last_observed_time: MicroTime(series.last_seen) });
        series.last_written = series.last_seen;
        Some(event)
    }

    /// Series with counts that are not written yet and have waited long enough.
    pub fn due(&self, now: Timestamp) -> Vec<SeriesKey> {
        let due = |s: &Series| s.count > s.written_count && now.duration_since(s.last_written) >= BETWEEN_COUNTS;
        self.series.iter().filter(|(_, s)| due(s)).map(|(key, _)| *key).collect()
    }
}

fn about(regarding: &ObjectReference) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!(
        "{}/{}/{}/{}",
        part(&regarding.kind),
        part(&regarding.namespace),
        part(&regarding.name),
        part(&regarding.uid)
    )
}

fn key_of(recorded: &Recorded) -> SeriesKey {
    let type_ = match recorded.note.type_ {
        EventType::Normal => 'n',
        EventType::Warning => 'w',
    };
    let text = format!("{}\0{type_}{}\0{}", about(&recorded.regarding), recorded.note.reason, recorded.note.message);
    SeriesKey(seed_of(&text))
}

fn shortened(mut message: String) -> String {
    if message.len() > LONGEST_NOTE {
        let end = (0..=LONGEST_NOTE - 3).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::events::Note;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn told(object: &str, message: &str, second: i64) -> Recorded {
        let regarding = ObjectReference { name: Some(object.into()), ..ObjectReference::default() };
        Recorded { regarding, note: Note::warning("CrashLoopBackOff", "Waiting", message), at: at(second) }
    }

    /// Records and stores, as the writer would.
    fn record(aggregates: &mut Aggregates, recorded: Recorded) -> &'static str {
        match aggregates.record(recorded) {
            Step::Create(key, event) => {
                aggregates.stored(key, *event);
                "create"
            }
            Step::Count(key) => {
                let event = aggregates.counted(key).expect("a stored series");
                aggregates.stored(key, event);
                "count"
            }
            Step::Later => "later",
            Step::Drop => "drop",
        }
    }

    #[test]
    fn the_same_again_counts_up_one_event_at_a_bounded_rate() {
        let mut aggregates = Aggregates::new("node".into());
        assert_eq!(record(&mut aggregates, told("web", "exited with 1", 0)), "create");
        assert_eq!(record(&mut aggregates, told("web", "exited with 1", 3)), "later");
        assert_eq!(record(&mut aggregates, told("web", "exited with 1", 12)), "count");
        let event = aggregates.series.values().next().unwrap().event.clone().unwrap();
        assert_eq!(event.series.map(|s| (s.count, s.last_observed_time.0)), Some((3, at(12))));
        assert_eq!(event.event_time.map(|t| t.0), Some(at(0)));
    }

    #[test]
    fn events_of_an_object_are_in_the_order_of_their_names() {
        let mut aggregates = Aggregates::new("node".into());
        let mut name = |message, second| match aggregates.record(told("web", message, second)) {
            Step::Create(_, event) => event.metadata.name.expect("named"),
            other => panic!("{other:?}"),
        };
        let (created, started, running) = (name("created", 0), name("started", 1), name("running", 1));
        assert!(created < started && created < running && started != running, "{created} {started} {running}");
    }

    #[test]
    fn counts_kept_in_memory_become_due() {
        let mut aggregates = Aggregates::new("node".into());
        record(&mut aggregates, told("web", "exited with 1", 0));
        assert_eq!(aggregates.due(at(60)), []);
        record(&mut aggregates, told("web", "exited with 1", 3));
        assert_eq!(aggregates.due(at(5)), []);
        assert_eq!(aggregates.due(at(10)).len(), 1);
    }

    #[test]
    fn another_message_or_a_long_silence_is_another_event() {
        let mut aggregates = Aggregates::new("node".into());
        assert_eq!(record(&mut aggregates, told("web", "exited with 1", 0)), "create");
        assert_eq!(record(&mut aggregates, told("web", "exited with 2", 0)), "create");
        assert_eq!(record(&mut aggregates, told("web", "exited with 1", 16 * 60)), "create");
    }

    #[test]
    fn an_object_that_talks_too_much_is_cut_short_and_others_are_not() {
        let mut aggregates = Aggregates::new("node".into());
        let spoken = (0..100).filter(|n| record(&mut aggregates, told("web", &n.to_string(), 0)) == "create").count();
        assert_eq!(spoken, BURST as usize);
        assert_eq!(record(&mut aggregates, told("db", "starts", 0)), "create");
        assert_eq!(record(&mut aggregates, told("web", "after a while", 10)), "create");
        assert_eq!(record(&mut aggregates, told("web", "and again", 10)), "drop");
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut aggregates = Aggregates::new("node".into());
        for n in 0..MOST_SERIES + 50 {
            record(&mut aggregates, told(&format!("object-{n}"), "hello", i64::try_from(n).unwrap()));
        }
        assert_eq!(aggregates.series.len(), MOST_SERIES);
    }

    #[test]
    fn a_long_message_is_shortened_between_characters() {
        let short = shortened("ü".repeat(2000));
        assert!(short.len() <= LONGEST_NOTE && short.ends_with('…'));
    }
}
