//! Tests of `policy.rs`.

use std::sync::Arc;

use gateway_proto::wire;
use gateway_proto::wire::policy_entry::Policy as Spec;

use super::testing::compiled;
use super::*;

fn entries(specs: Vec<Spec>) -> Vec<wire::PolicyEntry> {
    specs.into_iter().map(|policy| wire::PolicyEntry { policy: Some(policy) }).collect()
}

fn uri(max: u32) -> Spec {
    Spec::RequestLimits(wire::RequestLimits { max_uri_bytes: Some(max), ..Default::default() })
}

fn filter(disabled: bool) -> Spec {
    let deny = if disabled { Vec::new() } else { vec!["10.0.0.0/8".to_owned()] };
    Spec::IpFilter(wire::IpFilter { disabled, allow: Vec::new(), deny })
}

fn set(specs: Vec<Spec>) -> PolicySet {
    let (set, faults) = compiled(&entries(specs), Scope::SHARED);
    assert!(faults.is_empty(), "{faults:?}");
    set
}

#[test]
fn the_running_order_is_the_contracts() {
    let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(
        names,
        ["requestLimits", "ipFilter", "cors", "auth", "rewrite", "requestHeaders", "responseHeaders"]
    );
}

#[test]
fn a_set_finds_each_policy_whatever_order_the_author_wrote() {
    let cors = Spec::Cors(wire::Cors { disabled: true, ..Default::default() });
    let rewrite =
        Spec::Rewrite(wire::Rewrite { disabled: false, to: Some(wire::rewrite::To::Path("/x".to_owned())) });
    let set = set(vec![rewrite, cors, uri(1), filter(false)]);
    assert_eq!(
        set.kinds().collect::<Vec<_>>(),
        [Kind::RequestLimits, Kind::IpFilter, Kind::Cors, Kind::Rewrite]
    );
    for &kind in Kind::ALL {
        let found = set.get(kind).map(Policy::kind);
        let expected = [Kind::RequestLimits, Kind::IpFilter, Kind::Rewrite].contains(&kind).then_some(kind);
        assert_eq!(found, expected);
    }
    assert!(set.disables(Kind::Cors) && !set.disables(Kind::IpFilter) && !set.is_empty());
    assert!(PolicySet::EMPTY.is_empty() && PolicySet::EMPTY.get(Kind::Cors).is_none());
}

#[test]
fn every_policy_can_be_disabled_and_then_says_nothing_else() {
    for &kind in Kind::ALL {
        let said = |rest: serde_json::Value| {
            let mut spec = rest;
            spec["disabled"] = true.into();
            serde_json::from_value::<wire::PolicyEntry>(serde_json::json!({ kind.name(): spec }))
                .expect("sound")
        };
        let (set, faults) = compiled(&[said(serde_json::json!({}))], Scope::SHARED);
        assert!(faults.is_empty() && set.disables(kind), "{}: {faults:?}", kind.name());
        let rest = match kind {
            Kind::RequestLimits => serde_json::json!({ "maxUriBytes": 1 }),
            Kind::IpFilter => serde_json::json!({ "deny": ["10.0.0.1"] }),
            Kind::Cors => serde_json::json!({ "origins": ["*"] }),
            Kind::Auth => serde_json::json!({ "any": [{ "jwt": { "issuers": ["x"] } }] }),
            Kind::Rewrite => serde_json::json!({ "path": "/x" }),
            Kind::RequestHeaders | Kind::ResponseHeaders => serde_json::json!({ "remove": ["x"] }),
        };
        let (_, faults) = compiled(&[said(rest)], Scope::SHARED);
        let place = format!("spec.policies[0].{}.disabled: conflict: ", kind.name());
        assert!(faults.len() == 1 && faults[0].starts_with(&place), "{faults:?}");
    }
}

#[test]
fn the_same_policy_twice_and_an_entry_without_one_are_refused() {
    let mut list = entries(vec![uri(1), filter(false), uri(2)]);
    list.push(wire::PolicyEntry { policy: None });
    let (_, faults) = compiled(&list, Scope::SHARED);
    let expected = [
        "spec.policies[2].requestLimits: duplicate: requestLimits is already in this list, join the two",
        "spec.policies[3]: required: name one policy: requestLimits, ipFilter, cors, auth, rewrite, \
         requestHeaders, responseHeaders",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn every_fault_of_a_list_is_found_at_once() {
    let bad = Spec::IpFilter(wire::IpFilter { allow: vec!["x".to_owned()], ..Default::default() });
    let worse = Spec::Cors(wire::Cors::default());
    assert_eq!(
        compiled(
            &entries(vec![bad, worse, Spec::RequestLimits(wire::RequestLimits::default())]),
            Scope::SHARED
        )
        .1
        .len(),
        3
    );
}

#[test]
fn inline_beats_references_and_two_references_clash() {
    let inline = set(vec![uri(1)]);
    let (first, second) = (set(vec![uri(2), filter(false)]), set(vec![filter(true)]));
    let references = [(Arc::from("default/a"), &first), (Arc::from("default/b"), &second)];
    let (merged, clashes) = PolicySet::merge(&inline, &references);
    assert_eq!(clashes, [Clash { kind: Kind::IpFilter, first: 0, second: 1 }]);
    let same = |a: Option<&Policy>, b: Option<&Policy>| match (a, b) {
        (Some(Policy::RequestLimits(a)), Some(Policy::RequestLimits(b))) => Arc::ptr_eq(a, b),
        (Some(Policy::IpFilter(a)), Some(Policy::IpFilter(b))) => Arc::ptr_eq(a, b),
        _ => false,
    };
    assert!(same(merged.get(Kind::RequestLimits), inline.get(Kind::RequestLimits)));
    assert!(same(merged.get(Kind::IpFilter), first.get(Kind::IpFilter)));
    assert_eq!(
        (merged.origin(Kind::RequestLimits), merged.origin(Kind::IpFilter)),
        (None, Some("default/a"))
    );
    let (merged, _) = PolicySet::merge(&PolicySet::EMPTY, &references[1..]);
    assert!(merged.disables(Kind::IpFilter));
}
