//! A sorted map whose clones share what did not change: pages of a few hundred entries behind `Arc`s. A clone costs
//! one pointer a page, a change copies one page at most, and two versions are compared page by page, skipping
//! those they share. That is what lets every reader keep a whole consistent state and every change cost what it
//! changes. Invariant: no page is empty; keys ascend within and across pages.

use std::cmp::Ordering;
use std::sync::Arc;

/// Entries a page holds before it is split in two.
const PAGE: usize = 256;

/// A persistent sorted map.
#[derive(Clone, Debug)]
pub struct SortedMap<K, V> {
    pages: Vec<Arc<Vec<(K, V)>>>,
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        SortedMap { pages: Vec::new() }
    }
}

impl<K: Ord + Clone, V: Clone> SortedMap<K, V> {
    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        let page = self.pages.get(self.page_of(key))?;
        page.binary_search_by(|(other, _)| other.cmp(key)).ok().map(|at| &page[at].1)
    }

    /// Sets a value and returns the one there was.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.page_of(&key).min(self.pages.len().saturating_sub(1));
        let Some(page) = self.pages.get_mut(at) else {
            self.pages.push(Arc::new(vec![(key, value)]));
            return None;
        };
        let page = Arc::make_mut(page);
        match page.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(found) => Some(std::mem::replace(&mut page[found].1, value)),
            Err(place) => {
                page.insert(place, (key, value));
                if page.len() > PAGE {
                    let upper = page.split_off(PAGE / 2);
                    self.pages.insert(at + 1, Arc::new(upper));
                }
                None
            }
        }
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.page_of(key);
        let found = self.pages.get(at)?.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        let page = Arc::make_mut(&mut self.pages[at]);
        let (_, value) = page.remove(found);
        if page.is_empty() {
            self.pages.remove(at);
        }
        Some(value)
    }

    /// How many entries there are. Costs a look at every page.
    pub fn count(&self) -> usize {
        self.pages.iter().map(|page| page.len()).sum()
    }

    /// Every entry, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.pages.iter().flat_map(|page| page.iter()).map(|(key, value)| (key, value))
    }

    /// The entries at and after a key, ascending.
    pub fn range_from<'a>(&'a self, key: &K) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V> {
        let first = self.page_of(key);
        let skip = self.pages.get(first).map_or(0, |page| page.partition_point(|(other, _)| other < key));
        self.pages[first..].iter().flat_map(|page| page.iter()).skip(skip).map(|(key, value)| (key, value))
    }

    /// Calls `differs(key, before, after)` for every key whose value differs between two versions. Costs the pages
    /// that are not shared.
    pub fn diff<'a>(
        before: &'a Self,
        after: &'a Self,
        mut differs: impl FnMut(&'a K, Option<&'a V>, Option<&'a V>),
    ) where
        V: PartialEq,
    {
        let (mut old, mut new) = (Cursor::at(before), Cursor::at(after));
        loop {
            if let (Some(left), Some(right)) = (old.page_start(), new.page_start())
                && Arc::ptr_eq(left, right)
            {
                old.skip_page();
                new.skip_page();
                continue;
            }
            let order = match (old.entry(), new.entry()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((left, _)), Some((right, _))) => left.cmp(right),
            };
            match order {
                Ordering::Less => {
                    if let Some((key, value)) = old.next() {
                        differs(key, Some(value), None);
                    }
                }
                Ordering::Greater => {
                    if let Some((key, value)) = new.next() {
                        differs(key, None, Some(value));
                    }
                }
                Ordering::Equal => {
                    if let (Some((key, left)), Some((_, right))) = (old.next(), new.next())
                        && left != right
                    {
                        differs(key, Some(left), Some(right));
                    }
                }
            }
        }
    }

    /// Index of the page that holds the key if any does: the first whose last key is not below it.
    fn page_of(&self, key: &K) -> usize {
        self.pages.partition_point(|page| page.last().is_some_and(|(last, _)| last < key))
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SortedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = SortedMap::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

/// A place in a map, by page and entry.
struct Cursor<'a, K, V> {
    pages: &'a [Arc<Vec<(K, V)>>],
    entry: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn at(map: &'a SortedMap<K, V>) -> Self {
        Cursor { pages: &map.pages, entry: 0 }
    }

    fn page_start(&self) -> Option<&'a Arc<Vec<(K, V)>>> {
        self.pages.first().filter(|_| self.entry == 0)
    }

    fn skip_page(&mut self) {
        self.pages = &self.pages[1..];
    }

    fn entry(&self) -> Option<&'a (K, V)> {
        self.pages.first().map(|page| &page[self.entry])
    }

    fn next(&mut self) -> Option<&'a (K, V)> {
        let page = self.pages.first()?;
        let entry = &page[self.entry];
        self.entry += 1;
        if self.entry == page.len() {
            self.entry = 0;
            self.skip_page();
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn edits() -> impl Strategy<Value = Vec<(u16, Option<u8>)>> {
        proptest::collection::vec((0..2_000_u16, proptest::option::weighted(0.7, any::<u8>())), 0..1_500)
    }

    fn apply(map: &mut SortedMap<u16, u8>, model: &mut BTreeMap<u16, u8>, edits: &[(u16, Option<u8>)]) {
        for (key, value) in edits {
            match value {
                Some(value) => assert_eq!(map.insert(*key, *value), model.insert(*key, *value)),
                None => assert_eq!(map.remove(key), model.remove(key)),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn it_behaves_like_a_btree_and_a_clone_stays_as_it_was(first in edits(), second in edits(), from in 0..2_000_u16) {
            let (mut map, mut model) = (SortedMap::default(), BTreeMap::new());
            apply(&mut map, &mut model, &first);
            let (old, old_model) = (map.clone(), model.clone());
            apply(&mut map, &mut model, &second);
            for (map, model) in [(&old, &old_model), (&map, &model)] {
                prop_assert!(map.iter().eq(model.iter()));
                prop_assert_eq!(map.count(), model.len());
                prop_assert!(map.range_from(&from).eq(model.range(from..)));
                prop_assert_eq!(map.get(&from), model.get(&from));
            }
            let mut differs = Vec::new();
            SortedMap::diff(&old, &map, |key, before, after| differs.push((*key, before.copied(), after.copied())));
            let expected: Vec<_> = (0..2_000_u16)
                .map(|key| (key, old_model.get(&key).copied(), model.get(&key).copied()))
                .filter(|(_, before, after)| before != after)
                .collect();
            prop_assert_eq!(differs, expected);
        }
    }

    #[test]
    fn one_change_in_many_shares_all_other_pages() {
        let map: SortedMap<u32, u32> = (0..10_000).map(|n| (n, n)).collect();
        let mut next = map.clone();
        next.insert(5_000, 1);
        let shared = map.pages.iter().zip(&next.pages).filter(|(old, new)| Arc::ptr_eq(old, new)).count();
        assert_eq!(shared, map.pages.len() - 1);
    }
}
