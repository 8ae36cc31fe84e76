use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use config::Mapping;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Field, Overrides, Rule, RuleDraft, RuleError, Rules};

/// A whole configuration: rules, and limits for private networks.
#[derive(Debug, Clone)]
pub struct Document {
    /// The rules.
    pub rules: Rules,
    /// `warp-routing`.
    pub warp_routing: WarpRouting,
}

/// Whether streams and flows to private addresses are served, and within which limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarpRouting {
    /// They are served. The reference has made this key historic and serves them always; here somebody has to want it, since
    /// it opens to the edge whatever the agent's machine reaches.
    pub enabled: bool,
    /// Limit for the connect.
    pub connect_timeout: Duration,
    /// Flows at once; zero is no limit.
    pub max_active_flows: u64,
    /// Time between keep-alive probes.
    pub tcp_keep_alive: Duration,
}

impl Default for WarpRouting {
    /// The defaults of the reference, but for `enabled`.
    fn default() -> Self {
        Self {
            enabled: false,
            connect_timeout: Duration::from_secs(5),
            max_active_flows: 0,
            tcp_keep_alive: Duration::from_secs(30),
        }
    }
}

/// Why a pushed document is not applied.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or not of the form of section 11.1.
    #[error("the configuration is not understood: {0}")]
    Json(#[from] serde_json::Error),
    /// Rules that cannot be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Rules(Vec<RuleError>),
}

/// The document as it travels; keys that are not known are passed over, as the reference does.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Pushed {
    #[serde(default)]
    ingress: Option<Vec<PushedRule>>,
    #[serde(default, rename = "originRequest")]
    origin_request: Option<Overrides>,
    #[serde(default)]
    warp_routing: Option<PushedWarpRouting>,
}

#[derive(Deserialize)]
struct PushedRule {
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    service: Option<String>,
    #[serde(default, rename = "originRequest")]
    origin_request: Option<Overrides>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct PushedWarpRouting {
    #[serde(default)]
    enabled: bool,
    #[serde(default)]
    connect_timeout: Option<u64>,
    #[serde(default)]
    max_active_flows: Option<u64>,
    #[serde(default)]
    tcp_keep_alive: Option<u64>,
}

impl Document {
    /// Reads a pushed document (section 11.1).
    ///
    /// # Errors
    /// See [`DocumentError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, DocumentError> {
        // A list would be read as the fields in order.
        if bytes.trim_ascii_start().first() == Some(&b'[') {
            return Err(DocumentError::Json(serde::de::Error::custom("found a list, expected an object")));
        }
        let pushed: Pushed = serde_json::from_slice(bytes)?;
        let drafts: Vec<RuleDraft> = pushed
            .ingress
            .unwrap_or_default()
            .into_iter()
            .map(|rule| RuleDraft {
                hostname: rule.hostname,
                path: rule.path,
                service: rule.service,
                overrides: rule.origin_request.unwrap_or_default(),
            })
            .collect();
        let defaults = pushed.origin_request.unwrap_or_default();
        let routing = pushed.warp_routing.unwrap_or_default();
        let usual = WarpRouting::default();
        Ok(Self {
            rules: Rules::build(&drafts, &defaults).map_err(DocumentError::Rules)?,
            warp_routing: WarpRouting {
                enabled: routing.enabled,
                connect_timeout: routing.connect_timeout.map_or(usual.connect_timeout, Duration::from_secs),
                max_active_flows: routing.max_active_flows.unwrap_or_default(),
                tcp_keep_alive: routing.tcp_keep_alive.map_or(usual.tcp_keep_alive, Duration::from_secs),
            },
        })
    }

