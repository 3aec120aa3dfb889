//! Tests of `held.rs`.

use gateway_proto::buckets::bucket;
use gateway_proto::field::ViolationCode;
use gateway_proto::kind::{Kind, Resource};

use super::super::OnViolation;
use super::*;

fn upstream(name: &str, target: &str) -> Resource {
    let metadata =
        Some(wire::Metadata { name: name.into(), namespace: "default".into(), ..Default::default() });
    let targets = vec![wire::Target { address: target.into(), weight: None }];
    let spec = Some(wire::UpstreamSpec { targets, ..Default::default() });
    Resource::from(wire::Upstream { metadata, spec, ..Default::default() }).canonical()
}

fn key(name: &str) -> Key {
    Key::new(Kind::Upstream, "default", name)
}

fn update(scope: Scope, changes: Vec<Change>) -> Update {
    Update {
        scope,
        epoch: "e".into(),
        revision: 1,
        changes,
        unreadable: Vec::new(),
        gone: Vec::new(),
        on_violation: OnViolation::Park,
        allow_shrink: false,
    }
}

fn make(held: &mut Held, update: Update) {
    held.check_order(&update).expect("forward");
    let unreadable = held.unreadable_after(&update);
    let built = held.build(&held.candidates(&update.scope, update.changes, &unreadable), BTreeMap::new());
    held.take(built, unreadable, update.epoch, update.revision);
}

fn names(held: &Held) -> Vec<&str> {
    held.engine().objects().iter().map(|it| it.key.name.as_str()).collect()
}

fn buckets(names: &[&str]) -> Scope {
    let buckets = names.iter().map(|name| bucket(["Upstream", "default", name]));
    Scope::Buckets(Box::new(buckets.collect()))
}

#[test]
fn of_the_buckets_of_a_comparison_what_is_not_named_goes_and_the_rest_stays() {
    let mut held = Held::default();
    let all = ["a", "b", "c", "d"].map(|name| Change::Upsert(upstream(name, "127.0.0.1:1"))).to_vec();
    make(&mut held, update(Scope::Full, all));
    // One of the rest is refused, and stays so.
    make(&mut held, update(Scope::Delta, vec![Change::Upsert(upstream("d", "no port"))]));
    let changes = vec![Change::Upsert(upstream("b", "127.0.0.1:2"))];
    make(&mut held, update(buckets(&["a", "b"]), changes));
    assert_eq!(names(&held), ["b", "c", "d"]);
    assert_eq!(held.parked().map(|(key, _)| &*key.name).collect::<Vec<_>>(), ["d"]);
    let items = ["b", "c", "d"].map(key);
    let hashes = items.iter().map(|key| hash_in(held.engine(), key).expect("held"));
    assert_eq!(held.cursor().root, hashes.clone().collect::<RootHash>(), "the root is that of what is held");
    assert_eq!(held.buckets(), items.iter().zip(hashes).collect());

    // A comparison that covers it says what it is now.
    make(&mut held, update(buckets(&["d"]), Vec::new()));
    assert_eq!((names(&held), held.rejects()), (vec!["b", "c"], Vec::new()));
}

#[test]
fn what_cannot_be_read_is_told_with_its_old_copy_until_it_is_named_again_or_goes() {
    let mut held = Held::default();
    make(&mut held, update(Scope::Full, vec![Change::Upsert(upstream("a", "127.0.0.1:1"))]));
    let unknown = |object: &wire::ObjectRef| Reject {
        object: object.clone(),
        hash: Some(ItemHash([7; 16])),
        held: None,
        field: String::new(),
        code: ViolationCode::Unknown,
        message: String::new(),
    };
    let (a, gizmo) = (
        wire::ObjectRef::from(&key("a")),
        wire::ObjectRef { kind: "Gizmo".into(), namespace: "default".into(), name: "g".into() },
    );
    let newer = || Update {
        unreadable: vec![unknown(&a), unknown(&gizmo)],
        ..update(Scope::Full, vec![Change::Upsert(upstream("b", "127.0.0.1:1"))])
    };
    make(&mut held, newer());
    assert_eq!(names(&held), ["a", "b"], "the old copy serves on");
    let told = |held: &Held| {
        held.rejects().into_iter().map(|it| (it.object.name, it.held.is_some())).collect::<Vec<_>>()
    };
    assert_eq!(told(&held), [("a".to_owned(), true), ("g".to_owned(), false)]);

    make(&mut held, update(Scope::Delta, vec![Change::Upsert(upstream("c", "127.0.0.1:1"))]));
    assert_eq!(told(&held).len(), 2, "a change that does not name them");
    make(&mut held, update(Scope::Delta, vec![Change::Upsert(upstream("a", "127.0.0.1:2"))]));
    assert_eq!(told(&held), [("g".to_owned(), false)]);
    make(&mut held, Update { gone: vec![gizmo.clone()], ..update(Scope::Delta, Vec::new()) });
    assert_eq!(told(&held), []);
    make(&mut held, newer());
    make(&mut held, update(Scope::Full, Vec::new()));
    assert_eq!((told(&held).len(), names(&held).len()), (0, 0));
}
