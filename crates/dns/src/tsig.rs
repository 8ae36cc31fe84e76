//! Signatures of whole messages by a key that both sides have (TSIG, RFC 8945). Pure.

use aws_lc_rs::hmac;
use registry::{ItemId, TransferAlgorithm, TransferKey};

use crate::name::{Name, to_wire};
use crate::query::{Code, HEADER};

/// The type of the record that signs a message.
pub(crate) const TSIG: u16 = 250;
/// Its class: any.
const ANY: u16 = 255;
/// How far clocks may be apart, in seconds (RFC 8945, section 10); askers cannot have more.
const FUDGE: u16 = 300;
/// The longest that [`Signer::sign`] adds, in bytes: key name, fixed part, algorithm, the longest hash, the time.
pub(crate) const MOST_BYTES: usize = 255 + 10 + 13 + 16 + 64 + 6;

const ALGORITHMS: [(TransferAlgorithm, &[u8]); 3] = [
    (TransferAlgorithm::Sha256, b"\x0bhmac-sha256\0"),
    (TransferAlgorithm::Sha384, b"\x0bhmac-sha384\0"),
    (TransferAlgorithm::Sha512, b"\x0bhmac-sha512\0"),
];

/// What a message is signed with, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Signature<'a> {
    name: Name,
    algorithm: Name,
    /// When, in seconds since 1970; 48 bits.
    time: u64,
    fudge: u16,
    mac: &'a [u8],
    original_id: u16,
    /// What was signed: all in front of it.
    signed: &'a [u8],
}

/// Why a signature does not hold (RFC 8945, section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Flaw {
    Signature = 16,
    Key = 17,
    Time = 18,
}

impl<'a> Signature<'a> {
    /// Reads the record's data; `signed` is the packet in front of the record.
    pub(crate) fn read(signed: &'a [u8], name: Name, data: &'a [u8]) -> Option<Self> {
        let algorithm = Name::read(data).ok()?;
        let (fixed, rest) = data.get(algorithm.as_wire().len()..)?.split_first_chunk::<10>()?;
        let [t1, t2, t3, t4, t5, t6, f1, f2, l1, l2] = *fixed;
        let (mac, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l1, l2])))?;
        let ([i1, i2, _, _, o1, o2], other) = rest.split_first_chunk::<6>()?;
        (other.len() == usize::from(u16::from_be_bytes([*o1, *o2]))).then_some(Self {
            name,
            algorithm,
            time: u64::from_be_bytes([0, 0, t1, t2, t3, t4, t5, t6]),
            fudge: u16::from_be_bytes([f1, f2]),
            mac,
            original_id: u16::from_be_bytes([*i1, *i2]),
            signed,
        })
    }

    /// The key's name in lower case, without trailing dot.
    pub(crate) fn key_name(&self) -> String {
        self.name.to_text()
    }

    /// Checks the signature of a question by the key of its name, if there is one.
    ///
    /// # Errors
    /// It does not hold: this is the answer's code and what signs it.
    pub(crate) fn check(&self, key: Option<&TransferKey>, now: u64) -> Result<Signer, Box<Rejected>> {
        let rejected = |flaw, signer| {
            Box::new(Rejected { flaw, signer, name: self.name, algorithm: self.algorithm, time: self.time })
        };
        let known = key.map(Signer::new).filter(|signer| signer.algorithm == self.algorithm.as_wire());
        let Some(mut signer) = known else { return Err(rejected(Flaw::Key, None)) };
        let mut signed = Vec::with_capacity(self.signed.len() + MOST_BYTES);
        signed.extend_from_slice(self.signed);
        let Some(header) = signed.first_chunk_mut::<HEADER>() else { return Err(rejected(Flaw::Signature, None)) };
        header[..2].copy_from_slice(&self.original_id.to_be_bytes());
        let additionals = u16::from_be_bytes([header[10], header[11]]).saturating_sub(1);
        header[10..].copy_from_slice(&additionals.to_be_bytes());
        signer.push_variables(&mut signed, Stamp { time: self.time, fudge: self.fudge, flaw: None }, &[]);
        if hmac::verify(&signer.key, &signed, self.mac).is_err() {
            return Err(rejected(Flaw::Signature, None));
        }
        signer.last = Some(self.mac.into());
        if now.abs_diff(self.time) > u64::from(self.fudge.min(FUDGE)) {
            return Err(rejected(Flaw::Time, Some(signer)));
        }
        Ok(signer)
    }
}

