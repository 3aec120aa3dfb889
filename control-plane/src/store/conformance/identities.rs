//! The CA, join tokens and revoked nodes.

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::{PageRequest, Store, open, store};
use crate::store::identity::{
    AuthorityRecord, AuthorityState, HeldName, JoinTokenRecord, Joined, Joining, Revoked, SealedKey,
};
use crate::store::{AuditRecord, MasterRecord, TokenError};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("in range")
}

fn audit(action: &str) -> AuditRecord {
    AuditRecord {
        at: at(0),
        who: "ann".into(),
        from: "192.0.2.1".into(),
        action: action.into(),
        object: String::new(),
        status: 200,
    }
}

fn authority(number: u8, state: AuthorityState) -> AuthorityRecord {
    AuthorityRecord {
        state,
        id: [number; 32],
        certificate: vec![number; 300],
        cross_signed: (state == AuthorityState::Next).then(|| vec![number; 301]),
        since: at(0),
        lifetime_us: 1_000_000,
        key: SealedKey { master: [1; 8], data_key: vec![number; 60], value: vec![number; 150] },
    }
}

async fn states(store: &dyn Store) -> Vec<(u8, AuthorityState)> {
    let identities = store.identities().await.expect("answers");
    identities.authorities.iter().map(|it| (it.id[0], it.state)).collect()
}

pub(super) async fn of_many_replicas_one_makes_the_ca_and_one_replaces_it(url: String) {
    use AuthorityState::{Active, Next, Old};
    let replicas = join_all((0..4).map(|_| open(&url))).await;
    let replicas: Vec<Arc<dyn Store>> = replicas.into_iter().map(|opened| opened.store).collect();
    let make = |state| {
        join_all(replicas.iter().zip(1..).map(move |(store, number)| {
            let number = if state == Next { number + 10 } else { number };
            store.create_authority(authority(number, state), None)
        }))
    };
    let made = make(Active).await.into_iter().filter(|made| *made.as_ref().expect("answers")).count();
    assert_eq!(made, 1);
    let store = &*replicas[0];
    let first = store.identities().await.expect("answers").authorities.remove(0);
    assert_eq!(first, authority(first.id[0], Active), "as it was made");

    let before = store.tokens_version().await.expect("answers");
    let made = make(Next).await.into_iter().filter(|made| *made.as_ref().expect("answers")).count();
    assert_eq!(made, 1);
    assert!(store.tokens_version().await.expect("answers") > before, "replicas hear of it");
    let next = store.identities().await.expect("answers").authorities[0].id;
    assert!(!store.activate_authority([9; 32], at(5)).await.expect("answers"), "another one");
    let activated = join_all(replicas.iter().map(|store| store.activate_authority(next, at(5)))).await;
    assert_eq!(activated.into_iter().filter(|done| *done.as_ref().expect("answers")).count(), 1);
    assert_eq!(states(store).await, [(next[0], Active), (first.id[0], Old)]);
    let since: Vec<_> =
        store.identities().await.expect("answers").authorities.iter().map(|it| it.since).collect();
    assert_eq!(since, [at(5), at(5)]);

    let third = authority(30, Next);
    assert!(!store.create_authority(third.clone(), None).await.expect("answers"), "the old one is there");
    assert!(!store.retire_authority(next).await.expect("answers"), "not the old one");
    assert!(store.retire_authority(first.id).await.expect("answers"));
    assert!(store.create_authority(third, Some(audit("ca.rotate"))).await.expect("answers"));
    assert_eq!(states(store).await, [(30, Next), (next[0], Active)]);
    let log = store.audit(PageRequest { before: None, limit: 9 }).await.expect("answers").items;
    assert_eq!(log.iter().map(|entry| entry.record.action.as_str()).collect::<Vec<_>>(), ["ca.rotate"]);

    store.lengthen_authority(next, 5_000_000).await.expect("answers");
    store.lengthen_authority(next, 3_000_000).await.expect("answers");
    assert_eq!(store.identities().await.expect("answers").authorities[1].lifetime_us, 5_000_000);
}

