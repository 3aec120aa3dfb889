//! Redirect: the `Location` of an answer. What is left out stays as it was asked for, the query always does. Without
//! scheme, host and port the location is a path alone, so that it is right whatever stands before the gateway.

use std::fmt;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::wire;
use gateway_proto::wire::redirect::To;

use crate::context::{Ctx, Scheme};
use crate::head::Head;
use crate::path;
use crate::policy::Scope;
use crate::reject::Reason;
use crate::template::PathTemplate;
use crate::violations::Violations;

/// A checked redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    scheme: Option<Scheme>,
    host: Option<Box<str>>,
    port: Option<u16>,
    to: Target,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Same,
    Path(PathTemplate),
    Prefix(PathTemplate),
}

impl Redirect {
    pub(super) fn compile(
        spec: &wire::Redirect,
        at: &FieldPath<'_>,
        out: &mut Violations,
        scope: Scope<'_>,
    ) -> Option<Redirect> {
        if spec.scheme.is_empty() && spec.host.is_empty() && spec.port.is_none() && spec.to.is_none() {
            let message = "it leads nowhere else, set scheme, host, port, path or prefix";
            out.push(at, ViolationCode::Required, message);
            return None;
        }
        let scheme = out.ok(
            &at.field("scheme"),
            match &*spec.scheme {
                "" => Ok(None),
                "http" => Ok(Some(Scheme::Http)),
                "https" => Ok(Some(Scheme::Https)),
                other => Err(format!("unknown scheme {other:?}, expected http or https")),
            },
        );
        let host = out.ok(&at.field("host"), host(&spec.host));
        let port = match spec.port.map(u16::try_from) {
            None => Some(None),
            Some(Ok(port)) if port != 0 => Some(Some(port)),
            Some(_) => {
                out.push(&at.field("port"), ViolationCode::OutOfRange, "a port is a number from 1 to 65535");
                None
            }
        };
        let to = match &spec.to {
            None => Some(Target::Same),
            Some(To::Path(text)) => {
                out.ok(&at.field("path"), PathTemplate::compile(text, scope.variables())).map(Target::Path)
            }
            Some(To::Prefix(text)) => {
                let at = at.field("prefix");
                if !scope.by_prefix {
                    let message = "none of this route's matches is by prefix, so there is nothing to replace";
                    out.push(&at, ViolationCode::Conflict, message);
                    return None;
                }
                out.ok(&at, PathTemplate::compile(text, scope.variables())).map(Target::Prefix)
            }
        };
        let status = spec.status.unwrap_or(308);
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            let message = format!("status {status} is no redirect, expected 301, 302, 303, 307 or 308");
            out.push(&at.field("status"), ViolationCode::OutOfRange, message);
            return None;
        }
        Some(Redirect { scheme: scheme?, host: host?, port: port?, to: to?, status: status as u16 })
    }

    /// Status of the answer.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Appends the value of `Location`.
    ///
    /// # Errors
    /// The request is refused: a variable of the path does not give a path.
    pub fn location(&self, ctx: &Ctx<'_>, head: &mut Head<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
        self.write_origin(ctx, head, out);
        let (mut new, mut scratch) = (head.take_scratch(), head.take_scratch());
        let rendered = match (&self.to, ctx.matched_prefix) {
            (Target::Path(template), _) => template.render(ctx, head, &mut new),
            (Target::Prefix(template), Some(matched)) => template.render_prefix(ctx, head, matched, &mut new),
            (Target::Same, _) | (Target::Prefix(_), None) => {
                new.extend_from_slice(head.path());
                Ok(())
            }
        };
        // Normal form also merges slashes: a location that begins with `//` would name a host.
        let written = match (rendered, path::normalize(&new, &mut scratch)) {
            (Ok(()), Ok(path)) => {
                out.extend_from_slice(path.as_bytes());
                Ok(())
            }
            _ => Err(Reason::BadRequest),
        };
        head.return_scratch(scratch);
        head.return_scratch(new);
        if let Some(query) = head.query() {
            out.push(b'?');
            out.extend(query.iter().filter(|byte| !byte.is_ascii_control()));
        }
        written
    }

    fn write_origin(&self, ctx: &Ctx<'_>, head: &Head<'_>, out: &mut Vec<u8>) {
        let host = match &self.host {
            Some(host) => host.as_bytes(),
            None => without_port(head.authority()),
        };
        let as_asked = self.scheme.is_none() && self.host.is_none() && self.port.is_none();
        // HTTP/1.0 clients may name no host; then only the path can be said.
        if as_asked || host.is_empty() {
            return;
        }
        let scheme = self.scheme.unwrap_or(ctx.scheme);
        out.extend_from_slice(scheme.as_str().as_bytes());
        out.extend_from_slice(b"://");
        out.extend(host.iter().filter(|byte| !byte.is_ascii_control()));
        if let Some(port) = self.port.filter(|&port| port != scheme.default_port()) {
            out.push(b':');
            out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        }
    }
}

/// Host of an authority that has passed [`path::host`]; IPv6 literals keep their brackets.
fn without_port(authority: &[u8]) -> &[u8] {
    let from = memchr::memchr(b']', authority).unwrap_or(0);
    let colon = memchr::memchr(b':', &authority[from..]).map(|at| from + at);
    &authority[..colon.unwrap_or(authority.len())]
}

