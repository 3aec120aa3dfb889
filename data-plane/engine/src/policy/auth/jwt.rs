//! A JSON Web Token as a way to say who one is: taken from `Authorization: Bearer` (RFC 6750 §2.1), believed if one of
//! the named issuers signed it.

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::wire;

use super::super::Scope;
use super::{AuthResult, Credential, Proven};
use crate::context::Ctx;
use crate::head::Head;
use crate::identity::{Consumer, Directory, IssuerSlot, Token, TokenIssuer, Unsound, claims};
use crate::violations::Violations;

/// Most issuers of one policy.
const MAX_ISSUERS: usize = 16;

/// Compiled `jwt`.
#[derive(Debug)]
pub(super) struct Jwt {
    issuers: Box<[IssuerSlot]>,
}

impl Jwt {
    pub(super) fn compile(
        spec: &wire::JwtAuth,
        at: &FieldPath<'_>,
        out: &mut Violations,
        scope: Scope<'_>,
    ) -> Option<Self> {
        let at = at.field("issuers");
        if spec.issuers.is_empty() {
            out.push(&at, ViolationCode::Required, "name the token issuers that are believed");
            return None;
        }
        if spec.issuers.len() > MAX_ISSUERS {
            let message =
                format!("{} issuers are too many, at most {MAX_ISSUERS} are allowed", spec.issuers.len());
            out.push(&at, ViolationCode::OutOfRange, message);
            return None;
        }
        let mut issuers = Vec::with_capacity(spec.issuers.len());
        for (index, name) in spec.issuers.iter().enumerate() {
            let at = at.index(index);
            if spec.issuers[..index].contains(name) {
                out.push(&at, ViolationCode::Duplicate, format!("{name:?} is already in this list"));
                continue;
            }
            issuers.extend(scope.references.and_then(|references| references.issuer(name, &at, out)));
        }
        (issuers.len() == spec.issuers.len()).then(|| Jwt { issuers: issuers.into() })
    }

    /// Who the request's token is for.
    pub(super) fn identify<'a>(
        &self,
        directory: Directory<'a>,
        ctx: &mut Ctx<'_>,
        head: &mut Head<'_>,
    ) -> Result<Proven<'a>, AuthResult> {
        let (mut header, mut payload) = (head.take_scratch(), head.take_scratch());
        let found = self.check(directory, ctx.now, bearer(head), (&mut header, &mut payload));
        let found = found.and_then(|issuer| {
            let consumer = match &issuer.consumer_claim {
                None => None,
                Some(claim) => {
                    let consumer = consumer(directory, issuer, claim, &payload, &mut header);
                    Some(consumer.ok_or(AuthResult::NoConsumer)?)
                }
            };
            ctx.notes.identity_mut().claims = Some(ctx.notes.capture(&payload));
            Ok(Proven { consumer, credential: Credential::Named(&issuer.name) })
        });
        head.return_scratch(payload);
        head.return_scratch(header);
        found
    }

    fn check<'a>(
        &self,
        directory: Directory<'a>,
        now: u64,
        token: Option<&[u8]>,
        (header, payload): (&mut Vec<u8>, &mut Vec<u8>),
    ) -> Result<&'a TokenIssuer, AuthResult> {
        let token = Token::parse(token.ok_or(AuthResult::Missing)?, header, payload).map_err(result)?;
        let issuers = self.issuers.iter().filter_map(|slot| directory.issuer(*slot));
        let mut unsound = Unsound::Invalid;
        for issuer in issuers.filter(|issuer| token.is_of(issuer)) {
            match token.verify(issuer, now) {
                Ok(()) => return Ok(issuer),
                Err(why) => unsound = why,
            }
        }
        Err(result(unsound))
    }
}

const fn result(unsound: Unsound) -> AuthResult {
    match unsound {
        Unsound::Malformed => AuthResult::Malformed,
        Unsound::Invalid => AuthResult::Invalid,
        Unsound::Expired => AuthResult::Expired,
        Unsound::NoKeys => AuthResult::NoKeys,
    }
}

/// The consumer that a token names in a claim; `name` is lent.
fn consumer<'a>(
    directory: Directory<'a>,
    issuer: &TokenIssuer,
    claim: &str,
    payload: &[u8],
    name: &mut Vec<u8>,
) -> Option<&'a Consumer> {
    name.clear();
    name.extend_from_slice(issuer.namespace().as_bytes());
    name.push(b'/');
    claims::write(payload, claim, name);
    directory.consumer(std::str::from_utf8(name).ok()?)
}

/// The token of a request with exactly one `Authorization` field, of the scheme `Bearer`.
fn bearer<'h>(head: &'h Head<'_>) -> Option<&'h [u8]> {
    let mut values = head.get_all("authorization");
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}