/// A question whose signature does not hold.
#[derive(Debug)]
pub(crate) struct Rejected {
    flaw: Flaw,
    /// Only clocks are told apart by somebody whom the asker can believe.
    signer: Option<Signer>,
    name: Name,
    algorithm: Name,
    time: u64,
}

impl Rejected {
    /// How the answer turns out.
    pub(crate) const CODE: Code = Code::NotAuth;

    /// Adds to the answer why.
    pub(crate) fn push(self, message: &mut Vec<u8>, now: u64) {
        let other = now.to_be_bytes();
        let stamp = Stamp { time: self.time, fudge: FUDGE, flaw: Some(self.flaw) };
        match self.signer {
            Some(mut signer) => signer.push(message, stamp, &other[2..]),
            None => push_record(message, self.name.as_wire(), self.algorithm.as_wire(), stamp, &[], &[]),
        }
    }
}

#[derive(Clone, Copy)]
struct Stamp {
    time: u64,
    fudge: u16,
    flaw: Option<Flaw>,
}

/// Signs messages, each with what was signed before it.
pub(crate) struct Signer {
    id: ItemId,
    key: hmac::Key,
    name: Vec<u8>,
    algorithm: &'static [u8],
    /// What stood at the end of the message before.
    last: Option<Box<[u8]>>,
    /// Those that follow the first of an answer say less of themselves (RFC 8945, section 5.3.1).
    follows: bool,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(…)")
    }
}

impl Signer {
    /// For a message of ours that answers nobody.
    pub(crate) fn new(key: &TransferKey) -> Self {
        let hash = match key.algorithm {
            TransferAlgorithm::Sha256 => hmac::HMAC_SHA256,
            TransferAlgorithm::Sha384 => hmac::HMAC_SHA384,
            TransferAlgorithm::Sha512 => hmac::HMAC_SHA512,
        };
        let named = ALGORITHMS.iter().find(|(algorithm, _)| *algorithm == key.algorithm);
        let algorithm = named.map(|(_, name)| *name).unwrap_or_default();
        let name = to_wire(key.name.as_str());
        Self { id: key.id, key: hmac::Key::new(hash, &key.secret()), name, algorithm, last: None, follows: false }
    }

    /// With which key.
    pub(crate) fn key(&self) -> ItemId {
        self.id
    }

    /// Signs a message of this time, in seconds since 1970.
    pub(crate) fn sign(&mut self, message: &mut Vec<u8>, now: u64) {
        self.push(message, Stamp { time: now, fudge: FUDGE, flaw: None }, &[]);
    }

    fn push(&mut self, message: &mut Vec<u8>, stamp: Stamp, other: &[u8]) {
        let mut signed = Vec::with_capacity(message.len() + MOST_BYTES);
        if let Some(last) = &self.last {
            signed.extend(u16::try_from(last.len()).unwrap_or_default().to_be_bytes());
            signed.extend_from_slice(last);
        }
        signed.extend_from_slice(message);
        if self.follows {
            push_time(&mut signed, stamp);
        } else {
            self.push_variables(&mut signed, stamp, other);
        }
        let mac = hmac::sign(&self.key, &signed);
        push_record(message, &self.name, self.algorithm, stamp, mac.as_ref(), other);
        (self.last, self.follows) = (Some(mac.as_ref().into()), true);
    }

    fn push_variables(&self, signed: &mut Vec<u8>, stamp: Stamp, other: &[u8]) {
        signed.extend_from_slice(&self.name);
        signed.extend(ANY.to_be_bytes());
        signed.extend(0_u32.to_be_bytes());
        signed.extend_from_slice(self.algorithm);
        push_time(signed, stamp);
        signed.extend(stamp.flaw.map_or(0, |flaw| flaw as u16).to_be_bytes());
        signed.extend(u16::try_from(other.len()).unwrap_or_default().to_be_bytes());
        signed.extend_from_slice(other);
    }
}

fn push_time(bytes: &mut Vec<u8>, stamp: Stamp) {
    bytes.extend_from_slice(&stamp.time.to_be_bytes()[2..]);
    bytes.extend(stamp.fudge.to_be_bytes());
}

