//! A real browser, without a screen.

use harness::{Browser, Origin, Try};

#[tokio::test(flavor = "multi_thread")]
async fn chromium_shows_the_hello_page_and_error_pages() {
    let Some(browser) = Browser::start().await else { return };
    for transport in ["http2", "quic"] {
        let it = Try::start(&["--protocol", transport]).await;
        let mut page = browser.open(&it.url("/")).await;
        for (what, said) in
            [("the page", "It works."), ("a WebSocket", "echoed \"hello\" after"), ("server-sent events", "event ")]
        {
            eprintln!("{what} through {transport}");
            page.until(&format!("document.body.innerText.includes({said:?})")).await;
        }
        page.picture("hello").await;
    }
    let origin = Origin::start().await;
    let service = origin.service();
    drop(origin);
    let it = Try::start(&[&service]).await;
    let mut page = browser.open(&it.url("/")).await;
    page.until("['Origin is down', 'snicket explain 521'].every(said => document.body.innerText.includes(said))").await;
    page.picture("error").await;
}
