//! Patterns of hosts and paths: parsed and brought into the one form once, and ordered by how specific they are.

use std::cmp::Ordering;

use super::condition::Pattern;
use crate::context::Param;
use crate::path;

/// Most segments of a path pattern: the table keeps one bit for each prefix length.
pub const MAX_SEGMENTS: usize = 63;
/// Longest path pattern in bytes.
pub const MAX_PATTERN_BYTES: usize = 2_048;

/// Which hosts a route is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum HostPattern {
    Any,
    /// `*.x.org` without the `*.`: one or more labels before it, never the apex.
    Suffix(Box<str>),
    Exact(Box<str>),
}

impl HostPattern {
    /// As an author writes it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("*.") {
            Some(suffix) => {
                let suffix = path::host_pattern(suffix)?;
                if suffix.starts_with('[') || suffix.parse::<std::net::Ipv4Addr>().is_ok() {
                    return Err(format!("invalid host {text:?}: addresses have no subdomains"));
                }
                Ok(HostPattern::Suffix(suffix.into()))
            }
            None if text == "*" => Err("invalid host \"*\": leave hosts out to match any host".to_owned()),
            None => path::host_pattern(text).map(|host| HostPattern::Exact(host.into())),
        }
    }

    /// Whether a host (in form) is one of them.
    pub(crate) fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Any => true,
            HostPattern::Exact(exact) => **exact == *host,
            HostPattern::Suffix(suffix) => host
                .strip_suffix(&**suffix)
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty()),
        }
    }

    /// Its place among the patterns that match one host.
    pub(crate) fn level(&self) -> HostLevel {
        match self {
            HostPattern::Any => HostLevel::ANY,
            HostPattern::Suffix(suffix) => HostLevel::of_suffix(suffix.len()),
            HostPattern::Exact(_) => HostLevel::EXACT,
        }
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HostPattern::Any => f.write_str("any host"),
            HostPattern::Suffix(suffix) => write!(f, "host *.{suffix}"),
            HostPattern::Exact(host) => write!(f, "host {host}"),
        }
    }
}

/// How specific a host pattern is: higher beats lower. Comparable among patterns that match one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostLevel(u16);

impl HostLevel {
    /// Of a pattern for any host.
    pub(crate) const ANY: HostLevel = HostLevel(0);
    /// Of an exact host.
    pub(crate) const EXACT: HostLevel = HostLevel(u16::MAX);

    /// Of `*.` with a suffix of so many bytes (hosts are at most 255 long).
    pub(crate) const fn of_suffix(bytes: usize) -> HostLevel {
        HostLevel(bytes as u16)
    }
}

/// Which paths a candidate is for. All texts are in normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathPattern {
    Any,
    Regex(Box<Pattern>),
    /// Without its trailing slash: `/` is empty.
    Prefix(Box<str>),
    Template(Template),
    Exact(Box<str>),
}

impl PathPattern {
    pub(crate) fn exact(text: &str) -> Result<Self, String> {
        Ok(PathPattern::Exact(form(text)?.into()))
    }

    pub(crate) fn prefix(text: &str) -> Result<Self, String> {
        let form = form(text)?;
        Ok(PathPattern::Prefix(form.strip_suffix('/').unwrap_or(&form).into()))
    }

    pub(crate) fn template(text: &str) -> Result<Self, String> {
        Template::parse(text).map(PathPattern::Template)
    }

    pub(crate) fn regex(text: &str) -> Result<Self, String> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(format!(
                "a pattern of {} bytes is too long, at most {MAX_PATTERN_BYTES}",
                text.len()
            ));
        }
        let regex = crate::value::whole_regex(text)?;
        Ok(PathPattern::Regex(Box::new(Pattern { text: text.into(), regex })))
    }

    /// Whether a path (in form) is one of them.
    pub(crate) fn matches(&self, path: &str) -> bool {
        match self {
            PathPattern::Any => true,
            PathPattern::Exact(exact) => **exact == *path,
            PathPattern::Prefix(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            PathPattern::Regex(pattern) => pattern.regex.is_match(path),
            PathPattern::Template(template) => template.matches(path),
        }
    }

    /// Orders patterns that match one path: the more specific one is greater.
    pub(crate) fn specificity(&self, other: &Self) -> Ordering {
        match (self, other) {
            (PathPattern::Prefix(one), PathPattern::Prefix(two)) => one.len().cmp(&two.len()),
            (PathPattern::Template(one), PathPattern::Template(two)) => one.specificity(two),
            _ => self.class().cmp(&other.class()),
        }
    }

    const fn class(&self) -> u8 {
        match self {
            PathPattern::Any => 0,
            PathPattern::Regex(_) => 1,
            PathPattern::Prefix(_) => 2,
            PathPattern::Template(_) => 3,
            PathPattern::Exact(_) => 4,
        }
    }

    /// Names of its parameters, in order.
    pub(crate) fn params(&self) -> impl Iterator<Item = &str> {
        let segments = match self {
            PathPattern::Template(template) => &*template.segments,
            _ => &[],
        };
        segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Param(name) | Segment::Rest(name) => Some(&**name),
        })
    }
}

