//! The stream between three control planes and three data planes as a simulation: their own sessions, compile and
//! book-keeping, without sockets and time. In random order revisions are made, control planes lag behind and restart,
//! streams break with messages on the way, data planes freeze, refuse listeners, try again, and now and then lose
//! something. What must hold all the time is checked after every step, and at rest everybody holds the head.
//!
//! No clock decides anything here: what timers do to a stream is that something comes early, late or never, and every
//! order of that is among the events. What does look at the clock (ends of certificates and keys, pauses) is tested
//! where it is, with the time given.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use gateway_control_plane::publish::encode::{Frame, full_piece};
use gateway_control_plane::publish::testing::{EPOCH, Story};
use gateway_control_plane::publish::{Cursor, View};
use gateway_control_plane::sync::header::Header;
use gateway_control_plane::sync::session::{Acknowledged, Content, Next, Session, Transaction};
use gateway_data_plane::simulation::Simulated;
use gateway_proto::digest::RootHash;
use gateway_proto::kind::{Key, Kind, Resource};
use gateway_proto::wire;
use gateway_tests::full_profile;
use proptest::prelude::*;
use prost::Message as _;
use wire::control_plane_message::Message as Told;
use wire::data_plane_message::Message as Said;

const CONTROL_PLANES: usize = 3;
const DATA_PLANES: usize = 3;
/// More than what is sent whole without a comparison.
const ROUTES: u8 = 90;

