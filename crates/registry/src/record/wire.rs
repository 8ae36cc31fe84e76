//! The data of records as DNS carries it (RFC 1035, section 3.3, and its successors). Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::content::RecordContent;
use super::field::{self, Field, Form};
use super::kind::RecordType;
use super::{location, text};

/// Keys of service parameters, by number (RFC 9460, section 14.3.2; RFC 9461; RFC 9540).
const PARAMETERS: [&str; 9] =
    ["mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint", "dohpath", "ohttp"];

impl RecordContent {
    /// The data as DNS carries it, with names uncompressed; `None` for what has no such form, as a service parameter whose
    /// name nobody knows.
    pub fn to_wire(&self) -> Option<Vec<u8>> {
        let mut wire = Vec::new();
        let content = self.text();
        match self.kind() {
            RecordType::A => wire.extend(content.parse::<std::net::Ipv4Addr>().ok()?.octets()),
            RecordType::Aaaa => wire.extend(content.parse::<std::net::Ipv6Addr>().ok()?.octets()),
            RecordType::Cname | RecordType::Ns | RecordType::Ptr => push_name(&mut wire, content)?,
            RecordType::Mx => {
                wire.extend(self.priority()?.to_be_bytes());
                push_name(&mut wire, content)?;
            }
            RecordType::Txt => {
                for word in text::words(&self.to_rdata()).ok()? {
                    push_string(&mut wire, word.text.as_bytes())?;
                }
            }
            RecordType::Loc => wire.extend(location::to_wire(content)?),
            kind => {
                let mut rest = content;
                for field in field::fields(kind) {
                    let (value, after) = field.take(rest, None).ok()?;
                    push_field(&mut wire, *field, &value)?;
                    rest = after;
                }
            }
        }
        Some(wire)
    }
}

/// Adds a host name without a trailing dot; `.` is the root.
fn push_name(wire: &mut Vec<u8>, host: &str) -> Option<()> {
    for label in host.split('.').filter(|label| !label.is_empty()) {
        push_string(wire, label.as_bytes())?;
    }
    wire.push(0);
    Some(())
}

/// Adds up to 255 bytes behind their number.
fn push_string(wire: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    wire.push(u8::try_from(bytes.len()).ok()?);
    wire.extend_from_slice(bytes);
    Some(())
}

fn push_field(wire: &mut Vec<u8>, field: Field, normal: &str) -> Option<()> {
    let unquoted = || text::word(normal).ok().map(|(word, _)| word.text);
    match field.form {
        Form::Number(most) => {
            let number: u32 = normal.parse().ok()?;
            match most {
                0xff => wire.push(u8::try_from(number).ok()?),
                _ => wire.extend(u16::try_from(number).ok()?.to_be_bytes()),
            }
        }
        Form::Host => push_name(wire, normal)?,
        Form::Tag => push_string(wire, normal.as_bytes())?,
        Form::Text => wire.extend(unquoted()?.bytes()),
        Form::ShortText => push_string(wire, unquoted()?.as_bytes())?,
        Form::Hex => {
            for pair in normal.as_bytes().chunks(2) {
                wire.push(u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?);
            }
        }
        Form::Base64 => wire.extend(STANDARD.decode(normal).ok()?),
        Form::Parameters => wire.extend(parameters(normal)?),
    }
    Some(())
}

/// Service parameters by ascending numbers of their keys (RFC 9460, section 2.2).
fn parameters(normal: &str) -> Option<Vec<u8>> {
    let mut parameters = Vec::new();
    for word in field::split_parameters(normal) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        let key = key_number(key)?;
        parameters.push((key, parameter_value(key, value)?));
    }
    parameters.sort_unstable();
    let mut wire = Vec::new();
    for (key, value) in parameters {
        wire.extend(key.to_be_bytes());
        wire.extend(u16::try_from(value.len()).ok()?.to_be_bytes());
        wire.extend(value);
    }
    Some(wire)
}

fn key_number(key: &str) -> Option<u16> {
    match PARAMETERS.iter().position(|known| *known == key) {
        Some(number) => u16::try_from(number).ok(),
        None => key.strip_prefix("key")?.parse().ok(),
    }
}

