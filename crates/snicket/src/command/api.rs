//! `snicket api`: a call of the edge's API by hand.

use std::io::Read as _;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use url::Url;

use super::status::Which;
use crate::problem::Problem;
use crate::screen::Screen;
use crate::v4::{Api, BASE_PATH, MOST_PAGES, OWN_PATH};

/// Items asked for in one page of all, unless the path says how many; the edge takes fewer where it allows fewer.
const PER_PAGE: &str = "1000";

/// Largest body that is sent: what the API takes for the largest of its calls.
const LARGEST_BODY: u64 = 10 * 1024 * 1024;

const EXAMPLES: &str = "\
Examples:
  snicket api GET /zones
  snicket api GET '/zones?name=example.com'
  snicket api POST /zones -d '{\"name\": \"example.com\"}'
  snicket api PUT /accounts/ID/cfd_tunnel/ID/configurations -d @rules.json
  snicket api GET /accounts/ID/cfd_tunnel --page all | jq -r '.result[].name'
  snicket api GET /snicket/v1/status --edge tunnel.example.com --ca ca.pem --token-file api-token

The answer is printed as it is, of a list with --page all each page; 1 is the exit code if it is no success.";

/// Arguments of `api`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// GET, POST, PUT, PATCH or DELETE
    #[arg(value_parser = method)]
    method: Method,
    /// Below /client/v4, unless it begins with that or with /snicket/v1
    path: String,
    /// What to send: JSON, a file that holds it, or standard input
    #[arg(short = 'd', long, value_name = "JSON|@FILE|-")]
    body: Option<String>,
    /// This page of a list, or one after another
    #[arg(long, value_name = "N|all")]
    page: Option<Pages>,
    #[command(flatten)]
    which: Which,
}

/// Which pages of a list are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pages {
    One(usize),
    All,
}

impl FromStr for Pages {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(number) if number > 0 => Ok(Self::One(number)),
            _ if text == "all" => Ok(Self::All),
            _ => Err("a number from 1, or `all`, is wanted"),
        }
    }
}

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Page(usize),
    Cursor(String),
}

/// Asks and prints.
pub(crate) async fn run(args: Args, screen: Screen) -> anyhow::Result<()> {
    if args.page.is_some() && args.method != Method::GET {
        return Err(Problem::usage("--page is for lists", "leave it out, or GET").into());
    }
    let api = args.which.api()?;
    let url = address(api.base(), &args.path)?;
    let body = args.body.as_deref().map(body).transpose()?;
    match args.page {
        None => ask(&api, args.method, &url, body, screen).await.map(drop),
        Some(Pages::One(number)) => {
            ask(&api, Method::GET, &at(&url, &Place::Page(number)), body, screen).await.map(drop)
        }
        Some(Pages::All) => every_page(&api, url, body, screen).await,
    }
}

async fn every_page(api: &Api, mut url: Url, body: Option<Value>, screen: Screen) -> anyhow::Result<()> {
    if !url.query_pairs().any(|(key, _)| key == "per_page") {
        url.query_pairs_mut().append_pair("per_page", PER_PAGE);
    }
    let mut place = Place::Page(1);
    for number in 1..=MOST_PAGES {
        let answer = ask(api, Method::GET, &at(&url, &place), body.clone(), screen).await?;
        match after(&answer["result_info"], number) {
            Some(next) => place = next,
            None => return Ok(()),
        }
    }
    let advice = "ask for larger pages (per_page) or fewer items in the path";
    Err(Problem::new(format!("the list goes on after {MOST_PAGES} pages"), advice).into())
}

