//! Lines: fields of the gateway's own that one head after the other gets, made once and appended in one copy.

use super::{Field, HeadParts, IN_EDITS, Text, offset};

/// Fields in the form that they are written in.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    text: Vec<u8>,
    /// Their texts count from the beginning of `text`, and are marked as the edits arena's.
    fields: Vec<Field>,
}

impl Lines {
    /// Keeps so many fields, the first ones, and the memory.
    pub fn truncate(&mut self, count: usize) {
        self.fields.truncate(count);
        let end = self.fields.last().map_or(0, |last| last.value.range().end + "\r\n".len());
        self.text.truncate(end);
    }

    /// Appends a field. The name is a token in lower case; what `fill` appends is the value, and must be free of
    /// control bytes.
    pub fn push(&mut self, name: &str, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
        let field = write_line(&mut self.text, name, tag, fill);
        self.fields.push(field);
    }

    /// Bytes of memory held.
    pub fn capacity(&self) -> usize {
        self.text.capacity() + self.fields.capacity() * size_of::<Field>()
    }
}

/// Writes a line, its end included, and says where its name and value lie.
#[inline]
fn write_line(text: &mut Vec<u8>, name: &str, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) -> Field {
    let within =
        |start: usize, end: usize| Text { start: offset(start), len: offset(end - start) | IN_EDITS };
    let start = text.len();
    text.extend_from_slice(name.as_bytes());
    let name = within(start, text.len());
    text.extend_from_slice(b": ");
    let start = text.len();
    fill(text);
    let value = within(start, text.len());
    text.extend_from_slice(b"\r\n");
    Field { name, value, tag, removed: false, line: true }
}

impl HeadParts {
    /// Appends a field of the gateway's own, in the form that it is written in. The name is a token in lower case; what
    /// `fill` appends is the value, and must be free of control bytes.
    #[inline]
    pub fn push_line(&mut self, name: &str, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.edits.len();
        let field = write_line(&mut self.edits, name, tag, fill);
        self.fields.push(field);
        self.own_since(start);
    }

    /// Appends fields of the gateway's own that were made before.
    #[inline]
    pub fn push_lines(&mut self, lines: &Lines) {
        let start = self.edits.len();
        self.edits.extend_from_slice(&lines.text);
        let moved = |text: Text| Text { start: text.start + offset(start), len: text.len };
        let fields = lines.fields.iter();
        self.fields.extend(fields.map(|field| Field {
            name: moved(field.name),
            value: moved(field.value),
            ..*field
        }));
        self.own_since(start);
    }

    /// Whole lines were appended to the edits.
    #[inline]
    fn own_since(&mut self, start: usize) {
        let lines = Text { start: offset(start), len: offset(self.edits.len() - start) | IN_EDITS };
        self.own = match self.own.joined(lines) {
            Some(longer) => longer,
            None => {
                // Something else lies between the lines, if there were any.
                self.verbatim &= self.own.is_empty();
                lines
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::Head;
    use super::*;

    #[test]
    fn lines_made_before_are_as_those_made_on_the_spot() {
        let mut lines = Lines::default();
        lines.push("left", 9, |out| out.extend_from_slice(b"over"));
        lines.truncate(0);
        lines.push("b", 2, |out| out.extend_from_slice(b"two"));
        lines.push("left", 9, |out| out.extend_from_slice(b"over"));
        lines.truncate(1);
        lines.push("c", 3, |_empty| {});
        let (mut at_once, mut one_by_one) = (HeadParts::new(), HeadParts::new());
        for parts in [&mut at_once, &mut one_by_one] {
            parts.end_runs();
            parts.push_line("a", 1, |out| out.extend_from_slice(b"one"));
        }
        at_once.push_lines(&lines);
        one_by_one.push_line("b", 2, |out| out.extend_from_slice(b"two"));
        one_by_one.push_line("c", 3, |_empty| {});
        for parts in [&mut at_once, &mut one_by_one] {
            let head = Head::new(b"", parts);
            let fields: Vec<_> = head.iter().collect();
            assert_eq!(fields, [(&b"a"[..], &b"one"[..], 1), (b"b", b"two", 2), (b"c", b"", 3)]);
            let written: Vec<u8> = head.verbatim().expect("nothing was edited").flatten().copied().collect();
            assert_eq!(String::from_utf8_lossy(&written), "a: one\r\nb: two\r\nc: \r\n");
        }
    }

    #[test]
    fn no_lines_change_nothing() {
        let mut parts = HeadParts::new();
        parts.end_runs();
        parts.push_lines(&Lines::default());
        assert!(Head::new(b"", &mut parts).verbatim().is_some_and(|pieces| pieces.flatten().count() == 0));
    }
}
