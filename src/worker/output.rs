//! What a program prints, as bytes: whole lines for the log, and its end for the result.

use std::time::{Duration, Instant};

use super::logs::{Log, Stream};

/// Of each stream, as the result holds it.
const TAIL_BYTES: usize = 16 * 1024;
/// What is longer is told in parts.
const LONGEST_LINE: usize = 16 * 1024;
/// A bar that draws itself over and over is shown so often.
const REDRAWN_EVERY: Duration = Duration::from_secs(1);

/// One stream of a program.
pub struct Output {
    log: Log,
    stream: Stream,
    lines: Lines,
    tail: Vec<u8>,
}

impl Output {
    pub fn new(log: Log, stream: Stream) -> Self {
        Self { log, stream, lines: Lines::default(), tail: Vec::new() }
    }

    pub fn take(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * TAIL_BYTES {
            self.tail.drain(..self.tail.len() - TAIL_BYTES);
        }
        for line in self.lines.take(bytes, Instant::now()) {
            self.log.line(self.stream, &line);
        }
    }

    /// The end of it all. What was begun as a line is one.
    pub fn finish(mut self) -> String {
        if let Some(line) = self.lines.rest() {
            self.log.line(self.stream, &line);
        }
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        // It may begin in the middle of a character.
        let whole = self.tail.iter().position(|byte| byte & 0xC0 != 0x80).unwrap_or(self.tail.len());
        String::from_utf8_lossy(&self.tail[whole..]).into_owned()
    }
}

/// Bytes into lines.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
    redrawn: Option<Instant>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                lines.push(shown(&std::mem::take(&mut self.begun)));
                continue;
            }
            // What follows a carriage return, unless that ends the line, draws over what was there.
            if self.begun.ends_with(b"\r") && self.redrawn.is_none_or(|at| now.duration_since(at) >= REDRAWN_EVERY) {
                let line = shown(&std::mem::take(&mut self.begun));
                if !line.is_empty() {
                    self.redrawn = Some(now);
                    lines.push(line);
                }
            }
            self.begun.push(*byte);
            if self.begun.len() >= LONGEST_LINE {
                lines.push(shown(&std::mem::take(&mut self.begun)));
            }
        }
        lines
    }

    fn rest(&mut self) -> Option<String> {
        let line = shown(&std::mem::take(&mut self.begun));
        (!line.is_empty()).then_some(line)
    }
}

/// As a terminal shows it: after a carriage return the line is written anew.
fn shown(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let last = line.rsplit(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(last).into_owned()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::worker::{logs::LogBuffer, message::Order};

    #[rstest]
    #[case(&["a\nb", "c\n"], &["a", "bc"])]
    #[case(&["a\r\n\n"], &["a", ""])]
    #[case(&["é", "\n"], &["é"])]
    #[case(&["10%\r20%\r", "30%\rdone\n"], &["10%", "done"])]
    fn lines_are_what_a_terminal_shows(#[case] parts: &[&str], #[case] expected: &[&str]) {
        let (mut lines, now) = (Lines::default(), Instant::now());
        let all: Vec<String> = parts.iter().flat_map(|part| lines.take(part.as_bytes(), now)).collect();
        assert_eq!(all, expected);
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn a_bar_is_shown_once_a_second_and_a_line_without_end_in_parts() {
        let (mut lines, begun) = (Lines::default(), Instant::now());
        assert!(lines.take(b"1%\r", begun).is_empty());
        assert_eq!(lines.take(b"2%\r", begun), ["1%"]);
        assert!(lines.take(b"3%\r", begun).is_empty());
        assert_eq!(lines.take(b"4%\r", begun + REDRAWN_EVERY), ["3%"]);
        let parts = Lines::default().take(&vec![b'x'; 3 * LONGEST_LINE], begun);
        assert_eq!(parts.iter().map(String::len).collect::<Vec<_>>(), [LONGEST_LINE; 3]);
    }

    #[test]
    fn the_end_is_kept_from_a_whole_character_on() {
        let order = Order { task: "t".into(), attempt: "1".into(), ..Order::default() };
        let mut output = Output::new(LogBuffer::default().of(&order), Stream::Stdout);
        output.take(b"x");
        for _ in 0..3 * TAIL_BYTES {
            output.take("é".as_bytes());
        }
        output.take(b"z");
        let tail = output.finish();
        assert!(tail.len() <= TAIL_BYTES && tail.len() > TAIL_BYTES - 4, "{}", tail.len());
        assert!(tail.starts_with('é') && tail.ends_with('z'));
    }
}
