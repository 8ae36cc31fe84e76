//! `snicket up --join`: becoming a node of an edge that is there.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use api::{Handover, JoinKey};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::{API_PORT, Args, File};
use crate::fetch::{Fetch, Sent, TIME_LIMIT, Trust};
use crate::joined::Joined;
use crate::keep::RegistryArgs;
use crate::paths;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::secret::Secret;

/// Where a node takes machines that join.
const PATH: &str = "/snicket/v1/join";

/// Joins the edge that the arguments name, if they do. A machine that joined before does not do so again: its key was spent
/// then, and the command line may well be that of a service.
pub(super) async fn join(args: &Args, screen: Screen) -> anyhow::Result<()> {
    let file = args.config.as_deref().map(File::load).transpose()?.unwrap_or_default();
    let Some(host) = args.join.as_ref().or(file.join.as_ref()) else { return Ok(()) };
    let data = args.data.clone().or_else(|| file.data.clone()).unwrap_or_else(paths::edge_data);
    if let Some(joined) = Joined::load(&data)? {
        screen.say(format!("This machine joined the edge of {} before, so --join does nothing.\n", joined.domain));
        return Ok(());
    }
    let key = key(args, &file)?;
    check_registry(&args.registry.clone().or(file.registry))?;
    Joined::check_room(&data)?;
    let given = ask(host, &key).await?;
    let joined = Joined::keep(&data, &given)?;
    let Joined { domain, registry, .. } = &joined;
    screen.event(&json!({ "event": "joined", "host": host, "domain": domain, "registry": registry }));
    screen.say(format!("Joined the edge of {domain}; what makes this machine a node is in {}.\n", data.display()));
    Ok(())
}

/// From wherever it was given: best not on the command line, where everybody who may list processes sees it.
fn key(args: &Args, file: &File) -> anyhow::Result<JoinKey> {
    let has_certificate = args.cert.is_some() || file.cert.is_some();
    let beside = args.key.as_ref().or(file.key.as_ref()).filter(|_| !has_certificate);
    let named = args.key_file.as_ref().or(file.key_file.as_ref());
    let text = match (&args.join_key, named, beside) {
        (_, Some(path), _) => Secret::read(path)?,
        (_, None, Some(text_or_path)) => read_beside(text_or_path)?,
        (Some(key), None, None) => key.clone(),
        (None, None, None) => {
            let advice = "make one on a node that runs (`snicket node invite`), and give it with --key-file FILE or in \
                          SNICKET_JOIN_KEY";
            return Err(Problem::usage("--join needs a key", advice).into());
        }
    };
    text.reveal().parse().with_context(|| Problem::usage("the key cannot be read", "copy it whole"))
}

/// The key itself, or a file that holds it.
fn read_beside(text_or_path: &Path) -> anyhow::Result<Secret> {
    match text_or_path.to_str().filter(|text| text.parse::<JoinKey>().is_ok()) {
        Some(text) => Ok(Secret::new(text)),
        None => Secret::read(text_or_path),
    }
}

fn check_registry(named: &RegistryArgs) -> anyhow::Result<()> {
    if named.registry.is_none() && named.files().is_empty() {
        return Ok(());
    }
    let what = "--join brings what --registry, its certificates and --secrets-key say";
    Err(Problem::usage(what, "leave these out, or leave --join out").into())
}

