use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::duration;

/// A value that is written as one YAML scalar.
pub trait Value: Sized {
    /// What to write, with an example: "a duration such as 30s".
    const EXPECTED: &'static str;

    /// Reads the text of a scalar. `plain` says that it stood without quotes.
    ///
    /// # Errors
    /// A reason for people, or an empty text where [`Value::EXPECTED`] says it all.
    fn from_scalar(text: &str, plain: bool) -> Result<Self, String>;
}

impl Value for String {
    const EXPECTED: &'static str = "text";

    fn from_scalar(text: &str, _: bool) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path such as /etc/snicket/ca.pem";

    fn from_scalar(text: &str, _: bool) -> Result<Self, String> {
        if text.is_empty() || text.contains('\0') { Err(String::new()) } else { Ok(Self::from(text)) }
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    /// The words of YAML 1.1 count as well, since the reader of existing files took them.
    fn from_scalar(text: &str, plain: bool) -> Result<Self, String> {
        match (plain, text.to_ascii_lowercase().as_str()) {
            (true, "true" | "yes" | "on" | "y") => Ok(true),
            (true, "false" | "no" | "off" | "n") => Ok(false),
            (false, "true" | "false") => Err("without quotes".to_owned()),
            _ => Err(String::new()),
        }
    }
}

impl Value for Duration {
    const EXPECTED: &'static str = "a duration such as 30s or 1m30s";

    fn from_scalar(text: &str, _: bool) -> Result<Self, String> {
        duration::parse(text.trim()).map_err(|error| error.to_string())
    }
}

/// Values whose own `FromStr` reads exactly what people write.
macro_rules! parsed {
    ($($type:ty: $expected:literal),+ $(,)?) => {$(
        impl Value for $type {
            const EXPECTED: &'static str = $expected;

            fn from_scalar(text: &str, _: bool) -> Result<Self, String> {
                text.parse().map_err(|_| String::new())
            }
        }
    )+};
}

parsed! {
    u8: "a whole number from 0 to 255",
    u16: "a whole number from 0 to 65535",
    u32: "a whole number such as 100",
    u64: "a whole number such as 100",
    usize: "a whole number such as 100",
    i32: "a whole number such as 100",
    i64: "a whole number such as 100",
    IpAddr: "an IP address such as 192.0.2.7 or 2001:db8::7",
    SocketAddr: "an address with port such as 127.0.0.1:8443 or [::1]:8443",
}
