//! The credentials of a batch: worked out against what is stored of them, checked against the configuration that the
//! batch makes, written by the same transaction as that, or by one of their own that concerns no revision.
//!
//! Invariant: the text of a key ends here; what goes on is its digest.

use std::collections::HashMap;
use std::sync::Arc;

use gateway_engine::Engine;
use gateway_engine::identity::{check_credential, digest_of};
use gateway_proto::admin::{Action, FieldError};
use gateway_proto::credential::{Grant, KeyDigest};
use gateway_proto::field::ViolationCode;
use gateway_proto::kind::{Key, Kind, Resource};
use gateway_proto::wire;
use jiff::{SignedDuration, Timestamp};

use super::plan::{Batch, Planned, Refusal, bounded};
use crate::store::{CredentialContent, CredentialWrite, Precondition, Store, StoreError, Stored};

/// Another key in the place of the one that a credential has.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The credential; it must exist.
    pub key: Key,
    /// The new key.
    pub digest: KeyDigest,
    /// How long the old one is taken beside it.
    pub grace: SignedDuration,
}

/// What becomes of the credentials.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    pub(super) changes: Vec<Planned>,
    pub(super) writes: Vec<CredentialWrite>,
    revives: bool,
}

/// One that is wanted.
enum Wanted<'b> {
    Put(u32, &'b wire::Credential),
    Rotated(&'b Rotation),
    Gone,
}

/// Works the credentials of a batch out. `engine` is the configuration as the batch makes it.
pub(super) async fn plan(
    store: &dyn Store,
    engine: &Engine,
    batch: &Batch,
    most: u64,
) -> Result<Credentials, Refusal> {
    let wanted = wanted(batch);
    if wanted.is_empty() {
        return Ok(Credentials::default());
    }
    let keys = wanted.iter().map(|(key, _)| (*key).clone()).collect();
    let stored = store.credentials(keys).await?.into_iter();
    let stored: HashMap<Key, Arc<Stored>> = stored.map(|it| (it.key.clone(), Arc::new(it))).collect();
    if let ([(key, _)], true) = (&*wanted, batch.documents.len() + batch.deletes.len() <= 1) {
        let found = stored.get(*key).map(|stored| stored.revision);
        if !batch.expected.holds(found) {
            return Err(Refusal::Precondition { key: (*key).clone(), expected: batch.expected, found });
        }
    }
    let mut credentials = Credentials { revives: batch.revives_keys, ..Credentials::default() };
    let mut faults = Vec::new();
    for (key, wanted) in wanted {
        let before = stored.get(key);
        let (index, credential) = match wanted {
            Wanted::Gone => {
                let before = before.ok_or_else(|| Refusal::NotFound(key.clone()))?;
                credentials.push(key, Action::Deleted, Some(before), None);
                continue;
            }
            Wanted::Put(index, wanted) => (Some(index), settled(wanted, before, batch.revives_keys)?),
            Wanted::Rotated(rotation) => {
                let before = before.ok_or_else(|| Refusal::NotFound(key.clone()))?;
                (None, rotated(rotation, decode(before)?))
            }
        };
        match check_credential(engine, &credential) {
            Err(violations) => {
                faults.extend(violations.into_iter().map(|it| FieldError { index, ..FieldError::from(it) }));
            }
            Ok(grants) => credentials.put(key, credential, grants, before),
        }
    }
    faults.extend(credentials.too_many(store, most).await?);
    if faults.is_empty() { Ok(credentials) } else { Err(Refusal::Invalid(bounded(faults))) }
}

fn wanted(batch: &Batch) -> Vec<(&Key, Wanted<'_>)> {
    let puts = batch.documents.iter().zip(0..).filter_map(|(document, at)| match document.resource() {
        Resource::Credential(it) => Some((document.key(), Wanted::Put(at, it))),
        _ => None,
    });
    let gone = batch.deletes.iter().filter(|key| key.kind == Kind::Credential);
    let rotated = batch.rotation.iter().map(|rotation| (&rotation.key, Wanted::Rotated(rotation)));
    puts.chain(gone.map(|key| (key, Wanted::Gone))).chain(rotated).collect()
}

/// As it will be stored: the key by its digest, and what is not said as it is stored.
fn settled(
    wanted: &wire::Credential,
    before: Option<&Arc<Stored>>,
    revives: bool,
) -> Result<wire::Credential, Refusal> {
    let mut credential = wanted.clone();
    let Some(key) = credential.spec.as_mut().and_then(|spec| spec.api_key.as_mut()) else {
        return Ok(credential);
    };
    let former = before.map(|before| decode(before)).transpose()?;
    let former = former.and_then(|it| it.spec?.api_key).unwrap_or_default();
    // One that has not the form of a key is refused as it is.
    let is_key = gateway_proto::credential::is_key(key.key.as_bytes());
    if is_key && key.sha256.is_empty() {
        key.sha256 = digest_of(key).map(|digest| digest.to_string()).unwrap_or_default();
    }
    if (is_key && digest_of(key) == KeyDigest::from_hex(&key.sha256))
        || key.key == gateway_proto::secret::MASK
    {
        key.key.clear();
    }
    if key.sha256.is_empty() && key.key.is_empty() {
        key.sha256.clone_from(&former.sha256);
    }
    key.sha256.make_ascii_lowercase();
    if let Some(before) = before.filter(|_| !revives && is_retiring(&former, &key.sha256)) {
        return Err(spent(before.key.clone()));
    }
    // Output only: what is said of it is not looked at.
    let same = key.sha256 == former.sha256;
    (key.retiring_sha256, key.retiring_until) =
        if same { (former.retiring_sha256, former.retiring_until) } else { Default::default() };
    Ok(credential)
}

/// Whether a manifest names the key that another has taken the place of.
fn is_retiring(former: &wire::ApiKey, named: &str) -> bool {
    !named.is_empty() && named != former.sha256 && named == former.retiring_sha256
}

fn rotated(rotation: &Rotation, mut credential: wire::Credential) -> wire::Credential {
    let key = credential.spec.get_or_insert_default().api_key.get_or_insert_default();
    let former = std::mem::replace(&mut key.sha256, rotation.digest.to_string());
    let keeps = !former.is_empty() && rotation.grace > SignedDuration::ZERO;
    let end = Timestamp::now().checked_add(rotation.grace).ok().filter(|_| keeps);
    let end = end.and_then(|end| Timestamp::from_second(end.as_second()).ok());
    (key.retiring_sha256, key.retiring_until) = match end {
        Some(end) => (former, end.to_string()),
        None => Default::default(),
    };
    credential
}

pub(super) fn decode(stored: &Stored) -> Result<wire::Credential, StoreError> {
    match Resource::decode(Kind::Credential, &stored.body) {
        Ok(Resource::Credential(credential)) => Ok(credential),
        _ => Err(StoreError::Broken(format!("{} cannot be read", stored.key))),
    }
}

/// A fault of a key that another credential has.
pub(super) fn taken(key: Key) -> Refusal {
    let message = "this key is good by another credential already: every credential has its own".to_owned();
    Refusal::Invalid(vec![FieldError {
        object: Some(key),
        index: None,
        field: "spec.apiKey".to_owned(),
        code: ViolationCode::Duplicate,
        message,
    }])
}

/// A fault of a key that was good once.
pub(super) fn spent(key: Key) -> Refusal {
    let message = "this key was revoked or rotated, as an old manifest may not know: leave it out (`apiKey: {}`) to keep the \
                   key there is, make another with `gatewayctl key rotate`, or say with --revive-keys that it is to be \
                   good again"
        .to_owned();
    Refusal::Invalid(vec![FieldError {
        object: Some(key),
        index: None,
        field: "spec.apiKey".to_owned(),
        code: ViolationCode::Conflict,
        message,
    }])
}

/// A consumer that is deleted has a credential.
pub(super) fn in_use(consumer: Key, credential: &Key) -> Refusal {
    let message = format!("{consumer} is in use by {credential}; delete its credentials first, or with it");
    Refusal::InUse(vec![FieldError {
        object: Some(consumer),
        index: None,
        field: String::new(),
        code: ViolationCode::InUse,
        message,
    }])
}

impl Credentials {
    /// More than may be kept. What others write at this moment is not counted: the bound is on what grows without end.
    async fn too_many(&self, store: &dyn Store, most: u64) -> Result<Option<FieldError>, StoreError> {
        let count = |action| self.changes.iter().filter(|change| change.action == action).count() as u64;
        let (new, gone) = (count(Action::Created), count(Action::Deleted));
        if new <= gone {
            return Ok(None);
        }
        let now = store.credential_count().await?;
        Ok((now + new > most + gone).then(|| FieldError {
            object: self.changes.iter().find(|it| it.action == Action::Created).map(|it| it.key.clone()),
            index: None,
            field: String::new(),
            code: ViolationCode::OutOfRange,
            message: format!(
                "there are {now} credentials and {new} would be new, {most} are kept: delete some, or raise \
                 --max-credentials of the control planes"
            ),
        }))
    }

    fn put(
        &mut self,
        key: &Key,
        credential: wire::Credential,
        grants: Vec<Grant>,
        before: Option<&Arc<Stored>>,
    ) {
        let consumer = credential.spec.as_ref().map(|spec| spec.consumer.clone()).unwrap_or_default();
        let resource = Resource::from(credential).canonical();
        let body = resource.encode();
        let action = match before {
            None => Action::Created,
            Some(before) if before.body == body => Action::Unchanged,
            Some(_) => Action::Updated,
        };
        let content = CredentialContent { body, consumer, grants };
        self.push(key, action, before, Some((resource, content)));
    }

    fn push(
        &mut self,
        key: &Key,
        action: Action,
        before: Option<&Arc<Stored>>,
        after: Option<(Resource, CredentialContent)>,
    ) {
        let (after, content) = after.unzip();
        if action != Action::Unchanged {
            let expected =
                before.map_or(Precondition::Absent, |before| Precondition::Revision(before.revision));
            self.writes.push(CredentialWrite { key: key.clone(), expected, content, revives: self.revives });
        }
        self.changes.push(Planned { key: key.clone(), action, before: before.cloned(), after });
    }
}
