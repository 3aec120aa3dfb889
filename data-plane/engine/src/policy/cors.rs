//! cors: the server side of the Fetch standard's CORS protocol (<https://fetch.spec.whatwg.org/#http-cors-protocol>).
//!
//! A preflight is answered here, before any later policy; browsers read from the answer whether they may go on, so
//! one of an origin that is not allowed gets the same status without the permission. An actual request goes on; the
//! permission is written into its response, whoever made that, and the upstream's own CORS fields are removed.
//! The request is looked at before any policy runs, so that a refused one still tells the script why.

use std::fmt::Write as _;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::wire;

use self::origin::Origins;
use super::{Flow, Hooks, Level, Scope, header_name, is_token_byte, phase};
use crate::context::{CorsNote, Ctx};
use crate::head::Head;
use crate::value;
use crate::violations::Violations;

mod origin;

/// Compiled `cors`.
#[derive(Debug)]
pub(super) struct Cors {
    origins: Origins,
    methods: Permitted,
    headers: Permitted,
    /// Value of `Access-Control-Expose-Headers`; empty: leave it out.
    expose: Box<str>,
    credentials: bool,
    /// Value of `Access-Control-Max-Age` in seconds; empty: leave it out, the browser decides (5 s).
    max_age: Box<str>,
}

/// What a preflight may ask for.
#[derive(Debug)]
enum Permitted {
    /// Whatever is asked for: the question is echoed, so that it also holds with credentials.
    Asked,
    /// The value of the answer; empty: leave it out.
    Only(Box<str>),
}

impl Hooks for Cors {
    type Spec = wire::Cors;
    const PHASES: u8 = phase::NOTE | phase::REQUEST | phase::RESPONSE;

    fn is_disabled(spec: &Self::Spec) -> bool {
        spec.disabled
    }

    fn disabled() -> Self::Spec {
        wire::Cors { disabled: true, ..Default::default() }
    }

    fn compile(spec: &Self::Spec, at: &FieldPath<'_>, out: &mut Violations, _: Scope<'_>) -> Option<Self> {
        let origins = Origins::compile(spec, at, out);
        if spec.credentials && spec.origins.iter().any(|origin| origin == "*") {
            let message = "browsers refuse credentials together with the origin *, name the origins";
            out.push(&at.field("credentials"), ViolationCode::Conflict, message);
        }
        let methods = match &*spec.methods {
            [] => Some(Permitted::Only("GET, HEAD, POST".into())),
            methods => permitted(methods, &at.field("methods"), out, method),
        };
        let headers = permitted(&spec.headers, &at.field("headers"), out, header_name);
        let expose = match permitted(&spec.expose_headers, &at.field("exposeHeaders"), out, header_name) {
            Some(Permitted::Only(list)) => Some(list),
            Some(Permitted::Asked) if spec.credentials => {
                let message = "with credentials browsers take * for a name, list the headers";
                out.push(&at.field("exposeHeaders"), ViolationCode::Conflict, message);
                None
            }
            Some(Permitted::Asked) => Some("*".into()),
            None => None,
        };
        let max_age = match &spec.max_age {
            Some(text) => out.ok(&at.field("maxAge"), seconds(text)),
            None => Some(Box::default()),
        };
        Some(Cors {
            origins: origins?,
            methods: methods?,
            headers: headers?,
            expose: expose?,
            credentials: spec.credentials,
            max_age: max_age?,
        })
    }

    fn note(&self, _: Level, ctx: &mut Ctx<'_>, head: &Head<'_>) {
        let Some(origin) = head.get("origin") else { return };
        let asked_method = head.get("access-control-request-method").filter(|_| head.method() == b"OPTIONS");
        let note = match (asked_method, self.origins.allow(origin)) {
            (None, false) => CorsNote::Other,
            (None, true) => CorsNote::Actual(ctx.notes.capture(origin)),
            (Some(_), false) => CorsNote::DeniedPreflight,
            (Some(method), true) => CorsNote::Preflight {
                origin: ctx.notes.capture(origin),
                method: ctx.notes.capture(method),
                headers: ctx.notes.capture_with(|out| {
                    head.join_into("access-control-request-headers", out);
                }),
            },
        };
        ctx.notes.set_cors(note);
    }