fn push_record(message: &mut Vec<u8>, name: &[u8], algorithm: &[u8], stamp: Stamp, mac: &[u8], other: &[u8]) {
    let id = message.first_chunk::<2>().copied().unwrap_or_default();
    let short = |length: usize| u16::try_from(length).unwrap_or_default().to_be_bytes();
    message.extend_from_slice(name);
    message.extend(TSIG.to_be_bytes());
    message.extend(ANY.to_be_bytes());
    message.extend(0_u32.to_be_bytes());
    message.extend(short(algorithm.len() + 16 + mac.len() + other.len()));
    message.extend_from_slice(algorithm);
    push_time(message, stamp);
    message.extend(short(mac.len()));
    message.extend_from_slice(mac);
    message.extend(id);
    message.extend(stamp.flaw.map_or(0, |flaw| flaw as u16).to_be_bytes());
    message.extend(short(other.len()));
    message.extend_from_slice(other);
    if let Some(count) = message.get_mut(10..HEADER) {
        let additionals = u16::from_be_bytes([count[0], count[1]]).saturating_add(1);
        count.copy_from_slice(&additionals.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use jiff::Timestamp;
    use registry::{ItemKind, Registry, Which};

    use super::*;
    use crate::query::Query;

    const NOW: u64 = 1_800_000_000;
    const QUESTION: &[u8] = b"\xab\xcd\0\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x06\0\x01";

    async fn key(algorithm: &str, secret: &str) -> TransferKey {
        let registry = Registry::in_memory(Timestamp::UNIX_EPOCH).await.unwrap();
        let terms = [("name", "Key.Test."), ("algo", algorithm), ("secret", secret)];
        let terms = || Ok(terms.map(|(member, text)| (member.to_owned(), text.into())).into_iter().collect());
        let kind = ItemKind::TransferKey;
        registry.write_item(Timestamp::UNIX_EPOCH, kind, None, Which::New, &mut |_| terms()).await.unwrap();
        registry.snapshot().transfer_key_named("key.test").unwrap()
    }

    fn check(packet: &[u8], key: &TransferKey, now: u64) -> Result<(), Flaw> {
        let query = Query::read(packet).unwrap_or_else(|problem| panic!("{problem:?}"));
        let signature = query.signature.expect("it is signed");
        assert_eq!(signature.key_name(), "key.test");
        match signature.check(Some(key), now) {
            Ok(_) => Ok(()),
            Err(rejected) => {
                let flaw = rejected.flaw;
                // Whoever asked can read why.
                let mut message = QUESTION.to_vec();
                rejected.push(&mut message, now);
                let read = Message::from_vec(&message).unwrap();
                assert!(format!("{read:?}").contains("error: Some(Bad"), "{read:?}");
                Err(flaw)
            }
        }
    }

    #[tokio::test]
    async fn who_has_the_key_is_believed_for_five_minutes() {
        const SECRET: &str = "AAECAwQFBgcICQoLDA0ODw==";
        for algorithm in ["hmac-sha256", "hmac-sha384", "hmac-sha512."] {
            let key = key(algorithm, SECRET).await;
            let mut packet = QUESTION.to_vec();
            Signer::new(&key).sign(&mut packet, NOW);
            assert!(packet.len() <= QUESTION.len() + MOST_BYTES);
            for (now, expected) in [
                (NOW, Ok(())),
                (NOW + 300, Ok(())),
                (NOW - 300, Ok(())),
                (NOW + 301, Err(Flaw::Time)),
                (NOW - 301, Err(Flaw::Time)),
            ] {
                assert_eq!(check(&packet, &key, now), expected, "{algorithm} at {now}");
            }
            // Whoever passes it on may number it anew.
            let mut passed = packet.clone();
            passed[0] ^= 0xff;
            assert_eq!(check(&passed, &key, NOW), Ok(()));
            // Anything else is signed.
            for at in [3, 13, 20, packet.len() - 20] {
                let mut changed = packet.clone();
                changed[at] ^= 1;
                assert_eq!(check(&changed, &key, NOW), Err(Flaw::Signature), "{algorithm}: byte {at}");
            }
        }
        let (key, mut packet) = (key("hmac-sha256", SECRET).await, QUESTION.to_vec());
        Signer::new(&key).sign(&mut packet, NOW);
        let other = self::key("hmac-sha256", "AQECAwQFBgcICQoLDA0ODw==").await;
        assert_eq!(check(&packet, &other, NOW), Err(Flaw::Signature));
        let other = self::key("hmac-sha512", SECRET).await;
        assert_eq!(check(&packet, &other, NOW), Err(Flaw::Key), "not by that algorithm");
    }
}
