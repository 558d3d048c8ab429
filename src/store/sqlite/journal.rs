//! Damage in the journal (the `-wal` file) that SQLite would not report.
//!
//! SQLite reads the journal up to the first frame whose checksum is wrong, because that is where a torn write ends, and
//! drops the rest. A damaged frame in the middle looks the same, and would silently take all later acknowledged writes
//! with it. They can be told apart: the checksums are a chain, so a frame that continues the chain of a commit frame was
//! written after that commit was durable. If there is one behind the first wrong frame, it is no torn write.

use std::{fs, io::ErrorKind, path::Path};

use super::{EngineError, advice, directory::beside};

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

type Sums = [u32; 2];

/// Refuses a journal that SQLite would cut short. To be called before SQLite opens the database.
pub(super) fn check(database: &Path) -> Result<(), EngineError> {
    let path = &beside(database, "-wal");
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(EngineError::Io { doing: "read", path: path.to_owned(), source }),
    };
    match cut_short(&bytes) {
        None => Ok(()),
        Some(frame) => Err(EngineError::Damaged {
            what: format!("frame {frame} of the journal {}", path.display()),
            help: format!("Acknowledged writes follow it and would be lost. {}", advice(database)),
        }),
    }
}

/// Makes durable what the journal holds, where there is no room to move it.
pub(super) fn sync(database: &Path) -> Result<(), EngineError> {
    let path = beside(database, "-wal");
    let synced = fs::File::open(&path).and_then(|journal| journal.sync_all());
    synced.map_err(|source| EngineError::Io { doing: "sync", path, source })
}

/// The first wrong frame (from 1; 0 is the header), if durable commits lie behind it.
fn cut_short(bytes: &[u8]) -> Option<usize> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    if header.iter().all(|byte| *byte == 0) {
        // Made, but lost its content in a power failure before anything was synced.
        return None;
    }
    let big_endian = word(header, 0) & 1 == 1;
    let page = word(header, 8) as usize;
    let sums = stored(header, 24);
    if sum(big_endian, [0, 0], &header[..24]) != sums || !(512..=65536).contains(&page) {
        return Some(0);
    }
    let frames: Vec<&[u8]> = rest.chunks_exact(FRAME_HEADER + page).collect();
    let after =
        |before: Sums, frame: &[u8]| sum(big_endian, sum(big_endian, before, &frame[..8]), &frame[FRAME_HEADER..]);
    let continues =
        |before: Sums, frame: &[u8]| frame[8..16] == header[16..24] && after(before, frame) == stored(frame, 16);
    let mut before = sums;
    let wrong = frames.iter().position(|frame| {
        let right = continues(before, frame);
        if right {
            before = stored(frame, 16);
        }
        !right
    })?;
    let durable_behind = frames[wrong..].windows(2).enumerate().any(|(at, pair)| {
        let commits = word(pair[0], 4) != 0;
        // Of the wrong frame itself the checksum may be what is damaged: then the chain goes on from the right one.
        let mended = at == 0 && continues(after(before, pair[0]), pair[1]);
        commits && (mended || continues(stored(pair[0], 16), pair[1]))
    });
    durable_behind.then_some(wrong + 1)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes are four bytes"))
}

fn stored(bytes: &[u8], at: usize) -> Sums {
    [word(bytes, at), word(bytes, at + 4)]
}

/// SQLite's journal checksum, carried on from `sums`. Lengths are multiples of eight.
fn sum(big_endian: bool, [mut first, mut second]: Sums, bytes: &[u8]) -> Sums {
    for pair in bytes.chunks_exact(8) {
        let [a, b] = [word(pair, 0), word(pair, 4)].map(|word| if big_endian { word } else { word.swap_bytes() });
        first = first.wrapping_add(a).wrapping_add(second);
        second = second.wrapping_add(b).wrapping_add(first);
    }
    [first, second]
}
