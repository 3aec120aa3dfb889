//! Which listeners of a configuration this data plane has sockets for. Binding comes before the swap, opening and
//! closing after it, so that a connection finds its listener in the live snapshot.
//!
//! Invariant: a listener that only changes its name, or what it speaks, keeps its very sockets, so that no connection
//! waiting in their queues is reset; that is what the second handle kept of each is for. It is dropped before the workers
//! close theirs. What was accepted before such a change ends like the connections of a listener that leaves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use gateway_engine::engine::Engine;
use gateway_engine::listener::Listener;
use gateway_proto::field::{Violation, ViolationCode};
use gateway_proto::kind::{Key, Kind};

use crate::runtime::Workers;
use crate::server::listener::{BindError, Bound, bind, bind_beside};

/// The sockets of one data plane.
#[derive(Debug)]
pub(super) struct Sockets {
    group: String,
    workers: NonZeroUsize,
    open: BTreeMap<Arc<str>, Open>,
    /// Bound for the next swap.
    fresh: BTreeMap<Arc<str>, (Open, Bound)>,
    /// To be closed after the next swap.
    leaving: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Open {
    asked: Asked,
    /// As it is, with a handle of each socket.
    bound: Bound,
}

/// What is configured of a listener's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    /// The port may be 0.
    address: SocketAddr,
    /// It speaks TLS.
    tls: bool,
}

impl Sockets {
    /// None yet.
    pub(super) fn new(group: &str, workers: NonZeroUsize) -> Self {
        Sockets {
            group: group.to_owned(),
            workers,
            open: BTreeMap::new(),
            fresh: BTreeMap::new(),
            leaving: Vec::new(),
        }
    }

    /// What is bound, by `namespace/name`.
    pub(super) fn bound(&self) -> BTreeMap<String, SocketAddr> {
        self.open.iter().map(|(name, open)| (name.to_string(), open.bound.address())).collect()
    }

    /// Binds what a configuration needs and this process does not have. Returns what could not be bound, per
    /// listener; the rest is kept for [`Sockets::switch`] or the next call.
    pub(super) fn bind(&mut self, engine: &Engine) -> Vec<Violation> {
        let takes = |group: &Option<Arc<str>>| group.as_deref().is_none_or(|group| group == self.group);
        let asked = |listener: &Listener| Asked { address: listener.address, tls: listener.tls.is_some() };
        let wanted: BTreeMap<Arc<str>, Asked> = engine
            .listeners()
            .filter(|listener| takes(&listener.group))
            .map(|listener| (Arc::clone(&listener.name), asked(listener)))
            .collect();
        self.fresh.retain(|name, (open, _)| wanted.get(name) == Some(&open.asked));
        let stays = |(name, open): &(&Arc<str>, &Open)| wanted.get(*name) == Some(&open.asked);
        self.leaving = self.open.iter().filter(|it| !stays(it)).map(|(name, _)| Arc::clone(name)).collect();
        let mut failed = Vec::new();
        for (name, asked) in wanted {
            let has = self.open.get(&name).is_some_and(|open| open.asked == asked);
            if has || self.fresh.contains_key(&name) {
                continue;
            }
            match self.bind_one(&name, asked) {
                Ok(fresh) => drop(self.fresh.insert(name, fresh)),
                Err(error) => failed.push(violation(&name, &error)),
            }
        }
        failed
    }

    /// Opens what was bound and closes what is not configured any more. To be called after the swap.
    pub(super) async fn switch(&mut self, workers: &Workers) {
        for name in std::mem::take(&mut self.leaving) {
            if let Some(open) = self.open.remove(&name) {
                tracing::info!(listener = %name, address = %open.bound.address(), "closing listener");
            }
            workers.close(&name).await;
        }
        for (name, (open, bound)) in std::mem::take(&mut self.fresh) {
            workers.open(&name, bound).await;
            tracing::info!(listener = %name, address = %open.bound.address(), "listening");
            self.open.insert(name, open);
        }
    }

    fn bind_one(&self, name: &str, asked: Asked) -> Result<(Open, Bound), BindError> {
        let bound = match self.open.get(name).filter(|open| open.asked.address == asked.address) {
            Some(open) => open.bound.try_clone()?,
            None => self.bind_new(asked.address)?,
        };
        Ok((Open { asked, bound: bound.try_clone()? }, bound))
    }

    fn bind_new(&self, asked: SocketAddr) -> Result<Bound, BindError> {
        let leaving = self.leaving.iter().filter_map(|name| self.open.get(name));
        // What leaves on the same port makes room (compile has checked that no two stay there).
        let mut beside =
            leaving.filter(|open| asked.port() != 0 && open.bound.address().port() == asked.port());
        match beside.clone().find(|open| open.bound.address() == asked) {
            Some(same) => same.bound.try_clone(),
            None if beside.next().is_some() => bind_beside(asked, self.workers),
            None => bind(asked, self.workers),
        }
    }
}

fn violation(name: &str, error: &BindError) -> Violation {
    let (namespace, name) = name.split_once('/').unwrap_or_default();
    let code = if error.is_taken() { ViolationCode::PortInUse } else { ViolationCode::BindFailed };
    let advice = if error.is_taken() { ": another process has this port" } else { "" };
    Violation {
        object: Key::new(Kind::Listener, namespace, name),
        field: "spec.port".to_owned(),
        code,
        message: format!("{error}{advice}, trying again every 5 s"),
    }
}
