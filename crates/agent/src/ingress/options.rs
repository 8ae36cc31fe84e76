use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use config::Mapping;
use serde::{Deserialize, Serialize};

use super::Access;
use crate::proxy::same_prefix;

/// How an origin is spoken to (section 14.3), every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct OriginOptions {
    /// Limit for the TCP connect.
    pub connect_timeout: Duration,
    /// Limit for the TLS handshake.
    pub tls_timeout: Duration,
    /// Time between TCP keep-alive probes; zero turns them off.
    pub tcp_keep_alive: Duration,
    /// Try the addresses of a name one after the other instead of racing IPv6 against IPv4.
    pub no_happy_eyeballs: bool,
    /// Idle connections kept; zero closes each after its request.
    pub keep_alive_connections: usize,
    /// How long an idle connection is kept.
    pub keep_alive_timeout: Duration,
    /// The `Host` that the origin sees instead of the visitor's.
    pub http_host_header: Option<String>,
    /// The name in the origin's certificate.
    pub origin_server_name: Option<String>,
    /// Take that name from the request's host.
    pub match_sni_to_host: bool,
    /// Further roots to trust, a PEM file.
    pub ca_pool: Option<PathBuf>,
    /// Accept any certificate.
    pub no_tls_verify: bool,
    /// Never send a chunked body.
    pub disable_chunked_encoding: bool,
    /// The service is a jump host.
    pub bastion_mode: bool,
    /// Historic.
    pub proxy_address: String,
    /// Historic.
    pub proxy_port: u16,
    /// `socks` for a SOCKS5 exchange on TCP services.
    pub proxy_type: String,
    /// What a `socks-proxy` may reach.
    pub ip_rules: Vec<IpRule>,
    /// Speak HTTP/2 to TLS origins that offer it.
    pub http2_origin: bool,
    /// Who may pass.
    pub access: Access,
}

impl Default for OriginOptions {
    /// The defaults of the reference, so that an existing configuration means the same here.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            tls_timeout: Duration::from_secs(10),
            tcp_keep_alive: Duration::from_secs(30),
            no_happy_eyeballs: false,
            keep_alive_connections: 100,
            keep_alive_timeout: Duration::from_secs(90),
            http_host_header: None,
            origin_server_name: None,
            match_sni_to_host: false,
            ca_pool: None,
            no_tls_verify: false,
            disable_chunked_encoding: false,
            bastion_mode: false,
            proxy_address: "127.0.0.1".to_owned(),
            proxy_port: 0,
            proxy_type: String::new(),
            ip_rules: Vec::new(),
            http2_origin: false,
            access: Access::default(),
        }
    }
}

/// One entry of `ipRules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct IpRule {
    /// An address range such as `10.0.0.0/8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Ports; none means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Whether it may be reached.
    #[serde(default)]
    pub allow: bool,
}

impl IpRule {
    /// Whether the rule says something about this address (IPv4 as such, not within IPv6) and port.
    pub(crate) fn covers(&self, address: IpAddr, port: u16) -> bool {
        let range = self.prefix.as_deref().and_then(|text| prefix(text).ok());
        range.is_some_and(|(first, length)| same_prefix(address, first, length))
            && (self.ports.is_empty() || self.ports.contains(&port))
    }

    /// Why it is of no use, if so.
    fn refusal(&self) -> Option<String> {
        let Some(range) = &self.prefix else {
            return Some("an entry of ipRules has no prefix; write for example prefix: 10.0.0.0/8".to_owned());
        };
        match prefix(range) {
            Ok(_) if self.ports.contains(&0) => Some("ipRules: a port is 1 to 65535".to_owned()),
            Ok(_) => None,
            Err(reason) => Some(format!("ipRules: {reason}")),
        }
    }
}

