//! Routes: which request goes where. A [`Route`] is a checked `RouteSpec`; the table that finds it is
//! `route/table.rs`, the decision [`Engine::find`](crate::Engine::find), its reasons
//! [`Engine::explain`](crate::Engine::explain).
//!
//! Invariant: matching is a pure function of the request's method, host, path, query, fields and source, all in the
//! form of [`crate::path`]; nothing is parsed or allocated per request beyond what a condition itself asks for (a
//! repeated header field is joined, an encoded query value decoded).

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::action::Action;
use crate::context::Param;
use crate::head::Head;
use crate::listener::ListenerSlot;
use crate::policy::PolicySet;
use crate::policy::joins::JoinSlot;

pub(crate) mod check;
mod condition;
mod explain;
mod find;
mod host;
mod literal;
mod pattern;
mod slot;
pub(crate) mod table;
mod templates;
mod trie;

pub use check::{MAX_CONDITION_BYTES, MAX_CONDITIONS, MAX_HOSTS, MAX_LISTENERS, MAX_MATCHES, MAX_SOURCES};
pub use condition::Allow;
pub use explain::ExplainError;
pub(crate) use pattern::{HostPattern, PathPattern};
pub use pattern::{MAX_PATTERN_BYTES, MAX_SEGMENTS};
pub(crate) use slot::{Alike, Candidate, Entry, Slot};

/// A route's number: stable over compiles as long as the route exists, then reused. State indexed by it checks
/// identity by [`Route::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteSlot(pub u32);

/// A checked route. What requests read comes first, in two cache lines.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Route {
    /// Its number.
    pub slot: RouteSlot,
    /// The policies it refers to.
    pub(crate) referred: Option<JoinSlot>,
    /// What is done with its requests.
    pub action: Action,
    /// Its own policies. `None`: there are none.
    pub(crate) policies: Option<Arc<PolicySet>>,
    /// `namespace/name`.
    pub name: Arc<str>,
    /// From the end of the request body to the response head; `None`: no bound.
    pub request_timeout: Option<Duration>,
    /// No byte either way while a body or an upgraded stream flows; `None`: no bound.
    pub idle_timeout: Option<Duration>,
    pub(crate) reach: Reach,
    /// At least one, each once.
    pub(crate) hosts: Arc<[HostPattern]>,
    /// At least one.
    pub(crate) candidates: Arc<[Arc<Candidate>]>,
}

const _: () = assert!(size_of::<Action>() <= 56);

impl Route {
    /// Its own policies, without those it refers to.
    #[inline]
    pub fn policies(&self) -> &PolicySet {
        static NOTHING: PolicySet = PolicySet::EMPTY;
        self.policies.as_deref().unwrap_or(&NOTHING)
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        // Asked for on every request, and short: no search machinery.
        self.name.as_bytes().iter().position(|&byte| byte == b'/').map_or("", |end| &self.name[..end])
    }
}

/// Through which listeners a route is reached.
#[derive(Clone, Debug)]
pub(crate) enum Reach {
    /// It names none: those of its own namespace and of `default`.
    Implicit,
    /// Those it names, each once.
    Named(Box<[ListenerSlot]>),
}

/// Header fields as conditions read them.
pub trait Fields {
    /// The values of a field (name in lower case) joined with `, ` (RFC 9110 §5.3); `None` if there is none.
    fn joined<'f>(&'f self, name: &'f str) -> Option<Cow<'f, [u8]>>;
}

impl Fields for Head<'_> {
    fn joined<'f>(&'f self, name: &'f str) -> Option<Cow<'f, [u8]>> {
        Head::joined(self, name)
    }
}

/// Name and value pairs, for tests and for explain.
impl<N: AsRef<[u8]>, V: AsRef<[u8]>> Fields for [(N, V)] {
    fn joined<'f>(&'f self, name: &'f str) -> Option<Cow<'f, [u8]>> {
        let mut values = self
            .iter()
            .filter(|(field, _)| field.as_ref().eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value.as_ref());
        let first = values.next()?;
        let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
        let all: Vec<&[u8]> = [first, second].into_iter().chain(values).collect();
        Some(Cow::Owned(all.join(&b", "[..])))
    }
}

/// What is matched of a request. A CORS preflight is found by its `Access-Control-Request-Method`: the caller puts
/// that here.
#[derive(Debug)]
pub struct RequestView<'a, F: ?Sized> {
    /// Method, case-sensitive.
    pub method: &'a [u8],
    /// Host as [`crate::path::host`] gives it; empty if the request names none.
    pub host: &'a str,
    /// Path as [`crate::path::normalize`] gives it.
    pub path: &'a str,
    /// Query without `?`, as received; empty if there is none.
    pub query: &'a [u8],
    /// The client, after `trustedProxies`.
    pub source: IpAddr,
    /// Header fields.
    pub headers: &'a F,
}

impl<F: ?Sized> Clone for RequestView<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: ?Sized> Copy for RequestView<'_, F> {}

/// A routing decision.
#[derive(Clone, Debug)]
pub enum Lookup<'e> {
    /// This route.
    Found(Match<'e>),
    /// Routes match but for the method: 405 with these as `Allow`.
    MethodNotAllowed(Allow<'e>),
    /// 404.
    NotFound,
}

/// The route that wins, and how it matched.
#[derive(Clone, Copy, Debug)]
pub struct Match<'e> {
    /// The route.
    pub route: &'e Arc<Route>,
    entry: &'e Entry,
}

impl<'e> Match<'e> {
    /// Place in `spec.matches` of the entry that won; 0 when the route has none.
    pub fn index(&self) -> u32 {
        self.entry.candidate.index
    }

    /// The parameters that a template match cuts out of the path that was looked up, still percent-encoded.
    #[inline]
    pub fn params<'a>(&self, path: &'a str) -> impl Iterator<Item = Param<'a>>
    where
        'e: 'a,
    {
        let template = match self.entry.is_template.then_some(&self.entry.candidate.path) {
            Some(PathPattern::Template(template)) => Some(template),
            _ => None,
        };
        template.into_iter().flat_map(move |template| template.values(path))
    }

    /// Length of the prefix that the path matched by: 0 for `/` and for routes without a path condition, `None` if
    /// it matched otherwise.
    #[inline]
    pub fn matched_prefix(&self) -> Option<usize> {
        self.entry.prefix()
    }
}
