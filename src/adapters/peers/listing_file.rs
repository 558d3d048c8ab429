//! The list of droplets on disk: there whole or not at all, whatever crashes.

use std::{io, path::PathBuf};

use crate::droplets::cache::Cache;

/// As the original calls it.
const NAME: &str = "orchestrator_droplets.json";

#[derive(Debug, Clone)]
pub struct ListingFile {
    directory: PathBuf,
}

impl ListingFile {
    /// Made with the first list.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
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
}
