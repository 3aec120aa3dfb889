//! Ctx: what is known about one request besides its head, for policies and variables.
//!
//! It is a view that the proxy makes before the request pass and once more before the response pass, because the
//! request's buffer may be gone by then. What the response pass must remember lives in [`Notes`], storage that the
//! exchange owns and reuses; the chain fills it before the first policy runs, so that it is there after a reject too.
//! There is no clock here: the proxy says how much time has passed.

use std::net::IpAddr;
use std::time::Duration;

use crate::policy::{AuthResult, AuthScheme};

/// The scheme the client spoke to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// Clear text.
    #[default]
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// As it stands in a URI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port that goes without saying.
    pub const fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// A path parameter of the match: `{id}` or `{*rest}` of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// Its name in the template.
    pub name: &'a str,
    /// Its text in the normalised path, still percent-encoded (variables decode it once).
    pub value: &'a [u8],
}

/// One request's facts and notes.
#[derive(Debug)]
pub struct Ctx<'a> {
    /// The request id: kept from the client when sane, else made.
    pub request_id: &'a str,
    /// The client, after `trustedProxies`.
    pub client_ip: IpAddr,
    /// What the client spoke, after `trustedProxies`.
    pub scheme: Scheme,
    /// `namespace/name` of the listener.
    pub listener: &'a str,
    /// `namespace/name` of the route; empty while there is none.
    pub route: &'a str,
    /// Parameters of the match; may be empty in the response pass.
    pub params: &'a [Param<'a>],
    /// Length of the prefix in the normalised path, if the route matched by prefix (0 or 1 for `/`).
    pub matched_prefix: Option<usize>,
    /// Time since the request's first byte.
    pub elapsed: Duration,
    /// Seconds since 1970 by the proxy's clock; 0 where no policy in force asks, see
    /// [`Chain::asks_the_time`](crate::policy::chain::Chain::asks_the_time).
    pub now: u64,
    /// What the response pass will need.
    pub notes: &'a mut Notes,
}

impl<'a> Ctx<'a> {
    /// The value of a path parameter, still percent-encoded.
    pub fn param(&self, name: &str) -> Option<&'a [u8]> {
        self.params.iter().find(|param| param.name == name).map(|param| param.value)
    }
}

/// What the request pass keeps for the response pass. Storage: one per exchange, reused.
#[derive(Debug, Default)]
pub struct Notes {
    /// Values of the request that response-side variables read, in the order the chain captured them.
    captured: Vec<(u32, u32)>,
    bytes: Vec<u8>,
    cors: CorsNote,
    identity: Identity,
    /// First captured value of each level's response templates.
    first: [Option<Captured>; LEVELS],
}

/// Levels that policies come from: global, namespace, listener, route, consumer.
const LEVELS: usize = 5;

/// Who asks, as far as `auth` found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `namespace/name` of the consumer.
    pub(crate) consumer: Option<Captured>,
    /// The verified payload of a token.
    pub(crate) claims: Option<Captured>,
    /// What became of each way to say who one is, by [`AuthScheme`].
    pub(crate) results: [Option<AuthResult>; AuthScheme::ALL.len()],
    /// The request was refused for it.
    pub(crate) refused: bool,
}

/// What the request was in the eyes of `cors`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CorsNote {
    /// No `Origin`, or one that is not allowed.
    #[default]
    Other,
    /// An actual request of an allowed origin (the captured value that holds it).
    Actual(Captured),
    /// A preflight of an allowed origin.
    Preflight {
        /// The origin.
        origin: Captured,
        /// Value of `Access-Control-Request-Method`.
        method: Captured,
        /// Value of `Access-Control-Request-Headers`; empty if there was none.
        headers: Captured,
    },
    /// A preflight of an origin that is not allowed.
    DeniedPreflight,
}

/// Names a captured value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured(u32);

impl Captured {
    /// The one kept `places` after this.
    pub const fn nth(self, places: u32) -> Captured {
        Captured(self.0 + places)
    }
}

impl Notes {
    /// Nothing noted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything; keeps the memory.
    pub fn clear(&mut self) {
        self.captured.clear();
        self.bytes.clear();
        self.cors = CorsNote::Other;
        self.identity = Identity::default();
        self.first = [None; LEVELS];
    }

    /// Keeps a value.
    pub fn capture(&mut self, value: &[u8]) -> Captured {
        self.capture_with(|bytes| bytes.extend_from_slice(value))
    }

    /// Keeps what the closure appends.
    pub fn capture_with(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Captured {
        let start = self.bytes.len();
        fill(&mut self.bytes);
        self.captured.push((start as u32, self.bytes.len() as u32));
        Captured(self.captured.len() as u32 - 1)
    }

    /// A kept value.
    ///
    /// # Panics
    /// If it was kept by another exchange.
    pub fn get(&self, captured: Captured) -> &[u8] {
        let (start, end) = self.captured[captured.0 as usize];
        &self.bytes[start as usize..end as usize]
    }

    /// Where the captured values of a level's response templates begin.
    pub(crate) fn first(&self, level: usize) -> Option<Captured> {
        self.first[level]
    }

    /// Sets where they begin.
    pub(crate) fn set_first(&mut self, level: usize, captured: Option<Captured>) {
        self.first[level] = captured;
    }

    /// Who asks.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// The same, to be filled in.
    pub(crate) fn identity_mut(&mut self) -> &mut Identity {
        &mut self.identity
    }

    /// What became of each way to say who one is that was tried, for the metrics.
    pub fn auth_results(&self) -> impl Iterator<Item = (AuthScheme, AuthResult)> {
        AuthScheme::ALL.into_iter().zip(self.identity.results).filter_map(|(scheme, it)| Some((scheme, it?)))
    }

    /// What `cors` noted.
    pub(crate) fn cors(&self) -> CorsNote {
        self.cors
    }

    /// Notes what `cors` saw.
    pub(crate) fn set_cors(&mut self, note: CorsNote) {
        self.cors = note;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_values_are_kept_until_cleared() {
        let mut notes = Notes::new();
        let a = notes.capture(b"one");
        let b = notes.capture(b"");
        assert_eq!((notes.get(a), notes.get(b)), (&b"one"[..], &b""[..]));
        notes.set_cors(CorsNote::Actual(a));
        notes.clear();
        assert_eq!(notes.cors(), CorsNote::Other);
    }
}
