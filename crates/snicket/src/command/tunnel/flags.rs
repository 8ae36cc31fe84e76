//! cloudflared's flags of `tunnel` and `tunnel run` (section 17.2). Where the reference insists on a place between
//! `tunnel` and the subcommand or after it, either is taken here.

use std::num::NonZeroU8;
use std::path::PathBuf;
use std::time::Duration;

use agent::file::{self, FileConfig};
use agent::ingress::Overrides;
use anyhow::Context as _;
use clap::ValueEnum as _;
use registry::Labels;

use crate::command::up::duration;
use crate::logging::{Form, Level, Logging};
use crate::problem::Problem;

/// Flags that hold for `tunnel` and what follows. Every value is optional, so that the configuration file can fill in.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Options of all tunnel commands")]
pub(crate) struct Flags {
    /// Configuration file, cloudflared's config.yml
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// What `tunnel login` wrote (cert.pem)
    #[arg(long, global = true, value_name = "FILE", env = "TUNNEL_ORIGIN_CERT", hide_env_values = true)]
    pub(crate) origincert: Option<PathBuf>,
    /// Credentials of one tunnel
    #[arg(
        long,
        alias = "cred-file",
        global = true,
        value_name = "FILE",
        env = "TUNNEL_CRED_FILE",
        hide_env_values = true
    )]
    pub(crate) credentials_file: Option<PathBuf>,
    /// Where the edge takes agents, or its domain
    #[arg(
        long,
        global = true,
        value_name = "ADDR",
        env = "TUNNEL_EDGE",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub(crate) edge: Vec<String>,
    /// The edge's CA (ca.pem)
    #[arg(long, global = true, value_name = "FILE", env = "TUNNEL_CACERT", hide_env_values = true)]
    pub(crate) cacert: Option<PathBuf>,
    /// The edge's API, a URL that ends in /client/v4
    #[arg(long, global = true, value_name = "URL", env = "TUNNEL_API_URL", hide_env_values = true)]
    pub(crate) api_url: Option<String>,
    /// Where quick tunnels come from, a URL
    #[arg(long, global = true, value_name = "URL", hide = true)]
    pub(crate) quick_service: Option<String>,
    /// auto, quic or http2
    #[arg(
        long, short = 'p', global = true, value_name = "NAME", value_parser = ["auto", "quic", "http2", "h2mux"],
        hide_possible_values = true, env = "TUNNEL_TRANSPORT_PROTOCOL", hide_env_values = true
    )]
    pub(crate) protocol: Option<String>,
    /// Serve this, without ingress rules
    #[arg(long, global = true, value_name = "URL", env = "TUNNEL_URL", hide_env_values = true)]
    pub(crate) url: Option<String>,
    /// Serve a built-in page
    #[arg(
        long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", hide_possible_values = true, env = "TUNNEL_HELLO_WORLD", hide_env_values = true
    )]
    pub(crate) hello_world: Option<bool>,
    /// Address of /ready and /metrics
    #[arg(long, global = true, value_name = "ADDR", env = "TUNNEL_METRICS", hide_env_values = true)]
    pub(crate) metrics: Option<String>,
    /// Record requests and show them there
    #[arg(
        long, global = true, value_name = "ADDR", value_parser = crate::inspect::address, env = "SNICKET_INSPECT",
        hide_env_values = true
    )]
    pub(crate) inspect: Option<std::net::SocketAddr>,
    /// Time for requests to end [default: 30s]
    #[arg(
        long, global = true, value_parser = duration, value_name = "TIME", env = "TUNNEL_GRACE_PERIOD",
        hide_env_values = true, hide_short_help = true
    )]
    pub(crate) grace_period: Option<Duration>,
    /// debug, info, warn, error or fatal
    #[arg(
        long,
        global = true,
        hide_possible_values = true,
        value_name = "LEVEL",
        env = "TUNNEL_LOGLEVEL",
        hide_env_values = true
    )]
    pub(crate) loglevel: Option<Level>,
    /// Say this of the tunnel that is made or put into a pool, such as release=canary; repeatable
    #[arg(long, global = true, value_name = "KEY=VALUE", hide_short_help = true)]
    label: Vec<String>,
    /// Append diagnostics to this file
    #[arg(long, global = true, value_name = "FILE", env = "TUNNEL_LOGFILE", hide_env_values = true, hide = true)]
    pub(crate) logfile: Option<PathBuf>,
    /// Write the process id here once connected
    #[arg(long, global = true, value_name = "FILE", env = "TUNNEL_PIDFILE", hide_env_values = true, hide = true)]
    pub(crate) pidfile: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) dial: Dial,
    #[command(flatten)]
    pub(crate) origin: OriginFlags,
    #[command(flatten)]
    pub(crate) unused: Unused,
}

