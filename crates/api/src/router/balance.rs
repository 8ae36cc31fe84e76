use crate::balance::schema::{
    found, health, load_balancer, monitor, of_all_pools, pool, reference, regions, shown_load_balancer, shown_monitor,
    shown_pool,
};
use crate::balance::{load_balancer as balancers, monitor as monitors, pool as pools, region, search};
use crate::openapi::schema::{Schema, id, list, must, object, one_of, text};
use crate::openapi::{Operation, Routes, delete, get, patch, post, put};

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
fn writes(operation: Operation, shown: Schema) -> Operation {
    operation.answers(shown).fails([404, 409, 412])
}

fn load_balancers(path: &str) -> Routes {
    Routes::new()
        .at(
            path,
            [
                get("List load balancers", balancers::list).answers_page_of(shown_load_balancer()),
                writes(post("Make a load balancer", balancers::create).takes(load_balancer()), shown_load_balancer()),
            ],
        )
        .at(
            &format!("{path}/{{balancer}}"),
            [
                get("Show a load balancer", balancers::one).answers(shown_load_balancer()),
                writes(
                    put("Replace a load balancer", balancers::replace).takes(load_balancer()),
                    shown_load_balancer(),
                ),
                writes(
                    patch("Change a load balancer", balancers::change).takes_change_of(load_balancer()),
                    shown_load_balancer(),
                ),
                delete("Remove a load balancer", balancers::delete).answers(removed()),
            ],
        )
}

fn parts(path: &str) -> Routes {
    let below = |rest: &str| format!("{path}/{rest}");
    Routes::new()
        .at(
            &below("monitors"),
            [
                get("List monitors", monitors::list).answers_page_of(shown_monitor()),
                writes(post("Make a monitor", monitors::create).takes(monitor()), shown_monitor()),
            ],
        )
        .at(
            &below("monitors/{monitor}"),
            [
                get("Show a monitor", monitors::one).answers(shown_monitor()),
                writes(put("Replace a monitor", monitors::replace).takes(monitor()), shown_monitor()),
                writes(patch("Change a monitor", monitors::change).takes_change_of(monitor()), shown_monitor()),
                delete("Remove a monitor", monitors::delete).answers(removed()).fails([412]),
            ],
        )
        .at(
            &below("monitors/{monitor}/references"),
            [get("List what refers to a monitor", monitors::references).answers(list(reference()))],
        )
        .at(
            &below("pools"),
            [
                get("List pools", pools::list)
                    .query("monitor", text(), "Only those that this monitor asks for")
                    .answers_page_of(shown_pool()),
                writes(post("Make a pool", pools::create).takes(pool()), shown_pool()),
                patch("Say who is told of all pools", pools::change_all)
                    .takes(of_all_pools())
                    .answers_page_of(shown_pool()),
            ],
        )
        .at(
            &below("pools/{pool}"),
            [
                get("Show a pool", pools::one).answers(shown_pool()),
                writes(put("Replace a pool", pools::replace).takes(pool()), shown_pool()),
                writes(patch("Change a pool", pools::change).takes_change_of(pool()), shown_pool()),
                delete("Remove a pool", pools::delete).answers(removed()).fails([412]),
            ],
        )
        .at(
            &below("pools/{pool}/health"),
            [get("Show what is known of a pool's health", pools::health).answers(health())],
        )
        .at(
            &below("pools/{pool}/references"),
            [get("List what refers to a pool, and what it refers to", pools::references).answers(list(reference()))],
        )
        .at(
            &below("search"),
            [get("Search monitors, pools and load balancers", search::list)
                .query("query", text(), "A part of the name or the id")
                .query("references", one_of(&["*", "referrer", "referral"]), "Which references are shown")
                .answers_page(found())],
        )
        .at(&below("regions"), [get("List the parts of the world", region::list).answers(regions())])
        .at(&below("regions/{region}"), [get("Show a part of the world", region::one).answers(regions())])
}
