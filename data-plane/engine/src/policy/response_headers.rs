//! responseHeaders: edits of the response's header fields before it goes to the client, also of the proxy's own
//! answers. Levels add up, from far to near. What values read of the request is noted before any policy runs.

use gateway_proto::field::FieldPath;
use gateway_proto::wire;

use super::header_edits::HeaderEdits;
use super::{Hooks, Level, Scope, phase};
use crate::context::Ctx;
use crate::head::Head;
use crate::template::{Captures, Source, Template};
use crate::violations::Violations;

/// Compiled `responseHeaders`.
#[derive(Debug)]
pub(super) struct ResponseHeaders {
    edits: HeaderEdits,
    captures: Captures,
}

impl Hooks for ResponseHeaders {
    type Spec = wire::HeaderEdits;
    const PHASES: u8 = phase::NOTE | phase::RESPONSE;
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
        let mut captures = Captures::default();
        let template = |text: &str| Template::compile_response(text, scope.variables(), &mut captures);
        let edits = HeaderEdits::compile(spec, at, out, |_| None, template)?;
        Some(ResponseHeaders { edits, captures })
    }

    fn note(&self, level: Level, ctx: &mut Ctx<'_>, head: &Head<'_>) {
        if !self.captures.is_empty() {
            let first = self.captures.note(ctx, head);
            ctx.notes.set_first(level as usize, first);
        }
    }

    fn response(&self, level: Level, ctx: &mut Ctx<'_>, head: &mut Head<'_>) {
        let source = Source::Notes(ctx.notes.first(level as usize).unwrap_or_default());
        self.edits.apply(head, |template, _, out| template.render(ctx, source, out));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Message, accepted, faults};
    use super::*;

    fn policy(edits: wire::HeaderEdits) -> wire::PolicyEntry {
        wire::PolicyEntry { policy: Some(wire::policy_entry::Policy::ResponseHeaders(edits)) }
    }

    fn map(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn values_read_the_request_after_its_head_is_gone() {
        let edits = wire::HeaderEdits {
            set: map(&[
                ("x-time", "${latency}"),
                (
                    "x-was",
                    "${request.method} ${request.path}?${request.query} ${path.id} ${request.header.x-a}",
                ),
                ("x-who", "${client.ip} ${request.id} ${route.name} ${listener.name} ${request.scheme}"),
            ]),
            ..Default::default()
        };
        let message = Message::request("GET", "/users/a%20b?q=1")
            .with("X-A", "1")
            .with("x-a", "2")
            .param("id", "a%20b");
        let ran = message.answer(&[("server", "s")]).run(&accepted(policy(edits)));
        let expected = [
            "server: s",
            "x-time: 12.345ms",
            "x-was: GET /users/a%20b?q=1 a b 1, 2",
            "x-who: 192.0.2.1 req-1 default/route default/listener http",
        ];
        assert_eq!(ran.response, expected);
    }

    #[test]
    fn edits_run_over_the_upstreams_fields() {
        let edits = wire::HeaderEdits {
            rename: map(&[("Server", "X-Origin-Server")]),
            remove: vec!["X-Powered-By".to_owned()],
            add: map(&[("set-cookie", "b=2")]),
            ..Default::default()
        };
        let answer = [("Server", "s"), ("x-powered-by", "p"), ("Set-Cookie", "a=1")];
        let ran = Message::request("GET", "/").answer(&answer).run(&accepted(policy(edits)));
        assert_eq!(ran.response, ["x-origin-server: s", "Set-Cookie: a=1", "set-cookie: b=2"]);
    }

    #[test]
    fn framing_names_are_refused_and_latency_is_offered() {
        let edits = wire::HeaderEdits {
            remove: vec!["Content-Length".to_owned()],
            set: map(&[("x", "${nope}")]),
            ..Default::default()
        };
        let found = faults(policy(edits));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("spec.policies[0].responseHeaders.remove[0]: invalid: \"content-length\"")
        );
        assert!(found[1].ends_with("consumer.name, claim.NAME, latency"), "{}", found[1]);
    }
}
