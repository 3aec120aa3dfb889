//! Addresses of the targets that are given by name: looked up on the control runtime, again and again, and published
//! per name by one atomic store. A lookup that fails keeps the last addresses; a name that never had any gives none,
//! and its requests are answered with 503.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use gateway_engine::upstream::{Host, Target};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

/// Between two lookups of a name. The system's resolver does not tell how long an answer is good for.
const REFRESH: Duration = Duration::from_secs(15);
/// After one that failed.
const RETRY: Duration = Duration::from_secs(2);
/// Addresses used of one name.
const MAX_ADDRESSES: usize = 256;
/// Lookups at a time: each takes a thread.
const MAX_LOOKUPS: usize = 16;
/// How long [`Resolver::follow`] waits for first answers.
const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// A name and what it resolves to now.
#[derive(Debug)]
pub(crate) struct Name {
    host: Arc<str>,
    addresses: ArcSwap<Vec<IpAddr>>,
    /// Whether the first lookup is over, well or not.
    looked_up: watch::Sender<bool>,
}

impl Name {
    /// The addresses, sorted; empty while there are none.
    pub(crate) fn addresses(&self) -> Guard<Arc<Vec<IpAddr>>> {
        self.addresses.load()
    }
}

/// Looks up names in the background.
#[derive(Debug)]
pub(crate) struct Resolver {
    runtime: Handle,
    names: Mutex<HashMap<Arc<str>, Arc<Name>>>,
    lookups: Arc<Semaphore>,
}

impl Resolver {
    /// A resolver whose lookups run on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Arc<Self> {
        Arc::new(Resolver {
            runtime,
            names: Mutex::default(),
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
        })
    }

    /// Follows the names among these targets, and no others. Returns when each has been looked up once, or after two
    /// seconds: call it before the snapshot that needs them goes live.
    pub(crate) async fn follow<'a>(&self, targets: impl Iterator<Item = &'a Target>) {
        let mut names: HashMap<Arc<str>, Arc<Name>> = HashMap::new();
        for target in targets {
            if let Host::Name(host, _) = &target.host {
                names.entry(Arc::clone(host)).or_insert_with(|| self.name(host));
            }
        }
        let first_answers = async {
            for name in names.values() {
                // The sender lives as long as the name.
                let mut looked_up = name.looked_up.subscribe();
                let _sender_is_here = looked_up.wait_for(|over| *over).await;
            }
        };
        // Those that take longer are published when they come.
        let _late = tokio::time::timeout(FIRST_ANSWER, first_answers).await;
        *self.names() = names;
    }

    /// Begins to look up the names among these targets, and does not wait.
    pub(crate) fn begin<'a>(&self, targets: impl Iterator<Item = &'a Target>) {
        for target in targets {
            if let Host::Name(host, _) = &target.host {
                let _followed = self.name(host);
            }
        }
    }

    /// A name, looked up from now on.
    pub(crate) fn name(&self, host: &Arc<str>) -> Arc<Name> {
        let mut names = self.names();
        if let Some(name) = names.get(host) {
            return Arc::clone(name);
        }
        let looked_up = watch::Sender::new(false);
        let name = Arc::new(Name { host: Arc::clone(host), addresses: ArcSwap::default(), looked_up });
        self.runtime.spawn(keep_looking(Arc::downgrade(&name), Arc::clone(&self.lookups)));
        names.insert(Arc::clone(host), Arc::clone(&name));
        name
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Name>>> {
        // Nothing under this lock can leave the map half changed.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks a name up until nobody has it any more.
async fn keep_looking(name: Weak<Name>, lookups: Arc<Semaphore>) {
    let mut failing = false;
    loop {
        let Some(name) = name.upgrade() else { return };
        let answer = {
            let _turn = lookups.acquire().await;
            // The port is of no interest, but asked for.
            let answer = tokio::net::lookup_host((&*name.host, 0)).await;
            answer.map(|found| found.map(|address| address.ip()).collect::<Vec<_>>())
        };
        let pause = match answer {
            Ok(found) => {
                let mut addresses = found;
                addresses.sort_unstable();
                addresses.dedup();
                addresses.truncate(MAX_ADDRESSES);
                failing = addresses.is_empty();
                if !addresses.is_empty() && **name.addresses.load() != addresses {
                    name.addresses.store(Arc::new(addresses));
                }
                if failing { RETRY } else { REFRESH }
            }
            Err(error) => {
                if !failing {
                    let held = name.addresses.load().len();
                    tracing::warn!(host = %name.host, %error, held, "cannot resolve a target: keeping its last addresses");
                }
                failing = true;
                RETRY
            }
        };
        name.looked_up.send_replace(true);
        drop(name);
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_gets_its_addresses_and_one_that_is_none_stays_empty() {
        let resolver = Resolver::new(Handle::current());
        let good = resolver.name(&"localhost".into());
        good.looked_up.subscribe().wait_for(|over| *over).await.expect("name is held");
        assert!(good.addresses().iter().all(IpAddr::is_loopback) && !good.addresses().is_empty());
        let bad = resolver.name(&"no-such-host.invalid".into());
        bad.looked_up.subscribe().wait_for(|over| *over).await.expect("name is held");
        assert!(bad.addresses().is_empty());
    }

    #[tokio::test]
    async fn a_name_is_shared_while_followed_and_forgotten_after() {
        let resolver = Resolver::new(Handle::current());
        let one = resolver.name(&"localhost".into());
        assert!(Arc::ptr_eq(&one, &resolver.name(&"localhost".into())));
        resolver.follow(std::iter::empty()).await;
        assert!(resolver.names().is_empty());
    }
}
