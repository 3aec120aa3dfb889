//! Tally: how many there are of each number. Nearly always there is one number, or none: that takes no memory of its
//! own.

/// Counts by number.
#[derive(Clone, Debug, Default)]
pub(crate) enum Tally<K> {
    /// None.
    #[default]
    Empty,
    /// Of this number so many.
    One(K, u32),
    /// Of each number so many, sorted by number.
    Many(Box<[(K, u32)]>),
}

impl<K: Copy + Ord> Tally<K> {
    /// The highest number there is one of.
    pub(crate) fn highest(&self) -> Option<K> {
        match self {
            Tally::Empty => None,
            Tally::One(number, _) => Some(*number),
            Tally::Many(counts) => counts.last().map(|(number, _)| *number),
        }
    }

    /// One more; returns how many there are of this number now.
    pub(crate) fn add(&mut self, number: K) -> u32 {
        match self {
            Tally::Empty => {
                *self = Tally::One(number, 1);
                1
            }
            Tally::One(there, count) if *there == number => {
                *count += 1;
                *count
            }
            Tally::One(there, count) => {
                let mut counts = [(*there, *count), (number, 1)];
                counts.sort_unstable_by_key(|(number, _)| *number);
                *self = Tally::Many(Box::new(counts));
                1
            }
            Tally::Many(counts) => match counts.binary_search_by_key(&number, |(number, _)| *number) {
                Ok(at) => {
                    counts[at].1 += 1;
                    counts[at].1
                }
                Err(at) => {
                    // Rare: a configuration has few numbers.
                    let mut more = std::mem::take(counts).into_vec();
                    more.insert(at, (number, 1));
                    *counts = more.into();
                    1
                }
            },
        }
    }

    /// One less of what was added; returns how many of this number are left.
    pub(crate) fn remove(&mut self, number: K) -> u32 {
        let left = match self {
            Tally::One(there, count) if *there == number => {
                *count -= 1;
                *count
            }
            Tally::Empty | Tally::One(..) => return 0,
            Tally::Many(counts) => {
                let Ok(at) = counts.binary_search_by_key(&number, |(number, _)| *number) else { return 0 };
                counts[at].1 -= 1;
                let left = counts[at].1;
                if left == 0 {
                    let mut fewer = std::mem::take(counts).into_vec();
                    fewer.remove(at);
                    *counts = fewer.into();
                }
                left
            }
        };
        let single = match self {
            Tally::Many(counts) if counts.len() == 1 => Some(counts[0]),
            _ => None,
        };
        if let Tally::One(_, 0) = self {
            *self = Tally::Empty;
        } else if let Some((number, count)) = single {
            *self = Tally::One(number, count);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_counts_as_a_map_does() {
        let mut tally = Tally::default();
        let mut model = BTreeMap::<i32, u32>::new();
        let numbers = [3, 3, -1, 7, 3, 7, 0, 0, 0, -1];
        for number in numbers {
            *model.entry(number).or_default() += 1;
            assert_eq!(tally.add(number), model[&number]);
            assert_eq!(tally.highest(), model.keys().next_back().copied());
        }
        for number in numbers {
            let left = model.get_mut(&number).expect("there");
            *left -= 1;
            assert_eq!(tally.remove(number), *left);
            model.retain(|_, count| *count > 0);
            assert_eq!(tally.highest(), model.keys().next_back().copied());
        }
        assert!(matches!(tally, Tally::Empty));
    }
}
