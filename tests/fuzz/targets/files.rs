//! Files: desired YAML into the registry, and Compose files.
//!
//! Several files are one text: a line `%% NAME` begins the next one. A name with a leading slash lies beside the directory.

use std::{
    cell::Cell,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use gaia::{
    compose::{Project, Reader},
    gitops::{
        apply::{apply_document, file_errors},
        files::{File, Identity, Listing},
        load::{LoadedFiles, load},
    },
    yaml,
};

use super::world;

const DIRECTORY: &str = "/srv/desired";
/// No more rounds than there are files to ask for.
const MOST_ROUNDS: usize = 64;

/// Loaded as the syncer does, and applied: whatever is wrong is told with its file, on a line that is there. JSON is YAML: what
/// a text held, written as JSON, reads as the same.
pub fn desired_yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let files = parts(text, "desired.yaml");
    for text in files.values() {
        reads_alike(text);
    }
    let loaded = loaded(&files);
    for error in &loaded.errors {
        assert!(is_line_of(files.get(&error.file), error.line), "{error:?}");
        assert!(!error.message.is_empty() && !error.message.contains('\n'), "{error:?}");
    }
    world::with(|world| {
        for document in &loaded.documents {
            let applied = world.block_on(apply_document(&world.registry, document, false));
            if let Err(error) = applied {
                assert!(error.code() < 500, "{}: {error}", document.id);
                assert!(!file_errors(document, &error).is_empty(), "{}: {error}", document.id);
            }
        }
    });
}

/// Every service of every profile is read, or refused with the place of what is wrong.
pub fn compose_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let files = Texts { files: parts(text, "/srv/stack/compose.yaml"), reads: Cell::new(0) };
    let problems = match Project::read(Path::new("/srv/stack/compose.yaml"), None, &files) {
        Err(problems) => problems,
        Ok(project) => {
            let services: Vec<String> = project.services().map(str::to_owned).collect();
            let read = |service: &String| match project.service(service, None) {
                Err(problems) => problems,
                Ok(service) => {
                    serde_json::to_value(&service.container).expect("a container spec is plain data");
                    Vec::new()
                }
            };
            services.iter().flat_map(read).collect()
        }
    };
    for problem in problems {
        let text = files.files.get(&problem.file.display().to_string());
        assert!(is_line_of(text, problem.line), "{problem}");
        assert!(!problem.message.is_empty(), "{problem:?}");
    }
}

/// What is missing at the end is missing on the line behind the last one.
fn is_line_of(text: Option<&String>, line: Option<u32>) -> bool {
    let lines = text.map_or(0, |text| text.lines().count());
    line.is_none_or(|line| line >= 1 && line as usize <= lines + 1)
}

fn parts(text: &str, first: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let (mut name, mut file) = (first.to_owned(), String::new());
    for line in text.split_inclusive('\n') {
        match line.strip_prefix("%% ") {
            Some(next) => {
                files.insert(std::mem::replace(&mut name, next.trim().to_owned()), std::mem::take(&mut file));
            }
            None => file.push_str(line),
        }
    }
    files.insert(name, file);
    files
}

fn reads_alike(text: &str) {
    let Ok(documents) = yaml::parse(text) else { return };
    for document in documents {
        let json = document.value.to_string();
        let again = yaml::parse(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
        assert_eq!(again.first().map(|again| &again.value), Some(&document.value), "{json}");
        assert!(document.lines.nearest("metadata.name").is_none_or(|line| line >= 1));
    }
}

fn loaded(files: &BTreeMap<String, String>) -> LoadedFiles {
    let mut listing = Listing::empty(Identity("1:1".to_owned()), Path::new(DIRECTORY));
    let desired = files.iter().filter(|(name, _)| !name.starts_with('/'));
    listing.files = desired.map(|(path, text)| File { path: path.clone(), text: text.clone() }).collect();
    for _ in 0..MOST_ROUNDS {
        let loaded = load(&listing, &world::kinds());
        let unread: Vec<PathBuf> =
            loaded.beside.iter().filter(|path| !listing.beside.contains_key(*path)).cloned().collect();
        if unread.is_empty() {
            assert_eq!(loaded, load(&listing, &world::kinds()), "the same files, read twice");
            return loaded;
        }
        for path in unread {
            let text = files.get(&path.display().to_string()).cloned();
            listing.beside.insert(path, Ok(text));
        }
    }
    // A chain of `extends` that is longer than this is a file of its own at every step.
    LoadedFiles::default()
}

struct Texts {
    files: BTreeMap<String, String>,
    reads: Cell<usize>,
}

impl Reader for Texts {
    fn read(&self, path: &Path) -> Result<Option<String>, String> {
        self.reads.set(self.reads.get() + 1);
        assert!(self.reads.get() < 100_000, "it reads files without end");
        Ok(self.files.get(&path.display().to_string()).cloned())
    }
}
