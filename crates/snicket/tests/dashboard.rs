//! The page at the API's address, in a real browser.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use harness::{Agent, Browser, Edge, Origin, Page, Pebble};
use serde_json::{Value, json};

/// What would be markup if it were not text.
const HOSTILE: &str = "<script>window.hacked = 1</script>";
const HOSTILE_TOKEN: &str = "<img src=x onerror='window.hacked = 1'>";

const TEXT: &str = "document.body.innerText";

async fn open(browser: &Browser, edge: &Edge) -> Page {
    let mut page = browser.open(&format!("http://{}/", edge.api())).await;
    page.until("document.activeElement.id === 'token'").await;
    // What the browser keeps from happening, and what goes wrong in the script.
    page.evaluate(
        "window.complaints = []; \
         addEventListener('securitypolicyviolation', event => complaints.push(event.violatedDirective)); \
         addEventListener('error', event => complaints.push(event.message)); \
         addEventListener('unhandledrejection', event => complaints.push(`${event.reason}`)); null",
    )
    .await;
    page
}

async fn log_in(page: &mut Page, token: &str) {
    let script =
        format!("document.getElementById('token').value = {}; document.getElementById('go').click()", json!(token));
    page.evaluate(&script).await;
}

async fn screen(page: &mut Page, width: u32, height: u32) {
    let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
    page.call("Emulation.setDeviceMetricsOverride", metrics).await;
    page.until(&format!("innerWidth === {width}")).await;
}

async fn colours(page: &mut Page, scheme: &str) {
    let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
    page.call("Emulation.setEmulatedMedia", media).await;
}

/// The text of the section with this id.
fn section(id: &str) -> String {
    format!("document.getElementById('{id}').innerText")
}

