use crate::balance::schema::{
    found, health, load_balancer, monitor, of_all_pools, pool, preview_begun, preview_found, reference, regions,
    shown_load_balancer, shown_monitor, shown_pool,
};
use crate::balance::{load_balancer as balancers, monitor as monitors, pool as pools, preview, region, search};
use crate::openapi::schema::{Schema, id, list, must, object, one_of, text};
use crate::openapi::{About, Routes, delete, get, patch, post, put};

pub(super) fn routes() -> Routes {
    Routes::new()
        .and(load_balancers("/zones/{zone}/load_balancers"))
        .and(load_balancers("/accounts/{account}/load_balancers"))
        .and(parts("/user/load_balancers"))
        .and(parts("/accounts/{account}/load_balancers"))
        .tagged("Load balancing")
}

fn removed() -> Schema {
    object([must("id", id())])
}

/// Another one may have the name, or it refers to what is not there.
fn writes(about: About, shown: Schema) -> About {
    about.answers(shown).fails([404, 409, 412])
}

fn load_balancers(path: &str) -> Routes {
    Routes::new()
        .at(
            path,
            [
                get("List load balancers", balancers::list, |it| it.answers_page_of(shown_load_balancer())),
                post("Make a load balancer", balancers::create, |it| {
                    writes(it.takes(load_balancer()), shown_load_balancer())
                }),
            ],
        )
        .at(
            &format!("{path}/{{balancer}}"),
            [
                get("Show a load balancer", balancers::one, |it| it.answers(shown_load_balancer())),
                put("Replace a load balancer", balancers::replace, |it| {
                    writes(it.takes(load_balancer()), shown_load_balancer())
                }),
                patch("Change a load balancer", balancers::change, |it| {
                    writes(it.takes_change_of(load_balancer()), shown_load_balancer())
                }),
                delete("Remove a load balancer", balancers::delete, |it| it.answers(removed())),
            ],
        )
}

fn parts(path: &str) -> Routes {
    let below = |rest: &str| format!("{path}/{rest}");
    Routes::new()
        .at(
            &below("monitors"),
            [
                get("List monitors", monitors::list, |it| it.answers_page_of(shown_monitor())),
                post("Make a monitor", monitors::create, |it| writes(it.takes(monitor()), shown_monitor())),
            ],
        )
        .at(
            &below("monitors/{monitor}"),
            [
                get("Show a monitor", monitors::one, |it| it.answers(shown_monitor())),
                put("Replace a monitor", monitors::replace, |it| writes(it.takes(monitor()), shown_monitor())),
                patch("Change a monitor", monitors::change, |it| {
                    writes(it.takes_change_of(monitor()), shown_monitor())
                }),
                delete("Remove a monitor", monitors::delete, |it| it.answers(removed()).fails([412])),
            ],
        )
        .at(
            &below("monitors/{monitor}/references"),
            [get("List what refers to a monitor", monitors::references, |it| it.answers(list(reference())))],
        )
        .at(
            &below("pools"),
            [
                get("List pools", pools::list, |it| {
                    it.query("monitor", text(), "Only those that this monitor asks for").answers_page_of(shown_pool())
                }),
                post("Make a pool", pools::create, |it| writes(it.takes(pool()), shown_pool())),
                patch("Say who is told of all pools", pools::change_all, |it| {
                    it.takes(of_all_pools()).answers_all_of(shown_pool())
                }),
            ],
        )
        .at(
            &below("pools/{pool}"),
            [
                get("Show a pool", pools::one, |it| it.answers(shown_pool())),
                put("Replace a pool", pools::replace, |it| writes(it.takes(pool()), shown_pool())),
                patch("Change a pool", pools::change, |it| writes(it.takes_change_of(pool()), shown_pool())),
                delete("Remove a pool", pools::delete, |it| it.answers(removed()).fails([412])),
            ],
        )
        .at(
            &below("pools/{pool}/health"),
            [get("Show what is known of a pool's health", pools::health, |it| it.answers(health()))],
        )
        .at(
            &below("pools/{pool}/preview"),
            [post("Ask a pool's members once, as a monitor says", preview::begin, |it| {
                it.takes(monitor()).answers(preview_begun()).fails([404, 429])
            })],
        )
        .at(
            &below("preview/{preview}"),
            [get("Show what a preview found; empty as long as members are asked", preview::found, |it| {
                it.answers(preview_found())
            })],
        )
        .at(
            &below("pools/{pool}/references"),
            [get("List what refers to a pool, and what it refers to", pools::references, |it| {
                it.answers(list(reference()))
            })],
        )
        .at(
            &below("search"),
            [get("Search monitors, pools and load balancers", search::list, |it| {
                it.query("query", text(), "A part of the name or the id")
                    .query("references", one_of(&["*", "referrer", "referral"]), "Which references are shown")
                    .answers_page(found())
            })],
        )
        .at(&below("regions"), [get("List the parts of the world", region::list, |it| it.answers(regions()))])
        .at(&below("regions/{region}"), [get("Show a part of the world", region::one, |it| it.answers(regions()))])
}
