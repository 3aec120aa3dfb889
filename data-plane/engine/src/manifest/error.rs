//! What is wrong with a manifest and where: file, line, column, the line itself with a caret, and what to do.
//! Invariants: an error list is never empty, it is bounded ([`MAX_ERRORS`]), an excerpt holds no control characters, so
//! that a manifest cannot steer the terminal that shows it, and no private key.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use gateway_proto::secret::{MASK, tokens, without_keys};

/// Errors kept of one batch; the rest is only counted.
pub const MAX_ERRORS: usize = 100;
/// Characters of a line that an excerpt shows.
const EXCERPT_CHARS: usize = 160;

/// The text of one manifest and the name people know it by (a path, or `stdin`).
#[derive(Debug)]
pub struct Source {
    pub(super) name: String,
    pub(super) text: String,
}

impl Source {
    /// A text and its name.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Source { name: name.into(), text: text.into() }
    }

    /// The path, or `stdin`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text, byte order mark removed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where a range of bytes is; out of range or inside a character, the nearest sound place before it.
    pub fn place(&self, span: Range<usize>) -> Place {
        let start = floor_char(&self.text, span.start);
        let end = floor_char(&self.text, span.end).max(start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        Place {
            line: memchr::memchr_iter(b'\n', &self.text.as_bytes()[..start]).count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            span: start..end,
        }
    }

    /// The first line of a range, with the range's part of it marked.
    pub fn excerpt(&self, span: Range<usize>) -> Excerpt {
        self.excerpt_without(span, &[])
    }

    /// The same, with secrets hidden that stand on the line: those of `secrets`, in order, and private keys in PEM
    /// wherever they are.
    pub(super) fn excerpt_without(&self, span: Range<usize>, secrets: &[Range<usize>]) -> Excerpt {
        let place = self.place(span);
        let line_start = self.text[..place.span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end =
            self.text[place.span.start..].find('\n').map_or(self.text.len(), |at| place.span.start + at);
        let line = &self.text[line_start..line_end];
        let mark = place.span.start - line_start..place.span.end.min(line_end) - line_start;
        let mut hidden: Vec<Range<usize>> = secrets
            .iter()
            .map(|secret| secret.start.max(line_start)..secret.end.min(line_end))
            .filter(|part| part.start < part.end)
            .map(|part| part.start - line_start..part.end - line_start)
            .collect();
        // Beginning on this line or on one before it.
        if matches!(without_keys(&self.text[..line_end]), Cow::Owned(told) if !told.ends_with(line)) {
            let start = line.find("-----BEGIN ").unwrap_or(line.len() - line.trim_start().len());
            hidden.clear();
            hidden.push(start..line.len());
        }
        let is_apart =
            |token: &Range<usize>| hidden.iter().all(|it| it.end <= token.start || token.end <= it.start);
        let tokens: Vec<_> = tokens(line).into_iter().filter(is_apart).collect();
        hidden.extend(tokens);
        hidden.sort_by_key(|part| part.start);
        let (line, mark) = hide(line, mark, &hidden);
        Excerpt::of_line(place.line, &line, mark)
    }
}

/// A line with [`MASK`] in the place of some parts of it, and where its mark is then.
fn hide<'l>(line: &'l str, mark: Range<usize>, parts: &[Range<usize>]) -> (Cow<'l, str>, Range<usize>) {
    if parts.is_empty() {
        return (Cow::Borrowed(line), mark);
    }
    let mut shown = String::new();
    let (mut from, mut marked) = (0, mark.clone());
    for part in parts {
        shown.push_str(&line[from..part.start]);
        let start = shown.len();
        shown.push_str(MASK);
        from = part.end;
        if mark.start >= part.end {
            marked = mark.start - part.end + shown.len()..mark.end - part.end + shown.len();
        } else if mark.end > part.start || mark.start >= part.start {
            marked = start..shown.len();
        }
    }
    shown.push_str(&line[from..]);
    (Cow::Owned(shown), marked)
}

fn floor_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A position: line and column from 1 (columns in characters), and the bytes of [`Source::text`] it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Bytes of the source's text.
    pub span: Range<usize>,
}

/// One line of a manifest with a marked part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// Line number, from 1.
    pub line: usize,
    /// Column of the mark in the whole line, from 1, in characters.
    pub column: usize,
    /// The line; of a long one the part around the mark.
    pub text: String,
    /// The marked bytes of `text`.
    pub mark: Range<usize>,
}

