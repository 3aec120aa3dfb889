//! The folder that belongs to one process: mode 0700, and locked for as long as the process lives, so that a second
//! one on it refuses to start. It keeps what a restart must find again: the node's name, the snapshot key, the last
//! good snapshots. A file in it is written whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rand::RngExt as _;

/// A folder made, closed to others and locked; dropping it unlocks.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another process has it.
    #[error("the state directory {0} is in use by another process: stop it or give another --state-dir")]
    InUse(PathBuf),
    /// The file system refuses.
    #[error("cannot use {path} in the state directory: {source}")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl StateDir {
    /// Makes the folder if it is missing, closes it to others and locks it.
    ///
    /// # Errors
    /// [`StateDirError::InUse`] when another process holds the lock.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let io = |source| StateDirError::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(io)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(path.join("lock")).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(StateDir { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateDirError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a file; `None` when there is none.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateDirError> {
        let path = self.path.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateDirError::Io { path, source }),
        }
    }

    /// Writes a file of mode 0600, whole or not at all: also after a power cut it is the old or the new one.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateDirError> {
        let (path, draft) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&draft, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| StateDirError::Io { path: path.clone(), source })
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove(&self, name: &str) -> Result<(), StateDirError> {
        let path = self.path.join(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StateDirError::Io { path, source })
            }
            _ => Ok(()),
        }
    }

    /// The name that this process keeps: host name and four hex digits, chosen at the first start.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn node(&self) -> Result<String, StateDirError> {
        if let Some(kept) = self.read("node")?
            && let Ok(kept) = String::from_utf8(kept)
            && !kept.trim().is_empty()
        {
            return Ok(kept.trim().to_owned());
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "data-plane" } else { host.trim() };
        let node = format!("{host}-{:04x}", rand::rng().random::<u16>());
        self.write("node", node.as_bytes())?;
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_on_the_same_folder_refuses_until_the_first_is_gone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a/b");
        let first = StateDir::open(&path).expect("made");
        assert!(matches!(StateDir::open(&path), Err(StateDirError::InUse(_))));
        drop(first);
        assert!(StateDir::open(&path).is_ok());
    }

    #[test]
    fn folder_and_files_are_closed_to_others() {
        let dir = tempfile::tempdir().expect("a folder");
        let state = StateDir::open(&dir.path().join("s")).expect("made");
        state.write("x", b"secret").expect("written");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(state.path()), mode(&state.path().join("x"))), (0o700, 0o600));
        assert_eq!(state.read("x").expect("read").as_deref(), Some(&b"secret"[..]));
        assert!(state.read("y").expect("no fault").is_none());
    }

    #[test]
    fn the_node_name_survives_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = StateDir::open(dir.path()).expect("opened").node().expect("chosen");
        let digits = first.rsplit('-').next().expect("digits");
        assert!(digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{first}");
        assert_eq!(StateDir::open(dir.path()).expect("opened").node().expect("kept"), first);
    }
}
