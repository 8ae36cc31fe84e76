use serde_json::json;

use crate::openapi::schema::{
    Schema, any_of, anything, count, flag, hostname, id, integer, list, map, may, must, null, object, one_of, text,
    time,
};
use crate::openapi::{Routes, delete, get, patch, post};
use crate::zone::{self, dnssec, purge, setting};

pub(super) fn routes() -> Routes {
    let routes = Routes::new()
        .at(
            "/zones",
            [
                get("List zones", zone::list, |it| {
                    it.query("name", text(), "Equal, or as `equal:`, `contains:`, `starts_with:` or `ends_with:` say")
                        .query("name.exact", text(), "The same")
                        .query("status", text(), "`active` is all of them")
                        .query("account.id", text(), "Of this account")
                        .query("account.name", text(), "Of the account of this name")
                        .query("type", text(), "Of this type")
                        .query("match", text(), "`any`: one of these is enough")
                        .query("order", text(), "`name`; else in the order in which they were made")
                        .query("direction", text(), "`desc` for the last first")
                        .answers_page_of(shown())
                }),
                post("Make a zone", zone::create, |it| it.takes(new()).answers(shown()).fails([404])),
            ],
        )
        .at(
            "/zones/{zone}",
            [
                get("Show a zone", zone::one, |it| it.answers(shown())),
                patch("Change a zone", zone::change, |it| it.takes(change()).answers(shown())),
                delete("Remove a zone with all that it has", zone::delete, |it| it.answers(object([must("id", id())]))),
            ],
        )
        .at(
            "/zones/{zone}/settings",
            [get("List settings", setting::list, |it| it.answers(list(setting::described())))],
        )
        .at("/zones/{zone}/settings/{setting}", setting::one_of_list())
        .at(
            "/zones/{zone}/purge_cache",
            [post("Purge the cache", purge::purge, |it| it.takes(purged()).answers(object([must("id", id())])))],
        )
        .at(
            "/zones/{zone}/dnssec",
            [
                get("Show whether a zone is to be signed", dnssec::one, |it| it.answers(signed())),
                patch("Say whether a zone is to be signed", dnssec::change, |it| {
                    it.takes(object([may("status", one_of(&["active", "disabled", "pending"]))]).named("Dnssec"))
                        .answers(signed())
                }),
            ],
        )
        .at(
            "/zones/{zone}/pagerules",
            [get("List page rules: there are none", zone::page_rules, |it| it.answers(list(anything()).most(0)))],
        );
    let apart = |routes: Routes, (path, setting): &'static (&str, _)| {
        routes.at(&format!("/zones/{{zone}}/{path}"), setting::apart(setting))
    };
    setting::APART.iter().fold(routes, apart).tagged("Zones")
}

fn kind() -> Schema {
    one_of(&["full", "partial", "secondary", "internal"])
}

fn new() -> Schema {
    let account = object([may("id", id())]);
    object([must("name", hostname()), may("account", account), may("type", kind())]).named("NewZone")
}

fn change() -> Schema {
    let servers = list(hostname()).most(zone::MAX_NAME_SERVERS);
    object([may("paused", flag()), may("type", kind()), may("vanity_name_servers", servers)]).named("Zone")
}

fn shown() -> Schema {
    object([
        must("id", id()),
        must("name", hostname()),
        must("account", object([must("id", id()), must("name", text())])),
        must("owner", object([must("id", id()), must("type", text()), must("name", text())])),
        must("plan", object([]).about("What clients insist on; there are no plans")),
        must("meta", object([])),
        must("name_servers", list(hostname())),
        must("original_name_servers", null()),
        must("original_registrar", null()),
        must("original_dnshost", null()),
        must("created_on", time()),
        must("modified_on", time()),
        must("activated_on", time()),
        must("development_mode", count()),
        must("status", one_of(&["active"])),
        must("paused", flag()),
        must("type", kind()),
        must("vanity_name_servers", list(hostname())),
        must("permissions", list(text())),
    ])
    .named("Zone")
}

/// Which of them go: one member.
fn purged() -> Schema {
    let some = |of: Schema| list(of).least(1).most(purge::MOST);
    let file = any_of([text(), object([must("url", text()), may("headers", map(text()))])]);
    let ways = [
        object([must("purge_everything", json!({ "const": true }).into())]),
        object([must("files", some(file))]),
        object([must("tags", some(text().least(1).most(purge::MAX_TAG_BYTES)))]),
        object([must("hosts", some(hostname()))]),
        object([must("prefixes", some(text().least(1)))]),
    ];
    any_of(ways).named("Purge")
}

fn signed() -> Schema {
    const TEXTS: [&str; 7] = ["algorithm", "key_type", "digest_type", "digest_algorithm", "digest", "ds", "public_key"];
    object(TEXTS.map(|name| must(name, text().or_null())))
        .with(["flags", "key_tag"].map(|name| must(name, integer(0, 65_535).or_null())))
        .with([must("status", one_of(&["active", "pending", "disabled"])), must("modified_on", time())])
        .named("Dnssec")
}
