//! Signatures of answers, made as they are asked for (RFC 4034), with denials of the one name that was asked for (RFC 9824).

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::EcdsaKeyPair;
use lru::LruCache;
use registry::engine::Revision;
use registry::{RecordSet, RecordType, Snapshot, Zone, ZoneId, ZoneKey};

use super::lookup::{APEX, Found, whole};
use super::{A, AAAA, AUTOMATIC_TTL, CNAME, DS, Making, NS, SRV, TXT};
use crate::message::{Owner, Record, SOA};
use crate::name::to_wire;
use crate::query::Code;

const RRSIG: u16 = 46;
const NSEC: u16 = 47;
pub(super) const DNSKEY: u16 = 48;
pub(super) const CDS: u16 = 59;
pub(super) const CDNSKEY: u16 = 60;
/// Says of a name that it is not there, where it stands among the types that it has (RFC 9824, section 2).
const NXNAME: u16 = 128;

/// How long a signature holds, in seconds: longer than answers are kept prepared and then kept by others, a day each.
const VALIDITY: u32 = 4 * 86_400;
/// How long one is given out.
const LIFE: u32 = 86_400;
/// For clocks that are behind.
const SKEW: u32 = 3_600;
/// Zones whose keys are at hand.
const AT_HAND: NonZeroUsize = NonZeroUsize::new(1_024).expect("is not zero");

/// The keys of zones, ready to sign.
pub(crate) struct Signers {
    known: Mutex<LruCache<ZoneId, (Revision, Arc<Signer>)>>,
}

impl Default for Signers {
    fn default() -> Self {
        Self { known: Mutex::new(LruCache::new(AT_HAND)) }
    }
}

/// Signs for one zone.
pub(crate) struct Signer {
    /// The first signs all, those behind it only the set of keys, which others may know any of.
    pairs: Vec<(EcdsaKeyPair, u16)>,
}

/// What an answer is signed with.
#[derive(Clone, Copy)]
pub(crate) struct Signing<'a> {
    pub(crate) signers: &'a Signers,
    /// Since 1970, in seconds, in a circle (RFC 4034, section 3.1.5).
    pub(crate) now: u32,
}

impl Signing<'_> {
    /// Until when an answer with signatures is given out.
    pub(super) fn until(&self) -> u32 {
        self.now.wrapping_add(LIFE)
    }
}

impl Signers {
    /// The one of this zone, if its answers are to be signed.
    fn of(&self, snapshot: &Snapshot, zone: &Zone) -> Option<Arc<Signer>> {
        let key = snapshot.zone_key(zone.id).filter(|_| zone.traits.signed)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((revision, signer)) = known.get(&zone.id)
            && *revision == key.revision
        {
            return Some(Arc::clone(signer));
        }
        let pairs = key.published().map(|key| Ok((key.pair()?, key.tag()))).collect::<Result<Vec<_>, &str>>();
        let pairs = pairs.map_err(|problem| tracing::error!(zone = %zone.name, problem, "cannot be signed")).ok()?;
        let signer = Arc::new(Signer { pairs });
        known.put(zone.id, (key.revision, Arc::clone(&signer)));
        Some(signer)
    }
}

impl Signer {
    /// The signatures' data of records of one owner, type and time to live; `None` if there is no randomness.
    fn sign(&self, zone: &[u8], owner: &[u8], records: &[&Record], now: u32) -> Option<Vec<Vec<u8>>> {
        let count = if records.first()?.kind == DNSKEY { self.pairs.len() } else { 1 };
        self.pairs.iter().take(count).map(|(pair, tag)| sign_with(pair, *tag, zone, owner, (records, now))).collect()
    }
}

