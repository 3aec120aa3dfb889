//! Tests of `endpoints.rs`: a lane against a data plane that holds what it is told.

use std::collections::BTreeMap;

use gateway_proto::digest::ItemHash;
use gateway_proto::endpoints::{hash_of_set, sums};
use prost::Message as _;
use wire::control_plane_message::Message;

use super::*;

fn scoped(sets: &[(&str, usize)]) -> Arc<Scoped> {
    let mut scoped = Scoped::default();
    for (upstream, count) in sets {
        let endpoint = |n| wire::Endpoint { address: format!("10.0.0.{n}:80"), ..Default::default() };
        let endpoints = (0..*count).map(endpoint).collect();
        let set = wire::EndpointSet { upstream: (*upstream).into(), endpoints, ..Default::default() };
        let item = Item::set(&set);
        scoped.root = scoped.root.plus(item.hash);
        scoped.items.insert((Subject::Set, (*upstream).into()), item);
    }
    Arc::new(scoped)
}

/// The other end.
#[derive(Default)]
struct Node(BTreeMap<String, ItemHash>);

impl Node {
    fn root(&self) -> Vec<u8> {
        self.0.values().copied().collect::<RootHash>().to_bytes().to_vec()
    }

    fn compared(&self) -> wire::EndpointsHeld {
        let sums = sums(self.0.iter().map(|(name, hash)| (Subject::Set, name.as_str(), *hash)));
        wire::EndpointsHeld { root_hash: self.root(), sums: sums.to_bytes() }
    }

    /// Takes everything that the lane has to say, and answers; how many sets that were.
    fn take(&mut self, lane: &mut Lane) -> usize {
        let mut sets = 0;
        while lane.has_output() {
            let mut bytes = Vec::new();
            lane.next().expect("it has output").encode(&mut bytes).expect("memory");
            assert!(bytes.len() < 128 << 10);
            let message = wire::ControlPlaneMessage::decode(&*bytes).expect("a message").message;
            let Some(Message::Endpoints(chunk)) = message else { panic!("endpoints") };
            sets += chunk.sets.len();
            let buckets: Vec<usize> = chunk.buckets.iter().map(|bucket| *bucket as usize).collect();
            self.0.retain(|name, _| {
                !buckets.contains(&Subject::Set.bucket(name)) && !chunk.gone.contains(name)
            });
            self.0.extend(chunk.sets.iter().map(|set| (set.upstream.clone(), hash_of_set(set))));
            if chunk.last {
                let held = wire::EndpointsHeld { root_hash: self.root(), sums: Vec::new() };
                assert!(!lane.hear(&held).expect("in place"), "it holds what it should");
            }
        }
        sets
    }
}

#[test]
fn a_data_plane_gets_what_there_is_then_what_changes_and_nothing_when_it_comes_again() {
    let mut node = Node::default();
    let first = scoped(&[("d/a", 2), ("d/b", 3)]);
    let mut lane = Lane::new(Arc::clone(&first), &[]);
    assert!(!lane.wake());
    assert_eq!((node.take(&mut lane), node.root()), (2, lane.root()));
    assert!(!lane.wake() && !lane.has_output());

    lane.aim(scoped(&[("d/a", 2), ("d/c", 1)]));
    assert!(!lane.wake());
    assert_eq!((node.take(&mut lane), node.root()), (1, lane.root()), "b goes, c comes, a is not sent");

    // To another replica, which has come to the same.
    let mut lane = Lane::new(scoped(&[("d/a", 2), ("d/c", 1)]), &node.root());
    assert!(!lane.wake() && !lane.has_output());
}

#[test]
fn one_that_holds_something_else_is_compared() {
    let mut node = Node::default();
    let many: Vec<(String, usize)> = (0..200).map(|n| (format!("d/u{n}"), 1)).collect();
    let mut many: Vec<(&str, usize)> = many.iter().map(|(name, count)| (&**name, *count)).collect();
    let mut lane = Lane::new(scoped(&many), &[]);
    lane.wake();
    node.take(&mut lane);
    many[7].1 = 5;
    let gone = many.pop().expect("many");
    let mut lane = Lane::new(scoped(&many), &node.root());
    assert!(lane.wake(), "it is asked for its sums");
    assert!(!lane.wake(), "once");
    assert!(!lane.hear(&node.compared()).expect("in place"));
    let sent = node.take(&mut lane);
    assert!((1..10).contains(&sent), "{sent} sets for one that differs and one that goes");
    assert_eq!(node.root(), lane.root());
    assert!(!node.0.contains_key(gone.0));
}

#[test]
fn while_a_transaction_is_not_answered_changes_wait_and_become_one() {
    let mut node = Node::default();
    let mut lane = Lane::new(scoped(&[("d/a", 1)]), &[]);
    lane.wake();
    let _first = lane.next().expect("a piece");
    for count in 2..50 {
        lane.aim(scoped(&[("d/a", count)]));
        assert!(!lane.wake() && !lane.has_output());
    }
    assert!(lane.unanswered() > Duration::ZERO);
    let root_hash = scoped(&[("d/a", 1)]).root.to_bytes().to_vec();
    assert!(!lane.hear(&wire::EndpointsHeld { root_hash, sums: Vec::new() }).expect("in place"));
    lane.wake();
    assert_eq!((node.take(&mut lane), node.root()), (1, scoped(&[("d/a", 49)]).root.to_bytes().to_vec()));
}

#[test]
fn large_sets_go_in_pieces() {
    let mut node = Node::default();
    let names: Vec<String> = (0..40).map(|n| format!("d/u{n}")).collect();
    let sets: Vec<(&str, usize)> = names.iter().map(|name| (&**name, 1000)).collect();
    let mut lane = Lane::new(scoped(&sets), &[]);
    lane.wake();
    assert_eq!((node.take(&mut lane), node.root()), (40, lane.root()));
}

#[test]
fn an_end_that_came_apart_is_found_by_its_heartbeat_or_its_answer_and_mended() {
    let mut node = Node::default();
    let mut lane = Lane::new(scoped(&[("d/a", 1)]), &[]);
    lane.wake();
    node.take(&mut lane);
    assert!(!lane.heartbeat(&node.root()));
    node.0.clear();
    assert!(lane.heartbeat(&node.root()));
    assert!(lane.wake() && !lane.heartbeat(&node.root()), "said once");
    lane.hear(&node.compared()).expect("in place");
    assert_eq!(node.take(&mut lane), 1);

    lane.aim(scoped(&[("d/a", 2)]));
    lane.wake();
    let _piece = lane.next();
    assert!(lane.hear(&wire::EndpointsHeld { root_hash: vec![9; 16], sums: Vec::new() }).expect("in place"));
    assert!(lane.wake());
}

#[test]
fn what_was_not_asked_for_is_refused() {
    let mut lane = Lane::new(scoped(&[]), &[]);
    let held = |root_hash: Vec<u8>, sums: Vec<u8>| wire::EndpointsHeld { root_hash, sums };
    assert!(lane.hear(&held(vec![0; 16], Vec::new())).is_err());
    assert!(lane.hear(&held(vec![0; 3], Vec::new())).is_err());
    let mut lane = Lane::new(scoped(&[("d/a", 1)]), &[7; 16]);
    assert!(lane.wake());
    assert!(lane.hear(&held(vec![0; 16], vec![1; 5])).is_err());
}
