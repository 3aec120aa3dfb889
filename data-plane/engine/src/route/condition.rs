//! Conditions of a candidate besides host and path: methods, header fields, query parameters, client addresses.
//! Two conditions are equal when they are written alike; that is what duplicates and shadowing are judged by.

use std::borrow::Cow;
use std::fmt;

use regex::Regex;

use super::{Fields, RequestView};

/// The methods of RFC 9110 §9 and RFC 5789, by bit. The order is that of `Allow`.
const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
const GET: u16 = 1;
const HEAD: u16 = 1 << 1;

/// A request's method, looked up once.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Method<'a> {
    Known(u16),
    Other(&'a [u8]),
}

impl<'a> Method<'a> {
    /// Methods are case-sensitive (RFC 9110 §9.1).
    #[inline]
    pub(crate) fn of(method: &'a [u8]) -> Self {
        match KNOWN.iter().position(|known| known.as_bytes() == method) {
            Some(bit) => Method::Known(1 << bit),
            None => Method::Other(method),
        }
    }
}

/// A set of methods; the empty set stands for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Methods {
    known: u16,
    /// Sorted, each once.
    other: Vec<Box<str>>,
}

impl Methods {
    /// From tokens that were checked; GET brings HEAD.
    pub(crate) fn new<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known = 0;
        let mut other: Vec<Box<str>> = Vec::new();
        for token in tokens {
            match Method::of(token.as_bytes()) {
                Method::Known(bit) => known |= bit,
                Method::Other(_) => other.push(token.into()),
            }
        }
        if known & GET != 0 {
            known |= HEAD;
        }
        other.sort_unstable();
        other.dedup();
        Methods { known, other }
    }

    /// No condition.
    pub(crate) fn is_all(&self) -> bool {
        self.known == 0 && self.other.is_empty()
    }

    #[inline]
    pub(crate) fn contains(&self, method: Method<'_>) -> bool {
        match method {
            _ if self.is_all() => true,
            Method::Known(bit) => self.known & bit != 0,
            Method::Other(name) => self.other.iter().any(|other| other.as_bytes() == name),
        }
    }
}

/// Methods that would have matched: the value of `Allow` (RFC 9110 §10.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow<'e> {
    known: u16,
    /// Sorted, each once. Allocates only when routes name more than four methods of their own making.
    other: smallvec::SmallVec<[&'e str; 4]>,
}

impl<'e> Allow<'e> {
    pub(crate) fn add(&mut self, methods: &'e Methods) {
        self.known |= methods.known;
        for name in &methods.other {
            if let Err(at) = self.other.binary_search(&&**name) {
                self.other.insert(at, name);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known == 0 && self.other.is_empty()
    }

    /// The methods: the known ones first, the others in byte order.
    pub fn iter(&self) -> impl Iterator<Item = &'e str> {
        let known =
            KNOWN.iter().enumerate().filter(|(bit, _)| self.known & 1 << bit != 0).map(|(_, name)| *name);
        known.chain(self.other.iter().copied())
    }
}

/// `GET, HEAD, POST`
impl fmt::Display for Allow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, method) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            f.write_str(method)?;
        }
        Ok(())
    }
}

/// A regular expression for a whole value; equal when written alike.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub(crate) text: Box<str>,
    pub(crate) regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl std::hash::Hash for Pattern {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Test {
    Exact(Box<str>),
    Prefix(Box<str>),
    Regex(Pattern),
    Present(bool),
}

impl Test {
    fn holds(&self, value: Option<&[u8]>) -> bool {
        match (self, value) {
            (Test::Present(wanted), value) => value.is_some() == *wanted,
            (_, None) => false,
            (Test::Exact(text), Some(value)) => value == text.as_bytes(),
            (Test::Prefix(text), Some(value)) => value.starts_with(text.as_bytes()),
            // What is not UTF-8 matches no pattern.
            (Test::Regex(pattern), Some(value)) => {
                std::str::from_utf8(value).is_ok_and(|value| pattern.regex.is_match(value))
            }
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Test::Exact(text) => write!(f, "is {text:?}"),
            Test::Prefix(text) => write!(f, "begins with {text:?}"),
            Test::Regex(pattern) => write!(f, "matches {:?}", pattern.text),
            Test::Present(true) => f.write_str("is present"),
            Test::Present(false) => f.write_str("is absent"),
        }
    }
}

/// A condition on a header field (name in lower case) or a query parameter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ValueCondition {
    pub(crate) name: Box<str>,
    pub(crate) test: Test,
}

/// Everything a candidate asks for besides host and path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Conditions {
    pub(crate) methods: Methods,
    pub(crate) headers: Vec<ValueCondition>,
    pub(crate) query: Vec<ValueCondition>,
    /// Sorted; empty: any client.
    pub(crate) sources: Vec<ipnet::IpNet>,
}

