//! Zone files as BIND has them (RFC 1035, section 5): read and written. Pure.

mod marks;

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

use self::marks::Marks;
use super::edit::NewRecord;
use super::refusal::BadRecord;
use super::{Record, RecordContent, RecordType};
use crate::{Hostname, RecordSet};

/// Why a zone file was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct BadZoneFile {
    /// Where, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// What one line, or several in parentheses, of a zone file say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedRecord {
    /// Where it stands, from 1.
    pub line: usize,
    /// The record; a time to live that we do not have is the nearest that we have.
    pub record: NewRecord,
    /// Whether the file says that visitors come through the edge; `None`: it says nothing.
    pub proxied: Option<bool>,
}

/// Of one entry, in however many lines: a text of 64 KiB has 260 pieces.
const MAX_WORDS: usize = 1_024;

/// Reads all records of a zone. Start-of-authority records, and the name servers of the zone itself, are passed over: they
/// are whoever's who answers for the zone.
///
/// # Errors
/// A line is not of a zone file, of a type that zones here have not, or outside of the zone.
pub fn parse_zone_file(text: &str, zone: &Hostname) -> Result<Vec<ParsedRecord>, BadZoneFile> {
    let mut reader = Reader { zone, origin: zone.clone(), ttl: None, owner: None };
    let mut records = Vec::new();
    let lines = Lines { rest: text, number: 0 };
    for line in lines {
        let line = line?;
        let at = |problem: String| BadZoneFile { line: line.number, problem };
        records.extend(reader.line(&line).map_err(at)?);
    }
    Ok(records)
}

/// Writes the records of a zone.
pub fn write_zone_file<'a>(zone: &Hostname, sets: impl Iterator<Item = &'a RecordSet>) -> String {
    let mut file = format!(";; The records of {zone}. A time to live of 1 is automatic.\n");
    for set in sets {
        let name = set.name(zone);
        for record in &set.records {
            let (ttl, kind) = (record.ttl, record.content.kind());
            let _ = writeln!(file, "{name}.\t{ttl}\tIN\t{kind}\t{}{}", record.content.to_rdata(), Marks::of(record));
        }
    }
    file
}

/// One line, or several that parentheses hold together.
struct Line<'a> {
    number: usize,
    /// Whether it begins with white space: then the name is that of the line before.
    is_indented: bool,
    /// With their quotes and escapes.
    words: Vec<Cow<'a, str>>,
    comment: &'a str,
}

struct Lines<'a> {
    rest: &'a str,
    number: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<Line<'a>, BadZoneFile>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let number = self.number + 1;
        let is_indented = self.rest.starts_with([' ', '\t']);
        let mut line = Line { number, is_indented, words: Vec::new(), comment: "" };
        let mut depth = 0usize;
        loop {
            let (text, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
            self.number += 1;
            self.rest = rest;
            if let Err(problem) = split(text.strip_suffix('\r').unwrap_or(text), &mut line, &mut depth) {
                return Some(Err(BadZoneFile { line: self.number, problem }));
            }
            if depth == 0 {
                return Some(Ok(line));
            }
            if self.rest.is_empty() {
                return Some(Err(BadZoneFile { line: number, problem: "a parenthesis is not closed".to_owned() }));
            }
        }
    }
}

/// Adds the words of one line of text.
fn split<'a>(text: &'a str, line: &mut Line<'a>, depth: &mut usize) -> Result<(), String> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b' ' | b'\t' => at += 1,
            b';' => {
                line.comment = &text[at + 1..];
                return Ok(());
            }
            b'(' => (*depth, at) = (*depth + 1, at + 1),
            b')' => (*depth, at) = (depth.checked_sub(1).ok_or("a parenthesis was never opened")?, at + 1),
            _ => {
                if line.words.len() == MAX_WORDS {
                    return Err(format!("an entry has at most {MAX_WORDS} words"));
                }
                let end = at + length_of_word(&text[at..])?;
                line.words.push(Cow::Borrowed(&text[at..end]));
                at = end;
            }
        }
    }
    Ok(())
}

