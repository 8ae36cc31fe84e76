use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use wire::Body;

use super::accept::{Form, preferred};
use super::{Refusal, grpc};

/// A refusal as one visitor gets to see it.
pub(crate) struct Page<'a> {
    pub(crate) refusal: &'static Refusal,
    /// The value of `cf-ray`.
    pub(crate) ray: &'a str,
    /// The host that was asked for, if it could be read.
    pub(crate) host: Option<&'a str>,
    /// What the agent or the edge has to add, for this request alone.
    pub(crate) detail: Option<&'a str>,
}

impl Page<'_> {
    /// The answer for a request with this method and header, of which `accept` and `content-type` matter.
    pub(crate) fn answer(&self, method: &Method, headers: &HeaderMap) -> Response<Body> {
        if grpc::is_call(headers) {
            return grpc::answer(self.refusal, self.ray);
        }
        let (content_type, text) = match preferred(headers) {
            Form::Html => ("text/html; charset=utf-8", self.html()),
            Form::Json => ("application/json", self.json()),
            Form::ProblemJson => ("application/problem+json", self.json()),
            Form::Text => ("text/plain; charset=utf-8", self.text()),
        };
        let length = HeaderValue::from(text.len());
        let body = if method == Method::HEAD { Body::empty() } else { Body::full(text) };
        let mut answer = Response::new(body);
        *answer.status_mut() = StatusCode::from_u16(self.refusal.status).expect("the catalogue holds valid statuses");
        let fields = answer.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        fields.insert(header::CONTENT_LENGTH, length);
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        fields.insert(header::SERVER, HeaderValue::from_static("snicket"));
        fields.insert(header::VARY, HeaderValue::from_static("accept"));
        fields.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
        if let Ok(ray) = HeaderValue::from_str(self.ray) {
            fields.insert(HeaderName::from_static("cf-ray"), ray);
        }
        answer
    }

    fn text(&self) -> String {
        let Refusal { code, status, title, what, why, todo } = self.refusal;
        let detail = self.detail.map(|detail| format!("\n{detail}\n")).unwrap_or_default();
        let ray = self.ray;
        format!(
            "{title} (status {status}, code {code})\n\n{what}\n{detail}\nWhy: {why}\nWhat to do: {todo}\n\nRay: {ray}\n"
        )
    }

    fn json(&self) -> String {
        let Refusal { code, status, title, what, why, todo } = self.refusal;
        let mut object = serde_json::json!({
            "title": title, "status": status, "code": code, "what": what, "why": why, "todo": todo, "ray": self.ray,
        });
        if let Some(host) = self.host {
            object["host"] = host.into();
        }
        if let Some(detail) = self.detail {
            object["detail"] = detail.into();
        }
        format!("{object:#}\n")
    }

    fn html(&self) -> String {
        let Refusal { code, status, title, what, why, todo } = self.refusal;
        let host = self.host.map(|host| format!("<p class=host>{}</p>", Escaped(host))).unwrap_or_default();
        let detail = self.detail.map(|detail| format!("<p><code>{}</code></p>", Escaped(detail))).unwrap_or_default();
        let (title, what, why, todo, ray) =
            (Escaped(title), Escaped(what), Escaped(why), Escaped(todo), Escaped(self.ray));
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
             <meta name=robots content=noindex><title>{status} {title}</title><style>{STYLE}</style>\
             <main><p class=status>{status}</p><h1>{title}</h1>{host}<p>{what}</p>{detail}\
             <h2>Why</h2><p>{why}</p><h2>What to do</h2><p>{todo}</p>\
             <footer>Code {code} · Ray {ray} · <code>snicket explain {code}</code></footer></main></html>\n"
        )
    }
}

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2327;--soft:#667077;--paper:#f6f5f2;--card:#fff;--mark:#b4472e}\
@media(prefers-color-scheme:dark){:root{--ink:#e7e6e2;--soft:#98a1a7;--paper:#16191b;--card:#1f2426;--mark:#f0866c}}\
body{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--paper);color:var(--ink);\
font:16px/1.55 system-ui,sans-serif}\
main{max-width:34rem;margin:1rem;padding:2rem 2.25rem;background:var(--card);border-radius:14px;\
box-shadow:0 1px 3px #0002,0 12px 40px #0001}\
.status{margin:0;font-weight:700;letter-spacing:.08em;color:var(--mark)}\
h1{margin:.1em 0 .4em;font-size:1.7rem;line-height:1.2}\
h2{margin:1.3em 0 .1em;font-size:.8rem;text-transform:uppercase;letter-spacing:.07em;color:var(--soft)}\
p{margin:.3em 0;overflow-wrap:anywhere}.host{color:var(--soft)}code{font-size:.9em}\
footer{margin-top:2rem;padding-top:1rem;border-top:1px solid #8883;font-size:.82rem;color:var(--soft);\
overflow-wrap:anywhere}";

/// Text that cannot leave its place in HTML.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::fmt::Write as _;
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::super::{ALL, NO_CONNECTION};
    use super::*;

    async fn page(accept: &'static str, detail: &str) -> (Response<()>, String) {
        let page = Page { refusal: &NO_CONNECTION, ray: "00ff-LAB01", host: Some("a.example"), detail: Some(detail) };
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        let (parts, body) = page.answer(&Method::GET, &headers).into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        (Response::from_parts(parts, ()), text)
    }

    #[tokio::test]
    async fn every_form_holds_code_ray_and_advice() {
        for accept in ["text/html", "application/json", "text/plain"] {
            let (answer, text) = page(accept, "x").await;
            assert_eq!(answer.status(), 530);
            assert_eq!(answer.headers()["cf-ray"], "00ff-LAB01");
            assert!(answer.headers()["content-type"].to_str().unwrap().starts_with(accept));
            for part in ["1033", "00ff-LAB01", "Start the agent"] {
                assert!(text.contains(part), "{accept}: {text}");
            }
        }
    }

    #[tokio::test]
    async fn what_comes_from_outside_is_escaped() {
        let (_, html) = page("text/html", "<script>alert('1')&</script>").await;
        assert!(html.contains("&lt;script&gt;alert(&#39;1&#39;)&amp;&lt;/script&gt;"), "{html}");
        let (_, json) = page("application/json", "\"}\n").await;
        let object: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(object["detail"], "\"}\n");
        assert_eq!(object["code"], 1033);
    }

    #[tokio::test]
    async fn head_has_the_length_but_no_body() {
        let page = Page { refusal: ALL[0], ray: "0-A", host: None, detail: None };
        let answer = page.answer(&Method::HEAD, &HeaderMap::new());
        assert_ne!(answer.headers()["content-length"], "0");
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}
