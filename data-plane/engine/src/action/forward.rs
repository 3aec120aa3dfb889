//! Forward: which upstream gets a request, and under what host name.

use std::fmt;
use std::sync::Arc;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::wire;

use crate::path;
use crate::upstream::{self, UpstreamSlot};
use crate::violations::Violations;

/// Checked backends; at least one has a weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    backends: Backends,
    /// What stands in the `Host` field to the upstream.
    pub host: HostHeader,
}

/// Who takes turns. One, as most routes have, lies inline: no other memory is read to pick it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Backends {
    One(Backend),
    Many {
        list: Arc<[Backend]>,
        /// Sum of the weights.
        total: u64,
        /// Distance between two turns, without a common divisor with `total`.
        step: u64,
    },
}

/// An upstream and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The upstream's number.
    pub upstream: UpstreamSlot,
    /// Its name as the route writes it, for explain.
    pub name: Arc<str>,
    /// Share of the requests; 0 gets none.
    pub weight: u16,
}

/// `Host` to the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// As the client sent it.
    Preserve,
    /// The target's address.
    Upstream,
    /// This host, with a port if one was written.
    Literal(Arc<str>),
}

impl Forward {
    pub(super) fn compile(
        spec: &wire::Forward,
        at: &FieldPath<'_>,
        out: &mut Violations,
        find: &mut dyn FnMut(&str) -> Result<UpstreamSlot, String>,
    ) -> Option<Forward> {
        let host = out.ok(&at.field("host"), host_header(spec.host.as_deref()));
        let list = at.field("backends");
        let mut backends: Vec<Backend> = Vec::with_capacity(spec.backends.len());
        let mut sound = true;
        for (index, backend) in spec.backends.iter().enumerate() {
            let at = list.index(index);
            let weight = upstream::weight(backend.weight, &at.field("weight"), out);
            match find(&backend.upstream) {
                Err(message) => {
                    out.push(&at.field("upstream"), ViolationCode::DanglingReference, message);
                    sound = false;
                }
                Ok(slot) if backends.iter().any(|other| other.upstream == slot) => {
                    let message = format!("{:?} is named twice, add up the weights", backend.upstream);
                    out.push(&at.field("upstream"), ViolationCode::Duplicate, message);
                    sound = false;
                }
                Ok(upstream) => {
                    backends.push(Backend { upstream, name: Arc::from(&*backend.upstream), weight });
                }
            }
            sound &= backend.weight.unwrap_or(1) <= upstream::MAX_WEIGHT;
        }
        let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
        if spec.backends.is_empty() {
            out.push(&list, ViolationCode::Required, "name at least one upstream");
            return None;
        }
        if sound && total == 0 {
            out.push(&list, ViolationCode::Invalid, "every weight is 0, give one upstream a share");
            return None;
        }
        let host = host.filter(|_| sound)?;
        let backends = match <[Backend; 1]>::try_from(backends) {
            Ok([only]) => Backends::One(only),
            Err(list) => Backends::Many { list: list.into(), total, step: step(total) },
        };
        Some(Forward { backends, host })
    }

    /// The upstreams and their shares, as the author wrote them.
    pub fn backends(&self) -> &[Backend] {
        match &self.backends {
            Backends::One(only) => std::slice::from_ref(only),
            Backends::Many { list, .. } => list,
        }
    }

    /// Whose turn it is; `counter` goes up by one from request to request (per worker, from any start). Over any
    /// `total weight` turns each upstream gets exactly its weight, spread evenly: the turns walk the weights in
    /// golden-ratio steps.
    #[inline]
    pub fn pick(&self, counter: u64) -> UpstreamSlot {
        let (list, total, step) = match &self.backends {
            Backends::One(only) => return only.upstream,
            Backends::Many { list, total, step } => (list, total, step),
        };
        let (last, others) = list.split_last().expect("compile refuses an empty list");
        let mut place = (counter % total) * step % total;
        for backend in others {
            match place.checked_sub(u64::from(backend.weight)) {
                Some(rest) => place = rest,
                None => return backend.upstream,
            }
        }
        last.upstream
    }
}