impl std::fmt::Display for PathPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PathPattern::Any => f.write_str("any path"),
            PathPattern::Exact(path) => write!(f, "path {path}"),
            PathPattern::Prefix(prefix) if prefix.is_empty() => f.write_str("prefix /"),
            PathPattern::Prefix(prefix) => write!(f, "prefix {prefix}"),
            PathPattern::Regex(pattern) => write!(f, "path regex {}", pattern.text),
            PathPattern::Template(template) => {
                f.write_str("path template ")?;
                template.segments.iter().try_for_each(|segment| match segment {
                    Segment::Literal(text) => write!(f, "/{text}"),
                    Segment::Param(name) => write!(f, "/{{{name}}}"),
                    Segment::Rest(name) => write!(f, "/{{*{name}}}"),
                })
            }
        }
    }
}

/// The normal form of a pattern's text, within bounds.
fn form(text: &str) -> Result<String, String> {
    if text.len() > MAX_PATTERN_BYTES {
        return Err(format!("a path of {} bytes is too long, at most {MAX_PATTERN_BYTES}", text.len()));
    }
    if text.is_empty() {
        return Err("the path is empty; leave path out to match any".to_owned());
    }
    let mut scratch = Vec::new();
    let form = path::normalize(text.as_bytes(), &mut scratch)
        .map_err(|bad| format!("invalid path {text:?}: {bad}"))?;
    let segments = form.split('/').count() - 1;
    if segments > MAX_SEGMENTS {
        return Err(format!("a path of {segments} segments is too deep, at most {MAX_SEGMENTS}"));
    }
    Ok(form.to_owned())
}

/// A path with parameters: `/users/{id}`, `/files/{*rest}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) segments: Box<[Segment]>,
}

/// A piece of a template between slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Literal(Box<str>),
    /// One whole non-empty segment.
    Param(Box<str>),
    /// One or more segments, to the end of the path.
    Rest(Box<str>),
}

impl Segment {
    const fn class(&self) -> u8 {
        match self {
            Segment::Rest(_) => 0,
            Segment::Param(_) => 1,
            Segment::Literal(_) => 2,
        }
    }
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let form = form(text)?;
        let fault = |why: &str| Err(format!("invalid path template {text:?}: {why}"));
        let mut segments = Vec::new();
        let mut pieces = form[1..].split('/').peekable();
        while let Some(piece) = pieces.next() {
            let Some(inside) = piece.strip_prefix('{').and_then(|piece| piece.strip_suffix('}')) else {
                if piece.contains(['{', '}']) {
                    return fault("a parameter is a whole segment, {name} or {*name}");
                }
                segments.push(Segment::Literal(piece.into()));
                continue;
            };
            let (name, rest) = match inside.strip_prefix('*') {
                Some(name) => (name, true),
                None => (inside, false),
            };
            let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(word) {
                return fault(
                    "a parameter's name is made of letters, digits and '_', not beginning with a digit",
                );
            }
            if rest && pieces.peek().is_some() {
                return fault("{*name} stands at the end");
            }
            let taken = |segment: &Segment| matches!(segment, Segment::Param(other) | Segment::Rest(other) if **other == *name);
            if segments.iter().any(taken) {
                return fault("a parameter's name occurs once");
            }
            segments.push(if rest { Segment::Rest(name.into()) } else { Segment::Param(name.into()) });
        }
        Ok(Template { segments: segments.into() })
    }

    fn matches(&self, path: &str) -> bool {
        let mut rest = path.strip_prefix('/');
        for segment in &self.segments {
            let Some(text) = rest else { return false };
            let (piece, after) = split(text);
            match segment {
                Segment::Rest(_) => return !piece.is_empty(),
                Segment::Literal(literal) if **literal != *piece => return false,
                Segment::Param(_) if piece.is_empty() => return false,
                Segment::Literal(_) | Segment::Param(_) => rest = after,
            }
        }
        rest.is_none()
    }

    /// Segment by segment: literal over `{x}` over `{*x}`.
    fn specificity(&self, other: &Self) -> Ordering {
        self.segments.iter().map(Segment::class).cmp(other.segments.iter().map(Segment::class))
    }

    /// The parameters of a path that it matches.
    pub(crate) fn values<'a>(&'a self, path: &'a str) -> impl Iterator<Item = Param<'a>> {
        let mut rest = path.strip_prefix('/');
        self.segments.iter().filter_map(move |segment| {
            let text = rest?;
            let (piece, after) = split(text);
            rest = after;
            match segment {
                Segment::Literal(_) => None,
                Segment::Param(name) => Some(Param { name, value: piece.as_bytes() }),
                Segment::Rest(name) => Some(Param { name, value: text.as_bytes() }),
            }
        })
    }
}

