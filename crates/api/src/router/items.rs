use crate::item::{application, collection, custom_hostname, network, rate_limit, ruleset, transfer};
use crate::openapi::Routes;

pub(super) fn routes() -> Routes {
    Routes::new()
        .and(collection("/zones/{zone}/spectrum/apps", &application::APPLICATIONS).tagged("Applications"))
        .and(collection("/zones/{zone}/rate_limits", &rate_limit::RATE_LIMITS).tagged("Rules"))
        .and(ruleset::rulesets("/zones/{zone}/rulesets").tagged("Rules"))
        .and(ruleset::rulesets("/accounts/{account}/rulesets").tagged("Rules"))
        .and(custom_hostnames().tagged("Custom hostnames"))
        .and(networks().tagged("Private networks"))
        .and(transfers().tagged("Transfers of zones"))
}

fn transfers() -> Routes {
    const PATH: &str = "/accounts/{account}/secondary_dns";
    Routes::new()
        .and(collection(&format!("{PATH}/tsigs"), &transfer::KEYS))
        .and(collection(&format!("{PATH}/peers"), &transfer::PEERS))
        .and(collection(&format!("{PATH}/acls"), &transfer::ACLS))
        .and(transfer::outgoing("/zones/{zone}/secondary_dns/outgoing"))
}

fn custom_hostnames() -> Routes {
    const PATH: &str = "/zones/{zone}/custom_hostnames";
    collection(PATH, &custom_hostname::CUSTOM_HOSTNAMES)
        .at(&format!("{PATH}/fallback_origin"), custom_hostname::fallback_origin())
}

fn networks() -> Routes {
    const PATH: &str = "/accounts/{account}/teamnet";
    Routes::new()
        .and(collection(&format!("{PATH}/virtual_networks"), &network::NETWORKS))
        .and(collection(&format!("{PATH}/routes"), &network::ROUTES))
        .at(&format!("{PATH}/routes/ip/{{ip}}"), network::of_address())
}
