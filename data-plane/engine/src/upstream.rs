//! Upstream: a checked `UpstreamSpec`. Where the targets are and how they are reached; picking one, pooling and
//! resolving names are the data plane's business. Invariant: no two targets are alike.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::wire;

use crate::compile::reference::References;
use crate::discovery::{self, Discovery};
use crate::violations::Violations;
use crate::{path, value};

/// Most targets of an upstream.
pub const MAX_TARGETS: usize = 4_096;
/// Highest weight of a target or a backend.
pub const MAX_WEIGHT: u32 = 65_535;

/// An upstream's number: stable over compiles as long as the upstream exists, then reused. State indexed by it checks
/// identity by [`Upstream::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamSlot(pub u32);

/// A named set of backend addresses.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// Its number.
    pub slot: UpstreamSlot,
    /// What its targets speak.
    pub protocol: Protocol,
    /// Where it runs; at least one, no two alike. None if that is discovered.
    pub targets: Arc<[Target]>,
    /// Who knows where it runs.
    pub discovery: Option<Arc<Discovery>>,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Close a pooled connection that was not used for this long; zero: do not pool.
    pub idle_timeout: Duration,
}

/// What is spoken to a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 in clear text.
    #[default]
    Http1,
    /// HTTP/2 in clear text, by prior knowledge.
    Http2,
}

/// One address of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where.
    pub host: Host,
    /// Share of the requests; 0 gets none.
    pub weight: u16,
}

/// Where a target is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address.
    Ip(SocketAddr),
    /// A name in lower case that the data plane resolves, and a port.
    Name(Arc<str>, u16),
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Host::Ip(address) => write!(f, "{address}"),
            Host::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// Checks all of it. The result is usable only when nothing was noted in `out`.
pub(crate) fn check(
    (name, slot): (Arc<str>, UpstreamSlot),
    spec: &wire::UpstreamSpec,
    at: &FieldPath<'_>,
    references: &References<'_>,
    out: &mut Violations,
) -> Upstream {
    let protocol = protocol(spec.protocol, &at.field("protocol"), out);
    let timeouts = spec.timeouts.clone().unwrap_or_default();
    let at_timeouts = at.field("timeouts");
    let connect_at = at_timeouts.field("connect");
    let connect_timeout = match &timeouts.connect {
        None => Duration::from_secs(5),
        Some(text) => out.ok(&connect_at, value::duration(text)).unwrap_or(Duration::from_secs(5)),
    };
    if connect_timeout.is_zero() {
        out.push(
            &connect_at,
            ViolationCode::OutOfRange,
            "no connection is made in no time, expected over 0s",
        );
    }
    let idle_timeout = match &timeouts.idle {
        None => Duration::from_secs(90),
        Some(text) => out.ok(&at_timeouts.field("idle"), value::duration(text)).unwrap_or_default(),
    };
    let discovery_at = at.field("discovery");
    let (targets, discovery) = match &spec.discovery {
        None => (targets(&spec.targets, &at.field("targets"), out), None),
        Some(discovery) => {
            if !spec.targets.is_empty() {
                let message = "an upstream has targets or discovers them, drop one of the two";
                out.push(&discovery_at, ViolationCode::Conflict, message);
            }
            let discovery = discovery::of_upstream(discovery, &discovery_at, references, out);
            (Arc::default(), discovery.map(Arc::new))
        }
    };
    Upstream { name, slot, protocol, targets, discovery, connect_timeout, idle_timeout }
}

fn protocol(given: i32, at: &FieldPath<'_>, out: &mut Violations) -> Protocol {
    match wire::upstream_protocol::Value::try_from(given) {
        Ok(wire::upstream_protocol::Value::Http1) => Protocol::Http1,
        Ok(wire::upstream_protocol::Value::Http2) => Protocol::Http2,
        Err(_) => {
            out.push(at, ViolationCode::Unknown, format!("unknown protocol {given}"));
            Protocol::default()
        }
    }
}

fn targets(specs: &[wire::Target], at: &FieldPath<'_>, out: &mut Violations) -> Arc<[Target]> {
    if specs.is_empty() {
        out.push(at, ViolationCode::Required, "name at least one target, or a source that discovers them");
    }
    if specs.len() > MAX_TARGETS {
        let message = format!("{} targets are too many, at most {MAX_TARGETS} are allowed", specs.len());
        out.push(at, ViolationCode::OutOfRange, message);
        return Arc::default();
    }
    let mut seen = std::collections::HashMap::new();
    let mut targets = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        let at = at.index(index);
        let weight = weight(spec.weight, &at.field("weight"), out);
        let Some(host) = out.ok(&at.field("address"), target_host(&spec.address)) else { continue };
        if let Some(first) = seen.insert(host.clone(), index) {
            let message =
                format!("{host} is already targets[{first}], give one of them a higher weight instead");
            out.push(&at.field("address"), ViolationCode::Duplicate, message);
        }
        targets.push(Target { host, weight });
    }
    targets.into()
}

/// A share: 0 to [`MAX_WEIGHT`], 1 when left out.
pub(crate) fn weight(given: Option<u32>, at: &FieldPath<'_>, out: &mut Violations) -> u16 {
    let given = given.unwrap_or(1);
    u16::try_from(given).unwrap_or_else(|_| {
        out.push(
            at,
            ViolationCode::OutOfRange,
            format!("weight {given} is out of range, expected 0 to {MAX_WEIGHT}"),
        );
        1
    })
}

