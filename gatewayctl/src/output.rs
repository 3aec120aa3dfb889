//! The only place that writes to the terminal. Results go to standard output, everything else (notes, warnings,
//! errors, progress) to standard error, so that output can be piped. Colours only on a terminal and without
//! `NO_COLOR`; progress only on a terminal and without `-q`.
//!
//! Names, messages and reasons are other people's text: their control characters are written as `\u001b`, so that
//! nobody draws on the reader's terminal. Only [`Output::raw`] into a file or pipe is byte for byte.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};

use crate::report::Failure;
use crate::spans::Findings;

const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
const GREEN: Style = AnsiColor::Green.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();
const BLUE: Style = AnsiColor::Blue.on_default().bold();

/// Where a command writes.
#[derive(Debug)]
pub(crate) struct Output {
    quiet: bool,
}

impl Output {
    /// Quiet: neither notes nor progress.
    pub(crate) const fn new(quiet: bool) -> Self {
        Output { quiet }
    }

    /// A person is watching: results go to a terminal.
    pub(crate) fn is_watched(&self) -> bool {
        std::io::stdout().is_terminal() && std::io::stderr().is_terminal()
    }

    /// A result for programs: as it stands, but for a terminal.
    pub(crate) fn raw(&self, text: &str) -> Result<(), Failure> {
        self.write(&for_people(text))
    }

    /// A result for people.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        self.write(&safe(text))
    }

    /// A unified diff, with its colours.
    pub(crate) fn diff(&self, text: &str) -> Result<(), Failure> {
        self.write(&painted_diff(&for_people(text)))
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        let mut out = anstream::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::closed(&error))
    }

    /// A result, as a line.
    pub(crate) fn line(&self, text: impl std::fmt::Display) -> Result<(), Failure> {
        self.text(&format!("{text}\n"))
    }

    /// A result that `-q` leaves out: the exit code says it too.
    pub(crate) fn say(&self, text: impl std::fmt::Display) -> Result<(), Failure> {
        if self.quiet { Ok(()) } else { self.line(text) }
    }

    /// Something good to know.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            self.aside(&safe(&text.to_string()));
        }
    }

    /// What looks wrong; shown even when quiet.
    pub(crate) fn warnings(&self, (findings, more): &Findings) {
        for finding in findings {
            self.aside(&painted(&safe(&finding.to_string())));
        }
        if *more > 0 {
            self.aside(&format!("and {}", counted(*more, "more warning")));
        }
    }

    /// Why a command did not do what it was told.
    pub(crate) fn failure(&self, failure: &Failure) {
        let text = failure.to_string();
        if !text.is_empty() {
            self.aside(&painted(&safe(&text)));
        }
    }

    fn aside(&self, text: &str) {
        // Nobody is left to be told that standard error is closed.
        let _ = writeln!(anstream::stderr().lock(), "{text}");
    }

    /// Shows that work goes on until the guard is dropped.
    pub(crate) fn progress(&self, what: impl Into<Cow<'static, str>>) -> Progress {
        if self.quiet || !std::io::stderr().is_terminal() {
            return Progress(None);
        }
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
        let bar = ProgressBar::new_spinner().with_message(what);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(100));
        Progress(Some(bar))
    }
}

/// A spinner, gone when dropped.
#[derive(Debug)]
pub(crate) struct Progress(Option<ProgressBar>);

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// `1 object`, `2 objects`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// Text without power over a terminal: control characters and those that turn the direction of writing are written
/// as JSON writes them, so that JSON stays what it is. Line breaks and tabs stay.
fn safe(text: &str) -> Cow<'_, str> {
    let harmful = |it: char| {
        (it.is_control() && !matches!(it, '\n' | '\t'))
            || matches!(it, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for it in text.chars() {
        if harmful(it) {
            let _ = write!(out, "\\u{:04x}", u32::from(it));
        } else {
            out.push(it);
        }
    }
    Cow::Owned(out)
}

/// What programs may read as it stands, and people may not.
fn for_people(text: &str) -> Cow<'_, str> {
    if std::io::stdout().is_terminal() { safe(text) } else { Cow::Borrowed(text) }
}

/// Columns as wide as their longest cell; empty without rows. The last column is not padded.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |text: &String| safe(text).replace(['\n', '\t'], " ");
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut padded = String::new();
        for (cell, width) in cells.zip(&widths) {
            let _ = write!(padded, "{cell:width$}   ");
        }
        text.push_str(padded.trim_end());
        text.push('\n');
    };
    if !rows.is_empty() {
        line(&mut head.iter().copied());
        rows.iter().for_each(|row| line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Rendered findings with their colours.
fn painted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    for (index, line) in text.lines().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let gutter = line.trim_start_matches([' ', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
        let marked = ["error", "warning"]
            .iter()
            .find(|label| line.strip_prefix(**label).is_some_and(|rest| rest.starts_with(": ")));
        if let Some(label) = marked {
            let style = if **label == *"error" { RED } else { YELLOW };
            let _ = write!(out, "{style}{label}{style:#}{}", &line[label.len()..]);
        } else if gutter.starts_with("| ") && gutter.trim_start_matches(['|', ' ']).bytes().all(|b| b == b'^')
        {
            let _ = write!(out, "{RED}{line}{RED:#}");
        } else if line.trim_start().starts_with("--> ") {
            let _ = write!(out, "{BLUE}{line}{BLUE:#}");
        } else {
            out.push_str(line);
        }
    }
    out
}

fn painted_diff(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    for line in text.lines() {
        let style = match line.as_bytes().first() {
            Some(b'+') => GREEN,
            Some(b'-') => AnsiColor::Red.on_default(),
            Some(b'@') => CYAN,
            _ => Style::new(),
        };
        let _ = writeln!(out, "{style}{line}{style:#}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_blanks() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["längst".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "X"], &rows), "NAME     X\na        1\nlängst\n");
        assert_eq!(table(&["NAME"], &[]), "");
    }

    #[test]
    fn other_peoples_text_cannot_draw_on_the_terminal() {
        let evil = "a\u{1b}[2Jb\u{9b}31m\rc\u{202e}d\u{2066}\u{7f}";
        assert_eq!(safe(evil), "a\\u001b[2Jb\\u009b31m\\u000dc\\u202ed\\u2066\\u007f");
        assert!(matches!(safe("längst\n\tja"), Cow::Borrowed(_)));
        let rows = [vec!["x\ny\u{1b}c".to_owned(), "z".to_owned()]];
        assert_eq!(table(&["A", "B"], &rows), "A            B\nx y\\u001bc   z\n");
        let json = format!("\"{}\"", safe("\u{202e}\u{7f}"));
        assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), "\u{202e}\u{7f}");
    }

    #[test]
    fn one_thing_is_not_called_several() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "object")), ["0 objects", "1 object", "2 objects"]);
    }

    #[test]
    fn without_colours_painted_text_is_the_text() {
        let text = "error: no\n --> a.yaml:1:2\n  |\n1 | abc\n  |  ^\n  = help: do";
        let painted = painted(text);
        assert_ne!(painted, text);
        assert_eq!(anstream::adapter::strip_str(&painted).to_string(), text);
    }
}
