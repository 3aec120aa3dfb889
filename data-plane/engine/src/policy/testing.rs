//! What the tests of policies share: a request and its answer, sent through a chain whose route has one set.

use std::net::IpAddr;
use std::time::Duration;

use gateway_proto::field::FieldPath;
use gateway_proto::kind::{Key, Kind};
use gateway_proto::wire;

use super::chain::{Chain, Levels};
use super::{Flow, PolicySet, Scope};
use crate::context::{Ctx, Notes, Param, Scheme};
use crate::head::{Head, HeadParts, RequestLine};
use crate::identity::Directory;
use crate::violations::Violations;

/// When it is in tests, in seconds since 1970.
pub(crate) const NOW: u64 = 1_800_000_000;

/// A request to `example.com` and the upstream's answer.
pub(crate) struct Message {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    params: Vec<(String, String)>,
    answer: Vec<(String, String)>,
    client: IpAddr,
    /// As in [`Ctx`].
    pub(crate) matched_prefix: Option<usize>,
}

/// What came out.
pub(crate) struct Ran {
    pub(crate) flow: Flow,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) request: Vec<String>,
    pub(crate) response: Vec<String>,
}

impl Message {
    pub(crate) fn request(method: &str, target: &str) -> Self {
        Message {
            method: method.to_owned(),
            target: target.to_owned(),
            fields: Vec::new(),
            params: Vec::new(),
            answer: Vec::new(),
            client: IpAddr::from([192, 0, 2, 1]),
            matched_prefix: None,
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn param(mut self, name: &str, value: &str) -> Self {
        self.params.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn from(mut self, client: &str) -> Self {
        self.client = client.parse().expect("an address");
        self
    }

    pub(crate) fn answer(mut self, fields: &[(&str, &str)]) -> Self {
        self.answer = fields.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        self
    }

    /// The request as the data plane would fill it in.
    pub(crate) fn parts(&self) -> HeadParts {
        let mut parts = HeadParts::new();
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*self.target, None),
        };
        let line = RequestLine {
            method: parts.copy(self.method.as_bytes()),
            target: parts.copy(self.target.as_bytes()),
            path: parts.copy(path.as_bytes()),
            query: query.map(|query| parts.copy(query.as_bytes())),
            authority: parts.copy(b"example.com"),
        };
        parts.set_request_line(line);
        for (name, value) in &self.fields {
            let (name, value) = (parts.copy(name.as_bytes()), parts.copy(value.as_bytes()));
            parts.push(name, value, 0);
        }
        parts
    }

    /// Calls back with this request's context.
    pub(crate) fn with_ctx<T>(&self, notes: &mut Notes, call: impl FnOnce(&mut Ctx<'_>) -> T) -> T {
        let params: Vec<Param<'_>> =
            self.params.iter().map(|(name, value)| Param { name, value: value.as_bytes() }).collect();
        call(&mut Ctx {
            request_id: "req-1",
            client_ip: self.client,
            scheme: Scheme::Http,
            listener: "default/listener",
            route: "default/route",
            params: &params,
            matched_prefix: self.matched_prefix,
            elapsed: Duration::from_micros(12_345),
            now: NOW,
            notes,
        })
    }

    /// Through a route's policies and back. A request that was stopped is answered with an empty head.
    pub(crate) fn run(&self, route: &PolicySet) -> Ran {
        self.run_knowing(route, Directory::EMPTY)
    }

    /// The same where some are known.
    pub(crate) fn run_knowing(&self, route: &PolicySet, directory: Directory<'_>) -> Ran {
        let none = PolicySet::EMPTY;
        let levels = Levels {
            global: &none,
            namespace: &none,
            listener: (&none).into(),
            route: route.into(),
            directory,
        };
        self.run_chain(Chain::new(levels))
    }

    /// As [`Message::run`], through any chain.
    pub(crate) fn run_chain(&self, mut chain: Chain<'_>) -> Ran {
        let (mut notes, mut parts) = (Notes::new(), self.parts());
        let mut head = Head::new(b"", &mut parts);
        let flow = self.with_ctx(&mut notes, |ctx| chain.request(ctx, &mut head));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (path, query, request) = (text(head.path()), head.query().map(text), lines(&head));
        // The buffer of the request is used for something else by now.
        let mut parts = HeadParts::new();
        let mut head = Head::new(b"", &mut parts);
        if let Flow::Reject(reason) = flow {
            head.set_status(reason.status());
        } else if flow == Flow::Continue {
            for (name, value) in &self.answer {
                head.add(name, value.as_bytes());
            }
        }
        let bare = Message { params: Vec::new(), ..Message::request("", "").from(&self.client.to_string()) };
        bare.with_ctx(&mut notes, |ctx| chain.response(ctx, &mut head));
        Ran { flow, path, query, request, response: lines(&head) }
    }
}

fn lines(head: &Head<'_>) -> Vec<String> {
    head.iter()
        .map(|(name, value, _)| {
            format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
        })
        .collect()
}

/// Compiles entries at `spec.policies`; faults as `place: code: message`.
pub(crate) fn compiled(entries: &[wire::PolicyEntry], scope: Scope<'_>) -> (PolicySet, Vec<String>) {
    let mut out = Violations::of(Key::new(Kind::Policy, "default", "tested"));
    let root = FieldPath::root();
    let spec = root.field("spec");
    let set = PolicySet::compile(entries, &spec.field("policies"), &mut out, scope);
    let describe = |fault: &gateway_proto::field::Violation| {
        format!("{}: {}: {}", fault.field, fault.code.as_str(), fault.message)
    };
    (set, out.into_vec().iter().map(describe).collect())
}

/// A policy that must compile.
pub(crate) fn accepted(entry: wire::PolicyEntry) -> PolicySet {
    let (set, faults) = compiled(&[entry], Scope::SHARED);
    assert!(faults.is_empty(), "{faults:?}");
    set
}

/// The faults of a policy that must not compile.
pub(crate) fn faults(entry: wire::PolicyEntry) -> Vec<String> {
    let (_, faults) = compiled(&[entry], Scope::SHARED);
    assert!(!faults.is_empty(), "it compiles");
    faults
}