fn parameter_value(key: u16, value: &str) -> Option<Vec<u8>> {
    let mut wire = Vec::new();
    match PARAMETERS.get(usize::from(key)).copied() {
        Some("mandatory") => {
            let mut keys = value.split(',').map(key_number).collect::<Option<Vec<_>>>()?;
            keys.sort_unstable();
            wire.extend(keys.into_iter().flat_map(u16::to_be_bytes));
        }
        Some("alpn") => {
            for protocol in comma_separated(&unescaped(value)?) {
                push_string(&mut wire, &protocol)?;
            }
        }
        Some("port") => wire.extend(value.parse::<u16>().ok()?.to_be_bytes()),
        Some("ipv4hint") => {
            for address in value.split(',') {
                wire.extend(address.parse::<std::net::Ipv4Addr>().ok()?.octets());
            }
        }
        Some("ipv6hint") => {
            for address in value.split(',') {
                wire.extend(address.parse::<std::net::Ipv6Addr>().ok()?.octets());
            }
        }
        Some("ech") => wire = STANDARD.decode(value).ok()?,
        _ => wire = unescaped(value)?,
    }
    Some(wire)
}

/// Without the escapes of zone files: a backslash before three digits of a byte, or before a character.
fn unescaped(value: &str) -> Option<Vec<u8>> {
    let mut bytes = value.bytes();
    let mut plain = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        match bytes.next()? {
            hundreds @ b'0'..=b'9' => {
                let digits = [hundreds, bytes.next()?, bytes.next()?];
                plain.push(std::str::from_utf8(&digits).ok()?.parse().ok()?);
            }
            other => plain.push(other),
        }
    }
    Some(plain)
}

/// The values of a list, in which a backslash stands before commas that separate nothing (RFC 9460, appendix A.1).
fn comma_separated(list: &[u8]) -> Vec<Vec<u8>> {
    let mut values = vec![Vec::new()];
    let mut bytes = list.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b',' => values.push(Vec::new()),
            b'\\' => values.last_mut().expect("there is one from the start").extend(bytes.next()),
            other => values.last_mut().expect("there is one from the start").push(other),
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(kind: RecordType, text: &str) -> Option<Vec<u8>> {
        RecordContent::parse(kind, text, None, None).unwrap_or_else(|error| panic!("{text}: {error}")).to_wire()
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_ascii_whitespace().collect();
        digits
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn data_has_the_form_that_its_type_has_in_dns() {
        // RFC 1035, section 3.3, and those that define the others.
        for (kind, text, expected) in [
            (RecordType::A, "192.0.2.1", "c0000201"),
            (RecordType::Aaaa, "2001:db8::1", "20010db8000000000000000000000001"),
            (RecordType::Cname, "a.test", "01610474657374 00"),
            (RecordType::Mx, "10 a.test", "000a 01610474657374 00"),
            (RecordType::Txt, "v=1", "03763d31"),
            (RecordType::Txt, r#""a" "b\"""#, "0161 026222"),
            (RecordType::Srv, "1 2 443 .", "0001 0002 01bb 00"),
            (RecordType::Caa, r#"0 issue "ca.test""#, "00 056973737565 63612e74657374"),
            (RecordType::Uri, r#"1 2 "https://a/""#, "0001 0002 68747470733a2f2f612f"),
            (RecordType::Tlsa, "3 1 0 abcdef", "030100abcdef"),
            (RecordType::Sshfp, "4 3 00ff", "040300ff"),
            (RecordType::Ds, "1 13 9 00ff", "00010d0900ff"),
            (RecordType::Dnskey, "257 3 13 AAEC", "0101030d000102"),
            (RecordType::Cert, "1 2 3 AAEC", "0001000203000102"),
            (RecordType::Openpgpkey, "AAEC", "000102"),
            (RecordType::Naptr, r#"1 2 "u" "sip" "!^.*$!a!" ."#, "0001 0002 0175 03736970 08215e2e2a24216121 00"),
            (RecordType::Https, "1 .", "0001 00"),
            (
                RecordType::Svcb,
                r#"16 a.test port=53 alpn="h3,h2" ipv4hint=192.0.2.1 mandatory=port,alpn key667="x\031""#,
                "0010 01610474657374 00 0000 0004 00010003 0001 0006 026833026832 0003 0002 0035 0004 0004 c0000201 029b 0002 781f",
            ),
            (RecordType::Svcb, r#"1 . alpn="f\\\\oo\\,bar,h2""#, "0001 00 0001 000c 08665c6f6f2c626172 026832"),
            (
                RecordType::Loc,
                "52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000.00m 10.00m",
                "00 00 16 13 8b3cf018 810cbce0 009895b8",
            ),
        ] {
            assert_eq!(wire(kind, text), Some(hex(expected)), "{kind} {text}");
        }
        assert_eq!(wire(RecordType::Https, "1 . unheard-of=1"), None);
    }

    #[test]
    fn long_texts_are_several_strings() {
        let long = wire(RecordType::Txt, &"x".repeat(300)).unwrap();
        assert_eq!((long.len(), long[0], long[256]), (302, 255, 45));
    }
}
