//! PathTemplate: a template whose result is a path. Its authored text is a valid path, and no value can lead out of
//! its place: values are percent-encoded, and one that would make a dot segment is refused.

use super::{Scope, Template};
use crate::context::Ctx;
use crate::head::Head;
use crate::path::{self, BadPath};

/// A checked path with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate(Template);

/// A variable's value made a dot segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escapes;

impl PathTemplate {
    /// Parses a path that begins with `/` and holds no query and no dot segments.
    ///
    /// # Errors
    /// A message for the author.
    pub fn compile(text: &str, scope: Scope<'_>) -> Result<PathTemplate, String> {
        let template = Template::compile(text, scope)?;
        let invalid = |why: &dyn std::fmt::Display| format!("invalid path {text:?}: {why}");
        if !text.starts_with('/') {
            return Err(invalid(&BadPath::NotAbsolute));
        }
        let sample = template.sample("x");
        path::normalize(sample.as_bytes(), &mut Vec::new()).map_err(|bad| invalid(&bad))?;
        contained(sample.as_bytes()).map_err(|Escapes| invalid(&"it holds a dot segment"))?;
        Ok(PathTemplate(template))
    }

    /// Appends the path, to be normalised by the caller (a variable may be empty). `out` must be empty.
    ///
    /// # Errors
    /// The request is to be refused as malformed.
    pub fn render(&self, ctx: &Ctx<'_>, head: &Head<'_>, out: &mut Vec<u8>) -> Result<(), Escapes> {
        self.0.render_path(ctx, head, out);
        contained(out)
    }

    /// Appends the path in the place of the first `matched` bytes of the head's path: one slash between it and the
    /// rest, whatever their ends. To be normalised by the caller; `out` must be empty.
    ///
    /// # Errors
    /// As [`PathTemplate::render`].
    pub fn render_prefix(
        &self,
        ctx: &Ctx<'_>,
        head: &Head<'_>,
        matched: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Escapes> {
        self.render(ctx, head, out)?;
        let rest = head.path().get(matched..).unwrap_or_default();
        while out.last() == Some(&b'/') {
            out.pop();
        }
        if !rest.starts_with(b"/") && (out.is_empty() || !rest.is_empty()) {
            out.push(b'/');
        }
        out.extend_from_slice(rest);
        Ok(())
    }
}

fn contained(path: &[u8]) -> Result<(), Escapes> {
    let escapes = path.split(|&byte| byte == b'/').any(|segment| segment == b"." || segment == b"..");
    if escapes { Err(Escapes) } else { Ok(()) }
}
