//! How much there is in a seed, and how long it lasts. What goes wrong among many mostly goes wrong among two as well, and what
//! goes wrong in a day mostly does so within seconds: most seeds are tiny, some small, few large. A large one costs what three small
//! or ten tiny ones do.

use std::{ops::Range, time::Duration};

/// Of so many pairs of seeds (one with a card, one without) the first is large,
const ROUND: u64 = 25;
/// the next so many are small, and the rest is tiny.
const SMALL: u64 = 2;
/// Of so many large ones this one has the definitions of kinds in its store.
const DEFINED: u64 = 10;

/// The seed of the large world of this number.
pub fn large(number: u64) -> u64 {
    number / 2 * 2 * ROUND + number % 2
}

#[derive(Debug, Clone)]
pub struct Size {
    /// Whom files may name.
    pub workloads: &'static [&'static str],
    /// Milliseconds of trouble.
    pub trouble_ms: Range<u64>,
    /// Between two acts of people.
    pub pause_ms: Range<u64>,
    /// Between two looks of people who wait for everything to be as they want it. A pull that was begun for an earlier wish, or by
    /// a process that came up late, is over by the first.
    pub patience: Duration,
    /// In peace, somebody wishes for a handoff once more and thinks better of it.
    pub changes_mind: bool,
    /// What must touch nothing once all is well: as many of these, from the one that the seed says.
    pub quiets: usize,
    /// Nothing may happen for so long once everything is as wished.
    pub quiet: Duration,
    /// The store holds the definitions of our kinds.
    pub definitions: bool,
}

/// Longer than the longest wait for a look at what nobody told of.
const BEYOND_RELIST: Duration = Duration::from_secs(70);

impl Size {
    pub fn of(seed: u64) -> Self {
        let (pair, has_cards) = (seed / 2, seed % 2 == 1);
        match pair % ROUND {
            0 => Self {
                workloads: &["a", "b", "c", "d"],
                trouble_ms: 20_000..120_000,
                pause_ms: 100..8_000,
                patience: Duration::from_secs(30),
                changes_mind: true,
                quiets: 3,
                quiet: Duration::from_secs(150),
                definitions: (pair / ROUND).is_multiple_of(DEFINED),
            },
            kind @ 1..=SMALL => Self {
                workloads: match (kind, pair / ROUND % 2) {
                    (1, 0) => &["a", "d"],
                    (1, _) => &["a", "b", "c"],
                    _ => &["a", "b"],
                },
                trouble_ms: 4_000..24_000,
                pause_ms: 50..3_000,
                patience: Duration::from_secs(30),
                changes_mind: true,
                quiets: 1,
                quiet: BEYOND_RELIST,
                definitions: false,
            },
            kind => Self {
                workloads: match (kind % 4, has_cards) {
                    (0, false) => &["d"],
                    (0, true) | (1, _) => &["a", "b"],
                    _ => &["a"],
                },
                trouble_ms: 200..1_600,
                pause_ms: 10..400,
                patience: Duration::from_secs(16),
                changes_mind: false,
                quiets: usize::from(kind % 3 == 0),
                quiet: BEYOND_RELIST,
                definitions: false,
            },
        }
    }
}
