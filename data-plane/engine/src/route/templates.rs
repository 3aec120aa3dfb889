//! The templates of one host: found by the hash of the literal segments that they begin with, then segment by segment
//! (`trie.rs`). A template whose literal beginning is longer is the more specific one wherever both match: where the
//! other's ends it has a literal, and the other a parameter.

use std::sync::Arc;

use super::host::Depths;
use super::literal::ends;
use super::pattern::{Segment, split};
use super::slot::{Candidate, Entry, Slot};
use super::table::{At, Seed, Visit};
use super::trie::Node;
use crate::sharing::{Keyed, Shards, Text, hash};

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Templates {
    /// Lengths of their literal beginnings.
    depths: Depths,
    beginnings: Shards<Beginning>,
}

/// Literal segments that templates begin with. It fills a cache line, so that finding it costs one miss.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Beginning {
    hash: u64,
    /// Without a slash at its end.
    text: Text,
    tail: Tail,
}

const _: () = assert!(size_of::<Option<Beginning>>() == 64);

impl Keyed for Beginning {
    type Key = [u8];

    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }
    #[inline]
    fn key(&self) -> &[u8] {
        self.text.bytes()
    }
}

/// What comes after a literal beginning. Most often it is one `{x}`, and the end.
#[derive(Clone, Debug)]
enum Tail {
    Param(Slot),
    Node(Arc<Node>),
}

impl Templates {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.beginnings.is_empty()
    }

    pub(super) fn add(&mut self, seed: &Seed, segments: &[Segment], entry: &Entry) {
        let (depth, text, rest) = beginning(segments);
        self.depths.add(depth);
        let hash = hash(seed, text.as_bytes());
        let make = || Beginning { hash, text: text.as_bytes().into(), tail: Tail::Param(Slot::Empty) };
        self.beginnings.get_mut_or_insert(hash, text.as_bytes(), make).tail.add(seed, rest, entry);
    }

    pub(super) fn remove(&mut self, seed: &Seed, segments: &[Segment], candidate: &Candidate) {
        let (depth, text, rest) = beginning(segments);
        let hash = hash(seed, text.as_bytes());
        let Some(there) = self.beginnings.get_mut(hash, text.as_bytes()) else { return };
        self.depths.remove(depth);
        there.tail.remove(seed, rest, candidate);
        if there.tail.is_empty() {
            self.beginnings.remove(hash, text.as_bytes());
        }
    }

    /// The slot of a template of these segments.
    pub(super) fn slot_of(&self, seed: &Seed, segments: &[Segment]) -> Option<&Slot> {
        let (_, text, rest) = beginning(segments);
        self.beginnings.look(seed, text.as_bytes())?.tail.slot_of(seed, rest)
    }

    /// The most specific first.
    pub(super) fn visit<'t>(&'t self, seed: &Seed, at: &At, path: &str, visitor: &mut impl Visit<'t>) {
        // Nearly always few lengths occur; clearing room for all of them would cost more than looking them up.
        if self.depths.mask.count_ones() <= 8 {
            self.visit_in::<8, _>(seed, at, path, visitor);
        } else {
            self.visit_in::<{ Depths::LAST + 1 }, _>(seed, at, path, visitor);
        }
    }

    #[inline]
    fn visit_in<'t, const N: usize, V: Visit<'t>>(
        &'t self,
        seed: &Seed,
        at: &At,
        path: &str,
        visitor: &mut V,
    ) {
        let (ends, found) = ends::<N>(self.depths.mask, path);
        for end in ends[..found].iter().rev().map(|end| *end as usize) {
            if let Some(there) = self.beginnings.look(seed, &path.as_bytes()[..end]) {
                there.tail.visit(seed, path.get(end + 1..), at, visitor);
                if !visitor.wants(at.top) {
                    return;
                }
            }
        }
    }
}

impl Tail {
    fn is_empty(&self) -> bool {
        match self {
            Tail::Param(slot) => slot.is_empty(),
            Tail::Node(node) => node.is_empty(),
        }
    }

    fn add(&mut self, seed: &Seed, segments: &[Segment], entry: &Entry) {
        match (&mut *self, segments) {
            (Tail::Param(slot), [Segment::Param(_)]) => slot.add(entry),
            (Tail::Param(slot), _) => {
                let mut node = Node::after_param(std::mem::take(slot));
                node.add(seed, segments, entry);
                *self = Tail::Node(Arc::new(node));
            }
            (Tail::Node(node), _) => Arc::make_mut(node).add(seed, segments, entry),
        }
    }

    fn remove(&mut self, seed: &Seed, segments: &[Segment], candidate: &Candidate) {
        match (self, segments) {
            (Tail::Param(slot), [Segment::Param(_)]) => slot.remove(candidate),
            (Tail::Param(_), _) => {}
            (Tail::Node(node), _) => Arc::make_mut(node).remove(seed, segments, candidate),
        }
    }

    fn slot_of(&self, seed: &Seed, segments: &[Segment]) -> Option<&Slot> {
        match (self, segments) {
            (Tail::Param(slot), [Segment::Param(_)]) => Some(slot),
            (Tail::Param(_), _) => None,
            (Tail::Node(node), _) => node.slot_of(seed, segments),
        }
    }

    #[inline]
    fn visit<'t>(&'t self, seed: &Seed, rest: Option<&str>, at: &At, visitor: &mut impl Visit<'t>) {
        match (self, rest) {
            (Tail::Param(slot), Some(rest)) if !matches!(split(rest), ("", _) | (_, Some(_))) => {
                visitor.slot(at.level, slot);
            }
            (Tail::Param(_), _) => {}
            (Tail::Node(node), rest) => node.visit(seed, rest, at, visitor),
        }
    }
}

/// The literal segments that a template begins with: how many, their text, and what comes after them.
fn beginning(segments: &[Segment]) -> (usize, String, &[Segment]) {
    let is_literal = |segment: &&Segment| matches!(segment, Segment::Literal(_));
    let depth = segments.iter().take_while(is_literal).count();
    let (literal, rest) = segments.split_at(depth);
    let mut text = String::new();
    for segment in literal {
        if let Segment::Literal(label) = segment {
            text.push('/');
            text.push_str(label);
        }
    }
    (depth, text, rest)
}
