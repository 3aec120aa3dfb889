//! What a route does with a request: forward it to an upstream, or answer with a redirect or a fixed response.
//! Checked once from the wire form; deciding here is pure and allocates nothing, connecting is the data plane's.

use std::fmt;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::wire;
use gateway_proto::wire::route_spec::Action as Spec;

use crate::policy::Scope;
use crate::upstream::UpstreamSlot;
use crate::violations::Violations;

mod forward;
mod redirect;
mod respond;

pub use forward::{Backend, Forward, HostHeader};
pub use redirect::Redirect;
pub use respond::Respond;

/// A route's checked action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send it to an upstream.
    Forward(Forward),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer with a fixed response.
    Respond(Respond),
}

impl Action {
    /// Checks a route's action; `at` is the place of the spec that holds it (`spec`), `find` the upstream of a name in
    /// the route's namespace or the message why there is none. `None` after a violation.
    pub fn compile(
        spec: Option<&Spec>,
        at: &FieldPath<'_>,
        out: &mut Violations,
        scope: Scope<'_>,
        find: &mut dyn FnMut(&str) -> Result<UpstreamSlot, String>,
    ) -> Option<Action> {
        match spec {
            None => {
                out.push(at, ViolationCode::Required, "say what to do: forward, redirect or respond");
                None
            }
            Some(Spec::Forward(spec)) => {
                Forward::compile(spec, &at.field("forward"), out, find).map(Action::Forward)
            }
            Some(Spec::Redirect(spec)) => {
                Redirect::compile(spec, &at.field("redirect"), out, scope).map(Action::Redirect)
            }
            Some(Spec::Respond(spec)) => {
                Respond::compile(spec, &at.field("respond"), out, scope).map(Action::Respond)
            }
        }
    }

    /// Names of the upstreams a route's action refers to, for the index of references.
    pub fn references(spec: Option<&Spec>) -> impl Iterator<Item = &str> {
        let backends: &[wire::Backend] = match spec {
            Some(Spec::Forward(forward)) => &forward.backends,
            Some(Spec::Redirect(_) | Spec::Respond(_)) | None => &[],
        };
        backends.iter().map(|backend| &*backend.upstream)
    }
}

/// For explain: `forward to users (90), users-canary (10)`.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Forward(forward) => forward.fmt(f),
            Action::Redirect(redirect) => redirect.fmt(f),
            Action::Respond(respond) => respond.fmt(f),
        }
    }
}

#[cfg(test)]
mod testing {
    use gateway_proto::kind::{Key, Kind};

    use super::*;

    /// Compiles an action at `spec`; faults as `place: code: message`. The known upstreams are `a` (1) and `b` (2).
    pub(super) fn compiled(spec: &Spec, scope: Scope<'_>) -> Result<Action, Vec<String>> {
        let mut out = Violations::of(Key::new(Kind::Route, "default", "tested"));
        let root = FieldPath::root();
        let mut find = |name: &str| match name {
            "a" => Ok(UpstreamSlot(1)),
            "b" => Ok(UpstreamSlot(2)),
            _ => Err(format!("no upstream {name:?}")),
        };
        let action = Action::compile(Some(spec), &root.field("spec"), &mut out, scope, &mut find);
        let faults: Vec<String> = out
            .into_vec()
            .iter()
            .map(|fault| format!("{}: {}: {}", fault.field, fault.code.as_str(), fault.message))
            .collect();
        assert_eq!(action.is_none(), !faults.is_empty(), "{faults:?}");
        action.ok_or(faults)
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::kind::{Key, Kind};

    use super::*;

    #[test]
    fn a_route_without_an_action_is_refused() {
        let mut out = Violations::of(Key::new(Kind::Route, "default", "r"));
        let root = FieldPath::root();
        let mut find = |_: &str| Ok(UpstreamSlot(0));
        let none = Action::compile(None, &root.field("spec"), &mut out, Scope::SHARED, &mut find);
        assert!(none.is_none());
        assert_eq!(out.into_vec()[0].code, ViolationCode::Required);
    }

    #[test]
    fn only_forwards_refer_to_upstreams() {
        let backend = |name: &str| wire::Backend { upstream: name.to_owned(), weight: None };
        let forward =
            Spec::Forward(wire::Forward { backends: vec![backend("a"), backend("b")], ..Default::default() });
        assert_eq!(Action::references(Some(&forward)).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(Action::references(Some(&Spec::Respond(wire::Respond::default()))).count(), 0);
    }
}
