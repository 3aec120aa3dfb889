//! Clients behind a load balancer that knows which data planes are to be picked. A request that fails on a data plane
//! that was broken meanwhile is tried on another one, as a balancer would; one that fails on a sound data plane is a
//! failure, and so is one that fails on a data plane that leaves in good order.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{Http, Tally};
use crate::wait;

/// A request that takes longer goes to another data plane if that one is broken, and has failed if it is not.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Attempts on different data planes.
const ATTEMPTS: usize = 10;

/// Whether a data plane is picked, and what may become of the requests it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Picked; every request must succeed.
    Sound,
    /// Not picked any more; every request that it has must succeed.
    Leaving,
    /// Not picked; what it has is lost.
    Broken,
}

#[derive(Clone, Copy, Debug)]
struct Target {
    address: SocketAddr,
    health: Health,
    /// How often it was broken.
    breaks: u64,
}

/// The load: closed loops of requests until it is finished.
#[derive(Debug)]
pub struct Balancer {
    targets: Arc<Mutex<Vec<Target>>>,
    done: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Tally>,
}

impl Balancer {
    /// Starts so many loops of GET `path`.
    pub fn start(addresses: &[SocketAddr], path: &str, loops: usize) -> Self {
        let target = |address: &SocketAddr| Target { address: *address, health: Health::Sound, breaks: 0 };
        let targets = Arc::new(Mutex::new(addresses.iter().map(target).collect::<Vec<_>>()));
        let (done, stop) = (watch::Sender::new(0), watch::Sender::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..loops {
            tasks.spawn(run(Arc::clone(&targets), path.to_owned(), done.clone(), stop.subscribe()));
        }
        Balancer { targets, done, stop, tasks }
    }

    /// From now on.
    pub fn set(&self, data_plane: usize, health: Health) {
        let target = &mut lock(&self.targets)[data_plane];
        target.health = health;
        target.breaks += u64::from(health == Health::Broken);
    }

    /// It serves again, and there.
    pub fn back(&self, data_plane: usize, address: SocketAddr) {
        let target = &mut lock(&self.targets)[data_plane];
        target.address = address;
        target.health = Health::Sound;
    }

    /// How many requests were answered or have failed: to wait in work, not in time.
    pub fn done(&self) -> watch::Receiver<u64> {
        self.done.subscribe()
    }

    /// Stops it and adds up.
    pub async fn finish(mut self) -> Tally {
        self.stop.send_replace(true);
        let mut total = Tally::default();
        while let Some(tally) = self.tasks.join_next().await {
            match tally {
                Ok(tally) => total.add(tally),
                Err(error) => total.fail(error.to_string()),
            }
        }
        total
    }
}

/// Waits until so many more are done.
///
/// # Errors
/// When they are not.
pub async fn more(done: &mut watch::Receiver<u64>, requests: u64) -> anyhow::Result<()> {
    let goal = *done.borrow() + requests;
    wait::within("requests of the load", done.wait_for(|done| *done >= goal)).await??;
    Ok(())
}

fn lock(targets: &Mutex<Vec<Target>>) -> MutexGuard<'_, Vec<Target>> {
    targets.lock().expect("no holder panics")
}

async fn run(
    targets: Arc<Mutex<Vec<Target>>>,
    path: String,
    done: watch::Sender<u64>,
    stop: watch::Receiver<bool>,
) -> Tally {
    let http = Http::default();
    let mut tally = Tally::default();
    while !*stop.borrow() {
        match request(&http, &targets, &path).await {
            Ok(()) => tally.ok += 1,
            Err(failure) => tally.fail(failure),
        }
        done.send_modify(|done| *done += 1);
    }
    tally
}

async fn request(http: &Http, targets: &Mutex<Vec<Target>>, path: &str) -> Result<(), String> {
    for _ in 0..ATTEMPTS {
        let (index, target) = pick(targets)?;
        let failure = match timeout(ATTEMPT, http.get(target.address, "any", path)).await {
            Ok(Ok(answer)) if answer.status() == 200 => return Ok(()),
            Ok(Ok(answer)) => format!("{} {:?}", answer.status(), answer.body()),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {ATTEMPT:?}"),
        };
        let now = lock(targets)[index];
        if now.breaks == target.breaks {
            return Err(format!("data plane {index} ({:?}): {failure}", now.health));
        }
    }
    Err("every attempt met a broken data plane".to_owned())
}

fn pick(targets: &Mutex<Vec<Target>>) -> Result<(usize, Target), String> {
    let targets = lock(targets);
    let sound: Vec<_> =
        targets.iter().copied().enumerate().filter(|(_, target)| target.health == Health::Sound).collect();
    if sound.is_empty() {
        return Err("the test broke every data plane".to_owned());
    }
    Ok(sound[rand::rng().random_range(0..sound.len())])
}
