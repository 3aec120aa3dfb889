//! Heads between the codec and the policies: parsed fields become a [`Head`], a `Head` becomes bytes. What belongs to
//! one hop never gets into a `Head`; framing fields do (policies may look at them) but are never copied out again.

use gateway_engine::head::{Head, HeadParts, RequestLine, Text};
use gateway_http1::request::RequestHead;
use gateway_http1::response::ResponseHead;
use gateway_http1::target::Form;
use gateway_http1::write::{HeadWriter, WriteError};
use gateway_http1::{Field, Framing, KnownField, Span};

use super::identity;

const HOST: u8 = KnownField::Host as u8;
const CONTENT_LENGTH: u8 = KnownField::ContentLength as u8;
const TRANSFER_ENCODING: u8 = KnownField::TransferEncoding as u8;

/// Bytes that a field takes when it is written.
const SEPARATOR: &[u8] = b": ";

fn text(span: Span) -> Text {
    Text::wire(span.start() as u32, span.len() as u32)
}

/// Fills in a request that the codec read. Fields that name a client are left out unless it is trusted to say so; so
/// is a request id, which is the caller's to judge.
pub(crate) fn fill_request(parsed: &RequestHead, trusted: bool, parts: &mut HeadParts) {
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
    for field in &parsed.fields {
        let hidden = field.is_hop_by_hop() || (!trusted && identity::names_client(field.known));
        if !hidden && field.known != KnownField::XRequestId {
            parts.push(text(field.name), text(field.value), field.known as u8);
        }
    }
}

/// The request id that a client sent.
pub(crate) fn request_id<'b>(parsed: &RequestHead, wire: &'b [u8]) -> Option<&'b [u8]> {
    let field = parsed.fields.iter().find(|field| field.known == KnownField::XRequestId)?;
    Some(field.value.of(wire))
}

/// Fills in a response that the codec read, without its request id: the gateway returns its own.
pub(crate) fn fill_response(parsed: &ResponseHead, parts: &mut HeadParts) {
    parts.clear();
    parts.set_status(parsed.status);
    for field in &parsed.fields {
        if !field.is_hop_by_hop() && !field.known.is_framing() && field.known != KnownField::XRequestId {
            parts.push(text(field.name), text(field.value), field.known as u8);
        }
    }
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
pub(crate) fn write_request(
    head: &Head<'_>,
    wire: &[u8],
    hop: Hop<'_>,
    out: &mut Vec<u8>,
) -> Result<(), WriteError> {
    let mut writer = HeadWriter::request(out, head.method(), head.path(), head.query())?;
    writer.field(b"host", hop.host)?;
    write_fields(&mut writer, head, wire)?;
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
pub(crate) fn write_response(
    head: &Head<'_>,
    wire: &[u8],
    reply: Reply<'_>,
    out: &mut Vec<u8>,
) -> Result<(), WriteError> {
    let mut writer = HeadWriter::response(out, head.status())?;
    write_fields(&mut writer, head, wire)?;
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

/// Every field but those of framing and `Host`.
fn write_fields(writer: &mut HeadWriter<'_>, head: &Head<'_>, wire: &[u8]) -> Result<(), WriteError> {
    for field in head.fields() {
        if matches!(field.tag, HOST | CONTENT_LENGTH | TRANSFER_ENCODING) {
            continue;
        }
        if field.name.is_wire() && field.value.is_wire() {
            let (name, value) = (field.name.range(), field.value.range());
            debug_assert!(
                wire.get(name.end..).is_some_and(|rest| rest.starts_with(b":")) && SEPARATOR.len() == 2
            );
            writer.parsed(
                wire,
                &Field {
                    name: Span::new(name.start, name.end),
                    value: Span::new(value.start, value.end),
                    known: KnownField::Other,
                    nominated: false,
                },
            );
            continue;
        }
        let (name, value) = (head.bytes(field.name), head.bytes(field.value));
        // Names that are forbidden to policies cannot come this way; a renamed field may have become `host`.
        if !name.eq_ignore_ascii_case(b"host") {
            writer.field(name, value)?;
        }
    }
    Ok(())
}
