//! The data of LOC records (RFC 1876). Pure.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

/// Half of a place: degrees, minutes and thousandths of seconds towards a side.
struct Angle {
    degrees: u32,
    minutes: u32,
    milliseconds: u32,
    side: char,
}

/// The lengths behind the place, in centimetres: altitude, size, and both precisions, with what RFC 1876 assumes.
const LENGTHS: [(&str, i64); 4] =
    [("altitude", 0), ("size", 100), ("precision_horz", 1_000_000), ("precision_vert", 1_000)];
/// The altitudes that 32 bits hold above 100 km below the sea, in centimetres.
const ALTITUDES: std::ops::RangeInclusive<i64> = -10_000_000..=4_284_967_295;
/// The largest size or precision, in centimetres.
const LARGEST: i64 = 9_000_000_000;

/// Reads a place, and answers its one form.
pub(super) fn parse(text: &str) -> Result<String, String> {
    let mut words = text.split_ascii_whitespace().peekable();
    let latitude = angle(&mut words, ['N', 'S'], 90)?;
    let longitude = angle(&mut words, ['E', 'W'], 180)?;
    let mut lengths = [0; 4];
    for (length, (name, usual)) in lengths.iter_mut().zip(LENGTHS) {
        *length = match words.next() {
            Some(word) => checked_length(name, word)?,
            None if name == "altitude" => return Err("the altitude is missing".to_owned()),
            None => usual,
        };
    }
    match words.next() {
        Some(more) => Err(format!("it goes on behind its end, with {more:?}")),
        None => Ok(format(&latitude, &longitude, lengths)),
    }
}

