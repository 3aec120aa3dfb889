//! Listener: a checked `ListenerSpec`. It says what to bind and how to treat connections; who binds is the data
//! plane's business. Invariant: every bound and duration in here is within what the proto comments promise.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::wire;
use ipnet::IpNet;

pub mod tls;

use crate::compile::reference::References;
use crate::policy::joins::JoinSlot;
use crate::policy::{self, PolicySet};
use crate::value;
use crate::violations::Violations;
use tls::Tls;

/// Most entries of `trustedProxies`.
pub const MAX_TRUSTED_PROXIES: usize = 1_024;

/// A listener's number: stable over compiles as long as the listener exists, then reused. State indexed by it checks
/// identity by [`Listener::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerSlot(pub u32);

/// An address and port that data planes accept connections on.
#[derive(Clone, Debug)]
pub struct Listener {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// Its number.
    pub slot: ListenerSlot,
    /// What to bind; port 0 takes any free one.
    pub address: SocketAddr,
    /// How it speaks TLS; `None`: in clear text.
    pub tls: Option<Arc<Tls>>,
    /// Settings of HTTP connections.
    pub http: HttpSettings,
    /// Only data planes of this `--group` take it; `None`: all do.
    pub group: Option<Arc<str>>,
    /// Its own policies.
    pub(crate) policies: PolicySet,
    /// Those it refers to.
    pub(crate) referred: Option<JoinSlot>,
}

/// Settings of HTTP connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// Close a connection that has had no request for this long; zero: never.
    pub idle_timeout: Duration,
    /// Time a client has to send a whole request head; zero: no bound.
    pub header_timeout: Duration,
    /// Largest request head in bytes.
    pub max_header_bytes: u32,
    /// Longest request target in bytes.
    pub max_uri_bytes: u32,
    /// Largest request body in bytes; 0: no bound.
    pub max_body_bytes: u64,
    /// Proxies whose `X-Forwarded-*` and `Forwarded` fields are believed.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Streams a client may have open on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
}

impl Default for HttpSettings {
    fn default() -> Self {
        HttpSettings {
            idle_timeout: Duration::from_secs(75),
            header_timeout: Duration::from_secs(10),
            max_header_bytes: 65_536,
            max_uri_bytes: 8_192,
            max_body_bytes: 0,
            trusted_proxies: Arc::default(),
            max_concurrent_streams: 256,
        }
    }
}

impl HttpSettings {
    /// The address is one of the trusted proxies.
    #[inline]
    pub fn trusts(&self, address: IpAddr) -> bool {
        if self.trusted_proxies.is_empty() {
            return false;
        }
        // On a socket that takes both families an IPv4 address comes as ::ffff:a.b.c.d.
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&address))
    }
}

impl Listener {
    /// Its namespace.
    pub fn namespace(&self) -> &str {
        // Asked for on every request, and short: no search machinery.
        self.name.as_bytes().iter().position(|&byte| byte == b'/').map_or("", |end| &self.name[..end])
    }

    /// A data plane of some group could take both.
    pub(crate) fn meets(&self, other: &Listener) -> bool {
        match (&self.group, &other.group) {
            (Some(one), Some(two)) => one == two,
            _ => true,
        }
    }

    /// Binding both fails: same port, and one address covers the other. Port 0 never conflicts. `::` takes IPv4 too.
    pub(crate) fn overlaps(&self, other: &Listener) -> bool {
        let (one, two) = (self.address, other.address);
        one.port() != 0 && one.port() == two.port() && covers(one.ip(), two.ip())
    }
}

fn covers(one: IpAddr, two: IpAddr) -> bool {
    let (one, two) = (one.to_canonical(), two.to_canonical());
    let any = |ip: IpAddr| ip.is_unspecified();
    one == two || any(one) && (one.is_ipv6() || two.is_ipv4()) || any(two) && (two.is_ipv6() || one.is_ipv4())
}

/// What a listener says itself, its policies still without those it refers to. The result is usable only when nothing
/// was noted in `out`.
pub(crate) fn check(
    (name, slot): (Arc<str>, ListenerSlot),
    spec: &wire::ListenerSpec,
    at: &FieldPath<'_>,
    references: &mut References<'_>,
    out: &mut Violations,
) -> Listener {
    // Numbers that are unknown can only come from a newer control plane.
    if wire::listener_protocol::Value::try_from(spec.protocol).is_err() {
        out.push(
            &at.field("protocol"),
            ViolationCode::Unknown,
            format!("unknown protocol {}", spec.protocol),
        );
    }
    let ip = match &spec.address {
        None => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        Some(text) => out.ok(&at.field("address"), address(text)),
    };
    let port = port(spec.port, &at.field("port"), out);
    let scope = policy::Scope::shared(references);
    let policies = PolicySet::compile(&spec.policies, &at.field("policies"), out, scope);
    Listener {
        name,
        slot,
        address: SocketAddr::new(ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port),
        tls: tls::check(spec, at, references, out),
        http: http(spec.http.as_ref(), &at.field("http"), out),
        group: group(spec.data_planes.as_ref(), &at.field("dataPlanes"), out),
        policies,
        referred: None,
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| {
        format!("invalid address {text:?}, expected an IP address such as 0.0.0.0, 127.0.0.1 or ::")
    })
}

