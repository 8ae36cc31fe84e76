//! Monitors, pools and load balancers, described.

use registry::{LabelSteering, LabelWord, LoadBalancerTerms, MonitorTerms, PoolTerms, REGIONS, Rule, Steering};
use serde_json::{Value, json};

use crate::openapi::schema::{
    Schema, any_of, flag, fraction, hostname, id, labels, list, map, may, must, object, one_of, text, time, usual,
    uuid, whole,
};

/// Of what people write for people.
const DESCRIPTION_CHARS: usize = 1000;
const POLICIES: [&str; 8] =
    ["", "off", "geo", "random", "dynamic_latency", "proximity", "least_outstanding_requests", "least_connections"];
/// Of sessions, in seconds.
const SESSION: (u64, u64) = (30, 604_800);

/// How origins are asked for their health.
pub(crate) fn monitor() -> Schema {
    let interval = || whole(1, MonitorTerms::MAX_INTERVAL.into());
    let in_a_row = || whole(0, MonitorTerms::MAX_CONSECUTIVE.into());
    object([
        usual("type", one_of(&["http", "https", "tcp", "udp_icmp", "icmp_ping", "smtp", "grpc", "grpcs"]), "http"),
        usual("method", text(), "").about("GET, HEAD or OPTIONS, for http and https"),
        usual("path", text().most(MonitorTerms::MAX_PATH_BYTES), "")
            .about("For http and https; for grpc and grpcs the service"),
        usual("port", whole(0, 65_535), 0).about("0 is the usual one"),
        usual("header", map(list(text()).least(1).most(MonitorTerms::MAX_HEADERS)), json!({})),
        usual("expected_codes", text(), "").about("Such as 200, 2xx, 200-299 or 200,302"),
        usual("expected_body", text().most(MonitorTerms::MAX_BODY_CHARS), ""),
        usual("interval", interval(), 60).about("Seconds; at least timeout × (retries + 1)"),
        usual("timeout", interval(), 5).about("Seconds"),
        usual("retries", whole(0, MonitorTerms::MAX_RETRIES.into()), 2),
        usual("consecutive_up", in_a_row(), 0),
        usual("consecutive_down", in_a_row(), 0),
        usual("follow_redirects", flag(), false),
        usual("allow_insecure", flag(), false),
        usual("probe_zone", text(), ""),
        usual("description", text().most(DESCRIPTION_CHARS), ""),
    ])
    .named("Monitor")
}

/// A monitor as it is shown.
pub(crate) fn shown_monitor() -> Schema {
    monitor().with([must("id", id()), must("created_on", time()), must("modified_on", time())])
}

/// Origins that serve the same.
pub(crate) fn pool() -> Schema {
    let degrees = |most: f64| fraction(-most, most).or_null();
    let percent = || fraction(0.0, 100.0);
    let shedding = object([
        usual("default_percent", percent(), 0.0),
        usual("default_policy", one_of(&["random", "hash"]), "random"),
        usual("session_percent", percent(), 0.0),
        usual("session_policy", one_of(&["hash"]), "hash"),
    ]);
    let choice = one_of(&["random", "hash", "least_outstanding_requests", "least_connections"]);
    let notices = || object([usual("disable", flag(), false), may("healthy", flag())]).or_null();
    let regions = one_of(&REGIONS.map(|(code, _)| code));
    object([
        must("name", text().least(1).most(PoolTerms::MAX_NAME_CHARS)).about("Letters, digits, - and _"),
        must("origins", list(origin()).most(PoolTerms::MAX_ORIGINS)),
        usual("enabled", flag(), true),
        usual("minimum_origins", whole(1, PoolTerms::MAX_ORIGINS as u64), 1),
        usual("monitor", any_of([id(), one_of(&[""])]).or_null(), Value::Null),
        usual("monitor_group", text().most(DESCRIPTION_CHARS).or_null(), Value::Null),
        usual("check_regions", list(regions).or_null(), Value::Null),
        usual("latitude", degrees(90.0), Value::Null),
        usual("longitude", degrees(180.0), Value::Null),
        usual("load_shedding", shedding, json!({})),
        usual("origin_steering", object([usual("policy", choice, "random")]), json!({})),
        may("label_steering", label_steering()),
        usual("notification_email", text().most(PoolTerms::MAX_EMAIL_CHARS), ""),
        usual("notification_filter", object([may("origin", notices()), may("pool", notices())]).or_null(), Value::Null),
        usual("description", text().most(DESCRIPTION_CHARS), ""),
    ])
    .named("Pool")
}

