//! What a batch comes to on one state of the store: pure, so that a dry run, a diff and a write answer the same.
//! Everything that is wrong is collected before anything is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use gateway_engine::Engine;
use gateway_engine::compile::{self, compile};
use gateway_proto::admin::{Action, DEFAULT_MAX_DELETE, FieldError, Prune};
use gateway_proto::field::{Violation, ViolationCode};
use gateway_proto::kind::{Key, Kind, Resource};

use super::credentials::Rotation;
use super::settle::{Document, Settled};
use crate::secrets::{SecretError, Vault};
use crate::state::State;
use crate::store::{CredentialWrite, Precondition, StoreError, Stored, Write};

/// Most faults that one answer lists.
pub const MAX_ERRORS: usize = 1_000;

/// A wanted change: all of it or nothing.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Objects to create or replace.
    pub documents: Vec<Document>,
    /// Objects to delete; each must exist.
    pub deletes: Vec<Key>,
    /// What else to delete.
    pub prune: Option<Prune>,
    /// The head must be this.
    pub base_revision: Option<u64>,
    /// How the one object of a single write must be.
    pub expected: Expected,
    /// A credential that gets another key.
    pub rotation: Option<Rotation>,
    /// Keys that were revoked or rotated may be good again.
    pub revives_keys: bool,
}

impl Default for Batch {
    fn default() -> Self {
        Batch {
            documents: Vec::new(),
            deletes: Vec::new(),
            prune: None,
            base_revision: None,
            expected: Precondition::Any,
            rotation: None,
            revives_keys: false,
        }
    }
}

impl Batch {
    /// It is about credentials and nothing else: no revision comes of it.
    pub fn is_apart(&self) -> bool {
        let documents = self.documents.iter().map(Document::key);
        self.prune.is_none() && documents.chain(&self.deletes).all(|key| key.kind == Kind::Credential)
    }
}

/// How an object must be before it is written (HTTP If-Match).
pub type Expected = Precondition;

/// What happens to one object.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The object.
    pub key: Key,
    /// What happens.
    pub action: Action,
    /// As it was.
    pub before: Option<Arc<Stored>>,
    /// As it will be.
    pub after: Option<Resource>,
}

/// A batch worked out on a state.
#[derive(Debug)]
pub struct Plan {
    /// What happens to each object, in the order of the batch, prunes last.
    pub changes: Vec<Planned>,
    /// What was accepted but looks wrong.
    pub warnings: Vec<FieldError>,
    /// What has to be written; empty when nothing changes.
    pub writes: Vec<Write>,
    /// The same for credentials.
    pub credentials: Vec<CredentialWrite>,
    /// The state after it, compiled.
    pub engine: Engine,
}

/// Why a change is not made.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Faults in the documents or in the request.
    #[error("the configuration is not valid")]
    Invalid(Vec<FieldError>),
    /// Objects that others refer to would go.
    #[error("objects to be deleted are in use")]
    InUse(Vec<FieldError>),
    /// `baseRevision` is not the head.
    #[error("the head is revision {head}, not {base}: look at what changed since, then try again on it")]
    StaleBase {
        /// What was given.
        base: u64,
        /// What it is.
        head: u64,
    },
    /// The object is not as `If-Match` wants it.
    #[error("{key} is not as expected: expected {expected}, found {}", found.map_or_else(|| "none".to_owned(), |revision| format!("revision {revision}")))]
    Precondition {
        /// The object.
        key: Key,
        /// What was expected.
        expected: Precondition,
        /// What it is.
        found: Option<u64>,
    },
    /// A backup is to be restored where something is.
    #[error("the store holds {0} objects: restore into an empty one, or say that they may be replaced")]
    NotEmpty(usize),
    /// There is no such object.
    #[error("there is no {0}")]
    NotFound(Key),
    /// Other writers moved the head at every try.
    #[error("other writers were faster each time: try again")]
    Contended,
    /// Writers before it take too long.
    #[error("other writes are under way and took too long: try again in a moment")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SecretError> for Refusal {
    fn from(error: SecretError) -> Self {
        Refusal::Store(match error {
            SecretError::Store(error) => error,
            damaged @ (SecretError::Damaged { .. } | SecretError::Authority(_)) => {
                StoreError::Broken(damaged.to_string())
            }
            // Somebody has to give the replicas the right keys.
            wrong @ (SecretError::UnknownMaster(_) | SecretError::Overtaken) => {
                StoreError::Unavailable(wrong.to_string())
            }
        })
    }
}

