//! What calls are about, so that they come further than to a thing that is not there.

use harness::Edge;
use serde_json::{Value, json};

/// By the names that parts of paths have.
const ALL: [&str; 8] = ["account", "zone", "tunnel", "token", "monitor", "pool", "balancer", "record"];

/// One thing of each kind to be looked at and changed, and one to be removed.
pub(crate) struct Subjects {
    kept: Vec<String>,
    removed: Vec<String>,
    /// Of lists whose items have no name of their own: the path, and one to keep and one to remove, each with the rule that it
    /// may have.
    items: Vec<(&'static str, [(String, String); 2])>,
    groups: Value,
}

impl Subjects {
    /// Makes them.
    pub(crate) async fn make(edge: &Edge) -> Self {
        let account = id(&call(edge, "GET", "/accounts", None).await[0]);
        let zone = id(&call(edge, "GET", "/zones", None).await[0]);
        let groups = call(edge, "GET", "/user/tokens/permission_groups", None).await;
        let groups: Value =
            groups.as_array().expect("a list").iter().map(|group| json!({ "id": group["id"] })).collect();
        let mut of_kind = [Vec::new(), Vec::new()];
        for (number, ids) in of_kind.iter_mut().enumerate() {
            let tunnels = format!("/accounts/{account}/cfd_tunnel");
            let tunnel = made(edge, &tunnels, json!({ "name": format!("subject {number}") })).await;
            let token = made(edge, "/user/tokens", token(&account, &groups)).await;
            let balance = format!("/accounts/{account}/load_balancers");
            let monitor = made(edge, &format!("{balance}/monitors"), json!({})).await;
            let new = json!({ "name": format!("pool-{number}"), "origins": [{ "address": "192.0.2.1" }] });
            let pool = made(edge, &format!("{balance}/pools"), new).await;
            let of_zone = format!("/zones/{zone}");
            let new =
                json!({ "name": format!("lb{number}.localhost"), "default_pools": [pool], "fallback_pool": pool });
            let balancer = made(edge, &format!("{of_zone}/load_balancers"), new).await;
            let new = json!({ "type": "A", "name": format!("a{number}"), "content": "192.0.2.1" });
            let record = made(edge, &format!("{of_zone}/dns_records"), new).await;
            *ids = vec![account.clone(), zone.clone(), tunnel, token, monitor, pool, balancer, record];
        }
        let [kept, removed] = of_kind;
        let tunnel = &kept[2];
        let rule = json!({ "action": "block", "expression": "true" });
        let mut items = Vec::new();
        for (path, new) in [
            (
                "/zones/{zone}/spectrum/apps",
                json!({ "dns": { "name": "NAME.localhost" }, "protocol": "tcp/22",
                "origin_direct": ["tcp://192.0.2.1:22"] }),
            ),
            (
                "/zones/{zone}/rate_limits",
                json!({ "threshold": 1, "period": 60,
                "action": { "mode": "ban", "timeout": 60 } }),
            ),
            ("/zones/{zone}/custom_hostnames", json!({ "hostname": "NAME.example.test" })),
            ("/accounts/{account}/teamnet/virtual_networks", json!({ "name": "NAME" })),
            (
                "/accounts/{account}/secondary_dns/tsigs",
                json!({ "name": "NAME.test", "algo": "hmac-sha256", "secret": "AAECAwQFBgcICQoLDA0ODw==" }),
            ),
            ("/accounts/{account}/secondary_dns/peers", json!({ "name": "NAME", "ip": "192.0.2.1" })),
            ("/accounts/{account}/secondary_dns/acls", json!({ "name": "NAME", "ip_range": "192.0.2.0/24" })),
            ("/accounts/{account}/teamnet/routes", json!({ "network": "10.NUMBER.0.0/16", "tunnel_id": tunnel })),
            (
                "/accounts/{account}/rulesets",
                json!({ "name": "NAME", "kind": "custom",
                "phase": "http_request_firewall_custom", "rules": [rule] }),
            ),
            (
                "/zones/{zone}/rulesets",
                json!({ "name": "NAME", "kind": "zone", "phase": "PHASE",
                    "rules": [{ "action": "ACTION", "expression": "true" }] }),
            ),
        ] {
            let place = path.replace("{zone}", &zone).replace("{account}", &account);
            let mut ids = [const { (String::new(), String::new()) }; 2];
            // Of a phase a zone has one ruleset only.
            let phases = [("http_request_firewall_custom", "block"), ("http_request_origin", "route")];
            for ((number, ids), (phase, action)) in ids.iter_mut().enumerate().zip(phases) {
                let new = new.to_string().replace("NAME", &format!("n{number}")).replace("NUMBER", &number.to_string());
                let new =
                    serde_json::from_str(&new.replace("PHASE", phase).replace("ACTION", action)).expect("it was JSON");
                let item = call(edge, "POST", &place, Some(new)).await;
                *ids = (id(&item), item["rules"][0]["id"].as_str().unwrap_or("none").to_owned());
            }
            items.push((path, ids));
        }
        Self { kept, removed, items, groups }
    }

    /// The secret of a new token that may do everything.
    pub(crate) async fn token(&self, edge: &Edge) -> String {
        let new = call(edge, "POST", "/user/tokens", Some(token(&self.kept[0], &self.groups))).await;
        new["value"].as_str().expect("a secret").to_owned()
    }

    /// What the fuzzer is told of them. Of several that fit an operation, what the first says goes.
    pub(crate) fn settings(&self) -> String {
        let mut settings = format!("[parameters]\n{}", parameters(&self.kept));
        let mut tell = |pattern: &str, ids: &[String], more: &str| {
            let operations = format!("\n[[operations]]\ninclude-name-regex = '{pattern}'\n[operations.parameters]\n");
            settings.extend([&operations, &parameters(ids), more]);
        };
        for (path, items) in &self.items {
            let path = path.replace(['{', '}'], ".");
            for ((method, ids), (item, rule)) in
                [("(?!DELETE)[A-Z]+", &self.kept), ("DELETE", &self.removed)].iter().zip(items)
            {
                let more = format!("\"path.item\" = \"{item}\"\n\"path.rule\" = \"{rule}\"\n");
                tell(&format!("^{method} /client/v4{path}/"), ids, &more);
            }
        }
        tell("^DELETE ", &self.removed, "");
        settings
    }

    /// A path with ids in it.
    pub(crate) fn filled(&self, path: &str) -> String {
        let parts = path.split('/').map(|part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) => ALL.iter().position(|known| *known == name).map_or("1", |index| &self.kept[index]),
            None => part,
        });
        parts.collect::<Vec<_>>().join("/")
    }
}

fn parameters(ids: &[String]) -> String {
    ALL.iter().zip(ids).map(|(name, id)| format!("\"path.{name}\" = \"{id}\"\n")).collect()
}

/// What a new token is to be.
fn token(account: &str, groups: &Value) -> Value {
    let resources = json!({ format!("com.cloudflare.api.account.{account}"): "*" });
    json!({ "name": "a token", "policies": [{ "effect": "allow", "resources": resources, "permission_groups": groups }] })
}

async fn made(edge: &Edge, path: &str, new: Value) -> String {
    id(&call(edge, "POST", path, Some(new)).await)
}

fn id(made: &Value) -> String {
    made["id"].as_str().expect("it has an id").to_owned()
}

async fn call(edge: &Edge, method: &str, path: &str, body: Option<Value>) -> Value {
    let (status, answer) = edge.call(method, &format!("/client/v4{path}"), body).await;
    assert_eq!(status, 200, "{method} {path}: {answer}");
    answer["result"].clone()
}
