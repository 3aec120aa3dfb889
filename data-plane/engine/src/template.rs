//! Template: authored text with variables (`${request.id}`), parsed once in `compile`, rendered per request.
//!
//! What a value renders to cannot break out of its place: in header fields and bodies every control byte of a value
//! becomes a space (RFC 9110 §5.5 for CR, LF and NUL), in paths everything that is not a path character is
//! percent-encoded. A variable without a value renders as nothing. `$$` is a dollar sign, and so is a `$` that no
//! `{` follows. Templates of the response side read facts of the request from [`Notes`](crate::context::Notes),
//! because the request's head may be gone by then: [`Captures`] says which facts have to be noted.

use crate::context::{Captured, Ctx};
use crate::head::Head;
use crate::identity::{MAX_CLAIM_NAME, claims};
use crate::policy::header_name;

mod encode;
mod path;

pub use encode::is_path_byte;
pub use path::{Escapes, PathTemplate};

/// What the templates of one place may read.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Path parameters of the route, where the place belongs to one route; `None`: not known, any name is taken
    /// and those that a route does not have render as nothing.
    pub params: Option<&'a [&'a str]>,
}

impl Scope<'_> {
    /// A place that many routes inherit from.
    pub const SHARED: Scope<'static> = Scope { params: None };
}

/// A parsed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    segments: Box<[Segment]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Variable(Variable),
}

/// A variable that can stand in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Variable {
    RequestId,
    Header(Box<str>),
    Method,
    Path,
    Query,
    Host,
    Scheme,
    Param(Box<str>),
    ClientIp,
    RouteName,
    ListenerName,
    ConsumerName,
    Claim(Box<str>),
    /// Response side only.
    Latency,
    /// Response side only: a fact of the request, by its place in [`Captures`].
    Noted(u32),
}

/// The facts of the request that a group of response-side templates reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures(Vec<Variable>);

/// Where a template finds the request's head.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// In the request pass: the head itself, as it is at that moment.
    Request(&'a Head<'a>),
    /// In the response pass: what [`Captures::note`] kept.
    Notes(Captured),
}

/// Which way the message goes that a template is rendered into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

const ALLOWED: &str = "request.id, request.header.NAME, request.method, request.path, request.query, \
                       request.host, request.scheme, path.NAME, client.ip, route.name, listener.name, \
                       consumer.name, claim.NAME";

impl Template {
    /// Parses a text of the request side.
    ///
    /// # Errors
    /// A message for the author: an unclosed `${`, or an unknown variable with the ones that exist.
    pub fn compile(text: &str, scope: Scope<'_>) -> Result<Template, String> {
        Self::parse(text, |name| Variable::find(name, Side::Request, scope))
    }

    /// Parses a text of the response side; the facts of the request that it reads are added to `captures`.
    ///
    /// # Errors
    /// As [`Template::compile`].
    pub fn compile_response(
        text: &str,
        scope: Scope<'_>,
        captures: &mut Captures,
    ) -> Result<Template, String> {
        Self::parse(text, |name| {
            let variable = Variable::find(name, Side::Response, scope)?;
            Ok(if variable.needs_request() { captures.place(variable) } else { variable })
        })
    }

    fn parse(
        text: &str,
        mut variable: impl FnMut(&str) -> Result<Variable, String>,
    ) -> Result<Template, String> {
        let mut segments = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(inside) = rest.strip_prefix('{') {
                let end = inside.find('}').ok_or_else(|| format!("\"${{\" without \"}}\" in {text:?}"))?;
                if !literal.is_empty() {
                    segments.push(Segment::Literal(std::mem::take(&mut literal).into()));
                }
                segments.push(Segment::Variable(variable(&inside[..end])?));
                rest = &inside[end + 1..];
            } else {
                literal.push('$');
                rest = rest.strip_prefix('$').unwrap_or(rest);
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            segments.push(Segment::Literal(literal.into()));
        }
        Ok(Template { segments: segments.into() })
    }

    /// The whole text, if it has no variables.
    pub fn literal(&self) -> Option<&str> {
        match &*self.segments {
            [] => Some(""),
            [Segment::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The parts that the author wrote.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(text) => Some(&**text),
            Segment::Variable(_) => None,
        })
    }

    /// Appends the text with every value in its place, for a header field or a body.
    pub fn render(&self, ctx: &Ctx<'_>, source: Source<'_>, out: &mut Vec<u8>) {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Segment::Variable(variable) => variable.write(ctx, source, out),
            }
        }
    }

    /// Appends the text as a path. Path parameters come as they stood in the request's path; any other value is
    /// percent-encoded so that it stays inside its segment.
    fn render_path(&self, ctx: &Ctx<'_>, head: &Head<'_>, out: &mut Vec<u8>) {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => encode::path(text.as_bytes(), out),
                Segment::Variable(Variable::Param(name)) => {
                    out.extend_from_slice(ctx.param(name).unwrap_or_default());
                }
                Segment::Variable(Variable::Path) => out.extend_from_slice(head.path()),
                Segment::Variable(variable) => {
                    let start = out.len();
                    variable.write(ctx, Source::Request(head), out);
                    encode::segment_in_place(out, start);
                }
            }
        }
    }

    /// The text with every variable replaced by `sample`: for checks at compile time.
    fn sample(&self, sample: &str) -> String {
        self.segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => text,
                Segment::Variable(_) => sample,
            })
            .collect()
    }
}

