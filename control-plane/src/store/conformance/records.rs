//! Tokens, audit log and nodes.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::auth::new_token;
use crate::store::{AuditRecord, NodeSeen, TokenError, TokenRecord};

fn token(name: &str) -> TokenRecord {
    let expires = "2099-01-02T03:04:05.000006Z".parse().expect("a time");
    let (_, mut token) = new_token(name, Role::Editor, vec!["a".into(), "ünï".into()], Some(expires));
    token.created = "2026-01-02T03:04:05Z".parse().expect("a time");
    token
}

fn audit(action: &str, status: u16) -> AuditRecord {
    let at: Timestamp = "2026-01-02T03:04:05Z".parse().expect("a time");
    AuditRecord {
        at,
        who: "ann".into(),
        from: "192.0.2.1".into(),
        action: action.into(),
        object: "token 'x'".into(),
        status,
    }
}

pub(super) async fn tokens_are_kept_under_unique_names_and_move_their_version(url: String) {
    let store = store(&url).await;
    let start = store.tokens().await.expect("answers");
    assert_eq!(start.tokens.iter().map(|token| token.name.as_str()).collect::<Vec<_>>(), ["admin"]);

    store.create_token(token("ci"), Some(audit("token.create", 201))).await.expect("the name is free");
    let tokens = store.tokens().await.expect("answers");
    assert_eq!(tokens.tokens[1], token_as(&tokens.tokens[1], token("ci")));
    assert!(tokens.version > start.version);
    assert_eq!(store.tokens_version().await.expect("answers"), tokens.version);

    let taken = store
        .create_token(token("ci"), Some(audit("token.create", 201)))
        .await
        .expect_err("the name is taken");
    assert!(matches!(&taken, TokenError::Exists(name) if name == "ci"), "{taken}");
    assert_eq!(store.tokens().await.expect("answers"), tokens, "nothing changed");

    assert!(store.delete_token("ci", Some(audit("token.delete", 204))).await.expect("answers"));
    assert!(!store.delete_token("ci", Some(audit("token.delete", 204))).await.expect("answers"));
    let end = store.tokens().await.expect("answers");
    assert_eq!(end.tokens, start.tokens);
    assert!(end.version > tokens.version);
    let log = store.audit(PageRequest { before: None, limit: 10 }).await.expect("answers").items;
    let actions = log.iter().map(|entry| entry.record.action.as_str()).collect::<Vec<_>>();
    assert_eq!(actions, ["token.delete", "token.create"], "what changed nothing is not in it");
}

/// The expected token with the random digest of the real one.
fn token_as(real: &TokenRecord, expected: TokenRecord) -> TokenRecord {
    TokenRecord { digest: real.digest, ..expected }
}

pub(super) async fn a_token_that_is_put_again_changes_nothing(url: String) {
    let store = store(&url).await;
    let first = token("file");
    store.put_token(first.clone()).await.expect("stored");
    let before = store.tokens().await.expect("answers");
    store.put_token(TokenRecord { created: Timestamp::UNIX_EPOCH, ..first.clone() }).await.expect("answers");
    assert_eq!(store.tokens().await.expect("answers"), before);

    let other =
        TokenRecord { digest: [9; 32], role: Role::Admin, namespaces: Vec::new(), expires: None, ..first };
    store.put_token(other.clone()).await.expect("stored");
    let after = store.tokens().await.expect("answers");
    assert_eq!((after.tokens.len(), &after.tokens[1]), (2, &other));
    assert!(after.version > before.version);
}

pub(super) async fn the_audit_log_holds_commits_and_the_rest(url: String) {
    let store = store(&url).await;
    store.append_audit(vec![audit("apply", 422), audit("put", 403)]).await.expect("stored");
    let base = store.head().await.expect("answers");
    let commit = |base, record| Commit {
        base,
        author: "ann".into(),
        message: String::new(),
        writes: vec![put("a", "1")],
        audit: Some(record),
        credentials: Vec::new(),
        origin: Origin::Request,
    };
    let made = store.commit(commit(base, audit("apply", 200))).await.expect("stored");
    store.commit(commit(base, audit("lost", 200))).await.expect_err("the head moved");
    store.append_audit(Vec::new()).await.expect("nothing to do");

    let first = store.audit(PageRequest { before: None, limit: 2 }).await.expect("answers");
    let second = store.audit(PageRequest { before: first.next, limit: 2 }).await.expect("answers");
    assert_eq!(second.next, None);
    let entries = first.items.into_iter().chain(second.items).collect::<Vec<_>>();
    assert!(entries.is_sorted_by(|newer, older| newer.id > older.id));
    let seen =
        entries.iter().map(|entry| (entry.record.action.as_str(), entry.record.status, entry.revision));
    assert_eq!(seen.collect::<Vec<_>>(), [("apply", 200, Some(1)), ("put", 403, None), ("apply", 422, None)]);
    assert_eq!(entries[0].record.at, made.at, "a write is recorded with the time of its commit");
    assert_eq!(entries[1].record, audit("put", 403));
}

