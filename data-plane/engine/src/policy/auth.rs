//! auth: who asks. Each way to say it is tried in the order written; the result goes into the notes (for variables and
//! metrics) and to the upstream, in fields that a client cannot forge: those it sends itself are removed, also where
//! nobody is asked who they are (see [`Chain::guards_identity`](super::chain::Chain::guards_identity)). A refusal says with `WWW-Authenticate` what would be believed (RFC 9110 §11.6.1).
//!
//! Invariant: without an identity that convinced the request goes no further; there is no way around [`Auth::identify`].

use gateway_proto::credential::KeyId;
use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::wire;
use gateway_proto::wire::auth_method;

use super::{Flow, Hooks, Level, Scope, phase};
use crate::context::Ctx;
use crate::head::Head;
use crate::identity::fields::{CONSUMER_GROUPS, CONSUMER_ID, CONSUMER_USERNAME, CREDENTIAL};
use crate::identity::{Consumer, Directory, speaks_of_identity};
use crate::reject::Reason;
use crate::violations::Violations;

mod api_key;
mod jwt;

use api_key::ApiKey;
use jwt::Jwt;

/// Most ways of one policy.
const MAX_METHODS: usize = 16;

/// A way to say who one is, as a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AuthScheme {
    /// A key of a consumer.
    ApiKey,
    /// A JSON Web Token.
    Jwt,
}

impl AuthScheme {
    /// Every scheme, in the order of their numbers.
    pub const ALL: [AuthScheme; 2] = [AuthScheme::ApiKey, AuthScheme::Jwt];

    /// As a label.
    pub const fn name(self) -> &'static str {
        match self {
            AuthScheme::ApiKey => "api_key",
            AuthScheme::Jwt => "jwt",
        }
    }

    /// What a refusal asks for.
    const fn challenge(self) -> &'static str {
        match self {
            AuthScheme::ApiKey => "ApiKey realm=\"gateway\"",
            AuthScheme::Jwt => "Bearer realm=\"gateway\"",
        }
    }
}

/// What became of one way, as a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AuthResult {
    /// It convinced.
    Ok,
    /// The request has nothing of the kind.
    Missing,
    /// It does not have the form.
    Malformed,
    /// It has the form and is not right.
    Invalid,
    /// It was right once.
    Expired,
    /// It may be right: the keys to tell by (the issuer's, or the consumers') are not here yet.
    NoKeys,
    /// It is right, but leads to no consumer where it has to, or to another one than what else convinced.
    NoConsumer,
}

impl AuthResult {
    /// Every result, in the order of their numbers.
    pub const ALL: [AuthResult; 7] = [
        AuthResult::Ok,
        AuthResult::Missing,
        AuthResult::Malformed,
        AuthResult::Invalid,
        AuthResult::Expired,
        AuthResult::NoKeys,
        AuthResult::NoConsumer,
    ];

    /// As a label.
    pub const fn name(self) -> &'static str {
        match self {
            AuthResult::Ok => "ok",
            AuthResult::Missing => "missing",
            AuthResult::Malformed => "malformed",
            AuthResult::Invalid => "invalid",
            AuthResult::Expired => "expired",
            AuthResult::NoKeys => "no_keys",
            AuthResult::NoConsumer => "no_consumer",
        }
    }
}

/// Compiled `auth`.
#[derive(Debug)]
pub(super) struct Auth {
    /// All of them must convince; else one is enough.
    all: bool,
    methods: Box<[Method]>,
}

#[derive(Debug)]
enum Method {
    ApiKey(ApiKey),
    Jwt(Jwt),
}

impl Method {
    const fn scheme(&self) -> AuthScheme {
        match self {
            Method::ApiKey(_) => AuthScheme::ApiKey,
            Method::Jwt(_) => AuthScheme::Jwt,
        }
    }
}

/// Somebody who convinced.
#[derive(Clone, Copy, Debug)]
struct Proven<'a> {
    consumer: Option<&'a Consumer>,
    credential: Credential<'a>,
}

/// What convinced, as the upstream is told.
#[derive(Clone, Copy, Debug)]
enum Credential<'a> {
    /// `namespace/name`.
    Named(&'a str),
    /// A key.
    Key(KeyId),
}

impl Credential<'_> {
    fn as_str(&self) -> &str {
        match self {
            Credential::Named(name) => name,
            Credential::Key(id) => id.as_str(),
        }
    }
}

impl Auth {
    /// Finds out who asks; the consumer, if it is one.
    pub(super) fn identify<'a>(
        &self,
        directory: Directory<'a>,
        ctx: &mut Ctx<'_>,
        head: &mut Head<'_>,
    ) -> Result<Option<&'a Consumer>, Reason> {
        let mut proven: Option<Proven<'a>> = None;
        let mut refused = None;
        for method in &self.methods {
            let found = match method {
                Method::ApiKey(key) => key.identify(directory, ctx, head),
                Method::Jwt(jwt) => jwt.identify(directory, ctx, head),
            };
            let found = found.and_then(|found| join(proven, found));
            let result = found.as_ref().err().copied().unwrap_or(AuthResult::Ok);
            note(ctx, method.scheme(), result);
            match found {
                Ok(found) => proven = Some(found),
                Err(result) => refused = Some(worse(refused, result)),
            }
            if found.is_ok() != self.all {
                break;
            }
        }
        match (proven, refused) {
            (Some(proven), refused) if !self.all || refused.is_none() => {
                self.remove_keys(head);
                introduce(proven, ctx, head);
                Ok(proven.consumer)
            }
            (_, Some(AuthResult::NoConsumer)) => Err(Reason::Forbidden),
            (_, Some(AuthResult::NoKeys)) => Err(Reason::NotReady),
            _ => {
                ctx.notes.identity_mut().refused = true;
                Err(Reason::Unauthorized)
            }
        }
    }
}