/// The first segment, and what follows its slash if there is one.
#[inline]
pub(crate) fn split(text: &str) -> (&str, Option<&str>) {
    match memchr::memchr(b'/', text.as_bytes()) {
        Some(slash) => (&text[..slash], Some(&text[slash + 1..])),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_patterns_match_as_the_contract_says() {
        for (pattern, host, matches) in [
            ("api.example.com", "api.example.com", true),
            ("API.example.com.", "api.example.com", true),
            ("*.example.org", "a.example.org", true),
            ("*.example.org", "a.b.example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", ".example.org", false),
            ("*.example.org", "aexample.org", false),
        ] {
            assert_eq!(
                HostPattern::parse(pattern).expect(pattern).matches(host),
                matches,
                "{pattern} {host}"
            );
        }
        for pattern in ["*", "*.", "*.1.2.3.4", "*.[::1]", "a.*", "*.*.a", "a:80", ""] {
            assert!(HostPattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn path_patterns_match_as_the_contract_says() {
        type Parse = fn(&str) -> Result<PathPattern, String>;
        let (exact, prefix, template, regex): (Parse, Parse, Parse, Parse) =
            (PathPattern::exact, PathPattern::prefix, PathPattern::template, PathPattern::regex);
        for (parse, pattern, path, matches) in [
            (exact, "/a/%7Eb", "/a/~b", true),
            (exact, "/a", "/a/", false),
            (prefix, "/p", "/p", true),
            (prefix, "/p/", "/p", true),
            (prefix, "/p", "/p/x", true),
            (prefix, "/p", "/px", false),
            (prefix, "/", "/anything", true),
            (template, "/users/{id}", "/users/7", true),
            (template, "/users/{id}", "/users/", false),
            (template, "/users/{id}", "/users/7/", false),
            (template, "/users/{id}/", "/users/7/", true),
            (template, "/users/{id}", "/users/7/x", false),
            (template, "/f/{*rest}", "/f/a", true),
            (template, "/f/{*rest}", "/f/a/b/", true),
            (template, "/f/{*rest}", "/f/", false),
            (template, "/f/{*rest}", "/f", false),
            (template, "/plain", "/plain", true),
            (regex, "/a|/b", "/b", true),
            (regex, "/a", "/ab", false),
        ] {
            let parsed = parse(pattern).expect(pattern);
            assert_eq!(parsed.matches(path), matches, "{parsed} {path}");
        }
    }

    #[test]
    fn bad_path_patterns_are_refused() {
        for pattern in [
            "/a{b}",
            "/{}",
            "/{1a}",
            "/{a-b}",
            "/{*r}/x",
            "/{a}/{a}",
            "/{a}/{*a}",
            "/{",
            "/a}",
            "a/{b}",
            "",
            "/..",
            "/a?b",
        ] {
            assert!(PathPattern::template(pattern).is_err(), "{pattern}");
        }
        assert!(PathPattern::exact(&"/a".repeat(MAX_SEGMENTS + 1)).expect_err("deep").contains("too deep"));
        assert!(PathPattern::prefix(&format!("/{}", "a".repeat(MAX_PATTERN_BYTES))).is_err());
        assert!(PathPattern::regex("(").is_err());
        assert!(PathPattern::regex(&"a".repeat(MAX_PATTERN_BYTES + 1)).is_err());
    }

    #[test]
    fn parameters_are_cut_out_of_the_path() {
        let PathPattern::Template(template) = PathPattern::template("/u/{id}/f/{*rest}").expect("sound")
        else {
            unreachable!("a template was parsed")
        };
        let values: Vec<(&str, &[u8])> =
            template.values("/u/a%2Fb/f/x/y/").map(|param| (param.name, param.value)).collect();
        assert_eq!(values, [("id", &b"a%2Fb"[..]), ("rest", &b"x/y/"[..])]);
    }
}
