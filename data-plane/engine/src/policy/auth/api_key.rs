//! A key as a way to say who one is: taken from a header field, the query or a cookie. What does not have the form of a
//! key is refused without a hash, let alone a look into the table. Whatever comes of it, the key goes no further: an
//! upstream that knew it could ask as its owner.

use std::sync::Arc;

use gateway_proto::DEFAULT_NAMESPACE;
use gateway_proto::credential::{KeyDigest, is_key};
use gateway_proto::field::FieldPath;
use gateway_proto::wire;

use super::super::{Scope, editable_name};
use super::{AuthResult, Credential, Proven};
use crate::context::Ctx;
use crate::head::Head;
use crate::identity::Directory;
use crate::violations::Violations;

/// Where a key is looked for if nothing is said.
const HEADER: &str = "x-api-key";
/// Longest name of a query parameter or cookie.
const MAX_NAME: usize = 128;

/// Compiled `apiKey`.
#[derive(Debug)]
pub(super) struct ApiKey {
    places: Box<[Place]>,
    /// Keys are good for the namespace of their consumer, and this is where the policy is written.
    namespace: Arc<str>,
}

#[derive(Debug)]
enum Place {
    Header(Box<str>),
    Query(Box<str>),
    Cookie(Box<str>),
}

impl ApiKey {
    pub(super) fn compile(
        spec: &wire::ApiKeyAuth,
        at: &FieldPath<'_>,
        out: &mut Violations,
        scope: Scope<'_>,
    ) -> Option<Self> {
        let before = out.len();
        let mut places = Vec::new();
        if !spec.header.is_empty() {
            let name = editable_name(&spec.header, |name| {
                (name == "cookie").then_some("name the cookie itself with cookie")
            });
            places.extend(out.ok(&at.field("header"), name).map(|name| Place::Header(name.into())));
        }
        let named = |text: &str| match plain_name(text) {
            true => Ok(Box::from(text)),
            false => Err(format!(
                "invalid name {text:?}, expected 1 to {MAX_NAME} letters, digits, '-', '_' and '.'"
            )),
        };
        if !spec.query.is_empty() {
            places.extend(out.ok(&at.field("query"), named(&spec.query)).map(Place::Query));
        }
        if !spec.cookie.is_empty() {
            places.extend(out.ok(&at.field("cookie"), named(&spec.cookie)).map(Place::Cookie));
        }
        if out.len() > before {
            return None;
        }
        if places.is_empty() {
            places.push(Place::Header(HEADER.into()));
        }
        let namespace = scope.references.map_or(DEFAULT_NAMESPACE, |references| {
            references.ask_for_keys();
            references.namespace()
        });
        Some(ApiKey { places: places.into(), namespace: namespace.into() })
    }

