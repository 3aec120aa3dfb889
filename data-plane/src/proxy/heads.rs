//! Heads between the codec and the policies: parsed fields become a [`Head`], a `Head` becomes bytes. What belongs to
//! one hop never gets into a `Head`; framing fields do (policies may look at them) but are never copied out again.

use gateway_engine::head::{Head, HeadParts, RequestLine, Text};
use gateway_http1::request::RequestHead;
use gateway_http1::response::ResponseHead;
use gateway_http1::target::Form;
use gateway_http1::write::{HeadWriter, WriteError};
use gateway_http1::{Field, Framing, KnownField, Span};

use super::identity;

/// Tag of fields whose name no codec has judged.
const UNKNOWN: u8 = KnownField::Other as u8;
const HOST: u8 = KnownField::Host as u8;
const CONTENT_LENGTH: u8 = KnownField::ContentLength as u8;
const TRANSFER_ENCODING: u8 = KnownField::TransferEncoding as u8;

fn text(span: Span) -> Text {
    Text::wire(span.start() as u32, span.len() as u32)
}

/// Appends fields as the codec found them, and notes in which pieces they can be copied.
struct Filling<'p> {
    parts: &'p mut HeadParts,
    run: Text,
    /// Every field so far that is to be written is a whole line of its usual form.
    whole: bool,
}

impl<'p> Filling<'p> {
    fn of(parts: &'p mut HeadParts) -> Self {
        Filling { parts, run: Text::EMPTY, whole: true }
    }

    #[inline]
    fn push(&mut self, field: &Field) {
        let (name, value, tag) = (text(field.name), text(field.value), field.known as u8);
        if !field.usual {
            self.whole &= is_apart(tag);
            return self.parts.push(name, value, tag);
        }
        self.parts.push_usual(name, value, tag);
        if !is_apart(tag) {
            let start = field.name.start();
            let line = Text::wire(start as u32, (field.value.end() + "\r\n".len() - start) as u32);
            match self.run.joined(line) {
                Some(longer) => self.run = longer,
                None => self.begin(line),
            }
        }
    }

    fn begin(&mut self, line: Text) {
        if !self.run.is_empty() {
            self.parts.push_run(self.run);
        }
        self.run = line;
    }

    fn end(mut self) {
        self.begin(Text::EMPTY);
        if self.whole {
            self.parts.end_runs();
        }
    }
}

/// A field that is not copied but made for each hop.
const fn is_apart(tag: u8) -> bool {
    matches!(tag, HOST | CONTENT_LENGTH | TRANSFER_ENCODING)
}

/// Fills in a request that the codec read. Fields that name a client are left out unless it is trusted to say so; so
/// is a request id, which is the caller's to judge: the first there is.
pub(crate) fn fill_request(parsed: &RequestHead, trusted: bool, parts: &mut HeadParts) -> Option<Span> {
    parts.clear();
    let target = &parsed.target;
    let path = match target.form {
        Form::Absolute if target.path.is_empty() => parts.copy(b"/"),
        _ => text(target.path),
    };
    parts.set_request_line(RequestLine {
        method: text(parsed.method_span),
        target: text(target.span),
        path,
        query: target.query.map(text),
        authority: text(parsed.authority),
    });
    let mut filling = Filling::of(parts);
    let mut request_id = None;
    for field in &parsed.fields {
        if field.known == KnownField::XRequestId {
            request_id = request_id.or(Some(field.value));
            continue;
        }
        if !field.is_hop_by_hop() && (trusted || !identity::names_client(field.known)) {
            filling.push(field);
        }
    }
    filling.end();
    request_id
}

/// Fills in a response that the codec read, without its request id: the gateway returns its own.
pub(crate) fn fill_response(parsed: &ResponseHead, parts: &mut HeadParts) {
    parts.clear();
    parts.set_status(parsed.status);
    let mut filling = Filling::of(parts);
    for field in &parsed.fields {
        if !field.is_hop_by_hop() && !field.known.is_framing() && field.known != KnownField::XRequestId {
            filling.push(field);
        }
    }
    filling.end();
}

