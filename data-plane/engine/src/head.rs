//! Head: the head of a request or response as slices plus edits. This is what routes match on, policies read and
//! change, and the codecs write out.
//!
//! [`HeadParts`] is storage that a connection keeps and reuses; [`Head`] is a view that pairs it with the bytes that
//! were read. A [`Text`] points into those wire bytes or into the edits arena, which only grows, so every `Text`
//! stays valid until [`HeadParts::clear`]. Removing marks a field; nothing moves. Once the vectors are warm nothing
//! here allocates. It refuses to judge: syntax is the codec's business, which names may be edited the policies'.
//!
//! Invariant: names given to this API by configuration are lower case (HTTP/2 requires it, RFC 9113 §8.2);
//! lookups are ASCII case-insensitive because HTTP/1.1 clients write what they like.

use std::borrow::Cow;
use std::ops::Range;

mod lines;
pub use lines::Lines;

/// A piece of text of a head: in the wire bytes or in the edits arena. Four gigabytes of either are more than any
/// limit lets in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text {
    start: u32,
    /// Length; the top bit says that it lies in the edits arena.
    len: u32,
}

const IN_EDITS: u32 = 1 << 31;

impl Text {
    /// No text.
    pub const EMPTY: Text = Text { start: 0, len: 0 };

    /// A piece of the wire bytes, by offset and length (under 2 GiB).
    pub const fn wire(start: u32, len: u32) -> Text {
        Text { start, len: len & !IN_EDITS }
    }

    /// Length in bytes.
    pub const fn len(self) -> usize {
        (self.len & !IN_EDITS) as usize
    }

    /// Nothing in it.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// It lies in the wire bytes as they were read, so that a serialiser may copy neighbours in one go.
    pub const fn is_wire(self) -> bool {
        self.len & IN_EDITS == 0
    }

    /// This text and the one that follows it directly, as one.
    pub const fn joined(self, next: Text) -> Option<Text> {
        let together = (self.len ^ next.len) & IN_EDITS == 0;
        if together && self.start + (self.len & !IN_EDITS) == next.start {
            return Some(Text { start: self.start, len: self.len + (next.len & !IN_EDITS) });
        }
        None
    }

    /// Offsets, in the wire bytes or in the edits arena as [`Text::is_wire`] says.
    pub const fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len()
    }
}

/// A header field of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name, in the sender's spelling or, when configuration wrote it, in lower case.
    pub name: Text,
    /// Value without surrounding white space.
    pub value: Text,
    /// Free for whoever fills the head (the codec's known-field number); 0 on fields that were added or renamed here.
    pub tag: u8,
    removed: bool,
    /// Name, `: `, value and CRLF stand together as one line.
    line: bool,
}

/// The parts of a request line (or of the HTTP/2 pseudo-fields).
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestLine {
    /// Method, case-sensitive.
    pub method: Text,
    /// The target as it was received, whole: only measured, never parsed again.
    pub target: Text,
    /// Path; [`Head::set_path`] puts the normalised form here.
    pub path: Text,
    /// Query without `?`; `None` differs from empty.
    pub query: Option<Text>,
    /// Host and port as asked for (`Host` or `:authority`).
    pub authority: Text,
}

/// Storage of one head, reused from message to message.
#[derive(Debug, Default)]
pub struct HeadParts {
    line: RequestLine,
    status: u16,
    fields: Vec<Field>,
    /// What the fields took when they were read.
    received_field_bytes: usize,
    edits: Vec<u8>,
    /// What is to be written of the fields that were read, in as few pieces as they lie in; see [`HeadParts::push_run`].
    runs: Vec<Text>,
    /// The gateway's own lines, which follow one another in the edits arena.
    own: Text,
    /// `runs` and `own` say all that the fields say: nothing was edited.
    verbatim: bool,
    /// Buffers to lend; two are enough for every user there is.
    scratch: Vec<Vec<u8>>,
}