/// Something that happens. Numbers of planes and objects are taken modulo how many there are.
#[derive(Clone, Debug)]
enum Event {
    /// A revision: objects and their new contents; `None` deletes.
    Commit(Vec<(u8, Option<u8>)>),
    CatchUp(usize),
    Restart(usize),
    Connect {
        node: usize,
        to: usize,
        recalls: bool,
    },
    Disconnect(usize),
    /// From now on it takes and says nothing, with its stream open, or it goes on.
    Freeze(usize, bool),
    /// One message of the control plane arrives, or so many.
    Deliver(usize, u8),
    /// One message of the data plane arrives.
    Hear(usize),
    Beat(usize),
    /// From now on listeners of that number cannot be bound, or can again.
    Refuse(u8, bool),
    Retry(usize),
    Spoil(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let node = || 0..DATA_PLANES;
    let edits = proptest::collection::vec((any::<u8>(), proptest::option::weighted(0.8, 0..4_u8)), 1..6);
    let event = prop_oneof![
        4 => edits.prop_map(Event::Commit),
        3 => (0..CONTROL_PLANES).prop_map(Event::CatchUp),
        1 => (0..CONTROL_PLANES).prop_map(Event::Restart),
        3 => (node(), 0..CONTROL_PLANES, any::<bool>())
            .prop_map(|(node, to, recalls)| Event::Connect { node, to, recalls }),
        1 => node().prop_map(Event::Disconnect),
        1 => (node(), any::<bool>()).prop_map(|(node, is)| Event::Freeze(node, is)),
        8 => (node(), 1..4_u8).prop_map(|(node, count)| Event::Deliver(node, count)),
        8 => node().prop_map(Event::Hear),
        2 => node().prop_map(Event::Beat),
        1 => (0..4_u8, any::<bool>()).prop_map(|(listener, refuses)| Event::Refuse(listener, refuses)),
        1 => node().prop_map(Event::Retry),
    ];
    let spoil = node().prop_map(Event::Spoil);
    // Most runs are without: in those nothing may ever be found to have come apart.
    let events = proptest::collection::vec(event, 20..160);
    (events, proptest::option::weighted(0.3, (spoil, any::<prop::sample::Index>()))).prop_map(
        |(mut events, spoil)| {
            if let Some((spoil, at)) = spoil {
                events.insert(at.index(events.len()), spoil);
            }
            events
        },
    )
}

fn metadata(name: &str) -> Option<wire::Metadata> {
    Some(wire::Metadata { name: name.into(), namespace: "default".into(), ..Default::default() })
}

fn listener(n: u8, content: u8) -> Resource {
    let spec = wire::ListenerSpec {
        address: Some("127.0.0.1".into()),
        port: Some(10_000 + u32::from(n) * 10 + u32::from(content)),
        ..Default::default()
    };
    Resource::from(wire::Listener {
        metadata: metadata(&format!("l{n}")),
        spec: Some(spec),
        ..Default::default()
    })
    .canonical()
}

fn upstream(n: u8, content: u8) -> Resource {
    let target = wire::Target { address: format!("127.0.0.1:{}", 1 + content), weight: None };
    let spec = wire::UpstreamSpec { targets: vec![target], ..Default::default() };
    Resource::from(wire::Upstream {
        metadata: metadata(&format!("u{n}")),
        spec: Some(spec),
        ..Default::default()
    })
    .canonical()
}

fn route(n: u8, content: u8) -> Resource {
    let backend = wire::Backend { upstream: format!("u{}", content % 4), weight: None };
    let forward = wire::Forward { backends: vec![backend], ..Default::default() };
    let spec = wire::RouteSpec {
        action: Some(wire::route_spec::Action::Forward(forward)),
        hosts: vec![format!("h{n}.test")],
        ..Default::default()
    };
    Resource::from(wire::Route {
        metadata: metadata(&format!("r{n}")),
        spec: Some(spec),
        ..Default::default()
    })
    .canonical()
}

/// Everybody.
struct World {
    story: Story,
    control_planes: Vec<Arc<View>>,
    nodes: Vec<Node>,
    refuses: BTreeSet<u8>,
    is_spoilt: bool,
}

#[derive(Default)]
struct Node {
    plane: Simulated,
    stream: Option<Stream>,
    is_frozen: bool,
}

struct Stream {
    to: usize,
    session: Session,
    down: VecDeque<wire::ControlPlaneMessage>,
    up: VecDeque<Said>,
}

impl World {
    fn new() -> Self {
        let mut story = Story::begin(None);
        let upstreams = (0..4).map(|n| upstream(n, 0));
        let all: Vec<_> = upstreams.chain([listener(0, 0)]).chain((0..ROUTES).map(|n| route(n, 0))).collect();
        story.commit(&all, &[]);
        let control_planes = vec![Arc::clone(&story.view); CONTROL_PLANES];
        let nodes = (0..DATA_PLANES).map(|_| Node::default()).collect();
        World { story, control_planes, nodes, refuses: BTreeSet::new(), is_spoilt: false }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Commit(edits) => self.commit(edits),
            Event::CatchUp(at) => self.control_planes[at] = Arc::clone(&self.story.view),
            Event::Restart(at) => {
                self.control_planes[at] = self.story.restarted(None);
                let lost = self.nodes.iter_mut();
                lost.filter(|node| node.stream.as_ref().is_some_and(|stream| stream.to == at))
                    .for_each(|node| node.stream = None);
            }
            Event::Connect { node, to, recalls } => self.connect(node, to, recalls),
            Event::Disconnect(node) => self.nodes[node].stream = None,
            Event::Freeze(node, is_frozen) => self.nodes[node].is_frozen = is_frozen,
            Event::Deliver(node, _) | Event::Beat(node) | Event::Retry(node)
                if self.nodes[node].is_frozen => {}
            Event::Deliver(node, count) => (0..count).for_each(|_| self.deliver(node)),
            Event::Hear(node) => self.hear(node),
            Event::Beat(node) => self.nodes[node].beat(),
            Event::Refuse(listener, true) => drop(self.refuses.insert(listener)),
            Event::Refuse(listener, false) => drop(self.refuses.remove(&listener)),
            Event::Retry(node) => self.retry(node),
            Event::Spoil(node) => {
                self.nodes[node].plane.spoil();
                self.is_spoilt = true;
            }
        }
        (0..DATA_PLANES).for_each(|node| self.send(node));
    }

    /// Half of the numbers are routes; the first listener and the upstreams never go.
    fn commit(&mut self, edits: Vec<(u8, Option<u8>)>) {
        let mut puts = BTreeMap::new();
        let mut deletes = BTreeSet::new();
        for (n, content) in edits {
            let resource = |content| match n % 8 {
                0..=3 => route(n % ROUTES, content),
                4 | 5 => listener(n / 8 % 4, content),
                _ => upstream(n / 8 % 4, content),
            };
            let key = resource(0).key();
            match content {
                Some(content) => drop(puts.insert(key, resource(content))),
                None if n % 8 < 6 && key.name != "l0" => drop(deletes.insert(key)),
                None => {}
            }
        }
        deletes.retain(|key| !puts.contains_key(key));
        self.story.commit(&puts.into_values().collect::<Vec<_>>(), &deletes.into_iter().collect::<Vec<_>>());
    }