/// Adds a field of the gateway's own; the value that `fill` appends is one that any head may hold.
#[inline]
pub(crate) fn add(parts: &mut HeadParts, known: KnownField, fill: impl FnOnce(&mut Vec<u8>)) {
    parts.push_line(known.name(), known as u8, fill);
}

/// What a request to a target says about this hop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop<'a> {
    /// Value of `Host`.
    pub(crate) host: &'a [u8],
    /// How the body is framed.
    pub(crate) framing: Framing,
    /// `TE: trailers`.
    pub(crate) trailers: bool,
    /// The protocol to upgrade to.
    pub(crate) upgrade: Option<&'a [u8]>,
}

/// Appends the head of a request to a target.
///
/// # Errors
/// When a policy made something of it that no head may hold.
pub(crate) fn write_request(head: &Head<'_>, hop: Hop<'_>, out: &mut Vec<u8>) -> Result<(), WriteError> {
    let mut writer = HeadWriter::request(out, head.method(), head.path(), head.query())?;
    writer.known_field(b"host", hop.host)?;
    write_fields(&mut writer, head)?;
    writer.framing(hop.framing);
    match (hop.upgrade, hop.trailers) {
        (Some(protocol), _) => {
            writer.field(b"connection", b"upgrade")?;
            writer.field(b"upgrade", protocol)?;
        }
        (None, true) => {
            writer.field(b"te", b"trailers")?;
            writer.field(b"connection", b"te")?;
        }
        (None, false) => {}
    }
    writer.finish();
    Ok(())
}

/// What a response to an HTTP/1 client says about this hop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply<'a> {
    /// How the body is framed, or would be.
    pub(crate) announce: Framing,
    /// Value of `Connection`, if it needs one.
    pub(crate) connection: Option<&'a [u8]>,
    /// The protocol that is upgraded to.
    pub(crate) upgrade: Option<&'a [u8]>,
}

/// Appends the head of a response.
///
/// # Errors
/// When a policy made something of it that no head may hold.
pub(crate) fn write_response(head: &Head<'_>, reply: Reply<'_>, out: &mut Vec<u8>) -> Result<(), WriteError> {
    let mut writer = HeadWriter::response(out, head.status())?;
    write_fields(&mut writer, head)?;
    writer.framing(reply.announce);
    if let Some(connection) = reply.connection {
        writer.field(b"connection", connection)?;
    }
    if let Some(protocol) = reply.upgrade {
        writer.field(b"upgrade", protocol)?;
    }
    writer.finish();
    Ok(())
}

/// Every field but those of framing and `Host`. Neighbours that are as they were read, or made here, go in one copy.
fn write_fields(writer: &mut HeadWriter<'_>, head: &Head<'_>) -> Result<(), WriteError> {
    if let Some(runs) = head.verbatim() {
        runs.for_each(|lines| writer.lines(lines));
        return Ok(());
    }
    write_edited(writer, head)
}

/// The same field by field.
fn write_edited(writer: &mut HeadWriter<'_>, head: &Head<'_>) -> Result<(), WriteError> {
    let mut run = Text::EMPTY;
    for field in head.fields() {
        if is_apart(field.tag) {
            continue;
        }
        let line = head.line(field);
        if let Some(longer) = line.and_then(|line| run.joined(line)) {
            run = longer;
            continue;
        }
        writer.lines(head.bytes(run));
        run = line.unwrap_or_default();
        if line.is_some() {
            continue;
        }
        let (name, value) = (head.bytes(field.name), head.bytes(field.value));
        if field.tag != UNKNOWN {
            writer.known_field(name, value)?;
        } else if !name.eq_ignore_ascii_case(b"host") {
            // A renamed field may have become `host`.
            writer.field(name, value)?;
        }
    }
    writer.lines(head.bytes(run));
    Ok(())
}

#[cfg(test)]
mod tests {
    use gateway_http1::{Limits, request};

    use super::*;

