use crate::openapi::schema::{
    Schema, anything, count, flag, hostname, id, integer, labels, like, list, may, must, object, one_of, text, time,
    uuid,
};
use crate::openapi::{About, Routes, delete, get, patch, post, put};
use crate::tunnel::{self, configuration, connection, document, route};

pub(super) fn routes() -> Routes {
    const PATH: &str = "/accounts/{account}/cfd_tunnel";
    let one = |rest: &str| format!("{PATH}/{{tunnel}}{rest}");
    Routes::new()
        .at("/accounts/{account}/tunnels", [get("List tunnels", tunnel::list, filters)])
        .at(
            PATH,
            [
                get("List tunnels", tunnel::list, filters),
                post("Make a tunnel", tunnel::create, |it| it.takes(new()).answers(created()).fails([409])),
            ],
        )
        .at(
            &one(""),
            [
                get("Show a tunnel", tunnel::one, |it| it.answers(shown())),
                patch("Change a tunnel", tunnel::change, |it| it.takes(change()).answers(shown()).fails([409])),
                delete("Delete a tunnel", tunnel::delete, |it| {
                    it.query("cascade", flag(), "Also if it has connections").answers(shown())
                }),
            ],
        )
        .at(&one("/token"), [get("Show what an agent needs to serve a tunnel", tunnel::token, |it| it.answers(text()))])
        .at(
            &one("/management"),
            [post("Ask for a token to manage agents by: none is given", tunnel::management, refuses)],
        )
        .at(
            &one("/management/{resource}"),
            [post("Ask for a token to manage agents by: none is given", tunnel::management, refuses)],
        )
        .at(
            &one("/connections"),
            [
                get("List a tunnel's connectors", connection::list, |it| of_connector(it).answers(list(connector()))),
                delete("Close a tunnel's connections", connection::close, |it| of_connector(it).answers(object([]))),
            ],
        )
        .at(
            &one("/connectors/{connector}"),
            [get("Show a connector", connection::connector, |it| it.answers(connector()))],
        )
        .at(
            &one("/configurations"),
            [
                get("Show what a tunnel's agents do with requests", configuration::one, |it| it.answers(configured())),
                put("Say what they do", configuration::put, |it| {
                    it.takes(object([must("config", config())])).if_match().answers(configured())
                }),
            ],
        )
        .at(
            "/zones/{zone}/tunnels/{tunnel}/routes",
            [
                put("Lead a name to a tunnel, or to a pool with the tunnel in it", route::put, |it| {
                    it.takes(route_wanted()).answers(route_written())
                }),
                delete("Take a tunnel out of a pool that nobody else serves", route::delete, |it| {
                    it.takes(object([must("lb_pool", text()), may("connector_id", uuid())]))
                        .answers(object([must("pool", written())]))
                }),
            ],
        )
        .tagged("Tunnels")
}

fn filters(list: About) -> About {
    let texts = ["name", "name_prefix", "include_prefix", "exclude_prefix"];
    let list = texts.into_iter().fold(list, |list, name| list.query(name, text(), "Of these names"));
    list.query("is_deleted", flag(), "Only those that are, or are not")
        .query("uuid", uuid(), "The tunnel of this id")
        .query("existed_at", time(), "That were there")
        .query("was_active_at", time(), "That were connected")
        .query("was_inactive_at", time(), "That were not connected")
        .query("status", text(), "inactive, down, degraded or healthy")
        .answers_page_of(shown())
}

fn refuses(about: About) -> About {
    about.fails([422])
}

fn of_connector(about: About) -> About {
    about.query("client_id", uuid(), "Of this connector")
}

fn name() -> Schema {
    text().least(1).most(registry::TunnelName::MAX_CHARS)
}

fn secret() -> Schema {
    like("^[A-Za-z0-9+/]+={0,2}$").about("32 bytes at least, in base64")
}

fn source() -> Schema {
    one_of(&["local", "cloudflare"])
}

