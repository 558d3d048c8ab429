//! Memory for answers on their way from droplets to callers, all of them together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Answers up to this size are read without asking for room.
const FREE_BYTES: usize = 64 * 1024;
const UNIT_BYTES: usize = 1024 * 1024;
/// One gibibyte: eight of the largest answers there may be.
const MOST_UNITS: u32 = 1024;

/// The room there is. Clones share it.
#[derive(Clone)]
pub struct Rooms {
    units: Arc<Semaphore>,
    most: u32,
}

impl Default for Rooms {
    fn default() -> Self {
        Self::of(MOST_UNITS)
    }
}

impl Rooms {
    /// So many mebibytes.
    pub fn of(most: u32) -> Self {
        Self { units: Arc::new(Semaphore::new(most as usize)), most }
    }

    pub fn most_mebibytes(&self) -> u32 {
        self.most
    }
}

/// What one answer has of it, until it is dropped.
#[derive(Debug, Default)]
pub struct Room {
    held: Option<OwnedSemaphorePermit>,
    units: u32,
}

impl Room {
    /// Ready when an answer of this size may be held. It grows by doubling; two that wait for each other's room are parted by the
    /// time-outs of their attempts.
    pub async fn cover(&mut self, bytes: usize, rooms: &Rooms) {
        if bytes <= FREE_BYTES.max(self.units as usize * UNIT_BYTES) {
            return;
        }
        let needed = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let wanted = needed.max(self.units.saturating_mul(2)).min(rooms.most);
        let more = wanted.saturating_sub(self.units);
        // It is never closed.
        let Ok(more) = rooms.units.clone().acquire_many_owned(more).await else { return };
        self.units = wanted;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const MIB: usize = UNIT_BYTES;

    #[tokio::test]
    async fn small_answers_need_none_and_large_ones_wait() {
        let rooms = Rooms::of(4);
        let (mut small, mut first, mut second) = (Room::default(), Room::default(), Room::default());
        small.cover(FREE_BYTES, &rooms).await;
        assert_eq!(rooms.units.available_permits(), 4);
        first.cover(FREE_BYTES + 1, &rooms).await;
        assert_eq!(rooms.units.available_permits(), 3);
        first.cover(MIB, &rooms).await;
        assert_eq!(rooms.units.available_permits(), 3, "it is covered");
        first.cover(MIB + 1, &rooms).await;
        assert_eq!(rooms.units.available_permits(), 2, "it has doubled");
        second.cover(MIB, &rooms).await;
        assert!(first.cover(3 * MIB, &rooms).now_or_never().is_none(), "there is one left, and two are wanted");
        drop(second);
        first.cover(3 * MIB, &rooms).await;
        assert_eq!(rooms.units.available_permits(), 0);
        first.cover(9 * MIB, &rooms).await;
        drop(first);
        assert_eq!(rooms.units.available_permits(), 4, "and nobody is let down by an answer beyond the bound");
    }
}
