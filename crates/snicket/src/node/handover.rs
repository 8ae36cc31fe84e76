//! What makes another machine a node of the same edge, as this one has it.

use std::path::Path;
use std::sync::Arc;

use api::{GatherHandover, Handover};
use certs::Authority;
use registry::Hostname;

use crate::keep::{Keep, Place};
use crate::secret::read_file;

/// Gathers it each time anew, since keys are rotated; `None` where the registry is this node's alone.
pub(super) fn of(keep: &Keep, data: &Path, domain: &Hostname) -> Option<GatherHandover> {
    let Place::Etcd(settings) = &keep.place else { return None };
    let (settings, keys, data) = (settings.clone(), keep.key_path(), data.to_owned());
    let domain = domain.to_string();
    Some(Arc::new(move || {
        let read = |path: &Path| read_file(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
        let tls = settings.tls();
        let text = |pem: &Vec<u8>| String::from_utf8_lossy(pem).into_owned();
        let identity = tls.and_then(|tls| tls.identity.as_ref());
        Ok(Handover {
            domain: domain.clone(),
            registry: settings.to_string(),
            registry_ca: tls.and_then(|tls| tls.ca.as_ref()).map(text),
            registry_cert: identity.map(|identity| text(&identity.certificate)),
            registry_key: identity.map(|identity| text(&identity.key)),
            secrets_key: read(&keys)?,
            ca: read(&data.join(Authority::CERTIFICATE_FILE))?,
            ca_key: read(&data.join(Authority::KEY_FILE))?,
        })
    }))
}
