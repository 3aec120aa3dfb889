//! What every store must do, as one list of cases that runs on each of them: SQLite in this crate's tests, PostgreSQL in
//! `gateway-tests`, which starts a real server (feature `conformance`). A case gets the URL of an empty database of its
//! own and opens as many handles on it as it likes, as if they were replicas.

mod chores;
mod commits;
mod credentials;
mod endpoints;
mod history;
mod identities;
mod races;
mod records;
mod secrets;
mod watching;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use gateway_proto::admin::Role;
use gateway_proto::digest::RootHash;
use gateway_proto::kind::{Key, Kind, Resource};
use gateway_proto::wire;

use super::{
    Commit, CommitError, Committed, Head, Opened, Origin, PageRequest, Precondition, Store, Stored, Write,
};

type Run = fn(String) -> LocalBoxFuture<'static, ()>;

/// A case and its name.
macro_rules! cases {
    ($($module:ident: $($case:ident),+ $(,)?);+ $(;)?) => {
        const CASES: &[(&str, Run)] = &[$($((stringify!($case), |url| Box::pin($module::$case(url)))),+),+];
    };
}

cases! {
    commits:
        a_new_store_is_created_once_and_keeps_its_epoch,
        of_many_replicas_that_start_at_once_one_creates_the_store,
        a_commit_is_one_revision_and_is_read_back_byte_for_byte,
        a_change_keeps_the_birth_and_a_delete_forgets_it,
        a_commit_on_another_base_is_told_the_head_and_writes_nothing,
        preconditions_are_checked_object_by_object,
        an_empty_or_contradictory_commit_is_refused,
        any_text_and_a_body_of_one_mebibyte_survive,
        thousands_of_objects_are_one_revision,
        that_data_planes_may_shrink_is_kept_and_makes_no_revision;
    races:
        of_two_writers_on_one_base_exactly_one_wins,
        eight_writers_leave_a_history_without_gaps,
        an_upstream_is_deleted_or_gets_a_route_but_never_both,
        an_abandoned_commit_is_whole_or_absent,
        a_reader_never_sees_half_a_revision;
    history:
        every_past_state_equals_the_replay_of_the_commits,
        history_comes_in_pages_from_the_newest,
        the_namespaces_of_a_revision_are_those_of_its_changes,
        a_revision_that_does_not_exist_is_named;
    chores:
        what_history_keeps_is_as_before_and_the_rest_is_named_as_gone,
        old_revisions_go_but_never_the_newest_ten,
        a_sealed_value_goes_with_the_last_content_that_refers_to_it,
        a_commit_from_a_revision_that_was_dropped_is_not_made,
        who_was_replaced_does_no_more_chores,
        a_backup_that_is_restored_begins_an_epoch_that_may_be_smaller;
    records:
        tokens_are_kept_under_unique_names_and_move_their_version,
        a_token_that_is_put_again_changes_nothing,
        the_audit_log_holds_commits_and_the_rest,
        the_audit_log_keeps_its_newest_entries,
        of_two_replicas_the_younger_stream_tells_about_a_node,
        nodes_that_are_gone_are_forgotten;
    secrets:
        a_sealed_value_is_kept_beside_the_revision_that_brought_it,
        a_commit_that_does_not_happen_leaves_no_sealed_value,
        of_two_master_keys_the_first_stays,
        a_commit_under_another_master_key_than_the_named_one_is_refused,
        data_keys_are_replaced_and_values_stay;
    identities:
        of_many_replicas_one_makes_the_ca_and_one_replaces_it,
        the_key_of_a_ca_is_sealed_with_the_named_master_key_only,
        a_join_token_is_good_for_its_time_group_and_uses,
        a_revoked_node_comes_back_with_a_new_key_only,
        a_name_is_its_groups_until_the_last_certificate_with_it_ends;
    credentials:
        credentials_have_a_counter_of_their_own_and_no_history,
        what_happened_to_keys_is_told_from_any_version_on,
        a_credential_names_a_consumer_that_is_there_and_a_key_that_is_its_own,
        a_batch_with_both_moves_both_counters_or_none,
        a_consumer_is_deleted_or_gets_a_credential_but_never_both,
        the_credential_watch_wakes_for_changes_of_any_handle,
        thousands_of_credentials_are_one_version;
    endpoints:
        the_last_endpoints_are_kept_and_make_no_revision;
    watching:
        the_watch_wakes_for_commits_of_any_handle,
        the_token_watch_wakes_for_changes_of_any_handle,
        a_closed_store_answers_with_an_error;
}

