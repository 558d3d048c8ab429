//! The processes of an attempt: the one that was begun for it and all that came of that one. They are known by the directory of
//! the attempt, which stands in their environment. So one that made a session of its own is found as well, and so are those that a
//! worker left behind which was killed. Process ids would mean others by then.

use std::{
    fs,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::Instant;

/// The variable that every process of an attempt has.
pub const MARK: &str = "GAIA_TASK_DIRECTORY";
/// How often it is looked whether they have ended.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// They are killed again and again for so long, for what forks meanwhile is seen by the next look only.
const KILL_FOR: Duration = Duration::from_secs(3);
/// Looks of a kill that cannot wait.
const LOOKS: usize = 10;

/// Which processes are meant.
#[derive(Debug, Clone)]
pub struct Tree {
    directory: PathBuf,
    group: Option<i32>,
}

impl Tree {
    /// Of the attempt in this directory, or of all attempts below it. The path is the one that was given to them.
    pub fn below(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), group: None }
    }

    /// And those of this process group, whatever their environment says.
    pub fn with_group(self, group: Option<u32>) -> Self {
        Self { group: group.and_then(|group| i32::try_from(group).ok()), ..self }
    }

    /// Ends them: SIGTERM, and after `grace` SIGKILL. Answers how many there were, and how many are left: those of another user,
    /// or in a call of the kernel that does not return.
    pub async fn end(&self, grace: Duration) -> (usize, usize) {
        let found = self.signal(Signal::TERM).await;
        if found == 0 {
            return (0, 0);
        }
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.count().await == 0 {
                return (found, 0);
            }
        }
        let deadline = Instant::now() + KILL_FOR;
        loop {
            let left = self.signal(Signal::KILL).await;
            if left == 0 || Instant::now() > deadline {
                return (found, left);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// SIGKILL at once, for who is about to end and cannot wait.
    pub fn kill(&self) {
        for _ in 0..LOOKS {
            if self.send(Signal::KILL) == 0 {
                return;
            }
        }
    }

    async fn signal(&self, signal: Signal) -> usize {
        let tree = self.clone();
        tokio::task::spawn_blocking(move || tree.send(signal)).await.unwrap_or(0)
    }

    async fn count(&self) -> usize {
        let tree = self.clone();
        tokio::task::spawn_blocking(move || tree.members().len()).await.unwrap_or(0)
    }

    /// To each; answers how many there are.
    fn send(&self, signal: Signal) -> usize {
        let members = self.members();
        for process in &members {
            // It may have ended since, or be another user's: the next look tells.
            pidfd_send_signal(process, signal).ok();
        }
        members.len()
    }

    /// Those that live. A descriptor means one process for ever: a signal to it hits no other one that got the same id.
    fn members(&self) -> Vec<OwnedFd> {
        let own = (i32::try_from(std::process::id()).ok(), rustix::process::getpgrp().as_raw_pid());
        let living: Vec<Seen> = living().into_iter().filter(|seen| Some(seen.id) != own.0).collect();
        let marked: Vec<bool> = living.iter().map(|seen| self.marks(seen)).collect();
        // What forgets its environment stays in the group of those that began it.
        let mut groups: Vec<i32> =
            living.iter().zip(&marked).filter(|(_, marked)| **marked).map(|(seen, _)| seen.group).collect();
        groups.extend(self.group);
        groups.retain(|group| *group != own.1);
        let meant = living.iter().zip(&marked).filter(|(seen, marked)| **marked || groups.contains(&seen.group));
        meant.filter_map(|(seen, _)| seen.open()).collect()
    }

    fn marks(&self, seen: &Seen) -> bool {
        // Of another user's it cannot be read.
        fs::read(format!("/proc/{}/environ", seen.id)).is_ok_and(|environment| is_marked(&environment, &self.directory))
    }
}

/// A process at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    id: i32,
    group: i32,
    /// In ticks since the host started: with the id it names one process.
    started: u64,
}

impl Seen {
    fn look(id: i32) -> Option<Self> {
        read(id, &fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
    }

    fn open(&self) -> Option<OwnedFd> {
        let process = pidfd_open(Pid::from_raw(self.id)?, PidfdFlags::empty()).ok()?;
        // The id may have gone to another one before it was opened.
        (Self::look(self.id)?.started == self.started).then_some(process)
    }
}

fn living() -> Vec<Seen> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| Seen::look(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Out of `/proc/<pid>/stat`. None: it has ended, and waits to be taken note of. The name in the text may hold anything.
fn read(id: i32, stat: &str) -> Option<Seen> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // proc(5) counts from the id, as 1: the state is 3, the group 5, the start 22.
    let field = |number: usize| fields.get(number - 3).copied();
    if matches!(field(3)?, "Z" | "X") {
        return None;
    }
    Some(Seen { id, group: field(5)?.parse().ok()?, started: field(22)?.parse().ok()? })
}

fn is_marked(environment: &[u8], directory: &Path) -> bool {
    environment.split(|byte| *byte == 0).any(|variable| {
        let value = variable.strip_prefix(MARK.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
        value.is_some_and(|value| Path::new(std::ffi::OsStr::from_bytes(value)).starts_with(directory))
    })
}

/// Kills what is left when an attempt is given up in the middle: a panic, the end of the runtime.
pub struct Guard(pub Tree);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_hides_no_group() {
        let stat = |state: &str| format!("12 (a) S 1) {state} 1 77 77 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1");
        assert_eq!(read(12, &stat("R")), Some(Seen { id: 12, group: 77, started: 4711 }));
        assert_eq!((read(12, &stat("Z")), read(12, "12 (a")), (None, None));
    }

    #[test]
    fn this_process_is_seen() {
        let id = i32::try_from(std::process::id()).expect("an id");
        assert!(living().iter().any(|seen| seen.id == id));
        assert!(Seen::look(id).and_then(|seen| seen.open()).is_some());
    }

    #[test]
    fn a_process_is_of_the_directory_that_it_names() {
        let environment = b"PATH=/bin\0GAIA_TASK_DIRECTORY=/home/w/task-a\0";
        assert!(is_marked(environment, Path::new("/home/w/task-a")));
        assert!(is_marked(environment, Path::new("/home/w")));
        assert!(!is_marked(environment, Path::new("/home/w/task-")));
        assert!(!is_marked(b"X=GAIA_TASK_DIRECTORY=/home/w\0", Path::new("/home/w")));
    }
}
