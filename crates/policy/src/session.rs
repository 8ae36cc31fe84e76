use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::Hashed;

/// The cookie of a visitor who knew the PIN.
pub const COOKIE: &str = "snicket_pin";

/// What keeps the signature from being one of anything else.
const PURPOSE: &str = "snicket pin v1";

/// A value for [`COOKIE`] that is good for this host until then (seconds since 1970), or until the PIN changes.
pub fn issue(pin: &Hashed, host: &str, until: u64) -> String {
    let signature = hmac::sign(&pin.key(), signed(host, until).as_bytes());
    format!("{until}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Whether this value is good for the host now.
pub fn verify(pin: &Hashed, host: &str, value: &str, now: u64) -> bool {
    let Some((until, signature)) = value.split_once('.') else { return false };
    let Some(until) = until.parse::<u64>().ok().filter(|until| *until > now) else { return false };
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
    hmac::verify(&pin.key(), signed(host, until).as_bytes(), &signature).is_ok()
}

fn signed(host: &str, until: u64) -> String {
    format!("{PURPOSE}\n{host}\n{until}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_good_for_one_host_one_pin_and_its_time() {
        let hash = |pin: &[u8]| Hashed::with_iterations(pin, [3; 16], Hashed::MIN_ITERATIONS);
        let (pin, other) = (hash(b"1234"), hash(b"1235"));
        let value = issue(&pin, "a.example", 1000);
        assert!(verify(&pin, "a.example", &value, 999));
        assert!(!verify(&pin, "a.example", &value, 1000));
        assert!(!verify(&pin, "b.example", &value, 999));
        assert!(!verify(&other, "a.example", &value, 999));
        assert!(!verify(&pin, "a.example", &value.replacen("1000", "2000", 1), 999));
        for bad in ["", ".", "1000", "1000.", "x.y", &format!("{value}x"), &value[..value.len() - 2]] {
            assert!(!verify(&pin, "a.example", bad, 999), "{bad}");
        }
    }
}