fn host(text: &str) -> Result<Option<Box<str>>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if !without_port(text.as_bytes()).len().eq(&text.len()) {
        return Err(format!("invalid host {text:?}: the port has a field of its own"));
    }
    let mut scratch = Vec::new();
    let host =
        path::host(text.as_bytes(), &mut scratch).map_err(|bad| format!("invalid host {text:?}: {bad}"))?;
    Ok(Some(host.into()))
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redirect with {}", self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::compiled;
    use super::super::{Action, Spec};
    use super::*;
    use crate::context::Notes;
    use crate::policy::testing::Message;

    fn redirect(edit: impl FnOnce(&mut wire::Redirect)) -> wire::Redirect {
        let mut redirect = wire::Redirect::default();
        edit(&mut redirect);
        redirect
    }

    fn location(spec: wire::Redirect, message: &Message) -> Result<String, Reason> {
        let Ok(Action::Redirect(redirect)) = compiled(&Spec::Redirect(spec.clone()), Scope::SHARED) else {
            panic!("{spec:?} is valid")
        };
        let (mut notes, mut parts, mut out) = (Notes::new(), message.parts(), Vec::new());
        let mut head = Head::new(b"", &mut parts);
        message.with_ctx(&mut notes, |ctx| redirect.location(ctx, &mut head, &mut out))?;
        Ok(String::from_utf8(out).expect("ASCII"))
    }

    #[test]
    fn what_is_left_out_stays_as_it_was_asked_for() {
        let path = |text: &str| Some(To::Path(text.to_owned()));
        let prefix = |text: &str| Some(To::Prefix(text.to_owned()));
        let mut message = Message::request("GET", "/api/users?q=1&r").param("id", "a%2Fb").with("x", "/evil");
        message.matched_prefix = Some(4);
        for (spec, expected) in [
            (redirect(|r| r.scheme = "https".to_owned()), "https://example.com/api/users?q=1&r"),
            (redirect(|r| r.host = "Other.example".to_owned()), "http://other.example/api/users?q=1&r"),
            (redirect(|r| r.port = Some(8443)), "http://example.com:8443/api/users?q=1&r"),
            (
                redirect(|r| (r.scheme, r.port) = ("https".to_owned(), Some(443))),
                "https://example.com/api/users?q=1&r",
            ),
            (
                redirect(|r| (r.scheme, r.port) = ("https".to_owned(), Some(80))),
                "https://example.com:80/api/users?q=1&r",
            ),
            (redirect(|r| r.to = path("/new")), "/new?q=1&r"),
            (redirect(|r| r.to = path("/new/${path.id}")), "/new/a%2Fb?q=1&r"),
            (redirect(|r| r.to = path("/${request.header.none}/evil.example")), "/evil.example?q=1&r"),
            (redirect(|r| r.to = path("/${request.header.x}")), "/%2Fevil?q=1&r"),
            (redirect(|r| r.to = prefix("/v2")), "/v2/users?q=1&r"),
            (redirect(|r| r.to = prefix("/")), "/users?q=1&r"),
        ] {
            assert_eq!(location(spec.clone(), &message).as_deref(), Ok(expected), "{spec:?}");
        }
        message.matched_prefix = None;
        assert_eq!(location(redirect(|r| r.to = prefix("/v2")), &message).as_deref(), Ok("/api/users?q=1&r"));
    }

    #[test]
    fn a_dot_segment_from_a_variable_refuses_the_request() {
        let to = Some(To::Path("/a/${request.header.x}".to_owned()));
        let message = Message::request("GET", "/").with("x", "..");
        assert_eq!(location(redirect(|r| r.to = to), &message), Err(Reason::BadRequest));
    }

    #[test]
    fn hosts_lose_their_port_and_keep_their_brackets() {
        for (authority, expected) in [
            ("a.example:80", "a.example"),
            ("a.example", "a.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(without_port(authority.as_bytes()), expected.as_bytes());
        }
    }

    #[test]
    fn status_defaults_to_308_and_takes_the_others() {
        for (status, expected) in
            [(None, 308), (Some(301), 301), (Some(302), 302), (Some(303), 303), (Some(307), 307)]
        {
            let spec = redirect(|r| (r.status, r.port) = (status, Some(1)));
            let Ok(Action::Redirect(compiled)) = compiled(&Spec::Redirect(spec), Scope::SHARED) else {
                panic!("{status:?} is valid")
            };
            assert_eq!(compiled.status(), expected);
        }
    }

    #[test]
    fn bad_values_are_refused_with_their_places() {
        let path = |text: &str| Some(To::Path(text.to_owned()));
        for (spec, expected) in [
            (wire::Redirect::default(), "spec.redirect: required"),
            (redirect(|r| r.scheme = "ftp".to_owned()), "spec.redirect.scheme: invalid: unknown scheme"),
            (redirect(|r| r.host = "a b".to_owned()), "spec.redirect.host: invalid"),
            (
                redirect(|r| r.host = "a:80".to_owned()),
                "spec.redirect.host: invalid: invalid host \"a:80\": the port",
            ),
            (redirect(|r| r.port = Some(0)), "spec.redirect.port: out_of_range"),
            (redirect(|r| r.port = Some(65_536)), "spec.redirect.port: out_of_range"),
            (redirect(|r| (r.status, r.port) = (Some(200), Some(1))), "spec.redirect.status: out_of_range"),
            (redirect(|r| r.to = path("x")), "spec.redirect.path: invalid"),
            (redirect(|r| r.to = Some(To::Prefix("x".to_owned()))), "spec.redirect.prefix: invalid"),
        ] {
            let found = compiled(&Spec::Redirect(spec), Scope::SHARED).expect_err(expected);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{expected}: {found:?}");
        }
        let scope = Scope { params: None, by_prefix: false, references: None };
        let spec = redirect(|r| r.to = Some(To::Prefix("/x".to_owned())));
        let found = compiled(&Spec::Redirect(spec), scope).expect_err("no prefix to replace");
        assert!(found[0].starts_with("spec.redirect.prefix: conflict"), "{found:?}");
    }
}
