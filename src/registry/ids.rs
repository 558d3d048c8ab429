//! Where uids and generated names come from: randomness as an argument.

use std::sync::{Mutex, PoisonError};

/// A source of identity.
pub trait Ids: Send + Sync + 'static {
    /// A UUID nobody else has.
    fn uid(&self) -> String;

    /// What `generateName` appends: five characters that spell no words.
    fn suffix(&self) -> String;
}

const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;

fn suffix_from(mut pick: impl FnMut(usize) -> usize) -> String {
    (0..SUFFIX_LENGTH).map(|_| char::from(LETTERS[pick(LETTERS.len())])).collect()
}

/// Random UUIDs (v4).
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    fn uid(&self) -> String {
        uuid::Uuid::new_v4().to_string()
    }

    fn suffix(&self) -> String {
        suffix_from(|n| fastrand::usize(..n))
    }
}

/// The same ids from the same seed, for the simulator and tests.
#[derive(Debug)]
pub struct SeededIds(Mutex<fastrand::Rng>);

impl SeededIds {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(fastrand::Rng::with_seed(seed)))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        // A generator has no state that a panic elsewhere could have left half done.
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Ids for SeededIds {
    fn uid(&self) -> String {
        let bytes = self.with(|rng| rng.u128(..)).to_be_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    fn suffix(&self) -> String {
        self.with(|rng| suffix_from(|n| rng.usize(..n)))
    }
}
