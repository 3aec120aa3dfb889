//! The trie of one host's templates: a step for each segment. Walked literal before `{x}` before `{*x}`, so that the
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
    param: Option<Arc<Node>>,
    /// Templates that end here with `{*x}`, if there are any.
    rest: Option<Arc<Slot>>,
    /// Templates that end here.
    here: Slot,
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
    pub(super) fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.param.is_none() && self.rest.is_none() && self.here.is_empty()
    }

    pub(super) fn add(&mut self, seed: &Seed, segments: &[Segment], entry: &Entry) {
        match segments {
            [] => self.here.add(entry),
            [Segment::Rest(_), ..] => Arc::make_mut(self.rest.get_or_insert_default()).add(entry),
            [Segment::Param(_), after @ ..] => {
                Arc::make_mut(self.param.get_or_insert_default()).add(seed, after, entry);
            }
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
            [Segment::Param(_), after @ ..] => {
                if let Some(param) = &mut self.param {
                    let param = Arc::make_mut(param);
                    param.remove(seed, after, candidate);
                    if param.is_empty() {
                        self.param = None;
                    }
                }
            }
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
            [Segment::Param(_), after @ ..] => self.param.as_ref()?.slot_of(seed, after),
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
        if let Some(param) = &self.param {
            param.visit(seed, after, at, visitor);
        }
        if let Some(rest) = &self.rest {
            visitor.slot(at.level, rest);
        }
    }
}