pub(super) async fn the_key_of_a_ca_is_sealed_with_the_named_master_key_only(url: String) {
    let store = store(&url).await;
    let master = |number| MasterRecord { id: [number; 8], tag_key: vec![number; 60] };
    store.create_master(master(2)).await.expect("answers");
    let made = authority(1, AuthorityState::Active);
    assert!(!store.create_authority(made.clone(), None).await.expect("answers"), "the store names another");
    assert_eq!(states(&*store).await, []);
    store.replace_master([2; 8], master(1)).await.expect("answers");
    assert!(store.create_authority(made.clone(), None).await.expect("answers"));

    store.replace_master([1; 8], master(2)).await.expect("answers");
    let key = |number| SealedKey { master: [number; 8], data_key: vec![7; 60], value: Vec::new() };
    assert!(!store.put_authority_key(made.id, [1; 8], key(3)).await.expect("answers"), "not the named one");
    assert!(store.put_authority_key(made.id, [9; 8], key(2)).await.expect("answers"));
    assert_eq!(store.identities().await.expect("answers").authorities[0], made, "replaced meanwhile");
    assert!(store.put_authority_key(made.id, [1; 8], key(2)).await.expect("answers"));
    let kept = store.identities().await.expect("answers").authorities.remove(0).key;
    assert_eq!((kept.master, kept.data_key, kept.value), ([2; 8], vec![7; 60], made.key.value));
}

fn token(name: &str, uses: u32) -> JoinTokenRecord {
    JoinTokenRecord {
        name: name.into(),
        digest: [name.as_bytes()[0]; 32],
        authority: [1; 32],
        group: "edge".into(),
        uses,
        used: 0,
        created: at(0),
        expires: at(60),
    }
}

