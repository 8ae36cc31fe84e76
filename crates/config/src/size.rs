//! Sizes in bytes as people write them: `1048576`, `64KiB`, `1.5 MB`.

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a number with a unit.
    #[error("{0:?} is no size; write for example 65536, 64KiB or 10MB")]
    Malformed(String),
    /// More than 2⁶³ bytes.
    #[error("the size is too large")]
    TooLarge,
}

const UNITS: [(&str, u64); 12] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kb", 1_000),
    ("kib", 1 << 10),
    ("m", 1 << 20),
    ("mb", 1_000_000),
    ("mib", 1 << 20),
    ("g", 1 << 30),
    ("gb", 1_000_000_000),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// Parses a number of bytes with an optional unit, in either case: `B`, `kB`, `MB`, `GB` (powers of 1000), `KiB`, `MiB`, `GiB`, `TiB`
/// (powers of 1024); `K`, `M`, `G` mean the latter.
///
/// # Errors
/// See [`SizeError`].
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let malformed = || SizeError::Malformed(text.chars().take(40).collect());
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(malformed)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || fraction.len() > 9 {
        return Err(malformed());
    }
    let whole: u64 = whole.parse().map_err(|_| SizeError::TooLarge)?;
    let mut size = whole.checked_mul(*scale).ok_or(SizeError::TooLarge)?;
    if !fraction.is_empty() {
        let digits: u128 = fraction.parse().map_err(|_| malformed())?;
        let part = digits * u128::from(*scale) / 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(9));
        size = size.saturating_add(u64::try_from(part).unwrap_or(u64::MAX));
    }
    if i64::try_from(size).is_err() { Err(SizeError::TooLarge) } else { Ok(size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_written() {
        for (text, bytes) in
            [("0", 0), ("65536", 65_536), ("64KiB", 65_536), ("1.5 MB", 1_500_000), ("2g", 2 << 30), ("10 b", 10)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "x", "-1", "1.2.3k", "10 parsecs", ".5k", "1.0000000001k"] {
            assert!(matches!(parse(text), Err(SizeError::Malformed(_))), "{text}");
        }
        assert_eq!(parse("99999999999999999999"), Err(SizeError::TooLarge));
        assert_eq!(parse("99999999999TiB"), Err(SizeError::TooLarge));
    }
}
