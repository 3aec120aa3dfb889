//! Chain: the policies of one request, from the levels it passes through. The closest level that says something
//! about a policy wins; header edits add up from far to near. Levels are never joined per listener and route: a
//! chain is a handful of references and two masks, made per request on the stack.
//!
//! Order of calls: [`Chain::begin`] (implied by [`Chain::request`]), request hooks in `policies!` order until one does
//! not continue, then, whatever happened, response hooks in the reverse order over the response that is going out.

use std::ptr;

use super::joins::Joined;
use super::{Flow, Kind, Level, Mask, Policy, PolicySet, auth, phase};
use crate::context::Ctx;
use crate::head::Head;
use crate::identity::Directory;

const NOTING: Mask = Kind::in_phase(phase::NOTE);
const REQUEST: Mask = Kind::in_phase(phase::REQUEST);
const RESPONSE: Mask = Kind::in_phase(phase::RESPONSE);

/// What each level says, for a request; [`PolicySet::EMPTY`] where there is nothing.
#[derive(Clone, Copy, Debug)]
pub struct Levels<'a> {
    /// Global policies of namespace `default`.
    pub global: &'a PolicySet,
    /// Global policies of the route's namespace; the same reference as `global` counts once.
    pub namespace: &'a PolicySet,
    /// The listener's.
    pub listener: Said<'a>,
    /// The route's.
    pub route: Said<'a>,
    /// Where `auth` looks up who asks.
    pub directory: Directory<'a>,
}

/// What an object says: itself, and through the Policy objects it refers to what it does not say itself.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    own: &'a PolicySet,
    referred: &'a PolicySet,
}

impl<'a> Said<'a> {
    /// An object's own policies and the list of those that it refers to.
    #[inline]
    pub(crate) fn of(own: &'a PolicySet, referred: Option<&'a Joined>) -> Self {
        Said { own, referred: referred.map_or(&NOTHING, Joined::set) }
    }
}

impl<'a> From<&'a PolicySet> for Said<'a> {
    fn from(own: &'a PolicySet) -> Self {
        Said { own, referred: &NOTHING }
    }
}

/// Where policies come from, from far to near. An object that refers to Policies is two sources: they lie behind what it
/// says itself, and where both say something they are not seen, also of those policies that add up over levels.
const SOURCES: [Level; 8] = [
    Level::Global,
    Level::Namespace,
    Level::Listener,
    Level::Listener,
    Level::Route,
    Level::Route,
    Level::Consumer,
    Level::Consumer,
];

/// Of [`SOURCES`]: what the consumer refers to.
const OF_CONSUMER: usize = 6;

/// A policy in force and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied<'a> {
    /// Which.
    pub kind: Kind,
    /// The level that attaches it.
    pub level: Level,
    /// `namespace/name` of the Policy object it is written in, unless it is inline.
    pub policy: Option<&'a str>,
}

/// The policies of one request.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    /// By [`SOURCES`].
    sources: [&'a PolicySet; SOURCES.len()],
    /// Kinds that some level sets. One that a closer level removes still has its bit.
    set: Mask,
    /// Kinds that some level says something about.
    named: Mask,
    directory: Directory<'a>,
}

static NOTHING: PolicySet = PolicySet::EMPTY;

impl<'a> Chain<'a> {
    /// Joins the levels.
    pub fn new(levels: Levels<'a>) -> Self {
        let Levels { global, namespace, listener, route, directory } = levels;
        let namespace = if ptr::eq(namespace, global) { &NOTHING } else { namespace };
        let sources = [
            global,
            namespace,
            listener.referred,
            listener.own,
            route.referred,
            route.own,
            &NOTHING,
            &NOTHING,
        ];
        let mut chain = Chain { sources, set: 0, named: 0, directory };
        for at in 0..OF_CONSUMER {
            chain.count(at);
        }
        chain
    }

    #[inline]
    fn count(&mut self, at: usize) {
        let named = self.named_by(at);
        self.set |= named & !self.sources[at].disabled;
        self.named |= named;
    }

    /// Kinds that a source says something about, without those that its object says something about itself.
    #[inline]
    fn named_by(&self, at: usize) -> Mask {
        let named = self.sources[at].named;
        match SOURCES.get(at + 1) {
            Some(level) if *level == SOURCES[at] => named & !self.sources[at + 1].named,
            _ => named,
        }
    }

    /// A policy in force compares times with the clock: [`Ctx::now`] has to be right.
    pub fn asks_the_time(&self) -> bool {
        self.set & Kind::Auth.bit() != 0
    }

    /// There is nothing to do for this request.
    pub fn is_empty(&self) -> bool {
        self.set == 0 && !self.guards_identity()
    }

    /// Clients' own fields of identity are removed: some level says something about `auth`, or somebody is known in this
    /// configuration. An upstream that believes such fields believes them whatever route they came by.
    pub fn guards_identity(&self) -> bool {
        self.named & Kind::Auth.bit() != 0 || self.directory.knows_anybody()
    }

    /// Notes what the response pass will need. [`Chain::request`] does it first; a request that is rejected before
    /// its policies run (404, 405) calls this instead, so that the answer gets CORS and header edits too.
    pub fn begin(&self, ctx: &mut Ctx<'_>, head: &Head<'_>) {
        ctx.notes.clear();
        self.each(self.set & NOTING, |level, policy| policy.note(level, ctx, head));
    }

