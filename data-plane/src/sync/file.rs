//! Standalone: the configuration is a file, or the manifests of a folder, loaded again when they change and on SIGHUP.
//! A load is taken whole or not at all; what is wrong is logged with file, line and column, and the old serves on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gateway_engine::compile::{Change, compile};
use gateway_engine::engine::Engine;
use gateway_engine::identity::{check_credentials, digest_of};
use gateway_engine::manifest::{self, Class, Document, ManifestError, ManifestErrors, Resolver, Written};
use gateway_proto::credential::Grant;
use gateway_proto::field::{Violation, ViolationCode};
use gateway_proto::kind::{Key, Resource};
use gateway_proto::wire;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, interval, timeout_at};

use crate::apply::{Applied, Applier, ApplyError, OnViolation, RETRY_EVERY, Scope, Update};

/// Editors and mounts change files in several steps: load when nothing has moved for this long ...
const QUIET: Duration = Duration::from_millis(50);
/// ... or when it does not stop moving.
const AT_MOST: Duration = Duration::from_secs(1);

/// A configuration in files.
#[derive(Debug)]
pub(crate) struct Files {
    path: PathBuf,
    loads: u64,
    /// Told by SIGHUP.
    reload: Arc<Notify>,
    changed: mpsc::Receiver<()>,
    /// Kept for as long as changes are wanted; `None`: the system cannot watch.
    _watcher: Option<RecommendedWatcher>,
}

impl Files {
    /// Watches from now on, so that no change between the first load and the first wait is missed.
    pub(crate) fn watch(path: PathBuf, reload: Arc<Notify>) -> Self {
        // One that waits is as good as many.
        let (tell, changed) = mpsc::channel(1);
        let watcher = watcher(&path, tell)
            .inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "cannot watch the manifests: they are loaded again on SIGHUP only");
            })
            .ok();
        Files { path, loads: 0, reload, changed, _watcher: watcher }
    }

    /// Loads once.
    ///
    /// # Errors
    /// Everything that is wrong, with positions; nothing was applied.
    pub(crate) async fn load(&mut self, applier: &mut Applier) -> Result<Applied, ManifestErrors> {
        let path = self.path.clone();
        let read = move || manifest::load(&[path], false, &Resolver::environment());
        let documents = tokio::task::spawn_blocking(read).await.expect("reading manifests does not panic")?;
        let mut places = Vec::with_capacity(documents.len());
        let resource = |Document { resource, written }| {
            places.push((resource.key(), written));
            resource.canonical()
        };
        let resources: Vec<Resource> = documents.into_iter().map(resource).collect();
        let (changes, grants) = match checked(resources) {
            Ok(checked) => checked,
            Err(violations) => return Err(located(&places, &violations)),
        };
        let update = Update {
            scope: Scope::Full,
            epoch: Arc::default(),
            revision: self.loads + 1,
            changes,
            unreadable: Vec::new(),
            gone: Vec::new(),
            allow_shrink: false,
            on_violation: OnViolation::Refuse,
        };
        match applier.apply(update).await {
            Ok(applied) => {
                self.loads += 1;
                applier.engine().keys().set(grants);
                applier.refresh_readiness();
                // Taken all the same: listeners whose port is not to be had.
                for reject in &applied.refused {
                    tracing::error!("{reject}");
                }
                Ok(applied)
            }
            Err(ApplyError::Violations(violations)) => Err(located(&places, &violations)),
            Err(error @ (ApplyError::Backwards { .. } | ApplyError::EpochShrink { .. })) => {
                unreachable!("loads count up in one epoch: {error}")
            }
        }
    }

    /// Loads again whenever there is cause to. Never returns.
    pub(crate) async fn run(mut self, mut applier: Applier) {
        let mut retry = interval(RETRY_EVERY);
        loop {
            let asked = tokio::select! {
                () = self.reload.notified() => true,
                Some(()) = self.changed.recv() => false,
                _ = retry.tick(), if applier.has_retryable() => {
                    applier.retry().await;
                    continue;
                }
            };
            self.settle().await;
            match self.load(&mut applier).await {
                Ok(applied) if asked || !applied.changed.is_empty() => {
                    let changed = &applied.changed;
                    tracing::info!(
                        revision = applier.cursor().revision,
                        added = changed.added.len(),
                        updated = changed.updated.len(),
                        removed = changed.removed.len(),
                        "manifests loaded"
                    );
                }
                Ok(_) => {}
                Err(errors) => {
                    applier.note_refused();
                    tracing::error!("manifests not taken, the old configuration serves on:\n{errors}");
                }
            }
        }
    }

    /// Waits until the files have come to rest.
    async fn settle(&mut self) {
        let end = Instant::now() + AT_MOST;
        while timeout_at(end.min(Instant::now() + QUIET), self.changed.recv())
            .await
            .is_ok_and(|more| more.is_some())
        {
            if Instant::now() >= end {
                return;
            }
        }
    }
}

