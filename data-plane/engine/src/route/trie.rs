//! The trie of one host's templates: a step for each segment. Walked literal before `{x}` before `{*x}`, so that the
//! slots come out from the most specific template to the least; a path is walked at most once per matching step.

use std::sync::Arc;

use super::pattern::{Segment, split};
use super::slot::{Candidate, Entry, Slot, Text};
use super::table::{At, Seed, Visit};
use crate::sharing::{Keyed, Map, hash};

/// A step of the trie of templates.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    hash: u64,
    label: Text,
    pub(super) literals: Map<Node>,
    pub(super) param: Option<Arc<Node>>,
    /// Templates that end here with `{*x}`.
    pub(super) rest: Slot,
    /// Templates that end here.
    pub(super) here: Slot,
}

impl Keyed for Node {
    fn hash(&self) -> u64 {
        self.hash
    }
    fn key(&self) -> &[u8] {
        &self.label
    }
}

impl Node {
    pub(super) fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.param.is_none() && self.rest.is_empty() && self.here.is_empty()
    }

    pub(super) fn add(&mut self, seed: &Seed, segments: &[Segment], entry: &Entry) {
        match segments {
            [] => self.here.add(entry),
            [Segment::Rest(_), ..] => self.rest.add(entry),
            [Segment::Param(_), after @ ..] => {
                Arc::make_mut(self.param.get_or_insert_default()).add(seed, after, entry);
            }
            [Segment::Literal(label), after @ ..] => {
                let hash = hash(seed, label.as_bytes());
                let make = || Node { hash, label: label.as_bytes().into(), ..Node::default() };
                self.literals.get_mut_or_insert(hash, label.as_bytes(), make).add(seed, after, entry);
            }
        }
    }

    pub(super) fn remove(&mut self, seed: &Seed, segments: &[Segment], candidate: &Candidate) {
        match segments {
            [] => self.here.remove(candidate),
            [Segment::Rest(_), ..] => self.rest.remove(candidate),
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
                    child.remove(seed, after, candidate);
                    if child.is_empty() {
                        self.literals.remove(hash, label.as_bytes());
                    }
                }
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
            child.visit(seed, after, at, visitor);
        }
        if piece.is_empty() {
            return;
        }
        if let Some(param) = &self.param {
            param.visit(seed, after, at, visitor);
        }
        visitor.slot(at.level, &self.rest);
    }
}
