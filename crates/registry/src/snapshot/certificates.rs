//! Authorities, the certificates of origins, and invitations of nodes.

use std::sync::Arc;

use imbl::OrdMap;

use super::{decode, parse, set_ordered};
use crate::certificate::{AuthorityPurpose, CertificateAuthority, CertificateId, OriginCertificate};
use crate::engine::Revision;
use crate::invitation::Invitation;
use crate::resource::{Resource as _, Versioned};

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Certificates {
    pub(crate) authorities: OrdMap<AuthorityPurpose, Arc<Versioned<CertificateAuthority>>>,
    pub(crate) origins: OrdMap<CertificateId, Arc<Versioned<OriginCertificate>>>,
    /// Of text in all of these.
    pub(crate) origin_bytes: usize,
    /// By the text of the hash.
    pub(crate) invitations: OrdMap<Box<str>, Arc<Versioned<Invitation>>>,
}

impl Certificates {
    /// Takes in an entry of one of these kinds.
    pub(super) fn write(
        &mut self,
        kind: &str,
        id: &str,
        value: Option<&[u8]>,
        revision: Revision,
    ) -> Result<(), String> {
        match kind {
            CertificateAuthority::KIND => {
                // Later versions may have authorities for more.
                let Ok(purpose) = id.parse() else { return Ok(()) };
                set_ordered(&mut self.authorities, purpose, decode(value, revision)?);
            }
            OriginCertificate::KIND => self.set_origin(parse(id)?, decode(value, revision)?),
            Invitation::KIND => set_ordered(&mut self.invitations, id.into(), decode(value, revision)?),
            _ => (),
        }
        Ok(())
    }

    fn set_origin(&mut self, id: CertificateId, new: Option<Arc<Versioned<OriginCertificate>>>) {
        let bytes =
            |certificate: Option<&Arc<Versioned<OriginCertificate>>>| certificate.map_or(0, |kept| kept.bytes());
        self.origin_bytes -= bytes(self.origins.get(&id));
        self.origin_bytes += bytes(new.as_ref());
        set_ordered(&mut self.origins, id, new);
    }
}
