//! Which files an argument means, and their bytes. A folder gives its `*.yaml`, `*.yml` and `*.json` in name order
//! (folders below it only when asked for); names that begin with a dot are left out, as mounted ConfigMaps and
//! editors use them. A file that is named is read whatever it is called. Reads are bounded.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Folders below folders that a recursive walk enters.
const MAX_FOLDER_DEPTH: usize = 32;

/// The manifest files that a path stands for, in the order they are read.
pub(super) fn list(path: &Path, recursive: bool) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let at = |error| (path.to_path_buf(), error);
    if !path.metadata().map_err(at)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    walk(path, if recursive { MAX_FOLDER_DEPTH } else { 0 }, &mut found)?;
    Ok(found)
}

fn walk(folder: &Path, below: usize, found: &mut Vec<PathBuf>) -> Result<(), (PathBuf, io::Error)> {
    let at = |error| (folder.to_path_buf(), error);
    let mut entries = folder.read_dir().map_err(at)?.collect::<Result<Vec<_>, _>>().map_err(at)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // The entry's own type: linked folders are not entered, so a walk cannot go in circles.
        let is_folder = entry.file_type().map_err(at)?.is_dir();
        if is_folder && below > 0 {
            walk(&path, below - 1, found)?;
        } else if !is_folder && is_manifest(&path) {
            found.push(path);
        }
    }
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
        && path.is_file()
}

/// The content, or `None` when it is over the bound.
pub(super) fn read(path: &Path, most: usize) -> io::Result<Option<Vec<u8>>> {
    let file = File::open(path)?;
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if size > most {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(size + 1);
    // Bounded again: a pipe or a growing file has no size.
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= most).then_some(bytes))
}
