//! The agent's file, `config.yml` in the grammar of cloudflared (section 14): where it is searched, and what it holds.
//!
//! Every flag of the command line may stand in it under its long name. The file says only what was written; the caller
//! merges it under the command line and the environment, and above the defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Mapping, Mistakes};

use crate::ingress::{Document, Overrides, RuleDraft, RuleError, Rules};

/// The names under which the file is looked for in each directory.
const NAMES: [&str; 2] = ["config.yml", "config.yaml"];

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("the configuration file {path} cannot be read: {reason}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// Mistakes in the file, all of them.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

/// Keys of the file that choose the origin when there are no ingress rules, and the `originRequest` values that the
/// single-origin flags set (section 17.2).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SingleOrigin {
    /// `hello-world`.
    pub hello_world: bool,
    /// `bastion`.
    pub bastion: bool,
    /// `url`.
    pub url: Option<String>,
    /// `unix-socket`.
    pub unix_socket: Option<PathBuf>,
    /// The values of flags such as `http-host-header`.
    pub overrides: Overrides,
}

/// What the file says. A field is `None` (or empty) when its key is absent.
#[derive(Clone, Default)]
#[expect(missing_docs, reason = "each field is the key of the same name, documented at the flag")]
pub struct FileConfig {
    /// `tunnel`: id or name.
    pub tunnel: Option<String>,
    pub credentials_file: Option<PathBuf>,
    pub credentials_contents: Option<String>,
    pub token: Option<String>,
    pub token_file: Option<PathBuf>,
    pub origincert: Option<PathBuf>,
    /// The rules, when the file has `ingress`.
    pub document: Option<Document>,
    /// `originRequest`, which counts for single-origin flags too.
    pub origin_request: Overrides,
    /// What serves when there are no rules.
    pub single: SingleOrigin,
    pub hostname: Option<String>,
    pub name: Option<String>,
    pub lb_pool: Option<String>,
    /// `edge`, each `host:port`.
    pub edge: Vec<String>,
    pub region: Option<String>,
    /// `edge-ip-version`: `auto`, `4` or `6`.
    pub edge_ip_version: Option<String>,
    pub edge_bind_address: Option<IpAddr>,
    pub cacert: Option<PathBuf>,
    /// `protocol`: `auto`, `quic`, `http2` or the historic `h2mux`.
    pub protocol: Option<String>,
    pub post_quantum: Option<bool>,
    pub features: Vec<String>,
    pub ha_connections: Option<NonZeroU8>,
    pub retries: Option<u32>,
    pub max_edge_addr_retries: Option<u32>,
    pub grace_period: Option<Duration>,
    pub rpc_timeout: Option<Duration>,
    /// `tag`, each `KEY=VALUE`.
    pub tag: Vec<String>,
    pub label: Option<String>,
    pub api_url: Option<String>,
    pub quick_service: Option<String>,
    pub metrics: Option<String>,
    pub pidfile: Option<PathBuf>,
    pub loglevel: Option<String>,
    pub transport_loglevel: Option<String>,
    pub logfile: Option<PathBuf>,
    pub log_directory: Option<PathBuf>,
    /// `output`: `default` or `json`.
    pub output: Option<String>,
}

/// Shows nothing: some of the values are secrets.
impl fmt::Debug for FileConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileConfig").finish_non_exhaustive()
    }
}

/// Keys that mean nothing to this agent, and do no harm: settings of features that it does not have or does by itself.
const WITHOUT_EFFECT: [&str; 17] = [
    "autoupdate-freq",
    "dns-resolver-addrs",
    "force",
    "icmpv4-src",
    "icmpv6-src",
    "logDirectory",
    "management-diagnostics",
    "management-hostname",
    "max-active-flows",
    "metrics-update-freq",
    "no-autoupdate",
    "no-prechecks",
    "quic-connection-level-flow-control-limit",
    "quic-disable-pmtu-discovery",
    "quic-stream-level-flow-control-limit",
    "trace-output",
    "write-stream-timeout",
];

