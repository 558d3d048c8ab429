//! Those that seek a worker, arranged so that a turn looks at the heads of lines, and not at everybody who waits: by priority, by what
//! they need, and by who submitted them. Besides, who has not been told yet why it waits.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use jiff::Timestamp;

use super::view::Key;
use crate::mloc::needs::Needs;

/// A task that may go to a worker now.
#[derive(Debug, Clone, PartialEq)]
pub struct Seeker {
    pub needs: Needs,
    pub priority: i32,
    /// Who submitted it: those who have least running go first.
    pub submitter: String,
    /// Waits since.
    pub since: Timestamp,
    /// Failed it last: is taken only when no other fits.
    pub avoid: Option<String>,
}

/// Of one priority, needs and submitter: who waits longest is in front.
pub type Line = BTreeSet<(Timestamp, Key)>;

/// Of one priority. No line is empty.
pub type Lines = BTreeMap<Needs, BTreeMap<String, Line>>;

#[derive(Debug, Default)]
pub struct Queue {
    seekers: BTreeMap<Key, Seeker>,
    /// The highest priority first.
    lines: BTreeMap<Reverse<i32>, Lines>,
    classes: BTreeMap<Needs, Class>,
}

/// All that need the same.
#[derive(Debug, Default)]
struct Class {
    seekers: BTreeSet<Key>,
    untold: BTreeSet<Key>,
    /// What all others were told, and of which workers that was.
    told: Option<(u64, Reason)>,
}

/// Why no live worker can do it; none: those that can are busy. Who they are is not worth telling again.
type Reason = Option<String>;

/// Which live workers can do something, or why none can.
pub type Fits = Result<Vec<String>, String>;

impl Queue {
    /// It seeks, and has yet to be told why it waits.
    pub fn insert(&mut self, key: &Key, seeker: Seeker) {
        if self.seekers.get(key) != Some(&seeker) {
            self.remove(key);
            let lines = self.lines.entry(Reverse(seeker.priority)).or_default();
            let line = lines.entry(seeker.needs.clone()).or_default().entry(seeker.submitter.clone()).or_default();
            line.insert((seeker.since, key.clone()));
            self.classes.entry(seeker.needs.clone()).or_default().seekers.insert(key.clone());
            self.seekers.insert(key.clone(), seeker.clone());
        }
        if let Some(class) = self.classes.get_mut(&seeker.needs) {
            class.untold.insert(key.clone());
        }
    }

    pub fn remove(&mut self, key: &Key) {
        let Some(seeker) = self.seekers.remove(key) else { return };
        if let Some(class) = self.classes.get_mut(&seeker.needs) {
            class.seekers.remove(key);
            class.untold.remove(key);
            if class.seekers.is_empty() {
                self.classes.remove(&seeker.needs);
            }
        }
        let priority = Reverse(seeker.priority);
        let Some(lines) = self.lines.get_mut(&priority) else { return };
        let Some(submitters) = lines.get_mut(&seeker.needs) else { return };
        let Some(line) = submitters.get_mut(&seeker.submitter) else { return };
        line.remove(&(seeker.since, key.clone()));
        if line.is_empty() {
            submitters.remove(&seeker.submitter);
            if submitters.is_empty() {
                lines.remove(&seeker.needs);
                if lines.is_empty() {
                    self.lines.remove(&priority);
                }
            }
        }
    }

    pub fn get(&self, key: &Key) -> Option<&Seeker> {
        self.seekers.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Seeker)> {
        self.seekers.iter()
    }

    pub fn len(&self) -> usize {
        self.seekers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.seekers.is_empty()
    }

    /// The highest priority first.
    pub fn lines(&self) -> impl Iterator<Item = &Lines> {
        self.lines.values()
    }

    /// Who is to be told why it waits, with what `fits` says of what it needs: those that came since the last time, and all that need
    /// what no worker can do any more, or one can again. `workers` is another number whenever workers are others.
    pub fn take_untold(&mut self, workers: u64, fits: impl Fn(&Needs) -> Fits) -> Vec<(Fits, BTreeSet<Key>)> {
        let mut all = Vec::new();
        for (needs, class) in &mut self.classes {
            let before = class.told.take();
            let same_workers = before.as_ref().is_some_and(|(of, _)| *of == workers);
            if same_workers && class.untold.is_empty() {
                class.told = before;
                continue;
            }
            let fits = fits(needs);
            let reason = fits.as_ref().err().cloned();
            let mut keys = std::mem::take(&mut class.untold);
            if before.as_ref().is_none_or(|(_, told)| *told != reason) {
                keys.clone_from(&class.seekers);
            }
            class.told = Some((workers, reason));
            if !keys.is_empty() {
                all.push((fits, keys));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        ("default".to_owned(), format!("t{n}"))
    }

    fn seeker(cores: u64, priority: i32, submitter: &str) -> Seeker {
        let needs = Needs { millicores: cores * 1000, ..Needs::default() };
        Seeker { needs, priority, submitter: submitter.to_owned(), since: Timestamp::UNIX_EPOCH, avoid: None }
    }

    fn told(queue: &mut Queue, workers: u64, large: &Fits) -> Vec<String> {
        let fits = |needs: &Needs| if needs.millicores > 1000 { large.clone() } else { Ok(vec!["w".to_owned()]) };
        queue.take_untold(workers, fits).into_iter().flat_map(|(_, keys)| keys).map(|key| key.1).collect()
    }

    #[test]
    fn nothing_is_left_of_who_has_gone() {
        let mut queue = Queue::default();
        for n in 0..8 {
            queue.insert(&key(n), seeker(u64::from(n % 2), (n % 3) as i32, if n < 4 { "a" } else { "b" }));
        }
        queue.insert(&key(0), seeker(1, 9, "c"));
        assert_eq!((queue.len(), queue.lines().count()), (8, 4));
        let first = queue.lines().next().expect("a priority").values().next().expect("needs");
        assert_eq!(first.keys().collect::<Vec<_>>(), ["c"]);
        (0..8).for_each(|n| queue.remove(&key(n)));
        assert!(queue.is_empty() && queue.lines.is_empty() && queue.classes.is_empty());
    }

    #[test]
    fn who_waits_is_told_once_and_again_when_the_reason_is_another() {
        let (busy, none) = (Ok(vec!["w".to_owned()]), Err("there is no worker".to_owned()));
        let mut queue = Queue::default();
        for n in 0..4 {
            queue.insert(&key(n), seeker(1 + u64::from(n % 2), 0, "a"));
        }
        assert_eq!(told(&mut queue, 1, &busy), ["t0", "t2", "t1", "t3"]);
        assert!(told(&mut queue, 1, &busy).is_empty());
        assert!(told(&mut queue, 2, &Ok(vec!["other".to_owned()])).is_empty(), "who is busy is no news");
        assert_eq!(told(&mut queue, 3, &none), ["t1", "t3"]);
        queue.insert(&key(2), seeker(1, 0, "a"));
        queue.insert(&key(5), seeker(2, 0, "a"));
        assert_eq!(told(&mut queue, 3, &none), ["t2", "t5"]);
        assert_eq!(told(&mut queue, 4, &busy), ["t1", "t3", "t5"]);
    }
}