impl Flags {
    /// The flags and variables over the configuration file, when there is one.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let path = self.config.clone().or_else(file::find_config);
        let written = match &path {
            Some(path) => FileConfig::load(path).with_context(|| {
                Problem::usage(
                    format!("the configuration file {} is not usable", path.display()),
                    "correct what is named; `snicket tunnel ingress validate` checks again",
                )
            })?,
            None => FileConfig::default(),
        };
        Ok(Settings { values: self.over(written), path })
    }

    pub(super) fn over(&self, file: FileConfig) -> FileConfig {
        let flags = self.clone();
        let mut single = file.single;
        single.hello_world = flags.hello_world.unwrap_or(single.hello_world);
        single.url = flags.url.or(single.url);
        single.unix_socket = flags.origin.unix_socket.clone().or(single.unix_socket);
        single.overrides = flags.origin.over(single.overrides);
        FileConfig {
            single,
            credentials_file: flags.credentials_file.or(file.credentials_file),
            origincert: flags.origincert.or(file.origincert),
            edge: if flags.edge.is_empty() { file.edge } else { flags.edge },
            edge_ip_version: flags.dial.edge_ip_version.or(file.edge_ip_version),
            edge_bind_address: flags.dial.edge_bind_address.or(file.edge_bind_address),
            cacert: flags.cacert.or(file.cacert),
            protocol: flags.protocol.or(file.protocol),
            post_quantum: flags.dial.post_quantum.or(file.post_quantum),
            features: if flags.dial.features.is_empty() { file.features } else { flags.dial.features },
            tag: if flags.dial.tag.is_empty() { file.tag } else { flags.dial.tag },
            ha_connections: flags.dial.ha_connections.or(file.ha_connections),
            retries: flags.dial.retries.or(file.retries),
            max_edge_addr_retries: flags.dial.max_edge_addr_retries.or(file.max_edge_addr_retries),
            grace_period: flags.grace_period.or(file.grace_period),
            rpc_timeout: flags.dial.rpc_timeout.or(file.rpc_timeout),
            api_url: flags.api_url.or(file.api_url),
            quick_service: flags.quick_service.or(file.quick_service),
            metrics: flags.metrics.or(file.metrics),
            pidfile: flags.pidfile.or(file.pidfile),
            logfile: flags.logfile.or(file.logfile),
            loglevel: flags
                .loglevel
                .and_then(|level| level.to_possible_value())
                .map(|value| value.get_name().to_owned())
                .or(file.loglevel),
            ..file
        }
    }
}

/// What is in force: command line over environment over file.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The values.
    pub(crate) values: FileConfig,
    /// The file they partly come from.
    pub(crate) path: Option<PathBuf>,
}

