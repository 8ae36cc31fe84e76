/// Picks the least loaded of those that can take a request: the index of one with the smallest load. `random` answers a
/// number below its argument, and decides between equals, so that idle connections share the work.
pub(crate) fn least_loaded(
    loads: impl Iterator<Item = Option<usize>>,
    mut random: impl FnMut(usize) -> usize,
) -> Option<usize> {
    let mut chosen = None;
    let mut least = usize::MAX;
    let mut equals = 0;
    for (index, load) in loads.enumerate() {
        let Some(load) = load else { continue };
        if load < least {
            (least, equals) = (load, 0);
        }
        if load == least {
            equals += 1;
            // The n-th takes the place with a chance of one in n, which leaves all with the same.
            if equals == 1 || random(equals) == 0 {
                chosen = Some(index);
            }
        }
    }
    chosen
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
        let mut picked = [0; 4];
        for (second, third) in (0..2).flat_map(|second| (0..3).map(move |third| (second, third))) {
            let loads = [Some(0), Some(1), Some(0), Some(0)];
            let index = least_loaded(loads.into_iter(), |below| if below == 2 { second } else { third });
            picked[index.unwrap()] += 1;
        }
        assert_eq!(picked, [2, 0, 2, 2]);
    }
}