/// `originRequest` as written: only what was said. As JSON it is the pushed form, with durations in whole seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(default)]
pub struct Overrides {
    /// `connectTimeout`; what each key means stands at [`OriginOptions`].
    #[serde(with = "seconds", skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Duration>,
    /// `tlsTimeout`.
    #[serde(with = "seconds", skip_serializing_if = "Option::is_none")]
    pub tls_timeout: Option<Duration>,
    /// `tcpKeepAlive`.
    #[serde(with = "seconds", skip_serializing_if = "Option::is_none")]
    pub tcp_keep_alive: Option<Duration>,
    /// `noHappyEyeballs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_happy_eyeballs: Option<bool>,
    /// `keepAliveConnections`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive_connections: Option<usize>,
    /// `keepAliveTimeout`.
    #[serde(with = "seconds", skip_serializing_if = "Option::is_none")]
    pub keep_alive_timeout: Option<Duration>,
    /// `httpHostHeader`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_host_header: Option<String>,
    /// `originServerName`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin_server_name: Option<String>,
    /// `matchSNItoHost`.
    #[serde(rename = "matchSNItoHost", skip_serializing_if = "Option::is_none")]
    pub match_sni_to_host: Option<bool>,
    /// `caPool`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_pool: Option<PathBuf>,
    /// `noTLSVerify`.
    #[serde(rename = "noTLSVerify", skip_serializing_if = "Option::is_none")]
    pub no_tls_verify: Option<bool>,
    /// `disableChunkedEncoding`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_chunked_encoding: Option<bool>,
    /// `bastionMode`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bastion_mode: Option<bool>,
    /// `proxyAddress`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_address: Option<String>,
    /// `proxyPort`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_port: Option<u16>,
    /// `proxyType`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_type: Option<String>,
    /// `ipRules`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_rules: Option<Vec<IpRule>>,
    /// `http2Origin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2_origin: Option<bool>,
    /// `access`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
}

impl Overrides {
    /// Reads `originRequest` from a file.
    pub fn read(map: &mut Mapping<'_>) -> Self {
        Self {
            connect_timeout: map.optional("connectTimeout"),
            tls_timeout: map.optional("tlsTimeout"),
            tcp_keep_alive: map.optional("tcpKeepAlive"),
            no_happy_eyeballs: map.optional("noHappyEyeballs"),
            keep_alive_connections: map.optional("keepAliveConnections"),
            keep_alive_timeout: map.optional("keepAliveTimeout"),
            http_host_header: map.optional("httpHostHeader"),
            origin_server_name: map.optional("originServerName"),
            match_sni_to_host: map.optional("matchSNItoHost"),
            ca_pool: map.optional::<String>("caPool").map(PathBuf::from),
            no_tls_verify: map.optional("noTLSVerify"),
            disable_chunked_encoding: map.optional("disableChunkedEncoding"),
            bastion_mode: map.optional("bastionMode"),
            proxy_address: map.optional("proxyAddress"),
            proxy_port: map.optional("proxyPort"),
            proxy_type: map.choice("proxyType", &[("", ""), ("socks", "socks")]).map(str::to_owned),
            ip_rules: map.mappings("ipRules", |rule| IpRule {
                prefix: rule.parsed("prefix", |text| prefix(text).map(|_| text.to_owned())),
                ports: rule.list("ports").unwrap_or_default(),
                allow: rule.or("allow", false),
            }),
            http2_origin: map.optional("http2Origin"),
            access: map.mapping("access", |access| Access {
                required: access.or("required", false),
                team_name: access.or("teamName", String::new()),
                aud_tag: access.list("audTag").unwrap_or_default(),
                environment: access.or("environment", String::new()),
            }),
        }
    }
}

impl OriginOptions {
    /// For each value the first of the layers that says something, else the default. Empty texts say nothing.
    ///
    /// `ipRules` count only in the rule itself, that is in the first layer.
    pub fn resolve(layers: &[&Overrides]) -> Self {
        fn first<T: Clone>(layers: &[&Overrides], get: impl Fn(&Overrides) -> &Option<T>, default: T) -> T {
            layers.iter().find_map(|layer| get(layer).clone()).unwrap_or(default)
        }
        fn text(layers: &[&Overrides], get: impl Fn(&Overrides) -> &Option<String>) -> Option<String> {
            layers.iter().find_map(|layer| get(layer).clone()).filter(|text| !text.is_empty())
        }
        let default = Self::default();
        Self {
            connect_timeout: first(layers, |l| &l.connect_timeout, default.connect_timeout),
            tls_timeout: first(layers, |l| &l.tls_timeout, default.tls_timeout),
            tcp_keep_alive: first(layers, |l| &l.tcp_keep_alive, default.tcp_keep_alive),
            no_happy_eyeballs: first(layers, |l| &l.no_happy_eyeballs, default.no_happy_eyeballs),
            keep_alive_connections: first(layers, |l| &l.keep_alive_connections, default.keep_alive_connections),
            keep_alive_timeout: first(layers, |l| &l.keep_alive_timeout, default.keep_alive_timeout),
            http_host_header: text(layers, |l| &l.http_host_header),
            origin_server_name: text(layers, |l| &l.origin_server_name),
            match_sni_to_host: first(layers, |l| &l.match_sni_to_host, default.match_sni_to_host),
            ca_pool: layers.iter().find_map(|l| l.ca_pool.clone()).filter(|path| !path.as_os_str().is_empty()),
            no_tls_verify: first(layers, |l| &l.no_tls_verify, default.no_tls_verify),
            disable_chunked_encoding: first(layers, |l| &l.disable_chunked_encoding, default.disable_chunked_encoding),
            bastion_mode: first(layers, |l| &l.bastion_mode, default.bastion_mode),
            proxy_address: first(layers, |l| &l.proxy_address, default.proxy_address),
            proxy_port: first(layers, |l| &l.proxy_port, default.proxy_port),
            proxy_type: first(layers, |l| &l.proxy_type, default.proxy_type),
            ip_rules: layers.first().and_then(|l| l.ip_rules.clone()).unwrap_or_default(),
            http2_origin: first(layers, |l| &l.http2_origin, default.http2_origin),
            access: first(layers, |l| &l.access, default.access),
        }
    }

