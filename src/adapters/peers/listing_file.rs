//! The list of droplets on disk: there whole or not at all, whatever crashes.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::droplets::cache::Cache;

/// As the original calls it.
const NAME: &str = "orchestrator_droplets.json";

/// Clones are the same file.
#[derive(Debug, Clone)]
pub struct ListingFile {
    directory: PathBuf,
    desk: Arc<Mutex<Desk>>,
}

/// What is to be written next, and whether somebody writes.
#[derive(Debug, Default)]
struct Desk {
    next: Option<Cache>,
    busy: bool,
}

impl ListingFile {
    /// Made with the first list.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, desk: Arc::default() }
    }

    /// Writes it in the background, one after the other; of those that come meanwhile the last. So the file never goes back to an
    /// older list, and a disk that hangs costs one thread. Needs a runtime.
    pub fn keep(&self, cache: Cache) {
        let mut desk = self.desk();
        desk.next = Some(cache);
        if !std::mem::replace(&mut desk.busy, true) {
            drop(desk);
            let file = self.clone();
            tokio::task::spawn_blocking(move || file.write_all());
        }
    }

    fn write_all(&self) {
        loop {
            let next = {
                let mut desk = self.desk();
                let next = desk.next.take();
                desk.busy = next.is_some();
                next
            };
            let Some(cache) = next else { return };
            if let Err(error) = self.write(&cache) {
                tracing::warn!(%error, "the list of droplets cannot be kept on disk");
            }
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None: there is none yet.
    pub fn read(&self) -> io::Result<Option<Cache>> {
        let text = match std::fs::read(self.directory.join(NAME)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Cache::parse(&text).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Written beside, synced, renamed.
    pub fn write(&self, cache: &Cache) -> io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        serde_json::to_writer_pretty(&mut file, cache)?;
        file.as_file().sync_all()?;
        file.persist(self.directory.join(NAME)).map_err(|error| error.error)?;
        std::fs::File::open(&self.directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::droplets::listing::Entry;

    #[test]
    fn what_is_written_is_read_and_what_is_broken_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = ListingFile::new(directory.path().join("below/here"));
        assert_eq!(file.read().expect("nothing yet"), None);
        let cache = Cache { droplets: vec![Entry { name: "a".into(), ..Entry::default() }], ..Cache::default() };
        file.write(&cache).expect("written");
        assert_eq!(file.read().expect("there"), Some(cache));
        std::fs::write(directory.path().join("below/here").join(NAME), "[{").expect("written");
        assert!(file.read().is_err());
    }
    #[tokio::test(flavor = "multi_thread")]
    async fn the_last_list_that_was_to_be_kept_is_the_one_on_disk() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = ListingFile::new(directory.path().to_owned());
        let list = |name: &str, count: usize| {
            let entry = Entry { name: name.into(), ..Entry::default() };
            Cache { droplets: vec![entry; count], ..Cache::default() }
        };
        // Takes long enough for the others to overtake it.
        file.keep(list("first", 20_000));
        for _ in 0..20 {
            file.keep(list("between", 1));
        }
        file.keep(list("last", 1));
        let idle = async {
            while file.desk().busy {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), idle).await.expect("it is written");
        assert_eq!(file.read().expect("there"), Some(list("last", 1)));
    }
}
