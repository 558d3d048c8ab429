//! Progress on stderr, so that stdout holds nothing but the result: milestones as lines that stay, and on a terminal a bar
//! beneath them for what goes on in between.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

pub struct View {
    started: Instant,
    bar: Option<ProgressBar>,
    last: String,
}

impl View {
    pub fn new() -> Self {
        Self { started: Instant::now(), bar: std::io::stderr().is_terminal().then(bar), last: String::new() }
    }

    /// Something that is worth to stay on the screen. The same is not said twice in a row.
    pub fn say(&mut self, text: &str) {
        if text.is_empty() || self.last == text {
            return;
        }
        text.clone_into(&mut self.last);
        let line = milestone(self.started.elapsed(), text);
        match &self.bar {
            // The bar steps aside for the line.
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// What goes on right now.
    pub fn now(&self, pct: u32, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(pct.into());
            bar.set_message(text.to_owned());
        }
    }

    /// Takes the bar away; the lines stay.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn milestone(after: Duration, text: &str) -> String {
    format!("{:6.1}s  {text}", after.as_secs_f64())
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner:.green} [{bar:24.green}] {pos:>3} % {elapsed:>4}  {wide_msg}")
        .expect("a constant template that indicatif knows")
        .progress_chars("=> ");
    let bar = ProgressBar::new(100).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_milestone_tells_when_it_was() {
        assert_eq!(milestone(Duration::from_millis(12_340), "ReleasingGpu"), "  12.3s  ReleasingGpu");
    }
}
