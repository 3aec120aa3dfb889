//! rewrite: changes the path before it goes upstream; the query stays as it is. Whatever comes out passes the same
//! normalisation as a request's path; what is no valid path then is answered with 400. A variable cannot lead out of
//! its place: its value is percent-encoded, and one that makes a dot segment is refused.

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::wire;
use gateway_proto::wire::rewrite::To;

use self::substitute::Substitution;
use super::{Flow, Hooks, Scope, phase};
use crate::context::Ctx;
use crate::head::Head;
use crate::path;
use crate::reject::Reason;
use crate::template::{Escapes, PathTemplate};
use crate::violations::Violations;

mod substitute;

/// Compiled `rewrite`.
#[derive(Debug)]
pub(super) enum Rewrite {
    /// The whole new path.
    Path(PathTemplate),
    /// Takes the place of the prefix that the route matched by; another match leaves the path alone.
    Prefix(PathTemplate),
    /// By regular expression.
    Regex(Substitution),
}

impl Hooks for Rewrite {
    type Spec = wire::Rewrite;
    const PHASES: u8 = phase::REQUEST;

    fn is_disabled(spec: &Self::Spec) -> bool {
        spec.disabled
    }

    fn disabled() -> Self::Spec {
        wire::Rewrite { disabled: true, ..Default::default() }
    }

    fn compile(
        spec: &Self::Spec,
        at: &FieldPath<'_>,
        out: &mut Violations,
        scope: Scope<'_>,
    ) -> Option<Self> {
        match &spec.to {
            None => {
                out.push(at, ViolationCode::Required, "set one of path, prefix or regex");
                None
            }
            Some(To::Path(text)) => {
                out.ok(&at.field("path"), PathTemplate::compile(text, scope.variables())).map(Rewrite::Path)
            }
            Some(To::Prefix(text)) => {
                let at = at.field("prefix");
                if !scope.by_prefix {
                    let message = "none of this route's matches is by prefix, so there is nothing to replace";
                    out.push(&at, ViolationCode::Conflict, message);
                }
                out.ok(&at, PathTemplate::compile(text, scope.variables())).map(Rewrite::Prefix)
            }
            Some(To::Regex(regex)) => {
                Substitution::compile(regex, &at.field("regex"), out).map(Rewrite::Regex)
            }
        }
    }

    fn request(&self, ctx: &mut Ctx<'_>, head: &mut Head<'_>) -> Flow {
        let mut new = head.take_scratch();
        let mut scratch = head.take_scratch();
        let flow = match self.write(ctx, head, &mut new) {
            Ok(Change::None) => Flow::Continue,
            Ok(Change::Written) => match path::normalize(&new, &mut scratch) {
                Ok(path) => {
                    head.set_path(path.as_bytes());
                    ctx.matched_prefix = None;
                    Flow::Continue
                }
                Err(_) => Flow::Reject(Reason::BadRequest),
            },
            Err(Escapes) => Flow::Reject(Reason::BadRequest),
        };
        head.return_scratch(scratch);
        head.return_scratch(new);
        flow
    }
}

enum Change {
    None,
    Written,
}

impl Rewrite {
    fn write(&self, ctx: &Ctx<'_>, head: &Head<'_>, new: &mut Vec<u8>) -> Result<Change, Escapes> {
        match self {
            Rewrite::Path(template) => template.render(ctx, head, new)?,
            Rewrite::Prefix(template) => match ctx.matched_prefix {
                Some(matched) => template.render_prefix(ctx, head, matched, new)?,
                None => return Ok(Change::None),
            },
            Rewrite::Regex(substitution) => {
                if !substitution.write(head.path(), new) {
                    return Ok(Change::None);
                }
            }
        }
        Ok(Change::Written)
    }
}

#[cfg(test)]
mod tests;
