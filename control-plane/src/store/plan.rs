//! What a commit does to the rows, worked out without a database: order, generations, counts, the new root hash, and
//! every reason to refuse. Both stores execute the plan word for word.

use std::collections::HashMap;

use gateway_proto::digest::ItemHash;
use gateway_proto::kind::{Key, Kind};
use jiff::Timestamp;
use uuid::Uuid;

use super::{Change, Commit, CommitError, Head, Origin, Precondition, Revision, SecretRecord, Stored};

/// The row that an object has before the commit.
#[derive(Clone, Debug)]
pub(super) struct Existing {
    pub(super) generation: u64,
    pub(super) revision: u64,
    pub(super) hash: ItemHash,
    pub(super) created: Timestamp,
}

/// Everything to write.
#[derive(Debug)]
pub(super) struct Plan {
    /// The epoch of its base.
    pub(super) epoch: Uuid,
    /// The head it leads to.
    pub(super) head: Head,
    /// The entry in history.
    pub(super) header: Revision,
    /// By kind's name, namespace, name: rows are locked in one order everywhere.
    pub(super) changes: Vec<Change>,
    /// JSON object of labels for each put of `changes`, in their order.
    pub(super) labels: Vec<String>,
    /// Sealed values that the puts newly refer to.
    pub(super) secrets: Vec<SecretRecord>,
}

impl Plan {
    /// Consumers that go.
    pub(super) fn deleted_consumers(&self) -> Vec<&Key> {
        let gone = self.changes.iter().filter_map(|change| match change {
            Change::Put(_) => None,
            Change::Delete(key) => Some(key),
        });
        gone.filter(|key| key.kind == Kind::Consumer).collect()
    }
}

/// Order of rows: as the databases sort them.
pub(super) fn by_name(key: &Key) -> (&'static str, &str, &str) {
    (key.kind.as_str(), &key.namespace, &key.name)
}

/// Sorts the writes and refuses what no state of the store could make right.
pub(super) fn check(commit: &mut Commit) -> Result<(), CommitError> {
    if commit.writes.is_empty() {
        return Err(CommitError::Refused("it writes nothing".to_owned()));
    }
    commit.writes.sort_by(|a, b| by_name(&a.key).cmp(&by_name(&b.key)));
    if let Some(pair) = commit.writes.windows(2).find(|pair| pair[0].key == pair[1].key) {
        return Err(CommitError::Refused(format!("it writes {} twice", pair[0].key)));
    }
    let revision = commit.base.revision + 1;
    let mut secrets = commit.writes.iter().flat_map(|write| write.secrets.iter().map(move |it| (write, it)));
    match secrets.find(|(write, it)| it.id.key != write.key || it.id.revision != revision) {
        Some((write, _)) => Err(CommitError::Refused(format!("it brings {} another's secret", write.key))),
        None => Ok(()),
    }
}

/// Plans a checked commit. `existing` are the rows of its objects at its base.
pub(super) fn plan(
    commit: Commit,
    existing: &HashMap<Key, Existing>,
    at: Timestamp,
) -> Result<Plan, CommitError> {
    let revision = commit.base.revision + 1;
    let mut root = commit.base.root;
    let (mut created, mut updated, mut deleted) = (0, 0, 0);
    let mut changes = Vec::with_capacity(commit.writes.len());
    let mut labels = Vec::with_capacity(commit.writes.len());
    let mut secrets = Vec::new();
    for write in commit.writes {
        let before = existing.get(&write.key);
        let found = before.map(|before| before.revision);
        if !write.expected.holds(found) {
            return Err(CommitError::Precondition { key: write.key, expected: write.expected, found });
        }
        if let Some(before) = before {
            root = root.minus(before.hash);
        }
        let Some(content) = write.content else {
            if before.is_none() {
                let (key, expected) = (write.key, Precondition::Present);
                return Err(CommitError::Precondition { key, expected, found });
            }
            deleted += 1;
            changes.push(Change::Delete(write.key));
            continue;
        };
        root = root.plus(content.hash);
        secrets.extend(write.secrets);
        *(if before.is_some() { &mut updated } else { &mut created }) += 1;
        labels.push(json_without_nul(&content.labels));
        changes.push(Change::Put(Stored {
            key: write.key,
            generation: before.map_or(1, |before| before.generation + 1),
            revision,
            body: content.body,
            hash: content.hash,
            created: before.map_or(at, |before| before.created),
            updated: at,
        }));
    }
    let epoch = match commit.origin {
        Origin::Backup => Uuid::new_v4(),
        Origin::Request | Origin::Revision(_) => commit.base.epoch,
    };
    let head = Head { epoch, revision, root };
    let header = Revision {
        revision,
        at,
        author: commit.author,
        message: commit.message,
        created,
        updated,
        deleted,
        root,
    };
    Ok(Plan { epoch: commit.base.epoch, head, header, changes, labels, secrets })
}

