//! The parts of the world by which visitors are led. Pure.

use super::BadTerms;

/// Each with its name. The last one is all of them.
pub const REGIONS: [(&str, &str); 14] = [
    ("WNAM", "Western North America"),
    ("ENAM", "Eastern North America"),
    ("WEU", "Western Europe"),
    ("EEU", "Eastern Europe"),
    ("NSAM", "Northern South America"),
    ("SSAM", "Southern South America"),
    ("OC", "Oceania"),
    ("ME", "Middle East"),
    ("NAF", "Northern Africa"),
    ("SAF", "Southern Africa"),
    ("SAS", "Southern Asia"),
    ("SEAS", "South East Asia"),
    ("NEAS", "North East Asia"),
    ("ALL_REGIONS", "All regions"),
];

/// Refuses what is no region.
pub(super) fn check_region(member: &str, code: &str) -> Result<(), BadTerms> {
    if REGIONS.iter().any(|(region, _)| *region == code) {
        return Ok(());
    }
    let codes: Vec<_> = REGIONS.iter().map(|(region, _)| *region).collect();
    Err(BadTerms::of(member, format_args!("{code:?} is no region; there are {}", codes.join(", "))))
}