/// As RFC 4034, section 3.1, has it.
fn sign_with(
    pair: &EcdsaKeyPair,
    tag: u16,
    zone: &[u8],
    owner: &[u8],
    (records, now): (&[&Record], u32),
) -> Option<Vec<u8>> {
    let first = records.first()?;
    let labels = labels(owner).filter(|label| *label != b"*").count();
    let mut data = Vec::with_capacity(160);
    data.extend(first.kind.to_be_bytes());
    data.extend([ZoneKey::ALGORITHM, u8::try_from(labels).ok()?]);
    for number in [first.ttl, now.wrapping_add(VALIDITY), now.wrapping_sub(SKEW)] {
        data.extend(number.to_be_bytes());
    }
    data.extend(tag.to_be_bytes());
    data.extend(zone);

    // Names in the data are in lower case already, as the registry has them.
    let mut sorted: Vec<&[u8]> = records.iter().map(|record| &*record.data).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut signed = data.clone();
    for content in sorted {
        signed.extend(owner);
        signed.extend(first.kind.to_be_bytes());
        signed.extend(1_u16.to_be_bytes());
        signed.extend(first.ttl.to_be_bytes());
        signed.extend(u16::try_from(content.len()).ok()?.to_be_bytes());
        signed.extend(content);
    }
    let signature = pair.sign(&SystemRandom::new(), &signed).ok()?;
    data.extend(signature.as_ref());
    Some(data)
}

impl Making<'_> {
    /// What signs the answer's part of this zone, if it is to be signed.
    pub(super) fn signer(&self, zone: &Zone) -> Option<Arc<Signer>> {
        self.world.signing?.signers.of(self.world.snapshot, zone)
    }

    /// Denies what was not found, and signs what was added behind these places.
    pub(super) fn sign(&mut self, zone: &Zone, signer: &Signer, types: Vec<u16>, owner: &Owner, from: [usize; 2]) {
        if self.denies {
            // Everything is there that is denied so, with nothing but the denial.
            if self.code == Code::NxDomain {
                self.code = Code::NoError;
            }
            self.push_nsec(owner, types);
        }
        let Some(signing) = self.world.signing else { return };
        self.until = Some(signing.until());
        let apex = to_wire(zone.name.as_str());
        for (section, from) in from.into_iter().enumerate() {
            let added = self.sections[section].split_off(from);
            let mut rest = &added[..];
            while let Some(first) = rest.first() {
                let is_like = |record: &&Record| record.kind == first.kind && record.owner == first.owner;
                let count = rest.iter().take_while(is_like).count();
                let (set, after) = rest.split_at(count);
                rest = after;
                self.sections[section].extend_from_slice(set);
                // Those who answer for a part of the zone say themselves who they are.
                if section == 1 && first.kind == NS {
                    continue;
                }
                let named = match &first.owner {
                    Owner::Asked => self.asked.to_vec(),
                    Owner::Named(name) => to_wire(name),
                };
                let set: Vec<&Record> = set.iter().collect();
                match signer.sign(&apex, &named, &set, signing.now) {
                    Some(all) => {
                        let (owner, ttl) = (&first.owner, first.ttl);
                        let signature =
                            |data: Vec<u8>| Record { owner: owner.clone(), kind: RRSIG, ttl, data: data.into() };
                        self.sections[section].extend(all.into_iter().map(signature));
                    }
                    None => self.code = Code::ServFail,
                }
            }
        }
    }

    /// Says which types a name has, and that the next name is the first one that could be.
    pub(super) fn push_nsec(&mut self, owner: &Owner, types: Vec<u16>) {
        let named = match owner {
            Owner::Asked => self.asked.to_vec(),
            Owner::Named(name) => to_wire(name),
        };
        let mut data = vec![1, 0];
        data.extend(named);
        if data.len() > 255 {
            // No name is under this one.
            self.code = Code::ServFail;
            return;
        }
        let mut types: Vec<u16> = types.into_iter().filter(|kind| *kind != self.kind).chain([RRSIG, NSEC]).collect();
        types.sort_unstable();
        types.dedup();
        data.extend(bitmap(&types));
        self.push(1, owner, NSEC, AUTOMATIC_TTL, &data);
    }

    /// The types that a name has, or would have if it were asked for them.
    pub(super) fn types(&self, found: &Found<'_>, zone: &Zone, host: &str) -> Vec<u16> {
        let mut types = match found {
            Found::Cut { set, .. } => types_of_cut(set),
            Found::Own(_) => vec![A, AAAA, TXT, SRV],
            Found::Balancer(_, set) => {
                let kinds = set.iter().flat_map(|set| &set.records).map(|record| record.content.kind().code());
                kinds.filter(|kind| !matches!(*kind, A | AAAA | CNAME | SRV)).chain([A, AAAA, SRV]).collect()
            }
            Found::Records(set) => {
                let has = |kind: RecordType| set.records.iter().any(|record| record.content.kind() == kind);
                let is_cut = has(RecordType::Ns) && host != APEX && !set.host.starts_with('*');
                if is_cut {
                    return types_of_cut(set);
                }
                let mut types: Vec<u16> = set.records.iter().map(|record| record.content.kind().code()).collect();
                let is_proxied = set.records.iter().any(|record| record.proxied);
                if is_proxied || has(RecordType::Cname) {
                    types.retain(|kind| *kind != CNAME);
                    types.extend([A, AAAA]);
                }
                types
            }
            Found::Empty => Vec::new(),
            Found::Nothing => {
                let name = whole(host, &zone.name);
                vec![if self.world.snapshot.zone_named(&name).is_some() { NS } else { NXNAME }]
            }
        };
        if host == APEX {
            types.extend([SOA, NS, DNSKEY, CDS, CDNSKEY]);
            if zone.name == *self.world.domain {
                types.extend([A, AAAA]);
            }
        }
        types
    }

    /// The data of the zone's own records about its keys, of this type.
    pub(super) fn key_data(&self, zone: &Zone) -> Vec<Vec<u8>> {
        let Some(key) = self.world.snapshot.zone_key(zone.id).filter(|_| zone.traits.signed) else { return Vec::new() };
        match self.kind {
            DNSKEY => key.published().map(ZoneKey::dnskey).collect(),
            CDNSKEY => vec![key.announced().dnskey()],
            CDS => {
                let mut data = key.announced().tag().to_be_bytes().to_vec();
                data.extend([ZoneKey::ALGORITHM, ZoneKey::DIGEST_TYPE]);
                data.extend(key.announced().digest(&zone.name));
                vec![data]
            }
            _ => Vec::new(),
        }
    }

    /// Adds the digests of a delegation's keys, or that there are none: nobody else may say so.
    pub(super) fn push_delegation_keys(&mut self, cut: &Owner, set: &RecordSet) {
        let keys: Vec<_> = set.records.iter().filter(|record| record.content.kind() == RecordType::Ds).collect();
        if keys.is_empty() {
            self.push_nsec(cut, types_of_cut(set));
            return;
        }
        let ttl = keys.iter().map(|record| super::ttl_of(record)).min().unwrap_or(AUTOMATIC_TTL);
        for data in keys.iter().filter_map(|record| record.content.to_wire()) {
            self.push(1, cut, DS, ttl, &data);
        }
    }
}

