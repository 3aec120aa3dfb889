//! Check: `wire::RouteSpec` -> [`Route`]. Parses hosts, paths, conditions and timeouts, and resolves what the route
//! refers to. It goes on after a fault; the result is usable only when nothing was noted.

use std::sync::Arc;
use std::time::Duration;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::kind::Kind;
use gateway_proto::wire::{self, path_match, value_match};

use super::condition::{Conditions, Method, Methods, Pattern, Test, ValueCondition};
use super::{Candidate, HostPattern, PathPattern, Reach, Route, RouteSlot};
use crate::action::Action;
use crate::compile::level;
use crate::compile::object::Checked;
use crate::compile::reference::References;
use crate::listener::ListenerSlot;
use crate::policy::{self, PolicySet};
use crate::value;
use crate::violations::Violations;

/// Most hosts of a route.
pub const MAX_HOSTS: usize = 256;
/// Most entries of a route's `matches`.
pub const MAX_MATCHES: usize = 256;
/// Most listeners that a route names.
pub const MAX_LISTENERS: usize = 64;
/// Most methods, header conditions or query conditions of a match, each.
pub const MAX_CONDITIONS: usize = 64;
/// Most client blocks of a match.
pub const MAX_SOURCES: usize = 1_024;
/// Longest method of a condition in bytes.
const MAX_METHOD_BYTES: usize = 64;
/// Longest name or value of a condition in bytes.
pub const MAX_CONDITION_BYTES: usize = 4_096;

/// Checks a route's spec. `None` after a violation.
pub(crate) fn check(
    (name, slot): (Arc<str>, RouteSlot),
    spec: &wire::RouteSpec,
    at: &FieldPath<'_>,
    references: &mut References<'_>,
    out: &mut Violations,
) -> Option<Route> {
    let reach = reach(&spec.listeners, &at.field("listeners"), references, out);
    let hosts = hosts(&spec.hosts, &at.field("hosts"), out);
    let candidates = candidates(&name, spec, &at.field("matches"), out);
    let params: Vec<&str> = candidates.iter().flat_map(|candidate| candidate.path.params()).collect();
    let by_prefix = |path: &PathPattern| matches!(path, PathPattern::Prefix(_) | PathPattern::Any);
    let scope = policy::Scope {
        params: Some(&params),
        by_prefix: candidates.iter().any(|candidate| by_prefix(&candidate.path)),
        references: Some(references),
    };
    let mut upstream = |name: &str| references.upstream(name);
    let action = Action::compile(spec.action.as_ref(), at, out, scope, &mut upstream);
    let timeouts = spec.timeouts.clone().unwrap_or_default();
    let at_timeouts = at.field("timeouts");
    let mut timeout = |field, text: &Option<String>, default| match text {
        None => Some(default),
        Some(text) => out.ok(&at_timeouts.field(field), value::duration(text)).filter(|it| !it.is_zero()),
    };
    let request_timeout = timeout("request", &timeouts.request, Duration::from_secs(30));
    let idle_timeout = timeout("idle", &timeouts.idle, Duration::from_secs(300));
    let policies = PolicySet::compile(&spec.policies, &at.field("policies"), out, scope);
    let policies = (!policies.is_empty()).then(|| Arc::new(policies));
    level::refer(&spec.policy_refs, &at.field("policyRefs"), references, out);
    let action = action?;
    Some(Route {
        name,
        slot,
        referred: None,
        action,
        request_timeout,
        idle_timeout,
        policies,
        reach,
        hosts,
        candidates: candidates.into_iter().map(Arc::new).collect(),
    })
}

/// Whether a list is short enough; notes it if not.
fn fits(len: usize, most: usize, at: &FieldPath<'_>, out: &mut Violations) -> bool {
    if len > most {
        let message = format!("{len} entries are too many, at most {most} are allowed");
        out.push(at, ViolationCode::OutOfRange, message);
    }
    len <= most
}

