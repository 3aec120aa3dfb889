//! Tells that manifests may have changed. Folders are watched, not files: editors replace files, and a replaced file
//! is another one. A folder can be replaced as well (a checkout, a link that is set anew), so the folder that holds it
//! is watched too, and what now has its name is watched from then on. Bursts count once; hidden names (editors' own
//! files, `.gateway`) do not count.

use std::os::unix::fs::MetadataExt as _;
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
    watcher: RecommendedWatcher,
    mode: RecursiveMode,
    folders: Vec<Watched>,
}

/// A folder, and which one it was when the watch on it began.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    identity: Option<Identity>,
}

/// Device and inode.
type Identity = (u64, u64);

impl Changes {
    /// Watches these files and folders.
    pub(super) fn of(paths: &[PathBuf], recursive: bool) -> notify::Result<Self> {
        let changed = Arc::new(Notify::new());
        let folders: Vec<PathBuf> = paths
            .iter()
            .map(|path| folder(path))
            .collect::<std::io::Result<_>>()
            .map_err(notify::Error::io)?;
        let notifier = Arc::clone(&changed);
        let roots = folders.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error may stand for events that were lost.
            if event.map_or(true, |event| counts(&event, &roots)) {
                notifier.notify_one();
            }
        })?;
        let mode = if recursive { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        for parent in folders.iter().filter_map(|folder| folder.parent()) {
            if !folders.iter().any(|folder| folder == parent) {
                // It may belong to somebody else; then a folder that is replaced goes unnoticed.
                let _ = watcher.watch(parent, RecursiveMode::NonRecursive);
            }
        }
        let mut watched = Vec::with_capacity(folders.len());
        for path in folders {
            let identity = identity(&path);
            watcher.watch(&path, mode)?;
            watched.push(Watched { path, identity });
        }
        Ok(Changes { changed, watcher, mode, folders: watched })
    }

    /// Waits for the next change, and until it is quiet.
    pub(super) async fn next(&mut self) {
        self.changed.notified().await;
        while tokio::time::timeout(QUIET, self.changed.notified()).await.is_ok() {}
        self.follow();
    }

    /// Moves the watch to the folders that now have the names of those that were replaced.
    fn follow(&mut self) {
        for folder in &mut self.folders {
            let now = identity(&folder.path);
            if now == folder.identity {
                continue;
            }
            // The watch on what was there may have gone with it.
            let _ = self.watcher.unwatch(&folder.path);
            let is_watched = now.is_some() && self.watcher.watch(&folder.path, self.mode).is_ok();
            folder.identity = now.filter(|_| is_watched);
        }
    }
}

/// The folder to watch. The last part of its name may be a link, which is watched as such.
fn folder(path: &Path) -> std::io::Result<PathBuf> {
    let full = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            parent.canonicalize()?.join(name)
        }
        _ => path.canonicalize()?,
    };
    if full.metadata()?.is_dir() {
        return Ok(full);
    }
    Ok(full.parent().map_or_else(PathBuf::new, Path::to_path_buf))
}

fn identity(path: &Path) -> Option<Identity> {
    path.metadata().ok().map(|it| (it.dev(), it.ino()))
}

/// Reading is no change, and neither is what happens to hidden names or beside the folders.
fn counts(event: &Event, roots: &[PathBuf]) -> bool {
    let shown = |path: &PathBuf| {
        let below = roots.iter().find_map(|root| path.strip_prefix(root).ok());
        below.is_some_and(|below| {
            !below.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
        })
    };
    event.need_rescan() || (!event.kind.is_access() && event.paths.iter().any(shown))
}

#[cfg(test)]
mod tests {
    use notify::EventKind;
    use notify::event::{AccessKind, CreateKind, Flag};

    use super::*;

    async fn noticed(changes: &mut Changes) {
        tokio::time::timeout(Duration::from_secs(10), changes.next()).await.expect("it is noticed");
    }

    #[test]
    fn reads_hidden_names_and_neighbours_do_not_count() {
        let roots = [PathBuf::from("/home/.config/shop")];
        let event = |kind, path: &str| Event::new(kind).add_path(path.into());
        let create = EventKind::Create(CreateKind::File);
        assert!(counts(&event(create, "/home/.config/shop/a.yaml"), &roots));
        assert!(counts(&event(create, "/home/.config/shop"), &roots));
        assert!(!counts(&event(create, "/home/.config/other"), &roots));
        assert!(!counts(&event(create, "/home/.config/shop/.a.yaml.swp"), &roots));
        assert!(!counts(&event(create, "/home/.config/shop/.gateway/gateway.db"), &roots));
        assert!(!counts(&event(EventKind::Access(AccessKind::Any), "/home/.config/shop/a.yaml"), &roots));
        assert!(counts(&Event::new(EventKind::Other).set_flag(Flag::Rescan), &roots), "events were lost");
    }

    #[tokio::test]
    async fn a_replaced_file_is_a_change() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, "a").expect("written");
        let mut changes = Changes::of(std::slice::from_ref(&file), false).expect("it can be watched");
        std::fs::write(folder.path().join("new"), "b").expect("written");
        std::fs::rename(folder.path().join("new"), &file).expect("replaced");
        noticed(&mut changes).await;
    }

    #[tokio::test]
    async fn a_replaced_folder_is_a_change_and_is_watched_from_then_on() {
        for recursive in [false, true] {
            let home = tempfile::tempdir().expect("temporary folder");
            let (folder, old, new) =
                (home.path().join("m"), home.path().join("old"), home.path().join("new"));
            std::fs::create_dir(&folder).expect("made");
            let mut changes = Changes::of(std::slice::from_ref(&folder), recursive).expect("watched");
            std::fs::create_dir(&new).expect("made");
            std::fs::rename(&folder, &old).expect("moved");
            std::fs::rename(&new, &folder).expect("replaced");
            noticed(&mut changes).await;
            std::fs::write(folder.join("a.yaml"), "a").expect("written");
            noticed(&mut changes).await;
            std::fs::remove_dir_all(&folder).expect("removed");
            noticed(&mut changes).await;
            std::fs::create_dir(&folder).expect("made again");
            noticed(&mut changes).await;
            std::fs::write(folder.join("b.yaml"), "b").expect("written");
            noticed(&mut changes).await;
        }
    }

    #[tokio::test]
    async fn a_link_that_is_set_anew_is_a_change_and_is_followed() {
        let home = tempfile::tempdir().expect("temporary folder");
        let at = |name: &str| home.path().join(name);
        for name in ["one", "two"] {
            std::fs::create_dir(at(name)).expect("made");
        }
        std::os::unix::fs::symlink(at("one"), at("link")).expect("linked");
        let mut changes = Changes::of(&[at("link")], false).expect("it can be watched");
        std::os::unix::fs::symlink(at("two"), at("new")).expect("linked");
        std::fs::rename(at("new"), at("link")).expect("set anew");
        noticed(&mut changes).await;
        std::fs::write(at("two").join("a.yaml"), "a").expect("written");
        noticed(&mut changes).await;
    }
}