impl Captures {
    /// Nothing has to be noted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn place(&mut self, variable: Variable) -> Variable {
        let place = self.0.iter().position(|known| *known == variable).unwrap_or_else(|| {
            self.0.push(variable);
            self.0.len() - 1
        });
        Variable::Noted(place as u32)
    }

    /// Notes the facts; the answer is the [`Source`] of the templates compiled with these captures.
    pub fn note(&self, ctx: &mut Ctx<'_>, head: &Head<'_>) -> Option<Captured> {
        let mut first = None;
        for variable in &self.0 {
            // The notes cannot be written while the context that holds them is read, so they step aside.
            let mut notes = std::mem::take(ctx.notes);
            let captured = notes.capture_with(|out| variable.write(ctx, Source::Request(head), out));
            *ctx.notes = notes;
            first.get_or_insert(captured);
        }
        first
    }
}

impl Variable {
    fn find(name: &str, side: Side, scope: Scope<'_>) -> Result<Variable, String> {
        Ok(match name {
            "request.id" => Variable::RequestId,
            "request.method" => Variable::Method,
            "request.path" => Variable::Path,
            "request.query" => Variable::Query,
            "request.host" => Variable::Host,
            "request.scheme" => Variable::Scheme,
            "client.ip" => Variable::ClientIp,
            "route.name" => Variable::RouteName,
            "listener.name" => Variable::ListenerName,
            "consumer.name" => Variable::ConsumerName,
            "latency" if side == Side::Response => Variable::Latency,
            _ => {
                if let Some(header) = name.strip_prefix("request.header.") {
                    return Ok(Variable::Header(header_name(header)?.into()));
                }
                if let Some(claim) = name.strip_prefix("claim.").filter(|claim| !claim.is_empty()) {
                    if claim.len() > MAX_CLAIM_NAME {
                        return Err(format!("a claim's name has at most {MAX_CLAIM_NAME} bytes"));
                    }
                    return Ok(Variable::Claim(claim.into()));
                }
                match name.strip_prefix("path.") {
                    Some(param) if !param.is_empty() => Variable::Param(known_param(param, scope)?.into()),
                    _ => return Err(unknown(name, side)),
                }
            }
        })
    }

    /// Its value is in the request's head or its match, not in what lives as long as the exchange.
    const fn needs_request(&self) -> bool {
        matches!(
            self,
            Variable::Header(_)
                | Variable::Method
                | Variable::Path
                | Variable::Query
                | Variable::Host
                | Variable::Param(_)
        )
    }

    fn write(&self, ctx: &Ctx<'_>, source: Source<'_>, out: &mut Vec<u8>) {
        match (self, source) {
            (Variable::RequestId, _) => encode::text(ctx.request_id.as_bytes(), out),
            (Variable::Scheme, _) => out.extend_from_slice(ctx.scheme.as_str().as_bytes()),
            (Variable::ClientIp, _) => encode::display(ctx.client_ip, out),
            (Variable::RouteName, _) => out.extend_from_slice(ctx.route.as_bytes()),
            (Variable::ListenerName, _) => out.extend_from_slice(ctx.listener.as_bytes()),
            (Variable::ConsumerName, _) => {
                let consumer = ctx.notes.identity().consumer;
                out.extend_from_slice(consumer.map_or(b"", |name| ctx.notes.get(name)));
            }
            (Variable::Claim(name), _) => {
                let start = out.len();
                if let Some(payload) = ctx.notes.identity().claims {
                    claims::write(ctx.notes.get(payload), name, out);
                }
                encode::neutralise(&mut out[start..]);
            }
            (Variable::Latency, _) => encode::millis(ctx.elapsed, out),
            (Variable::Param(name), _) => encode::decoded(ctx.param(name).unwrap_or_default(), out),
            (Variable::Noted(place), Source::Notes(first)) => {
                out.extend_from_slice(ctx.notes.get(first.nth(*place)));
            }
            (Variable::Method, Source::Request(head)) => encode::text(head.method(), out),
            (Variable::Path, Source::Request(head)) => encode::text(head.path(), out),
            (Variable::Query, Source::Request(head)) => encode::text(head.query().unwrap_or_default(), out),
            (Variable::Host, Source::Request(head)) => encode::text(head.authority(), out),
            (Variable::Header(name), Source::Request(head)) => {
                let start = out.len();
                head.join_into(name, out);
                encode::neutralise(&mut out[start..]);
            }
            // `compile_response` turns whatever needs the head into `Noted`, and `compile` makes no `Noted`.
            (
                Variable::Method | Variable::Path | Variable::Query | Variable::Host | Variable::Header(_),
                Source::Notes(_),
            )
            | (Variable::Noted(_), Source::Request(_)) => {}
        }
    }
}

fn unknown(name: &str, side: Side) -> String {
    let latency = if side == Side::Response { ", latency" } else { "" };
    format!("unknown variable \"${{{name}}}\", expected one of {ALLOWED}{latency}")
}

fn known_param<'n>(name: &'n str, scope: Scope<'_>) -> Result<&'n str, String> {
    match scope.params {
        Some([]) => Err(format!("no path parameter {name:?}: this route matches by no template")),
        Some(params) if !params.contains(&name) => Err(format!(
            "no path parameter {name:?} in this route's templates, they have {}",
            params.join(", ")
        )),
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests;