/// PostgreSQL's JSONB and TEXT hold no NUL; the body keeps the label as it is.
fn json_without_nul(labels: &std::collections::BTreeMap<String, String>) -> String {
    serde_json::to_string(labels)
        .expect("string keys and values always serialise")
        .replace("\\u0000", "\\ufffd")
}

/// Text that both databases hold: PostgreSQL refuses NUL.
pub(super) fn text_without_nul(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::super::Write;
    use super::*;
    use gateway_proto::digest::RootHash;
    use gateway_proto::kind::Resource;
    use gateway_proto::wire;

    fn upstream(name: &str) -> Resource {
        wire::Upstream {
            metadata: Some(wire::Metadata { name: name.to_owned(), ..Default::default() }),
            ..Default::default()
        }
        .into()
    }

    fn commit(writes: Vec<Write>) -> Commit {
        let base = Head { epoch: Uuid::nil(), revision: 6, root: RootHash::default() };
        Commit {
            base,
            author: "ann".into(),
            message: String::new(),
            writes,
            audit: None,
            credentials: Vec::new(),
            origin: Origin::Request,
        }
    }

    #[test]
    fn a_change_keeps_its_birth_and_counts_on_and_moves_the_root_by_the_difference() {
        let at: Timestamp = "2026-01-02T03:04:05Z".parse().expect("a time");
        let born: Timestamp = "2025-01-02T03:04:05Z".parse().expect("a time");
        let old = ItemHash([7; 16]);
        let existing = HashMap::from([(
            upstream("a").key(),
            Existing { generation: 4, revision: 2, hash: old, created: born },
        )]);
        let mut commit = commit(vec![
            Write::put(upstream("b"), Precondition::Absent),
            Write::put(upstream("a"), Precondition::Revision(2)),
        ]);
        check(&mut commit).expect("sound");
        let plan = plan(commit, &existing, at).expect("as expected");
        let [Change::Put(a), Change::Put(b)] = plan.changes.as_slice() else { panic!("{:?}", plan.changes) };
        assert_eq!((a.generation, a.revision, a.created, a.updated), (5, 7, born, at));
        assert_eq!((b.generation, b.revision, b.created, b.updated), (1, 7, at, at));
        assert_eq!(plan.head.root, RootHash::default().minus(old).plus(a.hash).plus(b.hash));
        assert_eq!((plan.header.created, plan.header.updated, plan.header.deleted), (1, 1, 0));
    }

    #[test]
    fn a_commit_that_no_store_could_take_is_refused() {
        let delete = |name: &str| Write::delete(Key::new(Kind::Upstream, "default", name), Precondition::Any);
        let cases = [
            (vec![], "it writes nothing"),
            (
                vec![Write::put(upstream("a"), Precondition::Any), delete("a")],
                "it writes Upstream default/a twice",
            ),
        ];
        for (writes, expected) in cases {
            let error = check(&mut commit(writes)).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
        let missing = plan(commit(vec![delete("gone")]), &HashMap::new(), Timestamp::UNIX_EPOCH);
        assert!(matches!(missing, Err(CommitError::Precondition { found: None, .. })), "{missing:?}");
    }

    #[test]
    fn nul_characters_do_not_reach_the_text_columns() {
        assert_eq!(text_without_nul("a\0b"), "a\u{fffd}b");
        let labels = [("k".to_owned(), "v\0".to_owned())].into();
        assert_eq!(json_without_nul(&labels), r#"{"k":"v\ufffd"}"#);
    }
}
