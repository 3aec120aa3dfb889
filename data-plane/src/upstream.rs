//! The side that targets see: which target a request goes to, and on which connection.
//!
//! [`Registry`] holds one worker's running state per upstream, by the engine's slot. It is built at first use and
//! rebuilt when the configuration of that upstream changes, or the set of its discovered endpoints; connections to addresses that stay are carried over.
//!
//! Invariant: nothing here is shared between workers but resolved names and discovered sets, which are read with one
//! atomic load.

pub(crate) mod balance;
pub(crate) mod discovered;
pub(crate) mod dns;
pub(crate) mod http2;
pub(crate) mod pool;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use gateway_engine::reject::Reason;
use gateway_engine::upstream::{Host, Target, Upstream};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::buffer;
use balance::Schedule;
use discovered::{Discovered, Place as Found};
use dns::{Name, Resolver};
use http2::Lease;
use pool::Pool;

/// One worker's upstreams.
#[derive(Debug)]
pub(crate) struct Registry {
    resolver: Arc<Resolver>,
    discovered: Arc<Discovered>,
    running: RefCell<Vec<Option<Rc<Running>>>>,
    /// Told when a connection is pooled.
    pooled: Rc<Notify>,
}

/// An upstream at work.
#[derive(Debug)]
pub(crate) struct Running {
    spec: Arc<Upstream>,
    /// Where its targets come from, if they are discovered.
    seen: Option<Seen>,
    schedule: Schedule,
    cursor: Cell<u32>,
    members: Vec<Member>,
    pooled: Rc<Notify>,
}

/// The set of discovered endpoints that an upstream runs by.
#[derive(Debug)]
struct Seen {
    place: Arc<Found>,
    version: u64,
    /// There is one.
    is_known: bool,
}

/// A target at work.
#[derive(Debug)]
struct Member {
    /// Its address as configured.
    label: Arc<str>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Fixed(SocketAddr, Rc<Pool>),
    Named { name: Arc<Name>, port: u16, cursor: Cell<usize>, pools: RefCell<Vec<(SocketAddr, Rc<Pool>)>> },
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) struct Picked {
    /// The upstream.
    pub(crate) upstream: Rc<Running>,
    /// Index of the target.
    pub(crate) target: usize,
    /// The address.
    pub(crate) address: SocketAddr,
    /// Idle connections to it.
    pub(crate) pool: Rc<Pool>,
}

impl Picked {
    /// A place on a connection that speaks HTTP/2.
    pub(crate) fn lease(&self, buffers: &Rc<buffer::Pool>) -> Lease {
        self.upstream.note_pooled();
        self.pool.sessions.lease(self.address, &self.upstream.spec, buffers)
    }
}

impl Registry {
    pub(crate) fn new(resolver: Arc<Resolver>, discovered: Arc<Discovered>) -> Self {
        Registry { resolver, discovered, running: RefCell::default(), pooled: Rc::default() }
    }

    /// The running state of an upstream.
    pub(crate) fn get(&self, spec: &Arc<Upstream>) -> Rc<Running> {
        let mut running = self.running.borrow_mut();
        let slot = spec.slot.0 as usize;
        if slot >= running.len() {
            running.resize(slot + 1, None);
        }
        match &running[slot] {
            Some(known) if Arc::ptr_eq(&known.spec, spec) && known.is_current() => Rc::clone(known),
            old => {
                let old = old.as_ref().filter(|old| old.spec.name == spec.name);
                let new = Rc::new(self.build(spec, old.map(|old| &**old)));
                running[slot] = Some(Rc::clone(&new));
                new
            }
        }
    }

    fn build(&self, spec: &Arc<Upstream>, old: Option<&Running>) -> Running {
        let mut found = None;
        let seen = spec.discovery.is_some().then(|| {
            let place = self.discovered.place(&spec.name);
            let version = place.version();
            found = place.get();
            Seen { place, version, is_known: found.is_some() }
        });
        let targets = found.as_ref().map_or(&*spec.targets, |found| &*found.0);
        let pools: HashMap<SocketAddr, Rc<Pool>> =
            old.map(Running::pools).unwrap_or_default().into_iter().collect();
        let member = |target: &Target| {
            let place = match &target.host {
                Host::Ip(address) => Place::Fixed(*address, pools.get(address).cloned().unwrap_or_default()),
                Host::Name(host, port) => Place::Named {
                    name: self.resolver.name(host),
                    port: *port,
                    cursor: Cell::new(0),
                    pools: RefCell::new(old.map(Running::pools).unwrap_or_default()),
                },
            };
            Member { label: target.host.to_string().into(), place }
        };
        Running {
            spec: Arc::clone(spec),
            seen,
            schedule: Schedule::new(targets.iter().map(|target| target.weight)),
            // Where the old one stood, so that a change of one target does not send a burst to the first.
            cursor: Cell::new(old.map_or(0, |old| old.cursor.get())),
            members: targets.iter().map(member).collect(),
            pooled: Rc::clone(&self.pooled),
        }
    }