impl Settings {
    /// Diagnostics as asked for; `form` is what `--output` said.
    pub(crate) fn logging(&self, form: Option<Form>) -> anyhow::Result<Logging> {
        let word = |name: &str, text: &str| {
            Problem::usage(format!("{name}: {text:?} is not known"), "`--help` lists the words")
        };
        let level = self.values.loglevel.as_deref().map(|text| {
            // The reference knows more words than it documents; these two are common in files.
            let text = match text {
                "trace" => "debug",
                "panic" => "fatal",
                other => other,
            };
            Level::from_str(text, true).map_err(|_| word("loglevel", text))
        });
        let written =
            self.values.output.as_deref().map(|text| Form::from_str(text, true).map_err(|_| word("output", text)));
        Ok(Logging {
            level: level.transpose()?,
            file: self.values.logfile.clone(),
            form: form.or(written.transpose()?),
        })
    }
}

fn count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "write a whole number from 0".to_owned())
}

fn connections(text: &str) -> Result<NonZeroU8, String> {
    text.parse().map_err(|_| "write a whole number from 1 to 255".to_owned())
}

/// How connections are dialled.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Dial {
    /// Connections to hold [default: 4]
    #[arg(long, global = true, value_name = "N", value_parser = connections, hide = true)]
    pub(crate) ha_connections: Option<NonZeroU8>,
    /// auto, 4 or 6
    #[arg(
        long, global = true, value_name = "VERSION", value_parser = ["auto", "4", "6"],
        env = "TUNNEL_EDGE_IP_VERSION", hide_env_values = true, hide = true
    )]
    pub(crate) edge_ip_version: Option<String>,
    /// Local address to dial from
    #[arg(
        long,
        global = true,
        value_name = "IP",
        env = "TUNNEL_EDGE_BIND_ADDRESS",
        hide_env_values = true,
        hide = true
    )]
    pub(crate) edge_bind_address: Option<std::net::IpAddr>,
    /// Whom to ask for the edge's nodes, IP:PORT [default: the system's resolvers]
    #[arg(long, global = true, value_name = "ADDR", env = "TUNNEL_EDGE_RESOLVER", hide_env_values = true, hide = true)]
    pub(crate) edge_resolver: Option<std::net::SocketAddr>,
    /// Only the hybrid post-quantum key exchange
    #[arg(
        long, alias = "pq", global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", env = "TUNNEL_POST_QUANTUM", hide_env_values = true, hide = true
    )]
    pub(crate) post_quantum: Option<bool>,
    /// How often the pause between attempts doubles, from 1s [default: 5]
    #[arg(
        long, global = true, value_name = "N", value_parser = count, env = "TUNNEL_RETRIES", hide_env_values = true,
        hide = true
    )]
    pub(crate) retries: Option<u32>,
    /// Dials of QUIC that fail before HTTP/2 is tried [default: HTTP/2 is dialled beside QUIC]
    #[arg(long, global = true, value_name = "N", value_parser = count, hide = true)]
    pub(crate) max_edge_addr_retries: Option<u32>,
    /// How long one call to the edge may take [default: 5s]
    #[arg(long, global = true, value_parser = duration, value_name = "TIME", hide = true)]
    pub(crate) rpc_timeout: Option<Duration>,
    /// More features to announce
    #[arg(long, short = 'F', global = true, value_name = "NAME", hide = true)]
    pub(crate) features: Vec<String>,
    /// What to tell the edge about this agent
    #[arg(
        long,
        global = true,
        value_name = "NAME=VALUE",
        env = "TUNNEL_TAG",
        value_delimiter = ',',
        hide_env_values = true,
        hide = true
    )]
    pub(crate) tag: Vec<String>,
}

