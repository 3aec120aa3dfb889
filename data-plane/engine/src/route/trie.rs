//! The trie of the templates that begin with the same literals: a step for each segment after those. Walked literal before `{x}` before `{*x}`, so that the
//! slots come out from the most specific template to the least; a path is walked at most once per matching step.

use std::sync::Arc;

use super::pattern::{Segment, split};
use super::slot::{Candidate, Entry, Slot};
use super::table::{At, Seed, Visit};
use crate::sharing::{Keyed, Map, Shared, Text, hash};

/// A step of the trie of templates.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    literals: Map<Shared<Literal>>,
    param: Param,
    /// Templates that end here with `{*x}`, if there are any.
    rest: Option<Arc<Slot>>,
    /// Templates that end here.
    here: Slot,
}

/// What a step by `{x}` leads to. Most often it is the last one: what ends there lies inline.
#[derive(Clone, Debug)]
enum Param {
    /// Templates that end there; empty: there is no such step.
    Last(Slot),
    Node(Arc<Node>),
}

impl Default for Param {
    fn default() -> Self {
        Param::Last(Slot::Empty)
    }
}

impl Param {
    fn is_empty(&self) -> bool {
        matches!(self, Param::Last(Slot::Empty))
    }

    fn add(&mut self, seed: &Seed, segments: &[Segment], entry: &Entry) {
        match (self, segments) {
            (Param::Last(slot), []) => slot.add(entry),
            (Param::Node(node), _) => Arc::make_mut(node).add(seed, segments, entry),
            (this @ Param::Last(_), _) => {
                let mut node = Node::default();
                if let Param::Last(here) = std::mem::take(this) {
                    node.here = here;
                }
                node.add(seed, segments, entry);
                *this = Param::Node(Arc::new(node));
            }
        }
    }

    fn remove(&mut self, seed: &Seed, segments: &[Segment], candidate: &Candidate) {
        match self {
            Param::Last(slot) if segments.is_empty() => slot.remove(candidate),
            Param::Last(_) => {}
            Param::Node(node) => {
                let node = Arc::make_mut(node);
                node.remove(seed, segments, candidate);
                if node.is_empty() {
                    *self = Param::default();
                }
            }
        }
    }

    fn slot_of(&self, seed: &Seed, segments: &[Segment]) -> Option<&Slot> {
        match self {
            Param::Last(slot) => segments.is_empty().then_some(slot),
            Param::Node(node) => node.slot_of(seed, segments),
        }
    }

    fn visit<'t>(&'t self, seed: &Seed, rest: Option<&str>, at: &At, visitor: &mut impl Visit<'t>) {
        match self {
            Param::Last(slot) if rest.is_none() => visitor.slot(at.level, slot),
            Param::Last(_) => {}
            Param::Node(node) => node.visit(seed, rest, at, visitor),
        }
    }
}

/// A step by a literal segment.
#[derive(Clone, Debug)]
struct Literal {
    hash: u64,
    label: Text,
    node: Node,
}

impl Keyed for Literal {
    type Key = [u8];

    fn hash(&self) -> u64 {
        self.hash
    }
    fn key(&self) -> &[u8] {
        self.label.bytes()
    }
}

impl Node {
    /// Of templates that end after one `{x}`.
    pub(super) fn after_param(slot: Slot) -> Self {
        Node { param: Param::Last(slot), ..Node::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.param.is_empty() && self.rest.is_none() && self.here.is_empty()
    }

    pub(super) fn add(&mut self, seed: &Seed, segments: &[Segment], entry: &Entry) {
        match segments {
            [] => self.here.add(entry),
            [Segment::Rest(_), ..] => Arc::make_mut(self.rest.get_or_insert_default()).add(entry),
            [Segment::Param(_), after @ ..] => self.param.add(seed, after, entry),
            [Segment::Literal(label), after @ ..] => {
                let hash = hash(seed, label.as_bytes());
                let label = label.as_bytes();
                let make = || Arc::new(Literal { hash, label: label.into(), node: Node::default() }).into();
                let child = self.literals.get_mut_or_insert(hash, label, make);
                child.make_mut().node.add(seed, after, entry);
            }
        }
    }

    pub(super) fn remove(&mut self, seed: &Seed, segments: &[Segment], candidate: &Candidate) {
        match segments {
            [] => self.here.remove(candidate),
            [Segment::Rest(_), ..] => {
                if let Some(rest) = self.rest.as_mut().map(Arc::make_mut) {
                    rest.remove(candidate);
                    if rest.is_empty() {
                        self.rest = None;
                    }
                }
            }
            [Segment::Param(_), after @ ..] => self.param.remove(seed, after, candidate),
            [Segment::Literal(label), after @ ..] => {
                let hash = hash(seed, label.as_bytes());
                if let Some(child) = self.literals.get_mut(hash, label.as_bytes()) {
                    let child = &mut child.make_mut().node;
                    child.remove(seed, after, candidate);
                    if child.is_empty() {
                        self.literals.remove(hash, label.as_bytes());
                    }
                }
            }
        }
    }

    /// The slot of a template of these segments.
    pub(super) fn slot_of(&self, seed: &Seed, segments: &[Segment]) -> Option<&Slot> {
        match segments {
            [] => Some(&self.here),
            [Segment::Rest(_), ..] => self.rest.as_deref(),
            [Segment::Param(_), after @ ..] => self.param.slot_of(seed, after),
            [Segment::Literal(label), after @ ..] => {
                self.literals.look(seed, label.as_bytes())?.node.slot_of(seed, after)
            }
        }
    }

    /// Literal before `{x}` before `{*x}`, segment by segment.
    pub(super) fn visit<'t>(
        &'t self,
        seed: &Seed,
        rest: Option<&str>,
        at: &At,
        visitor: &mut impl Visit<'t>,
    ) {
        let Some(text) = rest else {
            visitor.slot(at.level, &self.here);
            return;
        };
        if !visitor.wants(at.top) {
            return;
        }
        let (piece, after) = split(text);
        if let Some(child) = self.literals.look(seed, piece.as_bytes()) {
            child.node.visit(seed, after, at, visitor);
        }
        if piece.is_empty() {
            return;
        }
        self.param.visit(seed, after, at, visitor);
        if let Some(rest) = &self.rest {
            visitor.slot(at.level, rest);
        }
    }
}
