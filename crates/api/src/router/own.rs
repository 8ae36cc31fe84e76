use registry::LabelSteering;

use crate::balance::overview;
use crate::balance::schema::origin;
use crate::openapi::schema::{
    Schema, count, flag, fraction, hostname, id, integer, list, map, may, must, object, one_of, text, time, uuid, whole,
};
use crate::openapi::{Routes, delete, get, patch, post, put};
use crate::tunnel::rule;
use crate::zone::dnssec;
use crate::{access, authority, join, port, route, status};

use super::tunnels::rule as rule_schema;

fn shown_key() -> Schema {
    object([
        must("step", one_of(&["steady", "published", "announced", "recalled", "changed"])),
        must("since", time()),
        must("next_step_from", time().or_null()),
        must("key_tags", list(integer(0, 65_535)).about("The first one signs")),
        must("ds", text().about("What the delegation is to have")),
    ])
    .named("ZoneKeyChange")
}

pub(super) fn routes() -> Routes {
    Routes::new()
        .at(
            "/tunnels/{tunnel}/access",
            [
                get("Show who may visit a tunnel", access::one, |it| it.answers(shown_access())),
                put("Say who may visit a tunnel", access::put, |it| it.takes(access_rules()).answers(shown_access())),
                delete("Let everybody visit a tunnel", access::delete, |it| it.answers(shown_access())),
            ],
        )
        .at(
            "/tunnels/{tunnel}/rules",
            [
                get("List a tunnel's rules", rule::list, |it| it.answers(shown_rules())),
                put("Write one rule", rule::put, |it| it.takes(rule_schema()).if_match().answers(shown_rules())),
                delete("Remove one rule", rule::delete, |it| {
                    it.query("hostname", text(), "For this name; absent, for any")
                        .query("path", text(), "For these paths; absent, for any")
                        .if_match()
                        .answers(shown_rules())
                }),
            ],
        )
        .at(
            "/tunnels/{tunnel}/ports",
            [post("Give a tunnel a public port", port::add, |it| {
                it.takes(named_port()).answers(shown_port()).fails([409])
            })],
        )
        .at(
            "/tunnels/{tunnel}/ports/{protocol}/{number}",
            [delete("Take a public port from a tunnel", port::remove, |it| it)],
        )
        .at(
            "/zones/{zone}/key",
            [
                get("Show how far a change of a zone's key is", dnssec::key, |it| it.answers(shown_key())),
                post("Do the next step of changing a zone's key", dnssec::advance_key, |it| {
                    it.query("force", flag(), "Before its time, too").answers(shown_key())
                }),
                delete("Give a change of a zone's key up", dnssec::keep_key, |it| it.answers(shown_key())),
            ],
        )
        .at("/ports", [get("List public ports", port::list, |it| it.answers(list(shown_port())))])
        .at(
            "/routes",
            [get("List names that lead to tunnels", route::list, |it| {
                it.query("tunnel", uuid(), "To this one").answers_page_of(object([
                    must("hostname", hostname()),
                    must("tunnel", uuid()),
                    must("created_at", time()),
                ]))
            })],
        )
        .at(
            "/routes/{hostname}",
            [delete("Take a name from its tunnel", route::delete, |it| {
                it.answers(object([must("hostname", hostname())]))
            })],
        )
        .at(
            "/pools",
            [get("List pools with their members, health and shares", overview::list, |it| {
                it.answers_page_of(shown_pool())
            })],
        )
        .at(
            "/pools/{pool}",
            [get("Show a pool, by its id or name, with its members, health and shares", overview::one, |it| {
                it.answers(shown_pool())
            })],
        )
        .at(
            "/pools/{pool}/members",
            [post("Add a member to a pool", overview::add_member, |it| it.takes(origin()).answers(shown_pool()))],
        )
        .at(
            "/pools/{pool}/members/{member}",
            [
                patch("Change a member of a pool", overview::change_member, |it| {
                    it.takes_change_of(origin()).answers(shown_pool())
                }),
                delete("Take a member out of its pool", overview::remove_member, |it| it.answers(shown_pool())),
            ],
        )
        .at("/status", [get("Show how the edge is", status::show, |it| it.answers(shown_status()))])
        .at(
            "/invitations",
            [post("Invite a machine to become a node", join::invite, |it| {
                it.takes(object([may("for_seconds", whole(60, 604_800))]))
                    .answers(object([must("key", text()), must("expires_at", time()), must("api", text())]))
                    .fails([409, 500])
            })],
        )
        .at(
            "/authorities/{purpose}",
            [post("Replace the authority of nodes or of origins", authority::rotate, |it| {
                it.answers(shown_authority()).fails([409])
            })],
        )
        .at(
            "/authorities/{purpose}/former",
            [delete("Trust the authority before no more", authority::end_former, |it| {
                it.answers(shown_authority()).fails([409])
            })],
        )
        .tagged("Snicket")
}

/// Who may visit a tunnel.
pub(super) fn access_rules() -> Schema {
    let some = |of: Schema| list(of).most(policy::MAX_LIST);
    let hash = || text().about("A hash, as `snicket` makes it");
    let basic = object([must("user", text().least(1).most(128)), must("password", hash())]).closed();
    object([
        must("version", integer(1, 1)),
        may("allow", some(text().about("An address, or a network"))).not_null(),
        may("pin", hash()),
        may("basic", some(basic)).not_null(),
        may("headers", some(text().about("`Name: value`, or `-Name`"))).not_null(),
        may("rewrite", some(text().about("`/from=/to`"))).not_null(),
    ])
    .closed()
    .named("Access")
}