impl Plan {
    /// Works a batch out on a state.
    ///
    /// # Errors
    /// Every reason but `Contended` and `Busy`. What the batch says of credentials is not looked at.
    pub fn make(state: &State, batch: &Batch, vault: &Vault) -> Result<Plan, Refusal> {
        check_base(state, batch)?;
        check_expected(state, batch)?;
        let index = check_documents(batch)?;
        let mut changes = Vec::with_capacity(batch.documents.len());
        let mut writes = Vec::new();
        let mut edits = Vec::new();
        for (document, settled) in batch.documents.iter().zip(settle(state, batch, vault)?) {
            let Some(Settled { resource, write, secrets }) = settled else { continue };
            let before = state.objects.get(document.key());
            let action = match before {
                None => Action::Created,
                Some(stored) if same(stored, &write) => Action::Unchanged,
                Some(_) => Action::Updated,
            };
            if action != Action::Unchanged {
                writes.push(write);
                edits.push(compile::Change::Sealed(resource.clone(), secrets));
            }
            let (key, before) = (document.key().clone(), before.cloned());
            changes.push(Planned { key, action, before, after: Some(resource) });
        }
        for key in doomed(state, batch, &index)? {
            let before = state.objects.get(&key).ok_or_else(|| Refusal::NotFound(key.clone()))?;
            writes.push(Write::delete(key.clone(), Precondition::Any));
            edits.push(compile::Change::Delete(key.clone()));
            changes.push(Planned {
                key,
                action: Action::Deleted,
                before: Some(Arc::clone(before)),
                after: None,
            });
        }
        let compiled = compile(&state.engine, edits).map_err(|violations| refused(violations, &index))?;
        let warnings = located(compiled.warnings, &index);
        Ok(Plan { changes, warnings, writes, credentials: Vec::new(), engine: compiled.engine })
    }
}

fn same(stored: &Stored, write: &Write) -> bool {
    write.content().is_some_and(|content| content.hash() == stored.hash)
}

/// Every document as it will be stored.
fn settle(state: &State, batch: &Batch, vault: &Vault) -> Result<Vec<Option<Settled>>, Refusal> {
    let mut settled = Vec::with_capacity(batch.documents.len());
    let mut faults = Vec::new();
    for (at, document) in batch.documents.iter().enumerate() {
        match document.settle(state, vault) {
            Ok(one) => settled.push(one),
            Err(fault) => faults.push(FieldError { index: u32::try_from(at).ok(), ..fault }),
        }
    }
    if faults.is_empty() { Ok(settled) } else { Err(Refusal::Invalid(bounded(faults))) }
}

fn check_base(state: &State, batch: &Batch) -> Result<(), Refusal> {
    match batch.base_revision {
        Some(base) if base != state.head.revision => {
            Err(Refusal::StaleBase { base, head: state.head.revision })
        }
        _ => Ok(()),
    }
}

fn check_expected(state: &State, batch: &Batch) -> Result<(), Refusal> {
    let named = batch.documents.first().map(Document::key).or(batch.deletes.first());
    let Some(key) = named.filter(|key| key.kind != Kind::Credential) else { return Ok(()) };
    let found = state.objects.get(key).map(|stored| stored.revision);
    if batch.expected.holds(found) {
        Ok(())
    } else {
        Err(Refusal::Precondition { key: key.clone(), expected: batch.expected, found })
    }
}

