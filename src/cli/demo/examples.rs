//! The example files, in the binary so that the demo runs anywhere.

use std::{fs, path::Path};

use super::super::CliError;

/// Name beneath the directory, and content.
const FILES: &[(&str, &str)] = &[
    ("gpu.yaml", include_str!("../../../desired/gaia/gpu.yaml")),
    ("stack/gaia-core.yaml", include_str!("../../../desired/gaia/stack/gaia-core.yaml")),
    ("stack/gaia-mcp.yaml", include_str!("../../../desired/gaia/stack/gaia-mcp.yaml")),
    ("stack/gaia-prime.yaml", include_str!("../../../desired/gaia/stack/gaia-prime.yaml")),
    ("stack/gaia-study.yaml", include_str!("../../../desired/gaia/stack/gaia-study.yaml")),
    ("stack/gaia-web.yaml", include_str!("../../../desired/gaia/stack/gaia-web.yaml")),
];

/// One workload of them, for the guide.
pub const WORKLOAD: &str = "gaia-core";

/// Writes the files, directories included.
pub fn write(directory: &Path) -> Result<(), CliError> {
    let write = |path: &Path, text: &str| {
        fs::create_dir_all(path.parent().unwrap_or(directory))?;
        fs::write(path, text)
    };
    fs::create_dir_all(directory).map_err(CliError::file(format!("cannot make {}", directory.display())))?;
    for (name, text) in FILES {
        let path = directory.join(name);
        write(&path, text).map_err(CliError::file(format!("cannot write {}", path.display())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_file_is_in_the_binary() {
        let written = tempfile::tempdir().expect("a temporary directory");
        write(written.path()).expect("writes");
        let there = Path::new(env!("CARGO_MANIFEST_DIR")).join("desired/gaia");
        assert_eq!(names(&there), names(written.path()), "desired/gaia and FILES differ");
        assert!(names(&there).contains(&format!("stack/{WORKLOAD}.yaml")));
    }

    fn names(root: &Path) -> Vec<String> {
        let mut names = Vec::new();
        let mut open = vec![root.to_owned()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).expect("a directory") {
                let path = entry.expect("readable").path();
                match path.is_dir() {
                    true => open.push(path),
                    false => names.push(path.strip_prefix(root).expect("beneath").display().to_string()),
                }
            }
        }
        names.sort();
        names
    }
}
