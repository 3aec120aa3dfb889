//! The way from one master key to the next. Every replica is given a file with the new key above the old one; then the
//! store is told which seals from now on, and every data key is encrypted anew, page by page. Values and bodies stay as
//! they are. It may break off anywhere and be run again; once it has ended, the old key can be taken out of the files.
//!
//! The store takes no value that is sealed with another key than the one it names, so that a replica that has not heard
//! of the change leaves nothing behind that the old key would be needed for.

use super::{SecretError, Vault};
use crate::store::{MasterId, Store};

/// Data keys of one page.
const PAGE: u32 = 500;

/// What a rewrap came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrapped {
    /// The master key that everything is sealed with now.
    pub master: MasterId,
    /// How many data keys were encrypted anew.
    pub data_keys: u64,
    /// How many other master keys this process was given: with none, there was nothing to replace.
    pub other_keys: usize,
}

/// Seals everything with the first of the vault's master keys.
///
/// # Errors
/// [`SecretError`]: the store fails, it names a master key that is not at hand (and keeps it: this process is late), or
/// a value is sealed with one.
pub async fn rewrap(vault: &Vault, store: &dyn Store) -> Result<Rewrapped, SecretError> {
    let master = name_first(vault, store).await?;
    let mut data_keys = 0;
    loop {
        let page = store.secrets_of_other_masters(master, PAGE).await?;
        if page.is_empty() {
            data_keys += authorities(vault, store, master).await?;
            return Ok(Rewrapped { master, data_keys, other_keys: vault.wraps.len() - 1 });
        }
        let page = page.into_iter().map(|it| Ok((it.master, vault.rewrapped(it)?)));
        let page = page.collect::<Result<Vec<_>, SecretError>>()?;
        data_keys += page.len() as u64;
        if !store.put_data_keys(page).await? {
            return Err(SecretError::Overtaken);
        }
    }
}

/// Seals the keys of the control plane's CA with that master key; how many were with another.
async fn authorities(vault: &Vault, store: &dyn Store, master: MasterId) -> Result<u64, SecretError> {
    let mut data_keys = 0;
    let all = store.identities().await?.authorities;
    for authority in all.into_iter().filter(|it| it.key.master != master) {
        let rewrapped = vault.rewrapped_authority(&authority.id, &authority.key);
        let rewrapped = rewrapped.ok_or(SecretError::Authority(authority.id))?;
        if !store.put_authority_key(authority.id, authority.key.master, rewrapped).await? {
            return Err(SecretError::Overtaken);
        }
        data_keys += 1;
    }
    Ok(data_keys)
}

