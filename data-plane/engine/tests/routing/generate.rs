//! Generated routes and requests over small alphabets, so that everything collides with everything.

use gateway_proto::kind::Resource;
use gateway_proto::wire::{self, path_match, route_spec, value_match};

use crate::model::Request;

/// Where choices come from: a random number generator, or the bytes of a fuzzer.
pub(crate) trait Choose {
    /// A number under `n`, which is over 0.
    fn below(&mut self, n: usize) -> usize;

    /// One of them.
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// True in one of `n` cases.
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// The listeners that generated routes are reached through.
pub(crate) const LISTENERS: [&str; 3] = ["default/one", "default/two", "team/three"];

/// A resource for each of [`LISTENERS`].
pub(crate) fn listeners() -> Vec<Resource> {
    LISTENERS
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let spec = wire::ListenerSpec { port: Some(8_000 + at as u32), ..Default::default() };
            wire::Listener { metadata: Some(metadata(name)), spec: Some(spec), ..Default::default() }.into()
        })
        .collect()
}

/// Metadata of `namespace/name`.
pub(crate) fn metadata(qualified: &str) -> wire::Metadata {
    let (namespace, name) = qualified.split_once('/').expect("qualified");
    wire::Metadata { namespace: namespace.into(), name: name.into(), ..Default::default() }
}

/// A route of this name.
pub(crate) fn route(choose: &mut impl Choose, qualified: &str) -> wire::Route {
    const HOSTS: [&str; 7] = ["x.org", "a.x.org", "b.a.x.org", "*.x.org", "*.a.x.org", "*.org", "127.0.0.1"];
    let mut spec = wire::RouteSpec { priority: choose.pick(&[0, 0, 0, 0, 1, -1]), ..Default::default() };
    spec.action = Some(route_spec::Action::Respond(wire::Respond::default()));
    for name in ["default/one", "team/three"] {
        if choose.one_in(4) {
            spec.listeners.push(name.to_owned());
        }
    }
    while spec.hosts.len() < 3 && !choose.one_in(2) {
        let host = choose.pick(&HOSTS).to_string();
        if !spec.hosts.contains(&host) {
            spec.hosts.push(host);
        }
    }
    while spec.matches.len() < 3 && !choose.one_in(3) {
        let entry = entry(choose);
        if !spec.matches.contains(&entry) {
            spec.matches.push(entry);
        }
    }
    wire::Route { metadata: Some(metadata(qualified)), spec: Some(spec), ..Default::default() }
}

fn entry(choose: &mut impl Choose) -> wire::Match {
    let mut entry = wire::Match::default();
    let kind = match choose.below(6) {
        0 => None,
        1 => Some(path_match::Kind::Exact(path(choose))),
        2 | 3 => Some(path_match::Kind::Prefix(path(choose))),
        4 => Some(path_match::Kind::Template(template(choose))),
        _ => Some(path_match::Kind::Regex(
            choose.pick(&["/a.*", "/[ab]/c", ".*", "/(a|b)(/.*)?", "/%2F.*", ".*/"]).to_string(),
        )),
    };
    entry.path = kind.map(|kind| wire::PathMatch { kind: Some(kind) });
    for method in ["GET", "POST", "HEAD", "PURGE"] {
        if choose.one_in(6) {
            entry.methods.push(method.to_owned());
        }
    }
    for name in ["x-a", "X-B"] {
        if choose.one_in(6) {
            entry.headers.push(value(choose, name));
        }
    }
    for name in ["q", "r"] {
        if choose.one_in(8) {
            entry.query.push(value(choose, name));
        }
    }
    if choose.one_in(8) {
        entry.sources.push(choose.pick(&["10.0.0.0/8", "10.1.0.0/16", "127.0.0.1"]).to_string());
    }
    entry
}

fn value(choose: &mut impl Choose, name: &str) -> wire::ValueMatch {
    let kind = match choose.below(5) {
        0 | 1 => value_match::Kind::Exact(choose.pick(&["1", "2", "", "1, 2"]).to_string()),
        2 => value_match::Kind::Prefix(choose.pick(&["1", "2", ""]).to_string()),
        3 => value_match::Kind::Regex(choose.pick(&["[12]", "1.*", "|2"]).to_string()),
        _ => value_match::Kind::Present(choose.one_in(2)),
    };
    wire::ValueMatch { name: name.to_owned(), kind: Some(kind) }
}

/// Segments that often need bringing into form; never above the root by themselves.
const SEGMENTS: [&str; 10] = ["a", "a", "b", "b", "c", "%61", ".", "%2f", "~", "b%2F"];

fn path(choose: &mut impl Choose) -> String {
    let mut path = String::new();
    for _ in 0..choose.below(4) {
        path.push('/');
        path.push_str(choose.pick(&SEGMENTS));
    }
    if path.is_empty() || choose.one_in(5) {
        path.push('/');
    }
    path
}

fn template(choose: &mut impl Choose) -> String {
    if choose.one_in(12) {
        return "/".to_owned();
    }
    let mut path = String::new();
    for at in 0..=choose.below(3) {
        match choose.below(4) {
            0 | 1 => path.push_str(&format!("/{{p{at}}}")),
            _ => path.push_str(&format!("/{}", choose.pick(&["a", "b", "c"]))),
        }
    }
    match choose.below(5) {
        0 | 1 => path.push_str("/{*rest}"),
        2 => path.push('/'),
        _ => {}
    }
    path
}

/// A request that such routes may take.
pub(crate) fn request(choose: &mut impl Choose) -> Request {
    const HOSTS: [&str; 12] = [
        "x.org",
        "a.x.org",
        "b.a.x.org",
        "c.x.org",
        "X.ORG:80",
        "c.b.a.x.org.",
        "127.0.0.1:8080",
        "org",
        "",
        "other",
        "a..x.org",
        ".x.org",
    ];
    let mut headers = Vec::new();
    for name in ["x-a", "X-A", "x-b"] {
        if choose.one_in(3) {
            headers.push((name.to_owned(), choose.pick(&["1", "2", "", "12"]).to_string()));
        }
    }
    let mut path = path(choose);
    if choose.one_in(10) {
        path.push_str(choose.pick(&["/..", "//", "/./x", "/%", "/%2e%2e/", "\\", "/../.."]));
    }
    Request {
        method: choose.pick(&["GET", "GET", "POST", "HEAD", "PURGE", "DELETE"]).to_string(),
        host: choose.pick(&HOSTS).to_string(),
        path,
        query: choose
            .pick(&["", "", "q=1", "q=2&r=1", "r&q=1", "q=%31", "q=1+2", "&&q=", "r=2&r=1"])
            .to_string(),
        source: choose.pick(&["127.0.0.1", "10.1.2.3", "10.2.2.3", "::1"]).to_string(),
        headers,
    }
}