impl FileConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| FileError::Unreadable { path: path.to_owned(), reason: error.to_string() })?;
        Ok(Self::parse(&path.display().to_string(), &text)?)
    }

    /// Reads the text of a file; `name` is only for messages.
    ///
    /// # Errors
    /// All mistakes of the file.
    pub fn parse(name: &str, text: &str) -> Result<Self, Mistakes> {
        config::read(name, text, Self::read)
    }

    fn read(file: &mut Mapping<'_>) -> Self {
        file.accept(&WITHOUT_EFFECT);
        let (document, origin_request) = Document::read(file);
        Self {
            document,
            single: SingleOrigin::read(file),
            origin_request,
            tunnel: file.optional("tunnel"),
            credentials_file: file.optional("credentials-file").or_else(|| file.optional("cred-file")),
            credentials_contents: file.optional("credentials-contents"),
            token: file.optional("token"),
            token_file: file.optional("token-file"),
            origincert: file.optional("origincert"),
            hostname: file.optional("hostname"),
            name: file.optional("name"),
            lb_pool: file.optional("lb-pool"),
            edge: file.list("edge").unwrap_or_default(),
            region: file.optional("region"),
            edge_ip_version: word(file, "edge-ip-version", &["auto", "4", "6"]),
            edge_bind_address: file.optional("edge-bind-address"),
            cacert: file.optional("cacert"),
            protocol: word(file, "protocol", &["auto", "quic", "http2", "h2mux"]),
            post_quantum: file.optional("post-quantum").or_else(|| file.optional("pq")),
            features: file.list("features").unwrap_or_default(),
            ha_connections: file.parsed("ha-connections", |text| {
                text.parse().map_err(|_| format!("found {text:?}, expected a number of connections from 1 to 255"))
            }),
            retries: file.optional("retries"),
            max_edge_addr_retries: file.optional("max-edge-addr-retries"),
            grace_period: file.optional("grace-period"),
            rpc_timeout: file.optional("rpc-timeout"),
            tag: file.list("tag").unwrap_or_default(),
            label: file.optional("label"),
            api_url: file.optional("api-url"),
            quick_service: file.optional("quick-service"),
            metrics: file.optional("metrics"),
            pidfile: file.optional("pidfile"),
            loglevel: file.optional("loglevel"),
            transport_loglevel: file.optional("transport-loglevel"),
            logfile: file.optional("logfile"),
            log_directory: file.optional("log-directory"),
            output: word(file, "output", &["default", "json"]),
        }
    }
}

impl SingleOrigin {
    fn read(file: &mut Mapping<'_>) -> Self {
        let overrides = Overrides {
            connect_timeout: file.optional("proxy-connect-timeout"),
            tls_timeout: file.optional("proxy-tls-timeout"),
            tcp_keep_alive: file.optional("proxy-tcp-keepalive"),
            no_happy_eyeballs: file.optional("proxy-no-happy-eyeballs"),
            keep_alive_connections: file.optional("proxy-keepalive-connections"),
            keep_alive_timeout: file.optional("proxy-keepalive-timeout"),
            http_host_header: file.optional("http-host-header"),
            origin_server_name: file.optional("origin-server-name"),
            ca_pool: file.optional("origin-ca-pool"),
            no_tls_verify: file.optional("no-tls-verify"),
            disable_chunked_encoding: file.optional("no-chunked-encoding"),
            http2_origin: file.optional("http2-origin"),
            proxy_type: file.optional("socks5").and_then(|on: bool| on.then(|| "socks".to_owned())),
            ..Overrides::default()
        };
        Self {
            hello_world: file.or("hello-world", false),
            bastion: file.or("bastion", false),
            url: file.optional("url"),
            unix_socket: file.optional("unix-socket"),
            overrides,
        }
    }

    /// The rules that these flags mean, in the reference's order of strength; 503 for everything when none is set.
    /// `defaults` is the file's `originRequest`, for whatever the flags leave open.
    ///
    /// # Errors
    /// As [`Rules::build`].
    pub fn rules(&self, defaults: &Overrides) -> Result<Rules, Vec<RuleError>> {
        let service = if self.hello_world {
            "hello_world".to_owned()
        } else if self.bastion {
            "bastion".to_owned()
        } else if let Some(url) = &self.url {
            url.clone()
        } else if let Some(path) = &self.unix_socket {
            format!("unix:{}", path.display())
        } else {
            return Ok(Rules::nothing());
        };
        let draft = RuleDraft { service: Some(service), overrides: self.overrides.clone(), ..RuleDraft::default() };
        Rules::build(&[draft], defaults)
    }
}

/// The flags that the agent reports to the edge when they are set (section 11.3).
pub fn reported_flags(file: &FileConfig) -> BTreeMap<String, String> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    [
        ("retries", file.retries.map(|retries| retries.to_string())),
        ("protocol", file.protocol.clone()),
        ("loglevel", file.loglevel.clone()),
        ("transport-loglevel", file.transport_loglevel.clone()),
        ("origincert", path(&file.origincert)),
        ("metrics", file.metrics.clone()),
        ("edge-ip-version", file.edge_ip_version.clone()),
        ("edge-bind-address", file.edge_bind_address.map(|address| address.to_string())),
    ]
    .into_iter()
    .filter_map(|(flag, value)| Some((flag.to_owned(), value?)))
    .collect()
}

/// The directories that are searched for the file, the certificate and credentials, in order (section 14).
pub fn directories() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let in_home = [".cloudflared", ".cloudflare-warp", "cloudflare-warp"];
    home.into_iter()
        .flat_map(|home| in_home.map(|directory| home.join(directory)))
        .chain([PathBuf::from("/etc/cloudflared"), PathBuf::from("/usr/local/etc/cloudflared")])
        .collect()
}

/// The first configuration file in the [`directories`].
pub fn find_config() -> Option<PathBuf> {
    first_file(directories().into_iter().flat_map(|directory| NAMES.map(|name| directory.join(name))))
}

