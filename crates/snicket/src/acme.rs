//! Certificates for visitors from a public authority by ACME: who gets one, and when.
//!
//! [`Shelf`] is what handshakes see: certificates out of the registry, and a way to ask for one. [`Keeper`] hears what is
//! asked for, looks from time to time what else is due, and orders it; the registry says whether it may
//! (`registry::acme`), so that one node orders and all have it.
//!
//! A visitor who is the first to ask for a name waits for its certificate: a browser waits half a minute for a server, and a
//! warning about an authority that it does not know would send visitors away for good. Who has waited for [`PATIENCE`] in
//! vain, or comes while an order has failed of late, gets a certificate of the edge's own authority.

mod keeper;
mod shelf;

use std::path::PathBuf;

use anyhow::Context as _;
use certs::acme::AcmeClient;
use certs::tls::Roots;
use jiff::Timestamp;
use registry::{Hostname, Snapshot, ZoneType};
use url::Url;

use crate::problem::Problem;

pub(crate) use keeper::Keeper;
pub(crate) use shelf::Shelf;

/// The authority unless another one is named.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Certificates of a public authority.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct AcmeArgs {
    /// Order certificates that browsers trust (ACME), agreeing to the authority's terms; its messages go here
    #[arg(long, value_name = "EMAIL", value_parser = email, env = "SNICKET_ACME_EMAIL", hide_env_values = true)]
    pub(crate) acme_email: Option<String>,
    /// The authority's directory [default: Let's Encrypt's]
    #[arg(
        long, value_name = "URL", value_parser = directory, env = "SNICKET_ACME_DIRECTORY", hide_env_values = true,
        hide_short_help = true
    )]
    pub(crate) acme_directory: Option<Url>,
    /// Whom to trust for the connection to it (PEM) [default: the system's authorities]
    #[arg(long, value_name = "FILE", env = "SNICKET_ACME_CA", hide_env_values = true, hide_short_help = true)]
    pub(crate) acme_ca: Option<PathBuf>,
}

/// Reads an address in the form that authorities take.
pub(crate) fn email(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '?' | '<' | '>' | '"');
    match text.split_once('@') {
        Some((user, host)) if !user.is_empty() && host.contains('.') && text.chars().all(is_plain) => {
            Ok(text.to_owned())
        }
        _ => Err("write one address, such as me@example.com".to_owned()),
    }
}

/// Reads where an authority's directory is.
pub(crate) fn directory(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    match url.scheme() == "https" && url.has_host() {
        true => Ok(url),
        false => {
            Err("write an https URL, such as that of https://letsencrypt.org/docs/acme-protocol-updates".to_owned())
        }
    }
}

impl AcmeArgs {
    /// These over others.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            acme_email: self.acme_email.or(other.acme_email),
            acme_directory: self.acme_directory.or(other.acme_directory),
            acme_ca: self.acme_ca.or(other.acme_ca),
        }
    }

    /// What is named and has to be read, by flag.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&'static str, PathBuf)> + use<> {
        self.acme_ca.clone().map(|path| ("acme-ca", path)).into_iter()
    }

    /// The client, if certificates are to be ordered.
    pub(crate) fn client(self) -> anyhow::Result<Option<AcmeClient>> {
        let Self { acme_email, acme_directory, acme_ca } = self;
        let Some(email) = acme_email else {
            if acme_directory.is_some() || acme_ca.is_some() {
                let what = "--acme-directory and --acme-ca belong to --acme-email";
                return Err(Problem::usage(what, "say as well whose account it is: --acme-email me@example.com").into());
            }
            return Ok(None);
        };
        let directory = acme_directory.map_or_else(|| DIRECTORY.to_owned(), String::from);
        let roots = acme_ca.map_or(Roots::System, Roots::File);
        let client = AcmeClient::new(directory, email, &roots).with_context(|| {
            let advice = "check the file of --acme-ca, or install the system's CA certificates";
            Problem::usage("no connection to the ACME server can be verified", advice)
        })?;
        Ok(Some(client))
    }
}

