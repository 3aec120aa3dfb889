//! The folder that belongs to one process: mode 0700, and locked for as long as the process lives, so that a second
//! one on it refuses to start instead of mixing its files with ours.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

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
    #[error("cannot use the state directory {path}: {source}")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
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
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(io)?;
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

    /// What a secret's file holds, without the white space around it; `None`: there is no such file.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn read_secret(&self, name: &str) -> Result<Option<String>, StateDirError> {
        let path = self.path.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateDirError::Io { path, source }),
        }
    }

    /// Gives a secret's file another name, at once; returns where it is.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn rename_secret(&self, from: &str, to: &str) -> Result<PathBuf, StateDirError> {
        let path = self.path.join(to);
        match std::fs::rename(self.path.join(from), &path).and_then(|()| self.settle()) {
            Ok(()) => Ok(path),
            Err(source) => Err(StateDirError::Io { path, source }),
        }
    }

    /// Removes a secret's file.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove_secret(&self, name: &str) -> Result<(), StateDirError> {
        let path = self.path.join(name);
        std::fs::remove_file(&path).map_err(|source| StateDirError::Io { path, source })
    }

    /// Writes a secret into a file of mode 0600, whole or not at all, and returns where it is. It is on the disk then:
    /// the store, which may lie on another one, can be made to depend on it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write_secret(&self, name: &str, text: &str) -> Result<PathBuf, StateDirError> {
        let path = self.path.join(name);
        let draft = self.path.join(format!("{name}.new"));
        let write = || {
            // A draft left by a crash could be readable by others: never written into, always made anew.
            match std::fs::remove_file(&draft) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            std::fs::rename(&draft, &path)?;
            self.settle()
        };
        write().map_err(|source| StateDirError::Io { path: path.clone(), source })?;
        Ok(path)
    }

    /// A file's new name survives a power loss only once its folder is written out.
    fn settle(&self) -> std::io::Result<()> {
        File::open(&self.path)?.sync_all()
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
    fn folder_and_secrets_are_closed_to_others() {
        let dir = tempfile::tempdir().expect("a folder");
        let state = StateDir::open(&dir.path().join("s")).expect("made");
        std::fs::write(state.path().join("admin-token.new"), "left by a crash").expect("written");
        let secret = state.write_secret("admin-token", "abc").expect("written");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(state.path()), mode(&secret)), (0o700, 0o600));
        assert_eq!(std::fs::read_to_string(secret).expect("read"), "abc\n");
    }
}
