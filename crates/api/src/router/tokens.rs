use crate::openapi::schema::{Schema, any_of, id, like, list, map, may, must, object, one_of, text, time};
use crate::openapi::{Routes, delete, get, post, put};
use crate::token::{self, document};

pub(super) fn routes() -> Routes {
    Routes::new().and(at("/user/tokens")).and(at("/accounts/{account}/tokens")).tagged("API tokens")
}

fn at(path: &str) -> Routes {
    let below = |rest: &str| format!("{path}/{rest}");
    Routes::new()
        .at(
            path,
            [
                get("List tokens", token::list, |it| {
                    it.query("direction", text(), "`desc` for the newest first").answers_page_of(shown())
                }),
                post("Make a token; its secret is shown here only", token::create, |it| {
                    it.takes(body()).answers(created())
                }),
            ],
        )
        .at(
            &below("verify"),
            [get("Verify the token that is shown", token::verify, |it| it.answers(verified()).fails([401]))],
        )
        .at(
            &below("permission_groups"),
            [get("List what tokens can be allowed", token::permission_groups, |it| {
                it.query("name", text(), "Of this name").answers_page_of(group())
            })],
        )
        .at(
            &below("{token}"),
            [
                get("Show a token", token::one, |it| it.answers(shown())),
                put("Replace what a token may do", token::replace, |it| it.takes(body()).answers(shown())),
                delete("End a token", token::delete, |it| it.answers(object([must("id", id())]))),
            ],
        )
        .at(
            &below("{token}/value"),
            [put("Give a token another secret, and show it", token::roll, |it| {
                it.answers(like("^snk_").about("The secret"))
            })],
        )
}

fn group() -> Schema {
    object([must("id", id()), must("name", text()), must("scopes", list(text()))])
}

fn body() -> Schema {
    let some = |of: Schema| list(of).least(1).most(document::MAX_LIST);
    let networks = || list(text().about("An address, or a network")).most(document::MAX_LIST);
    let star = || one_of(&["*"]);
    let group = any_of([object([must("id", one_of(&token::group_ids()))]), object([must("name", text())])]);
    let policy = object([
        must("effect", one_of(&["allow", "deny"])),
        must("resources", map(any_of([star(), map(star())])))
            .about("Zones and accounts, such as com.cloudflare.api.account.zone.<id>, each `*`"),
        must("permission_groups", some(group)),
    ]);
    object([
        must("name", text().least(1).most(document::MAX_NAME_CHARS)),
        must("policies", some(policy.named("Policy"))),
        may("status", one_of(&["active", "expired", "disabled"])),
        may("not_before", time()),
        may("expires_on", time()),
        may("condition", object([may("request_ip", object([may("in", networks()), may("not_in", networks())]))])),
    ])
    .named("Token")
}

fn shown() -> Schema {
    let policy = object([
        must("id", id()),
        must("effect", one_of(&["allow", "deny"])),
        must("resources", map(any_of([one_of(&["*"]), map(one_of(&["*"]))]))),
        must("permission_groups", list(object([must("id", id()), must("name", text())]))),
    ]);
    let place = object([must("in", list(text())), must("not_in", list(text()))]);
    object([
        must("id", id()),
        must("name", text()),
        must("status", status()),
        must("issued_on", time()),
        must("modified_on", time()),
        must("policies", list(policy.named("Policy"))),
        may("not_before", time()),
        may("expires_on", time()),
        may("condition", object([must("request_ip", place)])),
    ])
    .named("Token")
}

fn status() -> Schema {
    one_of(&["active", "expired", "disabled"])
}

fn created() -> Schema {
    shown().with([must("value", text().about("The secret"))]).named("NewToken")
}

fn verified() -> Schema {
    object([must("id", id()), must("status", status()), may("not_before", time()), may("expires_on", time())])
}
