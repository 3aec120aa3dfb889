//! The naive model of matching, written straight from the contract ("Matching, fixed once"): no tables, no sharing,
//! every route is asked. It reads the authored form and shares no code with the engine.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use gateway_proto::wire::{self, path_match, value_match};
use regex::Regex;

/// A request before anything was brought into form.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) source: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// What is to be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Malformed.
    BadRequest,
    /// `namespace/name` and the entry.
    Route(String, u32),
    /// 405 with these.
    Allow(BTreeSet<String>),
    /// 404.
    None,
}

/// The listeners (`namespace/name`) and routes there are.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) routes: Vec<wire::Route>,
    regexes: HashMap<String, Regex>,
}

/// Host exact > longer `*.` > any; path exact > template > longer prefix > regex > none; more conditions; name.
type Rank = (i32, (u8, usize), (u8, Vec<u8>, usize), usize, Reverse<Vec<u8>>, Reverse<u32>);

impl Model {
    /// Of these routes; compiles every pattern once.
    pub(crate) fn new(routes: Vec<wire::Route>) -> Self {
        let mut regexes = HashMap::new();
        for found in routes.iter().filter_map(|route| route.spec.as_ref()).flat_map(|spec| &spec.matches) {
            let path = match found.path.as_ref().and_then(|path| path.kind.as_ref()) {
                Some(path_match::Kind::Regex(text)) => Some(text),
                _ => None,
            };
            let values = found.headers.iter().chain(&found.query).filter_map(|it| match &it.kind {
                Some(value_match::Kind::Regex(text)) => Some(text),
                _ => None,
            });
            for text in path.into_iter().chain(values) {
                regexes
                    .entry(text.clone())
                    .or_insert_with(|| Regex::new(&format!("^(?:{text})$")).expect("valid"));
            }
        }
        Model { routes, regexes }
    }

    /// The winner for a request through a listener.
    pub(crate) fn decide(&self, listener: &str, request: &Request) -> Decision {
        let (Some(path), Some(host)) = (normalize(request.path.as_bytes()), host(&request.host)) else {
            return Decision::BadRequest;
        };
        let mut best: Option<(Rank, String, u32)> = None;
        let mut allow = BTreeSet::new();
        for route in &self.routes {
            let metadata = route.metadata.as_ref().expect("named");
            let spec = route.spec.as_ref().expect("specified");
            let name = format!("{}/{}", metadata.namespace, metadata.name);
            let hosts = best_host(spec, &host);
            let Some(host_rank) = hosts.filter(|_| reached(&metadata.namespace, spec, listener)) else {
                continue;
            };
            let any = [wire::Match::default()];
            let entries = if spec.matches.is_empty() { &any[..] } else { &spec.matches };
            for (index, entry) in entries.iter().enumerate() {
                let Some(path_rank) = self.path_rank(entry, &path) else { continue };
                if !self.conditions_hold(entry, request) {
                    continue;
                }
                if !method_holds(entry, &request.method) {
                    for method in &entry.methods {
                        allow.insert(method.clone());
                        if method == "GET" {
                            allow.insert("HEAD".to_owned());
                        }
                    }
                    continue;
                }
                let index = u32::try_from(index).expect("few");
                let rank = (
                    spec.priority,
                    host_rank,
                    path_rank,
                    conditions(entry),
                    Reverse(name.clone().into_bytes()),
                    Reverse(index),
                );
                if best.as_ref().is_none_or(|(other, ..)| rank > *other) {
                    best = Some((rank, name.clone(), index));
                }
            }
        }
        match best {
            Some((_, name, index)) => Decision::Route(name, index),
            None if allow.is_empty() => Decision::None,
            None => Decision::Allow(allow),
        }
    }

    fn path_rank(&self, entry: &wire::Match, path: &str) -> Option<(u8, Vec<u8>, usize)> {
        let Some(kind) = entry.path.as_ref().and_then(|path| path.kind.as_ref()) else {
            return Some((0, Vec::new(), 0));
        };
        match kind {
            path_match::Kind::Exact(text) => {
                (normalize(text.as_bytes()).expect("sound") == path).then(|| (4, Vec::new(), 0))
            }
            path_match::Kind::Template(text) => template(&normalize(text.as_bytes()).expect("sound"), path),
            path_match::Kind::Prefix(text) => {
                let prefix = normalize(text.as_bytes()).expect("sound");
                let prefix = prefix.strip_suffix('/').unwrap_or(&prefix);
                let rest = path.strip_prefix(prefix)?;
                (rest.is_empty() || rest.starts_with('/')).then(|| (2, Vec::new(), prefix.len()))
            }
            path_match::Kind::Regex(text) => self.regexes[text].is_match(path).then(|| (1, Vec::new(), 0)),
        }
    }

