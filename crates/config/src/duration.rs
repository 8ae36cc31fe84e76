//! Durations as people write them: `30s`, `1m30s`, `1.5h`.

use std::time::Duration;

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// A bare number.
    #[error("{0:?} has no unit; write for example {0}s or {0}ms")]
    NoUnit(String),
    /// A number with something that is no unit.
    #[error("{0:?} is no unit of time; use h, m, s, ms, us or ns")]
    UnknownUnit(String),
    /// A minus sign.
    #[error("a duration cannot be negative")]
    Negative,
    /// More than 292 years.
    #[error("the duration is too long")]
    TooLong,
    /// Anything else.
    #[error("{0:?} is no duration; write for example 30s, 1m30s or 1.5h")]
    Malformed(String),
}

/// Parses a sequence of decimal numbers, each with a unit (`h`, `m`, `s`, `ms`, `us`, `µs`, `ns`); a bare `0` is fine
/// too.
///
/// ```
/// # use std::time::Duration;
/// assert_eq!(config::duration::parse("1m30s"), Ok(Duration::from_secs(90)));
/// ```
///
/// # Errors
/// See [`DurationError`].
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let malformed = || DurationError::Malformed(text.chars().take(40).collect());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.starts_with('-') {
        return Err(DurationError::Negative);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(malformed());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        if number.is_empty() {
            return Err(malformed());
        }
        let scale: u128 = match unit {
            "" => return Err(DurationError::NoUnit(number.chars().take(40).collect())),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(DurationError::UnknownUnit(unit.chars().take(40).collect())),
        };
        nanos = nanos.saturating_add(scaled(number, scale).ok_or_else(malformed)?);
        rest = tail;
    }
    u64::try_from(nanos)
        .ok()
        .filter(|nanos| i64::try_from(*nanos).is_ok())
        .map(Duration::from_nanos)
        .ok_or(DurationError::TooLong)
}

/// Writes a duration so that [`parse`] reads the same one: `1m30s`, `250ms`.
pub fn format(duration: Duration) -> String {
    let mut nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, scale) in [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ] {
        if nanos >= scale {
            text.push_str(&format!("{}{unit}", nanos / scale));
            nanos %= scale;
        }
    }
    text
}

/// `number` (digits with at most one point) times `scale`, in whole nanoseconds; saturates.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits = |text: &str| {
        text.bytes().fold(0_u128, |sum, digit| sum.saturating_mul(10).saturating_add((digit - b'0').into()))
    };
    // Beyond 15 digits a fraction of an hour is less than a nanosecond.
    let fraction = &fraction[..fraction.len().min(15)];
    let divisor = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(15));
    Some(digits(whole).saturating_mul(scale).saturating_add(digits(fraction) * scale / divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_understood() {
        for (text, millis) in [
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            (".5s", 500),
            ("1.s", 1_000),
            ("+2m", 120_000),
            ("0", 0),
            ("1h0m0.5s", 3_600_500),
            ("1000000us", 1_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_reason() {
        assert_eq!(parse("30"), Err(DurationError::NoUnit("30".into())));
        assert_eq!(parse("1m30"), Err(DurationError::NoUnit("30".into())));
        assert_eq!(parse("30sec"), Err(DurationError::UnknownUnit("sec".into())));
        assert_eq!(parse("-1s"), Err(DurationError::Negative));
        assert_eq!(parse(&format!("{}h", "9".repeat(60))), Err(DurationError::TooLong));
        for text in ["", "+", "s", "1.2.3s", ".s", "soon"] {
            assert!(matches!(parse(text), Err(DurationError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn a_written_duration_reads_the_same() {
        for nanos in [0, 1, 999, 1_000_001, 90_000_000_000, 3_661_001_002_003] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }
}