/// The first condition that does not hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Miss<'a> {
    Method,
    Header(&'a ValueCondition),
    Query(&'a ValueCondition),
    Source,
}

impl Conditions {
    /// None.
    pub(crate) const NONE: Conditions = Conditions {
        methods: Methods { known: 0, other: Vec::new() },
        headers: Vec::new(),
        query: Vec::new(),
        sources: Vec::new(),
    };

    /// How many there are in the sense of the winner rule: methods 1, each header, each query parameter, sources 1.
    pub(crate) fn count(&self) -> u32 {
        let lists = u32::from(!self.methods.is_all()) + u32::from(!self.sources.is_empty());
        lists + self.headers.len() as u32 + self.query.len() as u32
    }

    /// All of them hold.
    #[inline]
    pub(crate) fn hold<F: Fields + ?Sized>(&self, request: &RequestView<'_, F>, method: Method<'_>) -> bool {
        self.methods.contains(method) && self.hold_but_method(request)
    }

    /// All of them but the methods hold.
    #[inline]
    pub(crate) fn hold_but_method<F: Fields + ?Sized>(&self, request: &RequestView<'_, F>) -> bool {
        let plain = self.headers.is_empty() && self.query.is_empty() && self.sources.is_empty();
        plain || self.miss_but_method(request).is_none()
    }

    /// The first that does not hold; the method comes last, because a 405 needs that all others hold.
    pub(crate) fn miss<'c, F: Fields + ?Sized>(
        &'c self,
        request: &RequestView<'_, F>,
        method: Method<'_>,
    ) -> Option<Miss<'c>> {
        self.miss_but_method(request).or_else(|| (!self.methods.contains(method)).then_some(Miss::Method))
    }

    fn miss_but_method<'c, F: Fields + ?Sized>(&'c self, request: &RequestView<'_, F>) -> Option<Miss<'c>> {
        for condition in &self.headers {
            if !condition.test.holds(request.headers.joined(&condition.name).as_deref()) {
                return Some(Miss::Header(condition));
            }
        }
        for condition in &self.query {
            if !condition.test.holds(query_value(request.query, condition.name.as_bytes()).as_deref()) {
                return Some(Miss::Query(condition));
            }
        }
        let source = request.source.to_canonical();
        let admitted = self.sources.is_empty() || self.sources.iter().any(|net| net.contains(&source));
        (!admitted).then_some(Miss::Source)
    }
}

/// The first value of a parameter, decoded as forms are (`+` is a space, triplets once; a bad triplet stays as it
/// is). Borrows when there is nothing to decode.
fn query_value<'q>(query: &'q [u8], name: &[u8]) -> Option<Cow<'q, [u8]>> {
    if query.is_empty() {
        return None;
    }
    query.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()).find_map(|pair| {
        let equals = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (key, value) = pair.split_at(equals);
        (*form_decoded(key) == *name).then(|| form_decoded(value.get(1..).unwrap_or_default()))
    })
}

fn form_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Cow::Borrowed(text);
    }
    let hex = |at: usize| text.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high << 4 | low) as u8);
                at += 2;
            }
            (b'+', ..) => decoded.push(b' '),
            _ => decoded.push(byte),
        }
        at += 1;
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn view<'a>(query: &'a str, source: IpAddr) -> RequestView<'a, [(&'static str, &'static str)]> {
        RequestView {
            method: b"GET",
            host: "",
            path: "/",
            query: query.as_bytes(),
            source,
            headers: &[("x-a", "1"), ("X-A", "2"), ("x-b", "")],
        }
    }

    fn test(name: &str, test: Test) -> Vec<ValueCondition> {
        Vec::from([ValueCondition { name: name.into(), test }])
    }

    #[test]
    fn methods_are_case_sensitive_and_get_brings_head() {
        let methods = Methods::new(["GET", "PURGE", "BAN", "PURGE"]);
        for (method, contained) in
            [("GET", true), ("HEAD", true), ("POST", false), ("PURGE", true), ("get", false)]
        {
            assert_eq!(methods.contains(Method::of(method.as_bytes())), contained, "{method}");
        }
        assert!(!Methods::new(["HEAD"]).contains(Method::of(b"GET")));
        assert!(Methods::default().contains(Method::of(b"ANY")));
        let more = Methods::new(["POST", "AAA"]);
        let mut allow = Allow::default();
        allow.add(&methods);
        allow.add(&more);
        assert_eq!(allow.to_string(), "GET, HEAD, POST, AAA, BAN, PURGE");
    }

    #[test]
    fn the_first_query_value_counts_and_is_decoded_once() {
        for (query, name, value) in [
            ("a=1&a=2", "a", Some("1")),
            ("b=1", "a", None),
            ("a", "a", Some("")),
            ("a=", "a", Some("")),
            ("&&a=x=y", "a", Some("x=y")),
            ("a=%31%2531", "a", Some("1%31")),
            ("a=x+y", "a", Some("x y")),
            ("%61=1", "a", Some("1")),
            ("a=%zz%4", "a", Some("%zz%4")),
            ("", "a", None),
        ] {
            let got = query_value(query.as_bytes(), name.as_bytes());
            assert_eq!(got.as_deref(), value.map(str::as_bytes), "{query}");
        }
    }

    #[test]
    fn each_kind_of_condition_is_judged() {
        let regex = |text: &str| {
            Test::Regex(Pattern { text: text.into(), regex: crate::value::whole_regex(text).expect("valid") })
        };
        let local: IpAddr = "::ffff:10.1.2.3".parse().expect("address");
        for (headers, holds) in [
            (test("x-a", Test::Exact("1, 2".into())), true),
            (test("x-a", Test::Exact("1".into())), false),
            (test("x-a", Test::Prefix("1,".into())), true),
            (test("x-a", regex("[0-9, ]+")), true),
            (test("x-a", regex("1")), false),
            (test("x-b", Test::Present(true)), true),
            (test("x-c", Test::Present(true)), false),
            (test("x-c", Test::Present(false)), true),
            (test("x-c", Test::Prefix("".into())), false),
        ] {
            let conditions = Conditions { headers, ..Default::default() };
            assert_eq!(conditions.hold(&view("", local), Method::of(b"GET")), holds, "{conditions:?}");
        }
        let sources =
            |block: &str| Conditions { sources: vec![block.parse().expect("block")], ..Default::default() };
        assert!(sources("10.0.0.0/8").hold(&view("", local), Method::of(b"GET")));
        assert!(!sources("11.0.0.0/8").hold(&view("", local), Method::of(b"GET")));
    }
}
