//! Replacing by regular expression: every match of the pattern in the path. The replacement is parsed and its groups
//! are checked in `compile`, because the regex crate takes an unknown group for nothing without a word (`$1a` is the
//! group `1a`).

use gateway_proto::field::FieldPath;
use gateway_proto::wire;
use regex::Regex;

use crate::template::is_path_byte;
use crate::value;
use crate::violations::Violations;

/// A pattern and what replaces its matches.
#[derive(Debug)]
pub(crate) struct Substitution {
    pattern: Regex,
    replacement: Box<[Piece]>,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Group(usize),
}

impl Substitution {
    pub(super) fn compile(
        spec: &wire::RegexRewrite,
        at: &FieldPath<'_>,
        out: &mut Violations,
    ) -> Option<Self> {
        let pattern = out.ok(
            &at.field("pattern"),
            match &*spec.pattern {
                "" => Err("the pattern is empty".to_owned()),
                pattern => value::regex(pattern),
            },
        )?;
        let replacement = out.ok(&at.field("replacement"), pieces(&spec.replacement, &pattern))?;
        Some(Substitution { pattern, replacement })
    }

    /// Appends the path with every match replaced; false, and nothing appended, if there is none.
    pub(super) fn write(&self, path: &[u8], out: &mut Vec<u8>) -> bool {
        let Ok(path) = std::str::from_utf8(path) else { return false };
        if !self.pattern.is_match(path) {
            return false;
        }
        let mut copied = 0;
        // The groups of a match are the one allocation there is; patterns without groups do without.
        if self.replacement.iter().all(|piece| matches!(piece, Piece::Literal(_) | Piece::Group(0))) {
            for found in self.pattern.find_iter(path) {
                out.extend_from_slice(&path.as_bytes()[copied..found.start()]);
                self.expand(|_| Some(found.as_str()), out);
                copied = found.end();
            }
        } else {
            for groups in self.pattern.captures_iter(path) {
                let found = groups.get_match();
                out.extend_from_slice(&path.as_bytes()[copied..found.start()]);
                self.expand(|group| groups.get(group).map(|text| text.as_str()), out);
                copied = found.end();
            }
        }
        out.extend_from_slice(&path.as_bytes()[copied..]);
        true
    }

    fn expand<'t>(&self, group: impl Fn(usize) -> Option<&'t str>, out: &mut Vec<u8>) {
        for piece in &self.replacement {
            let text = match piece {
                Piece::Literal(text) => text,
                Piece::Group(number) => group(*number).unwrap_or_default(),
            };
            out.extend_from_slice(text.as_bytes());
        }
    }
}

fn pieces(replacement: &str, pattern: &Regex) -> Result<Box<[Piece]>, String> {
    if let Some(byte) =
        replacement.bytes().find(|&byte| !is_path_byte(byte) && !matches!(byte, b'%' | b'{' | b'}'))
    {
        return Err(format!("{:?} cannot stand in a path, write it percent-encoded", char::from(byte)));
    }
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = replacement;
    while let Some(at) = rest.find('$') {
        literal.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            literal.push('$');
            rest = after;
            continue;
        }
        let (name, after) = match rest.strip_prefix('{') {
            Some(inside) => {
                inside.split_once('}').ok_or_else(|| format!("\"${{\" without \"}}\" in {replacement:?}"))?
            }
            None => rest
                .split_at(rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())),
        };
        let number = group(name, pattern)?;
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
        }
        pieces.push(Piece::Group(number));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into()));
    }
    Ok(pieces.into())
}

fn group(name: &str, pattern: &Regex) -> Result<usize, String> {
    let number = match name.parse::<usize>() {
        Ok(number) => Some(number).filter(|number| *number < pattern.captures_len()),
        Err(_) => pattern.capture_names().position(|known| known == Some(name)),
    };
    number.ok_or_else(|| {
        let groups = pattern.captures_len() - 1;
        format!("the pattern has no group {name:?} (it has {groups}), write $$ for a dollar sign and ${{1}} before letters")
    })
}