impl Excerpt {
    /// Shortens and cleans a line; `mark` is in bytes of it, on character borders.
    fn of_line(line: usize, text: &str, mark: Range<usize>) -> Self {
        let column = text[..mark.start].chars().count();
        let width = text[mark].chars().count().max(1);
        let first = column.saturating_sub(EXCERPT_CHARS / 2);
        let mut shown = String::new();
        let mut at = 0..0;
        for (index, c) in text.chars().enumerate().skip(first).take(EXCERPT_CHARS) {
            if index == column {
                at.start = shown.len();
            }
            shown.push(if c.is_control() { ' ' } else { c });
            if index < column + width {
                at.end = shown.len();
            }
        }
        if column - first >= shown.chars().count() {
            at = shown.len()..shown.len(); // past the end of the line
        }
        Excerpt { line, column: column + 1, text: shown, mark: at }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A file or folder could not be read.
    Unreadable,
    /// The content is wrong.
    Invalid,
    /// The content is accepted but looks wrong. Never of a manifest's form; for what compile and the server say.
    Warning,
}

/// One thing that is wrong with one manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// Unreadable or invalid.
    pub class: Class,
    /// Name of the source.
    pub file: String,
    /// Where; absent when it is the file as a whole.
    pub at: Option<Excerpt>,
    /// Lower case, names the offending value.
    pub message: String,
    /// What to do about it: the allowed names, what was probably meant.
    pub help: Option<String>,
    /// Another place that belongs to it, e.g. where a duplicate was first given.
    pub note: Option<String>,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = if self.class == Class::Warning { "warning" } else { "error" };
        writeln!(f, "{label}: {}", self.message)?;
        let gutter = match &self.at {
            None => {
                write!(f, "  --> {}", self.file)?;
                1
            }
            Some(at) => {
                let number = at.line.to_string();
                let gutter = number.len();
                writeln!(f, "{:gutter$}--> {}:{}:{}", "", self.file, at.line, at.column)?;
                writeln!(f, "{:gutter$} |", "")?;
                writeln!(f, "{number} | {}", at.text)?;
                let indent = at.text[..at.mark.start].chars().count();
                let width = at.text[at.mark.clone()].chars().count().max(1);
                write!(f, "{:gutter$} | {:indent$}{}", "", "", "^".repeat(width))?;
                gutter
            }
        };
        for (label, text) in [("help", &self.help), ("note", &self.note)] {
            if let Some(text) = text {
                write!(f, "\n{:gutter$} = {label}: {text}", "")?;
            }
        }
        Ok(())
    }
}

/// Everything that is wrong with a batch, in the order of the files and their lines.
#[derive(Clone, Debug, thiserror::Error)]
pub struct ManifestErrors {
    /// The first of them, at most [`MAX_ERRORS`]; never empty.
    pub errors: Vec<ManifestError>,
    /// How many more there are.
    pub more: usize,
}

impl ManifestErrors {
    /// No content was found wrong: something could not be read.
    pub fn is_unreadable(&self) -> bool {
        self.errors.iter().all(|error| error.class == Class::Unreadable)
    }
}

impl fmt::Display for ManifestErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{error}")?;
        }
        if self.more > 0 {
            write!(f, "\n\nand {} more errors", self.more)?;
        }
        Ok(())
    }
}

/// Collects errors up to [`MAX_ERRORS`].
#[derive(Debug, Default)]
pub(super) struct Collector {
    errors: Vec<ManifestError>,
    more: usize,
}

impl Collector {
    /// Makes the error only if it is kept: finding lines and excerpts costs a walk over the text.
    pub(super) fn push(&mut self, error: impl FnOnce() -> ManifestError) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error());
        } else {
            self.more += 1;
        }
    }

    /// Puts an error before all others: a limit explains why the rest was not looked at.
    pub(super) fn push_first(&mut self, error: ManifestError) {
        self.errors.insert(0, error);
        if self.errors.len() > MAX_ERRORS {
            self.errors.pop();
            self.more += 1;
        }
    }

    pub(super) fn file(&mut self, class: Class, file: &str, message: String, help: Option<String>) {
        self.push(|| ManifestError { class, file: file.to_owned(), at: None, message, help, note: None });
    }

    pub(super) fn finish<T>(self, good: T) -> Result<T, ManifestErrors> {
        if self.errors.is_empty() {
            Ok(good)
        } else {
            Err(ManifestErrors { errors: self.errors, more: self.more })
        }
    }
}

/// A fault inside one document, in bytes of the text it was parsed from.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// Absent while it travels up to the value it belongs to.
    pub(super) span: Option<Range<usize>>,
    pub(super) message: String,
    pub(super) help: Option<String>,
    /// A second place and what it is.
    pub(super) also: Option<(&'static str, Range<usize>)>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Fault { span: None, message: message.into(), help: None, also: None }
    }

    pub(super) fn at(mut self, span: Range<usize>) -> Self {
        self.span.get_or_insert(span);
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The error people see; `offset` is where the parsed text begins in the source.
    pub(super) fn into_error(self, source: &Source, offset: usize) -> ManifestError {
        let shift = |span: Range<usize>| span.start + offset..span.end + offset;
        let note = self.also.map(|(what, span)| {
            let place = source.place(shift(span));
            format!("{what} {}:{}:{}", source.name(), place.line, place.column)
        });
        ManifestError {
            class: Class::Invalid,
            file: source.name().to_owned(),
            at: Some(source.excerpt(shift(self.span.unwrap_or(0..0)))),
            message: without_keys(&self.message).into_owned(),
            help: self.help,
            note,
        }
    }
}