/// The first `cert.pem` in the [`directories`].
pub fn find_origincert() -> Option<PathBuf> {
    first_file(directories().into_iter().map(|directory| directory.join("cert.pem")))
}

/// The credentials file of a tunnel: beside the certificate, then in the [`directories`].
pub fn find_credentials(tunnel: uuid::Uuid, origincert: Option<&Path>) -> Option<PathBuf> {
    let beside = origincert.and_then(Path::parent).map(Path::to_owned);
    first_file(beside.into_iter().chain(directories()).map(|directory| directory.join(format!("{tunnel}.json"))))
}

fn first_file(mut candidates: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    candidates.find(|path| path.is_file())
}

fn word(file: &mut Mapping<'_>, key: &'static str, words: &[&'static str]) -> Option<String> {
    let choices: Vec<(&str, &str)> = words.iter().map(|word| (*word, *word)).collect();
    file.choice(key, &choices).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_reference_is_read_as_it_is() {
        let file = FileConfig::parse(
            "config.yml",
            r#"
tunnel: 6ff42ae2-765d-4adf-8112-31c55c1551ef
credentials-file: /root/.cloudflared/6ff42ae2-765d-4adf-8112-31c55c1551ef.json
protocol: http2
edge-ip-version: 4
grace-period: 1m30s
no-autoupdate: true
tag: [a=b]
originRequest:
  connectTimeout: 10s
  noTLSVerify: yes
ingress:
  - hostname: "*.example.test"
    path: ^/api
    service: https://localhost:8443
    originRequest:
      connectTimeout: 500ms
      ipRules:
        - prefix: 10.0.0.0/8
          ports: [80]
          allow: true
  - service: http_status:404
warp-routing:
  enabled: true
"#,
        )
        .unwrap();
        assert_eq!(file.protocol.as_deref(), Some("http2"));
        assert_eq!(file.edge_ip_version.as_deref(), Some("4"));
        assert_eq!(file.grace_period, Some(Duration::from_secs(90)));
        let document = file.document.unwrap();
        let rule = document.rules.find("a.example.test", "/api/x").1;
        assert_eq!(rule.options.connect_timeout, Duration::from_millis(500));
        assert!(rule.options.no_tls_verify);
        assert_eq!(rule.options.ip_rules.len(), 1);
        assert_eq!(document.rules.iter().last().unwrap().options.connect_timeout, Duration::from_secs(10));
    }

    #[test]
    fn secrets_of_the_file_are_not_printed() {
        let file = FileConfig::parse("c.yml", "token: hidden-1\ncredentials-contents: hidden-2").unwrap();
        assert_eq!(file.token.as_deref(), Some("hidden-1"));
        assert!(!format!("{file:?}").contains("hidden"));
    }

    #[test]
    fn mistakes_in_rules_have_their_places_too() {
        let text = "
protocl: quic
ingress:
  - hostname: a.test:80
    service: http://localhost:1/x
  - hostname: b.test
    servise: http://localhost:2
    originRequest:
      access: {required: true, audTag: [t]}
";
        let mistakes = FileConfig::parse("c.yml", text).unwrap_err().to_string();
        let places: Vec<&str> = mistakes.lines().map(|line| line.split(": ").next().unwrap()).collect();
        assert_eq!(
            places,
            ["c.yml:2:1", "c.yml:4:15", "c.yml:5:14", "c.yml:6:5", "c.yml:6:5", "c.yml:7:5", "c.yml:9:7"],
            "{mistakes}"
        );
        assert!(mistakes.contains("did you mean \"protocol\"?"), "{mistakes}");
        assert!(mistakes.contains("did you mean \"service\"?"), "{mistakes}");
        assert!(mistakes.contains("access.teamName does not say"), "{mistakes}");
    }

    #[test]
    fn single_origins_have_the_order_of_the_reference() {
        let service = |text: &str| {
            let file = FileConfig::parse("c.yml", text).unwrap();
            assert!(file.document.is_none());
            file.single.rules(&file.origin_request).map(|rules| rules.iter().next().unwrap().service.to_string())
        };
        assert_eq!(service("hello-world: true\nurl: http://localhost:1").unwrap(), "hello_world");
        assert_eq!(service("url: http://localhost:1\nunix-socket: /x").unwrap(), "http://localhost:1");
        assert_eq!(service("unix-socket: /x").unwrap(), "unix:/x");
        assert_eq!(service("").unwrap(), "http_status:503");
        assert!(service("url: http://localhost:1/x").is_err());

        let text = "url: http://localhost:1\nhttp-host-header: flag\n\
                    originRequest:\n  httpHostHeader: file\n  noTLSVerify: true";
        let file = FileConfig::parse("c.yml", text).unwrap();
        let rules = file.single.rules(&file.origin_request).unwrap();
        let options = &rules.iter().next().unwrap().options;
        assert_eq!((options.http_host_header.as_deref(), options.no_tls_verify), (Some("flag"), true));
    }
}