fn label_steering() -> Schema {
    let weights = map(fraction(0.0, LabelSteering::MAX_WEIGHT));
    object([
        must("key", text().least(1).most(LabelWord::MAX_CHARS)),
        must("weights", weights)
            .about("By values of the label; members with none of these are for when nobody else is well"),
        may("disabled_at", map(time())).about("Since when values have the weight 0; passed over where it is sent in"),
    ])
    .named("LabelSteering")
}

/// One place that serves.
pub(crate) fn origin() -> Schema {
    let header = object([may("Host", list(hostname()).most(1))]);
    object([
        usual("name", text().most(PoolTerms::MAX_NAME_CHARS), ""),
        must("address", text().least(1)).about("An IP address or a host name"),
        usual("port", whole(0, 65_535), 0).about("0 is that of the protocol"),
        usual("weight", fraction(0.0, 1.0), 1.0),
        usual("enabled", flag(), true),
        may("disabled_at", time()).about("Since when it is disabled; passed over where it is sent in"),
        usual("header", header, json!({})),
        usual("virtual_network_id", uuid().or_null(), Value::Null),
        usual("flatten_cname", flag(), false),
        may("labels", labels()).about("Before those of its tunnel"),
    ])
    .named("PoolOrigin")
}

/// A pool as it is shown.
pub(crate) fn shown_pool() -> Schema {
    let healthy = must("healthy", flag()).about("As far as is known; of a pool without a monitor, by its tunnels");
    pool().with([
        must("id", id()),
        healthy,
        must("created_on", time()),
        must("modified_on", time()),
        may("disabled_at", time()),
    ])
}

/// A name whose visitors are led to pools.
pub(crate) fn load_balancer() -> Schema {
    let response = object([
        may("status_code", whole(200, 599)),
        usual("content_type", text(), ""),
        usual("location", text(), ""),
        usual("message_body", text().most(Rule::MAX_MESSAGE_CHARS), ""),
    ]);
    let rule = object([
        must("name", text().least(1).most(Rule::MAX_NAME_CHARS)),
        usual("condition", text().most(Rule::MAX_CONDITION_CHARS), ""),
        may("priority", whole(0, u32::MAX.into())),
        usual("disabled", flag(), false),
        usual("terminates", flag(), false),
        usual("overrides", overrides(), json!({})),
        may("fixed_response", response),
    ]);
    steering()
        .with([
            must("name", hostname()),
            usual("description", text().most(DESCRIPTION_CHARS), ""),
            usual("enabled", flag(), true),
            usual("proxied", flag(), false),
            // Where it is proxied nobody looks at it.
            may("ttl", whole(0, u32::MAX.into())).about("Seconds, 1 to 86400; for those that are not proxied"),
            usual("rules", list(rule.named("LoadBalancerRule")).most(LoadBalancerTerms::MAX_RULES), json!([])),
            may("networks", list(text()).most(LoadBalancerTerms::MAX_NETWORKS)),
        ])
        .named("LoadBalancer")
}

/// A load balancer as it is shown.
pub(crate) fn shown_load_balancer() -> Schema {
    load_balancer().with([
        must("id", id()),
        must("zone_id", id()),
        must("zone_name", text()),
        must("created_on", time()),
        must("modified_on", time()),
    ])
}

fn pools() -> Schema {
    list(id()).least(1).most(Steering::MAX_POOLS)
}

fn affinity() -> Schema {
    one_of(&["", "none", "cookie", "ip_cookie", "header"])
}

fn steering() -> Schema {
    object([
        must("default_pools", pools()),
        must("fallback_pool", id()),
        usual("steering_policy", one_of(&POLICIES), ""),
        usual("region_pools", map(pools()), json!({})),
        usual("country_pools", map(pools()), json!({})),
        usual("pop_pools", map(pools()), json!({})),
        usual("session_affinity", affinity(), "none"),
        may("session_affinity_ttl", whole(SESSION.0, SESSION.1)),
        usual("session_affinity_attributes", affinity_attributes(), json!({})),
        usual("random_steering", random_steering(), json!({})),
        usual("adaptive_routing", adaptive_routing(), json!({})),
        usual("location_strategy", location_strategy(), json!({})),
    ])
}

