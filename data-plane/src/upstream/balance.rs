//! Weighted round robin without state per target: a walk through `total` turns with a step that has no common factor
//! with it. Every `total` picks each target was picked exactly as often as its weight says, the turns of one target
//! lie spread out, and a pick costs an addition and a binary search.

use std::cell::Cell;

/// The turns of a set of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Sum of the weights, divided by their common factor.
    total: u32,
    step: u32,
    /// Per target: the first turn after its own.
    ends: Box<[u32]>,
}

impl Schedule {
    /// For targets of these weights, in order. A weight of 0 gets no turn.
    pub(crate) fn new(weights: impl Iterator<Item = u16> + Clone) -> Self {
        let factor = weights.clone().fold(0, |factor, weight| gcd(factor, u32::from(weight))).max(1);
        let mut total = 0;
        let ends = weights
            .map(|weight| {
                // 4,096 targets of 65,535 fit.
                total += u32::from(weight) / factor;
                total
            })
            .collect::<Box<[u32]>>();
        let even = total as usize == ends.len();
        Schedule { total, step: if even { 1 } else { spread(total) }, ends }
    }

    /// The index of the target whose turn it is; moves the cursor. `None`: no target has a weight.
    pub(crate) fn next(&self, cursor: &Cell<u32>) -> Option<usize> {
        let turn = cursor.get().checked_rem(self.total)?;
        cursor.set(((u64::from(turn) + u64::from(self.step)) % u64::from(self.total)) as u32);
        Some(self.ends.partition_point(|&end| end <= turn))
    }
}

/// A step near the golden section of `total`, without a common factor: neighbours in time are far apart in turn.
fn spread(total: u32) -> u32 {
    let wanted = (f64::from(total) * 0.618) as u32;
    (wanted.max(1)..).find(|&step| gcd(step, total) == 1).unwrap_or(1)
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(weights: &[u16], count: usize) -> Vec<usize> {
        let schedule = Schedule::new(weights.iter().copied());
        let cursor = Cell::new(0);
        (0..count).filter_map(|_| schedule.next(&cursor)).collect()
    }

    #[test]
    fn equal_weights_take_turns_in_order() {
        assert_eq!(picks(&[1, 1, 1], 7), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(picks(&[7, 7], 4), [0, 1, 0, 1]);
        assert_eq!(picks(&[5], 2), [0, 0]);
    }

    #[test]
    fn every_round_is_shared_exactly_by_weight() {
        for weights in [&[9, 1][..], &[1, 2, 3], &[100, 0, 1, 50], &[65_535, 1], &[3, 3, 4]] {
            let factor = weights.iter().fold(0, |factor, &weight| gcd(factor, u32::from(weight)));
            let round: u32 = weights.iter().map(|&weight| u32::from(weight)).sum::<u32>() / factor;
            let picks = picks(weights, round as usize * 2);
            for (index, &weight) in weights.iter().enumerate() {
                let got = picks.iter().filter(|&&pick| pick == index).count();
                assert_eq!(got as u32, u32::from(weight) / factor * 2, "{weights:?} target {index}");
            }
        }
    }

    #[test]
    fn the_turns_of_a_light_target_are_spread_out() {
        let picks = picks(&[90, 10], 100);
        let turns: Vec<usize> =
            picks.iter().enumerate().filter(|(_, pick)| **pick == 1).map(|(at, _)| at).collect();
        assert!(turns.windows(2).all(|pair| pair[1] - pair[0] == 10), "{turns:?}");
        assert!(!picks.windows(30).all(|window| window.iter().all(|&pick| pick == 0)));
    }

    #[test]
    fn without_weights_there_is_nobody_to_ask() {
        assert!(picks(&[], 3).is_empty());
        assert!(picks(&[0, 0], 3).is_empty());
    }

    #[test]
    fn a_cursor_left_by_a_larger_set_is_brought_back_in_range() {
        let schedule = Schedule::new([1, 1].into_iter());
        let cursor = Cell::new(77);
        assert!(schedule.next(&cursor).is_some_and(|index| index < 2));
        assert!(cursor.get() < 2);
    }
}