    /// Who the request's key is for.
    pub(super) fn identify<'a>(
        &self,
        directory: Directory<'a>,
        ctx: &Ctx<'_>,
        head: &Head<'_>,
    ) -> Result<Proven<'a>, AuthResult> {
        let key = self.find(head)?;
        if !is_key(key) {
            return Err(AuthResult::Malformed);
        }
        let digest = KeyDigest::of(key);
        let keys = directory.keys().ok_or(AuthResult::Invalid)?;
        let found = keys.look(&digest, |found| match found {
            None => Err(if keys.is_complete() { AuthResult::Invalid } else { AuthResult::NoKeys }),
            Some(found) if found.expires != 0 && u64::from(found.expires) <= ctx.now => {
                Err(AuthResult::Expired)
            }
            Some(found) if !self.is_here(found.consumer) => Err(AuthResult::Invalid),
            Some(found) => directory.consumer(found.consumer).ok_or(AuthResult::NoConsumer),
        });
        found.map(|consumer| Proven { consumer: Some(consumer), credential: Credential::Key(digest.id()) })
    }

    fn is_here(&self, consumer: &str) -> bool {
        consumer.strip_prefix(&*self.namespace).is_some_and(|rest| rest.as_bytes().first() == Some(&b'/'))
    }

    /// The one key of a request. Two that differ say two things: neither is believed.
    fn find<'h>(&self, head: &'h Head<'_>) -> Result<&'h [u8], AuthResult> {
        let mut found: Option<&'h [u8]> = None;
        for place in &self.places {
            let mut take = |value: &'h [u8]| match found {
                Some(other) if other != value => Err(AuthResult::Malformed),
                _ => {
                    found = Some(value);
                    Ok(())
                }
            };
            match place {
                Place::Header(name) => {
                    let mut fields =
                        head.fields().filter(|it| crate::head::is_name(head.bytes(it.name), name.as_bytes()));
                    fields.try_for_each(|field| take(head.bytes(field.value)))?;
                }
                Place::Query(name) => {
                    let query = head.query().unwrap_or_default();
                    query
                        .split(|byte| *byte == b'&')
                        .filter_map(|pair| value(pair, name))
                        .try_for_each(take)?;
                }
                Place::Cookie(name) => {
                    let fields =
                        head.fields().filter(|it| crate::head::is_name(head.bytes(it.name), b"cookie"));
                    let pairs = fields.flat_map(|field| head.bytes(field.value).split(|byte| *byte == b';'));
                    pairs.filter_map(|pair| value(pair.trim_ascii(), name)).try_for_each(take)?;
                }
            }
        }
        found.filter(|key| !key.is_empty()).ok_or(AuthResult::Missing)
    }

    /// Takes the key out of the request.
    pub(super) fn remove(&self, head: &mut Head<'_>) {
        for place in &self.places {
            match place {
                Place::Header(name) => {
                    head.remove(name);
                }
                Place::Query(name) => without_parameter(head, name),
                Place::Cookie(name) => without_cookie(head, name),
            }
        }
    }
}

fn plain_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.len() <= MAX_NAME && text.bytes().all(plain)
}

/// The value of `name=value`.
fn value<'p>(pair: &'p [u8], name: &str) -> Option<&'p [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// Whether a pair is of that name, also one without a value or with an encoded name: an upstream would read it as one.
fn is_of(pair: &[u8], name: &str) -> bool {
    let said = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
    said == name.as_bytes() || (said.contains(&b'%') && decoded(said).eq(name.bytes()))
}

fn decoded(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *text.get(at)?;
        let digits = text.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        let triplet = digits.filter(|_| byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        at += if triplet.is_some() { 3 } else { 1 };
        Some(triplet.unwrap_or(byte))
    })
}

fn without_parameter(head: &mut Head<'_>, name: &str) {
    let Some(query) = head.query() else { return };
    if !query.split(|byte| *byte == b'&').any(|pair| is_of(pair, name)) {
        return;
    }
    let mut rest = head.take_scratch();
    let query = head.query().unwrap_or_default();
    join(query.split(|byte| *byte == b'&').filter(|pair| !is_of(pair, name)), b"&", &mut rest);
    head.set_query((!rest.is_empty()).then_some(&*rest));
    head.return_scratch(rest);
}

fn cookies(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

/// Cookies that are left stand in one field, as in HTTP/1.1 (RFC 6265 §5.4).
fn without_cookie(head: &mut Head<'_>, name: &str) {
    if !head.get_all("cookie").flat_map(cookies).any(|pair| is_of(pair, name)) {
        return;
    }
    let mut rest = head.take_scratch();
    join(head.get_all("cookie").flat_map(cookies).filter(|pair| !is_of(pair, name)), b"; ", &mut rest);
    head.remove("cookie");
    if !rest.is_empty() {
        head.add("cookie", &rest);
    }
    head.return_scratch(rest);
}

fn join<'p>(pairs: impl Iterator<Item = &'p [u8]>, with: &[u8], out: &mut Vec<u8>) {
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        if !out.is_empty() {
            out.extend_from_slice(with);
        }
        out.extend_from_slice(pair);
    }
}

#[cfg(test)]
mod tests;
