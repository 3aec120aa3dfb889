//! Any sequence of edits compiled step by step equals one compilation of what results: same verdict, same objects,
//! same warnings, same decisions, same policies in force.

use std::collections::BTreeMap;

use gateway_engine::Engine;
use gateway_engine::compile::{Change, Changed, compile};
use gateway_engine::engine::Stored;
use gateway_proto::admin::ExplainRequest;
use gateway_proto::kind::{Key, Resource};
use gateway_proto::wire::{self, policy_entry, route_spec};

use crate::generate::{self, Choose, LISTENERS, metadata};
use crate::oracle::decide;
use crate::{Rng, cases};

const ROUTES: [&str; 6] = ["default/r", "team/r", "team/a", "default/b", "team-x/r", "default/c"];
const UPSTREAMS: [&str; 3] = ["default/u", "team/u", "team-x/u"];
const POLICIES: [&str; 4] = ["default/p", "default/q", "team/p", "team/q"];

type Objects = BTreeMap<Key, Resource>;

fn object(rng: &mut Rng) -> Resource {
    match rng.below(8) {
        0 => {
            let at = rng.below(LISTENERS.len());
            let spec = wire::ListenerSpec {
                // Sometimes the port of a neighbour.
                port: Some(8_000 + (at + usize::from(rng.one_in(6))) as u32),
                policies: policies(rng),
                policy_refs: policy_refs(rng),
                ..Default::default()
            };
            wire::Listener { metadata: Some(metadata(LISTENERS[at])), spec: Some(spec), ..Default::default() }
                .into()
        }
        1 => {
            let target =
                wire::Target { address: format!("127.0.0.1:{}", 9_000 + rng.below(3)), weight: Some(1) };
            let spec = wire::UpstreamSpec { targets: vec![target], ..Default::default() };
            wire::Upstream {
                metadata: Some(metadata(rng.pick(&UPSTREAMS))),
                spec: Some(spec),
                ..Default::default()
            }
            .into()
        }
        2 | 3 => {
            let spec = wire::PolicySpec { global: rng.one_in(3), policies: policies(rng) };
            wire::Policy {
                metadata: Some(metadata(rng.pick(&POLICIES))),
                spec: Some(spec),
                ..Default::default()
            }
            .into()
        }
        _ => {
            let name = rng.pick(&ROUTES);
            let mut route = generate::route(rng, name);
            let spec = route.spec.get_or_insert_default();
            if rng.one_in(3) {
                let backend = wire::Backend { upstream: "u".to_owned(), weight: None };
                let forward = wire::Forward { backends: vec![backend], ..Default::default() };
                spec.action = Some(route_spec::Action::Forward(forward));
            }
            spec.policies = policies(rng);
            spec.policy_refs = policy_refs(rng);
            route.into()
        }
    }
}

fn policies(rng: &mut Rng) -> Vec<wire::PolicyEntry> {
    let mut entries = Vec::new();
    let value = format!("{}", rng.below(2));
    let set = BTreeMap::from([("x-set".to_owned(), value)]);
    let edits = wire::HeaderEdits { set, ..Default::default() };
    if rng.one_in(4) {
        entries.push(policy_entry::Policy::RequestHeaders(edits.clone()));
    }
    if rng.one_in(4) {
        entries.push(policy_entry::Policy::ResponseHeaders(edits));
    }
    if rng.one_in(6) {
        entries.push(policy_entry::Policy::RequestHeaders(wire::HeaderEdits {
            disabled: true,
            ..Default::default()
        }));
    }
    entries.into_iter().map(|policy| wire::PolicyEntry { policy: Some(policy) }).collect()
}

fn policy_refs(rng: &mut Rng) -> Vec<String> {
    POLICIES.iter().filter(|_| rng.one_in(6)).map(|name| (*name).to_owned()).collect()
}

fn batch(rng: &mut Rng, objects: &Objects) -> BTreeMap<Key, Change> {
    let mut batch = BTreeMap::new();
    for _ in 0..=rng.below(4) {
        let keys: Vec<&Key> = objects.keys().collect();
        let change = if !keys.is_empty() && rng.one_in(3) {
            Change::Delete(rng.pick(&keys).clone())
        } else {
            Change::Upsert(object(rng))
        };
        batch.insert(change.key(), change);
    }
    batch
}

