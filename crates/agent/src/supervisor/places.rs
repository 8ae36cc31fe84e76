use rand::Rng;

/// The edge's addresses as the supervisor sees them: how many there are, and which region each is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places(Vec<usize>);

impl Places {
    /// Regions, one for each place. There must be at least one place.
    pub(crate) fn new(regions: Vec<usize>) -> Self {
        debug_assert!(!regions.is_empty(), "an agent without an address has nothing to supervise");
        Self(regions)
    }

    /// Whether each place but `own` is used.
    pub(super) fn all_in(&self, used: &[usize], own: Option<usize>) -> bool {
        (0..self.0.len()).all(|place| used.contains(&place) || Some(place) == own)
    }

    /// The place that fewest use; among those one in the region that fewest use; among those by chance (section 12.2).
    pub(super) fn choose(&self, used: &[usize], random: &mut impl Rng) -> usize {
        let uses = |place: usize| used.iter().filter(|other| **other == place).count();
        let region_uses =
            |place: usize| used.iter().filter(|other| self.0.get(**other) == Some(&self.0[place])).count();
        let cost = |place: usize| (uses(place), region_uses(place));
        let best = (0..self.0.len()).map(cost).min().unwrap_or_default();
        let equals: Vec<usize> = (0..self.0.len()).filter(|place| cost(*place) == best).collect();
        equals[random.random_range(0..equals.len())]
    }
}