/// The same as far as some visitors are concerned.
fn overrides() -> Schema {
    object([
        may("ttl", whole(1, LoadBalancerTerms::MAX_TTL.into())),
        may("default_pools", pools()),
        may("fallback_pool", id()),
        may("steering_policy", one_of(&POLICIES)),
        may("region_pools", map(pools())),
        may("country_pools", map(pools())),
        may("pop_pools", map(pools())),
        may("session_affinity", affinity()),
        may("session_affinity_ttl", whole(SESSION.0, SESSION.1)),
        may("session_affinity_attributes", affinity_attributes()),
        may("random_steering", random_steering()),
        may("adaptive_routing", adaptive_routing()),
        may("location_strategy", location_strategy()),
    ])
}

fn affinity_attributes() -> Schema {
    object([
        usual("samesite", one_of(&["Auto", "Lax", "None", "Strict"]), "Auto"),
        usual("secure", one_of(&["Auto", "Always", "Never"]), "Auto"),
        may("drain_duration", whole(0, Steering::MAX_DRAIN.into())),
        usual("zero_downtime_failover", one_of(&["none", "temporary", "sticky"]), "none"),
        may("headers", list(text().least(1)).most(Steering::MAX_HEADERS)),
        usual("require_all_headers", flag(), false),
    ])
    .named("SessionAffinity")
}

fn random_steering() -> Schema {
    let weight = || fraction(0.0, 1.0);
    object([usual("default_weight", weight(), 1.0), usual("pool_weights", map(weight()), json!({}))])
}

fn adaptive_routing() -> Schema {
    object([usual("failover_across_pools", flag(), false)])
}

fn location_strategy() -> Schema {
    object([
        usual("mode", one_of(&["pop", "resolver_ip"]), "pop"),
        usual("prefer_ecs", one_of(&["always", "never", "proximity", "geo"]), "proximity"),
    ])
}

/// How something refers to another one.
pub(crate) fn reference() -> Schema {
    object([
        must("reference_type", one_of(&["referrer", "referral"])),
        must("resource_id", id()),
        must("resource_name", text()),
        must("resource_type", one_of(&["monitor", "pool", "load_balancer"])),
    ])
    .named("Reference")
}

/// What a search finds.
pub(crate) fn found() -> Schema {
    let resource = object([
        must("resource_id", id()),
        must("resource_name", text()),
        must("resource_type", one_of(&["monitor", "pool", "load_balancer"])),
        must("references", list(reference())),
    ]);
    let resource = resource.named("FoundResource");
    object([
        must("resources", list(resource.clone())),
        must("items", list(object([must("resources", list(resource))])).most(1)),
    ])
}

/// Parts of the world.
pub(crate) fn regions() -> Schema {
    let state = object([must("subdivision_code_a2", text())]);
    let states = may("country_subdivisions", list(state)).about("Those that lie there, if not all do");
    let country = object([must("country_code_a2", text()), states]);
    let region = object([
        must("region_code", one_of(&REGIONS.map(|(code, _)| code))),
        must("region_name", text()),
        must("countries", list(country)),
    ]);
    object([must("regions", list(region))])
}

/// What all pools have in common.
pub(crate) fn of_all_pools() -> Schema {
    object([must("notification_email", text().most(PoolTerms::MAX_EMAIL_CHARS).or_null())])
}

/// What is known of a pool's health.
pub(crate) fn health() -> Schema {
    object([must("pool_id", id()), must("pop_health", map(found_health()))])
}

/// A preview that was begun.
pub(crate) fn preview_begun() -> Schema {
    object([must("preview_id", id()), must("pools", map(text()))])
}

/// What a preview found, by pool.
pub(crate) fn preview_found() -> Schema {
    map(found_health())
}

fn found_health() -> Schema {
    let origin = object([
        must("healthy", flag()),
        may("rtt", text()).about("Such as 12ms"),
        must("failure_reason", text()),
        may("response_code", whole(100, 999)),
        may("link", one_of(&["up", "down"])).about("Whether its tunnel has a connection"),
        must("probe", one_of(&["up", "down", "unknown"])).about("Whether it answers as its monitor wants"),
        may("since", time()).about("Since when it is, or is not, healthy"),
    ]);
    object([must("healthy", flag()), must("origins", list(map(origin.named("OriginHealth"))))]).named("PopHealth")
}
