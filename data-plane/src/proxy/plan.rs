//! The plan for a request: normal form, route, policies, action. All of it is decided here, before anything is sent,
//! from the head and one pinned snapshot; nothing waits.

use std::sync::Arc;
use std::time::Duration;

use gateway_engine::action::{Action, Forward, HostHeader, Redirect, Respond};
use gateway_engine::context::{Ctx, Notes, Param};
use gateway_engine::head::{Head, HeadParts};
use gateway_engine::path;
use gateway_engine::policy::chain::Chain;
use gateway_engine::policy::{Flow, Kind};
use gateway_engine::reject::Reason;
use gateway_engine::route::{Lookup, Match, RequestView, Route};
use gateway_engine::upstream::Protocol;
use gateway_http1::{Framing, KnownField, Method};
use http::Request;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::client::Asked;
use super::heads::{self, Hop};
use super::identity::{self, Origin};
use super::{Exchange, Job, date};
use crate::http2::fields;
use crate::runtime::Worker;
use crate::server::listener::View;
use crate::telemetry::metrics::Phase;
use crate::upstream::Picked;

/// What to do.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Ask the target that was picked; the request's head is written.
    Forward,
    /// Send the response that the exchange holds.
    Answer,
    /// Refuse it.
    Refuse(Reason),
}

/// What holds for the request from here on.
#[derive(Debug)]
pub(crate) struct Course<'v> {
    view: &'v View,
    /// The policies.
    chain: Chain<'v>,
    /// The route; `None` if there is none.
    pub(crate) route: Option<&'v Arc<Route>>,
    /// The client.
    pub(crate) origin: Origin,
    /// Largest request body.
    pub(crate) max_body: u64,
}

/// Makes the plan. `wire` holds the bytes that the request head's wire texts point into; `target` is where to put the
/// one that is picked.
pub(crate) fn plan<'v>(
    job: &mut Job<'_>,
    view: &'v View,
    wire: &[u8],
    target: &mut Option<Picked>,
) -> (Course<'v>, Plan) {
    job.exchange.response.clear();
    let Exchange { request, id, introduction, .. } = &mut *job.exchange;
    heads::add(request, KnownField::XRequestId, |out| out.extend_from_slice(id.as_bytes()));
    let origin = identity::introduce(introduction, request, wire, &job.asked, &view.listener.http);
    let located = locate(job, view, wire, origin);
    job.lap(Phase::Route);
    match located {
        Ok(found) => {
            let mut course = Course::by_route(view, origin, found.route);
            let plan = pass(job, wire, &mut course, &found, target);
            (course, plan)
        }
        Err(reason) => {
            let course = Course::without_route(view, origin);
            course.note(job, wire);
            (course, Plan::Refuse(reason))
        }
    }
}

/// Brings host and path into the one form and finds the route.
fn locate<'v>(job: &mut Job<'_>, view: &'v View, wire: &[u8], origin: Origin) -> Result<Match<'v>, Reason> {
    let Exchange { request, response, authority, host, path, scratch, .. } = &mut *job.exchange;
    let mut head = Head::new(wire, request);
    normalize(&mut head, authority, host, path, scratch)?;
    if job.asked.method == Method::Connect {
        return Err(Reason::NotImplemented);
    }
    let mut sought = RequestView {
        method: sought_method(&head, job.asked.method),
        host,
        path,
        query: head.query().unwrap_or_default(),
        source: origin.ip,
        headers: &head,
    };
    let engine = &view.snapshot.engine;
    let mut lookup = engine.find(&view.listener, &sought);
    if sought.method != head.method() && !matches!(&lookup, Lookup::Found(found) if has_cors(view, found)) {
        // Nobody answers it as a preflight: it is an OPTIONS request like any other.
        sought.method = head.method();
        lookup = engine.find(&view.listener, &sought);
    }
    match lookup {
        Lookup::Found(found) => Ok(found),
        Lookup::NotFound => Err(Reason::NoRoute),
        Lookup::MethodNotAllowed(allow) => {
            Head::new(b"", response).add("allow", allow.to_string().as_bytes());
            Err(Reason::MethodNotAllowed)
        }
    }
}

fn normalize(
    head: &mut Head<'_>,
    authority: &mut Vec<u8>,
    host: &mut String,
    path: &mut String,
    scratch: &mut Vec<u8>,
) -> Result<(), Reason> {
    // Of the request before: not to be told of this one if it is refused here.
    path.clear();
    // Most often it is the one that was asked for last.
    if authority != head.authority() {
        authority.clear();
        host.clear();
        host.push_str(path::host(head.authority(), scratch).map_err(|_bad| Reason::BadRequest)?);
        authority.extend_from_slice(head.authority());
    }
    if head.path() == b"*" {
        // About the server as a whole (RFC 9110 §9.3.7): no route has that path.
        return Err(Reason::NoRoute);
    }
    let normal = path::normalize(head.path(), scratch).map_err(|_bad| Reason::BadRequest)?;
    path.push_str(normal);
    // It is borrowed where it was in that form.
    if !std::ptr::eq(normal.as_bytes(), head.path()) {
        head.set_path(path.as_bytes());
    }
    Ok(())
}