    fn connect(&mut self, node: usize, to: usize, recalls: bool) {
        let view = &self.control_planes[to];
        let Node { plane, stream, is_frozen } = &mut self.nodes[node];
        if *is_frozen {
            return;
        }
        let hello = plane.hello(&format!("n{node}"));
        let is_head = view.head().revision == self.story.view.head().revision;
        let cursor = hello.cursor.as_ref().and_then(Cursor::read);
        if let Some(cursor) =
            cursor.filter(|cursor| recalls && is_head && cursor.revision < view.head().revision)
        {
            view.recall(cursor.revision, self.story.differences(cursor.revision));
        }
        let (session, welcome) = Session::hello(&hello, view);
        let down = VecDeque::from([wire::ControlPlaneMessage { message: Some(Told::Welcome(welcome)) }]);
        *stream = Some(Stream { to, session, down, up: VecDeque::new() });
    }

    /// What the control plane wants to send now goes on its way.
    fn send(&mut self, node: usize) {
        let Node { plane, stream: Some(stream), .. } = &mut self.nodes[node] else { return };
        match stream.session.next(&self.control_planes[stream.to]) {
            None => {}
            Some(Next::Compare) => {
                let compare = Told::Compare(wire::Compare {});
                stream.down.push_back(wire::ControlPlaneMessage { message: Some(compare) });
            }
            Some(Next::Transaction(transaction)) => {
                let frames = frames(&transaction);
                if matches!(transaction.content, Content::Shared(_) | Content::Own(_)) {
                    assert_nothing_parked(&frames, &plane.parked());
                }
                stream.down.extend(frames);
            }
        }
        // However long it reads nothing, what waits for it is one transaction.
        let ends = |told: &&wire::ControlPlaneMessage| matches!(&told.message, Some(Told::Chunk(chunk)) if chunk.last);
        assert!(stream.down.iter().filter(ends).count() <= 1, "two transactions on the way to node {node}");
    }

    fn deliver(&mut self, node: usize) {
        let refuses = self.refuses.clone();
        let refuses = move |key: &Key| is_refused(&refuses, key);
        let Node { plane, stream: Some(stream), .. } = &mut self.nodes[node] else { return };
        let Some(message) = stream.down.pop_front() else { return };
        let is_whole = matches!(&message.message, Some(Told::Chunk(chunk)) if chunk.last);
        let (before, items) = (plane.cursor(), plane.items());
        match plane.receive(message, &refuses) {
            Ok(answer) => stream.up.extend(answer),
            Err(why) => {
                // What it tried again by itself crossed with a transaction.
                assert!(why.contains("does not start from what is held"), "{why}");
                self.nodes[node].stream = None;
                return;
            }
        }
        let after = plane.cursor();
        assert!(before.0 != after.0 || before.1 <= after.1, "it went back from {before:?} to {after:?}");
        assert!(is_whole || (before == after && items == plane.items()), "part of a transaction shows");
        self.nodes[node].check();
    }

    fn hear(&mut self, node: usize) {
        let Some(stream) = &mut self.nodes[node].stream else { return };
        let Some(message) = stream.up.pop_front() else { return };
        let diverged = match message {
            Said::Ack(ack) => stream.session.ack(&ack).expect("in turn") == Acknowledged::Diverged,
            Said::Status(status) => {
                stream.session.status(&status);
                false
            }
            Said::Heartbeat(heartbeat) => {
                stream.session.heartbeat(&heartbeat, &self.control_planes[stream.to])
            }
            Said::Buckets(buckets) => {
                stream.session.compared(&buckets).expect("asked for");
                false
            }
            // These planes hold none.
            Said::Credentials(_) | Said::Endpoints(_) => false,
            Said::Renew(_) | Said::Trusts(_) => unreachable!("nobody has a certificate here"),
            Said::Hello(_) => unreachable!("said once"),
        };
        assert!(self.is_spoilt || !diverged, "node {node} came apart without a reason");
    }

    fn retry(&mut self, node: usize) {
        let refuses = self.refuses.clone();
        let Node { plane, stream, .. } = &mut self.nodes[node];
        let status = plane.retry(&|key| is_refused(&refuses, key));
        if let (Some(stream), Some(status)) = (stream, status) {
            stream.up.push_back(status);
        }
        self.nodes[node].check();
    }

