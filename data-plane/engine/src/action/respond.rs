//! Respond: a fixed response, whose fields and body may hold variables.

use std::fmt;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::wire;

use crate::context::Ctx;
use crate::head::Head;
use crate::policy::{Scope, editable_name, field_value};
use crate::template::{Source, Template};
use crate::violations::Violations;

/// Longest authored body in bytes.
const MAX_BODY: usize = 65_536;

/// A checked response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    status: u16,
    headers: Box<[(Box<str>, Template)]>,
    body: Template,
}

impl Respond {
    pub(super) fn compile(
        spec: &wire::Respond,
        at: &FieldPath<'_>,
        out: &mut Violations,
        scope: Scope<'_>,
    ) -> Option<Respond> {
        let status = spec.status.unwrap_or(200);
        let mut sound = true;
        if !(200..=599).contains(&status) {
            let message = format!("status {status} is out of range, expected 200 to 599");
            out.push(&at.field("status"), ViolationCode::OutOfRange, message);
            sound = false;
        }
        // RFC 9110 §15.3.5, §15.3.6, §15.4.5
        if matches!(status, 204 | 205 | 304) && !spec.body.is_empty() {
            let message = format!("a response with status {status} has no body");
            out.push(&at.field("body"), ViolationCode::Conflict, message);
            sound = false;
        }
        if spec.body.len() > MAX_BODY {
            let message =
                format!("a body of {} bytes is too long, at most {MAX_BODY} are allowed", spec.body.len());
            out.push(&at.field("body"), ViolationCode::OutOfRange, message);
            sound = false;
        }
        let map = at.field("headers");
        let mut headers: Vec<(Box<str>, Template)> = Vec::with_capacity(spec.headers.len());
        for (text, value) in &spec.headers {
            let at = map.key(text);
            let name = out.ok(&at, editable_name(text, |_| None));
            let value = out.ok(&at, Template::compile(value, scope.variables()).and_then(field_value));
            match name.zip(value) {
                Some((name, _)) if headers.iter().any(|(other, _)| **other == *name) => {
                    out.push(
                        &at,
                        ViolationCode::Duplicate,
                        format!("{name:?} is named twice (case does not count)"),
                    );
                    sound = false;
                }
                Some((name, value)) => headers.push((name.into(), value)),
                None => sound = false,
            }
        }
        let body =
            out.ok(&at.field("body"), Template::compile(&spec.body, scope.variables())).filter(|_| sound)?;
        Some(Respond { status: status as u16, headers: headers.into(), body })
    }

    /// Fills in the status and the fields of the (empty) response and appends its body. `Content-Type` is
    /// `text/plain; charset=utf-8` where the author names none; `Content-Length` and `Date` are the proxy's.
    pub fn render(&self, ctx: &Ctx<'_>, request: &Head<'_>, response: &mut Head<'_>, body: &mut Vec<u8>) {
        let source = Source::Request(request);
        response.set_status(self.status);
        let mut value = response.take_scratch();
        for (name, template) in &self.headers {
            value.clear();
            template.render(ctx, source, &mut value);
            response.add(name, value.trim_ascii());
        }
        response.return_scratch(value);
        self.body.render(ctx, source, body);
        if self.body.literal() != Some("") && !response.contains("content-type") {
            response.add("content-type", b"text/plain; charset=utf-8");
        }
    }
}

impl fmt::Display for Respond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "respond with {}", self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::compiled;
    use super::super::{Action, Spec};
    use super::*;
    use crate::context::Notes;
    use crate::head::HeadParts;
    use crate::policy::testing::Message;

    fn spec(status: Option<u32>, headers: &[(&str, &str)], body: &str) -> Spec {
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Spec::Respond(wire::Respond { status, headers, body: body.to_owned() })
    }

    fn rendered(spec: &Spec) -> (u16, Vec<String>, String) {
        let Ok(Action::Respond(respond)) = compiled(spec, Scope::SHARED) else { panic!("{spec:?} is valid") };
        let message = Message::request("GET", "/p").with("x", "a\r\nb");
        let (mut notes, mut parts, mut answer, mut body) =
            (Notes::new(), message.parts(), HeadParts::new(), Vec::new());
        let request = Head::new(b"", &mut parts);
        let mut response = Head::new(b"", &mut answer);
        message.with_ctx(&mut notes, |ctx| respond.render(ctx, &request, &mut response, &mut body));
        let fields = response.iter().map(|(name, value, _)| {
            format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
        });
        (response.status(), fields.collect(), String::from_utf8(body).expect("UTF-8"))
    }

    #[test]
    fn status_fields_and_body_are_filled_in() {
        let (status, fields, body) = rendered(&spec(
            Some(418),
            &[("X-Path", "${request.path}"), ("Content-Type", "text/html")],
            "<${request.id}>",
        ));
        assert_eq!((status, &*body), (418, "<req-1>"));
        assert_eq!(fields, ["content-type: text/html", "x-path: /p"]);
    }

    #[test]
    fn a_body_is_plain_text_unless_the_author_says_otherwise_and_nothing_has_no_type() {
        assert_eq!(rendered(&spec(None, &[], "hi")).1, ["content-type: text/plain; charset=utf-8"]);
        assert_eq!(rendered(&spec(None, &[], "")), (200, Vec::new(), String::new()));
    }

    #[test]
    fn a_value_cannot_inject_a_field() {
        assert_eq!(rendered(&spec(None, &[("x", "${request.header.x}")], "")).1, ["x: a  b"]);
    }

    #[test]
    fn bad_values_are_refused_with_their_places() {
        let long = "x".repeat(MAX_BODY + 1);
        for (spec, expected) in [
            (spec(Some(199), &[], ""), "spec.respond.status: out_of_range"),
            (spec(Some(600), &[], ""), "spec.respond.status: out_of_range"),
            (spec(Some(204), &[], "x"), "spec.respond.body: conflict"),
            (spec(None, &[], &long), "spec.respond.body: out_of_range"),
            (spec(None, &[], "${latency}"), "spec.respond.body: invalid: unknown variable"),
            (spec(None, &[("content-length", "1")], ""), "spec.respond.headers[\"content-length\"]: invalid"),
            (spec(None, &[("x", "a\nb")], ""), "spec.respond.headers[\"x\"]: invalid"),
            (spec(None, &[("X", "1"), ("x", "2")], ""), "spec.respond.headers[\"x\"]: duplicate"),
        ] {
            let found = compiled(&spec, Scope::SHARED).expect_err(expected);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{expected}: {found:?}");
        }
    }
}
