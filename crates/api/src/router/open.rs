use axum::routing::MethodRouter;

use super::own::{access_rules, port_options, port_wish, protocol, shown_access};
use super::{BASE, OWN, no_path};
use crate::openapi::schema::{Schema, count, flag, hostname, id, integer, list, may, must, object, text, usual, uuid};
use crate::openapi::{Routes, elsewhere, get, post, show};
use crate::{dashboard, join, login, node, quick, user};

/// What asks for no credentials, or for those of its own.
pub(super) fn routes() -> Routes {
    const HTML: &str = "text/html; charset=utf-8";
    Routes::new()
        .at(
            "/tunnel",
            [post("Make a quick tunnel. Whoever calls from elsewhere may have to show a token", quick::create, |it| {
                it.takes(wish()).answers(made()).fails([403, 409, 429, 500, 503])
            })],
        )
        .at(
            "/argotunnel",
            [
                get("Show the page on which a person gives an agent credentials", login::show, |it| {
                    it.query("callback", text(), "What the agent made up, in an address").answers_text(HTML, &[400])
                }),
                post("Take a token from that page", login::submit, |it| {
                    it.takes_content([("application/x-www-form-urlencoded", form())])
                        .answers_text(HTML, &[400, 403, 409])
                }),
            ],
        )
        .at(
            &format!("{BASE}/ips"),
            [get("List the addresses at which visitors come", user::ips, |it| it.answers(ips()))],
        )
        .at(&format!("{BASE}/openapi.json"), [get("Show this document", show, |it| it.answers_bare(document()))])
        .at(
            "/.well-known/snicket",
            [get("Show what an agent has to know to join the edge", node::facts, |it| it.answers_bare(facts()))],
        )
        .at(
            &format!("{OWN}/join"),
            [post("Become a node, with a key of an invitation", join::join, |it| {
                it.takes(object([must("key", text())])).answers(handover()).fails([403, 409, 429, 500, 503])
            })],
        )
        .at(
            "/ready",
            [get("Say whether the node is of use to agents and visitors", node::ready, |it| {
                it.answers_bare_even_at(ready(), &[503])
            })],
        )
        .at(
            "/metrics",
            [elsewhere("Show what is counted, for Prometheus", |it| it.answers_text("text/plain; version=0.0.4", &[]))],
        )
        .at(
            "/",
            [get("Show a page for people, if one is asked for", dashboard::show, |it| {
                it.answers_text(HTML, &[]).fails([404])
            })
            .serving(|page| page.fallback(no_path))],
        )
        .at(
            "/{key}",
            [get("Wait for the credentials of an agent that logs in", login::poll, |it| {
                it.answers_text("application/x-pem-file", &[]).fails([429])
            })
            // A poll takes what it finds, so asking only for the head must not count as one.
            .serving(|poll: MethodRouter<_>| poll.head(no_path))],
        )
        .tagged("Without a token")
}

/// This document itself.
fn document() -> Schema {
    let parts = ["info", "paths", "components"].map(|name| must(name, object([])));
    object(parts).with([must("openapi", text()), must("servers", list(object([])))])
}

/// Of a quick tunnel.
fn wish() -> Schema {
    object([
        may("name", text()).about("One label; absent, two random words"),
        may("secret", text()).about("The tunnel's secret, base64; with it, asking again for a name succeeds"),
        may("access", access_rules()),
        may("port", port_wish()),
        may("tls", port_options()).about("Visitors' TLS is left to the origin"),
    ])
    .named("QuickTunnel")
}

fn made() -> Schema {
    object([
        must("id", uuid()),
        must("name", text()),
        must("hostname", hostname()),
        must("account_tag", id()),
        must("secret", text()),
        must("url", text()),
        must("access", shown_access()),
        must("port", Schema::from(serde_json::json!({ "type": ["integer", "null"] }))),
        must("port_protocol", protocol().or_null()),
        must("tls", flag()),
    ])
    .named("QuickTunnel")
}

fn form() -> Schema {
    object([usual("key", text(), ""), usual("zone", text(), ""), usual("token", text(), "")])
}

fn ips() -> Schema {
    object([must("ipv4_cidrs", list(text())), must("ipv6_cidrs", list(text())), must("etag", text())])
}

fn facts() -> Schema {
    object([
        must("api", text()),
        must("tunnel", list(text())),
        must("domain", hostname()),
        must("https", text()),
        must("http", text()),
        must("ca", text().about("PEM")),
        must("origin_ca", text().or_null().about("PEM")),
        must("ports", list(integer(1, 65_535)).least(2).most(2).or_null()),
        must("version", text()),
        must("location", text()),
    ])
}

fn ready() -> Schema {
    object([must("status", text()), must("location", text()), must("revision", count())])
}

/// What makes a node, above all secrets.
fn handover() -> Schema {
    let some = || text().or_null();
    object([
        must("domain", text()),
        must("registry", text()),
        must("registry_ca", some()),
        must("registry_cert", some()),
        must("registry_key", some()),
        must("secrets_key", text()),
        must("ca", text()),
        must("ca_key", text()),
    ])
    .named("Handover")
}
