//! Tests of `scope.rs`.

use proptest::prelude::*;

use super::*;
use crate::publish::testing::{
    Story, consumer, discovering, discovery_source, guard, key, listener, policy, route, token_issuer,
    upstream,
};

#[test]
fn a_group_takes_its_listeners_and_only_what_those_reach() {
    let objects = [
        listener("all", None, &["seen"]),
        listener("edge", Some("edge"), &[]),
        listener("shop/own", Some("shop"), &[]),
        route("by-default", &[], "a", &[]),
        route("by-name", &["edge"], "b", &["shop/far"]),
        route("elsewhere", &["shop/own"], "c", &[]),
        upstream("a", 1),
        upstream("b", 1),
        upstream("c", 1),
        upstream("unused", 1),
        policy("seen", false),
        policy("shop/far", false),
        policy("unused", false),
        policy("shop/global", true),
    ];
    let names = |group| {
        let mut story = Story::begin(group);
        story.commit(&objects, &[]);
        story.names()
    };
    let common = |more: &[&str]| -> Vec<String> {
        let mut names = vec![
            "Listener default/all",
            "Policy default/seen",
            "Policy shop/global",
            "Route default/by-default",
            "Upstream default/a",
        ];
        names.extend(more);
        names
            .sort_by_key(|name| (Kind::from_name(name.split(' ').next().expect("a kind")), name.to_string()));
        names.into_iter().map(str::to_owned).collect()
    };
    assert_eq!(names(None), common(&[]));
    assert_eq!(names(Some("other")), common(&[]));
    let edge = ["Listener default/edge", "Route default/by-name", "Upstream default/b", "Policy shop/far"];
    assert_eq!(names(Some("edge")), common(&edge));
    let shop = ["Listener shop/own", "Route default/elsewhere", "Upstream default/c"];
    assert_eq!(names(Some("shop")), common(&shop));
}

#[test]
fn a_discovery_source_goes_where_the_upstreams_that_name_it_go() {
    let mut story = Story::begin(None);
    let objects = [
        listener("l", None, &[]),
        discovering("near", "s"),
        discovering("far", "shop/s"),
        discovering("unused", "other"),
        discovery_source("s"),
        discovery_source("shop/s"),
        discovery_source("other"),
    ];
    story.commit(&objects, &[]);
    story.commit(&[route("a", &[], "near", &[]), route("b", &[], "far", &[])], &[]);
    let sources = |story: &Story| -> Vec<String> {
        story.names().into_iter().filter(|name| name.starts_with("DiscoverySource")).collect()
    };
    assert_eq!(sources(&story), ["DiscoverySource default/s", "DiscoverySource shop/s"]);
    story.commit(&[], &[key(Kind::Route, "b")]);
    assert_eq!(sources(&story), ["DiscoverySource default/s"]);
    story.commit(&[upstream("near", 1)], &[]);
    assert_eq!(sources(&story), [""; 0]);
    assert_eq!(story.view.items().count(), Scope::build(None, &story.state.objects).items().count());
}

#[test]
fn an_object_leaves_with_the_last_that_names_it() {
    let mut story = Story::begin(None);
    story.commit(
        &[listener("l", None, &[]), route("r", &[], "a", &[]), route("s", &[], "a", &[]), upstream("a", 1)],
        &[],
    );
    assert!(story.names().contains(&"Upstream default/a".to_owned()));
    story.commit(&[], &[key(Kind::Route, "r")]);
    assert!(story.names().contains(&"Upstream default/a".to_owned()));
    story.commit(&[route("s", &[], "b", &[]), upstream("b", 1)], &[]);
    assert!(!story.names().contains(&"Upstream default/a".to_owned()));
    assert!(story.names().contains(&"Upstream default/b".to_owned()));
}

#[test]
fn what_stays_outside_touches_nothing() {
    let mut story = Story::begin(None);
    story.commit(&[listener("l", None, &[])], &[]);
    let before = story.view.head().root;
    story.commit(&[upstream("unused", 1)], &[]);
    assert_eq!(story.view.head().root, before);
    assert_eq!(story.view.delta(1).expect("in the window").changes.len(), 0);
}

#[test]
fn consumers_are_everywhere_and_issuers_where_a_policy_that_is_there_names_them() {
    let mut story = Story::begin(Some("edge"));
    let issuers = ["a", "b", "c", "d"].map(|name| token_issuer(name, "x"));
    story.commit(&issuers, &[]);
    story.commit(
        &[
            listener("l", None, &["seen"]),
            guard("seen", &["a"]),
            guard("unused", &["b"]),
            guard("shop/own", &["c"]),
            token_issuer("shop/c", "x"),
            consumer("alice", &["gold"]),
            policy("gold", false),
        ],
        &[],
    );
    let with = |issuers: &[&str]| -> Vec<String> {
        let mut names = vec!["Listener default/l", "Policy default/gold", "Policy default/seen"];
        names.push("Consumer default/alice");
        names.extend(issuers);
        names.into_iter().map(str::to_owned).collect()
    };
    assert_eq!(story.names(), with(&["TokenIssuer default/a"]));
    story.commit(&[guard("seen", &["b", "d"])], &[]);
    assert_eq!(story.names(), with(&["TokenIssuer default/b", "TokenIssuer default/d"]));
    story.commit(&[listener("l", None, &["gold"])], &[]);
    let rest = ["Listener default/l", "Policy default/gold", "Consumer default/alice"];
    assert_eq!(story.names(), rest);
}