/// Whether a public certificate may be ordered for this name (lower case): visitors' TLS for it ends here, or it is the
/// edge's own, and it is a name that an authority could look at. All names below another one deserve one together where they
/// lead to a tunnel, or that is the edge's own, and nodes answer for it by DNS, since authorities look there for it.
fn deserves(snapshot: &Snapshot, domain: &Hostname, name: &str) -> bool {
    let parent = name.strip_prefix("*.");
    let bare = parent.unwrap_or(name);
    let is_public = bare.contains('.') && !bare.ends_with(".localhost") && !bare.contains(['_', '*']);
    is_public
        && match parent {
            None => name == domain.as_str() || snapshot.ends_tls_of(name),
            Some(parent) => is_answered(snapshot, parent) && (parent == domain.as_str() || leads_on(snapshot, name)),
        }
}

/// Whether nodes answer for this name by DNS. Whether anybody asks them shows only when an authority does.
fn is_answered(snapshot: &Snapshot, name: &str) -> bool {
    let is_ours = |kind| matches!(kind, ZoneType::Full | ZoneType::Secondary);
    snapshot.zone_of(name).is_some_and(|zone| is_ours(zone.traits.kind))
        && snapshot.nodes().any(|node| node.addresses.dns.is_some())
}

/// Whether a wildcard leads to a tunnel that there is.
fn leads_on(snapshot: &Snapshot, wildcard: &str) -> bool {
    let route = Hostname::parse(wildcard).ok().and_then(|name| snapshot.route_exactly(&name).cloned());
    let tunnel = route.and_then(|route| snapshot.tunnel(route.tunnel).cloned());
    tunnel.is_some_and(|tunnel| tunnel.deleted_at.is_none())
}

/// The wildcard that covers a name and deserves a certificate.
fn wildcard_over(snapshot: &Snapshot, domain: &Hostname, name: &str) -> Option<Hostname> {
    let (label, parent) = name.split_once('.')?;
    let wildcard = Hostname::parse(&format!("*.{parent}")).ok().filter(|_| label != "*")?;
    deserves(snapshot, domain, wildcard.as_str()).then_some(wildcard)
}

/// Under which name a certificate is ordered for visitors of this one (lower case): that of the wildcard above it, as long as
/// that has one or has never failed, else its own. `None`: it deserves none.
fn ordered_as(snapshot: &Snapshot, domain: &Hostname, name: &str, now: Timestamp) -> Option<Hostname> {
    let is_valid = |name: &str| snapshot.acme_certificate(name).is_some_and(|has| now < has.not_after);
    let has_failed = |name: &str| snapshot.acme_order(name).is_some_and(|order| order.failures > 0);
    if let Some(wildcard) = wildcard_over(snapshot, domain, name)
        && (is_valid(wildcard.as_str()) || !has_failed(wildcard.as_str()))
    {
        return Some(wildcard);
    }
    Hostname::parse(name).ok().filter(|name| deserves(snapshot, domain, name.as_str()))
}

/// Whether the name (lower case) is that of a quick tunnel. These come and go, many without a visitor.
fn is_quick(snapshot: &Snapshot, name: &str) -> bool {
    let tunnel = snapshot.route(name).and_then(|route| snapshot.tunnel(route.tunnel));
    tunnel.is_some_and(|tunnel| tunnel.quick.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_a_directory_have_a_form() {
        assert!(email("me@example.com").is_ok());
        for text in ["", "me", "@example.com", "me@localhost", "a@b.c,d@e.f", "me@example.com?x", "me @example.com"] {
            assert!(email(text).is_err(), "{text}");
        }
        assert!(directory("https://127.0.0.1:14000/dir").is_ok());
        for text in ["acme.example", "http://acme.example/dir", "file:///dir"] {
            assert!(directory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_other_flags_need_the_address() {
        let args = AcmeArgs { acme_ca: Some("ca.pem".into()), ..AcmeArgs::default() };
        assert!(args.client().unwrap_err().to_string().contains("--acme-email"));
        assert!(AcmeArgs::default().client().unwrap().is_none());
    }
}