fn port(port: Option<u32>, at: &FieldPath<'_>, out: &mut Violations) -> u16 {
    let Some(port) = port else {
        out.push(
            at,
            ViolationCode::Required,
            "say which port to listen on, 1 to 65535, or 0 for any free one",
        );
        return 0;
    };
    u16::try_from(port).unwrap_or_else(|_| {
        out.push(at, ViolationCode::OutOfRange, format!("port {port} is out of range, expected 0 to 65535"));
        0
    })
}

fn http(spec: Option<&wire::HttpSettings>, at: &FieldPath<'_>, out: &mut Violations) -> HttpSettings {
    let default = HttpSettings::default();
    let Some(spec) = spec else { return default };
    let mut duration = |name, text: &Option<String>, default| match text {
        Some(text) => out.ok(&at.field(name), value::duration(text)).unwrap_or(default),
        None => default,
    };
    let idle_timeout = duration("idleTimeout", &spec.idle_timeout, default.idle_timeout);
    let header_timeout = duration("headerTimeout", &spec.header_timeout, default.header_timeout);
    let mut bounded =
        |at: &FieldPath<'_>, given: Option<u32>, default: u32, least: u32, most: u32| match given {
            Some(given) if !(least..=most).contains(&given) => {
                out.push(
                    at,
                    ViolationCode::OutOfRange,
                    format!("{given} is out of range, expected {least} to {most}"),
                );
                default
            }
            Some(given) => given,
            None => default,
        };
    let max_header_bytes = bounded(
        &at.field("maxHeaderBytes"),
        spec.max_header_bytes,
        default.max_header_bytes,
        1_024,
        1_048_576,
    );
    let max_uri_bytes =
        bounded(&at.field("maxUriBytes"), spec.max_uri_bytes, default.max_uri_bytes, 16, 1_048_576);
    let streams = spec.http2.as_ref().and_then(|http2| http2.max_concurrent_streams);
    let http2 = at.field("http2");
    let max_concurrent_streams =
        bounded(&http2.field("maxConcurrentStreams"), streams, default.max_concurrent_streams, 1, 65_536);
    HttpSettings {
        idle_timeout,
        header_timeout,
        max_header_bytes,
        max_uri_bytes,
        max_body_bytes: spec.max_body_bytes.map_or(0, u64::from),
        trusted_proxies: trusted(&spec.trusted_proxies, &at.field("trustedProxies"), out),
        max_concurrent_streams,
    }
}

fn trusted(blocks: &[String], at: &FieldPath<'_>, out: &mut Violations) -> Arc<[IpNet]> {
    if blocks.len() > MAX_TRUSTED_PROXIES {
        let message =
            format!("{} entries are too many, at most {MAX_TRUSTED_PROXIES} are allowed", blocks.len());
        out.push(at, ViolationCode::OutOfRange, message);
        return Arc::default();
    }
    blocks
        .iter()
        .enumerate()
        .filter_map(|(index, text)| out.ok(&at.index(index), value::cidr(text)))
        .collect()
}

fn group(
    spec: Option<&wire::DataPlaneSelector>,
    at: &FieldPath<'_>,
    out: &mut Violations,
) -> Option<Arc<str>> {
    let spec = spec?;
    if spec.group.is_empty() {
        let message = "name a group of data planes, or leave dataPlanes out for all of them";
        out.push(&at.field("group"), ViolationCode::Required, message);
        return None;
    }
    out.ok(&at.field("group"), value::name(&spec.group))?;
    Some(Arc::from(spec.group.as_str()))
}

#[cfg(test)]
mod tests {
    use gateway_proto::kind::{Key, Kind};

    use super::*;
    use crate::engine::State;

    fn checked(spec: &wire::ListenerSpec) -> Result<Listener, Vec<String>> {
        let mut out = Violations::of(Key::new(Kind::Listener, "default", "l"));
        let root = FieldPath::root();
        let nothing = State::default();
        let mut references = References::of(&nothing, "default");
        let at = root.field("spec");
        let listener = check(("default/l".into(), ListenerSlot(0)), spec, &at, &mut references, &mut out);
        let found: Vec<String> = out
            .into_vec()
            .into_iter()
            .map(|it| format!("{} {} {}", it.field, it.code.as_str(), it.message))
            .collect();
        if found.is_empty() { Ok(listener) } else { Err(found) }
    }