fn length_of_word(text: &str) -> Result<usize, String> {
    let mut in_quotes = false;
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_quotes = !in_quotes,
            ' ' | '\t' | ';' | '(' | ')' if !in_quotes => return Ok(at),
            _ => (),
        }
    }
    if in_quotes { Err("a quote (\") is not closed".to_owned()) } else { Ok(text.len()) }
}

/// What is known from the lines before.
struct Reader<'a> {
    zone: &'a Hostname,
    origin: Hostname,
    ttl: Option<u32>,
    owner: Option<Hostname>,
}

impl Reader<'_> {
    fn line(&mut self, line: &Line<'_>) -> Result<Option<ParsedRecord>, String> {
        let mut words = line.words.iter().map(|word| &**word).peekable();
        let Some(first) = words.peek() else { return Ok(None) };
        if let Some(directive) = first.strip_prefix('$') {
            let value = line.words.get(1).map(|word| &**word);
            self.directive(directive, value)?;
            return Ok(None);
        }
        if !line.is_indented {
            self.owner = Some(self.name(first)?);
            words.next();
        }
        let owner = self.owner.clone().ok_or("the first record has no name")?;
        let mut ttl = None;
        let kind = loop {
            let word = words.next().ok_or("a type is missing, such as A")?;
            if word.eq_ignore_ascii_case("IN") {
                continue;
            }
            match seconds(word) {
                Some(found) if ttl.is_none() => ttl = Some(found),
                _ => break word,
            }
        };
        if kind.eq_ignore_ascii_case("SOA") {
            // What it says last has been the time to live of records without one, before there was $TTL.
            return Ok(None);
        }
        let kind: RecordType =
            kind.parse().map_err(|problem| format!("{kind:?} is no type of record here: {problem}"))?;
        if kind == RecordType::Ns && owner == *self.zone {
            return Ok(None);
        }
        let rdata: Vec<&str> = words.collect();
        self.record(line, owner, ttl.or(self.ttl), kind, &rdata.join(" ")).map(Some)
    }

    fn record(
        &self,
        line: &Line<'_>,
        owner: Hostname,
        ttl: Option<u32>,
        kind: RecordType,
        rdata: &str,
    ) -> Result<ParsedRecord, String> {
        let said = |problem: BadRecord| problem.to_string();
        let content = RecordContent::parse(kind, rdata, None, Some(&self.origin)).map_err(said)?;
        let ttl = match ttl {
            None | Some(Record::AUTOMATIC) => Record::AUTOMATIC,
            Some(ttl) => ttl.clamp(Record::MIN_TTL, Record::MAX_TTL),
        };
        let Marks { comment, tags, settings, proxied } = Marks::parse(line.comment);
        let record = NewRecord::new(owner, content).with_ttl(ttl).map_err(said)?;
        let record = record.with_notes(comment.as_deref(), &tags, settings).map_err(said)?;
        Ok(ParsedRecord { line: line.number, record, proxied: proxied.filter(|_| kind.is_proxiable()) })
    }

    fn directive(&mut self, directive: &str, value: Option<&str>) -> Result<(), String> {
        let value = value.ok_or_else(|| format!("${directive} says nothing"))?;
        match directive.to_ascii_uppercase().as_str() {
            "ORIGIN" => self.origin = self.name(value)?,
            "TTL" => self.ttl = Some(seconds(value).ok_or("$TTL: seconds are wanted")?),
            _ => return Err(format!("${directive} is not taken here: write the records out")),
        }
        Ok(())
    }

    fn name(&self, word: &str) -> Result<Hostname, String> {
        let whole = match word {
            "@" => return Ok(self.origin.clone()),
            word if word.ends_with('.') => Cow::Borrowed(word),
            word => Cow::Owned(format!("{word}.{}", self.origin)),
        };
        let name = Hostname::parse(&whole).map_err(|problem| format!("{word:?}: {problem}"))?;
        if name.is_within(self.zone) { Ok(name) } else { Err(outside(&name, self.zone)) }
    }
}

fn outside(name: &impl Display, zone: &Hostname) -> String {
    format!("{name} does not lie in the zone {zone}")
}

