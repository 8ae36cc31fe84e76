use bytes::Bytes;
use http::HeaderValue;
use rand::Rng;

/// Enough that nobody meets another's.
const DIGITS: usize = 16;

/// Names one request: sixteen hexadecimal digits, told to the visitor and to the origin as `cf-ray`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ray(u64);

impl Ray {
    /// A new one at random, so that nobody can guess another visitor's.
    pub(crate) fn random() -> Self {
        Self(rand::rng().random())
    }

    /// The value of `cf-ray`, which also says where the request came in.
    ///
    /// It is marked as sensitive: no other request has it, so that it would only drive what others share out of the tables
    /// that compress headers.
    pub(crate) fn at(self, location: &str) -> HeaderValue {
        let mut text = Vec::with_capacity(DIGITS + 1 + location.len());
        text.extend((0..DIGITS).rev().map(|place| b"0123456789abcdef"[(self.0 >> (4 * place)) as usize % 16]));
        text.push(b'-');
        text.extend(location.bytes().map(|byte| byte.to_ascii_uppercase()));
        let mut value =
            HeaderValue::from_maybe_shared(Bytes::from(text)).expect("digits, and a name of printable ASCII");
        value.set_sensitive(true);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_form_that_log_tools_know() {
        assert_eq!(Ray(0x2a).at("lab01"), "000000000000002a-LAB01");
    }
}