/// Runs every case on a database of its own.
///
/// # Panics
/// When a case fails, naming all that did.
pub async fn run(mut fresh_database_url: impl AsyncFnMut() -> String) {
    let mut failed = Vec::new();
    for (name, case) in CASES {
        let url = fresh_database_url().await;
        if let Err(panic) = AssertUnwindSafe(case(url)).catch_unwind().await {
            failed.push(format!("{name}: {}", message(&*panic)));
        }
    }
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), CASES.len(), failed.join("\n"));
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked")
}

async fn open(url: &str) -> Opened {
    let (_, token) = crate::auth::new_token("admin", Role::Admin, Vec::new(), None);
    super::open(url, &token).await.expect("the store opens")
}

async fn store(url: &str) -> Arc<dyn Store> {
    open(url).await.store
}

/// An upstream whose content is told apart by a note.
fn upstream(name: &str, note: &str) -> Resource {
    let annotations = [("note".to_owned(), note.to_owned())].into_iter().collect();
    wire::Upstream {
        metadata: Some(wire::Metadata { name: name.to_owned(), annotations, ..Default::default() }),
        ..Default::default()
    }
    .into()
}

fn route(name: &str) -> Resource {
    let metadata = Some(wire::Metadata { name: name.to_owned(), ..Default::default() });
    wire::Route { metadata, ..Default::default() }.into()
}

fn upstream_key(name: &str) -> Key {
    Key::new(Kind::Upstream, "default", name)
}

fn put(name: &str, note: &str) -> Write {
    Write::put(upstream(name, note), Precondition::Any)
}

fn delete(name: &str) -> Write {
    Write::delete(upstream_key(name), Precondition::Any)
}

async fn commit(store: &dyn Store, base: Head, writes: Vec<Write>) -> Result<Committed, CommitError> {
    store
        .commit(Commit {
            base,
            author: "ann".into(),
            message: "why".into(),
            writes,
            audit: None,
            credentials: Vec::new(),
            origin: Origin::Request,
        })
        .await
}

/// Commits on the head, which nobody else moves.
async fn commit_on_head(store: &dyn Store, writes: Vec<Write>) -> Committed {
    let head = store.head().await.expect("the store answers");
    commit(store, head, writes).await.expect("nobody else writes")
}

async fn load(store: &dyn Store) -> (Head, BTreeMap<Key, Stored>) {
    let mut objects = BTreeMap::new();
    let head = store
        .load(&mut |stored| {
            assert!(objects.insert(stored.key.clone(), stored).is_none(), "an object came twice");
        })
        .await
        .expect("the store answers");
    (head, objects)
}

/// Whether data planes of other histories may shrink to what is at a head.
async fn may_shrink(store: &dyn Store, head: Head) -> bool {
    store.is_shrink_allowed(head.epoch, head.revision).await.expect("answers")
}

/// What must hold of a store at any moment; returns the number of objects.
async fn assert_sound(store: &dyn Store) -> usize {
    let (head, objects) = load(store).await;
    let root: RootHash = objects.values().map(|stored| stored.hash).collect();
    assert_eq!(root, head.root, "the root hash is the sum of what exists");
    for stored in objects.values() {
        let hash = gateway_proto::digest::ItemHash::of(&stored.key, &stored.body);
        assert_eq!(hash, stored.hash, "{}", stored.key);
        assert!(stored.revision <= head.revision && stored.revision > 0, "{stored:?}");
    }
    let mut expected = head.revision;
    let mut before = None;
    loop {
        let page = store.revisions(PageRequest { before, limit: 100 }).await.expect("the store answers");
        for revision in page.items {
            assert_eq!(revision.revision, expected, "history has no gaps");
            expected -= 1;
        }
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(expected, 0, "history goes back to the first revision");
    objects.len()
}
