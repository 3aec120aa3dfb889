//! Joins: what lists of Policy objects say. A list of `policyRefs` is joined once, however many objects hold it, and
//! they hold its number: a change of a Policy joins anew the lists that name it, and touches none of those objects.
//!
//! Invariant: a list is here as long as an object holds it, and its set is that of the Policies as they are.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use gateway_proto::kind::{Key, Kind};

use super::{Clash, PolicySet};
use crate::compile::object::{Checked, Name, Object};
use crate::route::table::Seed;
use crate::sharing::{Keyed, Map, Shared, Slab, hash};

/// The number of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JoinSlot(u32);

/// Policies in the order they are named. As long as the list is here they are, and so are their names: one name, one
/// address.
#[derive(Clone, Debug)]
struct List(Arc<[Arc<Name>]>);

impl List {
    fn of(policies: &[Arc<Object>]) -> Self {
        List(policies.iter().map(|policy| Arc::clone(&policy.name)).collect())
    }
}

impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&*other.0).all(|(one, two)| Arc::ptr_eq(one, two))
    }
}

impl Eq for List {}

impl Hash for List {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.iter().for_each(|name| state.write_u64(name.hash));
    }
}

/// What a list says.
#[derive(Clone, Debug)]
pub(crate) struct Joined {
    list: List,
    set: PolicySet,
    /// Policies of it that cannot stand together.
    clashes: Vec<Clash>,
    /// How many objects hold it, and how many of those are consumers.
    holders: u32,
    consumers: u32,
}

impl Joined {
    /// Its policies.
    pub(crate) fn policies(&self) -> &[Arc<Name>] {
        &self.list.0
    }

    pub(crate) const fn set(&self) -> &PolicySet {
        &self.set
    }

    pub(crate) fn clashes(&self) -> &[Clash] {
        &self.clashes
    }

    pub(crate) const fn has_consumers(&self) -> bool {
        self.consumers > 0
    }
}

/// Where a list is.
#[derive(Clone, Debug)]
struct Place {
    hash: u64,
    list: List,
    slot: u32,
}

impl Keyed for Place {
    type Key = List;

    fn hash(&self) -> u64 {
        self.hash
    }
    fn key(&self) -> &List {
        &self.list
    }
}

/// The lists that name a Policy.
#[derive(Clone, Debug)]
struct Naming {
    policy: Arc<Name>,
    lists: Vec<u32>,
}

impl Keyed for Naming {
    type Key = Key;

    fn hash(&self) -> u64 {
        self.policy.hash
    }
    fn key(&self) -> &Key {
        &self.policy.key
    }
}

/// Every list that objects hold.
#[derive(Clone, Default)]
pub(crate) struct Joins {
    joined: Slab<Joined>,
    places: Map<Place>,
    naming: Map<Shared<Naming>>,
}

impl Joins {
    /// What a list says.
    #[inline]
    pub(crate) fn get(&self, slot: JoinSlot) -> Option<&Arc<Joined>> {
        self.joined.get(slot.0)
    }

    /// The same of a list that may be held by nobody yet.
    pub(crate) fn look(&self, seed: &Seed, policies: &[Arc<Object>]) -> Option<&Arc<Joined>> {
        let list = List::of(policies);
        let place = self.places.get(hash(seed, &list), &list)?;
        self.joined.get(place.slot)
    }

    /// An object of a kind takes hold of a list; of an empty one there is nothing to hold.
    pub(crate) fn hold(&mut self, seed: &Seed, policies: &[Arc<Object>], by: Kind) -> Option<JoinSlot> {
        if policies.is_empty() {
            return None;
        }
        let list = List::of(policies);
        let hash = hash(seed, &list);
        let known = self.places.get(hash, &list).map(|place| place.slot);
        let slot = known.unwrap_or_else(|| self.add(hash, list, policies));
        self.count(slot, by, 1);
        Some(JoinSlot(slot))
    }

    /// It lets go of it.
    pub(crate) fn release(&mut self, seed: &Seed, slot: Option<JoinSlot>, by: Kind) {
        let Some(JoinSlot(slot)) = slot else { return };
        if self.count(slot, by, -1) > 0 {
            return;
        }
        let Some(joined) = self.joined.get(slot).cloned() else { return };
        let hash = hash(seed, &joined.list);
        self.places.remove(hash, &joined.list);
        for policy in joined.policies() {
            let Some(naming) = self.naming.get_mut(policy.hash, &policy.key) else { continue };
            let naming = naming.make_mut();
            naming.lists.retain(|list| *list != slot);
            if naming.lists.is_empty() {
                self.naming.remove(policy.hash, &policy.key);
            }
        }
        self.joined.free(slot);
    }

    /// The lists that name a Policy.
    pub(crate) fn naming(&self, policy: &Name) -> impl Iterator<Item = JoinSlot> {
        let naming = self.naming.get(policy.hash, &policy.key);
        naming.into_iter().flat_map(|naming| &naming.lists).map(|list| JoinSlot(*list))
    }

    /// Joins a list anew: one of its policies changed. `find` knows them as they are.
    pub(crate) fn rejoin<'o>(&mut self, slot: JoinSlot, find: impl Fn(&Name) -> Option<&'o Arc<Object>>) {
        let Some(joined) = self.joined.get(slot.0) else { return };
        // One that is gone is still in use, and says so itself, or the list will go with the objects that hold it.
        let policies: Vec<Arc<Object>> =
            joined.policies().iter().filter_map(|name| find(name)).cloned().collect();
        let (set, clashes) = join(&policies);
        let joined = Joined { set, clashes, ..Joined::clone(joined) };
        self.joined.set(slot.0, Arc::new(joined));
    }

    /// How many lists.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.joined.iter().count()
    }

    fn add(&mut self, hash: u64, list: List, policies: &[Arc<Object>]) -> u32 {
        let slot = self.joined.reserve();
        for policy in &*list.0 {
            let make = || Arc::new(Naming { policy: Arc::clone(policy), lists: Vec::new() }).into();
            let naming = self.naming.get_mut_or_insert(policy.hash, &policy.key, make);
            naming.make_mut().lists.push(slot);
        }
        let (set, clashes) = join(policies);
        self.places.insert(Place { hash, list: list.clone(), slot });
        self.joined.set(slot, Arc::new(Joined { list, set, clashes, holders: 0, consumers: 0 }));
        slot
    }

    /// Counts a holder more or less; how many there are then.
    fn count(&mut self, slot: u32, by: Kind, more: i32) -> u32 {
        let joined = self.joined.get_mut(slot).expect("who holds a list keeps it here");
        joined.holders = joined.holders.saturating_add_signed(more);
        if by == Kind::Consumer {
            joined.consumers = joined.consumers.saturating_add_signed(more);
        }
        joined.holders
    }
}

/// What policies say together, and what keeps them from it.
pub(crate) fn join(policies: &[Arc<Object>]) -> (PolicySet, Vec<Clash>) {
    let sets: Vec<(Arc<str>, &PolicySet)> = policies
        .iter()
        .filter_map(|object| match &object.checked {
            Checked::Policy(policy) => Some((Arc::clone(&policy.name), &policy.set)),
            _ => None,
        })
        .collect();
    PolicySet::merge(&PolicySet::EMPTY, &sets)
}
