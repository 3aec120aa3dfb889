//! One process to a SQLite file. Two control planes on one file would each take the other's commits for its own
//! history being rewritten, and neither would hear of them in time; the state directory's lock does not see a file
//! that `--database-url` puts elsewhere. Handles of one process (tests, replicas played in one) share the lock.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::cannot_open;
use crate::store::StoreError;

/// The locks of this process, and how many handles share each.
static HELD: Mutex<BTreeMap<PathBuf, (File, usize)>> = Mutex::new(BTreeMap::new());

/// A handle's share in the lock of its file.
#[derive(Debug)]
pub(in crate::store) struct FileLock(PathBuf);

impl FileLock {
    /// Takes the lock beside a database file that exists.
    ///
    /// # Errors
    /// [`StoreError::Open`] when another process holds it.
    pub(super) fn take(database: &Path) -> Result<Self, StoreError> {
        let io = |error: std::io::Error| cannot_open(database, &error.to_string());
        let mut path = database.canonicalize().map_err(io)?.into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, handles)) = held.get_mut(&path) {
            *handles += 1;
            return Ok(FileLock(path));
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {
                held.insert(path.clone(), (file, 1));
                Ok(FileLock(path))
            }
            Err(TryLockError::WouldBlock) => Err(StoreError::Open(format!(
                "{} is in use by another process: a SQLite file serves one control plane; stop the other, or give \
                 several a PostgreSQL server with --database-url",
                database.display()
            ))),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, handles)) = held.get_mut(&self.0) {
            *handles -= 1;
            if *handles == 0 {
                held.remove(&self.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_another_process_has_is_refused_until_it_is_gone() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let database = directory.path().join("gateway.db");
        std::fs::write(&database, "").expect("written");
        // A lock of its own on the same file is what another process has.
        let other = File::create(directory.path().join("gateway.db.lock")).expect("made");
        other.try_lock().expect("free");
        let error = FileLock::take(&database).expect_err("taken").to_string();
        assert!(error.contains("another process") && error.contains("PostgreSQL"), "{error}");
        drop(other);
        let first = FileLock::take(&database).expect("free");
        let second = FileLock::take(&database).expect("of the same process");
        let other = File::open(directory.path().join("gateway.db.lock")).expect("there");
        drop(first);
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(second);
        other.try_lock().expect("free again");
    }
}
