//! The `policies!` list: which policies there are, in the order they run, in one place. A policy is a message in
//! `policy.proto`, a file in `policy/` and a line here; a message without a line does not compile.
//!
//! [`PolicySet`] is what one level (global, listener, route) says, compiled and checked; [`chain`] joins the levels of
//! one request. A policy is an enum matched in a loop: no boxed futures, no tower layers, no allocation.

use std::sync::Arc;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::wire;

use crate::compile::reference::References;
use crate::context::Ctx;
use crate::head::Head;
use crate::reject::Reason;
use crate::template;
use crate::violations::Violations;

mod auth;
pub mod chain;
mod cors;
mod header_edits;
mod ip_filter;
pub(crate) mod joins;
mod request_headers;
mod request_limits;
mod response_headers;
mod rewrite;

pub(crate) use header_edits::{editable_name, field_value};

pub use auth::{AuthResult, AuthScheme};

use auth::Auth;
use cors::Cors;
use ip_filter::IpFilter;
use request_headers::RequestHeaders;
use request_limits::RequestLimits;
use response_headers::ResponseHeaders;
use rewrite::Rewrite;

/// What the policies of one object may assume.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Path parameters, see [`template::Scope`].
    pub params: Option<&'a [&'a str]>,
    /// A request can come here by a prefix match; false only on a route that has none.
    pub by_prefix: bool,
    /// What names of other objects lead to; `None`: to nothing.
    pub(crate) references: Option<&'a References<'a>>,
}

impl Scope<'_> {
    /// What stands by itself, shared by many routes.
    pub const SHARED: Scope<'static> = Scope { params: None, by_prefix: true, references: None };
}

impl<'a> Scope<'a> {
    /// Listeners, consumers and Policy objects: many routes inherit from them.
    pub(crate) const fn shared(references: &'a References<'a>) -> Self {
        Scope { references: Some(references), ..Scope::SHARED }
    }

    /// What templates may read.
    pub const fn variables(self) -> template::Scope<'a> {
        template::Scope { params: self.params }
    }
}

/// How a request goes on after a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the next policy, then to the route's action.
    Continue,
    /// Refused. The response pass still runs over the problem response.
    Reject(Reason),
    /// Answered here: an empty response of this status, whose fields the response pass fills in (CORS preflight).
    Respond(u16),
}

/// When a policy wants to be called. Bits of [`Hooks::PHASES`].
mod phase {
    pub(super) const NOTE: u8 = 1;
    pub(super) const REQUEST: u8 = 2;
    pub(super) const RESPONSE: u8 = 4;
}

/// A compiled policy. The default of every hook does nothing; [`Hooks::PHASES`] says which ones do something.
trait Hooks: Sized {
    /// Its message.
    type Spec: Default + PartialEq;
    /// The phases it takes part in.
    const PHASES: u8;
    /// Levels add up instead of the closest one replacing the others.
    const MERGES: bool = false;

    /// Checks a spec that is not `disabled`. `None` after a violation.
    fn compile(spec: &Self::Spec, at: &FieldPath<'_>, out: &mut Violations, scope: Scope<'_>)
    -> Option<Self>;

    /// `spec.disabled`.
    fn is_disabled(spec: &Self::Spec) -> bool;

    /// The spec that says `disabled` and nothing else.
    fn disabled() -> Self::Spec;

    /// Before any policy runs, also for requests that none will see: keep what the response pass needs.
    fn note(&self, _level: Level, _ctx: &mut Ctx<'_>, _head: &Head<'_>) {}

    /// On the way to the upstream.
    fn request(&self, _ctx: &mut Ctx<'_>, _head: &mut Head<'_>) -> Flow {
        Flow::Continue
    }

    /// On the way back.
    fn response(&self, _level: Level, _ctx: &mut Ctx<'_>, _head: &mut Head<'_>) {}
}

/// Where a policy was attached, from far to near.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `global: true` in namespace `default`.
    Global,
    /// `global: true` in the route's own namespace.
    Namespace,
    /// The listener.
    Listener,
    /// The route.
    Route,
    /// The consumer, from the moment `auth` found out who it is.
    Consumer,
}

impl Level {
    /// From far to near.
    pub const ALL: [Level; 5] =
        [Level::Global, Level::Namespace, Level::Listener, Level::Route, Level::Consumer];
}