    /// Reads `ingress`, `originRequest` and `warp-routing` of a file. `None` when there is no `ingress`, or when a
    /// mistake was found (it is then recorded in the mapping). The overrides are the file's `originRequest`.
    pub fn read(file: &mut Mapping<'_>) -> (Option<Self>, Overrides) {
        let defaults = file.mapping("originRequest", Overrides::read).unwrap_or_default();
        let warp_routing = file.mapping("warp-routing", WarpRouting::read).unwrap_or_default();
        let drafts = file.mappings("ingress", |rule| {
            let draft = RuleDraft {
                hostname: rule.optional("hostname"),
                path: rule.optional("path"),
                service: rule.optional("service"),
                overrides: rule.mapping("originRequest", Overrides::read).unwrap_or_default(),
            };
            let positions = ["hostname", "path", "service", "originRequest"].map(|key| rule.position_of(key));
            (draft, rule.position(), positions)
        });
        let Some(drafts) = drafts else { return (None, defaults) };
        let plain: Vec<RuleDraft> = drafts.iter().map(|(draft, ..)| draft.clone()).collect();
        match Rules::build(&plain, &defaults) {
            Ok(rules) => (Some(Self { rules, warp_routing }), defaults),
            Err(errors) => {
                for RuleError { index, field, reason } in errors {
                    let (_, whole, [hostname, path, service, options]) = &drafts[index];
                    let position = match field {
                        Field::Rule => whole,
                        Field::Hostname => hostname,
                        Field::Path => path,
                        Field::Service => service,
                        Field::OriginRequest => options,
                    };
                    file.refuse_at(*position, reason);
                }
                (None, defaults)
            }
        }
    }

    /// What the agent reports of its own configuration (section 11.3): defaults left out, options folded into each
    /// rule.
    pub fn report(&self, flags: &BTreeMap<String, String>) -> Bytes {
        let ingress: Vec<Value> = self.rules.iter().map(|rule| rule_json(rule, &rule.options.changed())).collect();
        let mut report = json!({ "ingress": ingress, "warp-routing": self.warp_routing_json() });
        if !flags.is_empty() {
            report["__configuration_flags"] = json!(flags);
        }
        Bytes::from(report.to_string())
    }

    /// Everything with all defaults, for the endpoint `/config`.
    pub(crate) fn spelled_out(&self, version: i32) -> Value {
        let spelled_out = |rule: &Rule| {
            let mut json = rule_json(rule, &rule.options.spelled_out());
            // As the reference shows a rule that names neither.
            for (key, nothing) in [("hostname", json!("")), ("path", Value::Null)] {
                if json.get(key).is_none() {
                    json[key] = nothing;
                }
            }
            json
        };
        json!({
            "version": version,
            "config": {
                "ingress": self.rules.iter().map(spelled_out).collect::<Vec<Value>>(),
                "warp-routing": self.warp_routing_json(),
                "originRequest": self.rules.defaults.spelled_out(),
            },
        })
    }

    fn warp_routing_json(&self) -> Value {
        let WarpRouting { enabled, connect_timeout, max_active_flows, tcp_keep_alive } = &self.warp_routing;
        let mut routing =
            json!({ "connectTimeout": connect_timeout.as_secs(), "tcpKeepAlive": tcp_keep_alive.as_secs() });
        if *enabled {
            routing["enabled"] = json!(true);
        }
        if *max_active_flows > 0 {
            routing["maxActiveFlows"] = json!(max_active_flows);
        }
        routing
    }
}

impl From<Rules> for Document {
    fn from(rules: Rules) -> Self {
        Self { rules, warp_routing: WarpRouting::default() }
    }
}

impl WarpRouting {
    fn read(map: &mut Mapping<'_>) -> Self {
        let usual = Self::default();
        Self {
            enabled: map.or("enabled", usual.enabled),
            connect_timeout: map.or("connectTimeout", usual.connect_timeout),
            max_active_flows: map.or("maxActiveFlows", usual.max_active_flows),
            tcp_keep_alive: map.or("tcpKeepAlive", usual.tcp_keep_alive),
        }
    }
}

fn rule_json(rule: &Rule, options: &Overrides) -> Value {
    let mut json = json!({ "service": rule.service.to_string(), "originRequest": options });
    if let Some(hostname) = &rule.hostname {
        json["hostname"] = json!(hostname.to_string());
    }
    if let Some(path) = &rule.path {
        json["path"] = json!(path.to_string());
    }
    json
}
