//! Explain: the reasons behind a decision. The winner comes from the same code as [`Engine::find`]; the losers are
//! found by walking over every route of the listener, which only people ask for.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use gateway_proto::DEFAULT_NAMESPACE;
use gateway_proto::admin::{self, AppliedPolicy, Explanation};

use super::condition::{Method, Miss};
use super::find::{self, Contender, Found};
use super::pattern::HostLevel;
use super::{Candidate, HostPattern, Reach, RequestView, Route};
use crate::engine::Engine;
use crate::listener::Listener;
use crate::path;
use crate::policy::Level;
use crate::policy::chain::{Applied, Chain};

/// Most losers that are shown.
const MAX_LOSERS: usize = 50;

/// A request that cannot be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// The listener asked for does not exist.
    #[error("there is no Listener {0}")]
    NoListener(String),
    /// The client address is none.
    #[error("invalid source {0:?}, expected an IP address")]
    BadSource(String),
    /// The method is no token.
    #[error("invalid method {0:?}, expected a token such as GET")]
    BadMethod(String),
}

type Headers = [(String, String)];

/// Why a candidate does not match. The further it came, the earlier it is shown.
enum Loss<'c> {
    Condition(Miss<'c>),
    Path,
    Host,
}

impl Loss<'_> {
    const fn order(&self) -> u8 {
        match self {
            Loss::Condition(_) => 0,
            Loss::Path => 1,
            Loss::Host => 2,
        }
    }

    fn reason(&self, route: &Route, candidate: &Candidate, request: &RequestView<'_, Headers>) -> String {
        match self {
            Loss::Host => {
                let hosts: Vec<String> = route.hosts.iter().take(5).map(ToString::to_string).collect();
                format!("host {:?} is not {}", request.host, hosts.join(" or "))
            }
            Loss::Path => format!("path {:?} does not match {}", request.path, candidate.path),
            Loss::Condition(Miss::Method) => {
                let mut allow = super::Allow::default();
                allow.add(&candidate.conditions().methods);
                format!("method {} is not one of {allow}", String::from_utf8_lossy(request.method))
            }
            Loss::Condition(Miss::Header(condition)) => {
                format!("header {} does not hold: {}", condition.name, condition.test)
            }
            Loss::Condition(Miss::Query(condition)) => {
                format!("query parameter {} does not hold: {}", condition.name, condition.test)
            }
            Loss::Condition(Miss::Source) => format!("client {} is in none of the sources", request.source),
        }
    }
}

impl Engine {
    /// Tells what would be done with a request, on the listener it names or on every one (by name), and why.
    ///
    /// # Errors
    /// When the listener does not exist, or source or method are malformed. A malformed host or path is an answer:
    /// status 400.
    pub fn explain(&self, request: &admin::ExplainRequest) -> Result<Vec<Explanation>, ExplainError> {
        let mut listeners: Vec<&Arc<Listener>> = match &request.listener {
            None => self.listeners().collect(),
            Some(text) => {
                let qualified =
                    if text.contains('/') { text.clone() } else { format!("{DEFAULT_NAMESPACE}/{text}") };
                vec![self.listener(&qualified).ok_or(ExplainError::NoListener(qualified))?]
            }
        };
        listeners.sort_unstable_by(|one, two| one.name.cmp(&two.name));
        let source = match &request.source {
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Some(text) => text.parse().map_err(|_| ExplainError::BadSource(text.clone()))?,
        };
        if http::Method::from_bytes(request.method.as_bytes()).is_err() {
            return Err(ExplainError::BadMethod(request.method.clone()));
        }
        let (raw_path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let (mut host_scratch, mut path_scratch) = (Vec::new(), Vec::new());
        let host = path::host(request.host.as_bytes(), &mut host_scratch);
        let path = path::normalize(raw_path.as_bytes(), &mut path_scratch);
        let (Ok(host), Ok(path)) = (host, path) else {
            let path = path.ok();
            return Ok(listeners.into_iter().map(|listener| malformed(listener, path)).collect());
        };
        let method = routed_method(request);
        let view = RequestView {
            method: method.as_bytes(),
            host,
            path,
            query: query.as_bytes(),
            source,
            headers: &*request.headers,
        };
        Ok(listeners.into_iter().map(|listener| self.explain_on(listener, &view)).collect())
    }

    fn explain_on(&self, listener: &Listener, request: &RequestView<'_, Headers>) -> Explanation {
        let (tables, seed) = (self.tables(listener), self.seed());
        let winner = find::winner(tables, seed, request);
        let route = winner.map(|found| &found.entry.route);
        let winner = winner.map(Found::contender);
        let levels = match route {
            Some(route) => self.levels(listener, route),
            None => self.levels_without_route(listener),
        };
        let route_name = route.map_or("", |route| &route.name);
        let policies =
            Chain::new(levels).applied().map(|applied| shown(applied, listener, route_name)).collect();
        let mut allow = Vec::new();
        if winner.is_none() {
            allow.extend(find::allowed(tables, seed, request).iter().map(str::to_owned));
        }
        let status = match (winner, allow.is_empty()) {
            (Some(_), _) => None,
            (None, false) => Some(405),
            (None, true) => Some(404),
        };
        Explanation {
            listener: listener.name.to_string(),
            normalized_path: Some(request.path.to_owned()),
            winner: winner.map(|found| described(found.candidate, won(&found))),
            status,
            allow,
            losers: self.losers(listener, request, winner),
            policies,
            action: route.map(|route| route.action.to_string()),
        }
    }

    fn losers(
        &self,
        listener: &Listener,
        request: &RequestView<'_, Headers>,
        winner: Option<Contender<'_>>,
    ) -> Vec<admin::Candidate> {
        let mut complete: Vec<Contender<'_>> = Vec::new();
        let mut missed = Vec::new();
        for route in self.routes().filter(|route| is_reached(route, listener)) {
            let level =
                route.hosts.iter().filter(|host| host.matches(request.host)).map(HostPattern::level).max();
            for candidate in &*route.candidates {
                if winner.is_some_and(|winner| Arc::ptr_eq(winner.candidate, candidate)) {
                    continue;
                }
                match judge(candidate, level, request) {
                    Ok(level) => complete.push(Contender { candidate, level }),
                    Err(loss) => missed.push((loss, route, candidate)),
                }
            }
        }
        complete.sort_unstable_by(|one, two| two.rank(one));
        missed.sort_by(|(one_loss, _, one), (two_loss, _, two)| {
            one_loss.order().cmp(&two_loss.order()).then_with(|| one.rank(two))
        });
        let outranked = complete
            .into_iter()
            .filter_map(|found| Some(described(found.candidate, outranked(&found, &winner?))));
        let missed = missed
            .into_iter()
            .map(|(loss, route, candidate)| described(candidate, loss.reason(route, candidate, request)));
        outranked.chain(missed).take(MAX_LOSERS).collect()
    }
}

/// A preflight is routed by the method it asks about (Fetch standard, CORS-preflight request).
fn routed_method(request: &admin::ExplainRequest) -> &str {
    let header = |wanted: &str| {
        request
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.as_str())
    };
    match (header("origin"), header("access-control-request-method")) {
        (Some(_), Some(method)) if request.method == "OPTIONS" => method,
        _ => &request.method,
    }
}