    fn request(&self, ctx: &mut Ctx<'_>, _: &mut Head<'_>) -> Flow {
        match ctx.notes.cors() {
            CorsNote::Preflight { .. } | CorsNote::DeniedPreflight => Flow::Respond(204),
            CorsNote::Actual(_) | CorsNote::Other => Flow::Continue,
        }
    }

    fn response(&self, _: Level, ctx: &mut Ctx<'_>, head: &mut Head<'_>) {
        head.remove_where(|name, _| is_cors_field(name));
        let note = ctx.notes.cors();
        match note {
            CorsNote::Preflight { .. } | CorsNote::DeniedPreflight => {
                head.add("vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
            }
            _ if !self.origins.are_any() && !varies_by_origin(head) => head.add("vary", b"Origin"),
            _ => {}
        }
        let origin = match note {
            // The same for all, also for those who did not ask: a cache may hand it to one who does.
            _ if self.origins.are_any() => b"*",
            CorsNote::Actual(origin) | CorsNote::Preflight { origin, .. } => ctx.notes.get(origin),
            CorsNote::Other | CorsNote::DeniedPreflight => return,
        };
        head.add("access-control-allow-origin", origin);
        if self.credentials {
            head.add("access-control-allow-credentials", b"true");
        }
        let CorsNote::Preflight { method, headers, .. } = note else {
            if !self.expose.is_empty() {
                head.add("access-control-expose-headers", self.expose.as_bytes());
            }
            return;
        };
        self.methods.answer("access-control-allow-methods", ctx.notes.get(method), head);
        self.headers.answer("access-control-allow-headers", ctx.notes.get(headers), head);
        if !self.max_age.is_empty() {
            head.add("access-control-max-age", self.max_age.as_bytes());
        }
    }
}

impl Permitted {
    fn answer(&self, name: &str, asked: &[u8], head: &mut Head<'_>) {
        let value = match self {
            Permitted::Only(list) => list.as_bytes(),
            Permitted::Asked
                if asked.iter().all(|&byte| is_token_byte(byte) || matches!(byte, b',' | b' ')) =>
            {
                asked
            }
            // No browser asks for what is not a list of tokens.
            Permitted::Asked => return,
        };
        if !value.is_empty() {
            head.add(name, value);
        }
    }
}

/// A response field of the CORS protocol. `Access-Control-Request-*` are request fields and mean nothing here.
fn is_cors_field(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"access-control-";
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

fn varies_by_origin(head: &Head<'_>) -> bool {
    let names = |value| <[u8]>::split(value, |&byte| byte == b',').map(<[u8]>::trim_ascii);
    head.get_all("vary").flat_map(names).any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
}

fn permitted(
    names: &[String],
    at: &FieldPath<'_>,
    out: &mut Violations,
    check: fn(&str) -> Result<String, String>,
) -> Option<Permitted> {
    if let [only] = names
        && only == "*"
    {
        return Some(Permitted::Asked);
    }
    let mut list = String::new();
    let mut sound = true;
    for (index, name) in names.iter().enumerate() {
        let checked =
            if name == "*" { Err("* stands alone, drop the other names".to_owned()) } else { check(name) };
        match out.ok(&at.index(index), checked) {
            Some(name) => write!(list, "{}{name}", if list.is_empty() { "" } else { ", " })
                .expect("writing into a string does not fail"),
            None => sound = false,
        }
    }
    sound.then(|| Permitted::Only(list.into()))
}

fn method(text: &str) -> Result<String, String> {
    if text.is_empty() || !text.bytes().all(is_token_byte) {
        return Err(format!("invalid method {text:?}"));
    }
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(format!("methods are case-sensitive, did you mean {}?", text.to_ascii_uppercase()));
    }
    Ok(text.to_owned())
}

fn seconds(text: &str) -> Result<Box<str>, String> {
    let age = value::duration(text)?;
    if age.subsec_nanos() != 0 {
        return Err(format!("maxAge {text:?} is not in whole seconds"));
    }
    Ok(age.as_secs().to_string().into())
}

#[cfg(test)]
mod tests;
