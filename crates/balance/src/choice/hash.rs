//! Choosing by weight: by chance, or always the same for the same key. Pure.

/// Spreads the bits of a number over all of it (the finalizer of SplitMix64).
pub(crate) fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A key and something else make a number that is as good as random.
pub(crate) fn mixed(key: u64, other: u64) -> u64 {
    mix(key ^ mix(other))
}

/// Above 0 and up to 1.
pub(crate) fn unit(bits: u64) -> f64 {
    ((bits >> 11) + 1) as f64 / (1u64 << 53) as f64
}

/// Numbers that follow from the first one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        unit(mix(self.0))
    }
}

/// How one of several is chosen.
#[derive(Debug)]
pub(crate) enum Lot<'a> {
    /// Each has the share of its weight.
    Random(&'a mut Random),
    /// For all keys together each has the share of its weight; one key has the same as long as that is there, and only
    /// the keys of one that goes, or that loses weight, go elsewhere (weighted rendezvous).
    Key(u64),
}

/// Chooses one of these by weight; one without weight only if none has any. Each has a weight of 0 or more, and an id by which
/// keys find it.
pub(crate) fn choose<T>(mut lot: Lot<'_>, from: impl Iterator<Item = (T, f64, u64)>) -> Option<T> {
    let mut chosen: Option<(T, bool, f64)> = None;
    let mut total = 0.0;
    for (one, weight, id) in from {
        let has_weight = weight > 0.0;
        let weight = if has_weight { weight } else { 1.0 };
        match &chosen {
            Some((_, true, _)) if !has_weight => continue,
            // The first with any weight begins anew.
            Some((_, false, _)) if has_weight => (chosen, total) = (None, 0.0),
            Some(_) | None => (),
        }
        match &mut lot {
            Lot::Random(random) => {
                total += weight;
                // Each takes the place of those before it with its share of what there is so far, which leaves all with theirs.
                if chosen.is_none() || random.next() * total <= weight {
                    chosen = Some((one, has_weight, 0.0));
                }
            }
            Lot::Key(key) => {
                // The time until the first event of a process of this rate: the least of all is this one's with its weight's share.
                let wait = -unit(mixed(*key, id)).ln() / weight;
                if chosen.as_ref().is_none_or(|(.., least)| wait < *least) {
                    chosen = Some((one, has_weight, wait));
                }
            }
        }
    }
    chosen.map(|(one, ..)| one)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many draws of one of these weights.
    fn draw(weights: &[f64], draws: u64, mut lot: impl FnMut(u64) -> u64, is_keyed: bool) -> Vec<u64> {
        let mut counts = vec![0; weights.len()];
        let mut random = Random::new(7);
        for number in 0..draws {
            let from = weights.iter().enumerate().map(|(at, weight)| (at, *weight, mix(at as u64 + 100)));
            let lot = if is_keyed { Lot::Key(lot(number)) } else { Lot::Random(&mut random) };
            counts[choose(lot, from).unwrap()] += 1;
        }
        counts
    }

    /// Within five standard deviations: by chance one in two million is outside, and the numbers are the same each time.
    fn assert_shares(weights: &[f64], counts: &[u64]) {
        let (total, draws) = (weights.iter().sum::<f64>(), counts.iter().sum::<u64>() as f64);
        for (weight, count) in weights.iter().zip(counts) {
            let share = weight / total;
            let bound = 5.0 * (draws * share * (1.0 - share)).sqrt();
            let off = (*count as f64 - draws * share).abs();
            assert!(off <= bound, "{weights:?}: {counts:?}");
        }
    }

    #[test]
    fn each_gets_its_share() {
        for weights in [&[1.0, 1.0, 1.0][..], &[0.9, 0.1], &[0.5, 0.0, 0.25, 1.0], &[0.001, 1.0], &[1.0; 200]] {
            assert_shares(weights, &draw(weights, 100_000, |number| number, false));
            assert_shares(weights, &draw(weights, 100_000, mix, true));
        }
    }

    #[test]
    fn without_any_weight_all_are_equal_and_none_is_chosen_of_none() {
        let counts = draw(&[0.0; 4], 40_000, mix, true);
        assert_shares(&[1.0; 4], &counts);
        assert_shares(&[1.0; 4], &draw(&[0.0; 4], 40_000, |number| number, false));
        assert_eq!(choose(Lot::Key(1), std::iter::empty::<((), f64, u64)>()), None);
    }

    #[test]
    fn who_leaves_moves_only_its_own_keys() {
        let weights: Vec<f64> = (0..10).map(|at| 1.0 + f64::from(at % 3)).collect();
        let with = |key: u64, gone: usize, factor: f64| {
            let weighed =
                |(at, weight): (usize, &f64)| (at, weight * if at == gone { factor } else { 1.0 }, mix(at as u64));
            let there = weights.iter().enumerate().map(weighed).filter(|(_, weight, _)| *weight > 0.0);
            choose(Lot::Key(key), there).unwrap()
        };
        for gone in 0..10 {
            for key in (0..5000).map(mix) {
                let (before, after, half) = (with(key, gone, 1.0), with(key, gone, 0.0), with(key, gone, 0.5));
                assert!(before == after || before == gone);
                // With less weight it loses some of its own, and gets none of others'.
                assert!(half == before || before == gone);
            }
        }
    }
}