/// Reads a place member by member.
pub(super) fn of_json(data: &Map<String, Value>) -> Result<String, String> {
    let text = |name: &str| match data.get(name) {
        Some(Value::String(text)) => Some(text.trim().to_owned()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let mut words = String::new();
    for half in ["lat", "long"] {
        for (part, usual) in [("degrees", None), ("minutes", Some("0")), ("seconds", Some("0")), ("direction", None)] {
            let name = format!("{half}_{part}");
            let value = text(&name).or_else(|| usual.map(str::to_owned));
            let value = value.ok_or_else(|| format!("data.{name} is missing"))?;
            let value = if part == "seconds" { value.as_str() } else { value.trim_end_matches(".0") };
            let _ = write!(words, "{value} ");
        }
    }
    for (name, usual) in LENGTHS {
        let value = text(name).unwrap_or_else(|| metres(usual));
        let _ = write!(words, "{value} ");
    }
    parse(&words)
}

/// The members of a place in its one form.
pub(super) fn to_json(text: &str) -> Map<String, Value> {
    const NAMES: [&str; 12] = [
        "lat_degrees",
        "lat_minutes",
        "lat_seconds",
        "lat_direction",
        "long_degrees",
        "long_minutes",
        "long_seconds",
        "long_direction",
        "altitude",
        "size",
        "precision_horz",
        "precision_vert",
    ];
    let value = |word: &str| match word.trim_end_matches('m').parse::<f64>() {
        Ok(number) if number.fract() == 0.0 => Value::from(number as i64),
        Ok(number) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        Err(_) => Value::String(word.to_owned()),
    };
    NAMES.into_iter().zip(text.split(' ')).map(|(name, word)| (name.to_owned(), value(word))).collect()
}

/// The 16 bytes of a place in its one form (RFC 1876, section 2); `None` for another form.
pub(super) fn to_wire(text: &str) -> Option<[u8; 16]> {
    let mut words = text.split(' ').peekable();
    let latitude = angle(&mut words, ['N', 'S'], 90).ok()?;
    let longitude = angle(&mut words, ['E', 'W'], 180).ok()?;
    let mut lengths = [0; 4];
    for (length, (name, _)) in lengths.iter_mut().zip(LENGTHS) {
        *length = checked_length(name, words.next()?).ok()?;
    }
    let [altitude, extents @ ..] = lengths;
    let mut wire = [0; 16];
    for (byte, extent) in wire[1..].iter_mut().zip(extents) {
        *byte = rounded(extent);
    }
    wire[4..8].copy_from_slice(&thousandths(&latitude).to_be_bytes());
    wire[8..12].copy_from_slice(&thousandths(&longitude).to_be_bytes());
    let altitude = u32::try_from(altitude - ALTITUDES.start()).ok()?;
    wire[12..].copy_from_slice(&altitude.to_be_bytes());
    Some(wire)
}

/// Thousandths of seconds of arc, of which 2^31 is the equator or the prime meridian.
fn thousandths(angle: &Angle) -> u32 {
    let size = (angle.degrees * 60 + angle.minutes) * 60_000 + angle.milliseconds;
    let is_positive = matches!(angle.side, 'N' | 'E');
    if is_positive { (1 << 31) + size } else { (1 << 31) - size }
}

/// Centimetres as one digit and the power of ten that it is multiplied by.
fn rounded(centimetres: i64) -> u8 {
    let power = centimetres.max(1).ilog10().min(9);
    let digit = u8::try_from((centimetres / 10_i64.pow(power)).clamp(0, 9)).unwrap_or_default();
    digit << 4 | u8::try_from(power).unwrap_or_default()
}

fn angle<'a>(
    words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
    sides: [char; 2],
    most: u32,
) -> Result<Angle, String> {
    let wanted = || format!("degrees up to {most}, minutes, seconds and {} or {} are wanted", sides[0], sides[1]);
    let mut angle = Angle { degrees: 0, minutes: 0, milliseconds: 0, side: ' ' };
    for place in 0..4 {
        let word = words.next().ok_or_else(wanted)?;
        let side = word.chars().next().filter(|_| word.len() == 1).map(|letter| letter.to_ascii_uppercase());
        if let Some(side) = side.filter(|side| sides.contains(side) && place > 0) {
            angle.side = side;
            break;
        }
        match place {
            0 => angle.degrees = word.parse().map_err(|_| wanted())?,
            1 => angle.minutes = word.parse().map_err(|_| wanted())?,
            2 => angle.milliseconds = scaled(word, 3).and_then(|value| u32::try_from(value).ok()).ok_or_else(wanted)?,
            _ => return Err(wanted()),
        }
    }
    let fits = angle.minutes < 60 && angle.milliseconds < 60_000 && angle.side != ' ' && angle.degrees <= most;
    let is_beyond = angle.degrees == most && (angle.minutes, angle.milliseconds) != (0, 0);
    if fits && !is_beyond { Ok(angle) } else { Err(wanted()) }
}

fn checked_length(name: &str, word: &str) -> Result<i64, String> {
    let range = if name == "altitude" { ALTITUDES } else { 0..=LARGEST };
    let length = scaled(word.strip_suffix('m').unwrap_or(word), 2).filter(|length| range.contains(length));
    length.ok_or_else(|| {
        format!("{name}: metres are wanted, from {} to {}", metres(*range.start()), metres(*range.end()))
    })
}

/// A decimal number with at most so many digits behind the point, without the point.
fn scaled(text: &str, digits: usize) -> Option<i64> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    // Zeros behind say nothing; tools write seconds with as many digits as they please.
    let fraction = fraction.trim_end_matches('0');
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 12 || !is_number(whole) || fraction.len() > digits || !is_number(fraction) {
        return None;
    }
    format!("{whole}{fraction:0<digits$}").parse::<i64>().ok().map(|number| sign * number)
}

fn metres(centimetres: i64) -> String {
    let sign = if centimetres < 0 { "-" } else { "" };
    let centimetres = centimetres.unsigned_abs();
    format!("{sign}{}.{:02}m", centimetres / 100, centimetres % 100)
}

fn format(latitude: &Angle, longitude: &Angle, lengths: [i64; 4]) -> String {
    let mut text = String::new();
    for Angle { degrees, minutes, milliseconds, side } in [latitude, longitude] {
        let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
        let _ = write!(text, "{degrees} {minutes} {seconds}.{rest:03} {side} ");
    }
    text.push_str(&lengths.map(metres).join(" "));
    text
}
