//! The example files, in the binary so that the demo runs anywhere.

use std::{fs, path::Path};

use super::super::CliError;

/// Path beneath `desired/` and content.
const FILES: &[(&str, &str)] = &[];

/// One of them, for the guide.
pub const WORKLOAD: &str = "core";

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
