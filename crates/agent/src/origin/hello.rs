//! The built-in origin: a page that shows that the tunnel works, and small things to try with it.

mod echo;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::json;
use wire::{Body, Kind};

use super::host_of;

/// The pause between two events of `/sse`.
const EVENT_PAUSE: Duration = Duration::from_secs(1);
/// Headers shown on the page; the rest is counted.
const SHOWN_HEADERS: usize = 50;

/// Answers a request (section 13): `/`, `/uptime`, `/ws`, `/sse`, `/_health`.
pub(super) fn answer(kind: Kind, request: Request<Body>, started: Instant) -> Response<Body> {
    if kind == Kind::WebSocket {
        return echo::answer(request);
    }
    let uptime = started.elapsed();
    let mut response = match request.uri().path() {
        "/_health" => text("text/plain; charset=utf-8", "ok\n"),
        "/uptime" => {
            let uptime = config::duration::format(Duration::from_secs(uptime.as_secs()));
            text("application/json", json!({ "uptime": uptime }).to_string())
        }
        "/sse" => events(),
        "/ws" => {
            let mut response = text("text/plain; charset=utf-8", "This address echoes WebSocket messages.\n");
            *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
            response
        }
        _ => text("text/html; charset=utf-8", page(&request)),
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if request.method() == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    response
}

fn text(content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let body = body.into();
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Body::full(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response
}

/// One event a second, until the visitor leaves.
fn events() -> Response<Body> {
    let ticks = futures_util::stream::unfold(0_u64, |count| async move {
        if count > 0 {
            tokio::time::sleep(EVENT_PAUSE).await;
        }
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(format!("data: {count}\n\n")))), count + 1))
    });
    let mut response = Response::new(Body::wrap(StreamBody::new(ticks.boxed())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

fn page(request: &Request<Body>) -> String {
    let host = host_of(request.uri(), request.headers()).unwrap_or("this host");
    let mut headers = String::new();
    for (name, value) in request.headers().iter().take(SHOWN_HEADERS) {
        let value = String::from_utf8_lossy(value.as_bytes());
        // Writing to a String cannot fail.
        let _ = write!(headers, "<tr><th>{}</th><td>{}</td></tr>", escaped(name.as_str()), escaped(&value));
    }
    let more = request.headers().len().saturating_sub(SHOWN_HEADERS);
    if more > 0 {
        let _ = write!(headers, "<tr><td colspan=2>and {more} more</td></tr>");
    }
    PAGE.replace("{host}", &escaped(host))
        .replace("{method}", &escaped(request.method().as_str()))
        .replace("{path}", &escaped(request.uri().path()))
        .replace("{headers}", &headers)
}

/// Safe to stand in text and attributes. Braces too, so that no value is taken for a place of the page.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '{' => safe.push_str("&#123;"),
            '}' => safe.push_str("&#125;"),
            c => safe.push(c),
        }
    }
    safe
}

const PAGE: &str = r##"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>It works</title><link rel="icon" href="data:,">
<style>
:root{color-scheme:light dark;--ink:#1c2530;--soft:#5b6876;--line:#dfe4ea;--paper:#fff;--mark:#0a7d55}
@media(prefers-color-scheme:dark){:root{--ink:#e8edf2;--soft:#9aa7b5;--line:#2c3642;--paper:#12181f;--mark:#4fd1a1}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:44rem;margin:0 auto;padding:4rem 1.25rem}
h1{font-size:2.2rem;line-height:1.15;margin:0 0 .5rem}h2{font-size:1.05rem;margin:2.5rem 0 .5rem}
p{margin:.4rem 0;color:var(--soft)}b,code{color:var(--ink)}
.way{display:flex;flex-wrap:wrap;gap:.5rem;align-items:center;margin:1.5rem 0;font-size:.95rem}
.way span{border:1px solid var(--line);border-radius:.5rem;padding:.3rem .7rem}.way i{color:var(--mark);font-style:normal}
table{border-collapse:collapse;width:100%;font:.85rem/1.5 ui-monospace,monospace;table-layout:fixed}
th,td{text-align:left;vertical-align:top;border-top:1px solid var(--line);padding:.3rem .5rem .3rem 0;overflow-wrap:anywhere}
th{width:36%;font-weight:500;color:var(--soft)}a{color:var(--mark)}
</style></head><body><main>
<h1>It works.</h1>
<p>This page comes through your tunnel as <b>{host}</b>. It is built into the agent; put your own service in its place.</p>
<div class="way"><span>your browser</span><i>&rarr;</i><span>edge</span><i>&rarr;</i><span>tunnel</span><i>&rarr;</i><span>agent</span><i>&rarr;</i><span>this page</span></div>
<p>WebSocket: <b id="ws">trying&hellip;</b></p>
<p>Event stream: <b id="sse">trying&hellip;</b></p>
<h2>The request as the origin sees it</h2>
<table><tr><th>{method}</th><td>{path}</td></tr>{headers}</table>
<h2>To try</h2>
<p><a href="/sse">/sse</a> one event a second &middot; <code>/ws</code> echoes WebSocket messages &middot; <a href="/uptime">/uptime</a> &middot; <a href="/_health">/_health</a></p>
</main><script>
const say=(id,text)=>document.getElementById(id).textContent=text;
try{const s=performance.now(),w=new WebSocket((location.protocol==='https:'?'wss://':'ws://')+location.host+'/ws');
w.onopen=()=>w.send('hello');w.onmessage=e=>{say('ws','echoed "'+e.data+'" after '+Math.round(performance.now()-s)+' ms');w.close()};
w.onerror=()=>say('ws','failed')}catch(e){say('ws','failed')}
const e=new EventSource('/sse');e.onmessage=m=>{say('sse','event '+m.data+' arrived');if(m.data>2)e.close()};e.onerror=()=>{if(e.readyState===2)say('sse','failed')};
</script></body></html>
"##;

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn get(path: &str) -> (StatusCode, String) {
        let request = Request::get(format!("https://h.test{path}"))
            .header("x-evil", "<script>{headers}")
            .body(Body::empty())
            .unwrap();
        let response = answer(Kind::Http, request, Instant::now());
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_page_shows_the_request_and_escapes_it() {
        let (status, page) = get("/some/path").await;
        assert_eq!(status, StatusCode::OK);
        assert!(page.contains("<b>h.test</b>") && page.contains("/some/path"));
        assert!(page.contains("&lt;script&gt;&#123;headers&#125;") && !page.contains("<script>{"));
    }

    #[tokio::test]
    async fn the_small_addresses_answer() {
        assert_eq!(get("/_health").await, (StatusCode::OK, "ok\n".to_owned()));
        assert_eq!(get("/uptime").await, (StatusCode::OK, r#"{"uptime":"0s"}"#.to_owned()));
        assert_eq!(get("/ws").await.0, StatusCode::UPGRADE_REQUIRED);
    }

    #[tokio::test(start_paused = true)]
    async fn events_come_one_by_one() {
        let request = Request::get("/sse").body(Body::empty()).unwrap();
        let mut body = answer(Kind::Http, request, Instant::now()).into_body();
        for count in 0..3 {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(frame, format!("data: {count}\n\n"));
        }
    }
}
