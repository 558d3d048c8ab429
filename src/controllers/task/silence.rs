//! What a worker's silence means: its hash on the bus tells what it began and ended when the events that said so were lost, or
//! when it was not listening yet.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    LOOK, Tasks, transition,
    view::{Key, wire_id},
};
use crate::{adapters::bus::WorkerRecord, runtime::objects::Objects};

/// Until a dispatch is repeated the first time; it doubles up to the greatest. Workers that load a model do not listen for
/// many seconds.
const FIRST: Duration = Duration::from_secs(2);
const GREATEST: Duration = Duration::from_secs(15);

/// Who has not begun by then what nobody waits for any more has never heard of it, and is free.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);

/// When a dispatch is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reminder {
    pub at: Timestamp,
    wait: Duration,
    /// Its end was seen at the look before: what its worker published then must have come in by now.
    ended: bool,
}

impl Reminder {
    pub fn first(now: Timestamp) -> Self {
        Self { at: now + FIRST, wait: FIRST, ended: false }
    }

    fn next(self, now: Timestamp) -> Self {
        let wait = (self.wait * 2).min(GREATEST);
        Self { at: now + wait, wait, ..self }
    }
}

/// What a worker's hash says of the task that it was given last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It has not begun, and nothing else keeps it.
    NotYet,
    /// It is at work on something else.
    Elsewhere,
    Began,
    Ended,
}

/// With every dispatch the hash forgets what was begun and ended, so what it says is of this attempt.
pub fn seen(record: &WorkerRecord, task: &str) -> Seen {
    let idle = record.status.as_deref() == Some("IDLE");
    match record.began.as_deref() {
        Some(began) if began == task && idle && record.ended.as_deref() == Some(task) => Seen::Ended,
        Some(began) if began == task => Seen::Began,
        Some(_) if !idle => Seen::Elsewhere,
        Some(_) | None => Seen::NotYet,
    }
}

impl<O: Objects> Tasks<O> {
    /// Looks at the hashes of workers that have a task.
    pub(super) async fn look(&mut self) {
        self.next_look = None;
        let held: Vec<(String, Key)> = self
            .view
            .held()
            .iter()
            .flat_map(|(worker, keys)| keys.iter().map(|key| (worker.clone(), key.clone())))
            .collect();
        let mut workers: Vec<String> = held.iter().map(|(worker, _)| worker.clone()).collect();
        workers.extend(self.view.occupied.keys().cloned());
        if workers.is_empty() {
            self.reminders.clear();
            return;
        }
        self.next_look = Some(Instant::now() + LOOK);
        // No answer says nothing of anybody.
        let Ok(roll) = self.reality.bus.roll(&workers).await else { return };
        let record = |worker: &str| roll.iter().find(|record| record.id == worker);
        let at = Instant::now();
        let mut silent = std::mem::take(&mut self.silent);
        self.view.occupied.retain(|worker, key| {
            let Some(seen) = record(worker).map(|record| seen(record, &wire_id(key))) else { return true };
            if seen != Seen::NotYet {
                return seen != Seen::Ended;
            }
            let since = *silent.entry(worker.clone()).or_insert(at);
            self.silent.insert(worker.clone(), since);
            at.duration_since(since) < BEGINS_WITHIN
        });
        for (worker, key) in &self.view.occupied {
            self.release(worker, key, None).await;
        }
        let (mut changes, mut again) = (Vec::new(), Vec::new());
        let now = self.clock.now();
        let mut reminders = std::mem::take(&mut self.reminders);
        for (worker, key) in held {
            let Some((record, task)) = record(&worker).zip(self.known(&key)) else { continue };
            let reminder = reminders.remove(&key).unwrap_or_else(|| Reminder::first(now));
            // Known here before it is known of the worker's object: another process must not be told of this attempt.
            let meant = task.status.as_ref().and_then(|status| status.assigned_incarnation.as_ref());
            if meant.zip(record.started_at.as_ref()).is_some_and(|(meant, now)| meant != now) {
                let error = format!("worker {worker} was started anew");
                changes.extend(transition::lost(&task, &error, now).map(|status| (key, status)));
                continue;
            }
            let mut keep = reminder;
            match seen(record, &wire_id(&key)) {
                Seen::Began => self.begins(&key, &task, &worker, now),
                Seen::Elsewhere => {}
                Seen::NotYet if reminder.at <= now && self.lacks_cards(&key, &worker) => {
                    info!(task = key.1, worker, "its cards are another's by now, and its worker has not begun");
                    // Should it begin all the same it is told to stop, and nothing else goes to it until then.
                    self.view.occupied.insert(worker.clone(), key.clone());
                    changes.extend(transition::recalled(&task, now).map(|status| (key, status)));
                    continue;
                }
                Seen::NotYet if reminder.at <= now => {
                    info!(task = key.1, worker, "the worker does not say that it has its task; it is told again");
                    again.push(key.clone());
                    keep = reminder.next(now);
                }
                Seen::NotYet => {}
                Seen::Ended if !reminder.ended => keep.ended = true,
                Seen::Ended => {
                    warn!(task = key.1, worker, "how the task ended was not heard");
                    let error = "the worker ended it, and how was not heard";
                    // One that cannot be read now may be read at the next look.
                    if let Ok(posted) = self.posted(&key).await {
                        let delivered = posted.and_then(|posted| transition::delivered(&task, &posted, now));
                        let status = delivered.or_else(|| transition::lost(&task, error, now));
                        changes.extend(status.map(|status| (key.clone(), status)));
                    }
                }
            }
            self.reminders.insert(key, keep);
        }
        self.write(changes).await;
        self.publish(&again).await;
        self.pass().await;
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(None, None, "RUNNING", Seen::NotYet)]
    #[case(None, Some("t"), "IDLE", Seen::NotYet)]
    #[case(Some("t"), None, "RUNNING", Seen::Began)]
    #[case(Some("t"), Some("t"), "RUNNING", Seen::Began)]
    #[case(Some("t"), None, "IDLE", Seen::Began)]
    #[case(Some("t"), Some("t"), "IDLE", Seen::Ended)]
    #[case(Some("other"), None, "RUNNING", Seen::Elsewhere)]
    #[case(Some("other"), Some("other"), "IDLE", Seen::NotYet)]
    fn a_hash_tells_of_this_attempt(
        #[case] began: Option<&str>,
        #[case] ended: Option<&str>,
        #[case] status: &str,
        #[case] expected: Seen,
    ) {
        let record = WorkerRecord {
            status: Some(status.to_owned()),
            began: began.map(str::to_owned),
            ended: ended.map(str::to_owned),
            ..WorkerRecord::default()
        };
        assert_eq!(seen(&record, "t"), expected);
    }

    #[test]
    fn reminders_come_less_and_less_often() {
        let now = Timestamp::UNIX_EPOCH;
        let waits: Vec<i64> = std::iter::successors(Some(Reminder::first(now)), |reminder| Some(reminder.next(now)))
            .map(|reminder| reminder.at.duration_since(now).as_secs())
            .take(6)
            .collect();
        assert_eq!(waits, [2, 4, 8, 15, 15, 15]);
    }
}
