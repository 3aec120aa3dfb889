//! Tells that manifests may have changed. Folders are watched, not files: editors replace files, and a replaced file
//! is another one. Bursts count once; hidden names (editors' own files, `.gateway`) do not count.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// How long it must be quiet after a change.
const QUIET: Duration = Duration::from_millis(100);

/// A watch on some files and folders.
#[derive(Debug)]
pub(super) struct Changes {
    changed: Arc<Notify>,
    /// Watches as long as it lives.
    _watcher: RecommendedWatcher,
}

impl Changes {
    /// Watches these files and folders.
    pub(super) fn of(paths: &[PathBuf], recursive: bool) -> notify::Result<Self> {
        let changed = Arc::new(Notify::new());
        let mut folders: Vec<PathBuf> = Vec::new();
        for path in paths {
            let path = path.canonicalize().map_err(notify::Error::io)?;
            let folder =
                if path.is_dir() { path } else { path.parent().map_or_else(PathBuf::new, Path::to_path_buf) };
            folders.push(folder);
        }
        let notifier = Arc::clone(&changed);
        let roots = folders.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error may stand for events that were lost.
            if event.map_or(true, |event| counts(&event, &roots)) {
                notifier.notify_one();
            }
        })?;
        let mode = if recursive { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        for folder in &folders {
            watcher.watch(folder, mode)?;
        }
        Ok(Changes { changed, _watcher: watcher })
    }

    /// Waits for the next change, and until it is quiet.
    pub(super) async fn next(&self) {
        self.changed.notified().await;
        while tokio::time::timeout(QUIET, self.changed.notified()).await.is_ok() {}
    }
}

/// Reading is no change, and neither is what happens to hidden names.
fn counts(event: &Event, roots: &[PathBuf]) -> bool {
    let hidden = |path: &PathBuf| {
        let below = roots.iter().find_map(|root| path.strip_prefix(root).ok()).unwrap_or(path);
        below.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
    };
    !event.kind.is_access() && !event.paths.iter().all(hidden)
}

#[cfg(test)]
mod tests {
    use notify::EventKind;
    use notify::event::{AccessKind, CreateKind};

    use super::*;

    #[test]
    fn reads_and_hidden_names_do_not_count() {
        let roots = [PathBuf::from("/home/.config/shop")];
        let event = |kind, path: &str| Event::new(kind).add_path(path.into());
        let create = EventKind::Create(CreateKind::File);
        assert!(counts(&event(create, "/home/.config/shop/a.yaml"), &roots));
        assert!(!counts(&event(create, "/home/.config/shop/.a.yaml.swp"), &roots));
        assert!(!counts(&event(create, "/home/.config/shop/.gateway/gateway.db"), &roots));
        assert!(!counts(&event(EventKind::Access(AccessKind::Any), "/home/.config/shop/a.yaml"), &roots));
    }

    #[tokio::test]
    async fn a_replaced_file_is_a_change() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, "a").expect("written");
        let changes = Changes::of(std::slice::from_ref(&file), false).expect("it can be watched");
        std::fs::write(folder.path().join("new"), "b").expect("written");
        std::fs::rename(folder.path().join("new"), &file).expect("replaced");
        tokio::time::timeout(Duration::from_secs(10), changes.next()).await.expect("it is noticed");
    }
}
