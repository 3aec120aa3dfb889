//! What `${NAME}`, `${NAME:-default}` and `$file` stand for. Text comes from the environment and from files beside
//! the manifest; it is put into scalars after parsing and never parsed again, so a value cannot add fields.
//!
//! One rule for `$`: directly before `{NAME}` (upper case) every `$$` is a literal `$` and a single one asks for the
//! variable. Everywhere else `$` is left alone: `${claim.sub}` and its `$$` belong to request templates, `$1` and
//! `${name}` to regular expressions. (In a template, which has a `$$` of its own, the text `${NAME}` is written
//! `$$$${NAME}`.) [`escape`] is the inverse, for output that will be read again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use super::error::Fault;

/// Largest file that `$file` reads, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where variables and files come from.
#[derive(Clone, Debug)]
pub struct Resolver {
    variables: Variables,
    folder: Option<PathBuf>,
}

#[derive(Clone, Debug)]
enum Variables {
    /// `$` means nothing.
    Off,
    Process,
    Fixed(BTreeMap<String, String>),
}

impl Resolver {
    /// Text is taken as it stands: neither variables nor files. For bodies that come over the network.
    pub const fn literal() -> Self {
        Resolver { variables: Variables::Off, folder: None }
    }

    /// Variables of this process; files in the folder of each manifest.
    pub const fn environment() -> Self {
        Resolver { variables: Variables::Process, folder: None }
    }

    /// These variables and no others.
    pub const fn with_variables(variables: BTreeMap<String, String>) -> Self {
        Resolver { variables: Variables::Fixed(variables), folder: None }
    }

    /// The same, with `$file` inside this folder.
    #[must_use]
    pub fn within(&self, folder: impl Into<PathBuf>) -> Self {
        Resolver { variables: self.variables.clone(), folder: Some(folder.into()) }
    }

    /// Whether `$` has a meaning at all.
    pub(super) const fn is_active(&self) -> bool {
        !matches!(self.variables, Variables::Off)
    }

    fn variable(&self, name: &str) -> Result<Option<String>, Fault> {
        match &self.variables {
            Variables::Off => Ok(None),
            Variables::Fixed(fixed) => Ok(fixed.get(name).cloned()),
            Variables::Process => std::env::var_os(name)
                .map(|value| {
                    value
                        .into_string()
                        .map_err(|_| Fault::new(format!("environment variable {name} is not valid UTF-8")))
                })
                .transpose(),
        }
    }

    /// The text with its variables filled in; `None` when it has none.
    pub(super) fn fill(&self, text: &str) -> Result<Option<String>, Fault> {
        if !self.is_active() {
            return Ok(None);
        }
        let mut filled: Option<String> = None;
        let mut done = 0;
        for asked in references(text) {
            if asked.start < done {
                continue; // inside a default that was skipped or taken as it stands
            }
            let out = filled.get_or_insert_default();
            out.push_str(&text[done..asked.start]);
            out.extend(std::iter::repeat_n('$', asked.dollars / 2));
            done = asked.start + asked.dollars;
            if asked.dollars % 2 == 1 {
                out.push_str(&self.value_of(&asked)?);
                done = asked.end;
            }
        }
        Ok(filled.map(|mut out| {
            out.push_str(&text[done..]);
            out
        }))
    }

    fn value_of(&self, asked: &Reference<'_>) -> Result<String, Fault> {
        let name = asked.name;
        match (self.variable(name)?, asked.default) {
            (Some(value), None) => Ok(value),
            (Some(value), Some(_)) if !value.is_empty() => Ok(value),
            (_, Some(default)) => Ok(default.to_owned()),
            (None, None) => Err(Fault::new(format!("environment variable {name} is not set"))
                .help(format!("set it, or give a default with ${{{name}:-default}}"))),
        }
    }

    /// The content of a file inside the manifest's folder.
    pub(super) fn file(&self, path: &str) -> Result<String, Fault> {
        let outside = || {
            Fault::new(format!("$file {path:?} is outside the manifest's folder"))
                .help("name a file in the manifest's own folder or below it, e.g. ./key.pem")
        };
        let unreadable =
            |why: &dyn std::fmt::Display| Fault::new(format!("cannot read $file {path:?}: {why}"));
        let Some(folder) = &self.folder else {
            return Err(Fault::new("$file needs a manifest that is read from a file"));
        };
        let relative = Path::new(path);
        if !relative.components().all(|part| matches!(part, Component::CurDir | Component::Normal(_))) {
            return Err(outside());
        }
        // Symbolic links may point anywhere: what counts is where they end.
        let folder = folder.canonicalize().map_err(|error| unreadable(&error))?;
        let target = folder.join(relative).canonicalize().map_err(|error| unreadable(&error))?;
        if !target.starts_with(&folder) {
            return Err(outside());
        }
        if !target.is_file() {
            return Err(unreadable(&"it is no regular file"));
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&target).map_err(|error| unreadable(&error))?;
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(unreadable(&format_args!("it is over {MAX_FILE_BYTES} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| unreadable(&"it is not valid UTF-8"))
    }
}

/// Text that reads back as itself: the `$` before `{NAME}` doubled.
pub fn escape(text: &str) -> Cow<'_, str> {
    let mut escaped = String::new();
    let mut done = 0;
    for asked in references(text) {
        escaped.push_str(&text[done..asked.start + asked.dollars]);
        escaped.extend(std::iter::repeat_n('$', asked.dollars));
        done = asked.start + asked.dollars;
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    escaped.push_str(&text[done..]);
    Cow::Owned(escaped)
}

/// A run of `$` and the `{NAME}` or `{NAME:-default}` after it; a default may hold another reference.
struct Reference<'t> {
    start: usize,
    dollars: usize,
    end: usize,
    name: &'t str,
    default: Option<&'t str>,
}

fn references(text: &str) -> impl Iterator<Item = Reference<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(found) = text[at..].find('$') {
            let start = at + found;
            let dollars = text[start..].bytes().take_while(|&b| b == b'$').count();
            at = start + dollars;
            if let Some((name, default, length)) = braced(&text[at..]) {
                return Some(Reference { start, dollars, end: at + length, name, default });
            }
        }
        None
    })
}