    /// Waits until a connection is pooled.
    pub(crate) async fn pooled(&self) {
        self.pooled.notified().await;
    }

    /// Closes pooled connections that idled too long or were closed by the other side.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut left = false;
        for running in self.running.borrow().iter().flatten() {
            left |= running.sweep(now);
        }
        if left {
            self.pooled.notify_one();
        }
    }
}

impl Running {
    /// The configuration it runs by.
    pub(crate) fn spec(&self) -> &Arc<Upstream> {
        &self.spec
    }

    /// A target's address as configured.
    pub(crate) fn label(&self, target: usize) -> &Arc<str> {
        &self.members[target].label
    }

    /// No newer set of endpoints was discovered.
    #[inline]
    fn is_current(&self) -> bool {
        self.seen.as_ref().is_none_or(|seen| seen.place.version() == seen.version)
    }

    /// The next target in turn. `None` when no target has a weight, or none of the names in question has an address.
    pub(crate) fn pick(self: &Rc<Self>) -> Option<Picked> {
        // A name without addresses passes its turn on, once round at most.
        for _ in 0..self.members.len() {
            let target = self.schedule.next(&self.cursor)?;
            if let Some((address, pool)) = self.members[target].next() {
                return Some(Picked { upstream: Rc::clone(self), target, address, pool });
            }
        }
        None
    }

    /// Why there is nothing to pick.
    #[cold]
    pub(crate) fn nothing_to_pick(&self) -> Reason {
        match &self.seen {
            // Nobody has said yet where it runs.
            Some(seen) if !seen.is_known => Reason::NotReady,
            _ => Reason::NoHealthyTarget,
        }
    }

    /// Another address of the same target, after `picked` could not be connected to: names may have several.
    pub(crate) fn another(self: &Rc<Self>, picked: &Picked) -> Option<Picked> {
        let (address, pool) = self.members[picked.target].next()?;
        (address != picked.address).then(|| Picked { address, pool, ..picked.clone() })
    }

    /// Addresses that a target has.
    pub(crate) fn addresses(&self, target: usize) -> usize {
        match &self.members[target].place {
            Place::Fixed(..) => 1,
            Place::Named { name, .. } => name.addresses().len(),
        }
    }

    /// Tells the sweeper that a connection was pooled.
    pub(crate) fn note_pooled(&self) {
        self.pooled.notify_one();
    }

    fn pools(&self) -> Vec<(SocketAddr, Rc<Pool>)> {
        let mut all = Vec::new();
        for member in &self.members {
            match &member.place {
                Place::Fixed(address, pool) => all.push((*address, Rc::clone(pool))),
                Place::Named { pools, .. } => all.extend(pools.borrow().iter().cloned()),
            }
        }
        all
    }

    fn sweep(&self, now: Instant) -> bool {
        let mut left = false;
        for member in &self.members {
            match &member.place {
                Place::Fixed(_, pool) => left |= pool.sweep(now, self.spec.idle_timeout),
                Place::Named { name, port, pools, .. } => {
                    let addresses = name.addresses();
                    let known =
                        |address: &SocketAddr| address.port() == *port && addresses.contains(&address.ip());
                    pools.borrow_mut().retain(|(address, pool)| {
                        let busy = pool.sweep(now, self.spec.idle_timeout);
                        left |= busy;
                        busy || known(address)
                    });
                }
            }
        }
        left
    }
}

impl Member {
    fn next(&self) -> Option<(SocketAddr, Rc<Pool>)> {
        match &self.place {
            Place::Fixed(address, pool) => Some((*address, Rc::clone(pool))),
            Place::Named { name, port, cursor, pools } => {
                let addresses = name.addresses();
                let turn = cursor.get();
                cursor.set(turn.wrapping_add(1));
                let ip: IpAddr = *addresses.get(turn.checked_rem(addresses.len())?)?;
                let address = SocketAddr::new(ip, *port);
                let mut pools = pools.borrow_mut();
                if let Some((_, pool)) = pools.iter().find(|(of, _)| *of == address) {
                    return Some((address, Rc::clone(pool)));
                }
                let pool = Rc::<Pool>::default();
                pools.push((address, Rc::clone(&pool)));
                Some((address, pool))
            }
        }
    }
}

#[cfg(test)]
mod tests;
