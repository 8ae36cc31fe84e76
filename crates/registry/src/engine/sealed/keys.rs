use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

/// What a sealed value begins with: it is a text in JSON, as other values are something in JSON.
const MARK: &[u8] = b"\"sealed:1:";
/// Who rotates has two.
const MOST: usize = 16;
const KEY_BYTES: usize = 32;

/// Names a key without being it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The keys under which secrets are encrypted: the first one encrypts, all decrypt. They do not print.
pub struct Keys {
    keys: Vec<(KeyId, RandomizedNonceKey)>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// The text holds no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    /// A line is none.
    #[error("line {0} is no key: the base64 text of 32 bytes is wanted")]
    Line(usize),
    /// There is nothing in it.
    #[error("there is no key in it")]
    None,
    /// Too many.
    #[error("there are more than 16 keys in it")]
    TooMany,
}

/// Why a value stays closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Closed {
    /// Its key is another one.
    #[error("it is encrypted under the key {0}")]
    Key(String),
    /// It is not what was encrypted, or not of this entry.
    #[error("what is encrypted there was changed")]
    Damaged,
}

/// What a stored value is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It was not encrypted.
    Plain,
    /// This, and whether it is under the first key.
    Secret(Vec<u8>, bool),
}

impl Keys {
    /// A new key, as a key file has it.
    pub fn generate() -> String {
        let bytes: [u8; KEY_BYTES] = rand::random();
        format!(
            "# Under these keys the registry's secrets are encrypted: the first one encrypts, all decrypt.\n\
             # Without them the registry is lost. With etcd, every node needs the same file.\n{}\n",
            BASE64_STANDARD.encode(bytes)
        )
    }

    /// Reads a key file: a key a line, in base64; empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, BadKeys> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(number, line)| {
            let bytes = BASE64_STANDARD.decode(line).ok().filter(|bytes| bytes.len() == KEY_BYTES);
            let key = bytes.as_ref().and_then(|bytes| RandomizedNonceKey::new(&AES_256_GCM, bytes).ok());
            bytes.zip(key).map(|(bytes, key)| (id(&bytes), key)).ok_or(BadKeys::Line(number))
        });
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        match keys.len() {
            0 => Err(BadKeys::None),
            1..=MOST => Ok(Self { keys }),
            _ => Err(BadKeys::TooMany),
        }
    }

    /// The value of this entry, encrypted under the first key.
    pub(super) fn seal(&self, entry: &str, value: &[u8]) -> Vec<u8> {
        let (id, key) = self.keys.first().expect("there is one at least");
        let mut data = value.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(entry.as_bytes()), &mut data);
        let nonce = nonce.expect("a value is shorter than 64 GiB");
        let both = [nonce.as_ref().as_slice(), &data].concat();
        let mut sealed = MARK.to_vec();
        sealed.extend(format!("{id}:{}\"", BASE64_STANDARD.encode(both)).into_bytes());
        sealed
    }

    /// What a stored value of this entry is.
    pub(super) fn open(&self, entry: &str, value: &[u8]) -> Result<Opened, Closed> {
        let Some(rest) = value.strip_prefix(MARK) else { return Ok(Opened::Plain) };
        let text = std::str::from_utf8(rest).ok().and_then(|rest| rest.strip_suffix('"')).ok_or(Closed::Damaged)?;
        let (named, data) = text.split_once(':').ok_or(Closed::Damaged)?;
        let found = self.keys.iter().position(|(id, _)| id.to_string() == named);
        let index = found.ok_or_else(|| Closed::Key(named.chars().take(16).collect()))?;
        let mut data = BASE64_STANDARD.decode(data).map_err(|_| Closed::Damaged)?;
        let (nonce, sealed) = data.split_at_mut_checked(NONCE_LEN).ok_or(Closed::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Closed::Damaged)?;
        let opened = self.keys[index].1.open_in_place(nonce, Aad::from(entry.as_bytes()), sealed);
        Ok(Opened::Secret(opened.map_err(|_| Closed::Damaged)?.to_vec(), index == 0))
    }
}

fn id(key: &[u8]) -> KeyId {
    let digest: [u8; 32] = Sha256::new().chain_update("snicket registry key").chain_update(key).finalize().into();
    let mut id = [0; 8];
    id.copy_from_slice(&digest[..8]);
    KeyId(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(first: &str, second: &str) -> Keys {
        Keys::parse(&format!("{first}\n{second}")).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_under_its_key_at_its_entry_only() {
        let (one, two) = (Keys::generate(), Keys::generate());
        let keys = Keys::parse(&one).unwrap();
        let sealed = keys.seal("tunnels/a", b"{}");
        assert_ne!(sealed, keys.seal("tunnels/a", b"{}"), "no two look alike");
        assert!(serde_json::from_slice::<String>(&sealed).unwrap().starts_with("sealed:1:"));
        assert_eq!(keys.open("tunnels/a", &sealed), Ok(Opened::Secret(b"{}".to_vec(), true)));
        assert_eq!(keys.open("tunnels/b", &sealed), Err(Closed::Damaged));
        assert_eq!(keys.open("tunnels/a", b"{\"a\":1}"), Ok(Opened::Plain));
        assert!(matches!(Keys::parse(&two).unwrap().open("tunnels/a", &sealed), Err(Closed::Key(_))));
        assert_eq!(both(&two, &one).open("tunnels/a", &sealed), Ok(Opened::Secret(b"{}".to_vec(), false)));
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            let opened = keys.open("tunnels/a", &changed);
            assert!(!matches!(opened, Ok(Opened::Secret(..))), "{index}: {opened:?}");
        }
    }

    #[test]
    fn what_is_no_key_file_is_refused_with_the_line() {
        let refused = |text: &str| Keys::parse(text).unwrap_err();
        assert_eq!(refused("# nothing\n\n"), BadKeys::None);
        assert_eq!(refused("# short\nAAAA\n"), BadKeys::Line(2));
        assert_eq!(refused("hunter2"), BadKeys::Line(1));
        assert_eq!(refused(&Keys::generate().repeat(17)), BadKeys::TooMany);
        assert_eq!(format!("{:?}", both(&Keys::generate(), "")), "Keys(…)");
    }
}