/// The configuration, and the keys that its credentials make good.
fn checked(resources: Vec<Resource>) -> Result<(Vec<Change>, Vec<Grant>), Vec<Violation>> {
    let (mut changes, mut credentials) = (Vec::new(), Vec::new());
    let discovered: Vec<Violation> = resources.iter().filter_map(undiscovered).collect();
    if !discovered.is_empty() {
        return Err(discovered);
    }
    for resource in resources {
        match resource {
            Resource::Credential(credential) => credentials.push(credential),
            resource => changes.push(Change::Upsert(resource)),
        }
    }
    if credentials.is_empty() {
        return Ok((changes, Vec::new()));
    }
    // What is wrong with the rest is told by those who take it.
    let Ok(compiled) = compile(&Engine::default(), changes.clone()) else { return Ok((changes, Vec::new())) };
    let grants = check_credentials(&compiled.engine, credentials.iter())?;
    let without = credentials.iter().filter(|it| has_no_key(it)).map(|it| Violation {
        object: Resource::from((*it).clone()).key(),
        field: "spec.apiKey".to_owned(),
        code: ViolationCode::Required,
        message: "without a control plane nobody keeps its key: give sha256, or the key from the environment"
            .to_owned(),
    });
    let without: Vec<Violation> = without.collect();
    if without.is_empty() { Ok((changes, grants)) } else { Err(without) }
}

/// What is wrong with an upstream that nobody finds targets for.
fn undiscovered(resource: &Resource) -> Option<Violation> {
    let Resource::Upstream(upstream) = resource else { return None };
    upstream.spec.as_ref()?.discovery.as_ref()?;
    Some(Violation {
        object: resource.key(),
        field: "spec.discovery".to_owned(),
        code: ViolationCode::Conflict,
        message: "it is the control plane that reads sources: without one give targets".to_owned(),
    })
}

fn has_no_key(credential: &wire::Credential) -> bool {
    let key = credential.spec.as_ref().and_then(|spec| spec.api_key.as_ref());
    key.and_then(digest_of).is_none()
}

fn watcher(path: &Path, tell: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files is an event too.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // Full: one is waiting already.
            let _waiting = tell.try_send(());
        }
    })?;
    // A file is often replaced by another one under its name, which only its folder notices.
    let folder = match path.parent() {
        _ if path.is_dir() => path,
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// The violations as errors in the files.
fn located(places: &[(Key, Written)], violations: &[Violation]) -> ManifestErrors {
    let kept = &violations[..violations.len().min(manifest::MAX_ERRORS)];
    let errors = kept.iter().map(|violation| {
        let written = places.iter().find(|(key, _)| *key == violation.object);
        let at = written
            .map(|(_, written)| (written.source().name().to_owned(), written.excerpt(&violation.field)));
        let (file, at) = at.unzip();
        ManifestError {
            class: Class::Invalid,
            file: file.unwrap_or_else(|| violation.object.to_string()),
            at,
            message: violation.to_string(),
            help: None,
            note: None,
        }
    });
    ManifestErrors { errors: errors.collect(), more: violations.len() - kept.len() }
}
