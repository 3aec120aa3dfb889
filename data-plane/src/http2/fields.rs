//! Heads and trailers between the engine's [`Head`] and h2's maps. Everything is copied once: h2's form of a head has
//! no text to point into, and takes values only as shared bytes, which here share one piece of memory.
//!
//! What belongs to a connection has no place in HTTP/2 (RFC 9113 §8.2.2) and never gets across in either direction.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use gateway_engine::head::{Head, HeadParts};
use gateway_http1::body::{BodyError, parse_trailers};
use gateway_http1::head::MAX_FIELDS;
use gateway_http1::{Framing, KnownField};
use http::header::{CONTENT_LENGTH, COOKIE, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

/// A head that HTTP/2 cannot carry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unfit;

/// Tag of fields whose name no codec has judged.
const UNKNOWN: u8 = KnownField::Other as u8;

/// The known names, in the order of [`KnownField::ALL`]: taking one of them costs nothing.
static NAMES: LazyLock<Vec<HeaderName>> =
    LazyLock::new(|| KnownField::ALL.iter().map(|known| HeaderName::from_static(known.name())).collect());

/// Appends the fields of a head that was received, but for those that belong to the connection or are `hidden`. Crumbs of
/// cookies are joined (RFC 9113 §8.2.3).
pub(crate) fn fill(map: &HeaderMap, parts: &mut HeadParts, hidden: impl Fn(KnownField) -> bool) {
    for (name, value) in map {
        let known = KnownField::classify(name.as_str().as_bytes());
        if known.is_hop_by_hop() || known == KnownField::Host || known == KnownField::Cookie || hidden(known)
        {
            continue;
        }
        let (name, value) = (parts.copy(name.as_str().as_bytes()), parts.copy(value.as_bytes()));
        parts.push(name, value, known as u8);
    }
    let mut crumbs = map.get_all(COOKIE).iter();
    if let Some(first) = crumbs.next() {
        parts.push_line(COOKIE.as_str(), KnownField::Cookie as u8, |line| {
            line.extend_from_slice(first.as_bytes());
            for crumb in crumbs {
                line.extend_from_slice(b"; ");
                line.extend_from_slice(crumb.as_bytes());
            }
        });
    }
}

/// The fields of a head that is sent, but for those of framing and of the connection.
///
/// # Errors
/// When a policy made something of it that no head may hold.
pub(crate) fn map(head: &Head<'_>) -> Result<HeaderMap, Unfit> {
    let (mut count, mut bytes) = (0, 0);
    for (_, value, _) in head.iter() {
        (count, bytes) = (count + 1, bytes + value.len());
    }
    // Room for a length besides.
    let mut map = HeaderMap::with_capacity(count + 1);
    let mut values = BytesMut::with_capacity(bytes);
    for (name, value, tag) in head.iter() {
        let tag = if tag == UNKNOWN { KnownField::classify(name) as u8 } else { tag };
        let name = match usize::from(tag).checked_sub(1) {
            Some(place) if is_said_otherwise(KnownField::ALL[place]) => continue,
            Some(place) => NAMES[place].clone(),
            None => HeaderName::from_bytes(name).map_err(|_| Unfit)?,
        };
        values.extend_from_slice(value);
        let value = HeaderValue::from_maybe_shared(values.split().freeze()).map_err(|_| Unfit)?;
        map.append(name, value);
    }
    Ok(map)
}

/// HTTP/2 has another way to say it, or none.
const fn is_said_otherwise(known: KnownField) -> bool {
    known.is_hop_by_hop() || known.is_framing() || matches!(known, KnownField::Host)
}

/// A request to a target in clear text.
///
/// # Errors
/// As for [`map`], and when host or path are not what a URI may hold.
pub(crate) fn request(
    head: &Head<'_>,
    host: &[u8],
    framing: Framing,
    trailers: bool,
) -> Result<Request<()>, Unfit> {
    let mut text =
        BytesMut::with_capacity(host.len() + head.path().len() + 1 + head.query().map_or(0, <[u8]>::len));
    text.extend_from_slice(host);
    let authority = Authority::from_maybe_shared(text.split().freeze()).map_err(|_| Unfit)?;
    text.extend_from_slice(head.path());
    if let Some(query) = head.query() {
        text.extend_from_slice(b"?");
        text.extend_from_slice(query);
    }
    let path = PathAndQuery::from_maybe_shared(text.freeze()).map_err(|_| Unfit)?;
    let mut uri = http::uri::Parts::default();
    (uri.scheme, uri.authority, uri.path_and_query) = (Some(Scheme::HTTP), Some(authority), Some(path));
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method()).map_err(|_| Unfit)?;
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Unfit)?;
    *request.version_mut() = Version::HTTP_2;
    let mut fields = map(head)?;
    if let Framing::Length(length) = framing {
        fields.insert(CONTENT_LENGTH, length.into());
    }
    if trailers {
        fields.insert(TE, HeaderValue::from_static("trailers"));
    }
    *request.headers_mut() = fields;
    Ok(request)
}