/// How the origin is spoken to, without ingress rules.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct OriginFlags {
    /// Serve what listens on this Unix socket
    #[arg(long, global = true, value_name = "PATH", env = "TUNNEL_UNIX_SOCKET", hide_env_values = true, hide = true)]
    pub(crate) unix_socket: Option<PathBuf>,
    /// `Host` to show to the origin
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "TUNNEL_HTTP_HOST_HEADER",
        hide_env_values = true,
        hide = true
    )]
    pub(crate) http_host_header: Option<String>,
    /// Name in the origin's certificate
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "TUNNEL_ORIGIN_SERVER_NAME",
        hide_env_values = true,
        hide = true
    )]
    pub(crate) origin_server_name: Option<String>,
    /// More certificates to trust for the origin
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "TUNNEL_ORIGIN_CA_POOL",
        hide_env_values = true,
        hide = true
    )]
    pub(crate) origin_ca_pool: Option<PathBuf>,
    /// Believe any certificate of the origin
    #[arg(
        long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", env = "NO_TLS_VERIFY", hide_env_values = true, hide = true
    )]
    pub(crate) no_tls_verify: Option<bool>,
    /// Send Content-Length instead of chunks to the origin
    #[arg(
        long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", env = "TUNNEL_NO_CHUNKED_ENCODING", hide_env_values = true, hide = true
    )]
    pub(crate) no_chunked_encoding: Option<bool>,
    /// HTTP/2 to the origin
    #[arg(
        long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", env = "TUNNEL_ORIGIN_ENABLE_HTTP2", hide_env_values = true, hide = true
    )]
    pub(crate) http2_origin: Option<bool>,
    /// Time to connect to the origin
    #[arg(long, global = true, value_parser = duration, value_name = "TIME", hide = true)]
    pub(crate) proxy_connect_timeout: Option<Duration>,
    /// Time for TLS with the origin
    #[arg(long, global = true, value_parser = duration, value_name = "TIME", hide = true)]
    pub(crate) proxy_tls_timeout: Option<Duration>,
    /// Interval of TCP keep-alive towards the origin
    #[arg(long, global = true, value_parser = duration, value_name = "TIME", hide = true)]
    pub(crate) proxy_tcp_keepalive: Option<Duration>,
    /// Idle connections to the origin that are kept
    #[arg(long, global = true, value_name = "N", hide = true)]
    pub(crate) proxy_keepalive_connections: Option<usize>,
    /// How long they are kept
    #[arg(long, global = true, value_parser = duration, value_name = "TIME", hide = true)]
    pub(crate) proxy_keepalive_timeout: Option<Duration>,
    /// One address of the origin after the other instead of racing
    #[arg(
        long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", hide = true
    )]
    pub(crate) proxy_no_happy_eyeballs: Option<bool>,
}

impl OriginFlags {
    fn over(&self, file: Overrides) -> Overrides {
        let flags = self.clone();
        Overrides {
            connect_timeout: flags.proxy_connect_timeout.or(file.connect_timeout),
            tls_timeout: flags.proxy_tls_timeout.or(file.tls_timeout),
            tcp_keep_alive: flags.proxy_tcp_keepalive.or(file.tcp_keep_alive),
            no_happy_eyeballs: flags.proxy_no_happy_eyeballs.or(file.no_happy_eyeballs),
            keep_alive_connections: flags.proxy_keepalive_connections.or(file.keep_alive_connections),
            keep_alive_timeout: flags.proxy_keepalive_timeout.or(file.keep_alive_timeout),
            http_host_header: flags.http_host_header.or(file.http_host_header),
            origin_server_name: flags.origin_server_name.or(file.origin_server_name),
            ca_pool: flags.origin_ca_pool.or(file.ca_pool),
            no_tls_verify: flags.no_tls_verify.or(file.no_tls_verify),
            disable_chunked_encoding: flags.no_chunked_encoding.or(file.disable_chunked_encoding),
            http2_origin: flags.http2_origin.or(file.http2_origin),
            ..file
        }
    }
}