/// A malformed host or path is answered before any route is looked for.
fn malformed(listener: &Listener, path: Option<&str>) -> Explanation {
    Explanation {
        listener: listener.name.to_string(),
        normalized_path: path.map(str::to_owned),
        winner: None,
        status: Some(400),
        allow: Vec::new(),
        losers: Vec::new(),
        policies: Vec::new(),
        action: None,
    }
}

fn is_reached(route: &Route, listener: &Listener) -> bool {
    match &route.reach {
        Reach::Named(slots) => slots.contains(&listener.slot),
        Reach::Implicit => {
            listener.namespace() == DEFAULT_NAMESPACE || listener.namespace() == route.namespace()
        }
    }
}

fn judge<'c>(
    candidate: &'c Candidate,
    level: Option<HostLevel>,
    request: &RequestView<'_, Headers>,
) -> Result<HostLevel, Loss<'c>> {
    let level = level.ok_or(Loss::Host)?;
    if !candidate.path.matches(request.path) {
        return Err(Loss::Path);
    }
    match candidate.conditions().miss(request, Method::of(request.method)) {
        Some(miss) => Err(Loss::Condition(miss)),
        None => Ok(level),
    }
}

fn described(candidate: &Candidate, reason: String) -> admin::Candidate {
    admin::Candidate { route: candidate.name.to_string(), match_index: candidate.index, reason }
}

fn won(found: &Contender<'_>) -> String {
    let candidate = found.candidate;
    format!(
        "matches by {}, priority {}, {} further conditions",
        candidate.path, candidate.priority, candidate.count
    )
}

/// The first step of the winner rule that decided.
fn outranked(loser: &Contender<'_>, winner: &Contender<'_>) -> String {
    let (lost, won) = (loser.candidate, winner.candidate);
    let why = if lost.priority != won.priority {
        format!("priority {} over {}", won.priority, lost.priority)
    } else if loser.level != winner.level {
        "a more specific host".to_owned()
    } else if lost.path.specificity(&won.path).is_ne() {
        format!("{} is more specific than {}", won.path, lost.path)
    } else if lost.count != won.count {
        format!("{} conditions over {}", won.count, lost.count)
    } else {
        "it comes first by name".to_owned()
    };
    format!("outranked by {} matches[{}]: {why}", won.name, won.index)
}

fn shown(applied: Applied<'_>, listener: &Listener, route: &str) -> AppliedPolicy {
    let global = matches!(applied.level, Level::Global | Level::Namespace);
    let from = match (applied.level, applied.policy) {
        (_, Some(policy)) if global => format!("global Policy {policy}"),
        (Level::Listener, Some(policy)) => format!("Policy {policy} of Listener {}", listener.name),
        (Level::Listener, None) => format!("Listener {}", listener.name),
        // Nobody asks here, so that no consumer's policies are among them.
        (_, Some(policy)) => format!("Policy {policy} of Route {route}"),
        (_, None) => format!("Route {route}"),
    };
    AppliedPolicy { policy: applied.kind.name().to_owned(), from }
}

#[cfg(test)]
mod tests;