    /// All causes of trouble go, and everybody gets the time that he needs.
    fn rest(&mut self) {
        self.refuses.clear();
        self.nodes.iter_mut().for_each(|node| node.is_frozen = false);
        (0..CONTROL_PLANES).for_each(|at| self.happen(Event::CatchUp(at)));
        for _ in 0..6 {
            for node in 0..DATA_PLANES {
                if self.nodes[node].stream.is_none() {
                    self.happen(Event::Connect { node, to: node % CONTROL_PLANES, recalls: false });
                }
                (0..8).for_each(|_| {
                    self.happen(Event::Deliver(node, 4));
                    self.happen(Event::Hear(node));
                });
                self.happen(Event::Retry(node));
                self.happen(Event::Beat(node));
            }
        }
        let head = self.story.view.head();
        let expected: BTreeMap<_, _> =
            self.story.view.items().iter().map(|(key, stored)| (key.clone(), stored.hash)).collect();
        for (at, Node { plane, stream, .. }) in self.nodes.iter().enumerate() {
            assert_eq!(plane.cursor(), (head.epoch.to_string(), head.revision, head.root), "node {at}");
            assert_eq!(plane.items(), expected, "node {at}");
            let session = &stream.as_ref().expect("connected").session;
            assert!(session.is_in_sync(&self.story.view), "node {at}");
        }
    }
}

impl Node {
    fn beat(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.up.push_back(self.plane.heartbeat());
        }
    }

    /// What must hold at any moment.
    fn check(&self) {
        let items = self.plane.items();
        assert_eq!(self.plane.cursor().2, items.values().copied().collect::<RootHash>(), "its root hash");
        for key in items.keys().filter(|key| key.kind == Kind::Route) {
            let Some(Resource::Route(route)) = self.plane.engine().resource(key) else { panic!("{key}") };
            let Some(wire::route_spec::Action::Forward(forward)) = route.spec.and_then(|spec| spec.action)
            else {
                panic!("{key} forwards")
            };
            let upstream = Key::new(Kind::Upstream, "default", forward.backends[0].upstream.as_str());
            assert!(items.contains_key(&upstream), "{key} leads to {upstream}, which does not serve");
        }
    }
}

fn is_refused(refused: &BTreeSet<u8>, key: &Key) -> bool {
    key.kind == Kind::Listener && refused.iter().any(|n| key.name == format!("l{n}"))
}

/// A transaction as it goes over the wire.
fn frames(transaction: &Transaction) -> Vec<wire::ControlPlaneMessage> {
    let pieces = match &transaction.content {
        Content::Full(view) => all_pieces(|from| full_piece(view, None, from)),
        Content::Buckets(view, of) => all_pieces(|from| full_piece(view, Some(of), from)),
        Content::Shared(delta) => delta.pieces.clone(),
        Content::Own(pieces) => pieces.clone(),
    };
    let pieces = if pieces.is_empty() { vec![Bytes::new()] } else { pieces };
    let mut header = Header::of(transaction, EPOCH);
    let count = pieces.len();
    let frame = |(at, piece): (usize, Bytes)| {
        let frame = Frame::Chunk { header: header.next(at + 1 == count), piece };
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).expect("memory");
        wire::ControlPlaneMessage::decode(&*bytes).expect("a message")
    };
    pieces.into_iter().enumerate().map(frame).collect()
}

fn all_pieces(piece: impl Fn(&Key) -> (Bytes, Option<Key>)) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut from = Some(Key::new(Kind::ALL[0], "", ""));
    while let Some(key) = from {
        let (bytes, next) = piece(&key);
        pieces.push(bytes);
        from = next;
    }
    pieces
}

/// A difference never holds what the data plane has refused and does without.
fn assert_nothing_parked(frames: &[wire::ControlPlaneMessage], parked: &[wire::Parked]) {
    let upserts = frames.iter().flat_map(|frame| match &frame.message {
        Some(Told::Chunk(chunk)) => chunk.upserts.iter(),
        other => panic!("a chunk, not {other:?}"),
    });
    for upsert in upserts {
        let resource = Resource::decode(upsert.kind.parse().expect("a kind"), &upsert.body).expect("sound");
        let object = Some(wire::ObjectRef::from(&resource.key()));
        let again = parked.iter().any(|it| it.object == object && it.refused == resource.hash().0);
        assert!(!again, "{} is sent again", resource.key());
    }
}

/// So many stories, each another one: what is rare shows in the full profile.
fn cases() -> u32 {
    if full_profile() { 1_000 } else { 32 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_breaks_everybody_holds_the_head_in_the_end(events in events()) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
        }
        world.rest();
    }
}