/// A set of kinds: bit n is the n-th line of `policies!`.
type Mask = u32;

macro_rules! policies {
    ($( $variant:ident $name:literal )+) => {
        /// The policies, in the order they run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Kind { $( #[doc = concat!("`", $name, "`")] $variant ),+ }

        impl Kind {
            /// In the order they run.
            pub const ALL: &'static [Kind] = &[ $( Kind::$variant ),+ ];

            /// The policy's key in a manifest.
            pub const fn name(self) -> &'static str {
                match self { $( Kind::$variant => $name ),+ }
            }

            const fn phases(self) -> u8 {
                match self { $( Kind::$variant => <$variant as Hooks>::PHASES ),+ }
            }

            const fn merges(self) -> bool {
                match self { $( Kind::$variant => <$variant as Hooks>::MERGES ),+ }
            }
        }

        /// A compiled policy; shared by every level that names it.
        #[derive(Clone, Debug)]
        enum Policy { $( $variant(Arc<$variant>) ),+ }

        impl Policy {
            const fn kind(&self) -> Kind {
                match self { $( Policy::$variant(_) => Kind::$variant ),+ }
            }

            fn note(&self, level: Level, ctx: &mut Ctx<'_>, head: &Head<'_>) {
                match self { $( Policy::$variant(policy) => policy.note(level, ctx, head) ),+ }
            }

            fn request(&self, ctx: &mut Ctx<'_>, head: &mut Head<'_>) -> Flow {
                match self { $( Policy::$variant(policy) => policy.request(ctx, head) ),+ }
            }

            fn response(&self, level: Level, ctx: &mut Ctx<'_>, head: &mut Head<'_>) {
                match self { $( Policy::$variant(policy) => policy.response(level, ctx, head) ),+ }
            }
        }

        fn compile_entry(
            entry: &wire::policy_entry::Policy,
            at: &FieldPath<'_>,
            out: &mut Violations,
            scope: Scope<'_>,
        ) -> (Kind, Entry) {
            match entry {
                $( wire::policy_entry::Policy::$variant(spec) => {
                    let at = at.field($name);
                    let entry = match compile_spec::<$variant>(spec, &at, out, scope) {
                        Compiled::Active(policy) => Entry::Active(Policy::$variant(Arc::new(policy))),
                        Compiled::Disabled => Entry::Disabled,
                        Compiled::Bad => Entry::Bad,
                    };
                    (Kind::$variant, entry)
                } )+
            }
        }
    };
}

policies! {
    RequestLimits   "requestLimits"
    IpFilter        "ipFilter"
    Cors            "cors"
    Auth            "auth"
    Rewrite         "rewrite"
    RequestHeaders  "requestHeaders"
    ResponseHeaders "responseHeaders"
}

impl Kind {
    const fn bit(self) -> Mask {
        1 << self as u8
    }

    const fn in_phase(phase: u8) -> Mask {
        let mut mask = 0;
        let mut at = 0;
        while at < Kind::ALL.len() {
            if Kind::ALL[at].phases() & phase != 0 {
                mask |= Kind::ALL[at].bit();
            }
            at += 1;
        }
        mask
    }
}

enum Entry {
    Active(Policy),
    Disabled,
    Bad,
}

enum Compiled<P> {
    Active(P),
    Disabled,
    Bad,
}

fn compile_spec<P: Hooks>(
    spec: &P::Spec,
    at: &FieldPath<'_>,
    out: &mut Violations,
    scope: Scope<'_>,
) -> Compiled<P> {
    if !P::is_disabled(spec) {
        return P::compile(spec, at, out, scope).map_or(Compiled::Bad, Compiled::Active);
    }
    if *spec == P::disabled() {
        return Compiled::Disabled;
    }
    let message = "disabled removes an inherited policy and stands alone, drop it or the other fields";
    out.push(&at.field("disabled"), ViolationCode::Conflict, message);
    Compiled::Bad
}

/// The policies of one level, compiled: at most one of each kind, in the order they run.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    /// Kinds that this level says something about.
    named: Mask,
    /// Those of them that it removes.
    disabled: Mask,
    /// The others, by kind; the place of one is the number of active kinds before it.
    policies: Vec<Policy>,
    /// By kind, for what came from a Policy object: its `namespace/name`. Empty if nothing did.
    origins: Vec<(Kind, Arc<str>)>,
}

