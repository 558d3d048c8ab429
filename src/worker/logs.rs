//! What tasks print, on its way to the server. Bounded: while the server is away, or slower than the task, the oldest lines go, and
//! in their place stands how many.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::{Value, json};

use super::message::Order;
use crate::{
    adapters::bus::stamp,
    runtime::clock::{Clock, SystemClock},
};

/// Of all lines that wait.
const MOST_BYTES: usize = 1 << 20;
/// A longer line is cut off.
const LONGEST_LINE: usize = 16 * 1024;
/// In one message; the server takes up to a mebibyte, and JSON makes a byte six at worst.
const MESSAGE_BYTES: usize = 128 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
    /// What the worker says itself.
    Worker,
}

/// Lines of all attempts, the oldest in front. Clones share them.
#[derive(Clone, Default)]
pub struct LogBuffer(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Line>,
    bytes: usize,
    dropped: u64,
}

struct Line {
    task: String,
    attempt: String,
    value: Value,
    bytes: usize,
}

/// Where one attempt prints to.
#[derive(Clone)]
pub struct Log {
    buffer: LogBuffer,
    task: String,
    attempt: String,
}

/// What goes to the server at once: lines of one attempt.
pub struct Batch {
    pub task: String,
    pub attempt: String,
    pub lines: Vec<Value>,
}

impl LogBuffer {
    pub fn of(&self, order: &Order) -> Log {
        Log { buffer: self.clone(), task: order.task.clone(), attempt: order.attempt.clone() }
    }

    /// The next lines to be sent; they are sent or lost.
    pub fn take(&self) -> Option<Batch> {
        let mut waiting = self.waiting();
        let (task, attempt) = waiting.lines.front().map(|line| (line.task.clone(), line.attempt.clone()))?;
        let mut batch = Batch { task, attempt, lines: Vec::new() };
        if waiting.dropped > 0 {
            let text = format!("{} lines before this one were dropped", waiting.dropped);
            batch.lines.push(value(Stream::Worker, &text));
            waiting.dropped = 0;
        }
        let mut bytes = 0;
        while let Some(line) = waiting.lines.front() {
            if line.task != batch.task || line.attempt != batch.attempt || bytes > MESSAGE_BYTES {
                break;
            }
            let Some(line) = waiting.lines.pop_front() else { break };
            bytes += line.bytes;
            waiting.bytes -= line.bytes;
            batch.lines.push(line.value);
        }
        Some(batch)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

impl Log {
    /// Adds a line, without its end.
    pub fn line(&self, stream: Stream, text: &str) {
        let end = (0..=text.len().min(LONGEST_LINE)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        let text = &text[..end];
        let mut waiting = self.buffer.waiting();
        let bytes = text.len() + 64;
        waiting.bytes += bytes;
        let value = value(stream, text);
        waiting.lines.push_back(Line { task: self.task.clone(), attempt: self.attempt.clone(), value, bytes });
        while waiting.bytes > MOST_BYTES {
            let Some(oldest) = waiting.lines.pop_front() else { break };
            waiting.bytes -= oldest.bytes;
            waiting.dropped += 1;
        }
    }
}

fn value(stream: Stream, text: &str) -> Value {
    let name: &'static str = stream.into();
    json!({"ts": stamp(SystemClock.now()), "stream": name, "text": text})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(task: &str) -> Order {
        Order { task: task.to_owned(), attempt: "1-a".to_owned(), ..Order::default() }
    }

    #[test]
    fn lines_go_by_attempt_and_in_their_order() {
        let buffer = LogBuffer::default();
        for (task, text) in [("a", "1"), ("a", "2"), ("b", "3")] {
            buffer.of(&order(task)).line(Stream::Stdout, text);
        }
        let first = buffer.take().expect("lines");
        assert_eq!((first.task.as_str(), first.lines.len(), &first.lines[1]["text"]), ("a", 2, &json!("2")));
        assert_eq!(buffer.take().expect("lines").task, "b");
        assert!(buffer.take().is_none());
    }

    #[test]
    fn too_much_costs_the_oldest_lines_and_says_so() {
        let buffer = LogBuffer::default();
        let log = buffer.of(&order("a"));
        let long = "é".repeat(LONGEST_LINE);
        for _ in 0..100 {
            log.line(Stream::Stderr, &long);
        }
        let (mut told, mut lines) = (Vec::new(), 0);
        while let Some(batch) = buffer.take() {
            lines += batch.lines.len();
            told.push(batch.lines[0]["text"].as_str().unwrap_or_default().to_owned());
        }
        assert!(lines <= MOST_BYTES / LONGEST_LINE + 1, "{lines}");
        assert!(told[0].ends_with("lines before this one were dropped"), "{}", told[0]);
    }
}