pub(super) async fn the_audit_log_keeps_its_newest_entries(url: String) {
    let store = store(&url).await;
    assert_eq!(store.trim_audit(2).await.expect("an empty log"), 0);
    let entries = [200, 201, 202, 203, 204].map(|status| audit("put", status));
    store.append_audit(entries.into()).await.expect("stored");
    assert_eq!(store.trim_audit(2).await.expect("answers"), 3);
    assert_eq!(store.trim_audit(2).await.expect("answers"), 0);
    let left = store.audit(PageRequest { before: None, limit: 10 }).await.expect("answers").items;
    assert_eq!(left.iter().map(|entry| entry.record.status).collect::<Vec<_>>(), [204, 203]);
}

fn node(name: &str, replica: u128, opened_ago: u64, revision: u64) -> NodeSeen {
    NodeSeen {
        node: name.into(),
        replica: Uuid::from_u128(replica),
        opened_ago: Duration::from_secs(opened_ago),
        seen_ago: Duration::from_secs(1),
        connected: true,
        revision,
        report: json!({ "group": "édge", "rejects": [{ "message": "a \u{0} 'b'" }] }),
    }
}

pub(super) async fn of_two_replicas_the_younger_stream_tells_about_a_node(url: String) {
    let store = store(&url).await;
    let seen = |nodes: Vec<crate::store::Node>| {
        nodes.into_iter().map(|node| (node.node, node.replica.as_u128(), node.revision)).collect::<Vec<_>>()
    };
    store.put_nodes(Vec::new()).await.expect("nothing to do");
    store
        .put_nodes(vec![node("b", 1, 100, 5), node("a", 1, 100, 4), node("a", 1, 100, 5)])
        .await
        .expect("stored");
    let nodes = store.nodes().await.expect("answers");
    assert_eq!(nodes[0].report, node("a", 1, 0, 0).report);
    assert!(nodes[0].connected && nodes[0].seen_ago >= Duration::from_secs(1), "{nodes:?}");
    assert!(nodes[0].seen_ago < Duration::from_secs(60), "{nodes:?}");
    assert_eq!(
        seen(nodes),
        [("a".into(), 1, 5), ("b".into(), 1, 5)],
        "by name, the last of two entries counts"
    );

    store.put_nodes(vec![node("a", 2, 10, 6)]).await.expect("stored");
    let late = NodeSeen { connected: false, ..node("a", 1, 101, 9) };
    store.put_nodes(vec![late, node("b", 1, 101, 7)]).await.expect("the older stream loses");
    let nodes = store.nodes().await.expect("answers");
    assert!(nodes[0].connected);
    assert_eq!(seen(nodes), [("a".into(), 2, 6), ("b".into(), 1, 7)]);

    let of_others = async |replica, within| {
        let nodes = store.nodes_of_others(Uuid::from_u128(replica), Duration::from_secs(within)).await;
        seen(nodes.expect("answers"))
    };
    assert_eq!(of_others(1, 60).await, [("a".into(), 2, 6)]);
    assert_eq!(of_others(2, 60).await, [("b".into(), 1, 7)]);
    assert_eq!(of_others(2, 0).await, []);
    store.put_nodes(vec![NodeSeen { connected: false, ..node("a", 2, 10, 6) }]).await.expect("stored");
    assert_eq!(of_others(1, 60).await, []);

    let refused = [("a", "192.0.2.7:1"), ("unknown", "192.0.2.8:1")];
    let refused = refused.map(|(node, address)| (node.to_owned(), address.to_owned())).into();
    store.note_twins(refused).await.expect("stored");
    store.put_nodes(vec![node("a", 2, 10, 7)]).await.expect("stored");
    let nodes = store.nodes().await.expect("answers");
    assert!(
        nodes[0].twin.as_ref().is_some_and(|(at, ago)| at == "192.0.2.7:1" && *ago < Duration::from_secs(60))
    );
    assert_eq!((nodes.len(), &nodes[1].twin), (2, &None));
}

pub(super) async fn nodes_that_are_gone_are_forgotten(url: String) {
    let store = store(&url).await;
    let old = NodeSeen { seen_ago: Duration::from_secs(7200), connected: false, ..node("old", 1, 9000, 1) };
    store.put_nodes(vec![old, node("new", 1, 100, 5)]).await.expect("stored");
    let fence = store.lead().await.expect("answers").expect("nobody else does");
    let hour = Duration::from_secs(3600);
    assert_eq!(store.forget_nodes(fence, hour).await.expect("answers"), 1);
    assert_eq!(store.forget_nodes(fence, hour).await.expect("answers"), 0);
    let left = store.nodes().await.expect("answers");
    assert_eq!(left.iter().map(|node| node.node.as_str()).collect::<Vec<_>>(), ["new"]);
}