/// Appends trailers as the text of an HTTP/1.1 trailer section, without those that trailers may not hold.
///
/// # Errors
/// When there are more than such a section may have.
pub(crate) fn write_trailers(map: &HeaderMap, text: &mut Vec<u8>) -> Result<(), BodyError> {
    if map.len() > MAX_FIELDS {
        return Err(BodyError::TrailersTooLarge);
    }
    for (name, value) in map {
        if KnownField::classify(name.as_str().as_bytes()).is_forbidden_in_trailers() {
            continue;
        }
        for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(piece);
        }
    }
    if !text.is_empty() {
        text.extend_from_slice(b"\r\n");
    }
    Ok(())
}

/// Trailers that are sent, from such a text; `None` if there are none.
///
/// # Errors
/// When they are no fields.
pub(crate) fn read_trailers(text: &[u8]) -> std::io::Result<Option<HeaderMap>> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut fields = Vec::new();
    parse_trailers(text, &mut fields).map_err(std::io::Error::other)?;
    let pairs = fields.iter().filter_map(|field| {
        let name = HeaderName::from_bytes(field.name.of(text)).ok()?;
        let value = Bytes::copy_from_slice(field.value.of(text));
        Some((name, HeaderValue::from_maybe_shared(value).ok()?))
    });
    Ok(Some(pairs.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_name_is_found_by_its_tag() {
        for &known in KnownField::ALL {
            let mut parts = HeadParts::new();
            let (name, value) = (parts.copy(known.name().as_bytes()), parts.copy(b"1"));
            parts.push(name, value, known as u8);
            let map = map(&Head::new(b"", &mut parts)).expect("sound");
            let names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
            assert_eq!(names, if is_said_otherwise(known) { vec![] } else { vec![known.name()] });
        }
    }

    #[test]
    fn what_belongs_to_a_connection_does_not_get_across() {
        let mut parts = HeadParts::new();
        let mut head = Head::new(b"", &mut parts);
        head.set_method(b"GET");
        head.set_path(b"/p");
        for name in
            ["connection", "upgrade", "keep-alive", "transfer-encoding", "te", "content-length", "host", "x"]
        {
            head.add(name, b"1");
        }
        let request = request(&head, b"a.example:1", Framing::Length(3), true).expect("sound");
        assert_eq!(request.uri(), "http://a.example:1/p");
        let fields: Vec<_> =
            request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(fields, [("x", "1"), ("content-length", "3"), ("te", "trailers")]);
    }

    #[test]
    fn what_no_head_may_hold_is_refused() {
        let mut parts = HeadParts::new();
        let mut head = Head::new(b"", &mut parts);
        head.add("a", b"1\r\nb: 2");
        assert!(map(&head).is_err());
    }

    #[test]
    fn trailers_come_back_as_they_were_but_for_those_that_may_not_be_there() {
        let given = HeaderMap::from_iter([
            (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0")),
            (HeaderName::from_static("content-length"), HeaderValue::from_static("7")),
        ]);
        let mut text = Vec::new();
        write_trailers(&given, &mut text).expect("few");
        assert_eq!(text, b"grpc-status: 0\r\n\r\n");
        let back = read_trailers(&text).expect("sound").expect("there");
        assert_eq!((back.len(), &back["grpc-status"]), (1, &given["grpc-status"]));
        assert!(read_trailers(b"").expect("sound").is_none());
    }

    #[test]
    fn as_many_trailers_as_can_be_read_back_are_written_and_no_more() {
        let name = HeaderName::from_static("x");
        let mut given: HeaderMap =
            std::iter::repeat_n((name.clone(), HeaderValue::from_static("1")), MAX_FIELDS).collect();
        let mut text = Vec::new();
        write_trailers(&given, &mut text).expect("as many as may be");
        assert_eq!(read_trailers(&text).expect("sound").expect("there").len(), MAX_FIELDS);
        given.append(name, HeaderValue::from_static("1"));
        assert!(write_trailers(&given, &mut text).is_err());
    }
}