/// Flags that exist in command lines and service files of the reference and change nothing here.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Unused {
    #[arg(
        long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", hide = true
    )]
    no_autoupdate: Option<bool>,
    #[arg(long, global = true, value_name = "TIME", hide = true)]
    autoupdate_freq: Option<String>,
    #[arg(
        long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", hide = true
    )]
    no_prechecks: Option<bool>,
    #[arg(
        long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", hide = true
    )]
    quic_disable_pmtu_discovery: Option<bool>,
    #[arg(long, global = true, value_name = "BYTES", hide = true)]
    quic_connection_level_flow_control_limit: Option<u64>,
    #[arg(long, global = true, value_name = "BYTES", hide = true)]
    quic_stream_level_flow_control_limit: Option<u64>,
    #[arg(long, global = true, value_name = "TIME", hide = true)]
    write_stream_timeout: Option<String>,
    #[arg(long, global = true, value_name = "REGION", hide = true)]
    region: Option<String>,
    #[arg(long, global = true, value_name = "LEVEL", hide = true)]
    transport_loglevel: Option<String>,
    #[arg(long, global = true, value_name = "DIR", hide = true)]
    log_directory: Option<PathBuf>,
    #[arg(long, global = true, value_name = "IP", hide = true)]
    icmpv4_src: Option<String>,
    #[arg(long, global = true, value_name = "IP", hide = true)]
    icmpv6_src: Option<String>,
    #[arg(long, global = true, value_name = "NAME", hide = true)]
    management_hostname: Option<String>,
    #[arg(
        long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", hide = true
    )]
    management_diagnostics: Option<bool>,
}

impl Flags {
    /// What `--label` says.
    pub(super) fn labels(&self) -> anyhow::Result<Labels> {
        let labels = Labels::parse(self.label.iter().map(String::as_str));
        labels.map_err(|problem| Problem::usage(problem.to_string(), "write --label KEY=VALUE once for each").into())
    }

    /// Where a tunnel is only served, it keeps the labels that it has; the reference calls a connector by such a flag.
    pub(super) fn warn_of_labels(&self) {
        if !self.label.is_empty() {
            tracing::warn!("--label has no effect here; `snicket api PATCH` changes those of a tunnel that is there");
        }
    }

    /// The names of those flags that were given and change nothing. Those that nobody would miss are left out.
    pub(crate) fn without_effect(&self) -> Vec<&'static str> {
        let Self { unused, .. } = self;
        let all = [
            ("--quic-disable-pmtu-discovery", unused.quic_disable_pmtu_discovery.is_some()),
            ("--quic-connection-level-flow-control-limit", unused.quic_connection_level_flow_control_limit.is_some()),
            ("--quic-stream-level-flow-control-limit", unused.quic_stream_level_flow_control_limit.is_some()),
            ("--write-stream-timeout", unused.write_stream_timeout.is_some()),
            ("--region", unused.region.is_some()),
            ("--transport-loglevel", unused.transport_loglevel.is_some()),
            ("--log-directory", unused.log_directory.is_some()),
            ("--icmpv4-src", unused.icmpv4_src.is_some()),
            ("--icmpv6-src", unused.icmpv6_src.is_some()),
            ("--management-hostname", unused.management_hostname.is_some()),
            ("--management-diagnostics", unused.management_diagnostics.is_some()),
        ];
        all.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;

    #[test]
    fn the_page_on_named_tunnels_lists_the_flags() {
        let page = include_str!("../../../../../docs/named-tunnels.md");
        let command = Flags::augment_args(clap::Command::new("tunnel"));
        let unused = Unused::augment_args(clap::Command::new("unused"));
        let without_effect: Vec<&str> = unused.get_arguments().filter_map(clap::Arg::get_long).collect();
        for argument in command.get_arguments() {
            let flag = argument.get_long().expect("all are long flags");
            if without_effect.contains(&flag) {
                continue;
            }
            assert!(
                page.contains(&format!("`--{flag}`")) || page.contains(&format!("`--{flag} ")),
                "--{flag} is not on the page"
            );
            if let Some(variable) = argument.get_env().and_then(|name| name.to_str()) {
                assert!(page.contains(&format!("`{variable}`")), "{variable} is not on the page");
            }
        }
    }
}
