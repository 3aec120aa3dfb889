//! Tests of `upstream.rs`.

use std::time::Duration;

use gateway_engine::discovery::Discovery;
use gateway_engine::upstream::{Protocol, UpstreamSlot};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use super::discovered::Targets;
use super::*;
use crate::wire::Wire;

fn spec(slot: u32, name: &str, targets: &[(&str, u16)]) -> Arc<Upstream> {
    let target = |&(host, weight): &(&str, u16)| {
        let host = match host.parse() {
            Ok(address) => Host::Ip(address),
            Err(_) => {
                let (name, port) = host.split_once(':').expect("name:port");
                Host::Name(name.into(), port.parse().expect("a port"))
            }
        };
        Target { host, weight }
    };
    Arc::new(Upstream {
        protocol: Protocol::Http1,
        name: name.into(),
        slot: UpstreamSlot(slot),
        targets: targets.iter().map(target).collect(),
        discovery: None,
        connect_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(1),
    })
}

async fn wire(address: SocketAddr) -> Box<Wire> {
    let stream = pool::connect(address).await.expect("connected");
    Box::new(Wire::new(stream, buffer::Pool::new().none()))
}

#[tokio::test]
async fn targets_take_turns_and_keep_doing_so_after_a_change() {
    let registry = Registry::new(Resolver::new(Handle::current()), Arc::default());
    let one = spec(0, "default/u", &[("127.0.0.1:1", 1), ("127.0.0.1:2", 1)]);
    let ports = |running: &Rc<Running>| -> Vec<u16> {
        (0..2).map(|_| running.pick().expect("targets").address.port()).collect()
    };
    assert_eq!(ports(&registry.get(&one)), [1, 2]);
    let two = spec(0, "default/u", &[("127.0.0.1:2", 1), ("127.0.0.1:3", 1)]);
    assert_eq!(ports(&registry.get(&two)), [2, 3]);
}

#[tokio::test]
async fn connections_to_addresses_that_stay_survive_a_change() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let registry = Registry::new(Resolver::new(Handle::current()), Arc::default());
    let old = registry.get(&spec(3, "default/u", &[(&address, 1)]));
    let picked = old.pick().expect("a target");
    picked.pool.put(wire(picked.address).await, Instant::now());
    let new = registry.get(&spec(3, "default/u", &[(&address, 5), ("127.0.0.1:1", 0)]));
    assert!(new.pick().expect("a target").pool.take().is_some());
    new.pick().expect("a target").pool.put(wire(picked.address).await, Instant::now());
    let other = registry.get(&spec(3, "default/other", &[(&address, 1)]));
    assert!(other.pick().expect("a target").pool.take().is_none(), "the slot has another upstream now");
}

#[tokio::test]
async fn an_upstream_that_did_not_change_keeps_its_state() {
    let registry = Registry::new(Resolver::new(Handle::current()), Arc::default());
    let spec = spec(1, "default/u", &[("127.0.0.1:1", 1)]);
    assert!(Rc::ptr_eq(&registry.get(&spec), &registry.get(&spec)));
}

#[tokio::test]
async fn a_discovered_set_is_exchanged_and_its_connections_and_turns_stay() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let discovered = Arc::new(Discovered::default());
    let registry = Registry::new(Resolver::new(Handle::current()), Arc::clone(&discovered));
    let discovery = Discovery { source: "default/s".into(), service: "u".into(), tags: Arc::default() };
    let discovery = Some(Arc::new(discovery));
    let upstream = Arc::new(Upstream { discovery, ..Upstream::clone(&spec(0, "default/u", &[])) });
    let before = registry.get(&upstream);
    assert!(before.pick().is_none());
    assert_eq!(before.nothing_to_pick(), Reason::NotReady, "nobody has said yet where it runs");

    let targets = |targets: &[(&str, u16)]| Targets(Arc::clone(&spec(0, "", targets).targets));
    let place = discovered.place(&upstream.name);
    place.set(targets(&[(&address, 1), ("127.0.0.1:1", 1)]));
    let first = registry.get(&upstream);
    let picked = first.pick().expect("a target");
    assert_eq!(picked.address.to_string(), address);
    picked.pool.put(wire(picked.address).await, Instant::now());
    assert!(Rc::ptr_eq(&first, &registry.get(&upstream)), "no other set: nothing is built");

    place.set(targets(&[("127.0.0.1:2", 1), (&address, 1)]));
    let second = registry.get(&upstream);
    let picked = second.pick().expect("a target");
    assert_eq!(picked.address.to_string(), address, "it goes on where the one before stood");
    assert!(picked.pool.take().is_some());

    place.set(targets(&[]));
    let empty = registry.get(&upstream);
    assert!(empty.pick().is_none());
    assert_eq!(empty.nothing_to_pick(), Reason::NoHealthyTarget);
}

#[tokio::test]
async fn a_target_without_address_passes_its_turn_on() {
    let resolver = Resolver::new(Handle::current());
    let spec = spec(0, "default/u", &[("no-such-host.invalid:80", 1), ("127.0.0.1:7", 1)]);
    resolver.follow(spec.targets.iter()).await;
    let running = Registry::new(resolver, Arc::default()).get(&spec);
    assert_eq!(
        (0..3).filter_map(|_| running.pick()).map(|it| it.address.port()).collect::<Vec<_>>(),
        [7, 7, 7]
    );
}

#[tokio::test]
async fn a_name_leads_to_its_addresses() {
    let resolver = Resolver::new(Handle::current());
    let spec = spec(0, "default/u", &[("localhost:81", 1)]);
    resolver.follow(spec.targets.iter()).await;
    let running = Registry::new(resolver, Arc::default()).get(&spec);
    let picked = running.pick().expect("localhost has an address");
    assert!(picked.address.ip().is_loopback() && picked.address.port() == 81);
    assert_eq!(&**running.label(picked.target), "localhost:81");
    assert!(running.addresses(picked.target) >= 1);
}
