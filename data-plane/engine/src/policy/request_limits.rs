//! requestLimits: bounds on the size of a request. The declared body length, the head and the target are checked
//! here; a body without a declared length is counted by the proxy against [`Chain::max_body_bytes`].
//!
//! [`Chain::max_body_bytes`]: super::chain::Chain::max_body_bytes

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::wire;

use super::{Flow, Hooks, Scope, phase};
use crate::context::Ctx;
use crate::head::Head;
use crate::reject::Reason;
use crate::violations::Violations;

/// Compiled `requestLimits`; `None` and 0 are no bound of this policy's.
#[derive(Debug)]
pub(super) struct RequestLimits {
    max_body_bytes: Option<u32>,
    max_header_bytes: usize,
    max_uri_bytes: usize,
}

impl RequestLimits {
    /// What the policy says about bodies: `None` nothing, 0 no bound.
    pub(super) fn max_body_bytes(&self) -> Option<u64> {
        self.max_body_bytes.map(u64::from)
    }
}

impl Hooks for RequestLimits {
    type Spec = wire::RequestLimits;
    const PHASES: u8 = phase::REQUEST;

    fn is_disabled(spec: &Self::Spec) -> bool {
        spec.disabled
    }

    fn disabled() -> Self::Spec {
        wire::RequestLimits { disabled: true, ..Default::default() }
    }

    fn compile(spec: &Self::Spec, at: &FieldPath<'_>, out: &mut Violations, _: Scope<'_>) -> Option<Self> {
        if *spec == wire::RequestLimits::default() {
            out.push(at, ViolationCode::Required, "set maxBodyBytes, maxHeaderBytes or maxUriBytes");
            return None;
        }
        Some(RequestLimits {
            max_body_bytes: spec.max_body_bytes,
            max_header_bytes: spec.max_header_bytes.unwrap_or(0) as usize,
            max_uri_bytes: spec.max_uri_bytes.unwrap_or(0) as usize,
        })
    }

    fn request(&self, _: &mut Ctx<'_>, head: &mut Head<'_>) -> Flow {
        if self.max_uri_bytes != 0 && head.target().len() > self.max_uri_bytes {
            return Flow::Reject(Reason::UriTooLong);
        }
        if self.max_header_bytes != 0 && head.received_size() > self.max_header_bytes {
            return Flow::Reject(Reason::HeadTooLarge);
        }
        let max_body = self.max_body_bytes.unwrap_or(0);
        if max_body != 0 && declared_length(head).is_some_and(|length| length > u64::from(max_body)) {
            return Flow::Reject(Reason::BodyTooLarge);
        }
        Flow::Continue
    }
}

/// The declared body length. The codec has refused what is no number by now, so one too large to read is too large.
fn declared_length(head: &Head<'_>) -> Option<u64> {
    let value = head.get("content-length")?;
    Some(std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Message, accepted, faults};
    use super::*;

    fn policy(limits: wire::RequestLimits) -> wire::PolicyEntry {
        wire::PolicyEntry { policy: Some(wire::policy_entry::Policy::RequestLimits(limits)) }
    }

    #[test]
    fn each_bound_refuses_what_is_over_it_and_nothing_at_it() {
        // GET /abc HTTP/1.1, content-length: 10 and the empty line take 19 + 20 + 2 bytes.
        let message = || Message::request("GET", "/abc").with("content-length", "10");
        let body = |max| wire::RequestLimits { max_body_bytes: Some(max), ..Default::default() };
        let head = |max| wire::RequestLimits { max_header_bytes: Some(max), ..Default::default() };
        let uri = |max| wire::RequestLimits { max_uri_bytes: Some(max), ..Default::default() };
        let reject = Flow::Reject;
        for (limits, expected) in [
            (body(10), Flow::Continue),
            (body(9), reject(Reason::BodyTooLarge)),
            (body(0), Flow::Continue),
            (head(41), Flow::Continue),
            (head(40), reject(Reason::HeadTooLarge)),
            (head(0), Flow::Continue),
            (uri(4), Flow::Continue),
            (uri(3), reject(Reason::UriTooLong)),
            (uri(0), Flow::Continue),
        ] {
            assert_eq!(message().run(&accepted(policy(limits))).flow, expected, "{limits:?}");
        }
    }

    #[test]
    fn a_length_beyond_all_numbers_is_too_large() {
        let limits = wire::RequestLimits { max_body_bytes: Some(9), ..Default::default() };
        let message = Message::request("POST", "/").with("content-length", "99999999999999999999");
        assert_eq!(message.run(&accepted(policy(limits))).flow, Flow::Reject(Reason::BodyTooLarge));
    }

    #[test]
    fn an_empty_one_and_a_disabled_one_with_fields_are_refused() {
        assert_eq!(
            faults(policy(wire::RequestLimits::default())),
            ["spec.policies[0].requestLimits: required: set maxBodyBytes, maxHeaderBytes or maxUriBytes"]
        );
        let both = wire::RequestLimits { disabled: true, max_uri_bytes: Some(1), ..Default::default() };
        assert!(faults(policy(both))[0].starts_with("spec.policies[0].requestLimits.disabled: conflict: "));
    }
}
