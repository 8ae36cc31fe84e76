use http::HeaderMap;

/// Header fields or trailers in one piece of memory, so that what they take is known exactly: a `name: value` line for
/// each. No field holds a line break, so the lines can be told apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields {
    lines: Vec<u8>,
    /// Fields that found no room.
    left_out: usize,
}

impl Fields {
    /// Keeps the fields that fit into so many bytes.
    pub(super) fn keep(map: &HeaderMap, limit: usize) -> Self {
        let size = |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + 3;
        let mut lines = Vec::with_capacity(map.iter().map(size).sum::<usize>().min(limit));
        let mut left_out = 0;
        for (name, value) in map {
            if lines.len() + size((name, value)) > limit {
                left_out += 1;
                continue;
            }
            lines.extend_from_slice(name.as_str().as_bytes());
            lines.extend_from_slice(b": ");
            lines.extend_from_slice(value.as_bytes());
            lines.push(b'\n');
        }
        Self { lines, left_out }
    }

    /// Names and values in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.lines.split_inclusive(|byte| *byte == b'\n').filter_map(|line| {
            let end = line.windows(2).position(|pair| pair == b": ")?;
            let name = std::str::from_utf8(&line[..end]).ok()?;
            Some((name, &line[end + 2..line.len() - 1]))
        })
    }

    /// The first value of this name, which is in small letters.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// How many fields found no room.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    /// The memory they take.
    pub(super) fn size(&self) -> usize {
        self.lines.capacity()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn fields_come_back_as_they_were() {
        let mut map = HeaderMap::new();
        for (name, value) in [("host", "a.test:1"), ("x-empty", ""), ("x-colons", ": : "), ("x-twice", "1")] {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map.append("x-twice", HeaderValue::from_bytes(b"\xFF\xFE").unwrap());
        let fields = Fields::keep(&map, 1000);
        let expected: Vec<(&str, &[u8])> = map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields.iter().collect::<Vec<_>>(), expected);
        assert_eq!((fields.get("host"), fields.get("x-none")), (Some(&b"a.test:1"[..]), None));
        assert_eq!(fields.left_out(), 0);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut map = HeaderMap::new();
        map.append("x-long", HeaderValue::from_str(&"x".repeat(200)).unwrap());
        map.append("x-short", HeaderValue::from_static("1"));
        let fields = Fields::keep(&map, 100);
        assert_eq!(fields.iter().collect::<Vec<_>>(), [("x-short", &b"1"[..])]);
        assert_eq!(fields.left_out(), 1);
        assert!(fields.size() <= 100);
    }
}