    fn written(wire: &[u8], edit: impl FnOnce(&mut Head<'_>)) -> String {
        let mut parsed = RequestHead::new();
        request::parse(wire, &Limits::default(), &mut parsed).expect("a request");
        let mut parts = HeadParts::new();
        let _none = fill_request(&parsed, false, &mut parts);
        let mut head = Head::new(wire, &mut parts);
        edit(&mut head);
        let mut out = Vec::new();
        let hop = Hop { host: b"h", framing: Framing::None, trailers: false, upgrade: None };
        write_request(&head, hop, &mut out).expect("sound");
        String::from_utf8(out).expect("ASCII")
    }

    const WIRE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB:2\r\nC: 3 \r\nD: \r\nConnection: x\r\nE: 5\r\nX: 6\r\nF: 7\r\n\r\n";

    #[test]
    fn fields_in_any_spelling_come_out_in_the_usual_one() {
        let expected = "GET / HTTP/1.1\r\nhost: h\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: \r\nE: 5\r\nF: 7\r\n\r\n";
        assert_eq!(written(WIRE, |_| {}), expected);
    }

    #[test]
    fn edits_come_out_in_their_place() {
        let edit = |head: &mut Head<'_>| {
            head.set("e", b"new");
            head.remove("a");
            head.rename("b", "host");
            head.add("z", b"9");
        };
        let expected = "GET / HTTP/1.1\r\nhost: h\r\nC: 3\r\nD: \r\nE: new\r\nF: 7\r\nz: 9\r\n\r\n";
        assert_eq!(written(WIRE, edit), expected);
    }

    #[test]
    fn what_was_not_edited_is_copied_as_field_by_field() {
        let requests: [&[u8]; 5] = [
            WIRE,
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: 1\r\nHost: a\r\nB: 2\r\nX-Forwarded-For: x\r\nC: 3\r\nD: 4\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nA: 1\r\nContent-Length: 0\r\nB: 2\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost:a\r\nA: 1\r\nB: 2\r\n\r\n",
        ];
        for wire in requests {
            let own = |parts: &mut HeadParts| {
                for (name, value) in [("x-one", "1"), ("x-two", "2")] {
                    parts.push_line(name, UNKNOWN, |out| out.extend_from_slice(value.as_bytes()));
                }
            };
            let mut parsed = RequestHead::new();
            request::parse(wire, &Limits::default(), &mut parsed).expect("a request");
            let mut parts = HeadParts::new();
            assert_eq!(fill_request(&parsed, false, &mut parts), None);
            own(&mut parts);
            let head = Head::new(wire, &mut parts);
            let whole = parsed.fields.iter().all(|field| field.usual || field.known == KnownField::Host);
            assert_eq!(head.verbatim().is_some(), whole, "{:?}", String::from_utf8_lossy(wire));
            let (mut copied, mut made) = (Vec::new(), Vec::new());
            let mut writer = HeadWriter::response(&mut copied, 200).expect("a status");
            write_fields(&mut writer, &head).expect("sound");
            writer.finish();
            let mut writer = HeadWriter::response(&mut made, 200).expect("a status");
            write_edited(&mut writer, &head).expect("sound");
            writer.finish();
            assert_eq!(String::from_utf8_lossy(&copied), String::from_utf8_lossy(&made));
        }
    }

    #[test]
    fn a_line_apart_from_the_others_is_not_lost() {
        let mut parts = HeadParts::new();
        fill_response(&ResponseHead::new(), &mut parts);
        parts.push_line("a", UNKNOWN, |out| out.push(b'1'));
        let _between = parts.copy(b"/path");
        parts.push_line("b", UNKNOWN, |out| out.push(b'2'));
        parts.push_line("c", UNKNOWN, |out| out.push(b'3'));
        let mut out = Vec::new();
        let mut writer = HeadWriter::response(&mut out, 200).expect("a status");
        write_fields(&mut writer, &Head::new(b"", &mut parts)).expect("sound");
        assert_eq!(String::from_utf8_lossy(&out), "HTTP/1.1 200 OK\r\na: 1\r\nb: 2\r\nc: 3\r\n");
    }

    #[test]
    fn what_no_head_may_hold_is_refused() {
        let mut parts = HeadParts::new();
        let mut head = Head::new(b"", &mut parts);
        head.set_method(b"GET");
        head.set_path(b"/");
        head.add("a", b"1\r\nb: 2");
        let hop = Hop { host: b"h", framing: Framing::None, trailers: false, upgrade: None };
        assert!(write_request(&head, hop, &mut Vec::new()).is_err());
    }
}