impl HeadParts {
    /// Empty storage; allocates at first use.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for the next message; keeps the memory.
    pub fn clear(&mut self) {
        self.line = RequestLine::default();
        self.status = 0;
        self.fields.clear();
        self.received_field_bytes = 0;
        self.edits.clear();
        self.runs.clear();
        self.own = Text::EMPTY;
        self.verbatim = false;
    }

    /// Sets the parts of the request line.
    pub fn set_request_line(&mut self, line: RequestLine) {
        self.line = line;
    }

    /// Sets a response's status code.
    pub fn set_status(&mut self, status: u16) {
        self.status = status;
    }

    /// Appends a field as it was read.
    #[inline]
    pub fn push(&mut self, name: Text, value: Text, tag: u8) {
        self.push_read(Field { name, value, tag, removed: false, line: false });
    }

    /// The same of a field that was read as a line in the usual form: name, `: `, value, CRLF and nothing else.
    #[inline]
    pub fn push_usual(&mut self, name: Text, value: Text, tag: u8) {
        self.push_read(Field { name, value, tag, removed: false, line: true });
    }

    #[inline]
    fn push_read(&mut self, field: Field) {
        self.received_field_bytes += field.name.len() + field.value.len() + ": ".len() + "\r\n".len();
        self.fields.push(field);
        self.verbatim = false;
    }

    /// Appends a piece of the wire bytes that holds fields as they are to be written: whole lines and nothing else. In their
    /// order, and [`HeadParts::end_runs`] after the last.
    #[inline]
    pub fn push_run(&mut self, lines: Text) {
        self.runs.push(lines);
    }

    /// All that is to be written of the fields that were read is in the runs.
    #[inline]
    pub fn end_runs(&mut self) {
        self.verbatim = true;
    }

    /// Copies bytes into the edits arena: for heads that have no wire bytes (HTTP/2, our own answers).
    pub fn copy(&mut self, bytes: &[u8]) -> Text {
        let start = self.edits.len();
        self.edits.extend_from_slice(bytes);
        Text { start: offset(start), len: offset(bytes.len()) | IN_EDITS }
    }

    /// Bytes of memory held, for a caller that gives back what one huge head made grow.
    pub fn capacity(&self) -> usize {
        let scratch: usize = self.scratch.iter().map(Vec::capacity).sum();
        let texts = self.fields.capacity() * size_of::<Field>() + self.runs.capacity() * size_of::<Text>();
        texts + self.edits.capacity() + scratch
    }
}

fn offset(at: usize) -> u32 {
    debug_assert!(at < IN_EDITS as usize, "heads are limited to megabytes");
    at as u32
}

/// A head: wire bytes and what was found in and changed about them.
#[derive(Debug)]
pub struct Head<'a> {
    wire: &'a [u8],
    parts: &'a mut HeadParts,
}

impl<'a> Head<'a> {
    /// Joins the storage with the bytes that its wire [`Text`]s point into (empty when there are none).
    pub fn new(wire: &'a [u8], parts: &'a mut HeadParts) -> Self {
        Head { wire, parts }
    }

