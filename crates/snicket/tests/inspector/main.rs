//! The inspector of a whole agent, in a real browser.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use harness::{Agent, Browser, Curl, Edge, Origin, Program, Try, Visitor};
use serde_json::{Value, json};

const ROW: &str = "[...document.querySelectorAll('.row')].find(row => row.dataset.id === 'ID')";
const DETAIL: &str = "document.getElementById('detail').innerText";

/// Where the inspector is, as the ready event tells.
fn inspector(ready: &Value) -> (String, Visitor) {
    let url = ready["inspector"].as_str().unwrap_or_else(|| panic!("no inspector in {ready}"));
    (url.to_owned(), Visitor::plain(url.strip_prefix("http://").unwrap().parse().unwrap()))
}

fn row(id: u64) -> String {
    ROW.replace("ID", &id.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_lists_shows_and_repeats_what_curl_sent() {
    let (Some(browser), Some(curl)) = (Browser::start().await, Curl::find()) else { return };
    let origin = Origin::start().await;
    let it = Try::start(&[&origin.service(), "--inspect", "127.0.0.1:0"]).await;
    let (url, _) = inspector(it.ready());
    let mut page = browser.open(&url).await;
    page.until("document.getElementById('live').className === 'on'").await;

    let headers = ["--header", "Authorization: Bearer hunter2", "--header", "Content-Type: application/json"];
    let body = ["--data", r#"{"user":"ann","password":"hunter2"}"#];
    curl.ask(&it.visitor(), &it.url("/request?token=hunter2&page=1"), &[&headers[..], &body].concat()).await;

    // It appears by itself, and opens at a click.
    let line = page.until(&format!("{}.innerText", row(1))).await;
    assert!(line.as_str().is_some_and(|line| line.contains("/request?token=••••••&page=1")), "{line}");
    page.evaluate(&format!("{}.click()", row(1))).await;
    let shown = page.until(&format!("{DETAIL}.includes('Timing') && {DETAIL}")).await;
    let shown = shown.as_str().unwrap();
    assert!(!shown.lines().any(|line| ["null", "undefined"].contains(&line)), "{shown}");
    for said in
        ["200 POST /request?token=••••••", "Bearer ••••••", r#""password": "••••••""#, "cf-connecting-ip", "wait"]
    {
        assert!(shown.contains(said), "{said} in {shown}");
    }
    assert!(!page.evaluate("document.body.innerText").await.as_str().unwrap().contains("hunter2"));
    page.picture("inspector").await;
    page.evaluate("document.getElementById('reveal').click()").await;
    page.until(&format!("{DETAIL}.includes('Bearer hunter2')")).await;
    page.evaluate("document.getElementById('reveal').click()").await;
    page.until(&format!("{DETAIL}.includes('Bearer ••••••')")).await;

    // Sent again as it was: the origin gets the secrets that the page does not show.
    page.evaluate("document.getElementById('replay').click()").await;
    page.until(&format!("{DETAIL}.includes('replay of request 1') && {DETAIL}.includes('Timing')")).await;
    page.until(&format!("{}.innerText.includes('↻ 1')", row(2))).await;
    assert_eq!(origin.requests(), 2);

    // Edited in the form, by keys.
    page.press("e", 69).await;
    page.until("document.activeElement.id === 'edit-method'").await;
    page.picture("inspector-edit").await;
    page.evaluate(
        "document.getElementById('edit-target').value = '/echo'; \
         document.getElementById('edit-headers').value += '\\nx-edited: yes'; \
         document.getElementById('edit-body').value = 'edited by hand'; document.getElementById('send').click()",
    )
    .await;
    page.until(&format!("{DETAIL}.includes('POST /echo') && {DETAIL}.split('edited by hand').length === 3")).await;
    assert!(page.evaluate(DETAIL).await.as_str().unwrap().contains("x-edited"));
    assert_eq!(origin.requests(), 3);

    // The filter and the list, by keys.
    page.evaluate("document.getElementById('list').focus()").await;
    page.press("/", 191).await;
    page.until("document.activeElement.id === 'filter'").await;
    page.evaluate("filter.value = 'path:/echo -get'; filter.oninput()").await;
    page.until("[...rows.values()].filter(row => !row.hidden).length === 1").await;
    page.press("Escape", 27).await;
    page.press("ArrowDown", 40).await;
    page.until("document.querySelector('.row[aria-selected=true]').dataset.id === '2'").await;
    page.press("ArrowDown", 40).await;
    page.until(&format!("{DETAIL}.includes('Timing') && location.hash === '#1'")).await;
    let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
    page.call("Emulation.setEmulatedMedia", dark).await;
    page.picture("inspector-dark").await;
    page.evaluate("document.getElementById('clear').click()").await;
    page.until("document.querySelectorAll('.row').length === 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_get_nothing_out_of_it() {
    let Some(browser) = Browser::start().await else { return };
    let origin = Origin::start().await;
    let it = Try::start(&[&origin.service(), "--inspect", "127.0.0.1:0"]).await;
    let (url, visitor) = inspector(it.ready());
    it.visitor().get(&it.url("/request")).await;

    // Another port of this machine is the same site, and yet somebody else.
    let mut page = browser.open(&origin.service()).await;
    page.until("document.body.innerText.includes('hello')").await;
    for call in [
        format!("fetch('{url}/api/requests')"),
        format!(
            "fetch('{url}/api/requests/1/replay', {{ method: 'POST', headers: {{ 'x-snicket-inspector': '1' }}, body: '{{}}' }})"
        ),
        format!(
            "new Promise((yes, no) => {{ const s = new EventSource('{url}/api/events'); s.onmessage = yes; s.onerror = no; }})"
        ),
    ] {
        let got = page.evaluate(&format!("{call}.then(() => 'got it', () => 'refused')")).await;
        assert_eq!(got, "refused", "{call}");
    }
    // What needs no permission is sent blindly, and refused there.
    let blind = format!("fetch('{url}/api/requests/1/replay', {{ method: 'POST', mode: 'no-cors', body: '{{}}' }})");
    page.evaluate(&format!("{blind}.then(() => 'sent', () => 'refused')")).await;
    let framed = format!(
        "new Promise(done => {{ const frame = document.createElement('iframe'); frame.src = '{url}'; \
         frame.onload = () => {{ try {{ done(frame.contentWindow.location.href); }} catch {{ done('other') }} }}; document.body.append(frame); }})"
    );
    page.evaluate(&framed).await;
    let list: Value = serde_json::from_slice(&visitor.get("/api/requests").await.body).unwrap();
    assert_eq!(list["requests"].as_array().unwrap().len(), 1, "nothing was replayed: {list}");

    // A name of somebody else that leads here.
    let rebound = visitor.request("GET", "/api/requests", &[("host", "rebound.example")], "").await;
    assert_eq!(rebound.status, 421, "{}", rebound.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_there_for_http_and_try_unless_not_wanted() {
    let origin = Origin::start().await;
    let edge = Edge::start().await;
    let agent = Agent::start(&edge, &origin.service(), &[]).await;
    let (_, visitor) = inspector(agent.ready());
    assert_eq!(edge.visitor().get(&agent.url("/request?token=hunter2")).await.status, 200);
    let list = visitor.get("/api/requests").await.text();
    assert!(list.contains("/request?token=••••••") && !list.contains("hunter2"), "{list}");

    let agent = Agent::start(&edge, &origin.service(), &["--no-inspect", "--name", "other"]).await;
    assert_eq!(agent.ready()["inspector"], Value::Null);
    let it = Try::start(&["--no-inspect"]).await;
    assert_eq!(it.ready()["inspector"], Value::Null);

    let tunnel = Agent::tunnel(&edge, &["--quick-service", &edge.api().to_string(), "--url", &origin.service()]).await;
    assert_eq!(tunnel.ready()["inspector"], Value::Null, "a service is not inspected unless asked for");
    let words = ["--quick-service", &edge.api().to_string(), "--url", &origin.service(), "--inspect", "localhost:0"];
    let tunnel = Agent::tunnel(&edge, &words).await;
    let (_, visitor) = inspector(tunnel.ready());
    assert_eq!(visitor.get("/").await.status, 200);

    for outside in ["0.0.0.0:4040", "[::]:4040"] {
        let (code, _, error) = Program::new(edge.home(), &["try", "--inspect", outside]).run().await;
        assert!(code == 2 && error.contains("localhost:PORT"), "{code} {error}");
    }
}