/// A time as BIND has it: seconds, or numbers with units (`1h30m`).
fn seconds(word: &str) -> Option<u32> {
    let mut total = 0u32;
    let mut number = None::<u32>;
    for character in word.chars() {
        if let Some(digit) = character.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
            continue;
        }
        let unit = match character.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    match number {
        Some(rest) => total.checked_add(rest),
        None if word.is_empty() => None,
        None => Some(total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Hostname {
        Hostname::parse("example.test").unwrap()
    }

    fn read(text: &str) -> Vec<(String, u32, String)> {
        let records = parse_zone_file(text, &zone()).unwrap_or_else(|error| panic!("{error}: {text}"));
        records
            .into_iter()
            .map(|parsed| {
                let record = parsed.record.clone().into_record_for_tests();
                (parsed.record.name().to_string(), record.ttl, record.content.to_rdata())
            })
            .collect()
    }

    #[test]
    fn a_file_as_bind_writes_it_is_read() {
        let text = r#"
$TTL 1h
@	IN	SOA	ns1 hostmaster ( 1 ; serial
		3h 15m 1w 1d )
@	IN	NS	ns1.elsewhere.test.
www	300	IN	A	192.0.2.1
	IN 300	AAAA	2001:db8::1
mail	MX	10 mx.example.test.
	MX	20 mx2
$ORIGIN sub.example.test.
@	1D TXT	"one" ( "two ; no comment"
	"three" ) ; a comment
*	CNAME	www.example.test.
_sip._tcp SRV 1 2 5060 @
"#;
        let expected = [
            ("www.example.test", 300, "192.0.2.1"),
            ("www.example.test", 300, "2001:db8::1"),
            ("mail.example.test", 3600, "10 mx.example.test."),
            ("mail.example.test", 3600, "20 mx2.example.test."),
            ("sub.example.test", 86_400, r#""one" "two ; no comment" "three""#),
            ("*.sub.example.test", 3600, "www.example.test."),
            ("_sip._tcp.sub.example.test", 3600, "1 2 5060 sub.example.test."),
        ];
        let expected = expected.map(|(name, ttl, data)| (name.to_owned(), ttl, data.to_owned()));
        assert_eq!(read(text), expected);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, line, said) in [
            ("a A 192.0.2.1\nb A nonsense", 2, "IPv4"),
            ("\n\n A 192.0.2.1", 3, "no name"),
            ("www.elsewhere.test. A 192.0.2.1", 1, "does not lie in the zone"),
            ("a WKS 192.0.2.1", 1, "no type"),
            ("a TXT \"open", 1, "not closed"),
            ("a TXT ( \"x\"\n", 1, "parenthesis"),
            ("a TXT x )", 1, "never opened"),
            ("$INCLUDE /etc/passwd", 1, "not taken"),
            ("$GENERATE 1-10 a$ A 192.0.2.$", 1, "not taken"),
            ("a 300 IN", 1, "type is missing"),
            ("a..b A 192.0.2.1", 1, "a..b"),
            ("a CH TXT x", 1, "no type"),
        ] {
            let error = parse_zone_file(text, &zone()).unwrap_err();
            assert!(error.line == line && error.problem.contains(said), "{text:?}: {error}");
        }
    }

    #[test]
    fn times_are_seconds_or_have_units() {
        for (word, expected) in [("0", Some(0)), ("1h30m", Some(5400)), ("2W", Some(1_209_600)), ("1d1", Some(86_401))]
        {
            assert_eq!(seconds(word), expected, "{word}");
        }
        for word in ["", "h", "1x", "99999999999", "99999w", "A"] {
            assert_eq!(seconds(word), None, "{word}");
        }
    }

    #[test]
    fn what_is_said_about_proxying_is_understood() {
        let text =
            "a A 192.0.2.1 ; cf_tags=cf-proxied:true\nb A 192.0.2.1 ; cf_tags=x,cf-proxied:false\nc A 192.0.2.1 ; x";
        let said: Vec<_> = parse_zone_file(text, &zone()).unwrap().iter().map(|parsed| parsed.proxied).collect();
        assert_eq!(said, [Some(true), Some(false), None]);
    }
}