/// `{NAME}` or `{NAME:-default}` at the beginning: name, default and length.
fn braced(text: &str) -> Option<(&str, Option<&str>, usize)> {
    let inner = text.strip_prefix('{')?;
    let close = inner.find('}')?;
    let (name, default) = match inner[..close].split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (&inner[..close], None),
    };
    let sound = name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    sound.then_some((name, default, close + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver() -> Resolver {
        let variables = [("PORT", "8080"), ("EMPTY", ""), ("SNEAKY", "a: ${PORT}\nb: 1")];
        Resolver::with_variables(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    fn filled(text: &str) -> String {
        resolver().fill(text).expect("resolves").unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn only_upper_case_braced_names_are_filled_in() {
        for (text, expected) in [
            ("${PORT}", "8080"),
            ("x${PORT}y${PORT}", "x8080y8080"),
            ("${UNSET:-7}", "7"),
            ("${EMPTY:-7}", "7"),
            ("${EMPTY}", ""),
            ("${PORT:-7}", "8080"),
            ("$${PORT}", "${PORT}"),
            ("$$${PORT}", "$8080"),
            ("$${UNSET:-${PORT}}", "${UNSET:-8080}"),
            ("${claim.sub} $1 $$ ${name} $PORT $", "${claim.sub} $1 $$ ${name} $PORT $"),
            ("$${claim.sub}", "$${claim.sub}"),
            ("${PORT", "${PORT"),
            ("${Port}", "${Port}"),
            ("${SNEAKY}", "a: ${PORT}\nb: 1"),
        ] {
            assert_eq!(filled(text), expected, "{text}");
        }
        assert_eq!(Resolver::literal().fill("${PORT}").expect("left alone"), None);
    }

    #[test]
    fn an_unset_variable_without_a_default_is_an_error_that_says_what_to_do() {
        let fault = resolver().fill("${NOPE}").expect_err("unset");
        assert_eq!(fault.message, "environment variable NOPE is not set");
        assert!(fault.help.expect("help").contains("${NOPE:-default}"));
    }

    #[test]
    fn escaped_text_reads_back_as_itself() {
        for text in ["", "a", "${PORT}", "$${PORT}", "$$$${PORT:-x}", "${claim.sub}$$", "${A:-${PORT}}", "$"]
        {
            assert_eq!(filled(&escape(text)), text);
        }
    }

    #[test]
    fn files_are_read_inside_the_folder_only() {
        let root = tempfile::tempdir().expect("temporary folder");
        let folder = root.path().join("shop");
        std::fs::create_dir_all(folder.join("keys")).expect("folders");
        std::fs::write(folder.join("keys/a.pem"), "inside").expect("file");
        std::fs::write(root.path().join("secret"), "outside").expect("file");
        std::fs::write(folder.join("big"), vec![b'x'; MAX_FILE_BYTES as usize + 1]).expect("file");
        std::fs::write(folder.join("binary"), [0xff, 0xfe]).expect("file");
        std::os::unix::fs::symlink(root.path().join("secret"), folder.join("link")).expect("link");
        std::os::unix::fs::symlink(folder.join("keys/a.pem"), folder.join("good-link")).expect("link");
        let resolver = Resolver::environment().within(&folder);
        assert_eq!(resolver.file("./keys/a.pem").expect("inside"), "inside");
        assert_eq!(resolver.file("good-link").expect("inside"), "inside");
        for (path, why) in [
            ("../secret", "outside"),
            ("keys/../../secret", "outside"),
            ("/etc/hostname", "outside"),
            ("link", "outside"),
            ("missing", "cannot read"),
            ("keys", "no regular file"),
            ("big", "over 1048576 bytes"),
            ("binary", "not valid UTF-8"),
        ] {
            let message = resolver.file(path).expect_err(path).message;
            assert!(message.contains(why), "{path}: {message}");
        }
        assert!(Resolver::environment().file("a").is_err(), "no folder is known");
    }
}