    fn on(address: &str, port: u32, group: &str) -> Listener {
        checked(&wire::ListenerSpec {
            address: Some(address.into()),
            port: Some(port),
            data_planes: (!group.is_empty()).then(|| wire::DataPlaneSelector { group: group.into() }),
            ..Default::default()
        })
        .expect("sound")
    }

    #[test]
    fn what_is_left_out_gets_the_documented_default() {
        let listener = checked(&wire::ListenerSpec { port: Some(80), ..Default::default() }).expect("sound");
        assert_eq!(listener.address.to_string(), "0.0.0.0:80");
        assert_eq!(listener.http, HttpSettings::default());
        assert_eq!(listener.group, None);
    }

    #[test]
    fn every_setting_is_taken() {
        let listener = checked(&wire::ListenerSpec {
            address: Some("[::1]".into()),
            port: Some(0),
            http: Some(wire::HttpSettings {
                idle_timeout: Some("1s".into()),
                header_timeout: Some("2s".into()),
                max_header_bytes: Some(2_048),
                max_uri_bytes: Some(100),
                max_body_bytes: Some(7),
                trusted_proxies: vec!["10.0.0.0/8".into(), "::1".into()],
                http2: Some(wire::Http2Settings { max_concurrent_streams: Some(9) }),
            }),
            data_planes: Some(wire::DataPlaneSelector { group: "edge".into() }),
            ..Default::default()
        })
        .expect("sound");
        assert_eq!(listener.address.to_string(), "[::1]:0");
        assert_eq!(listener.group.as_deref(), Some("edge"));
        let http = &listener.http;
        assert_eq!(
            (http.idle_timeout, http.header_timeout),
            (Duration::from_secs(1), Duration::from_secs(2))
        );
        assert_eq!((http.max_header_bytes, http.max_uri_bytes), (2_048, 100));
        assert_eq!((http.max_body_bytes, http.max_concurrent_streams), (7, 9));
        assert!(http.trusts("10.1.2.3".parse().expect("address")));
        assert!(http.trusts("::ffff:10.1.2.3".parse().expect("address")));
        assert!(!http.trusts("11.1.2.3".parse().expect("address")));
    }

    #[test]
    fn every_bad_value_is_named_with_its_place() {
        let found = checked(&wire::ListenerSpec {
            address: Some("localhost".into()),
            protocol: 9,
            http: Some(wire::HttpSettings {
                idle_timeout: Some("1 day".into()),
                header_timeout: Some("x".into()),
                max_header_bytes: Some(1_000),
                max_uri_bytes: Some(1),
                trusted_proxies: vec!["10.0.0.1/8".into()],
                http2: Some(wire::Http2Settings { max_concurrent_streams: Some(0) }),
                ..Default::default()
            }),
            data_planes: Some(wire::DataPlaneSelector::default()),
            ..Default::default()
        })
        .expect_err("all bad");
        let begins: Vec<&str> =
            found.iter().map(|line| line.split_once(' ').map_or("", |(at, _)| at)).collect();
        assert_eq!(
            begins,
            [
                "spec.protocol",
                "spec.address",
                "spec.port",
                "spec.http.idleTimeout",
                "spec.http.headerTimeout",
                "spec.http.maxHeaderBytes",
                "spec.http.maxUriBytes",
                "spec.http.http2.maxConcurrentStreams",
                "spec.http.trustedProxies[0]",
                "spec.dataPlanes.group",
            ]
        );
        let port =
            checked(&wire::ListenerSpec { port: Some(65_536), ..Default::default() }).expect_err("too high");
        assert_eq!(port, ["spec.port out_of_range port 65536 is out of range, expected 0 to 65535"]);
    }

    #[test]
    fn addresses_overlap_when_one_covers_the_other() {
        for (one, two, overlap) in [
            ("0.0.0.0", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0", "0.0.0.0", true),
            ("::", "127.0.0.1", true),
            ("::", "0.0.0.0", true),
            ("::", "::1", true),
            ("0.0.0.0", "::1", false),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
        ] {
            let (a, b) = (on(one, 80, ""), on(two, 80, ""));
            assert_eq!((a.overlaps(&b), b.overlaps(&a)), (overlap, overlap), "{one} {two}");
            assert!(!a.overlaps(&on(two, 81, "")), "{one} {two}");
        }
        assert!(!on("0.0.0.0", 0, "").overlaps(&on("0.0.0.0", 0, "")));
        assert!(on("::", 80, "").meets(&on("::", 80, "edge")));
        assert!(!on("::", 80, "core").meets(&on("::", 80, "edge")));
    }
}
