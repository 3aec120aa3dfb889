//! Keys that are elsewhere: the place that the data plane fills and tokens are checked against. The engine fetches
//! nothing; it only says what is wanted. A set that cannot be used changes nothing: the last good one stays.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use http::Uri;

use super::jwk::{self, Algorithm, Key, MAX_JWKS_BYTES};

/// Longest address.
const MAX_URI: usize = 2048;

/// A key set at an address.
#[derive(Debug)]
pub struct RemoteKeys {
    uri: Box<str>,
    allowed: Vec<Algorithm>,
    keys: ArcSwapOption<Vec<Key>>,
    /// A token was signed with none of the keys that are here.
    wanted: AtomicBool,
}

impl RemoteKeys {
    pub(super) fn new(uri: &str, allowed: Vec<Algorithm>) -> Self {
        RemoteKeys { uri: uri.into(), allowed, keys: ArcSwapOption::empty(), wanted: AtomicBool::new(false) }
    }

    /// Where they are.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Takes the JSON text of a fetched set.
    ///
    /// # Errors
    /// Why it cannot be used, without a word of it; what was there stays.
    pub fn store(&self, text: &str) -> Result<(), String> {
        if text.len() > MAX_JWKS_BYTES {
            return Err(format!("it is longer than {MAX_JWKS_BYTES} bytes"));
        }
        let keys = jwk::keys(text, &self.allowed).map_err(|faults| faults.join("; "))?;
        self.keys.store(Some(keys.into()));
        Ok(())
    }

    /// Whether a token was signed with a key that was not here, since this was last asked.
    pub fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }

    /// Lends the keys; none before the first fetch. When they do not do, others are wanted.
    pub(super) fn with<E>(&self, check: impl FnOnce(Option<&[Key]>) -> Result<(), E>) -> Result<(), E> {
        let keys = self.keys.load();
        let checked = check(keys.as_ref().map(|keys| keys.as_slice()));
        // Looked at first: many workers may refuse at once, and writing is what costs.
        if checked.is_err() && !self.wanted.load(Ordering::Relaxed) {
            self.wanted.store(true, Ordering::Relaxed);
        }
        checked
    }
}

/// https, or http to this machine; no user and password, which would be shown to everybody who may read.
pub(super) fn check(text: &str) -> Result<(), &'static str> {
    const EXPECTED: &str = "this is no address of a key set, expected https://host/path of at most 2048 bytes, without \
                            a user";
    let uri: Uri = text.parse().map_err(|_| EXPECTED)?;
    let host = uri.host().unwrap_or_default();
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if host.is_empty() || has_user || text.len() > MAX_URI {
        return Err(EXPECTED);
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_here => Ok(()),
        Some("http") => Err("keys fetched over http can be replaced on the way, use https"),
        _ => Err(EXPECTED),
    }
}
