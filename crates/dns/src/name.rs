//! Names as questions have them (RFC 1035, section 3.1). Pure.

/// The longest name, with its length bytes and the root's.
const MAX_BYTES: usize = 255;
/// The longest label; greater length bytes mean something else.
const MAX_LABEL: u8 = 63;
/// Stands for bytes that no host name has, so that a label with them is like no other.
const FOREIGN: char = '\u{1}';

/// Why bytes are no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadName;

/// A name in lower case, as DNS carries it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name {
    bytes: [u8; MAX_BYTES],
    length: u8,
}

impl Name {
    /// Reads the name at the front of these bytes. Pointers are refused: nothing is in front of a question to point to.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, BadName> {
        let mut name = Self { bytes: [0; MAX_BYTES], length: 0 };
        let mut at = 0;
        loop {
            let length = *bytes.get(at).ok_or(BadName)?;
            if length > MAX_LABEL {
                return Err(BadName);
            }
            let end = at + 1 + usize::from(length);
            let label = bytes.get(at..end).ok_or(BadName)?;
            let place = name.bytes.get_mut(at..end).ok_or(BadName)?;
            place.copy_from_slice(label);
            place.make_ascii_lowercase();
            at = end;
            if length == 0 {
                name.length = u8::try_from(at).map_err(|_| BadName)?;
                return Ok(name);
            }
        }
    }

    /// With length bytes, up to the root's.
    pub(crate) fn as_wire(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The labels, the first one first.
    fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.as_wire();
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let (label, after) = after.split_at_checked(usize::from(*length))?;
            rest = after;
            (!label.is_empty()).then_some(label)
        })
    }

    /// In the form that host names have in the registry. What cannot be a label there stands for itself as nothing that is
    /// there.
    pub(crate) fn to_text(self) -> String {
        let mut text = String::with_capacity(usize::from(self.length));
        for label in self.labels() {
            if !text.is_empty() {
                text.push('.');
            }
            text.extend(label.iter().map(|byte| match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'*' => char::from(*byte),
                _ => FOREIGN,
            }));
        }
        text
    }
}

/// A host name without trailing dot as DNS carries it. Names of the registry always have that form.
pub(crate) fn to_wire(host: &str) -> Vec<u8> {
    let mut wire = Vec::with_capacity(host.len() + 2);
    for label in host.split('.').filter(|label| !label.is_empty()) {
        // Longer ones are in no name of the registry, and would be read as something else.
        let label = &label.as_bytes()[..label.len().min(usize::from(MAX_LABEL))];
        wire.push(u8::try_from(label.len()).unwrap_or(MAX_LABEL));
        wire.extend_from_slice(label);
    }
    wire.push(0);
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_lower_case() {
        let name = Name::read(b"\x03wWw\x07ExAmple\x04test\0rest").unwrap();
        assert_eq!(
            (name.as_wire(), name.to_text().as_str()),
            (&b"\x03www\x07example\x04test\0"[..], "www.example.test")
        );
        assert_eq!(Name::read(b"\0").unwrap().to_text(), "");
        assert_eq!(to_wire("www.example.test"), name.as_wire());
        assert_eq!(to_wire("."), b"\0");
    }

    #[test]
    fn odd_bytes_are_in_no_host_name() {
        for odd in [&b"\x03a.b\x04test\0"[..], b"\x01@\x04test\0", b"\x02\xc3\xbc\x04test\0", b"\x01\0\x04test\0"] {
            let text = Name::read(odd).unwrap().to_text();
            assert!(text.ends_with(".test") && text.contains(FOREIGN) && text.matches('.').count() == 1, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long_label = [&[64][..], &[b'a'; 64], &[0]].concat();
        let long_name = [&[63][..], &[b'a'; 63]].concat().repeat(4);
        let long_name = [&long_name[..], &[0]].concat();
        for bad in [&b""[..], b"\x03ww", b"\x03www", b"\xc0\x0c", &long_label, &long_name] {
            assert_eq!(Name::read(bad).err(), Some(BadName), "{bad:?}");
        }
        let longest = [&[63][..], &[b'a'; 63]].concat().repeat(3);
        let longest = [&longest[..], &[61], &[b'a'; 61], &[0]].concat();
        assert_eq!(Name::read(&longest).unwrap().as_wire(), longest);
    }
}
