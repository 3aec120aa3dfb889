//! ipFilter: who may connect, by client address (after `trustedProxies`). Deny wins; a list of allowed blocks
//! refuses everybody else. Blocks become sorted ranges that do not overlap, so that a look-up is one binary search
//! whatever the number of blocks; IPv4 addresses written as IPv6 (`::ffff:a.b.c.d`) count as IPv4.

use std::net::IpAddr;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::wire;
use ipnet::IpNet;

use super::{Flow, Hooks, Scope, phase};
use crate::context::Ctx;
use crate::head::Head;
use crate::reject::Reason;
use crate::value;
use crate::violations::Violations;

/// Compiled `ipFilter`.
#[derive(Debug)]
pub(super) struct IpFilter {
    /// `None`: everybody who is not denied.
    allow: Option<AddressSet>,
    deny: AddressSet,
}

/// Addresses as inclusive ranges: sorted and disjoint.
#[derive(Debug, Default)]
struct AddressSet {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl AddressSet {
    fn of(blocks: &[IpNet]) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for block in blocks {
            match (block.network().to_canonical(), block.broadcast().to_canonical()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((u32::from(first), u32::from(last))),
                // A block wider than that of the mapped addresses means IPv6: `::/0` says nothing about IPv4.
                (first, last) => v6.push((ipv6(first), ipv6(last))),
            }
        }
        AddressSet { v4: joined(v4), v6: joined(v6) }
    }

    fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => holds(&self.v4, u32::from(address)),
            IpAddr::V6(address) => holds(&self.v6, u128::from(address)),
        }
    }
}

fn ipv6(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// Sorts ranges and joins those that overlap.
fn joined<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut out: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => out.push((first, last)),
        }
    }
    out.into()
}

fn holds<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after > 0 && address <= ranges[after - 1].1
}

impl Hooks for IpFilter {
    type Spec = wire::IpFilter;
    const PHASES: u8 = phase::REQUEST;

    fn is_disabled(spec: &Self::Spec) -> bool {
        spec.disabled
    }

    fn disabled() -> Self::Spec {
        wire::IpFilter { disabled: true, ..Default::default() }
    }

    fn compile(spec: &Self::Spec, at: &FieldPath<'_>, out: &mut Violations, _: Scope<'_>) -> Option<Self> {
        if spec.allow.is_empty() && spec.deny.is_empty() {
            out.push(at, ViolationCode::Required, "name addresses to allow or to deny");
            return None;
        }
        let allow = blocks(&spec.allow, &at.field("allow"), out);
        let deny = blocks(&spec.deny, &at.field("deny"), out);
        Some(IpFilter {
            allow: if spec.allow.is_empty() { None } else { Some(AddressSet::of(&allow?)) },
            deny: AddressSet::of(&deny?),
        })
    }

    fn request(&self, ctx: &mut Ctx<'_>, _: &mut Head<'_>) -> Flow {
        let allowed = self.allow.as_ref().is_none_or(|allow| allow.contains(ctx.client_ip));
        if allowed && !self.deny.contains(ctx.client_ip) {
            Flow::Continue
        } else {
            Flow::Reject(Reason::Forbidden)
        }
    }
}

fn blocks(texts: &[String], at: &FieldPath<'_>, out: &mut Violations) -> Option<Vec<IpNet>> {
    let parsed: Vec<Option<IpNet>> =
        texts.iter().enumerate().map(|(index, text)| out.ok(&at.index(index), value::cidr(text))).collect();
    parsed.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Message, accepted, faults};
    use super::*;

    fn policy(allow: &[&str], deny: &[&str]) -> wire::PolicyEntry {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        let filter = wire::IpFilter { disabled: false, allow: texts(allow), deny: texts(deny) };
        wire::PolicyEntry { policy: Some(wire::policy_entry::Policy::IpFilter(filter)) }
    }

    fn passes(allow: &[&str], deny: &[&str], client: &str) -> bool {
        let message = Message::request("GET", "/").from(client);
        match message.run(&accepted(policy(allow, deny))).flow {
            Flow::Continue => true,
            flow => {
                assert_eq!(flow, Flow::Reject(Reason::Forbidden));
                false
            }
        }
    }

    #[test]
    fn deny_wins_and_an_allow_list_refuses_everybody_else() {
        for (allow, deny, client, expected) in [
            (&["10.0.0.0/8"][..], &[][..], "10.255.255.255", true),
            (&["10.0.0.0/8"], &[], "11.0.0.0", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.2.2.3", true),
            (&[], &["192.0.2.7"], "192.0.2.7", false),
            (&[], &["192.0.2.7"], "192.0.2.8", true),
            (&["2001:db8::/32"], &[], "2001:db8:ffff::1", true),
            (&["2001:db8::/32"], &[], "192.0.2.1", false),
            (&["10.0.0.0/8"], &[], "::ffff:10.1.1.1", true),
            (&["::ffff:10.0.0.0/104"], &[], "10.1.1.1", true),
            (&["0.0.0.0/0"], &[], "2001:db8::1", false),
            (&["::/0"], &[], "10.1.1.1", false),
            (&[], &["::/0"], "10.1.1.1", true),
            (&["::/0"], &[], "2001:db8::1", true),
        ] {
            assert_eq!(passes(allow, deny, client), expected, "{allow:?} {deny:?} {client}");
        }
    }

    #[test]
    fn many_overlapping_blocks_answer_as_a_linear_search_does() {
        let texts: Vec<String> = (0..4096_u32)
            .map(|n| {
                let address = n.wrapping_mul(2_654_435_761);
                let length = 8 + (n % 24) as u8;
                ipnet::Ipv4Net::new(address.into(), length).expect("length is under 33").trunc().to_string()
            })
            .collect();
        let blocks: Vec<IpNet> = texts.iter().map(|text| text.parse().expect("made above")).collect();
        let set = AddressSet::of(&blocks);
        let mut inside = 0;
        for n in 0..20_000_u32 {
            let address = IpAddr::from(n.wrapping_mul(0x9e37_79b9).to_be_bytes());
            let expected = blocks.iter().any(|block| block.contains(&address));
            inside += u32::from(expected);
            assert_eq!(set.contains(address), expected, "{address}");
        }
        assert!((1..20_000).contains(&inside), "both answers must occur: {inside}");
    }

    #[test]
    fn a_bad_block_is_named_with_its_place() {
        let found = faults(policy(&["10.0.0.0/8", "10.0.0.1/8"], &["nobody"]));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("spec.policies[0].ipFilter.allow[1]: invalid: \"10.0.0.1/8\" has bits"));
        assert!(found[1].starts_with("spec.policies[0].ipFilter.deny[0]: invalid: "));
    }

    #[test]
    fn an_empty_filter_is_refused() {
        assert_eq!(
            faults(policy(&[], &[])),
            ["spec.policies[0].ipFilter: required: name addresses to allow or to deny"]
        );
    }
}
