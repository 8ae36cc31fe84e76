//! The checks one by one. Each looks, and changes nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use edge::{bind_pair, bind_tcp};
use http::{Method, header};
use tokio::net::{TcpStream, UdpSocket};

use super::Finding;
use crate::command::up::{API_PORT, HTTP_PORT, HTTPS_PORT, TUNNEL_PORT};
use crate::fetch::{Fetch, Trust};
use crate::local::LocalEdge;
use crate::{bootstrap, paths, secret};

/// An answer that takes longer does not count as reachable.
const PATIENCE: Duration = Duration::from_secs(3);

/// Datagrams are lost now and then; three losses in a row are a firewall.
const DATAGRAMS: usize = 3;

/// Certificates are checked by the clock, and browsers complain from a few minutes on.
const SKEW: Duration = Duration::from_secs(60);

/// A connection of a visitor or agent is one file, and a request to an origin another.
const OPEN_FILES: u64 = 4096;

/// The default ports: free, or held by our own edge.
pub(super) fn ports(local: Option<&LocalEdge>) -> Vec<Finding> {
    let held = |port: u16| {
        local.is_some_and(|edge| {
            let api = url::Url::parse(&edge.api).ok().and_then(|url| url.port());
            let tunnel = edge.tunnel.iter().map(SocketAddr::port);
            tunnel.chain([edge.http.port(), edge.https.port()]).chain(api).any(|held| held == port)
        })
    };
    let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    [
        ("http", HTTP_PORT, bind_tcp(address(HTTP_PORT), "http").map(drop)),
        ("https", HTTPS_PORT, bind_pair(address(HTTPS_PORT), "https").map(drop)),
        ("tunnel", TUNNEL_PORT, bind_pair(address(TUNNEL_PORT), "tunnel").map(drop)),
        ("api", API_PORT, bind_tcp(address(API_PORT), "api").map(drop)),
    ]
    .into_iter()
    .map(|(name, port, bound)| match bound {
        Ok(()) => Finding::ok("port", format!("{port} ({name}) is free")),
        Err(_) if held(port) => Finding::ok("port", format!("{port} ({name}) is held by the edge on this machine")),
        Err(error) => Finding::warn(
            "port",
            format!("{port} ({name}) cannot be used: {}", error.source),
            format!("the next free port will be taken; `ss -lntup 'sport = :{port}'` shows who holds it"),
        ),
    })
    .collect()
}

/// Files that only their owner may read.
pub(super) fn secret_files(data: &Path) -> Vec<Finding> {
    let mut candidates = vec![
        data.join(crate::node::TOKEN_FILE),
        data.join(crate::keep::KEY_FILE),
        data.join(certs::Authority::KEY_FILE),
        data.join(crate::joined::ETCD_KEY_FILE),
        paths::try_data().join(certs::Authority::KEY_FILE),
    ];
    candidates.extend(files_in(&paths::state().join(crate::remembered::DIRECTORY)));
    for directory in agent::file::directories() {
        candidates.extend(
            files_in(&directory).filter(|path| path.extension().is_some_and(|end| end == "pem" || end == "json")),
        );
    }
    let mut findings = Vec::new();
    let mut good = 0;
    for path in candidates {
        match secret::is_exposed(&path) {
            Ok(false) => good += 1,
            Ok(true) => findings.push(Finding::fail(
                "secrets",
                format!("{} may be read by others", path.display()),
                format!("chmod 600 {}", path.display()),
            )),
            // What is not there cannot leak.
            Err(_) => (),
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("secrets", format!("files with secrets: {good}, none readable by others")));
    }
    findings
}

fn files_in(directory: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(|path| path.is_file())
}

/// The certificate authorities of `up` and `try`.
pub(super) fn authority(data: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for directory in [data.to_owned(), paths::try_data()] {
        let path = directory.join(certs::Authority::CERTIFICATE_FILE);
        if !path.exists() {
            continue;
        }
        findings.push(match certs::Authority::load_or_create(&directory, SystemTime::now()) {
            Ok(_) => Finding::ok("ca", format!("{} is in order; give it to curl as --cacert", path.display())),
            Err(error) => Finding::fail(
                "ca",
                error.to_string(),
                "restore both files from a copy, or move them away to have a new authority made (everybody must trust \
                 it anew)",
            ),
        });
    }
    if findings.is_empty() {
        findings.push(Finding::ok("ca", "none yet; the first `snicket try` or `snicket up` makes one"));
    }
    findings
}

/// Whether names under localhost lead here, as RFC 6761 has it.
pub(super) async fn localhost_names() -> Finding {
    let name = "snicket-doctor.localhost";
    let looked_up = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name, 0))).await;
    let advice = "browsers and curl know these names by themselves; for other programs add them to /etc/hosts, or use \
     systemd-resolved";
    match looked_up.map(|found| found.map(|addresses| addresses.collect::<Vec<_>>())) {
        Ok(Ok(addresses)) if !addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback()) => {
            Finding::ok("dns", "names under localhost lead to this machine")
        }
        Ok(Ok(addresses)) if !addresses.is_empty() => {
            Finding::warn("dns", format!("names under localhost lead to {}", addresses[0].ip()), advice)
        }
        _ => Finding::warn("dns", "the system does not know names under localhost", advice),
    }
}

/// How many files this process may open.
pub(super) fn open_files() -> Vec<Finding> {
    let Ok(limits) = std::fs::read_to_string("/proc/self/limits") else { return Vec::new() };
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    let soft = soft.and_then(|number| number.parse::<u64>().ok());
    vec![match soft {
        Some(soft) if soft < OPEN_FILES => Finding::warn(
            "files",
            format!("at most {soft} files may be open, so about {} requests at once", soft / 2),
            "raise it: `ulimit -n 65536`, or LimitNOFILE=65536 in the service",
        ),
        Some(soft) => Finding::ok("files", format!("{soft} files may be open")),
        None => Finding::ok("files", "any number of files may be open"),
    }]
}