/// Two of one level's references say the same policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The policy.
    pub kind: Kind,
    /// Index of the reference that says it first.
    pub first: usize,
    /// Index of the one that says it again.
    pub second: usize,
}

impl PolicySet {
    /// Says nothing.
    pub const EMPTY: PolicySet =
        PolicySet { named: 0, disabled: 0, policies: Vec::new(), origins: Vec::new() };

    /// Checks the policies of one object; `at` is the list's place (`spec.policies`). The same policy twice is a
    /// violation. What is faulty is left out of the result.
    pub fn compile(
        entries: &[wire::PolicyEntry],
        at: &FieldPath<'_>,
        out: &mut Violations,
        scope: Scope<'_>,
    ) -> PolicySet {
        let mut set = PolicySet::EMPTY;
        for (index, entry) in entries.iter().enumerate() {
            let at = at.index(index);
            let Some(policy) = &entry.policy else {
                out.push(&at, ViolationCode::Required, format!("name one policy: {}", names()));
                continue;
            };
            let (kind, entry) = compile_entry(policy, &at, out, scope);
            if set.named & kind.bit() != 0 {
                let message = format!("{} is already in this list, join the two", kind.name());
                out.push(&at.field(kind.name()), ViolationCode::Duplicate, message);
                continue;
            }
            set.named |= kind.bit();
            match entry {
                Entry::Active(policy) => set.policies.push(policy),
                Entry::Disabled | Entry::Bad => set.disabled |= kind.bit(),
            }
        }
        set.policies.sort_by_key(Policy::kind);
        set
    }

    /// Joins what an object says itself with the Policy objects it refers to (or several global Policies with each
    /// other, with nothing inline): inline beats references. References by `namespace/name`, in the order they stand
    /// there; the first of two that clash is taken.
    pub fn merge(inline: &PolicySet, references: &[(Arc<str>, &PolicySet)]) -> (PolicySet, Vec<Clash>) {
        let mut set = inline.clone();
        let mut clashes = Vec::new();
        let mut said_by: Vec<(Kind, usize)> = Vec::new();
        for (index, (name, reference)) in references.iter().enumerate() {
            for &kind in Kind::ALL {
                if reference.named & kind.bit() == 0 {
                    continue;
                }
                if let Some(&(_, first)) = said_by.iter().find(|(said, _)| *said == kind) {
                    clashes.push(Clash { kind, first, second: index });
                    continue;
                }
                said_by.push((kind, index));
                if set.named & kind.bit() != 0 {
                    continue;
                }
                set.named |= kind.bit();
                set.origins.push((kind, Arc::clone(name)));
                match reference.get(kind) {
                    Some(policy) => set.policies.push(policy.clone()),
                    None => set.disabled |= kind.bit(),
                }
            }
        }
        set.policies.sort_by_key(Policy::kind);
        (set, clashes)
    }

    /// It says nothing.
    pub fn is_empty(&self) -> bool {
        self.named == 0
    }

    /// The kinds it says something about, in order.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        Kind::ALL.iter().copied().filter(|kind| self.named & kind.bit() != 0)
    }

    /// It removes the inherited policy of this kind.
    pub fn disables(&self, kind: Kind) -> bool {
        self.disabled & kind.bit() != 0
    }

    #[inline]
    fn get(&self, kind: Kind) -> Option<&Policy> {
        let active = self.named & !self.disabled;
        if active & kind.bit() == 0 {
            return None;
        }
        self.policies.get((active & (kind.bit() - 1)).count_ones() as usize)
    }

    fn origin(&self, kind: Kind) -> Option<&str> {
        self.origins.iter().find(|(of, _)| *of == kind).map(|(_, name)| &**name)
    }
}

/// Checks a header name that configuration gives: a token (RFC 9110 §5.1); in lower case from here on.
///
/// # Errors
/// A message naming the text.
pub(crate) fn header_name(name: &str) -> Result<String, String> {
    const MAX_NAME: usize = 256;
    if !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(is_token_byte) {
        Ok(name.to_ascii_lowercase())
    } else {
        Err(format!(
            "invalid header name {name:?}, expected 1 to {MAX_NAME} letters, digits or !#$%&'*+-.^_`|~"
        ))
    }
}

/// `tchar` (RFC 9110 §5.6.2).
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

fn names() -> String {
    Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
