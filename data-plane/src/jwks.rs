//! Key sets of token issuers that are at an address: fetched on the control runtime, again and again, and handed to
//! whoever checks with them by one atomic store. One task for each address, for as long as an issuer names it. A fetch
//! that fails, or brings no sound set, changes nothing: the last good one stays, also for an issuer that is compiled
//! anew.
//!
//! Bounds: a set of 256 KiB, ten seconds for all of a fetch, one at a time for each address and not more often than every
//! five seconds whatever tokens come. Redirects are not followed: the address that somebody wrote is the one that counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use gateway_engine::certificate;
use gateway_engine::identity::{MAX_JWKS_BYTES, RemoteKeys};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Between two fetches of a set that nobody misses a key in.
const REFRESH: Duration = Duration::from_secs(300);
/// After one that failed, twice as long after each that follows it; and when a token was signed with an unknown key.
const SOON: Duration = Duration::from_secs(5);
/// How often it is looked whether a key is missed.
const LOOK: Duration = Duration::from_millis(500);
/// For a fetch as a whole.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long [`KeySets::follow`] waits for first answers.
const FIRST_ANSWER: Duration = Duration::from_secs(2);

type HttpClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Fetches key sets in the background.
#[derive(Debug)]
pub(crate) struct KeySets {
    runtime: Handle,
    sets: Mutex<HashMap<Box<str>, Arc<Set>>>,
    client: Arc<OnceLock<HttpClient>>,
}

/// An address and whom its keys are for.
#[derive(Debug)]
struct Set {
    uri: Box<str>,
    /// The last good text.
    text: Mutex<Option<String>>,
    keys: Mutex<Vec<Weak<RemoteKeys>>>,
    /// Whether the first fetch is over, well or not.
    fetched: watch::Sender<bool>,
}

impl KeySets {
    /// Fetches on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Self {
        KeySets { runtime, sets: Mutex::default(), client: Arc::default() }
    }

    /// Keeps these filled, and no others. Returns when each address has been asked once, or after two seconds: call it
    /// before the snapshot that checks with them goes live.
    pub(crate) async fn follow<'a>(&self, wanted: impl Iterator<Item = &'a Arc<RemoteKeys>>) {
        let mut followed: HashMap<Box<str>, Arc<Set>> = HashMap::new();
        for keys in wanted {
            let set = followed.entry(keys.uri().into()).or_insert_with(|| self.set(keys.uri()));
            set.serve(keys);
        }
        let first_answers = async {
            for set in followed.values() {
                let mut fetched = set.fetched.subscribe();
                let _sender_is_here = fetched.wait_for(|over| *over).await;
            }
        };
        // Those that take longer are published when they come.
        let _late = timeout(FIRST_ANSWER, first_answers).await;
        *lock(&self.sets) = followed;
    }

    /// The set at an address, fetched from now on.
    fn set(&self, uri: &str) -> Arc<Set> {
        let mut sets = lock(&self.sets);
        if let Some(set) = sets.get(uri) {
            return Arc::clone(set);
        }
        let set = Arc::new(Set {
            uri: uri.into(),
            text: Mutex::default(),
            keys: Mutex::default(),
            fetched: watch::Sender::new(false),
        });
        self.runtime.spawn(keep_fetching(Arc::downgrade(&set), Arc::clone(&self.client)));
        sets.insert(uri.into(), Arc::clone(&set));
        set
    }
}

impl Set {
    /// Fills these too, at once if there is a good text.
    fn serve(&self, new: &Arc<RemoteKeys>) {
        let mut keys = lock(&self.keys);
        keys.retain(|keys| keys.strong_count() > 0);
        if keys.iter().any(|known| known.ptr_eq(&Arc::downgrade(new))) {
            return;
        }
        keys.push(Arc::downgrade(new));
        if let Some(text) = &*lock(&self.text)
            && let Err(why) = new.store(text)
        {
            tracing::warn!(uri = %self.uri, why, "cannot use a key set for this issuer");
        }
    }

    /// Hands a fetched text to all, if at least one can use it.
    fn take(&self, text: String) -> Result<(), String> {
        let keys = lock(&self.keys);
        let taken: Vec<_> = keys.iter().filter_map(Weak::upgrade).map(|keys| keys.store(&text)).collect();
        if taken.is_empty() || taken.iter().any(Result::is_ok) {
            *lock(&self.text) = Some(text);
        }
        taken.into_iter().collect()
    }

    fn is_wanted(&self) -> bool {
        // Every one is asked: each answers once.
        let keys = lock(&self.keys);
        keys.iter().filter_map(Weak::upgrade).filter(|keys| keys.take_wanted()).count() > 0
    }
}

/// Fetches a set until nobody follows it any more.
async fn keep_fetching(set: Weak<Set>, client: Arc<OnceLock<HttpClient>>) {
    let mut failures = 0_u32;
    loop {
        let Some(followed) = set.upgrade() else { return };
        let fetched = match timeout(PATIENCE, fetch(&client, &followed.uri)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        let outcome = fetched.and_then(|text| followed.take(text));
        if let Err(why) = &outcome
            && failures == 0
        {
            tracing::warn!(uri = %followed.uri, why, "cannot fetch a key set: keeping the last good one");
        }
        failures = if outcome.is_ok() { 0 } else { failures.saturating_add(1) };
        // What was missed before this fetch is answered by it.
        let _answered = followed.is_wanted();
        followed.fetched.send_replace(true);
        drop(followed);
        let most = match failures {
            0 => REFRESH,
            more => REFRESH.min(SOON.saturating_mul(1 << (more - 1).min(8))),
        };
        pause(&set, most).await;
    }
}

/// Waits until the next fetch is due: after `most`, or when a key is missed, or when nobody follows the set.
async fn pause(set: &Weak<Set>, most: Duration) {
    let begun = Instant::now();
    let mut missed = false;
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(set) = set.upgrade() else { return };
        missed |= set.is_wanted();
        let passed = begun.elapsed();
        if passed >= most || (missed && passed >= SOON) {
            return;
        }
    }
}

async fn fetch(client: &OnceLock<HttpClient>, uri: &str) -> Result<String, String> {
    let client = match client.get() {
        Some(client) => client,
        None => {
            let made = http_client()?;
            client.get_or_init(|| made)
        }
    };
    let request = http::Request::get(uri)
        .header(http::header::ACCEPT, "application/jwk-set+json, application/json")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let response = client.request(request).await.map_err(|error| chain(&error))?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("the answer has status {}", response.status().as_u16()));
    }
    let body = Limited::new(response.into_body(), MAX_JWKS_BYTES).collect().await;
    let body = body.map_err(|error| chain(&*error))?.to_bytes();
    String::from_utf8(body.into()).map_err(|_| "the answer is not UTF-8".to_owned())
}

/// One connection for each fetch: they are rare.
fn http_client() -> Result<HttpClient, String> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(Arc::clone(certificate::provider()))
        .map_err(|error| format!("cannot read the system's certificates: {error}"))?
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
}

/// An error and what it was made of: "client error (Connect)" alone helps nobody.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can leave what they hold half changed.
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