impl Auth {
    /// Keys go no further, also those that were not looked at because something else convinced before.
    fn remove_keys(&self, head: &mut Head<'_>) {
        for method in &self.methods {
            if let Method::ApiKey(key) = method {
                key.remove(head);
            }
        }
    }
}

/// What is known after one more way convinced. Two that lead to different consumers lead to none.
fn join<'a>(known: Option<Proven<'a>>, found: Proven<'a>) -> Result<Proven<'a>, AuthResult> {
    let Some(known) = known else { return Ok(found) };
    match (known.consumer, found.consumer) {
        (Some(one), Some(other)) if one.name != other.name => Err(AuthResult::NoConsumer),
        (None, Some(_)) => Ok(found),
        _ => Ok(known),
    }
}

/// Which of several refusals is told: one that another proof of the same will not mend, or that is our own fault.
fn worse(one: Option<AuthResult>, other: AuthResult) -> AuthResult {
    match one {
        Some(one @ (AuthResult::NoConsumer | AuthResult::NoKeys)) => one,
        _ => other,
    }
}

/// Of several tries of one scheme the best counts, then the first that was something.
fn note(ctx: &mut Ctx<'_>, scheme: AuthScheme, result: AuthResult) {
    let noted = &mut ctx.notes.identity_mut().results[scheme as usize];
    if matches!(noted, None | Some(AuthResult::Missing)) || result == AuthResult::Ok {
        *noted = Some(result);
    }
}

/// Tells the upstream.
fn introduce(proven: Proven<'_>, ctx: &mut Ctx<'_>, head: &mut Head<'_>) {
    if let Some(consumer) = proven.consumer {
        let name = ctx.notes.capture(consumer.name.as_bytes());
        ctx.notes.identity_mut().consumer = Some(name);
        head.add(CONSUMER_ID, consumer.name.as_bytes());
        head.add(CONSUMER_USERNAME, consumer.short_name().as_bytes());
        if !consumer.groups.is_empty() {
            head.add(CONSUMER_GROUPS, consumer.groups.as_bytes());
        }
    }
    head.add(CREDENTIAL, proven.credential.as_str().as_bytes());
}

/// Removes what only [`introduce`] may say.
pub(super) fn remove_claims_of_identity(head: &mut Head<'_>) {
    head.remove_where(|name, _| speaks_of_identity(name));
}

impl Hooks for Auth {
    type Spec = wire::Auth;
    const PHASES: u8 = phase::REQUEST | phase::RESPONSE;

    fn is_disabled(spec: &Self::Spec) -> bool {
        spec.disabled
    }

    fn disabled() -> Self::Spec {
        wire::Auth { disabled: true, ..Default::default() }
    }

    fn compile(
        spec: &Self::Spec,
        at: &FieldPath<'_>,
        out: &mut Violations,
        scope: Scope<'_>,
    ) -> Option<Self> {
        let (all, list, at_list) = match (spec.any.is_empty(), spec.all.is_empty()) {
            (true, true) => {
                out.push(at, ViolationCode::Required, "name ways to say who one is: any or all");
                return None;
            }
            (false, false) => {
                out.push(at, ViolationCode::Conflict, "any and all exclude each other, drop one");
                return None;
            }
            (false, true) => (false, &spec.any, at.field("any")),
            (true, false) => (true, &spec.all, at.field("all")),
        };
        if list.len() > MAX_METHODS {
            let message = format!("{} ways are too many, at most {MAX_METHODS} are allowed", list.len());
            out.push(&at_list, ViolationCode::OutOfRange, message);
            return None;
        }
        let methods: Vec<Option<Method>> = list
            .iter()
            .enumerate()
            .map(|(index, method)| compile_method(method, &at_list.index(index), out, scope))
            .collect();
        let methods = methods.into_iter().collect::<Option<Vec<_>>>()?;
        Some(Auth { all, methods: methods.into() })
    }

    /// The chain asks [`Auth::identify`]; whoever comes here did not.
    fn request(&self, _: &mut Ctx<'_>, _: &mut Head<'_>) -> Flow {
        Flow::Reject(Reason::Unauthorized)
    }

    fn response(&self, _: Level, ctx: &mut Ctx<'_>, head: &mut Head<'_>) {
        let identity = ctx.notes.identity();
        if !identity.refused {
            return;
        }
        for scheme in AuthScheme::ALL {
            let Some(method) = self.methods.iter().find(|method| method.scheme() == scheme) else { continue };
            let mut challenge = head.take_scratch();
            challenge.extend_from_slice(method.scheme().challenge().as_bytes());
            // RFC 6750 §3: no error code for a request without credentials.
            let wrong = !matches!(identity.results[scheme as usize], None | Some(AuthResult::Missing));
            if wrong && scheme == AuthScheme::Jwt {
                challenge.extend_from_slice(b", error=\"invalid_token\"");
            }
            head.add("www-authenticate", &challenge);
            head.return_scratch(challenge);
        }
    }
}

fn compile_method(
    method: &wire::AuthMethod,
    at: &FieldPath<'_>,
    out: &mut Violations,
    scope: Scope<'_>,
) -> Option<Method> {
    match &method.method {
        None => {
            out.push(at, ViolationCode::Required, "name one way: apiKey or jwt");
            None
        }
        Some(auth_method::Method::ApiKey(spec)) => {
            ApiKey::compile(spec, &at.field("apiKey"), out, scope).map(Method::ApiKey)
        }
        Some(auth_method::Method::Jwt(spec)) => {
            Jwt::compile(spec, &at.field("jwt"), out, scope).map(Method::Jwt)
        }
    }
}

#[cfg(test)]
mod tests;
