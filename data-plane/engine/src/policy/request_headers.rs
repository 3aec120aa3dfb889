//! requestHeaders: edits of the request's header fields before it goes upstream. Levels add up, from far to near.

use gateway_proto::field::FieldPath;
use gateway_proto::wire;

use super::header_edits::HeaderEdits;
use super::{Flow, Hooks, Scope, phase};
use crate::context::Ctx;
use crate::head::Head;
use crate::template::{Source, Template};
use crate::violations::Violations;

/// Compiled `requestHeaders`.
#[derive(Debug)]
pub(super) struct RequestHeaders(HeaderEdits);

impl Hooks for RequestHeaders {
    type Spec = wire::HeaderEdits;
    const PHASES: u8 = phase::REQUEST;
    const MERGES: bool = true;

    fn is_disabled(spec: &Self::Spec) -> bool {
        spec.disabled
    }

    fn disabled() -> Self::Spec {
        wire::HeaderEdits { disabled: true, ..Default::default() }
    }

    fn compile(
        spec: &Self::Spec,
        at: &FieldPath<'_>,
        out: &mut Violations,
        scope: Scope<'_>,
    ) -> Option<Self> {
        let template = |text: &str| Template::compile(text, scope.variables());
        HeaderEdits::compile(spec, at, out, refused, template).map(RequestHeaders)
    }

    fn request(&self, ctx: &mut Ctx<'_>, head: &mut Head<'_>) -> Flow {
        self.0.apply(head, |template, head, out| template.render(ctx, Source::Request(head), out));
        Flow::Continue
    }
}

fn refused(name: &str) -> Option<&'static str> {
    (name == "host").then_some("use the route's forward.host")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Message, accepted, faults};
    use super::*;

    fn policy(edits: wire::HeaderEdits) -> wire::PolicyEntry {
        wire::PolicyEntry { policy: Some(wire::policy_entry::Policy::RequestHeaders(edits)) }
    }

    fn map(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn edits_run_in_the_order_rename_remove_set_add() {
        let edits = wire::HeaderEdits {
            rename: map(&[("X-Old", "X-New")]),
            remove: vec!["X-Secret".to_owned()],
            set: map(&[("X-New", "set"), ("X-Id", "${request.id}")]),
            add: map(&[("X-Id", "more"), ("Accept", "b")]),
            ..Default::default()
        };
        let message =
            Message::request("GET", "/").with("X-Old", "1").with("x-secret", "2").with("accept", "a");
        let ran = message.run(&accepted(policy(edits)));
        assert_eq!(ran.request, ["x-new: set", "accept: a", "x-id: req-1", "accept: b", "x-id: more"]);
    }

    #[test]
    fn a_value_cannot_inject_a_field() {
        let edits =
            wire::HeaderEdits { set: map(&[("x-copy", "<${request.header.x}>")]), ..Default::default() };
        let ran = Message::request("GET", "/").with("x", "a\r\nEvil: 1\0\x7f").run(&accepted(policy(edits)));
        assert_eq!(ran.request[1], "x-copy: <a  Evil: 1  >");
    }

    #[test]
    fn white_space_around_a_value_goes() {
        let edits = wire::HeaderEdits {
            add: map(&[("x", " a b\t"), ("y", " ${request.id} ")]),
            ..Default::default()
        };
        let ran = Message::request("GET", "/").run(&accepted(policy(edits)));
        assert_eq!(ran.request, ["x: a b", "y: req-1"]);
    }

    #[test]
    fn bad_names_values_and_variables_are_all_named() {
        let edits = wire::HeaderEdits {
            rename: map(&[("a b", "x"), ("x", "Host")]),
            remove: vec!["Connection".to_owned(), "x-a".to_owned(), "X-A".to_owned()],
            set: map(&[("content-length", "1"), ("x-a", "${nope}"), ("x-b", "a\nb"), ("x-c", "${latency}")]),
            add: map(&[("", "1"), (":path", "/"), ("transfer-encoding", "chunked"), ("x-d", "${request.id")]),
            ..Default::default()
        };
        let found = faults(policy(edits));
        let places: Vec<&str> =
            found.iter().map(|fault| fault.split(": ").next().unwrap_or_default()).collect();
        let all = [
            "rename[\"a b\"]",
            "rename[\"x\"]",
            "remove[0]",
            "remove",
            "set[\"content-length\"]",
            "set[\"x-a\"]",
            "set[\"x-b\"]",
            "set[\"x-c\"]",
            "add[\"\"]",
            "add[\":path\"]",
            "add[\"transfer-encoding\"]",
            "add[\"x-d\"]",
        ];
        assert_eq!(places, all.map(|place| format!("spec.policies[0].requestHeaders.{place}")), "{found:#?}");
        assert!(found[1].contains("forward.host"), "{}", found[1]);
        assert!(found[5].contains("expected one of request.id, request.header.NAME"), "{}", found[5]);
    }

    #[test]
    fn an_empty_one_is_refused() {
        assert_eq!(
            faults(policy(wire::HeaderEdits::default())),
            ["spec.policies[0].requestHeaders: required: name headers to rename, remove, set or add"]
        );
    }
}