    fn conditions_hold(&self, entry: &wire::Match, request: &Request) -> bool {
        let headers = entry.headers.iter().all(|wanted| {
            let values: Vec<&str> = request
                .headers
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case(&wanted.name))
                .map(|(_, value)| value.as_str())
                .collect();
            self.value_holds(wanted, (!values.is_empty()).then(|| values.join(", ")).as_deref())
        });
        let query = entry.query.iter().all(|wanted| {
            let first = request.query.split('&').find_map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (!pair.is_empty() && name == wanted.name).then(|| value.replace("%31", "1").replace('+', " "))
            });
            self.value_holds(wanted, first.as_deref())
        });
        let source: IpAddr = request.source.parse().expect("address");
        let sources = entry.sources.is_empty() || entry.sources.iter().any(|text| in_block(source, text));
        headers && query && sources
    }

    fn value_holds(&self, wanted: &wire::ValueMatch, value: Option<&str>) -> bool {
        match (wanted.kind.as_ref().expect("given"), value) {
            (value_match::Kind::Present(present), value) => value.is_some() == *present,
            (_, None) => false,
            (value_match::Kind::Exact(text), Some(value)) => value == text,
            (value_match::Kind::Prefix(text), Some(value)) => value.starts_with(text),
            (value_match::Kind::Regex(text), Some(value)) => self.regexes[text].is_match(value),
        }
    }
}

/// It names the listener, or none and the listener is in its namespace or in `default`.
fn reached(namespace: &str, spec: &wire::RouteSpec, listener: &str) -> bool {
    let of = listener.split_once('/').expect("qualified").0;
    match &*spec.listeners {
        [] => of == "default" || of == namespace,
        named => named.iter().any(|name| name == listener || format!("{namespace}/{name}") == listener),
    }
}

fn best_host(spec: &wire::RouteSpec, host: &str) -> Option<(u8, usize)> {
    if spec.hosts.is_empty() {
        return Some((0, 0));
    }
    let rank = |pattern: &String| match pattern.strip_prefix('*') {
        None => (pattern == host).then_some((2, 0)),
        Some(suffix) => (host.len() > suffix.len() && host.ends_with(suffix)).then_some((1, suffix.len())),
    };
    spec.hosts.iter().filter_map(rank).max()
}

/// Segment by segment literal (2) > `{x}` (1) > `{*x}` (0).
fn template(pattern: &str, path: &str) -> Option<(u8, Vec<u8>, usize)> {
    let wanted: Vec<&str> = pattern.split('/').skip(1).collect();
    let given: Vec<&str> = path.split('/').skip(1).collect();
    let mut shape = Vec::new();
    for (at, segment) in wanted.iter().enumerate() {
        if segment.starts_with("{*") {
            shape.push(0);
            return given.get(at).is_some_and(|first| !first.is_empty()).then_some((3, shape, 0));
        }
        let have = given.get(at)?;
        if segment.starts_with('{') {
            shape.push(1);
            if have.is_empty() {
                return None;
            }
        } else {
            shape.push(2);
            if have != segment {
                return None;
            }
        }
    }
    (wanted.len() == given.len()).then_some((3, shape, 0))
}

/// methods 1, each header, query, source 1
fn conditions(entry: &wire::Match) -> usize {
    usize::from(!entry.methods.is_empty())
        + entry.headers.len()
        + entry.query.len()
        + usize::from(!entry.sources.is_empty())
}

fn method_holds(entry: &wire::Match, method: &str) -> bool {
    entry.methods.is_empty()
        || entry.methods.iter().any(|wanted| wanted == method || wanted == "GET" && method == "HEAD")
}

fn in_block(address: IpAddr, block: &str) -> bool {
    let (net, bits) = block.split_once('/').unwrap_or((block, "32"));
    let bits: u32 = bits.parse().expect("a number");
    match (address, net.parse().expect("an address")) {
        (IpAddr::V4(address), IpAddr::V4(net)) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            u32::from(address) & mask == u32::from(net) & mask
        }
        _ => false,
    }
}

/// Lower case, without port and trailing dot; no label is empty.
fn host(text: &str) -> Option<String> {
    let name = text.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let labels = name.strip_suffix('.').unwrap_or(&name);
    (name.is_empty() || labels.split('.').all(|label| !label.is_empty())).then(|| labels.to_owned())
}

/// The contract's form of a path, or `None` for 400.
pub(crate) fn normalize(path: &[u8]) -> Option<String> {
    if path.is_empty() {
        return Some("/".to_owned());
    }
    if path[0] != b'/' || path.iter().any(|&byte| byte < 0x20 || byte == 0x7f || b"\\#?".contains(&byte)) {
        return None;
    }
    // Every character as it stays: itself, or a triplet.
    let mut characters: Vec<String> = Vec::new();
    let mut at = 0;
    while at < path.len() {
        let (byte, triplet) = if path[at] == b'%' {
            let digits = std::str::from_utf8(path.get(at + 1..at + 3)?).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            at += 3;
            (u8::from_str_radix(digits, 16).ok()?, true)
        } else {
            at += 1;
            (path[at - 1], false)
        };
        let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if triplet && byte == 0 {
            return None;
        }
        if triplet && !unreserved || byte == b' ' || byte >= 0x80 {
            characters.push(format!("%{byte:02X}"));
        } else {
            characters.push(char::from(byte).to_string());
        }
    }
    let text = characters.concat();
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = text.split('/').collect();
    for segment in &segments {
        match *segment {
            "" | "." => {}
            ".." => drop(kept.pop()?),
            other => kept.push(other),
        }
    }
    let directory = matches!(segments.last(), Some(&("" | "." | "..")));
    let slash = if directory && !kept.is_empty() { "/" } else { "" };
    Some(format!("/{}{slash}", kept.join("/")))
}