    /// The same head for a shorter time.
    pub fn reborrow(&mut self) -> Head<'_> {
        Head { wire: self.wire, parts: self.parts }
    }

    /// The bytes of a text.
    ///
    /// # Panics
    /// If the text belongs to another head.
    #[inline]
    pub fn bytes(&self, text: Text) -> &[u8] {
        if text.is_wire() { &self.wire[text.range()] } else { &self.parts.edits[text.range()] }
    }

    /// The method, empty in a response.
    pub fn method(&self) -> &[u8] {
        self.bytes(self.parts.line.method)
    }

    /// The request target as it was received.
    pub fn target(&self) -> &[u8] {
        self.bytes(self.parts.line.target)
    }

    /// The path.
    pub fn path(&self) -> &[u8] {
        self.bytes(self.parts.line.path)
    }

    /// The query without `?`.
    pub fn query(&self) -> Option<&[u8]> {
        self.parts.line.query.map(|query| self.bytes(query))
    }

    /// Host and port as asked for.
    pub fn authority(&self) -> &[u8] {
        self.bytes(self.parts.line.authority)
    }

    /// A response's status code; 0 in a request.
    pub fn status(&self) -> u16 {
        self.parts.status
    }

    /// The request line's parts, for serialisers.
    pub fn request_line(&self) -> &RequestLine {
        &self.parts.line
    }

    /// Replaces the method.
    pub fn set_method(&mut self, method: &[u8]) {
        self.parts.line.method = self.parts.copy(method);
    }

    /// Replaces the path; must be in normalised form.
    pub fn set_path(&mut self, path: &[u8]) {
        self.parts.line.path = self.parts.copy(path);
    }

    /// Replaces the query (without `?`), or takes it away.
    pub fn set_query(&mut self, query: Option<&[u8]>) {
        self.parts.line.query = query.map(|query| self.parts.copy(query));
    }

    /// Replaces the authority.
    pub fn set_authority(&mut self, authority: &[u8]) {
        self.parts.line.authority = self.parts.copy(authority);
    }

    /// Sets a response's status code.
    pub fn set_status(&mut self, status: u16) {
        self.parts.status = status;
    }

    /// The live fields in order.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.parts.fields.iter().filter(|field| !field.removed)
    }

    /// Where a field lies as a whole line, its end included, if it does: then it can be copied with its neighbours.
    #[inline]
    pub fn line(&self, field: &Field) -> Option<Text> {
        let Field { name, value, .. } = *field;
        let line = Text { start: name.start, len: name.len + value.len() as u32 + 4 };
        debug_assert!(!field.line || self.bytes(line).ends_with(b"\r\n"));
        field.line.then_some(line)
    }

    /// All fields that are to be written as whole lines, in order, if nothing was edited since they were read (or made
    /// here): what a serialiser may copy without a look at the single fields.
    #[inline]
    pub fn verbatim(&self) -> Option<impl Iterator<Item = &[u8]>> {
        let parts = &*self.parts;
        parts.verbatim.then(|| parts.runs.iter().chain([&parts.own]).map(|run| self.bytes(*run)))
    }

    /// Names, values and tags of the live fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8], u8)> {
        self.fields().map(|field| (self.bytes(field.name), self.bytes(field.value), field.tag))
    }

    /// The first value under a name (lower case).
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields().find(|field| self.is_named(field, name)).map(|field| self.bytes(field.value))
    }

    /// Every value under a name (lower case), in order.
    pub fn get_all<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        self.fields().filter(move |field| self.is_named(field, name)).map(|field| self.bytes(field.value))
    }

    /// The values under a name (lower case) joined with `, ` (RFC 9110 §5.3). Allocates only when there are several.
    pub fn joined<'h>(&'h self, name: &'h str) -> Option<Cow<'h, [u8]>> {
        let mut values = self.get_all(name);
        let first = values.next()?;
        let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
        let mut all = [first, second].join(&b", "[..]);
        for value in values {
            all.extend_from_slice(b", ");
            all.extend_from_slice(value);
        }
        Some(Cow::Owned(all))
    }

    /// Appends the values under a name (lower case), joined with `, `; whether there were any.
    pub fn join_into(&self, name: &str, out: &mut Vec<u8>) -> bool {
        let mut found = false;
        for value in self.get_all(name) {
            if found {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(value);
            found = true;
        }
        found
    }

    /// There is a field of this name (lower case).
    pub fn contains(&self, name: &str) -> bool {
        self.fields().any(|field| self.is_named(field, name))
    }

    /// Makes this the only value under a name (lower case), in the place of the first there was, else at the end.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.parts.verbatim = false;
        let value = self.parts.copy(value);
        let mut placed = false;
        for at in 0..self.parts.fields.len() {
            let field = self.parts.fields[at];
            if field.removed || !self.is_named(&field, name) {
                continue;
            }
            if placed {
                self.parts.fields[at].removed = true;
            } else {
                self.parts.fields[at].value = value;
                self.parts.fields[at].line = false;
                placed = true;
            }
        }
        if !placed {
            let name = self.parts.copy(name.as_bytes());
            self.push_edit(name, value);
        }
    }

    /// Appends a field (name in lower case) after those there are.
    pub fn add(&mut self, name: &str, value: &[u8]) {
        let name = self.parts.copy(name.as_bytes());
        let value = self.parts.copy(value);
        self.push_edit(name, value);
    }

    /// Removes every field of a name (lower case); how many there were.
    pub fn remove(&mut self, name: &str) -> usize {
        self.remove_where(|field_name, _| is_name(field_name, name.as_bytes()))
    }

    /// Removes every field that the closure says to, by name and value; how many there were.
    pub fn remove_where(&mut self, mut gone: impl FnMut(&[u8], &[u8]) -> bool) -> usize {
        let mut count = 0;
        for at in 0..self.parts.fields.len() {
            let field = self.parts.fields[at];
            if !field.removed && gone(self.bytes(field.name), self.bytes(field.value)) {
                self.parts.fields[at].removed = true;
                count += 1;
            }
        }
        self.parts.verbatim &= count == 0;
        count
    }

    /// Gives every field of a name another name (both lower case) in its place; how many there were. Fields that
    /// already had the new name stay as well.
    pub fn rename(&mut self, from: &str, to: &str) -> usize {
        let mut new_name = None;
        let mut count = 0;
        for at in 0..self.parts.fields.len() {
            let field = self.parts.fields[at];
            if field.removed || !self.is_named(&field, from) {
                continue;
            }
            let name = *new_name.get_or_insert_with(|| self.parts.copy(to.as_bytes()));
            self.parts.fields[at].name = name;
            self.parts.fields[at].tag = 0;
            self.parts.fields[at].line = false;
            count += 1;
        }
        self.parts.verbatim &= count == 0;
        count
    }

    /// Bytes the request's head took in HTTP/1.1 form when it was read: request line, fields, empty line. Edits do
    /// not count.
    pub fn received_size(&self) -> usize {
        let line = &self.parts.line;
        let first = line.method.len() + line.target.len() + " ".len() * 2 + "HTTP/1.1\r\n".len();
        first + self.parts.received_field_bytes + "\r\n".len()
    }

    /// Lends a cleared scratch buffer, so that something can be rendered from this head before it is put into it.
    /// Hand it back with [`Head::return_scratch`], else the next caller allocates.
    pub fn take_scratch(&mut self) -> Vec<u8> {
        let mut scratch = self.parts.scratch.pop().unwrap_or_default();
        scratch.clear();
        scratch
    }

    /// Takes a scratch buffer back.
    pub fn return_scratch(&mut self, scratch: Vec<u8>) {
        self.parts.scratch.push(scratch);
    }

    fn push_edit(&mut self, name: Text, value: Text) {
        self.parts.verbatim = false;
        self.parts.fields.push(Field { name, value, tag: 0, removed: false, line: false });
    }

    #[inline]
    fn is_named(&self, field: &Field, name: &str) -> bool {
        field.name.len() == name.len() && is_name(self.bytes(field.name), name.as_bytes())
    }
}

/// Compares a field name as received with a name in lower case. Most names differ in length or in the first letter.
#[inline]
pub fn is_name(received: &[u8], lower: &[u8]) -> bool {
    received.len() == lower.len()
        && received.first().map(u8::to_ascii_lowercase) == lower.first().copied()
        && received.eq_ignore_ascii_case(lower)
}

#[cfg(test)]
mod tests;