/// One call, whose answer is printed and, unless it is plain text, handed back.
async fn ask(api: &Api, method: Method, url: &Url, body: Option<Value>, screen: Screen) -> anyhow::Result<Value> {
    let answer = api.send(method, url, body).await?;
    let status = answer.status();
    let shown = match read(&answer) {
        Some(shown) => shown,
        None if status.is_success() => {
            let what = format!("what answers at {} is not an edge's API", api.origin());
            return Err(Problem::new(what, "check --edge: it is the address of a node's API").into());
        }
        // Whatever stands before the edge does not speak as the edge does.
        None => Value::Null,
    };
    let mut event =
        Map::from_iter([("event".to_owned(), "answer".into()), ("status".to_owned(), json!(status.as_u16()))]);
    match &shown {
        Value::Object(members) => event.extend(members.clone()),
        Value::String(text) => {
            event.insert("text".to_owned(), text.as_str().into());
            screen.say(text.trim_end());
        }
        _ => (),
    }
    screen.event(&event);
    if shown.is_object() {
        screen.say(serde_json::to_string_pretty(&shown).context("an answer is plain JSON")?);
    }
    if status.is_success() && shown["success"] != false { Ok(shown) } else { Err(refusal(api, &answer, &shown)) }
}

/// An answer's JSON, or its plain text: a zone's file, for one.
fn read(answer: &Response<Bytes>) -> Option<Value> {
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    // Anybody answers with plain text; an edge says which call it answers.
    if kind.starts_with("text/plain") && answer.headers().contains_key("cf-ray") {
        return Some(String::from_utf8_lossy(answer.body()).into_owned().into());
    }
    serde_json::from_slice(answer.body()).ok().filter(Value::is_object)
}

/// What an edge says of a call that did not work, each reason on a line of its own.
fn refusal(api: &Api, answer: &Response<Bytes>, shown: &Value) -> anyhow::Error {
    let status = answer.status();
    let wait = || answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse::<u32>().ok();
    let advice = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "the token is another edge's, has ended or may not do that; --token-file names another one".to_owned()
        }
        StatusCode::NOT_FOUND => "check the path and the ids in it; docs/api.md has the paths".to_owned(),
        StatusCode::TOO_MANY_REQUESTS => format!("try again in {} s", wait().unwrap_or(60)),
        _ if status.is_server_error() => "look at the edge's log".to_owned(),
        _ => String::new(),
    };
    let problem = Problem::new(format!("the edge at {} refused ({})", api.origin(), status.as_u16()), advice);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut errors = list(&shown["errors"]);
    errors.extend(errors.clone().iter().flat_map(|error| list(&error["error_chain"])));
    let said: Vec<_> = errors
        .iter()
        .map(|error| format!("{} (code {})", error["message"].as_str().unwrap_or_default(), error["code"]))
        .collect();
    if said.is_empty() { problem.into() } else { anyhow!(said.join("\n")).context(problem) }
}

fn method(text: &str) -> Result<Method, &'static str> {
    let known = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let method = known.into_iter().find(|method| method.as_str().eq_ignore_ascii_case(text));
    method.ok_or("GET, POST, PUT, PATCH or DELETE is wanted")
}

/// Where a path of the API is that begins at `base`: never at another host, whatever the path says.
fn address(base: &Url, path: &str) -> anyhow::Result<Url> {
    if path.contains("://") {
        let advice = "write for example /zones; --edge says which edge is asked";
        return Err(Problem::usage("a path is wanted, not a URL", advice).into());
    }
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let slash = if path.starts_with('/') { "" } else { "/" };
    let path = format!("{slash}{path}");
    let below = |start: &str| path.strip_prefix(start).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let mut url = base.clone();
    match below(OWN_PATH) {
        Some(_) => url.set_path(&path),
        None => url.set_path(&format!("{}{}", base.path(), below(BASE_PATH).unwrap_or(&path))),
    }
    url.set_query(query);
    Ok(url)
}

/// The same list at this place.
fn at(url: &Url, place: &Place) -> Url {
    let others: Vec<_> = url.query_pairs().filter(|(key, _)| key != "page" && key != "cursor").collect();
    let mut url = url.clone();
    url.query_pairs_mut().clear().extend_pairs(others);
    match place {
        Place::Page(number) => url.query_pairs_mut().append_pair("page", &number.to_string()),
        Place::Cursor(cursor) => url.query_pairs_mut().append_pair("cursor", cursor),
    };
    url
}