/// A CORS preflight is routed by the method it asks about (contract, "Matching").
fn sought_method<'h>(head: &'h Head<'_>, method: Method) -> &'h [u8] {
    if method == Method::Options && head.contains("origin") {
        return head.get("access-control-request-method").unwrap_or_else(|| head.method());
    }
    head.method()
}

/// The route answers preflights itself.
fn has_cors(view: &View, found: &Match<'_>) -> bool {
    let levels = view.snapshot.engine.levels(&view.listener, found.route);
    Chain::new(levels).applied().any(|policy| policy.kind == Kind::Cors)
}

/// What the route's action works with.
struct Scene<'s, 'h> {
    ctx: Ctx<'s>,
    head: Head<'h>,
    response: &'s mut HeadParts,
    scratch: &'s mut Vec<u8>,
    body: &'s mut Vec<u8>,
    to_target: &'s mut Vec<u8>,
    to_session: &'s mut Option<Request<()>>,
    target: &'s mut Option<Picked>,
}

/// Runs the request side of the policies, then the action.
fn pass(
    job: &mut Job<'_>,
    wire: &[u8],
    course: &mut Course<'_>,
    found: &Match<'_>,
    target: &mut Option<Picked>,
) -> Plan {
    let view = course.view;
    let Exchange { request, response, notes, id, path, scratch, body, to_target, to_session, .. } =
        &mut *job.exchange;
    let params: SmallVec<[Param<'_>; 8]> = found.params(path).collect();
    let ctx = Ctx {
        request_id: id,
        client_ip: course.origin.ip,
        scheme: course.origin.scheme,
        listener: &view.listener.name,
        route: &found.route.name,
        params: &params,
        matched_prefix: found.matched_prefix(),
        elapsed: Duration::ZERO,
        now: if course.chain.asks_the_time() { date::now() } else { 0 },
        notes,
    };
    let head = Head::new(wire, request);
    let mut scene = Scene { ctx, head, response, scratch, body, to_target, to_session, target };
    if !course.chain.is_empty() {
        let flow = course.chain.request(&mut scene.ctx, &mut scene.head);
        scene.ctx.notes.auth_results().for_each(|(scheme, result)| job.worker.metrics.auth(scheme, result));
        match flow {
            Flow::Continue => {}
            Flow::Reject(reason) => return Plan::Refuse(reason),
            Flow::Respond(status) => {
                scene.response.set_status(status);
                return Plan::Answer;
            }
        }
    }
    course.max_body = course.chain.max_body_bytes(view.listener.http.max_body_bytes);
    if matches!(job.asked.framing, Framing::Length(length) if length > course.max_body) {
        return Plan::Refuse(Reason::BodyTooLarge);
    }
    match &found.route.action {
        Action::Forward(forward) => scene.forward(job.worker, view, found.route, forward, &job.asked),
        Action::Redirect(redirect) => scene.redirect(redirect),
        Action::Respond(respond) => scene.respond(respond),
    }
}

impl Scene<'_, '_> {
    /// Picks a target and writes the head of the request to it.
    fn forward(
        &mut self,
        worker: &Worker,
        view: &View,
        route: &Route,
        forward: &Forward,
        asked: &Asked,
    ) -> Plan {
        let turn = if forward.backends().len() > 1 { worker.turn(route.slot) } else { 0 };
        // Compile saw to it that the upstream is there.
        let spec = view.snapshot.engine.upstream(forward.pick(turn));
        let Some(running) = spec.map(|spec| worker.upstreams.get(spec)) else {
            return Plan::Refuse(Reason::NoHealthyTarget);
        };
        let Some(picked) = running.pick() else {
            return Plan::Refuse(running.nothing_to_pick());
        };
        let label = picked.upstream.label(picked.target).as_bytes();
        let host = match &forward.host {
            // An HTTP/1.0 client need not name a host; HTTP/1.1 does not go without.
            HostHeader::Preserve if self.head.authority().is_empty() => label,
            HostHeader::Preserve => self.head.authority(),
            HostHeader::Upstream => label,
            HostHeader::Literal(host) => host.as_bytes(),
        };
        let hop = Hop {
            host,
            framing: asked.framing,
            trailers: asked.trailers,
            upgrade: asked.upgrade.map(|protocol| self.head.bytes(protocol)),
        };
        match picked.upstream.spec().protocol {
            Protocol::Http1 => {
                self.to_target.clear();
                if heads::write_request(&self.head, hop, self.to_target).is_err() {
                    return Plan::Refuse(Reason::BadRequest);
                }
            }
            // Another protocol inside a stream takes an extended CONNECT (RFC 8441), not an upgrade.
            Protocol::Http2 if hop.upgrade.is_some() => return Plan::Refuse(Reason::NotImplemented),
            Protocol::Http2 => match fields::request(&self.head, host, hop.framing, hop.trailers) {
                Ok(request) => *self.to_session = Some(request),
                Err(_unfit) => return Plan::Refuse(Reason::BadRequest),
            },
        }
        *self.target = Some(picked);
        Plan::Forward
    }

    fn redirect(&mut self, redirect: &Redirect) -> Plan {
        self.scratch.clear();
        if let Err(reason) = redirect.location(&self.ctx, &mut self.head, self.scratch) {
            return Plan::Refuse(reason);
        }
        let mut answer = Head::new(b"", self.response);
        answer.set_status(redirect.status());
        answer.add("location", self.scratch);
        Plan::Answer
    }

    fn respond(&mut self, respond: &Respond) -> Plan {
        respond.render(&self.ctx, &self.head, &mut Head::new(b"", self.response), self.body);
        Plan::Answer
    }
}

impl<'v> Course<'v> {
    /// For a request that no route takes, as far as is known.
    fn without_route(view: &'v View, origin: Origin) -> Self {
        let chain = Chain::new(view.snapshot.engine.levels_without_route(&view.listener));
        Course { view, chain, route: None, origin, max_body: u64::MAX }
    }

    fn by_route(view: &'v View, origin: Origin, route: &'v Arc<Route>) -> Self {
        let chain = Chain::new(view.snapshot.engine.levels(&view.listener, route));
        Course { view, chain, route: Some(route), origin, max_body: u64::MAX }
    }

    /// Nobody but the gateway says who asks, in trailers neither.
    pub(crate) fn guards_identity(&self) -> bool {
        self.chain.guards_identity()
    }

    /// From the end of the request's body to the response's head.
    pub(crate) fn request_timeout(&self) -> Option<Duration> {
        self.route.and_then(|route| route.request_timeout)
    }

    /// Without a byte either way.
    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        match self.route {
            Some(route) => route.idle_timeout,
            None => Some(self.view.listener.http.idle_timeout).filter(|timeout| !timeout.is_zero()),
        }
    }

    /// Lets the policies note what the response pass needs, of a request that is refused before they run.
    fn note(&self, job: &mut Job<'_>, wire: &[u8]) {
        if self.chain.is_empty() {
            return;
        }
        let Exchange { request, notes, id, .. } = &mut *job.exchange;
        self.chain.begin(&mut self.ctx(id, notes, Duration::ZERO), &Head::new(wire, request));
    }

    /// The response side, at a moment that has just been: the gateway's own fields, then the policies. `wire` holds the bytes that the response
    /// head's wire texts point into.
    pub(crate) fn pass_back(&self, job: &mut Job<'_>, wire: &[u8], now: Instant) {
        let Exchange { response, notes, id, .. } = &mut *job.exchange;
        heads::add(response, KnownField::XRequestId, |out| out.extend_from_slice(id.as_bytes()));
        if Head::new(wire, response).fields().all(|field| field.tag != KnownField::Date as u8) {
            let date = |out: &mut Vec<u8>| job.worker.date.with(now, |date| out.extend_from_slice(date));
            heads::add(response, KnownField::Date, date);
        }
        if !self.chain.is_empty() {
            let ctx = &mut self.ctx(id, notes, now.duration_since(job.asked.started));
            self.chain.response(ctx, &mut Head::new(wire, response));
        }
    }

    fn ctx<'a>(&'a self, id: &'a str, notes: &'a mut Notes, elapsed: Duration) -> Ctx<'a> {
        Ctx {
            request_id: id,
            client_ip: self.origin.ip,
            scheme: self.origin.scheme,
            listener: &self.view.listener.name,
            route: self.route.map_or("", |route| &route.name),
            params: &[],
            matched_prefix: None,
            elapsed,
            now: 0,
            notes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_that_of_the_authority_whatever_was_asked_for_before() {
        let (mut authority, mut host, mut path, mut scratch) = Default::default();
        for (asked, expected) in [
            ("A.example:80", Some("a.example")),
            ("A.example:80", Some("a.example")),
            ("b.example", Some("b.example")),
            ("a..b", None),
            ("", Some("")),
            ("a..b", None),
            ("b.example", Some("b.example")),
        ] {
            let mut parts = HeadParts::new();
            let mut head = Head::new(b"", &mut parts);
            head.set_authority(asked.as_bytes());
            head.set_path(b"/");
            let normal = normalize(&mut head, &mut authority, &mut host, &mut path, &mut scratch);
            assert_eq!(normal.ok().map(|()| host.as_str()), expected, "{asked:?}");
            assert_eq!(path.is_empty(), expected.is_none(), "{asked:?}: not the last one's");
        }
    }
}
