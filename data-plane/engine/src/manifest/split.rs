//! Cuts a stream into its `---` sections before any of it is parsed, so that a fault in one section hides nothing of
//! the next, and sizes are known before work is done. `---` and `...` in the first column followed by a blank or the
//! end of the line always end a document (YAML 1.2.2, 9.1.2 and 9.2), whatever stands around them.

use std::ops::Range;

/// Byte ranges of the sections, in order. Sections of nothing but blanks and comments are left out; directives
/// (`%YAML 1.2`) stay with the section they introduce.
pub(super) fn sections(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    let mut start = 0;
    let mut content = false;
    let mut finished = false;
    std::iter::from_fn(move || {
        while !finished {
            let line_end =
                memchr::memchr(b'\n', &text.as_bytes()[at..]).map_or(text.len(), |newline| at + newline + 1);
            let line = &text[at..line_end];
            let border = is_border(line);
            let section = start..at;
            let had = content;
            finished = line_end == text.len();
            if border {
                // `--- value` may go on in its own line.
                content = line.starts_with("---") && has_content(&line[3..]);
                if had || line.starts_with("...") {
                    start = if line.starts_with("...") { line_end } else { at };
                }
            } else {
                content |= has_content(line);
            }
            at = line_end;
            if border && had {
                return Some(section);
            }
        }
        let last = std::mem::take(&mut content).then_some(start..text.len());
        start = text.len();
        last
    })
}

fn is_border(line: &str) -> bool {
    ["---", "..."].iter().any(|marker| {
        line.strip_prefix(marker)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
    })
}

fn has_content(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with('#') && !line.starts_with('%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_end_at_markers_in_the_first_column_only() {
        for (text, expected) in [
            ("", vec![]),
            ("# nothing\n\n---\n---\n", vec![]),
            ("a: 1", vec!["a: 1"]),
            ("a: 1\n---\nb: 2\n", vec!["a: 1\n", "---\nb: 2\n"]),
            ("---\na: 1\n--- # next\nb: 2", vec!["---\na: 1\n", "--- # next\nb: 2"]),
            ("a: |\n  ---\n  x\n----\n", vec!["a: |\n  ---\n  x\n----\n"]),
            ("a: 1\n...\nb: 2\n", vec!["a: 1\n", "b: 2\n"]),
            ("%YAML 1.2\n---\na: 1\n", vec!["%YAML 1.2\n---\na: 1\n"]),
            ("a: 1\r\n---\r\nb: 2\r\n", vec!["a: 1\r\n", "---\r\nb: 2\r\n"]),
            ("--- {a: 1}\n--- {b: 2}", vec!["--- {a: 1}\n", "--- {b: 2}"]),
        ] {
            let found: Vec<&str> = sections(text).map(|range| &text[range]).collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
