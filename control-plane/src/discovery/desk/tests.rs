//! Tests of `desk.rs`: a fake source, and what must be on the board.

use std::time::Duration;

use gateway_proto::wire;
use prost::Message as _;

use super::*;
use crate::discovery::source::Instance;

struct Scene {
    desk: Desk,
    now: Instant,
}

fn query(source: &str, service: &str) -> Query {
    Query { source: source.into(), service: service.into(), tags: Arc::default() }
}

fn reading(services: &[(&str, usize)]) -> Reading {
    let instance =
        |n| Instance { address: format!("10.0.0.{n}:80"), weight: 1, zone: String::new(), tags: vec![] };
    let service = |(name, count): &(&str, usize)| (Arc::from(*name), (0..*count).map(instance).collect());
    Reading { index: 1, services: services.iter().map(service).collect(), ..Reading::default() }
}

impl Scene {
    /// With sources `s/1` and `s/2`, and upstreams that ask them.
    fn new(kept: HashMap<Arc<str>, (Query, Found)>, upstreams: &[(&str, Query)]) -> Self {
        let mut scene = Scene { desk: Desk::new(kept), now: Instant::now() };
        scene.configure(upstreams);
        scene
    }

    fn configure(&mut self, upstreams: &[(&str, Query)]) {
        let sources = ["s/1", "s/2"].into_iter().map(Arc::from).collect();
        let queries = upstreams.iter().map(|(name, query)| (Arc::from(*name), query.clone())).collect();
        self.desk.configure(&sources, &queries, self.now);
    }

    fn at(&self) -> (Instant, Timestamp) {
        (self.now, Timestamp::UNIX_EPOCH)
    }

    fn read(&mut self, source: &str, read: Result<Reading, &str>) {
        let read = read.map_err(|why| Fault(why.to_owned()));
        self.desk.read(&source.into(), read, self.at());
    }

    /// Lets half a second pass; what is looked at finds `read`.
    fn rest(&mut self, read: impl Fn(&str) -> Result<Reading, Fault>) {
        self.now += Duration::from_millis(500);
        self.desk.due(self.at());
        loop {
            let looks = self.desk.take_looks();
            if looks.is_empty() {
                return;
            }
            for (source, service) in looks {
                self.desk.looked((&source, &service), read(&source), self.at());
            }
        }
    }

    /// What is on the board: upstreams with the number of their endpoints, sources with their state.
    fn board(&mut self) -> Vec<String> {
        let board = self.desk.take_board().unwrap_or_else(|| self.desk.board.clone());
        let shown = board.items.iter().map(|((_, name), item)| {
            let chunk = wire::EndpointsChunk::decode(&*item.encoded).expect("a field of it");
            match (chunk.sets.first(), chunk.sources.first()) {
                (Some(set), _) => format!("{name} {}", set.endpoints.len()),
                (_, said) => format!("{name} {}", said.expect("one of the two").state().as_str_name()),
            }
        });
        shown.collect()
    }
}

fn unreadable(_: &str) -> Result<Reading, Fault> {
    Err(Fault("gone".into()))
}

#[test]
fn a_source_that_was_never_read_says_nothing() {
    let mut scene = Scene::new(HashMap::new(), &[("d/u", query("s/1", "a"))]);
    assert_eq!(scene.board(), ["s/1 failed", "s/2 failed"]);
    assert!(!scene.desk.is_settled());
    scene.read("s/1", Err("no such file"));
    scene.read("s/2", Ok(reading(&[])));
    assert_eq!(scene.board(), ["s/1 failed", "s/2 synced"]);
    assert!(scene.desk.is_settled());
    scene.read("s/1", Ok(reading(&[("a", 2)])));
    scene.rest(unreadable);
    assert_eq!(scene.board(), ["d/u 2", "s/1 synced", "s/2 synced"]);
}

#[test]
fn a_source_that_fails_keeps_its_sets_and_harms_no_other() {
    let mut scene = Scene::new(HashMap::new(), &[("d/u", query("s/1", "a")), ("d/v", query("s/2", "a"))]);
    scene.read("s/1", Ok(reading(&[("a", 2)])));
    scene.read("s/2", Ok(reading(&[("a", 3)])));
    scene.rest(unreadable);
    scene.read("s/1", Err("gone"));
    scene.read("s/2", Ok(reading(&[("a", 4)])));
    scene.rest(unreadable);
    assert_eq!(scene.board(), ["d/u 2", "d/v 4", "s/1 stale", "s/2 synced"]);
    let known = &scene.desk.sources()["s/1"];
    assert_eq!((known.fault.as_deref(), known.errors), (Some("gone"), 1));
    scene.read("s/1", Ok(reading(&[("a", 1)])));
    scene.rest(unreadable);
    assert_eq!(scene.board(), ["d/u 1", "d/v 4", "s/1 synced", "s/2 synced"]);
}