fn new() -> Schema {
    object([must("name", name()), may("tunnel_secret", secret()), may("config_src", source()), may("labels", labels())])
        .named("NewTunnel")
}

fn change() -> Schema {
    object([may("name", name()), may("tunnel_secret", secret()), may("labels", labels())]).named("Tunnel")
}

fn shown() -> Schema {
    object([
        must("id", uuid()),
        must("account_tag", id()),
        must("name", text()),
        must("created_at", time()),
        must("deleted_at", time().or_null()),
        must("status", one_of(&["inactive", "down", "degraded", "healthy"])),
        must("connections", list(shown_connection())),
        must("conns_active_at", time().or_null()),
        must("conns_inactive_at", time().or_null()),
        must("tun_type", one_of(&["cfd_tunnel"])),
        must("remote_config", flag()),
        must("config_src", source()),
        must("metadata", object([])),
        must("labels", labels()),
    ])
    .named("Tunnel")
}

fn created() -> Schema {
    let file = ["AccountTag", "TunnelID", "TunnelName", "TunnelSecret"].map(|name| must(name, text()));
    shown().with([must("token", text()), must("credentials_file", object(file))]).named("NewTunnel")
}

fn shown_connection() -> Schema {
    object([
        must("id", uuid()),
        must("uuid", uuid()),
        must("client_id", uuid()),
        must("client_version", text()),
        must("colo_name", text()),
        must("origin_ip", text()),
        must("opened_at", time()),
        must("is_pending_reconnect", flag()),
    ])
    .named("Connection")
}

fn connector() -> Schema {
    object([
        must("id", uuid()),
        must("arch", text()),
        must("version", text()),
        must("features", list(text())),
        must("run_at", time()),
        must("config_version", Schema::from(serde_json::json!({ "type": ["integer", "null"] }))),
        must("conns", list(shown_connection())),
    ])
    .named("Connector")
}

fn configured() -> Schema {
    object([
        must("tunnel_id", uuid()),
        must("version", count()),
        must("config", anything()),
        must("source", source()),
        must("created_at", time()),
        must("account_id", id()),
    ])
    .named("Configuration")
}

/// A configuration, as far as it is checked.
fn config() -> Schema {
    object([
        may("ingress", list(rule()).most(document::MAX_RULES)),
        may("originRequest", origin_request()),
        may("warp-routing", object([])),
    ])
    .named("Config")
}

/// What is done with some of the requests.
pub(super) fn rule() -> Schema {
    object([
        may("hostname", text()),
        may("path", text().about("A regular expression")),
        must("service", text().least(1).about("Such as http://localhost:8080")),
        may("originRequest", origin_request()),
    ])
    .named("IngressRule")
}

fn origin_request() -> Schema {
    let port = || integer(0, 65_535);
    let mut settings = object([
        may("keepAliveConnections", count()),
        may("proxyPort", port()),
        may(
            "ipRules",
            list(object([
                may("prefix", text()),
                may("ports", list(port())).not_null(),
                may("allow", flag()).not_null(),
            ])),
        ),
        may("access", object([])),
    ]);
    for name in document::DURATIONS {
        settings = settings.with([may(name, count().about("Seconds"))]);
    }
    for name in document::SWITCHES {
        settings = settings.with([may(name, flag())]);
    }
    for name in document::TEXTS {
        settings = settings.with([may(name, text())]);
    }
    settings.named("OriginRequest")
}

fn route_wanted() -> Schema {
    object([
        must("type", one_of(&["dns", "lb"])),
        may("user_hostname", hostname()),
        may("overwrite_existing", flag()).not_null(),
        may("lb_name", hostname()),
        may("lb_pool", text()),
    ])
    .named("TunnelRoute")
}

fn route_written() -> Schema {
    object([
        may("cname", written()),
        may("load_balancer", written()),
        may("pool", written()),
        must("name", hostname()),
        may("dns_tag", text()),
    ])
}

fn written() -> Schema {
    one_of(&["new", "updated", "unchanged"])
}