/// The number nearest above `total` divided by the golden ratio that has no common divisor with `total`.
fn step(total: u64) -> u64 {
    let start = (total * 618 / 1000).max(1);
    (start..)
        .find(|&step| gcd(step, total) == 1)
        .expect("a multiple of the total plus one has no common divisor")
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn host_header(text: Option<&str>) -> Result<HostHeader, String> {
    match text {
        None | Some("preserve") => Ok(HostHeader::Preserve),
        Some("upstream") => Ok(HostHeader::Upstream),
        Some(literal) => {
            let mut scratch = Vec::new();
            match path::host(literal.as_bytes(), &mut scratch) {
                Ok("") => Err("an empty host, expected preserve, upstream or a host name".to_owned()),
                Ok(_) => Ok(HostHeader::Literal(literal.to_ascii_lowercase().into())),
                Err(bad) => Err(format!(
                    "invalid host {literal:?}, expected preserve, upstream or a host name: {bad}"
                )),
            }
        }
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("forward to ")?;
        let backends = self.backends();
        if let [only] = backends {
            return f.write_str(&only.name);
        }
        for (index, backend) in backends.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} ({})", backend.name, backend.weight)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::compiled;
    use super::super::{Action, Spec};
    use super::*;
    use crate::policy::Scope;

    fn spec(backends: &[(&str, Option<u32>)], host: Option<&str>) -> Spec {
        let backends = backends
            .iter()
            .map(|&(upstream, weight)| wire::Backend { upstream: upstream.to_owned(), weight });
        Spec::Forward(wire::Forward { backends: backends.collect(), host: host.map(str::to_owned) })
    }

    fn forward(backends: &[(&str, Option<u32>)]) -> Forward {
        match compiled(&spec(backends, None), Scope::SHARED).expect("valid") {
            Action::Forward(forward) => forward,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn shares_are_exact_over_a_round_from_any_start() {
        for (a, b) in [(1, 1), (90, 10), (1, 65_535), (7, 0), (3, 5), (2, 4)] {
            let forward = forward(&[("a", Some(a)), ("b", Some(b))]);
            for start in [0, 1, 12_345_678_901] {
                let round = start..start + u64::from(a + b);
                let turns = round.filter(|&turn| forward.pick(turn) == UpstreamSlot(1)).count();
                assert_eq!(turns, a as usize, "{a}:{b} from {start}");
            }
        }
    }

    #[test]
    fn turns_are_spread_over_the_round() {
        let forward = forward(&[("a", Some(90)), ("b", Some(10))]);
        let turns: Vec<u64> = (0..1000).filter(|&turn| forward.pick(turn) == UpstreamSlot(2)).collect();
        let widest = turns.windows(2).map(|pair| pair[1] - pair[0]).max().expect("many turns");
        assert!((10..=20).contains(&widest), "a share of a tenth came only after {widest} turns");
    }

    #[test]
    fn one_backend_gets_all_and_weight_defaults_to_one() {
        let forward = forward(&[("b", None)]);
        assert_eq!((forward.pick(7), forward.backends()[0].weight), (UpstreamSlot(2), 1));
    }

    #[test]
    fn the_host_field_follows_the_option() {
        for (text, expected) in [
            (None, HostHeader::Preserve),
            (Some("preserve"), HostHeader::Preserve),
            (Some("upstream"), HostHeader::Upstream),
            (Some("Users.Internal:8080"), HostHeader::Literal("users.internal:8080".into())),
        ] {
            let Ok(Action::Forward(forward)) = compiled(&spec(&[("a", None)], text), Scope::SHARED) else {
                panic!("{text:?} is valid")
            };
            assert_eq!(forward.host, expected);
        }
    }

    #[test]
    fn bad_values_are_refused_with_their_places() {
        for (spec, expected) in [
            (spec(&[], None), "spec.forward.backends: required"),
            (
                spec(&[("a", Some(0)), ("b", Some(0))], None),
                "spec.forward.backends: invalid: every weight is 0",
            ),
            (
                spec(&[("a", None), ("c", None)], None),
                "spec.forward.backends[1].upstream: dangling_reference: no upst",
            ),
            (spec(&[("a", None), ("a", None)], None), "spec.forward.backends[1].upstream: duplicate"),
            (spec(&[("a", Some(65_536))], None), "spec.forward.backends[0].weight: out_of_range"),
            (spec(&[("a", None)], Some("a b")), "spec.forward.host: invalid: invalid host"),
            (spec(&[("a", None)], Some("")), "spec.forward.host: invalid: an empty host"),
        ] {
            let found = compiled(&spec, Scope::SHARED).expect_err(expected);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{expected}: {found:?}");
        }
    }

    #[test]
    fn explain_names_the_upstreams_and_their_shares() {
        let forward = forward(&[("a", Some(90)), ("b", None)]);
        assert_eq!(forward.to_string(), "forward to a (90), b (1)");
    }
}