fn edited(objects: &Objects, batch: &BTreeMap<Key, Change>) -> Objects {
    let mut objects = objects.clone();
    for (key, change) in batch {
        match change {
            Change::Upsert(resource) | Change::Sealed(resource, _) => {
                drop(objects.insert(key.clone(), resource.clone().canonical()));
            }
            Change::Delete(_) => drop(objects.remove(key)),
        }
    }
    objects
}

fn whole(objects: &Objects) -> Option<Engine> {
    let changes = objects.values().cloned().map(Change::Upsert).collect();
    compile(&Engine::default(), changes).ok().map(|compiled| compiled.engine)
}

fn check_changed(changed: &Changed, before: &Objects, after: &Objects) {
    let added: Vec<&Key> = after.keys().filter(|key| !before.contains_key(key)).collect();
    let removed: Vec<&Key> = before.keys().filter(|key| !after.contains_key(key)).collect();
    let updated: Vec<&Key> = after
        .iter()
        .filter(|(key, new)| before.get(key).is_some_and(|old| old != *new))
        .map(|(key, _)| key)
        .collect();
    assert_eq!(changed.added.iter().collect::<Vec<_>>(), added);
    assert_eq!(changed.removed.iter().collect::<Vec<_>>(), removed);
    assert_eq!(changed.updated.iter().collect::<Vec<_>>(), updated);
    assert!(changed.affected.is_empty(), "there are no certificates");
}

fn check_equal(rng: &mut Rng, stepwise: &Engine, whole: &Engine) {
    let bodies = |engine: &Engine| -> Vec<_> {
        engine.objects().into_iter().map(|it| (it.key.clone(), it.body.clone())).collect()
    };
    assert_eq!(bodies(stepwise), bodies(whole));
    assert_eq!(stepwise.warnings(), whole.warnings());
    for Stored { key, .. } in stepwise.objects() {
        assert_eq!(stepwise.referrers(key), whole.referrers(key), "{key}");
    }
    for _ in 0..4 {
        let request = generate::request(rng);
        for listener in LISTENERS.iter().filter(|name| whole.listener(name).is_some()) {
            assert_eq!(
                decide(stepwise, listener, &request),
                decide(whole, listener, &request),
                "{request:?}"
            );
        }
        let explained = ExplainRequest {
            listener: None,
            method: request.method,
            host: request.host,
            path: format!("{}?{}", request.path, request.query),
            headers: request.headers,
            source: Some(request.source),
        };
        assert_eq!(stepwise.explain(&explained), whole.explain(&explained));
    }
}

#[test]
fn a_sequence_of_edits_equals_one_compilation() {
    let (mut accepted, mut refused) = (0, 0);
    for sequence in 0..cases(40) {
        let mut rng = Rng(sequence as u64);
        let (mut engine, mut objects) = (Engine::default(), Objects::new());
        for step in 0..100 {
            let batch = batch(&mut rng, &objects);
            let candidate = edited(&objects, &batch);
            let result = compile(&engine, batch.values().cloned().collect());
            let full = whole(&candidate);
            match (result, full) {
                (Ok(compiled), Some(full)) => {
                    check_changed(&compiled.changed, &objects, &candidate);
                    check_equal(&mut rng, &compiled.engine, &full);
                    (engine, objects) = (compiled.engine, candidate);
                    accepted += 1;
                }
                (Err(violations), None) => {
                    assert!(!violations.is_empty());
                    assert!(
                        violations.iter().all(|found| batch.contains_key(&found.object)),
                        "only what the batch touches is blamed: {violations:?}"
                    );
                    refused += 1;
                }
                (result, full) => panic!(
                    "sequence {sequence} step {step}: stepwise {:?}, whole {}, batch {batch:#?}",
                    result.map(|compiled| compiled.changed),
                    full.is_some()
                ),
            }
        }
    }
    assert!(accepted > 500 && refused > 500, "{accepted} accepted, {refused} refused");
}