/// The store names the first key from here on.
async fn name_first(vault: &Vault, store: &dyn Store) -> Result<MasterId, SecretError> {
    let wanted = vault.record(vault.first());
    if let Some(named) = store.master().await? {
        // A replica that does not know the key in use must not put an older one in its place.
        vault.follow(&named)?;
        if named.id != wanted.id && !store.replace_master(named.id, wanted.clone()).await? {
            return Err(SecretError::Overtaken);
        }
    }
    vault.follow(&wanted)?;
    Ok(wanted.id)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gateway_proto::admin::Role;
    use gateway_proto::kind::{Key, Kind, Resource};
    use gateway_proto::wire;

    use super::super::{MasterKey, MasterKeys, SecretId};
    use super::*;
    use crate::store::identity::{AuthorityRecord, AuthorityState};
    use crate::store::{self, Commit, CommitError, Origin, Precondition, SecretRecord, Write};

    fn id(name: &str, revision: u64) -> SecretId {
        SecretId { key: Key::new(Kind::Certificate, "default", name), field: "spec.key".into(), revision }
    }

    fn write(record: SecretRecord) -> Write {
        let metadata = wire::Metadata { name: record.id.key.name.clone(), ..Default::default() };
        let object = wire::Certificate { metadata: Some(metadata), ..Default::default() };
        Write::put(Resource::from(object), Precondition::Any).with_secrets(vec![record])
    }

    async fn commit(store: &dyn Store, record: SecretRecord) -> Result<u64, CommitError> {
        let base = store.head().await.expect("answers");
        let writes = vec![write(record)];
        let commit = Commit {
            base,
            author: "ann".into(),
            message: String::new(),
            writes,
            audit: None,
            credentials: Vec::new(),
            origin: Origin::Request,
        };
        store.commit(commit).await.map(|committed| committed.head.revision)
    }

    async fn value(store: &dyn Store, vault: &Vault, id: &SecretId) -> Result<String, SecretError> {
        let record = store.secrets(vec![id.clone()]).await?.pop().expect("it is there");
        Ok(vault.open(&record)?.to_string())
    }

    #[tokio::test]
    async fn after_a_rewrap_the_old_key_is_needed_for_nothing_and_takes_nothing() {
        let directory = tempfile::TempDir::new().expect("a folder");
        let url = format!("sqlite://{}", directory.path().join("gateway.db").display());
        let (_, token) = crate::auth::new_token("admin", Role::Admin, Vec::new(), None);
        let store: Arc<dyn Store> = store::open(&url, &token).await.expect("opens").store;
        let text = || super::super::master::hex(&rand::random::<[u8; 32]>());
        let (old, new) = (text(), text());
        let keys = |lines: &[&str]| MasterKeys::parse(lines.join("\n").as_bytes()).expect("keys");

        let (replica, record) = Vault::create(&keys(&[&old]));
        store.create_master(record.clone()).await.expect("answers");
        let count = u64::from(PAGE) + 3;
        for revision in 1..=count {
            let id = id(&format!("c{revision}"), revision);
            commit(&*store, replica.seal(id, "before")).await.expect("stored");
        }

        let ca = AuthorityRecord {
            state: AuthorityState::Active,
            id: [7; 32],
            certificate: Vec::new(),
            cross_signed: None,
            since: jiff::Timestamp::UNIX_EPOCH,
            lifetime_us: 1,
            key: replica.seal_authority(&[7; 32], b"the CA's key"),
        };
        assert!(store.create_authority(ca, None).await.expect("answers"));

        let vault = Vault::unlock(&keys(&[&new, &old]), &record).expect("the old key is among them");
        let tag = vault.tag(&id("c1", 1).key, "spec.key", "before");
        // Until then the old key seals, so that replicas without the new one can open everything.
        assert_eq!(vault.seal(id("x", 1), "x").master, record.id);
        let done = rewrap(&vault, &*store).await.expect("both keys are at hand");
        assert_eq!(
            done,
            Rewrapped { master: keys(&[&new]).first().id(), data_keys: count + 1, other_keys: 1 }
        );
        let again = rewrap(&vault, &*store).await.expect("nothing is left");
        assert_eq!(again, Rewrapped { data_keys: 0, ..done });

        // A replica that knows only the old key is refused, and told why.
        let late = commit(&*store, replica.seal(id("late", count + 1), "late")).await;
        assert!(matches!(late, Err(CommitError::Resealed)), "{late:?}");
        let named = store.master().await.expect("answers").expect("there is one");
        assert!(matches!(replica.follow(&named), Err(SecretError::UnknownMaster(id)) if id == done.master));
        // Nor does it take the store back, when the command is run again and reaches it.
        let back = rewrap(&replica, &*store).await;
        assert!(matches!(back, Err(SecretError::UnknownMaster(id)) if id == done.master), "{back:?}");
        assert_eq!(store.master().await.expect("answers").as_ref(), Some(&named));
        commit(&*store, vault.seal(id("new", count + 1), "after")).await.expect("stored");

        let only_new = Vault::unlock(&keys(&[&new]), &named).expect("the new key alone does");
        for (name, revision, expected) in
            [("c1", 1, "before"), (&format!("c{count}"), count, "before"), ("new", count + 1, "after")]
        {
            assert_eq!(value(&*store, &only_new, &id(name, revision)).await.expect("opens"), expected);
        }
        let ca = store.identities().await.expect("answers").authorities.remove(0);
        assert_eq!(**only_new.open_authority(&ca.id, &ca.key).expect("opens"), *b"the CA's key");
        assert!(replica.open_authority(&ca.id, &ca.key).is_none(), "the old key opens nothing");
        assert_eq!(only_new.tag(&id("c1", 1).key, "spec.key", "before"), tag, "equal content stays equal");
        assert!(Vault::unlock(&keys(&[&old]), &named).is_none());
        assert!(value(&*store, &replica, &id("c1", 1)).await.is_err(), "the old key opens nothing");
        store.close().await;
    }

    #[test]
    fn a_file_holds_keys_line_by_line() {
        let digits = |byte: u8| super::super::master::hex(&[byte; 32]);
        let text = format!("# since May\n{}\n\n  {} \r\n", digits(1), digits(2));
        let ids: Vec<_> =
            MasterKeys::parse(text.as_bytes()).expect("two").iter().map(MasterKey::id).collect();
        let of = |byte| MasterKeys::parse(digits(byte).as_bytes()).expect("one").first().id();
        assert_eq!(ids, [of(1), of(2)]);
        let (one, long) = (digits(1), format!("{}00", digits(1)));
        let broken = format!("{one}\nsecret");
        for none in ["", "# nothing", "0123", &one[1..], &long, &broken, &one.replace('0', "x")] {
            assert!(MasterKeys::parse(none.as_bytes()).is_none(), "{none}");
        }
        assert!(MasterKeys::parse(b"0123456789abcdef0123456789abcdef").is_none(), "any 32 bytes are no key");
    }
}