fn reach(
    listeners: &[String],
    at: &FieldPath<'_>,
    references: &mut References<'_>,
    out: &mut Violations,
) -> Reach {
    if listeners.is_empty() || !fits(listeners.len(), MAX_LISTENERS, at, out) {
        return Reach::Implicit;
    }
    let mut slots: Vec<ListenerSlot> = Vec::with_capacity(listeners.len());
    for (index, text) in listeners.iter().enumerate() {
        let at = at.index(index);
        let Some(object) = references.resolve(Kind::Listener, text, &at, out) else { continue };
        let Checked::Listener(listener) = &object.checked else { continue };
        if slots.contains(&listener.slot) {
            out.push(&at, ViolationCode::Duplicate, format!("{text:?} is already in this list"));
            continue;
        }
        slots.push(listener.slot);
    }
    Reach::Named(slots.into())
}

fn hosts(texts: &[String], at: &FieldPath<'_>, out: &mut Violations) -> Arc<[HostPattern]> {
    if texts.is_empty() || !fits(texts.len(), MAX_HOSTS, at, out) {
        return Arc::new([HostPattern::Any]);
    }
    let mut hosts: Vec<(usize, HostPattern)> = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let at = at.index(index);
        let Some(host) = out.ok(&at, HostPattern::parse(text)) else { continue };
        if let Some((first, _)) = hosts.iter().find(|(_, other)| *other == host) {
            let message = format!("{text:?} is the same host as hosts[{first}]");
            out.push(&at, ViolationCode::Duplicate, message);
            continue;
        }
        hosts.push((index, host));
    }
    hosts.into_iter().map(|(_, host)| host).collect()
}

/// One for each entry of `matches`; one that takes everything if there is none.
fn candidates(
    name: &Arc<str>,
    spec: &wire::RouteSpec,
    at: &FieldPath<'_>,
    out: &mut Violations,
) -> Vec<Candidate> {
    let everything = [wire::Match::default()];
    let matches = match &*spec.matches {
        [] => &everything,
        matches if fits(matches.len(), MAX_MATCHES, at, out) => matches,
        _ => &everything,
    };
    let mut candidates: Vec<Candidate> = Vec::with_capacity(matches.len());
    for (index, spec_match) in matches.iter().enumerate() {
        let at = at.index(index);
        let faults = out.len();
        let path = path(spec_match.path.as_ref(), &at.field("path"), out);
        let conditions = conditions(spec_match, &at, out);
        let same = |other: &&Candidate| other.path == path && *other.conditions() == conditions;
        // What is faulty was left out and says nothing about sameness.
        if out.len() == faults
            && let Some(first) = candidates.iter().find(same)
        {
            let message = format!("this entry asks for the same as matches[{}], drop one", first.index);
            out.push(&at, ViolationCode::Duplicate, message);
        }
        candidates.push(Candidate {
            name: Arc::clone(name),
            index: index as u32,
            priority: spec.priority,
            path,
            count: conditions.count(),
            conditions: (conditions != Conditions::NONE).then(|| Box::new(conditions)),
        });
    }
    candidates
}

fn path(spec: Option<&wire::PathMatch>, at: &FieldPath<'_>, out: &mut Violations) -> PathPattern {
    let Some(spec) = spec else { return PathPattern::Any };
    let parsed = match &spec.kind {
        None => {
            out.push(
                at,
                ViolationCode::Required,
                "name one of exact, prefix, template, regex, or leave path out",
            );
            None
        }
        Some(path_match::Kind::Exact(text)) => out.ok(&at.field("exact"), PathPattern::exact(text)),
        Some(path_match::Kind::Prefix(text)) => out.ok(&at.field("prefix"), PathPattern::prefix(text)),
        Some(path_match::Kind::Template(text)) => out.ok(&at.field("template"), PathPattern::template(text)),
        Some(path_match::Kind::Regex(text)) => out.ok(&at.field("regex"), PathPattern::regex(text)),
    };
    parsed.unwrap_or(PathPattern::Any)
}

fn conditions(spec: &wire::Match, at: &FieldPath<'_>, out: &mut Violations) -> Conditions {
    let methods = methods(&spec.methods, &at.field("methods"), out);
    let header = |name: &str| {
        http::HeaderName::from_bytes(name.as_bytes())
            .map(|name| name.as_str().into())
            .map_err(|_| format!("invalid header name {name:?}"))
    };
    let headers = values(&spec.headers, &at.field("headers"), header, out);
    let parameter = |name: &str| match name {
        "" => Err("a query parameter has a name".to_owned()),
        name => Ok(name.into()),
    };
    let query = values(&spec.query, &at.field("query"), parameter, out);
    Conditions { methods, headers, query, sources: sources(&spec.sources, &at.field("sources"), out) }
}