/// Reads `host:port`.
pub(crate) fn target_host(text: &str) -> Result<Host, String> {
    let fault = |why: &str| format!("invalid target address {text:?}: {why}");
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 {
            Err(fault("port 0 cannot be connected to"))
        } else {
            Ok(Host::Ip(address))
        };
    }
    let Some((name, port)) = text.rsplit_once(':') else {
        return Err(fault("expected host:port, for example 127.0.0.1:9101 or users.internal:80"));
    };
    if name.parse::<std::net::Ipv6Addr>().is_ok() || text.parse::<IpAddr>().is_ok() {
        return Err(fault("write an IPv6 address in brackets, [::1]:80"));
    }
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = match port.parse::<u16>() {
        Ok(port) if digits && port > 0 => port,
        _ => return Err(fault("the port is a number, 1 to 65535")),
    };
    let looks_numeric = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match path::host_pattern(name) {
        Ok(name) if !looks_numeric => Ok(Host::Name(name.into(), port)),
        _ => Err(fault("expected host:port with a DNS name or an IP address")),
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::kind::{Key, Kind};

    use super::*;

    fn checked(spec: &wire::UpstreamSpec) -> Result<Upstream, Vec<String>> {
        let mut out = Violations::of(Key::new(Kind::Upstream, "default", "u"));
        let root = FieldPath::root();
        let engine = crate::Engine::default();
        let references = References::of(&engine.state, "default");
        let named = ("default/u".into(), UpstreamSlot(0));
        let upstream = check(named, spec, &root.field("spec"), &references, &mut out);
        let found: Vec<String> =
            out.into_vec().into_iter().map(|it| format!("{} {}", it.field, it.code.as_str())).collect();
        if found.is_empty() { Ok(upstream) } else { Err(found) }
    }

    fn target(address: &str, weight: Option<u32>) -> wire::Target {
        wire::Target { address: address.into(), weight }
    }

    #[test]
    fn targets_are_addresses_or_names_with_a_port() {
        for (text, host) in [
            ("127.0.0.1:9101", "127.0.0.1:9101"),
            ("[::1]:80", "[::1]:80"),
            ("Users.Internal:80", "users.internal:80"),
            ("localhost:1", "localhost:1"),
        ] {
            assert_eq!(target_host(text).map(|host| host.to_string()).as_deref(), Ok(host), "{text}");
        }
        for text in [
            "",
            "a",
            "a:",
            ":80",
            "a:0",
            "1.2.3.4:0",
            "a:65536",
            "::1:80",
            "a:+1",
            "http://a:80",
            "300.1.1.1:80",
            "a b:1",
        ] {
            assert!(target_host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_left_out_gets_the_documented_default() {
        let spec = wire::UpstreamSpec {
            targets: vec![target("a:1", None), target("a:2", Some(0))],
            ..Default::default()
        };
        let upstream = checked(&spec).expect("sound");
        assert_eq!((upstream.targets[0].weight, upstream.targets[1].weight), (1, 0));
        assert_eq!(upstream.protocol, Protocol::Http1);
        assert_eq!(upstream.connect_timeout, Duration::from_secs(5));
        assert_eq!(upstream.idle_timeout, Duration::from_secs(90));
    }

    #[test]
    fn the_protocol_is_taken() {
        let spec = wire::UpstreamSpec {
            protocol: wire::upstream_protocol::Value::Http2.into(),
            targets: vec![target("a:1", None)],
            ..Default::default()
        };
        assert_eq!(checked(&spec).expect("sound").protocol, Protocol::Http2);
    }

    #[test]
    fn timeouts_are_taken() {
        let timeouts = wire::UpstreamTimeouts { connect: Some("1s".into()), idle: Some("0s".into()) };
        let spec = wire::UpstreamSpec {
            targets: vec![target("a:1", None)],
            timeouts: Some(timeouts),
            ..Default::default()
        };
        let upstream = checked(&spec).expect("sound");
        assert_eq!(
            (upstream.connect_timeout, upstream.idle_timeout),
            (Duration::from_secs(1), Duration::ZERO)
        );
    }

    #[test]
    fn every_bad_value_is_named_with_its_place() {
        let timeouts = wire::UpstreamTimeouts { connect: Some("0s".into()), idle: Some("soon".into()) };
        let spec = wire::UpstreamSpec {
            protocol: 7,
            targets: vec![target("a:1", Some(70_000)), target("A:1", None), target("b", None)],
            timeouts: Some(timeouts),
            discovery: None,
        };
        assert_eq!(
            checked(&spec).expect_err("all bad"),
            [
                "spec.protocol unknown",
                "spec.timeouts.connect out_of_range",
                "spec.timeouts.idle invalid",
                "spec.targets[0].weight out_of_range",
                "spec.targets[1].address duplicate",
                "spec.targets[2].address invalid",
            ]
        );
        assert_eq!(
            checked(&wire::UpstreamSpec::default()).expect_err("no targets"),
            ["spec.targets required"]
        );
    }
}