fn object() -> impl Strategy<Value = (Key, Option<Resource>)> {
    let name = || prop_oneof![Just("a"), Just("b"), Just("shop/a"), Just("shop/b")];
    let group = || prop_oneof![Just(None), Just(Some("edge")), Just(Some("shop"))];
    let listeners = || proptest::collection::vec(name(), 0..2);
    let kinds = prop_oneof![
        (name(), group(), listeners())
            .prop_map(|(name, group, refs)| (key(Kind::Listener, name), listener(name, group, &refs))),
        (name(), listeners(), name(), listeners()).prop_map(|(name, listeners, upstream, refs)| {
            let upstream = upstream.rsplit('/').next().expect("a name");
            (key(Kind::Route, name), route(name, &listeners, upstream, &refs))
        }),
        (name(), 1..4_u32).prop_map(|(name, content)| (key(Kind::Upstream, name), upstream(name, content))),
        (name(), name()).prop_map(|(name, issuer)| {
            let issuer = issuer.rsplit('/').next().expect("a name");
            (key(Kind::Policy, name), guard(name, &[issuer]))
        }),
        (name(), "[xy]").prop_map(|(name, text)| (key(Kind::TokenIssuer, name), token_issuer(name, &text))),
        (name(), listeners()).prop_map(|(name, refs)| (key(Kind::Consumer, name), consumer(name, &refs))),
        (name(), any::<bool>()).prop_map(|(name, global)| (key(Kind::Policy, name), policy(name, global))),
    ];
    (kinds, proptest::bool::weighted(0.75)).prop_map(|((key, resource), put)| (key, put.then_some(resource)))
}

#[test]
fn what_came_back_inside_the_window_to_what_it_was_before_it_is_no_difference() {
    let mut story = Story::begin(None);
    story.commit(&[listener("l", None, &[]), route("r", &[], "a", &[]), upstream("a", 1)], &[]);
    let a = key(Kind::Upstream, "a");
    let (then, root) = (story.view.items().get(&a).map(|it| it.hash), story.view.head().root);
    story.commit(&[upstream("a", 2)], &[]);
    // The window begins while it is another one.
    story.view = story.restarted(None);
    story.commit(&[upstream("a", 1)], &[]);
    story.view.recall(1, story.differences(1));
    assert_eq!((story.view.root_at(1), story.view.hash_at(1, &a)), (Some(root), then));
    assert_eq!(story.view.delta(1).expect("recalled").changes.len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn following_edits_comes_to_the_same_as_building_anew(
        revisions in proptest::collection::vec(proptest::collection::vec(object(), 1..5), 1..12),
        group in prop_oneof![Just(None), Just(Some("edge"))],
    ) {
        let mut story = Story::begin(group);
        let mut roots = vec![story.view.head().root];
        for edits in revisions {
            let edits: HashMap<_, _> = edits.into_iter().collect();
            let puts: Vec<_> = edits.values().flatten().cloned().collect();
            let deletes: Vec<_> = edits.iter().filter(|(_, put)| put.is_none()).map(|(key, _)| key.clone()).collect();
            story.commit(&puts, &deletes);
            let anew = Scope::build(group.map(str::to_owned), &story.state.objects);
            prop_assert!(story.view.items().iter().eq(anew.items().iter()));
            prop_assert_eq!(story.view.head().root, anew.root());
            prop_assert!(story.view.scope().references.iter().eq(anew.references.iter()));
            prop_assert_eq!(anew.root(), anew.items().iter().map(|(_, stored)| stored.hash).collect());
            roots.push(anew.root());
        }
        // Every delta leads from the root it starts at to the root of the head, and what is read from history is the
        // same as what was seen.
        let restarted = story.restarted(group);
        for (revision, root) in roots.iter().enumerate().take(roots.len() - 1) {
            let revision = revision as u64;
            prop_assert_eq!(story.view.root_at(revision), Some(*root));
            let delta = story.view.delta(revision).expect("in the window");
            prop_assert_eq!(restarted.root_at(revision), None);
            restarted.recall(revision, story.differences(revision));
            prop_assert_eq!(restarted.root_at(revision), Some(*root));
            let recalled = restarted.delta(revision).expect("recalled");
            prop_assert_eq!(format!("{:?}", recalled.changes), format!("{:?}", delta.changes));
            let after = delta.changes.iter().fold(*root, |root, changed| {
                let root = changed.before.map_or(root, |before| root.minus(before));
                changed.after.as_ref().map_or(root, |after| root.plus(after.hash))
            });
            prop_assert_eq!(after, story.view.head().root);
        }
    }
}
