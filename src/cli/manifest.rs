//! Manifests: YAML or JSON from files, directories or standard input, each document with the place it was read from.

use std::{
    fmt, fs,
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::Value;
use serde_saphyr::Spanned;

use super::CliError;

/// Of standard input; files are as large as they are.
const MAX_STDIN: u64 = 64 << 20;

/// One object as it was written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    pub object: Value,
    pub place: Place,
}

/// `web.yaml:12`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: PathBuf,
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl Manifest {
    pub fn api_version(&self) -> &str {
        self.object["apiVersion"].as_str().unwrap_or_default()
    }

    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        super::print::name(&self.object)
    }
}

/// Everything `paths` hold, in the order given; a directory in the order of its names, the ones beneath it too.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Manifest>, CliError> {
    let mut manifests = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            parse(Path::new("stdin"), &read_stdin()?, &mut manifests)?;
            continue;
        }
        let mut files = Vec::new();
        collect(path, true, &mut files)?;
        for file in files {
            let text = fs::read_to_string(&file).map_err(CliError::file(format!("cannot read {}", file.display())))?;
            parse(&file, &text, &mut manifests)?;
        }
    }
    if manifests.is_empty() {
        let names: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
        return Err(CliError::Failed(format!("no objects in {}", names.join(", "))));
    }
    Ok(manifests)
}

fn read_stdin() -> Result<String, CliError> {
    let mut text = String::new();
    std::io::stdin().take(MAX_STDIN).read_to_string(&mut text).map_err(CliError::file("cannot read stdin"))?;
    Ok(text)
}

/// A file that is named counts whatever it is called; in a directory only YAML and JSON do, and nothing hidden.
fn collect(path: &Path, named: bool, files: &mut Vec<PathBuf>) -> Result<(), CliError> {
    let failed = || CliError::file(format!("cannot read {}", path.display()));
    if fs::metadata(path).map_err(failed())?.is_dir() {
        let entries: Result<Vec<_>, _> = fs::read_dir(path).map_err(failed())?.collect();
        let mut entries: Vec<_> = entries.map_err(failed())?.into_iter().map(|e| e.path()).collect();
        entries.sort();
        for entry in entries.iter().filter(|e| !is_hidden(e)) {
            collect(entry, false, files)?;
        }
    } else if named || path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known)) {
        files.push(path.to_owned());
    }
    Ok(())
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

fn parse(file: &Path, text: &str, manifests: &mut Vec<Manifest>) -> Result<(), CliError> {
    let documents: Vec<Spanned<Value>> = serde_saphyr::from_multiple(text).map_err(|e| {
        let line = e.location().map(|l| format!(":{}", l.line())).unwrap_or_default();
        CliError::Failed(format!("{}{line}: {}", file.display(), e.without_snippet()))
    })?;
    for document in documents {
        let place = Place { file: file.to_owned(), line: document.defined.line() };
        add(document.value, place, manifests)?;
    }
    Ok(())
}

/// An empty document is nothing, a `List` is its items.
fn add(mut object: Value, place: Place, manifests: &mut Vec<Manifest>) -> Result<(), CliError> {
    if object.is_null() {
        return Ok(());
    }
    if object["kind"] == "List" {
        let Value::Array(items) = object["items"].take() else { return Ok(()) };
        return items.into_iter().try_for_each(|item| add(item, place.clone(), manifests));
    }
    let missing = |field: &str| CliError::Failed(format!("{place}: {field} is missing"));
    let text = |value: &Value| value.as_str().is_some_and(|s| !s.is_empty());
    if !text(&object["apiVersion"]) {
        return Err(missing("apiVersion"));
    }
    if !text(&object["kind"]) {
        return Err(missing("kind"));
    }
    if !text(&object["metadata"]["name"]) {
        return Err(missing("metadata.name"));
    }
    manifests.push(Manifest { object, place });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Manifest>, CliError> {
        let mut manifests = Vec::new();
        parse(Path::new("f.yaml"), text, &mut manifests)?;
        Ok(manifests)
    }

    const WEB: &str = "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {name: web}\n";

    #[test]
    fn documents_know_their_lines() {
        let manifests = parsed(&format!("# comment\n{WEB}---\n---\n{WEB}")).expect("YAML");
        let lines: Vec<_> = manifests.iter().map(|m| m.place.line).collect();
        assert_eq!(lines, [2, 7]);
        assert_eq!(manifests[0].place.to_string(), "f.yaml:2");
    }

    #[test]
    fn a_list_is_its_items() {
        let text = format!("kind: List\napiVersion: v1\nitems:\n- {}", WEB.trim_end().replace('\n', "\n  "));
        assert_eq!(parsed(&text).expect("YAML")[0].name(), "web");
    }

    #[test]
    fn what_is_missing_or_broken_is_told_with_its_line() {
        assert_eq!(parsed("\nkind: X\n").expect_err("no apiVersion").to_string(), "f.yaml:2: apiVersion is missing");
        let text = parsed(&format!("{WEB}spec: [1\n")).expect_err("broken").to_string();
        assert!(text.starts_with("f.yaml:"), "{text}");
        assert!(parsed("- 1\n").is_err(), "a list of numbers is no object");
    }

    #[test]
    fn a_directory_is_read_in_order_without_hidden_and_foreign_files() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("c")).expect("made");
        for (file, name) in [("b.yml", "b"), ("a.yaml", "a"), ("c/d.json", "d"), (".e.yaml", "e"), ("README", "f")] {
            let text = format!(r#"{{"apiVersion":"v1","kind":"X","metadata":{{"name":"{name}"}}}}"#);
            fs::write(dir.path().join(file), text).expect("written");
        }
        let manifests = read(&[dir.path().to_owned()]).expect("reads");
        assert_eq!(manifests.iter().map(Manifest::name).collect::<Vec<_>>(), ["a", "b", "d"]);
        assert!(read(&[dir.path().join("README")]).is_ok(), "named, so read");
    }
}
