//! Countries, and in which part of the world they are. Pure.

use std::fmt;

use crate::Place;

/// A country by its code, two capital letters (ISO 3166-1).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Country([u8; 2]);

/// The regions by whose codes pools are chosen, with their countries but for those that lie in two ([`SPLIT`]). Which country lies where
/// has no source but the map.
const REGIONS: [(&str, &str); 13] = [
    ("WNAM", ""),
    ("ENAM", "BM GL PM"),
    ("WEU", "AD AT AX BE CH DE DK ES FI FO FR GB GG GI IE IM IS IT JE LI LU MC MT NL NO PT SE SJ SM VA"),
    ("EEU", "AL BA BG BY CY CZ EE GR HR HU LT LV MD ME MK PL RO RS RU SI SK UA XK"),
    (
        "NSAM",
        "AG AI AW BB BL BQ BS BZ CO CR CU CW DM DO GD GF GP GT GY HN HT JM KN KY LC MF MQ MS MX NI PA PR SR SV SX TC TT VC VE VG VI",
    ),
    ("SSAM", "AR BO BR CL EC FK GS PE PY UY"),
    ("OC", "AS AU CC CK CX FJ FM GU KI MH MP NC NF NR NU NZ PF PG PN PW SB TK TO TV UM VU WF WS"),
    ("ME", "AE AM AZ BH GE IL IQ IR JO KW LB OM PS QA SA SY TR YE"),
    ("NAF", "BF BJ CF CI CM CV DJ DZ EG EH ER ET GH GM GN GQ GW LR LY MA ML MR NE NG SD SL SN SO SS TD TG TN"),
    ("SAF", "AO BI BW CD CG GA KE KM LS MG MU MW MZ NA RE RW SC SH ST SZ TZ UG YT ZA ZM ZW"),
    ("SAS", "AF BD BT IN IO KG KZ LK MV NP PK TJ TM UZ"),
    ("SEAS", "BN ID KH LA MM MY PH SG TH TL VN"),
    ("NEAS", "CN HK JP KP KR MN MO TW"),
];

/// Countries that lie in Western and in Eastern North America: their states and provinces in the west, and in the east.
const SPLIT: [(&str, [&str; 2]); 2] = [
    (
        "US",
        [
            "AK AZ CA CO HI ID MT NM NV OR UT WA WY",
            "AL AR CT DC DE FL GA IA IL IN KS KY LA MA MD ME MI MN MO MS NC ND NE NH NJ NY OH OK PA RI SC SD TN TX VA VT WI WV",
        ],
    ),
    ("CA", ["AB BC MB NT SK YT", "NB NL NS NU ON PE QC"]),
];

/// The countries of a region, each with those of its states that lie there if not all do.
pub fn countries(region: &str) -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let of_region = REGIONS.into_iter().filter(move |(code, _)| *code == region);
    let whole = of_region.flat_map(|(_, codes)| codes.split_whitespace()).map(|code| (code, Vec::new()));
    let side = ["WNAM", "ENAM"].into_iter().position(|code| code == region);
    let split = side.into_iter().flat_map(|side| SPLIT.into_iter().map(move |(code, states)| (code, states[side])));
    whole.chain(split.map(|(code, states)| (code, states.split_whitespace().collect())))
}

/// Between the west and the east of North America, where no state is known: degrees of longitude.
const MIDDLE: f64 = -102.0;

impl Country {
    /// From a code of two letters.
    pub fn new(code: &str) -> Option<Self> {
        let &[one, other] = code.as_bytes() else { return None };
        let is_code = one.is_ascii_alphabetic() && other.is_ascii_alphabetic();
        is_code.then_some(Self([one.to_ascii_uppercase(), other.to_ascii_uppercase()]))
    }

    /// Its code.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The code of its region; of a country in two regions the one of this state or province, else of this place, else the one with
    /// more people.
    pub(crate) fn region(self, state: Option<&str>, place: Option<Place>) -> Option<&'static str> {
        let has = |codes: &str, code: &str| codes.split(' ').any(|one| one == code);
        if let Some((_, [western, _])) = SPLIT.iter().find(|(code, _)| *code == self.as_str()) {
            let is_west = match (state, place) {
                (Some(state), _) => has(western, state),
                (None, Some(place)) => place.longitude < MIDDLE,
                (None, None) => false,
            };
            return Some(if is_west { "WNAM" } else { "ENAM" });
        }
        REGIONS.iter().find(|(_, codes)| has(codes, self.as_str())).map(|(region, _)| *region)
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn region(code: &str) -> Option<&'static str> {
        Country::new(code).unwrap().region(None, None)
    }

    #[test]
    fn each_country_lies_in_one_region() {
        let mut seen = HashSet::new();
        for code in REGIONS.iter().flat_map(|(_, codes)| codes.split(' ')).filter(|code| !code.is_empty()) {
            assert!(code.len() == 2 && Country::new(code).unwrap().as_str() == code, "{code}");
            assert!(seen.insert(code), "{code} is there twice");
        }
        assert!(seen.len() > 230 && SPLIT.iter().all(|(code, _)| !seen.contains(code)));
        for (code, wanted) in
            [("DE", "WEU"), ("pl", "EEU"), ("MX", "NSAM"), ("BR", "SSAM"), ("JP", "NEAS"), ("ZA", "SAF")]
        {
            assert_eq!(region(code), Some(wanted), "{code}");
        }
        assert_eq!([region("AQ"), region("XX")], [None; 2]);
        assert!(["", "D", "DEU", "1A", "Ä"].iter().all(|code| Country::new(code).is_none()));
    }

    #[test]
    fn what_is_shown_of_a_region_is_what_is_found() {
        let mut all = HashSet::new();
        for (region, _) in REGIONS {
            for (code, states) in countries(region) {
                let country = Country::new(code).unwrap();
                assert!(states.iter().all(|state| country.region(Some(state), None) == Some(region)), "{code}");
                assert!(!states.is_empty() || country.region(None, None) == Some(region), "{code}");
                assert!(all.insert((code, states.first().copied())));
            }
        }
        assert_eq!(countries("ENAM").find(|(code, _)| *code == "US").unwrap().1.len(), 38);
        assert_eq!(countries("ALL_REGIONS").count() + countries("MOON").count(), 0);
    }

    #[test]
    fn north_america_is_told_by_state_or_by_place() {
        let us = Country::new("US").unwrap();
        let place = |longitude| Place::new(40.0, longitude);
        assert_eq!(us.region(Some("CA"), place(-74.0)), Some("WNAM"));
        assert_eq!(us.region(Some("NY"), None), Some("ENAM"));
        assert_eq!(us.region(None, place(-122.0)), Some("WNAM"));
        assert_eq!(us.region(None, place(-74.0)), Some("ENAM"));
        assert_eq!([region("US"), region("CA")], [Some("ENAM"); 2]);
        assert_eq!(Country::new("CA").unwrap().region(Some("BC"), None), Some("WNAM"));
    }
}