fn joining(token: char, key: u8, node: &'static str, second: i64) -> Joining<'static> {
    let (audit, until) = (audit("enroll"), at(second + 100));
    Joining { token: [token as u8; 32], key: [key; 32], node, group: "edge", at: at(second), until, audit }
}

pub(super) async fn a_join_token_is_good_for_its_time_group_and_uses(url: String) {
    let (one, two) = (store(&url).await, store(&url).await);
    for (name, uses) in [("a", 3), ("b", 1)] {
        one.create_join_token(token(name, uses), audit("join_token.create")).await.expect("stored");
    }
    let again = one.create_join_token(token("a", 9), audit("join_token.create")).await;
    assert!(matches!(again, Err(TokenError::Exists(name)) if name == "a"));

    let yes = Joined::Yes { revoked: None };
    for (wish, expected) in [
        (joining('x', 1, "n1", 1), Joined::Unknown),
        (joining('a', 1, "n1", 60), Joined::Expired(at(60))),
        (Joining { group: "core", ..joining('a', 1, "n1", 1) }, Joined::OtherGroup("edge".into())),
        (joining('a', 1, "n1", 1), yes.clone()),
        (joining('a', 1, "n1", 2), yes.clone()),
        (joining('a', 1, "n2", 2), Joined::UsedUp),
    ] {
        assert_eq!(one.join(wish.clone()).await.expect("answers"), expected, "{wish:?}");
    }
    assert_eq!(
        two.join_tokens().await.expect("answers")[0].used,
        1,
        "the same key for the same node counts once"
    );

    // Many at once: as many as may.
    let many = (10..18).map(|key| if key % 2 == 0 { &one } else { &two }.join(joining('a', key, "n3", 3)));
    let joined = join_all(many).await.into_iter().map(|joined| joined.expect("answers"));
    assert_eq!(joined.filter(|joined| *joined == yes).count(), 2);
    let kept = one.join_tokens().await.expect("answers");
    assert_eq!(kept.iter().map(|it| (it.name.as_str(), it.used)).collect::<Vec<_>>(), [("a", 3), ("b", 0)]);
    assert_eq!(kept[1], token("b", 1));
    let log = one.audit(PageRequest { before: None, limit: 9 }).await.expect("answers").items;
    let joined =
        log.iter().filter(|entry| entry.record.action == "enroll").map(|it| it.record.object.as_str());
    assert_eq!(joined.collect::<Vec<_>>(), ["n3 with a", "n3 with a", "n1 with a", "n1 with a"]);

    assert!(one.delete_join_token("b", audit("join_token.delete")).await.expect("answers"));
    assert!(!one.delete_join_token("b", audit("join_token.delete")).await.expect("answers"));
    assert_eq!(two.join(joining('b', 1, "n1", 1)).await.expect("answers"), Joined::Unknown);
    let late = JoinTokenRecord { created: at(60) + SignedDuration::from_hours(169), ..token("c", 1) };
    one.create_join_token(late, audit("join_token.create")).await.expect("stored");
    assert_eq!(one.join_tokens().await.expect("answers").len(), 1, "what ended long ago is forgotten");
}

pub(super) async fn a_revoked_node_comes_back_with_a_new_key_only(url: String) {
    let (one, two) = (store(&url).await, store(&url).await);
    one.create_join_token(token("a", 9), audit("join_token.create")).await.expect("stored");
    one.join(joining('a', 1, "n1", 1)).await.expect("answers");
    let mut versions = two.watch_tokens();
    let before = *versions.borrow();
    for second in [5, 6] {
        let revoked = one.revoke_node("n1", false, at(second), audit("data_plane.revoke")).await;
        assert_eq!(revoked.expect("stored"), Revoked::Yes);
    }
    let heard = versions.wait_for(|version| *version > before);
    tokio::time::timeout(std::time::Duration::from_secs(20), heard).await.expect("in time").expect("open");
    assert_eq!(two.identities().await.expect("answers").revoked, [("n1".to_owned(), at(6))]);
    assert_eq!(
        two.join(joining('a', 1, "n1", 7)).await.expect("answers"),
        Joined::UsedUp,
        "what a thief has"
    );
    let anew = two.join(joining('a', 2, "n1", 7)).await.expect("answers");
    assert_eq!(anew, Joined::Yes { revoked: Some(at(6)) });
}

pub(super) async fn a_name_is_its_groups_until_the_last_certificate_with_it_ends(url: String) {
    let (one, two) = (store(&url).await, store(&url).await);
    one.create_join_token(token("a", 9), audit("join_token.create")).await.expect("stored");
    let core = JoinTokenRecord { group: "core".into(), ..token("c", 9) };
    one.create_join_token(core, audit("join_token.create")).await.expect("stored");
    assert_eq!(two.join_token([b'c'; 32]).await.expect("answers").map(|it| it.group), Some("core".into()));
    assert_eq!(two.join_token([b'x'; 32]).await.expect("answers"), None);

    let yes = Joined::Yes { revoked: None };
    let wish = |token, key, second| {
        let group = if token == 'c' { "core" } else { "edge" };
        Joining { group, ..joining(token, key, "n1", second) }
    };
    assert_eq!(one.join(wish('a', 1, 0)).await.expect("answers"), yes);
    let held = |until| Joined::NameHeld(HeldName { group: "edge".into(), until: at(until) });
    assert_eq!(two.join(wish('c', 2, 1)).await.expect("answers"), held(100));
    assert_eq!(one.join(Joining { until: at(50), ..wish('a', 3, 1) }).await.expect("answers"), yes);
    assert_eq!(two.join(wish('c', 2, 2)).await.expect("answers"), held(100), "the longest counts");
    let hold =
        async |group, from, until| one.hold_name("n1", group, (at(from), at(until))).await.expect("answers");
    assert_eq!(hold("edge", 3, 110).await, yes);
    assert_eq!(hold("core", 109, 900).await, held(110), "no renewal takes it either");
    assert_eq!(two.join(wish('c', 2, 59)).await.expect("answers"), held(110));
    let used: Vec<_> = one.join_tokens().await.expect("answers").iter().map(|it| it.used).collect();
    assert_eq!(used, [2, 0]);

    one.revoke_node("n1", false, at(59), audit("data_plane.revoke")).await.expect("stored");
    assert_eq!(two.join(wish('c', 2, 59)).await.expect("answers"), Joined::Yes { revoked: Some(at(59)) });
    let unknown = one.revoke_node("n2", false, at(59), audit("data_plane.revoke")).await;
    assert_eq!(unknown.expect("answers"), Revoked::Unknown);
    assert_eq!(one.identities().await.expect("answers").revoked.len(), 1);
    let forced = one.revoke_node("n2", true, at(59), audit("data_plane.revoke")).await;
    assert_eq!(forced.expect("stored"), Revoked::Yes);
}
