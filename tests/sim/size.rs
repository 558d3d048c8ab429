//! How much there is in a seed, and how long it lasts. Most are small: what goes wrong among many mostly goes wrong among two as
//! well, and ten small ones cost what a large one does.

use std::{ops::Range, time::Duration};

/// Of ten pairs of seeds (one with a card, one without) this one is large.
const LARGE: u64 = 10;
/// And of ten large ones this one has the definitions of kinds in its store.
const DEFINED: u64 = 10;

/// The seed of the large world of this number.
pub fn large(number: u64) -> u64 {
    number / 2 * 2 * LARGE + number % 2
}

#[derive(Debug, Clone)]
pub struct Size {
    /// Whom files may name.
    pub workloads: &'static [&'static str],
    /// Seconds of trouble.
    pub trouble: Range<u64>,
    /// Between two acts of people.
    pub pause_ms: Range<u64>,
    /// What must touch nothing once all is well: as many of these, from the one that the seed says.
    pub quiets: usize,
    /// Nothing may happen for so long once everything is as wished.
    pub quiet: Duration,
    /// The store holds the definitions of our kinds.
    pub definitions: bool,
}

impl Size {
    pub fn of(seed: u64) -> Self {
        let (pair, has_cards) = (seed / 2, seed % 2 == 1);
        if pair.is_multiple_of(LARGE) {
            return Self {
                workloads: &["a", "b", "c", "d"],
                trouble: 20..120,
                pause_ms: 100..8_000,
                quiets: 3,
                quiet: Duration::from_secs(150),
                definitions: (pair / LARGE).is_multiple_of(DEFINED),
            };
        }
        let workloads: &[&str] = match (pair % LARGE, has_cards) {
            (1, _) => &["a"],
            (2, _) => &["a", "d"],
            (3, false) => &["d"],
            (4, _) => &["a", "b", "c"],
            _ => &["a", "b"],
        };
        // Longer than the longest wait for a look at what nobody told of.
        Self {
            workloads,
            trouble: 4..24,
            pause_ms: 50..3_000,
            quiets: 1,
            quiet: Duration::from_secs(70),
            definitions: false,
        }
    }
}
