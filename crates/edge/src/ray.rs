use std::fmt;

use rand::Rng;

/// Names one request: sixteen hexadecimal digits, told to the visitor and to the origin as `cf-ray`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ray(u64);

impl Ray {
    /// A new one at random, so that nobody can guess another visitor's.
    pub(crate) fn random() -> Self {
        Self(rand::rng().random())
    }

    /// The value of `cf-ray`, which also says where the request came in.
    pub(crate) fn at(self, location: &str) -> String {
        format!("{self}-{}", location.to_ascii_uppercase())
    }
}

impl fmt::Display for Ray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
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