/// Makes a token with these permissions for the account; answers its id and itself.
async fn token(edge: &Edge, name: &str, groups: &[&str]) -> (String, String) {
    let (_, accounts) = edge.call("GET", "/client/v4/accounts", None).await;
    let account = format!("com.cloudflare.api.account.{}", accounts["result"][0]["id"].as_str().unwrap());
    let groups: Vec<_> = groups.iter().map(|name| json!({ "name": name })).collect();
    let policy = json!({ "effect": "allow", "resources": { account: "*" }, "permission_groups": groups });
    let body = json!({ "name": name, "policies": [policy] });
    let (status, made) = edge.call("POST", "/client/v4/user/tokens", Some(body)).await;
    assert_eq!(status, 200, "{made}");
    let text = |key: &str| made["result"][key].as_str().unwrap().to_owned();
    (text("id"), text("value"))
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_logs_in_and_sees_what_there_is() {
    let Some(browser) = Browser::start().await else { return };
    let origin = Origin::start().await;
    let edge = Edge::start().await;
    let (_, accounts) = edge.call("GET", "/client/v4/accounts", None).await;
    let tunnels = format!("/client/v4/accounts/{}/cfd_tunnel", accounts["result"][0]["id"].as_str().unwrap());
    for name in [HOSTILE, &"w".repeat(32)] {
        assert_eq!(edge.call("POST", &tunnels, Some(json!({ "name": name }))).await.0, 200);
    }
    let mut page = open(&browser, &edge).await;
    page.picture("dashboard-login").await;

    // A wrong token, and what is no token at all.
    log_in(&mut page, "nobody-knows-this-one").await;
    page.until("document.getElementById('wrong').innerText.includes('(code 1000)')").await;
    log_in(&mut page, "smörgås").await;
    page.until("document.getElementById('wrong').innerText.includes('no token')").await;
    assert_eq!(page.evaluate("sessionStorage.length").await, 0, "what does not work is not kept");

    log_in(&mut page, &edge.token()).await;
    page.until("document.getElementById('live').innerText === 'live'").await;
    let node = page.evaluate(&section("nodes")).await;
    let (_, status) = edge.call("GET", "/snicket/v1/status", None).await;
    let known = &status["result"]["nodes"][0];
    for said in ["name", "location", "version"] {
        assert!(node.as_str().unwrap().contains(known[said].as_str().unwrap()), "{said} of {known} in {node}");
    }
    assert!(page.evaluate(&section("zones")).await.as_str().unwrap().contains("localhost"));

    // Names are text.
    assert!(page.evaluate(&section("tunnels")).await.as_str().unwrap().contains(HOSTILE));
    assert_eq!(page.evaluate("[typeof hacked, document.scripts.length]").await, json!(["undefined", 1]));

    // A tunnel, its connection, and its end appear by themselves.
    let agent = Agent::start(&edge, &origin.service(), &["--name", "shop"]).await;
    let row = "[...document.querySelectorAll('#tunnels .fold')].find(fold => fold.innerText.includes('shop'))";
    page.until(&format!("{row} && {}.includes('healthy')", section("tunnels"))).await;
    let inner = "document.querySelector('#tunnels .inner')";
    let connection = page.until(&format!("{inner}.innerText")).await;
    let version = known["version"].as_str().unwrap();
    assert!(
        connection.as_str().is_some_and(|text| text.contains("127.0.0.1") && text.contains(version)),
        "{connection}"
    );
    page.evaluate(&format!("{row}.focus(); {row}.click()")).await;
    page.until(&format!("!{inner} && document.activeElement === {row}")).await;
    page.evaluate(&format!("{row}.click()")).await;
    page.until(inner).await;

    // Somebody whose name is markup makes a zone.
    let (_, other) = token(&edge, HOSTILE_TOKEN, &["Zone Write", "Zone Read"]).await;
    let bearer = format!("Bearer {other}");
    let headers = [("authorization", bearer.as_str())];
    let body = json!({ "name": "made-by-somebody.example" }).to_string();
    let answer = harness::Visitor::plain(edge.api()).request("POST", "/client/v4/zones", &headers, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    page.until(&format!("{}.includes('made-by-somebody.example')", section("zones"))).await;
    let audit = page.until(&format!("{0}.includes('POST /zones') && {0}", section("audit"))).await;
    assert!(audit.as_str().unwrap().contains(HOSTILE_TOKEN), "{audit}");
    assert_eq!(page.evaluate("typeof hacked").await, "undefined");

    for (width, height, name) in [(1280, 1300, ""), (800, 1800, "-narrow"), (390, 2600, "-phone")] {
        screen(&mut page, width, height).await;
        for scheme in ["light", "dark"] {
            colours(&mut page, scheme).await;
            page.picture(&format!("dashboard{name}-{scheme}")).await;
        }
        let widest = page.evaluate("document.documentElement.scrollWidth").await;
        assert!(widest.as_u64().is_some_and(|widest| widest <= width.into()), "{widest} of {width}");
        let scrolled =
            "[...document.querySelectorAll('.body')].filter(one => one.scrollWidth > one.clientWidth).length";
        assert_eq!(page.evaluate(scrolled).await, 0, "tables that do not fit {width}");
    }
    screen(&mut page, 1280, 860).await;
    agent.stop().await;
    page.until(&format!("!{inner} && {}.includes('down')", section("tunnels"))).await;

    // A filter, and what is there for people who cannot see it all at once.
    page.evaluate("const it = document.getElementById('prefix'); it.value = 'sh'; it.oninput(); null").await;
    page.until(&format!("!{0}.includes('{HOSTILE}') && {0}.includes('shop')", section("tunnels"))).await;
    let unnamed = "[...document.querySelectorAll('input, select')].filter(one => !one.labels.length).length";
    assert_eq!(page.evaluate(unnamed).await, 0, "every field has a label");
    let headless =
        "[...document.querySelectorAll('table')].filter(one => !one.querySelector('thead th[scope=col]')).length";
    assert_eq!(page.evaluate(headless).await, 0, "every table has headings");

    assert_eq!(page.evaluate("complaints").await, json!([]));

    // It stays with the tab, and goes when one leaves.
    page.call("Page.reload", json!({})).await;
    page.until("document.getElementById('live').innerText === 'live'").await;
    assert_eq!(page.evaluate("[localStorage.length, document.cookie]").await, json!([0, ""]));
    page.evaluate("document.getElementById('leave').click()").await;
    page.until("document.activeElement.id === 'token' && sessionStorage.length === 0").await;
    let left = page.evaluate(TEXT).await;
    assert!(!left.as_str().unwrap().contains("shop"), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_shown_with_their_source_and_their_state() {
    let Some(browser) = Browser::start().await else { return };
    let Some(pebble) = Pebble::start(Duration::from_secs(24 * 3600)).await else { return };
    let (directory, ca) = (pebble.directory(), pebble.ca());
    let acme = ["--acme-email", "me@example.test", "--acme-directory", &directory, "--acme-ca", ca.to_str().unwrap()];
    let edge = Edge::start_with(&[&acme[..], &["--domain", "example.test"]].concat()).await;
    pebble.look_at(&[edge.http()], &[edge.https()]);
    let mut page = open(&browser, &edge).await;
    log_in(&mut page, &edge.token()).await;
    let row = |name: &str| {
        format!(
            "[...document.querySelectorAll('#certificates tbody tr')].map(row => row.innerText)\
             .find(row => row.startsWith('{name}'))"
        )
    };
    // The nodes' own, and the domain's, which is ordered by itself.
    page.until(&format!("{}.includes('the nodes’ authority')", section("certificates"))).await;
    let domain = row("example.test");
    let told = page.until(&format!("{domain}?.includes('valid') && {domain}")).await;
    let (_, status) = edge.call("GET", "/snicket/v1/status", None).await;
    let known = &status["result"]["certificates"]["list"][0];
    assert!(told.as_str().unwrap().contains(known["issuer"].as_str().unwrap()), "{known} in {told}");
    let expires = "document.querySelector('#certificates tbody time').dateTime";
    assert_eq!(page.evaluate(expires).await, known["expires_at"]);

    // One that the authority cannot look at says so.
    pebble.look_at(&[], &[]);
    edge.named_tunnel("site", "site.example.test").await;
    let site = row("site.example.test");
    page.until(&format!("{site}?.includes('failed')")).await;
    let told = page.evaluate(&section("certificates")).await;
    let (_, status) = edge.call("GET", "/snicket/v1/status", None).await;
    let known = &status["result"]["certificates"]["list"][0];
    assert!(told.as_str().unwrap().contains(known["last_error"].as_str().unwrap()), "{known} in {told}");
    page.until("document.getElementById('heard').innerText.includes('1 certificate could not be ordered')").await;
    for (width, height, name) in [(1280, 1100, ""), (390, 1900, "-phone")] {
        screen(&mut page, width, height).await;
        page.picture(&format!("certificates{name}")).await;
        let widest = page.evaluate("document.documentElement.scrollWidth").await;
        assert!(widest.as_u64().is_some_and(|widest| widest <= width.into()), "{widest} of {width}");
    }
    assert_eq!(page.evaluate("complaints").await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_are_turned_page_by_page() {
    let Some(browser) = Browser::start().await else { return };
    let edge = Edge::start().await;
    let (_, accounts) = edge.call("GET", "/client/v4/accounts", None).await;
    let tunnels = format!("/client/v4/accounts/{}/cfd_tunnel", accounts["result"][0]["id"].as_str().unwrap());
    let mut last = String::new();
    for number in 1..=26 {
        let (status, made) = edge.call("POST", &tunnels, Some(json!({ "name": format!("number-{number}") }))).await;
        assert_eq!(status, 200, "{made}");
        last = made["result"]["id"].as_str().unwrap().to_owned();
    }
    let mut page = open(&browser, &edge).await;
    log_in(&mut page, &edge.token()).await;
    page.until(&format!("{}.includes('1–25 of 26')", section("tunnels"))).await;
    let next = "[...document.querySelectorAll('#tunnels .pager button')].find(button => button.innerText === 'Next')";
    page.evaluate(&format!("{next}.click()")).await;
    page.until(&format!("{0}.includes('26–26 of 26') && {next}.disabled", section("tunnels"))).await;
    assert!(!page.evaluate(&section("tunnels")).await.as_str().unwrap().contains("number-25"));

    // Who is on a page that is no more gets to the last one there is.
    assert_eq!(edge.call("DELETE", &format!("{tunnels}/{last}"), None).await.0, 200);
    page.until(&format!("{}.includes('number-25')", section("tunnels"))).await;
    assert!(!page.evaluate(&section("tunnels")).await.as_str().unwrap().contains("number-26"));
    assert_eq!(page.evaluate("complaints").await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_may_do_less_see_less_and_their_end_is_told() {
    let Some(browser) = Browser::start().await else { return };
    let edge = Edge::start().await;
    let (id, less) = token(&edge, "less", &["Cloudflare Tunnel Read"]).await;
    let mut page = open(&browser, &edge).await;
    log_in(&mut page, &less).await;
    page.until("document.getElementById('live').innerText === 'live'").await;
    for part in ["nodes", "audit"] {
        page.until(&format!("{}.includes('may not see')", section(part))).await;
    }
    assert!(page.evaluate(&section("tunnels")).await.as_str().unwrap().contains("There is no tunnel yet"));
    assert_eq!(page.evaluate("document.getElementById('certificates').hidden").await, true);

    assert_eq!(edge.call("DELETE", &format!("/client/v4/user/tokens/{id}"), None).await.0, 200);
    let why = page.until("document.getElementById('wrong').innerText").await;
    assert!(why.as_str().is_some_and(|why| why.contains("no longer") && why.contains("9109")), "{why}");
    assert_eq!(page.evaluate("[sessionStorage.length, complaints]").await, json!([0, []]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_nobody_sees_asks_nothing() {
    let Some(browser) = Browser::start().await else { return };
    let mut edge = Edge::start().await;
    let mut page = open(&browser, &edge).await;
    page.evaluate(
        "window.asked = 0; const real = fetch; window.fetch = (...a) => { asked++; return real(...a); }; null",
    )
    .await;
    log_in(&mut page, &edge.token()).await;
    page.until("document.getElementById('live').innerText === 'live' && asked > 8").await;
    let see = |hidden: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }}); \
             document.dispatchEvent(new Event('visibilitychange')); asked"
        )
    };
    let before = page.evaluate(&see(true)).await;
    page.until("document.getElementById('live').innerText === 'paused'").await;
    // Longer than two rounds take; a page that asks would have asked by then.
    let after = page.evaluate("new Promise(done => setTimeout(() => done(asked), 5000))").await;
    assert_eq!(before, after, "calls while hidden");
    page.evaluate(&see(false)).await;
    page.until(&format!("document.getElementById('live').innerText === 'live' && asked > {before}")).await;

    // An edge that is away is told, and found again.
    edge.kill().await;
    page.until("document.getElementById('live').innerText === 'no answer'").await;
    edge.start_again().await;
    page.until("document.getElementById('live').innerText === 'live'").await;
    assert_eq!(page.evaluate("complaints").await, Value::Array(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_added_changed_and_deleted_and_refusals_are_shown() {
    let Some(browser) = Browser::start().await else { return };
    let edge = Edge::start().await;
    edge.said(&["dns", "create", "example.test"]).await;
    let mut page = open(&browser, &edge).await;
    log_in(&mut page, &edge.token()).await;
    let zone = "[...document.querySelectorAll('#zones button')].find(button => button.innerText === 'example.test')";
    page.until(&format!("!!{zone}")).await;
    page.evaluate(&format!("{zone}.click()")).await;
    page.until(&format!("{}.includes('no record yet')", section("records"))).await;
    let write = async |page: &mut Page, fields: &[(&str, &str)]| {
        for (id, value) in fields {
            page.evaluate(&format!("document.getElementById('r-{id}').value = {}; null", json!(value))).await;
        }
        page.evaluate("document.getElementById('r-go').click()").await;
    };
    write(&mut page, &[("name", "www"), ("type", "A"), ("content", "nowhere")]).await;
    let wrong = page.until("document.getElementById('r-wrong').innerText").await;
    assert!(wrong.as_str().is_some_and(|text| text.contains("IPv4") && text.contains("(code 1004)")), "{wrong}");
    write(&mut page, &[("content", "192.0.2.1"), ("comment", HOSTILE)]).await;
    page.until(&format!("{}.includes('192.0.2.1')", section("records"))).await;
    page.until("document.getElementById('r-wrong').hidden && document.getElementById('r-name').value === ''").await;
    write(&mut page, &[("name", "@"), ("type", "MX"), ("content", "10 mail.example.net")]).await;
    page.until(&format!("{}.includes('10 mail.example.net')", section("records"))).await;

    // What is there is changed as a whole, and what is not shown of it stays.
    let button =
        |name: &str| format!("[...document.querySelectorAll('#records button')].find(it => it.ariaLabel === '{name}')");
    page.evaluate(&format!("{}.click()", button("Change example.test MX"))).await;
    write(&mut page, &[("content", "20 mail.example.net"), ("ttl", "300")]).await;
    page.until(&format!("{}.includes('20 mail.example.net')", section("records"))).await;
    let said = edge.said(&["dns", "list", "example.test"]).await;
    assert!(said.contains("MX    300   no       20 mail.example.net") && said.contains(HOSTILE), "{said}");

    // Twice, so that no click alone deletes.
    page.evaluate(&format!("{}.click()", button("Delete www.example.test A"))).await;
    let sure = button("Really delete www.example.test A");
    page.until(&format!("!!{sure}")).await;
    assert!(edge.said(&["dns", "list", "example.test"]).await.contains("192.0.2.1"));
    page.evaluate(&format!("{sure}.click()")).await;
    page.until(&format!("!{}.includes('192.0.2.1')", section("records"))).await;
    assert!(!edge.said(&["dns", "list", "example.test"]).await.contains("192.0.2.1"));
    // Somebody else's record appears by itself.
    edge.said(&["dns", "add", "example.test", "other", "A", "192.0.2.9"]).await;
    page.until(&format!("{}.includes('192.0.2.9')", section("records"))).await;
    let unnamed = "[...document.querySelectorAll('input, select')].filter(one => !one.labels.length).length";
    assert_eq!(page.evaluate(&format!("[typeof hacked, complaints, {unnamed}]")).await, json!(["undefined", [], 0]));
    for (width, height, name) in [(1280, 1300, ""), (390, 2600, "-phone")] {
        screen(&mut page, width, height).await;
        page.picture(&format!("records{name}")).await;
        let widest = page.evaluate("document.documentElement.scrollWidth").await;
        assert!(widest.as_u64().is_some_and(|widest| widest <= width.into()), "{widest} of {width}");
    }

    // A zone that is closed while its records are asked for: what is answered then is nobody's, and the round ends well.
    let closing = "(() => { const [ask, say] = [window.fetch, window.live]; window.wasClosed = false; window.said = [];
        window.live = (state, text) => { said.push(text); say(state, text); };
        window.fetch = async (...all) => {
            const answer = await ask(...all);
            if (String(all[0]).includes('/dns_records')) { window.fetch = ask; closeZone(); window.wasClosed = true; }
            return answer;
        };
        restart(); return null; })()";
    page.evaluate(closing).await;
    page.until("wasClosed && revision !== null").await;
    assert_eq!(page.evaluate("[said.includes('no answer'), complaints]").await, json!([false, []]));

    // Who may only look is told so, and nothing happens.
    let (_, less) = token(&edge, "looks", &["Zone Read", "DNS Read"]).await;
    page.evaluate("document.getElementById('leave').click()").await;
    page.until("document.activeElement.id === 'token' && document.getElementById('records').hidden").await;
    log_in(&mut page, &less).await;
    page.until(&format!("!!{zone}")).await;
    page.evaluate(&format!("{zone}.click()")).await;
    page.until(&format!("{}.includes('192.0.2.9')", section("records"))).await;
    write(&mut page, &[("name", "x"), ("type", "A"), ("content", "192.0.2.3")]).await;
    page.until("document.getElementById('r-wrong').innerText.includes('(code 10')").await;
    assert!(!edge.said(&["dns", "list", "example.test"]).await.contains("192.0.2.3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_are_shown_with_health_its_history_and_shares() {
    let Some(browser) = Browser::start().await else { return };
    let edge = Edge::start_with(&["--origin-networks", "127.0.0.0/8"]).await;
    let (stays, dies) = (Origin::start().await, Origin::start().await);
    let (_, zones) = edge.call("GET", "/client/v4/zones?name=localhost", None).await;
    let id = |value: &Value| value.as_str().unwrap().to_owned();
    let (zone, account) = (id(&zones["result"][0]["id"]), id(&zones["result"][0]["account"]["id"]));
    let base = format!("/client/v4/accounts/{account}/load_balancers");
    let make = async |path: &str, body: Value| edge.call("POST", path, Some(body)).await.1["result"]["id"].clone();
    let monitor = json!({ "type": "http", "interval": 1, "timeout": 1, "retries": 0, "consecutive_down": 2 });
    let monitor = make(&format!("{base}/monitors"), monitor).await;
    let at = |name: &str, origin: &Origin| {
        let address = origin.address();
        json!({ "name": name, "address": address.ip().to_string(), "port": address.port(), "weight": 0.5 })
    };
    let origins = [at("stays", &stays), at(HOSTILE_TOKEN, &dies)];
    let pool = make(&format!("{base}/pools"), json!({ "name": "web", "origins": origins, "monitor": monitor })).await;
    let balancer = json!({ "name": "app.localhost", "proxied": true, "default_pools": [pool], "fallback_pool": pool });
    make(&format!("/client/v4/zones/{zone}/load_balancers"), balancer).await;
    let mut page = open(&browser, &edge).await;
    log_in(&mut page, &edge.token()).await;
    let text = section("pools");
    page.until(&format!("{text}.includes('2 of 2 healthy') && {text}.includes('app.localhost')")).await;
    for _ in 0..10 {
        assert_eq!(edge.visitor().get(&format!("http://app.localhost:{}/", edge.http().port())).await.status, 200);
    }
    page.until(&format!("{text}.includes('10 requests through home') && {text}.includes('50 %')")).await;
    drop(dies);
    page.until(&format!("{text}.includes('1 of 2 healthy') && {text}.includes('unhealthy: ')")).await;
    assert!(page.evaluate(&text).await.as_str().unwrap().contains(HOSTILE_TOKEN));
    assert_eq!(page.evaluate("[typeof hacked, complaints]").await, json!(["undefined", []]));
    for (width, height, name) in [(1280, 1300, ""), (390, 2600, "-phone")] {
        screen(&mut page, width, height).await;
        page.picture(&format!("pools{name}")).await;
        let widest = page.evaluate("document.documentElement.scrollWidth").await;
        assert!(widest.as_u64().is_some_and(|widest| widest <= width.into()), "{widest} of {width}");
    }
}