/// The same without secrets.
pub(super) fn shown_access() -> Schema {
    object([
        must("allow", list(text())),
        must("pin", flag()),
        must("basic", list(text())),
        must("headers", list(text())),
        must("rewrite", list(text())),
    ])
    .named("Access")
}

fn shown_rules() -> Schema {
    object([must("tunnel_id", uuid()), must("version", count()), must("rules", list(object([])))])
}

/// What visitors of a port speak.
pub(super) fn protocol() -> Schema {
    one_of(&["tcp", "udp"])
}

fn proxy_protocol() -> Schema {
    one_of(&["v1", "v2"])
}

/// Which port, and how its visitors are served.
pub(super) fn port_wish() -> Schema {
    let number = || integer(0, 65_535);
    object([
        may("protocol", protocol()).not_null(),
        may("first", number()),
        may("last", number()),
        may("prefer", number()),
        may("count", integer(1, port::MOST.into())),
        may("proxy_protocol", proxy_protocol()),
        may("max_connections", count()),
        may("idle_seconds", count()),
    ])
    .named("PortWish")
}

/// The same for a name whose TLS is the origin's.
pub(super) fn port_options() -> Schema {
    object([
        may("proxy_protocol", proxy_protocol()),
        may("max_connections", count()).not_null(),
        may("idle_seconds", count()).not_null(),
    ])
}

fn named_port() -> Schema {
    port_wish()
        .with([must("service", text().least(1)).about("A host of the agent's rules, or IP:PORT")])
        .named("NamedPort")
}

fn shown_port() -> Schema {
    object([
        must("port", integer(1, 65_535)),
        must("protocol", protocol()),
        must("tunnel_id", uuid()),
        must("tunnel_name", text().or_null()),
        must("service", text()),
        must("connected", flag()),
        must("proxy_protocol", proxy_protocol().or_null()),
        must("max_connections", count()),
        must("idle_seconds", count()),
        must("created_at", time()),
    ])
    .named("Port")
}

fn shown_pool() -> Schema {
    let state = || one_of(&["up", "down"]).or_null();
    let change = object([must("at", time()), must("healthy", flag()), must("reason", text().or_null())]);
    let weights = map(fraction(0.0, LabelSteering::MAX_WEIGHT));
    let split = object([must("key", text()), must("weights", weights)]).or_null();
    let voices = object([must("agree", count()), must("of", count())]).or_null();
    let member = object([
        must("id", text()),
        must("name", text()),
        must("address", text()),
        must("port", integer(0, 65_535)),
        must("host", text().or_null()),
        must("tunnel_id", uuid().or_null()),
        must("tunnel_name", text().or_null()),
        must("enabled", flag()),
        must("disabled_at", time().or_null()),
        must("weight", fraction(0.0, 1.0)),
        must("healthy", flag()),
        must("reason", text().or_null()).about("Why it is not healthy"),
        must("since", time().or_null()).about("Since when it is, or is not, healthy"),
        must("link", state()).about("Whether its tunnel has a connection"),
        must("probe", state()).about("Whether it answers as its monitor wants"),
        must("response_code", integer(100, 999).or_null()),
        must("rtt_ms", count().or_null()),
        must("voices", voices).about("How many nodes say so, of those that ask"),
        must("requests", count()).about("Answered through this node since it began"),
        must("recent_requests", count()).about("Those of the latest 5 to 10 minutes"),
        must("label", text().or_null()).about("Its value of the label by which visitors are shared out"),
        must("wanted_share", fraction(0.0, 1.0).or_null()).about("By the weights of those that are enabled"),
        must("served_share", fraction(0.0, 1.0).or_null()).about("Of the recent requests through this node"),
        must("history", list(change)).about("When it turned healthy or not, as this node saw it; the last first"),
    ]);
    object([
        must("id", id()),
        must("name", text()),
        must("enabled", flag()),
        must("healthy", flag()),
        must("minimum_origins", count()),
        must("monitor", id().or_null()),
        must("policy", text()),
        must("label_steering", split).about("Which share the members with each value of a label get"),
        must("load_balancers", list(hostname())),
        must("counted_by", object([must("node", id()), must("location", text())]))
            .about("Whose counts and history these are"),
        must("members", list(member.named("PoolMember"))),
    ])
    .named("PoolOverview")
}

fn shown_authority() -> Schema {
    let fingerprint = || must("fingerprint", text().about("SHA-256 of its certificate, in hexadecimal digits"));
    let former = object([fingerprint(), must("until", time().or_null())]).or_null();
    object([fingerprint(), must("created_at", time()), must("former", former)]).named("Authority")
}

fn shown_status() -> Schema {
    let addresses =
        object([must("http", text()), must("https", text()), must("tunnel", list(text())), must("api", text())]);
    let node = object([
        must("id", id()),
        must("name", text()),
        must("location", text()),
        must("addresses", addresses),
        must("version", text()),
        must("started_at", time()),
        must("connections", count()),
    ]);
    let moment = || time().or_null();
    let certificate = object([
        must("name", hostname()),
        must("state", one_of(&["absent", "ordering", "valid", "due", "failed"])),
        must("issuer", text().or_null()),
        must("not_before", moment()),
        must("expires_at", moment()),
        must("renew_at", moment()),
        must("last_error", text().or_null()),
        must("failed_at", moment()),
        must("retry_at", moment()),
    ]);
    let certificates = object([
        must("total", count()),
        must("list", list(certificate)),
        must("node_expires_at", moment()),
        must("origin_authority", flag()),
    ]);
    object([
        must("node", id()),
        must("registry", object([must("revision", count()), must("hears_all_nodes", flag())])),
        must("nodes", list(node)),
        must("tunnels", object(["total", "connected", "connections"].map(|name| must(name, count())))),
        must("certificates", certificates),
    ])
    .named("Status")
}