/// Shows the key to a node that has shown to be one, and gets what makes one.
async fn ask(host: &str, key: &JoinKey) -> anyhow::Result<Handover> {
    let url = url(host)?;
    let trust = Trust::Node(key.authority);
    let body = Some(Sent::Json(json!({ "key": key.secret })));
    let fetch = Fetch { method: Method::POST, url: &url, token: None, body, trust: &trust, limit: TIME_LIMIT };
    let answer = fetch.send().await.map_err(|error| unreachable(host, error))?;
    let mut value: Value = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
    if answer.status() == StatusCode::OK {
        let given = serde_json::from_value(value["result"].take());
        return given.map_err(|_| anyhow!("its answer is not what this version knows")).with_context(|| {
            Problem::new(format!("what {host} answers is of no use"), "update this program, or the edge")
        });
    }
    let said = value.pointer("/errors/0/message").and_then(Value::as_str).unwrap_or("it gave no reason").to_owned();
    let advice = match answer.status() {
        StatusCode::TOO_MANY_REQUESTS => "wait some minutes and try again",
        StatusCode::FORBIDDEN => "make a new key on a node of the edge: snicket node invite",
        StatusCode::CONFLICT => "see the reason above",
        _ => "look at that node's log; then make a new key: snicket node invite",
    };
    let what = format!("the edge at {host} does not take this machine in ({})", answer.status().as_u16());
    Err(anyhow!(said).context(Problem::new(what, advice)))
}

fn url(host: &str) -> anyhow::Result<Url> {
    let wrong = || Problem::usage(format!("{host:?} is no address of a node's API"), "write HOST or HOST:PORT");
    let rest = host.strip_prefix("https://").unwrap_or(host);
    let mut url = Url::parse(&format!("https://{rest}")).with_context(wrong)?;
    let is_plain = matches!(url.path(), "" | "/") && url.query().is_none() && url.username().is_empty();
    if host.contains("://") && rest == host || !is_plain {
        return Err(wrong().into());
    }
    if url.port().is_none() && !rest.ends_with(":443") {
        // The setter fails only for a URL without a host, and https has one.
        let _ = url.set_port(Some(API_PORT));
    }
    url.set_path(PATH);
    Ok(url)
}

fn unreachable(host: &str, error: anyhow::Error) -> anyhow::Error {
    let refused = error.chain().find_map(|cause| {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(reason)) => Some(reason),
            Some(_) | None => None,
        }
    });
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let (what, advice) = match refused {
        Some(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }) => (
            format!(
                "by this machine's clock the certificate of the node at {host} does not hold; the key was not sent"
            ),
            "set the clock of this machine, or of that one",
        ),
        Some(_) => (
            format!("what answers at {host} is no node of the edge that the key is of; the key was not sent"),
            "check the address; if the nodes' authority was rotated since the key was made, make a new key (`snicket node \
             invite`); else somebody may be in between",
        ),
        None => (
            format!("cannot reach a node's API at {host}"),
            "check that the node runs, and that its API listens there for others: `snicket up --api 0.0.0.0:7845`",
        ),
    };
    error.context(Problem::new(what, advice))
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::CertificateError;

    use super::*;

    #[test]
    fn a_wrong_clock_is_told_from_a_stranger() {
        let told = |reason: CertificateError| {
            let inner = rustls::Error::InvalidCertificate(reason);
            let error = anyhow::Error::new(io::Error::new(io::ErrorKind::InvalidData, inner)).context("TLS failed");
            unreachable("edge.example", error).to_string()
        };
        assert!(told(CertificateError::Expired).contains("this machine's clock"));
        assert!(told(CertificateError::NotValidYet).contains("this machine's clock"));
        assert!(told(CertificateError::UnknownIssuer).contains("no node of the edge"));
        assert!(unreachable("edge.example", anyhow!("refused")).to_string().contains("cannot reach"));
    }

    #[test]
    fn an_address_is_completed() {
        for (text, expected) in [
            ("edge.example", "https://edge.example:7845/snicket/v1/join"),
            ("https://edge.example", "https://edge.example:7845/snicket/v1/join"),
            ("192.0.2.1:443", "https://192.0.2.1/snicket/v1/join"),
            ("[::1]:7000", "https://[::1]:7000/snicket/v1/join"),
        ] {
            assert_eq!(url(text).unwrap().as_str(), expected, "{text}");
        }
        for text in ["", "http://edge.example", "edge.example/x", "a b", "edge.example:x", "u@edge.example"] {
            assert!(url(text).is_err(), "{text}");
        }
    }
}