/// Where a list goes on after its page of this number, if it does.
fn after(info: &Value, number: usize) -> Option<Place> {
    if let Some(cursor) = info["cursor"].as_str().filter(|cursor| !cursor.is_empty()) {
        return Some(Place::Cursor(cursor.to_owned()));
    }
    let total = info["total_pages"].as_u64()?;
    (total > number as u64).then_some(Place::Page(number + 1))
}

/// What is to be sent: JSON as it is, in a file, or on standard input.
fn body(said: &str) -> anyhow::Result<Value> {
    let (text, place) = match said.strip_prefix('@') {
        _ if said == "-" => (within(std::io::stdin().lock()), "standard input".to_owned()),
        Some(file) => (std::fs::File::open(Path::new(file)).and_then(within), file.to_owned()),
        None => (Ok(said.as_bytes().to_vec()), "what follows -d".to_owned()),
    };
    let text = text.with_context(|| {
        Problem::usage(format!("cannot read {place}"), "check the path and that you may read the file")
    })?;
    serde_json::from_slice(&text).with_context(|| {
        let advice = "write for example -d '{\"name\": \"example.com\"}', -d @FILE, or -d - for standard input";
        Problem::usage(format!("{place} is no JSON"), advice)
    })
}

fn within(reader: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(LARGEST_BODY + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_BODY {
        return Err(std::io::Error::other(format!(
            "it has more than {LARGEST_BODY} bytes, which the API does not take"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_at_the_edge_that_is_asked() {
        let base = Url::parse("https://edge.example:7845/client/v4").unwrap();
        for (path, url) in [
            ("/zones", "/client/v4/zones"),
            ("zones/", "/client/v4/zones/"),
            ("/client/v4/zones?name=a.b&page=2", "/client/v4/zones?name=a.b&page=2"),
            ("/client/v4x", "/client/v4/client/v4x"),
            ("/snicket/v1/status", "/snicket/v1/status"),
            ("/snicket/v10", "/client/v4/snicket/v10"),
            ("/zones?name=a b#c", "/client/v4/zones?name=a%20b%23c"),
            ("/a b#c", "/client/v4/a%20b%23c"),
            ("//other.example/zones", "/client/v4//other.example/zones"),
            ("@other.example", "/client/v4/@other.example"),
            ("", "/client/v4/"),
        ] {
            assert_eq!(address(&base, path).unwrap().as_str(), format!("https://edge.example:7845{url}"), "{path}");
        }
        assert!(address(&base, "https://other.example/zones").is_err());
    }

    #[test]
    fn lists_are_followed_to_their_end() {
        let url = Url::parse("http://localhost/zones?name=a%20b&page=7&cursor=x").unwrap();
        assert_eq!(at(&url, &Place::Page(2)).query(), Some("name=a+b&page=2"));
        assert_eq!(at(&url, &Place::Cursor("a&b".into())).query(), Some("name=a+b&cursor=a%26b"));
        let next = |info: Value| after(&info, 2);
        assert_eq!(next(json!({ "total_pages": 3 })), Some(Place::Page(3)));
        assert_eq!(next(json!({ "cursor": "x" })), Some(Place::Cursor("x".into())));
        for end in [json!(null), json!({ "total_pages": 2 }), json!({ "cursor": "" }), json!({ "total_pages": "9" })] {
            assert_eq!(next(end.clone()), None, "{end}");
        }
        assert_eq!(["1", "all"].map(|text| text.parse()), [Ok(Pages::One(1)), Ok(Pages::All)]);
        assert!(["0", "-1", "ALL", ""].iter().all(|text| text.parse::<Pages>().is_err()));
    }

    #[test]
    fn what_is_too_large_is_not_cut() {
        assert_eq!(within(&b"[]"[..]).unwrap(), b"[]");
        assert_eq!(within(std::io::repeat(b' ').take(LARGEST_BODY)).unwrap().len() as u64, LARGEST_BODY);
        assert!(within(std::io::repeat(b' ')).is_err());
    }
}