    /// Runs the request hooks in order until one does not continue.
    /// `auth` brings the consumer's own level in.
    pub fn request(&mut self, ctx: &mut Ctx<'_>, head: &mut Head<'_>) -> Flow {
        self.begin(ctx, head);
        if self.guards_identity() {
            auth::remove_claims_of_identity(head);
        }
        let mut todo = self.set & REQUEST;
        while let Some(kind) = take_first(&mut todo) {
            for (_, policy) in self.in_force(kind) {
                let flow = match policy {
                    Policy::Auth(auth) => match auth.identify(self.directory, ctx, head) {
                        Ok(Some(consumer)) => {
                            todo |= self.join(self.directory.said_by(consumer), ctx, head);
                            Flow::Continue
                        }
                        Ok(None) => Flow::Continue,
                        Err(reason) => Flow::Reject(reason),
                    },
                    other => other.request(ctx, head),
                };
                if flow != Flow::Continue {
                    return flow;
                }
            }
        }
        Flow::Continue
    }

    /// Makes what a consumer says the closest level; which request hooks that adds. Those of its kinds whose turn is
    /// over (`ipFilter`) run now.
    fn join(&mut self, consumer: Said<'a>, ctx: &mut Ctx<'_>, head: &Head<'_>) -> Mask {
        (self.sources[OF_CONSUMER], self.sources[OF_CONSUMER + 1]) = (consumer.referred, consumer.own);
        let mut active = 0;
        for at in [OF_CONSUMER, OF_CONSUMER + 1] {
            self.count(at);
            active |= self.named_by(at) & !self.sources[at].disabled;
        }
        self.each(active & NOTING, |level, policy| {
            if level == Level::Consumer {
                policy.note(level, ctx, head);
            }
        });
        active & REQUEST
    }

    /// Runs the response hooks over the response that is going out, in reverse order.
    pub fn response(&self, ctx: &mut Ctx<'_>, head: &mut Head<'_>) {
        let mut todo = self.set & RESPONSE;
        while let Some(kind) = take_last(&mut todo) {
            for (level, policy) in self.in_force(kind) {
                policy.response(level, ctx, head);
            }
        }
    }

    /// The largest request body in bytes that may be read, `u64::MAX` for no bound: what `requestLimits` says, else
    /// the listener's own setting (0: no bound). A declared `Content-Length` is checked against the policy in the
    /// request pass; bodies without one are counted by the proxy as they stream.
    pub fn max_body_bytes(&self, listener_max: u64) -> u64 {
        let mut said = None;
        if self.set & Kind::RequestLimits.bit() == 0 {
            return if listener_max == 0 { u64::MAX } else { listener_max };
        }
        for (_, policy) in self.in_force(Kind::RequestLimits) {
            if let Policy::RequestLimits(limits) = policy {
                said = limits.max_body_bytes();
            }
        }
        match said.unwrap_or(listener_max) {
            0 => u64::MAX,
            bytes => bytes,
        }
    }

    /// The policies in force, in the order they run, for explain.
    pub fn applied(&self) -> impl Iterator<Item = Applied<'a>> + use<'a> {
        let chain = *self;
        Kind::ALL.iter().flat_map(move |&kind| {
            chain.places_of(kind).map(move |at| Applied {
                kind,
                level: SOURCES[at],
                policy: chain.sources[at].origin(kind),
            })
        })
    }

    fn each(&self, mut todo: Mask, mut call: impl FnMut(Level, &Policy)) {
        while let Some(kind) = take_first(&mut todo) {
            for (level, policy) in self.in_force(kind) {
                call(level, policy);
            }
        }
    }

    /// The policies of a kind in force, from far to near: those after the last level that replaces or removes what
    /// lies behind it.
    #[inline]
    fn in_force(&self, kind: Kind) -> impl Iterator<Item = (Level, &'a Policy)> + use<'a> {
        let sources = self.sources;
        self.places_of(kind).filter_map(move |at| Some((SOURCES[at], sources[at].get(kind)?)))
    }

    /// The sources of those, looked for from near to far.
    #[inline]
    fn places_of(&self, kind: Kind) -> impl Iterator<Item = usize> + use<> {
        let mut places = 0_u32;
        for (at, source) in self.sources.iter().enumerate().rev() {
            if source.named & kind.bit() == 0 || self.named_by(at) & kind.bit() == 0 {
                continue;
            }
            if source.disables(kind) {
                break;
            }
            places |= 1 << at;
            if !kind.merges() {
                break;
            }
        }
        std::iter::from_fn(move || {
            let at = places.trailing_zeros() as usize;
            places &= places.checked_sub(1)?;
            Some(at)
        })
    }
}

fn take_first(todo: &mut Mask) -> Option<Kind> {
    let kind = *Kind::ALL.get(todo.trailing_zeros() as usize)?;
    *todo &= !kind.bit();
    Some(kind)
}

fn take_last(todo: &mut Mask) -> Option<Kind> {
    let kind = *Kind::ALL.get(todo.checked_ilog2()? as usize)?;
    *todo &= !kind.bit();
    Some(kind)
}

#[cfg(test)]
mod tests;
