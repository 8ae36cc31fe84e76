//! The node's own certificate, kept current.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::Context as _;
use certs::{Certificates, NodeCertificate, SharedAuthority};
use jiff::Timestamp;
use registry::{AuthorityPurpose, Registry, RotationError};

/// What the certificates in use were signed by; those of other authorities are of no use to anybody.
#[derive(Debug, Default)]
pub(super) struct Identity {
    signers: Mutex<Vec<String>>,
}

impl Identity {
    /// Sees to it that this node shows a certificate of the authority that the registry has, and one of the authority before
    /// as long as that is trusted; makes the authority if there is none. Does nothing while those in use are good.
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
        let former = authority.former(at).and_then(|former| Some((&former.certificate, former.key.as_ref()?)));
        let signers: Vec<_> = [(&authority.certificate, &authority.key)].into_iter().chain(former).collect();
        let names: Vec<_> = signers.iter().map(|(certificate, _)| (*certificate).clone()).collect();
        let is_current = certificates.node().is_some_and(|used| now < used.renew_at)
            && *self.signers.lock().unwrap_or_else(PoisonError::into_inner) == names;
        if is_current {
            return Ok(());
        }
        let id = registry.node().to_string();
        let mut made = Vec::new();
        for (certificate, key) in signers {
            made.push(NodeCertificate::issue(&SharedAuthority::load(certificate, key.reveal())?, &id, now)?);
        }
        let former = made.split_off(1).pop();
        let own = made.pop().expect("there is an authority");
        let until = Timestamp::try_from(own.expires_at).unwrap_or(Timestamp::MAX);
        certificates.use_node(own, former);
        *self.signers.lock().unwrap_or_else(PoisonError::into_inner) = names;
        tracing::info!(%until, "this node has a new certificate of its own");
        if authority.former.is_some() && authority.former(at).is_none() {
            forget_former(registry).await;
        }
        Ok(())
    }
}

/// Its key is worth nothing any more; of several nodes that see it, one removes it.
async fn forget_former(registry: &Registry) {
    match registry.end_former_authority(AuthorityPurpose::Node).await {
        Ok(_) => tracing::info!("the nodes' former authority is not trusted any more"),
        Err(RotationError::NoFormer) => (),
        Err(problem) => tracing::warn!(%problem, "the key of the nodes' former authority cannot be removed yet"),
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

        // One that was rotated is shown for a week beside the new one, and its key is forgotten then.
        let rotated = start + 98 * hour;
        let made = certs::NewSharedAuthority::generate("test", rotated).unwrap();
        let key = registry::PrivateText::new(made.key);
        let at = Timestamp::try_from(rotated).unwrap();
        registry.rotate_authority(at, AuthorityPurpose::Node, made.certificate, key).await.unwrap();
        let former = || registry.snapshot().authority(AuthorityPurpose::Node).unwrap().former.is_some();
        for (hours, has_former) in [(0, true), (7 * 24 - 1, true), (7 * 24, false)] {
            identity.renew(&registry, &certificates, rotated + hours * hour).await.unwrap();
            assert_eq!((hours, former()), (hours, has_former));
        }
    }
}
