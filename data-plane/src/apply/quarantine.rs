//! One bad object does not hold up the rest: what `compile` refuses is left out (its old copy serves on) and the
//! remainder is compiled again. Pure.
//!
//! Invariant: the result is what one compile of the accepted changes gives, and every change is accepted or refused.

use std::collections::BTreeMap;

use gateway_engine::compile::{Change, Compiled, compile_lent};
use gateway_engine::engine::Engine;
use gateway_proto::field::{Violation, ViolationCode};
use gateway_proto::kind::{Key, Kind};

/// Refusals cascade along references (a route whose new upstream is refused): never deeper than the kinds are.
const MAX_ROUNDS: usize = 8;

/// A change that was left out and why.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    /// What was wanted.
    pub(crate) change: Change,
    /// What is wrong with it; at least one.
    pub(crate) violations: Vec<Violation>,
}

/// What could be compiled.
#[derive(Debug)]
pub(super) struct Quarantined {
    /// With the accepted changes.
    pub(super) compiled: Compiled,
    /// The others.
    pub(super) refused: BTreeMap<Key, Refused>,
}

/// Compiles as many of the changes as possible. `refused` are those that the caller has given up already.
pub(super) fn quarantine(
    previous: &Engine,
    changes: &BTreeMap<Key, Change>,
    mut refused: BTreeMap<Key, Refused>,
) -> Quarantined {
    let mut round = 0;
    let mut changes: BTreeMap<&Key, &Change> = changes.iter().collect();
    loop {
        let violations = match compile_lent(previous, changes.values().copied()) {
            Ok(compiled) => return Quarantined { compiled, refused },
            Err(violations) => violations,
        };
        // Otherwise this would go on for ever.
        assert!(!changes.is_empty(), "what serves compiles: {violations:?}");
        let mut guilty = BTreeMap::<Key, Vec<Violation>>::new();
        let mut others = Vec::new();
        for violation in violations {
            if round < MAX_ROUNDS && changes.contains_key(&violation.object) {
                guilty.entry(violation.object.clone()).or_default().push(violation);
            } else {
                others.push(violation);
            }
        }
        if guilty.is_empty() {
            // The fault shows in an object that is not in the batch: a changed Policy that does not fit one that
            // refers to it. Without the policies, or at last without the whole batch, what was there still holds.
            let policies = changes.keys().any(|key| key.kind == Kind::Policy) && round < MAX_ROUNDS;
            let blamed = changes.keys().filter(|key| !policies || key.kind == Kind::Policy);
            guilty = blamed
                .map(|&key| (key.clone(), others.iter().map(|it| indirect(key, it)).collect()))
                .collect();
        }
        for (key, violations) in guilty {
            if let Some(change) = changes.remove(&key) {
                refused.insert(key, Refused { change: change.clone(), violations });
            }
        }
        round += 1;
    }
}

/// The fault of another object that a change brings about.
fn indirect(key: &Key, violation: &Violation) -> Violation {
    Violation {
        object: key.clone(),
        field: String::new(),
        code: ViolationCode::Conflict,
        message: format!("with this change {violation}"),
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::kind::Resource;
    use gateway_proto::wire;

    use super::*;

    fn metadata(name: &str) -> Option<wire::Metadata> {
        Some(wire::Metadata { name: name.into(), namespace: "default".into(), ..Default::default() })
    }

    fn upstream(name: &str, target: &str) -> Resource {
        let targets = vec![wire::Target { address: target.into(), weight: None }];
        let spec = Some(wire::UpstreamSpec { targets, ..Default::default() });
        Resource::from(wire::Upstream { metadata: metadata(name), spec, ..Default::default() }).canonical()
    }

    fn route(name: &str, upstream: &str) -> Resource {
        let backends = vec![wire::Backend { upstream: upstream.into(), weight: None }];
        let action = Some(wire::route_spec::Action::Forward(wire::Forward { backends, host: None }));
        let spec = Some(wire::RouteSpec { action, ..Default::default() });
        Resource::from(wire::Route { metadata: metadata(name), spec, ..Default::default() }).canonical()
    }

    fn changes(list: impl IntoIterator<Item = Change>) -> BTreeMap<Key, Change> {
        list.into_iter().map(|change| (change.key(), change)).collect()
    }

    fn refused(result: &Quarantined) -> Vec<String> {
        let line = |refused: &Refused| {
            let first = &refused.violations[0];
            format!("{} {}", first.object, first.code.as_str())
        };
        result.refused.values().map(line).collect()
    }

    #[test]
    fn a_bad_object_and_what_newly_refers_to_it_are_left_out_and_the_rest_serves() {
        let batch = changes([
            Change::Upsert(upstream("bad", "no port")),
            Change::Upsert(route("on-bad", "bad")),
            Change::Upsert(upstream("good", "127.0.0.1:1")),
            Change::Upsert(route("on-good", "good")),
        ]);
        let result = quarantine(&Engine::default(), &batch, BTreeMap::new());
        assert_eq!(
            refused(&result),
            ["Route default/on-bad dangling_reference", "Upstream default/bad invalid"]
        );
        let names: Vec<_> = result.compiled.engine.routes().map(|route| route.name.to_string()).collect();
        assert_eq!(names, ["default/on-good"]);
    }

    #[test]
    fn the_old_copy_of_a_bad_object_serves_on() {
        let batch = changes([Change::Upsert(upstream("u", "127.0.0.1:1")), Change::Upsert(route("r", "u"))]);
        let before = quarantine(&Engine::default(), &batch, BTreeMap::new()).compiled.engine;
        let after =
            quarantine(&before, &changes([Change::Upsert(upstream("u", "no port"))]), BTreeMap::new());
        assert_eq!(refused(&after), ["Upstream default/u invalid"]);
        let key = Key::new(Kind::Upstream, "default", "u");
        assert_eq!(after.compiled.engine.body(&key), before.body(&key));
    }

    #[test]
    fn an_object_that_is_still_referred_to_is_not_deleted() {
        let batch = changes([Change::Upsert(upstream("u", "127.0.0.1:1")), Change::Upsert(route("r", "u"))]);
        let before = quarantine(&Engine::default(), &batch, BTreeMap::new()).compiled.engine;
        let key = Key::new(Kind::Upstream, "default", "u");
        let after = quarantine(&before, &changes([Change::Delete(key.clone())]), BTreeMap::new());
        assert_eq!(refused(&after), ["Upstream default/u in_use"]);
        assert!(after.compiled.engine.contains(&key));
    }
}