#[test]
fn what_was_served_before_a_restart_is_served_until_the_source_is_read() {
    let kept = |of: Query| HashMap::from([(Arc::from("d/u"), (of.clone(), of.of(&reading(&[("a", 8)]))))]);
    let mut scene = Scene::new(kept(query("s/1", "a")), &[("d/u", query("s/1", "a"))]);
    assert_eq!(scene.board(), ["d/u 8", "s/1 stale", "s/2 failed"]);
    scene.read("s/1", Ok(reading(&[])));
    scene.rest(unreadable);
    assert_eq!(scene.board(), ["d/u 8", "s/1 synced", "s/2 failed"], "a second look is needed");
    scene.rest(unreadable);
    scene.rest(|_| Ok(reading(&[])));
    scene.rest(|_| Ok(reading(&[])));
    assert_eq!(scene.board(), ["d/u 0", "s/1 synced", "s/2 failed"]);
    let mut other = Scene::new(kept(query("s/1", "b")), &[("d/u", query("s/1", "a"))]);
    assert_eq!(other.board(), ["s/1 failed", "s/2 failed"], "it was of something else");
}

#[test]
fn upstreams_come_ask_for_something_else_and_go() {
    let mut scene = Scene::new(HashMap::new(), &[]);
    scene.read("s/1", Ok(reading(&[("a", 2), ("b", 3)])));
    scene.read("s/2", Ok(reading(&[("a", 5)])));
    let states = ["s/1 synced", "s/2 synced"];
    assert_eq!(scene.board(), states);
    for (of, count) in [(query("s/1", "a"), 2), (query("s/1", "b"), 3), (query("s/2", "a"), 5)] {
        scene.configure(&[("d/u", of)]);
        scene.rest(unreadable);
        assert_eq!(scene.board()[0], format!("d/u {count}"));
    }
    scene.read("s/1", Ok(reading(&[])));
    scene.rest(|_| Ok(reading(&[])));
    assert_eq!(scene.board()[0], "d/u 5", "it does not ask there any more");
    scene.configure(&[]);
    assert_eq!((scene.board(), scene.desk.wakes()), (states.map(str::to_owned).to_vec(), None));
}

#[test]
fn a_source_that_is_replaced_is_read_anew_while_its_sets_stay() {
    let mut scene = Scene::new(HashMap::new(), &[("d/u", query("s/1", "a"))]);
    scene.read("s/1", Ok(reading(&[("a", 2)])));
    scene.rest(unreadable);
    scene.desk.replaced(&"s/1".into());
    assert_eq!(scene.board(), ["d/u 2", "s/1 stale", "s/2 failed"]);
    scene.read("s/1", Ok(reading(&[("a", 3)])));
    scene.rest(unreadable);
    assert_eq!(scene.board(), ["d/u 3", "s/1 synced", "s/2 failed"]);
}

#[test]
fn a_source_that_is_replaced_during_a_second_look_leaves_nothing_hanging() {
    let mut scene = Scene::new(HashMap::new(), &[("d/u", query("s/1", "a"))]);
    scene.read("s/1", Ok(reading(&[("a", 8)])));
    scene.rest(unreadable);
    scene.read("s/1", Ok(reading(&[])));
    scene.now += Duration::from_millis(500);
    scene.desk.due(scene.at());
    assert_eq!(scene.desk.take_looks().len(), 1);
    scene.desk.replaced(&"s/1".into());
    assert_eq!(scene.desk.wakes(), None);
    scene.read("s/1", Ok(reading(&[])));
    scene.rest(|_| Ok(reading(&[])));
    assert_eq!(scene.board(), ["d/u 0", "s/1 synced", "s/2 failed"]);
}

#[test]
fn a_reading_counts_although_it_says_what_it_said_before_a_second_look() {
    let mut scene = Scene::new(HashMap::new(), &[("d/u", query("s/1", "a"))]);
    scene.read("s/1", Ok(reading(&[("a", 8)])));
    scene.rest(unreadable);
    scene.read("s/1", Ok(reading(&[])));
    scene.rest(|_| Ok(reading(&[("a", 5)])));
    assert_eq!(scene.board()[0], "d/u 5");
    scene.read("s/1", Ok(reading(&[])));
    scene.rest(|_| Ok(reading(&[])));
    assert_eq!(scene.board()[0], "d/u 0");
}

#[test]
fn a_set_that_did_not_change_is_not_encoded_anew() {
    let mut scene = Scene::new(HashMap::new(), &[("d/u", query("s/1", "a"))]);
    scene.read("s/1", Ok(reading(&[("a", 2), ("b", 1)])));
    scene.rest(unreadable);
    let name = (Subject::Set, Arc::from("d/u"));
    let before = Arc::clone(scene.desk.board.items.get(&name).expect("served"));
    let _taken = scene.desk.take_board();
    scene.read("s/1", Ok(reading(&[("a", 2), ("b", 2)])));
    scene.rest(unreadable);
    assert!(scene.desk.take_board().is_none());
    assert!(Arc::ptr_eq(&before, scene.desk.board.items.get(&name).expect("served")));
}
