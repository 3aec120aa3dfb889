//! What each group of data planes is to hold of endpoints: of the board, what its scope has the upstreams and sources of.
//! One value for all streams of a group; the next one shares with it what stayed, so that streams compare what they have
//! sent with what there is by the pages that differ.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use gateway_proto::buckets::Buckets;
use gateway_proto::digest::RootHash;
use gateway_proto::endpoints::{Subject, sums};
use gateway_proto::kind::{Key, Kind};

use super::View;
use crate::discovery::board::{Board, Item, Name};
use crate::sorted::SortedMap;

/// Groups that are remembered.
const MAX_GROUPS: usize = 1_024;

/// What one group is to hold.
#[derive(Clone, Debug, Default)]
pub struct Scoped {
    /// By what it is about.
    pub items: SortedMap<Name, Arc<Item>>,
    /// Sum of the hashes.
    pub root: RootHash,
}

/// The newest of each group.
#[derive(Debug, Default)]
pub struct Scopes(Mutex<HashMap<Option<String>, Made>>);

/// What a group is to hold, and what that was made of.
#[derive(Debug)]
struct Made {
    view: Arc<View>,
    board: Arc<Board>,
    scoped: Arc<Scoped>,
}

impl Scopes {
    /// What a view's group is to hold of a board.
    pub fn of(&self, view: &Arc<View>, board: &Arc<Board>) -> Arc<Scoped> {
        let mut scopes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let group = view.group().map(str::to_owned);
        let made = scopes.get(&group);
        if let Some(made) = made.filter(|made| made.is_of(view, board)) {
            return Arc::clone(&made.scoped);
        }
        let scoped = Arc::new(Made::make(view, board, made));
        if scopes.len() >= MAX_GROUPS {
            scopes.clear();
        }
        let made = Made { view: Arc::clone(view), board: Arc::clone(board), scoped: Arc::clone(&scoped) };
        scopes.insert(group, made);
        scoped
    }
}

impl Made {
    /// The same board, and the same view or a later one: a stream that is about to see that too may have it now.
    fn is_of(&self, view: &Arc<View>, board: &Arc<Board>) -> bool {
        let (ours, theirs) = (self.view.head(), view.head());
        let is_later = ours.epoch == theirs.epoch && ours.revision > theirs.revision;
        Arc::ptr_eq(&self.board, board) && (is_later || Arc::ptr_eq(&self.view, view))
    }

    fn make(view: &View, board: &Arc<Board>, before: Option<&Made>) -> Scoped {
        let mut next = before.map(|before| Scoped::clone(&before.scoped)).unwrap_or_default();
        match before.filter(|before| std::ptr::eq(&*before.view, view)) {
            Some(before) => SortedMap::diff(&before.board.items, &board.items, |name, _, after| {
                next.set(name, after.filter(|_| takes(view, name)));
            }),
            None => {
                // Whatever there is may have come into the scope, or left it.
                let is_gone = |name: &Name| board.items.get(name).is_none();
                let gone = next.items.iter().map(|(name, _)| name).filter(|name| is_gone(name));
                let gone: Vec<Name> = gone.cloned().collect();
                gone.iter().for_each(|name| next.set(name, None));
                for (name, item) in board.items.iter() {
                    next.set(name, Some(item).filter(|_| takes(view, name)));
                }
            }
        }
        next
    }
}

fn takes(view: &View, (subject, name): &Name) -> bool {
    let kind = match subject {
        Subject::Set => Kind::Upstream,
        Subject::Source => Kind::DiscoverySource,
    };
    let (namespace, name) = name.split_once('/').unwrap_or_default();
    view.items().get(&Key::new(kind, namespace, name)).is_some()
}

impl Scoped {
    /// The sums of its buckets.
    pub fn sums(&self) -> Buckets {
        sums(self.items.iter().map(|((subject, name), item)| (*subject, &**name, item.hash)))
    }

    fn set(&mut self, name: &Name, item: Option<&Arc<Item>>) {
        if self.items.get(name) == item {
            return;
        }
        let before = match item {
            Some(item) => {
                self.root = self.root.plus(item.hash);
                self.items.insert(name.clone(), Arc::clone(item))
            }
            None => self.items.remove(name),
        };
        if let Some(before) = before {
            self.root = self.root.minus(before.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::wire;

    use super::*;
    use crate::publish::testing::{Story, listener, route, upstream};

    fn item(upstream: &str, address: &str) -> (Name, Arc<Item>) {
        let endpoints = vec![wire::Endpoint { address: address.into(), ..Default::default() }];
        let set = wire::EndpointSet { upstream: upstream.into(), endpoints, ..Default::default() };
        ((Subject::Set, upstream.into()), Item::set(&set))
    }

    fn board(items: &[(&str, &str)]) -> Arc<Board> {
        let mut board = Board::default();
        for (upstream, address) in items {
            let (name, item) = item(upstream, address);
            board.items.insert(name, item);
        }
        Arc::new(board)
    }

    fn names(scoped: &Scoped) -> Vec<&str> {
        scoped.items.iter().map(|((_, name), _)| &**name).collect()
    }

    #[test]
    fn a_group_holds_the_sets_of_the_upstreams_in_its_scope_and_no_others() {
        let mut story = Story::begin(None);
        story.commit(
            &[listener("l", None, &[]), upstream("a", 1), upstream("b", 1), route("r", &[], "a", &[])],
            &[],
        );
        let scopes = Scopes::default();
        let first = board(&[("default/a", "a:1"), ("default/b", "b:1")]);
        let one = scopes.of(&story.view, &first);
        assert_eq!(names(&one), ["default/a"]);
        assert!(Arc::ptr_eq(&one, &scopes.of(&story.view, &first)), "made once for all streams");
        assert_eq!(one.root, [item("default/a", "a:1").1.hash].into_iter().collect());

        let two = scopes.of(&story.view, &board(&[("default/a", "a:2"), ("default/b", "b:2")]));
        assert_eq!(two.root, [item("default/a", "a:2").1.hash].into_iter().collect());

        story.commit(&[route("r", &[], "b", &[])], &[]);
        let three = scopes.of(&story.view, &board(&[("default/a", "a:2"), ("default/b", "b:2")]));
        assert_eq!(names(&three), ["default/b"]);
        assert_eq!(three.root, [item("default/b", "b:2").1.hash].into_iter().collect());

        let none = scopes.of(&story.view, &board(&[]));
        assert_eq!((names(&none), none.root), (Vec::new(), RootHash::default()));
    }
}