/// All else at the name is others'.
fn types_of_cut(set: &RecordSet) -> Vec<u16> {
    let has_keys = set.records.iter().any(|record| record.content.kind() == RecordType::Ds);
    if has_keys { vec![NS, DS] } else { vec![NS] }
}

/// Types as NSEC records have them (RFC 4034, section 4.1.2).
fn bitmap(types: &[u16]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut rest = types;
    while let Some(first) = rest.first() {
        let [window, _] = first.to_be_bytes();
        let count = rest.iter().take_while(|kind| kind.to_be_bytes()[0] == window).count();
        let (of_window, after) = rest.split_at(count);
        rest = after;
        let mut bits = [0_u8; 32];
        let mut length = 0;
        for kind in of_window {
            let [_, low] = kind.to_be_bytes();
            let at = usize::from(low / 8);
            bits[at] |= 0x80 >> (low % 8);
            length = length.max(at + 1);
        }
        data.extend([window, u8::try_from(length).unwrap_or(32)]);
        data.extend(&bits[..length]);
    }
    data
}

fn labels(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first()?;
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        (!label.is_empty()).then_some(label)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_bits_of_windows() {
        // RFC 4034, section 4.3, but for what is not ours.
        assert_eq!(bitmap(&[A, 15, RRSIG, NSEC, 1234]), {
            let mut expected = vec![0, 6, 0x40, 0x01, 0, 0, 0, 0x03, 4, 27];
            expected.extend([0; 26]);
            expected.push(0x20);
            expected
        });
        assert_eq!(bitmap(&[RRSIG, NSEC, NXNAME]), [0, 17, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]);
    }
}
