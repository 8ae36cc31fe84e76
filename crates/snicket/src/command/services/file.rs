//! Services as a file names them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use config::{Mapping, Mistakes};
use registry::Labels;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::service::{Said, Service};
use super::{Named, unreadable};
use crate::report;
use crate::screen::Screen;
use crate::signals::Signals;

/// How often the file is looked at: one system call, which works on every file system, and for files that are replaced.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A hundred services take a twentieth of it.
const LARGEST_FILE: u64 = 1024 * 1024;

/// Reads the file; all its mistakes come at once.
pub(super) fn load(path: &Path) -> anyhow::Result<Vec<Service>> {
    let read = || {
        let size = std::fs::metadata(path)?.len();
        if size > LARGEST_FILE {
            return Err(std::io::Error::other(format!("it has {size} bytes, and at most {LARGEST_FILE} are read")));
        }
        std::fs::read_to_string(path)
    };
    let text = read().with_context(|| unreadable(path))?;
    parse(&path.display().to_string(), &text).with_context(|| unreadable(path))
}

fn parse(name: &str, text: &str) -> Result<Vec<Service>, Mistakes> {
    config::read(name, text, |file| {
        let mut tunnels = HashSet::new();
        let services = file.mappings("services", |mapping| service(mapping, &mut tunnels));
        services.unwrap_or_default().into_iter().flatten().collect()
    })
}

fn service(mapping: &mut Mapping<'_>, tunnels: &mut HashSet<String>) -> Option<Service> {
    let hostname: Option<String> = mapping.required("hostname");
    let url: Option<String> = mapping.required("url");
    let pool: Option<String> = mapping.optional("pool");
    let labels = mapping.list::<String>("labels").unwrap_or_default();
    let labels = Labels::parse(labels.iter().map(String::as_str)).unwrap_or_else(|bad| {
        mapping.refuse("labels", bad.to_string());
        Labels::default()
    });
    let (hostname, url) = (hostname?, url?);
    let said = Said { hostname: &hostname, url: &url, pool: pool.as_deref(), labels, instance: None };
    match Service::new(said) {
        Ok(service) if tunnels.insert(service.tunnel.clone()) => Some(service),
        Ok(_) => {
            mapping.refuse(
                "hostname",
                "another service of this file has it; with a `pool` and a URL of its own it can be shared",
            );
            None
        }
        Err((key, reason)) => {
            mapping.refuse(key, reason);
            None
        }
    }
}

/// Tells what the file names whenever it has changed and then been left alone for one look, or at SIGHUP. One with a mistake changes
/// nothing.
pub(super) async fn follow(path: PathBuf, named: watch::Sender<Named>, mut signals: Signals, screen: Screen) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut applied = stamp(&path).await;
    let mut seen = applied;
    loop {
        tokio::select! {
            _ = looks.tick() => {
                let now = stamp(&path).await;
                let is_settled = now == seen;
                seen = now;
                // A file that is gone is being replaced, or was removed by mistake.
                if !is_settled || now == applied || now.is_none() {
                    continue;
                }
            }
            () = signals.reload() => seen = stamp(&path).await,
        }
        applied = seen;
        let file = path.clone();
        let loaded = tokio::task::spawn_blocking(move || load(&file)).await;
        match loaded.unwrap_or_else(|error| Err(error.into())) {
            Ok(services) => {
                screen.event(&json!({
                    "event": "configuration", "time": report::now(), "applied": true, "services": services.len(),
                }));
                named.send_replace(Some(services));
            }
            Err(error) => {
                let reason: Vec<String> = error.chain().map(ToString::to_string).collect();
                let reason = reason.join(": ");
                screen.event(&json!({
                    "event": "configuration", "time": report::now(), "applied": false, "reason": reason,
                }));
                screen.say(format!("The services stay as they are: {reason}"));
                tracing::warn!(%reason, "the changed file of services is not used");
            }
        }
    }
}

async fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_services() {
        let text = "services:\n  - hostname: App.example.com\n    url: http://localhost:3000\n  - hostname: shop.example.com\n    \
                    url: http://localhost:3001\n    pool: shop\n    labels: [rack=7, tier=front]\n  - hostname: shop.example.com\n    \
                    url: http://localhost:3002\n    pool: shop\n";
        let services = parse("s.yml", text).unwrap();
        let names: Vec<_> =
            services.iter().map(|service| (service.hostname.as_str(), service.pool.as_deref())).collect();
        assert_eq!(
            names,
            [("app.example.com", None), ("shop.example.com", Some("shop")), ("shop.example.com", Some("shop"))]
        );
        assert_eq!(services[0].tunnel, "service-app.example.com");
        assert_ne!(services[1].tunnel, services[2].tunnel);
        assert_eq!(services[1].labels, Labels::parse(["rack=7", "tier=front"]).unwrap());
        assert!(parse("s.yml", "services: []\n").unwrap().is_empty());
    }

    #[test]
    fn all_mistakes_are_told_with_their_lines() {
        let text = "services:\n  - hostname: a b\n    url: http://localhost:1\n  - hostname: a.test\n    url: nonsense\n  - \
                    hostname: b.test\n    url: http://localhost:1\n    pool: no pool\n  - url: http://localhost:1\n  - hostname: \
                    c.test\n    url: http://localhost:1\n    labels: [x]\n    colour: red\n  - hostname: c.test\n    url: \
                    http://localhost:2\n  - hostname: '*.d.test'\n    url: http://localhost:2\n";
        let error = parse("s.yml", text).unwrap_err().to_string();
        for expected in
            ["s.yml:2:", "s.yml:5:", "s.yml:8:", "hostname", "KEY=VALUE", "colour", "another service", "without *"]
        {
            assert!(error.contains(expected), "{expected} in {error}");
        }
    }
}
