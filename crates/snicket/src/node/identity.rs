//! The node's own certificate, kept current.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::Context as _;
use certs::{Certificates, NodeCertificate, SharedAuthority};
use jiff::Timestamp;
use registry::{AuthorityPurpose, Registry};

/// What the certificate in use was signed by; a certificate of another authority is of no use to other nodes.
#[derive(Debug, Default)]
pub(super) struct Identity {
    signer: Mutex<Option<String>>,
}

impl Identity {
    /// Sees to it that this node shows a certificate of the authority that the registry has, and makes the authority if there
    /// is none. Does nothing while the one in use is good.
    ///
    /// # Errors
    /// There is no authority, and none can be made; or it cannot be used. The certificate in use stays.
    pub(super) async fn renew(
        &self,
        registry: &Registry,
        certificates: &Certificates,
        now: SystemTime,
    ) -> anyhow::Result<()> {
        let at = Timestamp::try_from(now).context("the clock is beyond what certificates can say")?;
        let authority = api::ensure_authority(registry, at, AuthorityPurpose::Node).await?;
        let is_current = certificates.node().is_some_and(|used| now < used.renew_at)
            && self.signer.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(&authority.certificate);
        if is_current {
            return Ok(());
        }
        let shared = SharedAuthority::load(&authority.certificate, authority.key.reveal())?;
        let made = NodeCertificate::issue(&shared, &registry.node().to_string(), now)?;
        let until = Timestamp::try_from(made.expires_at).unwrap_or(Timestamp::MAX);
        certificates.use_node(made);
        *self.signer.lock().unwrap_or_else(PoisonError::into_inner) = Some(authority.certificate);
        tracing::info!(%until, "this node has a new certificate of its own");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use certs::{Authority, Names};
    use registry::{Resource as _, Transaction};

    use super::*;

    #[tokio::test]
    async fn a_certificate_is_renewed_at_two_thirds_of_its_life_and_after_a_change_of_the_authority() {
        let directory = tempfile::tempdir().unwrap();
        let start = SystemTime::now();
        let authority = Arc::new(Authority::load_or_create(directory.path(), start).unwrap());
        let names = Names { domains: vec!["example.test".into()], addresses: vec![] };
        let certificates = Certificates::new(authority, names).unwrap();
        let registry = Registry::in_memory(Timestamp::try_from(start).unwrap()).await.unwrap();
        let identity = Identity::default();
        let hour = Duration::from_secs(3600);
        let mut ends = Vec::new();
        for hours in [0, 1, 47, 48, 49, 95, 96] {
            identity.renew(&registry, &certificates, start + hours * hour).await.unwrap();
            let used = certificates.node().unwrap();
            assert!(used.expires_at > start + (hours + 23) * hour, "at {hours}");
            ends.push(used.expires_at);
        }
        let [first, second, third] = [0, 48, 96].map(|hours| start + (hours + 72) * hour);
        assert_eq!(ends, [first, first, first, second, second, second, third]);

        // Somebody took the authority away, to have another one.
        let old = registry.snapshot().authority(AuthorityPurpose::Node).unwrap().value.clone();
        let mut transaction = Transaction::new();
        transaction.delete(&old.key());
        registry.commit(transaction).await.unwrap();
        identity.renew(&registry, &certificates, start + 97 * hour).await.unwrap();
        assert_eq!(certificates.node().unwrap().expires_at, start + (97 + 72) * hour);
        let new = registry.snapshot().authority(AuthorityPurpose::Node).unwrap().value.clone();
        assert_ne!(new.certificate, old.certificate);
    }
}