/// The way to an edge: its API, the clock, and where it takes agents, by TCP and UDP.
pub(super) async fn edge(named: Option<&str>, ca: Option<&Path>, local: Option<&LocalEdge>) -> Vec<Finding> {
    let Some(api) = named.map(str::to_owned).or_else(|| local.map(|edge| edge.api.clone())) else { return Vec::new() };
    let own = local.filter(|edge| named.is_none_or(|api| edge.has_api(api)));
    let trust = match Trust::choose(ca, own) {
        Ok(trust) => trust,
        Err(error) => return vec![Finding::fail("api", format!("{error:#}"), "name the edge's ca.pem with --ca")],
    };
    let mut findings = Vec::new();
    match bootstrap::ask(&api, &trust).await {
        Ok(known) => {
            findings.push(Finding::ok("api", format!("the edge at {api} answers (domain {})", known.domain)));
            findings.extend(clock(&api, &trust).await);
            for address in &known.tunnel {
                findings.push(tcp(address).await);
                findings.push(udp(address).await);
            }
        }
        Err(error) => findings.push(Finding::fail(
            "api",
            format!("{error:#}"),
            "check that the edge runs, that its API listens on an address you can reach (`snicket up --api`), and \
             firewalls",
        )),
    }
    findings
}

async fn clock(api: &str, trust: &Trust) -> Option<Finding> {
    let url = bootstrap::url(api).ok()?;
    let fetch = Fetch { method: Method::GET, url: &url, token: None, body: None, trust, limit: PATIENCE };
    let answer = fetch.send().await.ok()?;
    let date = answer.headers().get(header::DATE)?.to_str().ok()?;
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    let skew = jiff::Timestamp::now().duration_since(theirs).unsigned_abs();
    Some(if skew > SKEW {
        Finding::fail(
            "clock",
            format!("this machine and the edge differ by {} s", skew.as_secs()),
            "set both clocks by NTP",
        )
    } else {
        Finding::ok("clock", "this machine and the edge agree on the time")
    })
}

async fn tcp(address: &str) -> Finding {
    match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Finding::ok("tcp", format!("{address} takes connections (HTTP/2)")),
        outcome => {
            let why = outcome.map_or_else(
                |_| "no answer".to_owned(),
                |failed| failed.err().map(|error| error.to_string()).unwrap_or_default(),
            );
            Finding::fail(
                "tcp",
                format!("{address} cannot be reached: {why}"),
                "allow outgoing TCP to it, or set HTTPS_PROXY",
            )
        }
    }
}

async fn udp(address: &str) -> Finding {
    match quic_answers(address).await {
        Ok(true) => Finding::ok("udp", format!("{address} answers QUIC")),
        Ok(false) => Finding::warn(
            "udp",
            format!("{address} does not answer QUIC"),
            "a firewall drops UDP; agents use HTTP/2 instead, which is slower on bad networks",
        ),
        Err(error) => {
            Finding::warn("udp", format!("{address} cannot be reached: {error}"), "agents use HTTP/2 instead")
        }
    }
}

/// A QUIC server answers a version that nobody has by naming its own (RFC 9000 section 6), so this needs no handshake.
async fn quic_answers(address: &str) -> std::io::Result<bool> {
    let target = tokio::net::lookup_host(address).await?.next().ok_or(std::io::ErrorKind::NotFound)?;
    let local: SocketAddr =
        if target.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(target).await?;
    let probe = version_probe();
    let mut answer = [0; 1500];
    for _ in 0..DATAGRAMS {
        socket.send(&probe).await?;
        match tokio::time::timeout(PATIENCE / DATAGRAMS as u32, socket.recv(&mut answer)).await {
            Ok(Ok(length)) => return Ok(is_version_negotiation(&answer[..length])),
            Ok(Err(error)) => return Err(error),
            Err(_) => (),
        }
    }
    Ok(false)
}

/// Smallest datagram that a server has to answer (RFC 9000 section 14.1).
const INITIAL_SIZE: usize = 1200;

/// One of the versions that are reserved for exactly this (RFC 9000 section 15).
const NOBODYS_VERSION: [u8; 4] = [0x1a, 0x2a, 0x3a, 0x4a];

fn version_probe() -> Vec<u8> {
    let mut packet = vec![0xc0];
    packet.extend(NOBODYS_VERSION);
    packet.push(8);
    packet.extend(uuid::Uuid::new_v4().as_bytes()[..8].iter());
    packet.push(0);
    packet.resize(INITIAL_SIZE, 0);
    packet
}

/// A long header whose version is zero (RFC 9000 section 17.2.1).
fn is_version_negotiation(packet: &[u8]) -> bool {
    packet.len() >= 7 && packet[0] & 0x80 != 0 && packet[1..5] == [0; 4]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_what_a_server_answers() {
        let probe = version_probe();
        assert_eq!(probe.len(), INITIAL_SIZE);
        assert!(!is_version_negotiation(&probe));
        assert!(is_version_negotiation(&[0xff, 0, 0, 0, 0, 0, 0]));
        assert!(!is_version_negotiation(&[0x40, 0, 0]));
    }

    #[tokio::test]
    async fn a_silent_port_does_not_answer_quic() {
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = silent.local_addr().unwrap().to_string();
        assert_eq!(quic_answers(&address).await.ok(), Some(false));
    }
}
