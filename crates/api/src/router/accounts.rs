use crate::openapi::schema::{Schema, count, flag, id, integer, list, may, must, null, object, one_of, text, time};
use crate::openapi::{Operation, Routes, get};
use crate::{account, audit, user};

pub(super) fn routes() -> Routes {
    let accounts = Routes::new()
        .at("/user", [get("Show the user that stands for the account", user::one, |it| it.answers(shown_user()))])
        .at(
            "/memberships",
            [get("List the accounts that the token sees", user::memberships, |it| {
                it.query("account.name", text(), "Of the account of this name")
                    .query("status", text(), "`accepted` is all of them")
                    .answers_page_of(membership())
            })],
        )
        .at(
            "/accounts",
            [get("List accounts", account::list, |it| {
                it.query("name", text(), "Of this name").answers_page_of(shown_account())
            })],
        )
        .at("/accounts/{account}", [get("Show the account", account::one, |it| it.answers(shown_account()))]);
    let audit = Routes::new().at("/user/audit_logs", [audit_log()]).at("/accounts/{account}/audit_logs", [audit_log()]);
    accounts.tagged("Accounts").and(audit.tagged("Audit log"))
}

fn audit_log() -> Operation {
    get("List who changed what", audit::list, |it| {
        it.query("id", text(), "The entry of this id")
            .query("action.type", text(), "create, update or delete")
            .query("actor.ip", text(), "From this address or network")
            .query("since", text(), "From this time or day on")
            .query("before", text(), "Before this time or day")
            .query("zone.name", text(), "About this zone")
            .query("direction", one_of(&["asc", "desc"]), "`asc` for the oldest first")
            .answers_page_of(entry())
    })
}

fn shown_account() -> Schema {
    object([
        must("id", id()),
        must("name", text()),
        must("type", text()),
        must("settings", object([])),
        must("created_on", time()),
    ])
    .named("Account")
}

fn membership() -> Schema {
    object([
        must("id", id()),
        must("status", text()),
        must("account", object([must("id", id()), must("name", text()), must("type", text())])),
        must("roles", list(text())),
        must("permissions", object([])),
    ])
}

fn shown_user() -> Schema {
    object([
        must("id", id()),
        must("email", text()),
        must("username", text()),
        must("first_name", null()),
        must("last_name", null()),
        must("telephone", null()),
        must("country", null()),
        must("zipcode", null()),
        must("suspended", flag()),
        must("two_factor_authentication_enabled", flag()),
        must("created_on", time()),
        must("modified_on", time()),
    ])
}

fn entry() -> Schema {
    let actor = object([
        must("id", id().or_null()),
        must("type", text()),
        must("email", text()),
        must("ip", text().or_null()),
        must("token_name", text().or_null()),
    ]);
    let change =
        object([must("key", text()), must("deed", one_of(&["created", "changed", "removed"])), may("before", count())]);
    let metadata = object([
        must("method", text()),
        must("path", text()),
        must("ray", text()),
        must("revision", count()),
        must("changes", list(change)),
        must("total_changes", integer(0, u32::MAX.into())),
    ]);
    let action = object([must("type", one_of(&["create", "update", "delete"])), must("result", flag())]);
    object([
        must("id", id()),
        must("when", time()),
        must("action", action),
        must("actor", actor),
        must("interface", text()),
        must("owner", object([must("id", id())])),
        must("resource", object([must("type", text()), must("id", text())])),
        must("oldValue", text()),
        must("newValue", text()),
        must("metadata", metadata),
    ])
    .named("AuditEntry")
}