    /// Why these options cannot be served, if so. What guards an origin is never left out silently.
    pub(super) fn refusal(&self) -> Option<String> {
        if let Some(reason) = self.access.refusal() {
            return Some(reason);
        }
        if let Some(reason) = self.ip_rules.iter().find_map(IpRule::refusal) {
            return Some(reason);
        }
        if !matches!(self.proxy_type.as_str(), "" | "socks") {
            return Some(format!("proxyType {:?} is unknown; write socks, or leave it out", self.proxy_type));
        }
        if let Some(host) = &self.http_host_header
            && (http::HeaderValue::from_str(host).is_err() || host.contains(['/', ' ']))
        {
            return Some(format!("httpHostHeader {host:?} is no host"));
        }
        if let Some(name) = &self.origin_server_name
            && rustls::pki_types::ServerName::try_from(name.as_str()).is_err()
        {
            return Some(format!("originServerName {name:?} is no host name"));
        }
        None
    }

    /// What differs from the defaults, as the agent reports it (section 11.3).
    pub(super) fn changed(&self) -> Overrides {
        fn unless<T: PartialEq + Clone>(value: &T, default: &T) -> Option<T> {
            (value != default).then(|| value.clone())
        }
        let default = Self::default();
        let all = self.spelled_out();
        let usual = default.spelled_out();
        let mut changed = all.clone();
        macro_rules! keep_changed {
            ($($field:ident)+) => {$(
                if all.$field == usual.$field {
                    changed.$field = None;
                }
            )+};
        }
        keep_changed!(connect_timeout tls_timeout tcp_keep_alive no_happy_eyeballs keep_alive_connections
            keep_alive_timeout http_host_header origin_server_name match_sni_to_host ca_pool no_tls_verify
            disable_chunked_encoding bastion_mode proxy_address proxy_port proxy_type ip_rules http2_origin);
        changed.access = unless(&self.access, &default.access);
        changed
    }

    /// Every value, as the endpoint `/config` shows it.
    pub(super) fn spelled_out(&self) -> Overrides {
        Overrides {
            connect_timeout: Some(self.connect_timeout),
            tls_timeout: Some(self.tls_timeout),
            tcp_keep_alive: Some(self.tcp_keep_alive),
            no_happy_eyeballs: Some(self.no_happy_eyeballs),
            keep_alive_connections: Some(self.keep_alive_connections),
            keep_alive_timeout: Some(self.keep_alive_timeout),
            http_host_header: Some(self.http_host_header.clone().unwrap_or_default()),
            origin_server_name: Some(self.origin_server_name.clone().unwrap_or_default()),
            match_sni_to_host: Some(self.match_sni_to_host),
            ca_pool: Some(self.ca_pool.clone().unwrap_or_default()),
            no_tls_verify: Some(self.no_tls_verify),
            disable_chunked_encoding: Some(self.disable_chunked_encoding),
            bastion_mode: Some(self.bastion_mode),
            proxy_address: Some(self.proxy_address.clone()),
            proxy_port: Some(self.proxy_port),
            proxy_type: Some(self.proxy_type.clone()),
            ip_rules: Some(self.ip_rules.clone()),
            http2_origin: Some(self.http2_origin),
            access: Some(self.access.clone()),
        }
    }
}

/// Reads the form `address/length`.
fn prefix(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || format!("{text:?} is no address range; write for example 10.0.0.0/8");
    let (address, length) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let length: u8 = length.parse().map_err(|_| wrong())?;
    if length <= if address.is_ipv4() { 32 } else { 128 } { Ok((address, length)) } else { Err(wrong()) }
}

/// Durations of the pushed document: whole seconds as JSON integers.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => serializer.serialize_u64(duration.as_secs()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_secs))
    }
}
