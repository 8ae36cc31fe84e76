/// Picks the least loaded of those that can take a request: the index of one with the smallest load. `random` answers a
/// number below its argument, and decides between equals, so that idle connections share the work.
pub(crate) fn least_loaded(
    loads: impl Iterator<Item = Option<usize>>,
    random: impl FnOnce(usize) -> usize,
) -> Option<usize> {
    let mut least = usize::MAX;
    let mut equals: Vec<usize> = Vec::new();
    for (index, load) in loads.enumerate() {
        let Some(load) = load else { continue };
        if load < least {
            least = load;
            equals.clear();
        }
        if load == least {
            equals.push(index);
        }
    }
    match equals.len() {
        0 => None,
        1 => Some(equals[0]),
        several => equals.get(random(several)).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(loads: &[Option<usize>], chance: usize) -> Option<usize> {
        least_loaded(loads.iter().copied(), |below| chance % below)
    }

    #[test]
    fn the_least_loaded_takes_it() {
        assert_eq!(pick(&[Some(3), Some(1), Some(2)], 0), Some(1));
        assert_eq!(pick(&[Some(0)], 5), Some(0));
    }

    #[test]
    fn closed_ones_take_nothing() {
        assert_eq!(pick(&[None, Some(9), None], 0), Some(1));
        assert_eq!(pick(&[None, None], 0), None);
        assert_eq!(pick(&[], 0), None);
    }

    #[test]
    fn equals_share() {
        let loads = [Some(1), Some(0), Some(2), Some(0)];
        assert_eq!([0, 1, 2, 3].map(|chance| pick(&loads, chance)), [Some(1), Some(3), Some(1), Some(3)]);
    }
}