/// Index of each document in the batch; refuses an object that is named twice or does not carry the labels of a prune.
fn check_documents(batch: &Batch) -> Result<HashMap<Key, u32>, Refusal> {
    let mut faults = Vec::new();
    let mut index = HashMap::with_capacity(batch.documents.len());
    if let Some(prune) = &batch.prune
        && prune.labels.is_empty()
    {
        let message = "must not be empty: a prune without labels would delete everything else".to_owned();
        faults.push(FieldError {
            object: None,
            index: None,
            field: "prune.labels".into(),
            code: ViolationCode::Required,
            message,
        });
    }
    for (at, document) in batch.documents.iter().enumerate() {
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        let key = document.key();
        let mut fault = |field: &str, code, message| {
            faults.push(FieldError {
                object: Some(key.clone()),
                index: Some(at),
                field: field.to_owned(),
                code,
                message,
            });
        };
        if let Some(first) = index.insert(key.clone(), at) {
            fault("", ViolationCode::Duplicate, format!("is also document {first} of the batch"));
        }
        let missing =
            batch.prune.iter().flat_map(|prune| &prune.labels).find(|(label, value)| {
                labels(document).and_then(|labels| labels.get(*label)) != Some(*value)
            });
        if let Some((label, value)) = missing {
            let message = format!(
                "has no label {label}={value}, which every object of a batch that prunes by it must carry"
            );
            fault("metadata.labels", ViolationCode::Required, message);
        }
    }
    let mut doomed = HashSet::with_capacity(batch.deletes.len());
    for key in &batch.deletes {
        let message = match index.get(key) {
            Some(at) => format!("is to be deleted, but is also document {at} of the batch"),
            None if !doomed.insert(key) => "is named twice in deletes".to_owned(),
            None => continue,
        };
        faults.push(FieldError {
            object: Some(key.clone()),
            index: None,
            field: String::new(),
            code: ViolationCode::Duplicate,
            message,
        });
    }
    if faults.is_empty() { Ok(index) } else { Err(Refusal::Invalid(bounded(faults))) }
}

fn labels(document: &Document) -> Option<&BTreeMap<String, String>> {
    document.resource().metadata().map(|metadata| &metadata.labels)
}

/// What the batch deletes: what it names, and what its prune finds in its namespaces.
fn doomed(state: &State, batch: &Batch, index: &HashMap<Key, u32>) -> Result<Vec<Key>, Refusal> {
    let mut doomed = batch.deletes.clone();
    doomed.retain(|key| key.kind != Kind::Credential);
    let Some(prune) = &batch.prune else { return Ok(doomed) };
    let named: HashSet<&Key> = batch.deletes.iter().collect();
    let namespaces: BTreeSet<&str> = batch.documents.iter().map(|it| it.key().namespace.as_str()).collect();
    let carries = |stored: &Stored| {
        Resource::decode(stored.key.kind, &stored.body).is_ok_and(|resource| {
            let labels = resource.metadata().map(|metadata| &metadata.labels);
            prune
                .labels
                .iter()
                .all(|(label, value)| labels.and_then(|labels| labels.get(label)) == Some(value))
        })
    };
    let pruned: Vec<Key> = state
        .objects
        .iter()
        .filter(|(key, _)| namespaces.contains(key.namespace.as_str()))
        .filter(|(key, _)| !index.contains_key(key) && !named.contains(key))
        .filter(|(_, stored)| carries(stored))
        .map(|(key, _)| key.clone())
        .collect();
    // What the batch names is meant; the bound is for what nobody named.
    let most = prune.max_delete.unwrap_or(DEFAULT_MAX_DELETE) as usize;
    if pruned.len() <= most {
        doomed.extend(pruned);
        return Ok(doomed);
    }
    let first = pruned.iter().take(5).map(Key::to_string).collect::<Vec<_>>().join(", ");
    let message = format!(
        "would delete {} objects ({first}, ...), at most {most} are allowed: raise maxDelete if that is meant",
        pruned.len()
    );
    let field = "prune.maxDelete".to_owned();
    Err(Refusal::Invalid(vec![FieldError {
        object: None,
        index: None,
        field,
        code: ViolationCode::OutOfRange,
        message,
    }]))
}

fn refused(violations: Vec<Violation>, index: &HashMap<Key, u32>) -> Refusal {
    let in_use = violations.iter().all(|violation| violation.code == ViolationCode::InUse);
    let errors = located(violations, index);
    if in_use { Refusal::InUse(errors) } else { Refusal::Invalid(errors) }
}

/// Violations as the API tells them: with the index of the document in the batch.
fn located(violations: Vec<Violation>, index: &HashMap<Key, u32>) -> Vec<FieldError> {
    let errors = violations.into_iter().map(|violation| {
        let index = index.get(&violation.object).copied();
        FieldError { index, ..FieldError::from(violation) }
    });
    bounded(errors.take(MAX_ERRORS + 1).collect())
}

/// At most [`MAX_ERRORS`]; the last one says that there are more.
pub fn bounded(mut errors: Vec<FieldError>) -> Vec<FieldError> {
    if errors.len() > MAX_ERRORS {
        errors.truncate(MAX_ERRORS - 1);
        errors.push(FieldError {
            object: None,
            index: None,
            field: String::new(),
            code: ViolationCode::OutOfRange,
            message: format!("there are more faults than the {MAX_ERRORS} that are listed"),
        });
    }
    errors
}