fn methods(texts: &[String], at: &FieldPath<'_>, out: &mut Violations) -> Methods {
    if !fits(texts.len(), MAX_CONDITIONS, at, out) {
        return Methods::default();
    }
    let mut tokens: Vec<&str> = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let at = at.index(index);
        let upper = text.to_ascii_uppercase();
        if http::Method::from_bytes(text.as_bytes()).is_err() || text.len() > MAX_METHOD_BYTES {
            out.push(
                &at,
                ViolationCode::Invalid,
                format!("invalid method {text:?}, expected a token such as GET"),
            );
        } else if *text != upper && matches!(Method::of(upper.as_bytes()), Method::Known(_)) {
            // RFC 9110 §9.1: methods are case-sensitive, `get` would never match what clients send.
            out.push(
                &at,
                ViolationCode::Invalid,
                format!("invalid method {text:?}, did you mean {upper:?}?"),
            );
        } else if tokens.contains(&text.as_str()) {
            out.push(&at, ViolationCode::Duplicate, format!("{text:?} is already in this list"));
        } else {
            tokens.push(text);
        }
    }
    Methods::new(tokens)
}

fn values(
    specs: &[wire::ValueMatch],
    at: &FieldPath<'_>,
    name: impl Fn(&str) -> Result<Box<str>, String>,
    out: &mut Violations,
) -> Vec<ValueCondition> {
    if !fits(specs.len(), MAX_CONDITIONS, at, out) {
        return Vec::new();
    }
    let mut conditions: Vec<ValueCondition> = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        let at = at.index(index);
        let name = out.ok(&at.field("name"), bounded(&spec.name).and_then(&name));
        let test = test(spec, &at, out);
        let (Some(name), Some(test)) = (name, test) else { continue };
        let condition = ValueCondition { name, test };
        if conditions.contains(&condition) {
            out.push(&at, ViolationCode::Duplicate, "the same condition is already in this list");
            continue;
        }
        conditions.push(condition);
    }
    // In one order, so that two candidates with the same conditions compare equal.
    conditions.sort_by_cached_key(|condition| (condition.name.clone(), condition.test.to_string()));
    conditions
}

fn test(spec: &wire::ValueMatch, at: &FieldPath<'_>, out: &mut Violations) -> Option<Test> {
    match &spec.kind {
        None => {
            out.push(at, ViolationCode::Required, "name one of exact, prefix, regex, present");
            None
        }
        Some(value_match::Kind::Exact(text)) => {
            out.ok(&at.field("exact"), bounded(text)).map(|text| Test::Exact(text.into()))
        }
        Some(value_match::Kind::Prefix(text)) => {
            out.ok(&at.field("prefix"), bounded(text)).map(|text| Test::Prefix(text.into()))
        }
        Some(value_match::Kind::Regex(text)) => {
            let regex = out.ok(&at.field("regex"), bounded(text).and_then(value::whole_regex))?;
            Some(Test::Regex(Pattern { text: text.as_str().into(), regex }))
        }
        Some(value_match::Kind::Present(present)) => Some(Test::Present(*present)),
    }
}

fn bounded(text: &str) -> Result<&str, String> {
    if text.len() <= MAX_CONDITION_BYTES {
        return Ok(text);
    }
    Err(format!("a text of {} bytes is too long, at most {MAX_CONDITION_BYTES}", text.len()))
}

fn sources(texts: &[String], at: &FieldPath<'_>, out: &mut Violations) -> Vec<ipnet::IpNet> {
    if !fits(texts.len(), MAX_SOURCES, at, out) {
        return Vec::new();
    }
    let mut sources: Vec<ipnet::IpNet> = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let at = at.index(index);
        let Some(source) = out.ok(&at, value::cidr(text)) else { continue };
        if sources.contains(&source) {
            out.push(&at, ViolationCode::Duplicate, format!("{text:?} is already in this list"));
            continue;
        }
        sources.push(source);
    }
    sources.sort_unstable();
    sources
}
