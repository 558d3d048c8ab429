//! Former states of a Source: what a new one changed, which are kept, what going back to one means. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::load::{Document, LoadedFiles, ObjectId, document};
use crate::{
    api::sourcerevision::{Manifest, SourceRevision, SourceRevisionSpec, pack, unpack},
    registry::Kinds,
    yaml::{Lines, Parsed},
};

/// Former revisions that are kept beside the present one.
pub const DEFAULT_LIMIT: u32 = 10;
/// Of one `spec.manifests`: a revision of more is not kept. It is some ten times as much YAML.
pub const MOST_BYTES: usize = 1 << 20;
/// Of all revisions of one Source together; the oldest go first.
const MOST_BYTES_TOGETHER: usize = 8 << 20;
/// More changes than these are only counted.
const MOST_CHANGES: usize = 50;

/// As a revision holds them. `None`: it would be too large.
pub fn manifests(documents: &[Document]) -> Option<String> {
    let one = |d: &Document| Manifest { file: d.file.clone(), line: d.line, object: d.object.clone() };
    let text = pack(&documents.iter().map(one).collect::<Vec<_>>());
    (text.len() <= MOST_BYTES).then_some(text)
}

/// What files came to when the revision was made, as if they were read again. The error says why it cannot be had.
pub fn restored(revision: &SourceRevisionSpec, kinds: &Kinds) -> Result<LoadedFiles, String> {
    let mut loaded = LoadedFiles { complete: true, ..LoadedFiles::default() };
    for Manifest { file, line, object } in unpack(&revision.manifests)? {
        match document(&file, Parsed { line, value: object, lines: Lines::default() }, kinds) {
            Ok(document) => loaded.documents.push(document),
            Err(error) => loaded.errors.push(error),
        }
    }
    // Kinds that are gone leave documents out, and are errors of their own.
    if loaded.errors.is_empty() && loaded.revision() != revision.digest {
        return Err("it does not hold what it was made of: its digest is another".to_owned());
    }
    let mut files: Vec<&str> = loaded.documents.iter().map(|document| document.file.as_str()).collect();
    files.sort_unstable();
    files.dedup();
    loaded.files = files.len();
    Ok(loaded)
}

/// What is in `after` and not so in `before`, a line each: `changed Workload default/web (stack/web.yaml:1)`.
pub fn changes(before: &[Document], after: &[Document]) -> Vec<String> {
    let by_id = |documents: &[Document]| -> BTreeMap<ObjectId, (String, Value)> {
        documents.iter().map(|d| (d.id.clone(), (d.place(), d.object.clone()))).collect()
    };
    let (before, after) = (by_id(before), by_id(after));
    let mut lines = Vec::new();
    for (id, (place, object)) in &after {
        match before.get(id) {
            None => lines.push(format!("added {id} ({place})")),
            Some((_, former)) if former != object => lines.push(format!("changed {id} ({place})")),
            Some(_) => {}
        }
    }
    lines.extend(
        before
            .iter()
            .filter(|(id, _)| !after.contains_key(id))
            .map(|(id, (place, _))| format!("removed {id} ({place})")),
    );
    let more = lines.len().saturating_sub(MOST_CHANGES);
    if more > 0 {
        lines.truncate(MOST_CHANGES);
        lines.push(format!("and {more} more"));
    }
    lines
}

/// What bears on whether a revision stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub name: String,
    pub revision: i64,
    pub digest: String,
    pub bytes: usize,
}

impl Held {
    pub fn of(revision: &SourceRevision) -> Self {
        let spec = &revision.spec;
        Self {
            name: revision.metadata.name.clone().unwrap_or_default(),
            revision: spec.revision,
            digest: spec.digest.clone(),
            bytes: spec.manifests.len(),
        }
    }
}

/// Names of those that are to go: of two alike the older one (a Source that swings between two states must not push all others
/// out), and the oldest beyond the bounds. The youngest stays, and so does the pinned one.
pub fn surplus(held: &[Held], former: u32, pin: Option<i64>) -> Vec<String> {
    let mut youngest_first: Vec<&Held> = held.iter().collect();
    youngest_first.sort_by_key(|held| std::cmp::Reverse(held.revision));
    let (mut digests, mut count, mut bytes, mut full) = (Vec::new(), 0, 0, false);
    let mut out = Vec::new();
    for (place, revision) in youngest_first.into_iter().enumerate() {
        let twice = digests.contains(&&revision.digest);
        full = full || count > former || bytes + revision.bytes > MOST_BYTES_TOGETHER;
        if place > 0 && (twice || full) && pin != Some(revision.revision) {
            out.push(revision.name.clone());
            continue;
        }
        digests.push(&revision.digest);
        count += 1;
        bytes += revision.bytes;
    }
    out
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn held(text: &str) -> Vec<Held> {
        let one = |word: &str| {
            let (revision, digest) = word.split_once('=').expect("3=c");
            let (digest, bytes) = digest.split_once(':').unwrap_or((digest, "10"));
            Held {
                name: revision.to_owned(),
                revision: revision.parse().expect("a number"),
                digest: digest.to_owned(),
                bytes: bytes.parse().expect("a number"),
            }
        };
        text.split_whitespace().map(one).collect()
    }

    #[rstest]
    #[case::all_fit("1=a 2=b 3=c", 2, None, "")]
    #[case::the_oldest_goes("1=a 2=b 3=c 4=d", 2, None, "1")]
    #[case::only_the_present_one("1=a 2=b 3=c", 0, None, "2 1")]
    #[case::the_pinned_one_stays("1=a 2=b 3=c 4=d", 1, Some(1), "2")]
    #[case::one_that_came_back("1=a 2=b 3=a", 10, None, "1")]
    #[case::one_that_swings("1=x 2=a 3=b 4=a 5=b", 10, None, "3 2")]
    #[case::pinned_and_come_back("1=a 2=b 3=a", 10, Some(1), "")]
    #[case::together_too_large("1=a:4000000 2=b:4000000 3=c:4000000", 10, None, "1")]
    #[case::a_small_one_behind_a_large_one_goes_too("1=a:1 2=b:8000000 3=c:4000000", 10, None, "2 1")]
    #[case::the_youngest_stays_whatever_its_size("1=a 2=b:9000000", 10, None, "1")]
    #[case::none("", 10, None, "")]
    fn old_ones_go(#[case] text: &str, #[case] former: u32, #[case] pin: Option<i64>, #[case] expected: &str) {
        assert_eq!(surplus(&held(text), former, pin).join(" "), expected);
    }
}
