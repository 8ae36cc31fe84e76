//! Every kind of list, by page and by cursor: with nothing in it, one item, a page, a page and one, and many; and while items
//! come and go between one page and the next.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use registry::NewToken;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::edge::{Answer, Edge};

/// On a page of the walks.
const PAGE: usize = 20;
const MANY: usize = 2_500;
/// Of kinds whose lists are made by the same code as another one's, of which there are many.
const SOME: usize = 130;
/// One token may make 1,200 calls in five minutes.
const CALLS_OF_A_TOKEN: usize = 1_000;

/// A list, and how items come into it and go.
struct Kind {
    name: &'static str,
    list: String,
    /// As many as a page may have.
    largest: usize,
    /// Items at the most.
    many: usize,
    /// New ones come last; otherwise they have their place by name.
    by_age: bool,
    /// By what an item is removed, below the path.
    id: &'static str,
    path: String,
    make: Box<dyn Fn(usize) -> (Method, String, Value) + Send + Sync>,
}

impl Kind {
    /// One whose items are posted to the path of the list.
    fn new(name: &'static str, path: String, make: impl Fn(usize) -> Value + Send + Sync + 'static) -> Self {
        let posted = path.clone();
        let make = Box::new(move |index| (Method::POST, posted.clone(), make(index)));
        Self { name, list: format!("{path}?"), largest: 1000, many: MANY, by_age: true, id: "id", path, make }
    }
}

/// An edge, and tokens enough for all the calls.
struct Caller {
    edge: Edge,
    tokens: Vec<String>,
    calls: AtomicUsize,
}

impl Caller {
    async fn start() -> Self {
        let edge = Edge::start().await;
        let mut tokens = Vec::new();
        for index in 0..8 {
            let new = NewToken { name: format!("caller {index}"), expires_at: None };
            tokens.push(edge.registry.create_token(Timestamp::now(), new).await.unwrap().1);
        }
        Self { edge, tokens, calls: AtomicUsize::new(0) }
    }

    async fn call(&self, method: Method, path: &str, body: String) -> Answer {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let bearer = format!("Bearer {}", self.tokens[call / CALLS_OF_A_TOKEN]);
        self.edge.send_unchecked(method, path, &[("authorization", &bearer)], body.into()).await
    }

    async fn add(&self, kind: &Kind, index: usize) {
        let (method, path, body) = (kind.make)(index);
        self.call(method, &path, body.to_string()).await.result();
    }

    async fn remove(&self, kind: &Kind, id: &str) {
        self.call(Method::DELETE, &format!("{}/{id}", kind.path), String::new()).await.result();
    }

    /// One page: the ids on it, and how many items there are.
    async fn page(&self, kind: &Kind, page: usize, size: usize) -> (Vec<String>, usize) {
        let path = format!("{}&page={page}&per_page={size}", kind.list);
        let answer = self.call(Method::GET, &path, String::new()).await;
        let ids = ids(kind, &answer.result());
        let info = &answer.json()["result_info"];
        let total = info["total_count"].as_u64().unwrap() as usize;
        let agrees = json!({
            "page": page, "per_page": size, "count": ids.len(), "total_count": total,
            "total_pages": total.div_ceil(size).max(1),
        });
        assert_eq!(*info, agrees, "{path}");
        let expected = total.saturating_sub((page - 1) * size).min(size);
        assert_eq!(ids.len(), expected, "{path} of {total}");
        (ids, total)
    }

    /// Pages until one is empty, as the Python SDK asks for them.
    async fn walk(&self, kind: &Kind, size: usize) -> Vec<String> {
        let mut all = Vec::new();
        for page in 1.. {
            let (ids, total) = self.page(kind, page, size).await;
            if ids.is_empty() {
                assert_eq!(all.len(), total, "{}: all are on the pages", kind.name);
                break;
            }
            all.extend(ids);
        }
        all
    }
}

fn ids(kind: &Kind, result: &Value) -> Vec<String> {
    let items = result.as_array().unwrap().iter();
    items.map(|item| item[kind.id].as_str().unwrap().to_owned()).collect()
}

fn check_distinct(kind: &Kind, ids: &[String]) {
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "{}: none comes twice", kind.name);
}

async fn lists_of(caller: &Caller, kind: &Kind) {
    // Some lists are never empty.
    let first = caller.walk(kind, PAGE).await;
    let mut present = first.clone();
    for wanted in [1, PAGE, PAGE + 1, kind.many] {
        for index in present.len() - first.len()..wanted.saturating_sub(first.len()) {
            caller.add(kind, index).await;
        }
        let found = caller.walk(kind, if wanted == kind.many { kind.largest.min(kind.many) } else { PAGE }).await;
        assert_eq!(found.len(), wanted.max(first.len()), "{}", kind.name);
        check_distinct(kind, &found);
        if kind.by_age {
            assert!(found.starts_with(&present), "{}: those that were there keep their places", kind.name);
        }
        present = found;
    }
    assert_eq!(caller.walk(kind, kind.largest.min(50)).await, present, "{}: however large a page is", kind.name);

    let stride = (kind.many / 20).clamp(PAGE, kind.largest);
    // Some come: whoever turns pages sees all that was there, in order, and nothing twice.
    let mut next = kind.many;
    let mut seen = Vec::new();
    for page in 1.. {
        let ids = caller.page(kind, page, stride).await.0;
        if ids.is_empty() {
            break;
        }
        seen.extend(ids);
        if page < 8 {
            caller.add(kind, next).await;
            next += 1;
        }
    }
    if kind.by_age {
        assert_eq!(seen[..present.len()], present, "{}", kind.name);
        check_distinct(kind, &seen);
    }

    // Some go that were seen: what follows moves up, so that as many are missed at the most, and still nothing comes twice.
    let present = caller.walk(kind, kind.largest.min(kind.many)).await;
    let (mut seen, mut removed) = (Vec::new(), 0);
    for page in 1.. {
        let ids = caller.page(kind, page, stride).await.0;
        let Some(last) = ids.last().cloned() else { break };
        seen.extend(ids);
        if page < 6 {
            caller.remove(kind, &last).await;
            removed += 1;
        }
    }
    check_distinct(kind, &seen);
    assert!(seen.len() + removed >= present.len(), "{}: {} of {}", kind.name, seen.len(), present.len());
    let left: HashSet<_> = present.iter().collect();
    assert!(seen.iter().all(|id| left.contains(id)), "{}: nothing comes that was not there", kind.name);
}

async fn kinds(caller: &Caller) -> Vec<Kind> {
    let edge = &caller.edge;
    let (account, zone) = (edge.account.clone(), edge.zone.clone());
    let v4 = |rest: &str| format!("/client/v4{rest}");
    let of_account = |rest: &str| v4(&format!("/accounts/{account}/{rest}"));
    let of_zone = |rest: &str| v4(&format!("/zones/{zone}/{rest}"));
    let (_, tunnel) = edge.tunnel("one").await;
    let pools = format!("/accounts/{account}/load_balancers/pools");
    let pool = edge.post(&pools, json!({ "name": "one", "origins": [] })).await.result()["id"].clone();
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let scope = format!("com.cloudflare.api.account.{account}");
    let leads = of_zone(&format!("tunnels/{tunnel}/routes"));
    let few = |kind: Kind| Kind { many: SOME, ..kind };
    let living = |kind: Kind| Kind { list: format!("{}?is_deleted=false", kind.path), ..kind };
    vec![
        Kind { largest: 50, ..Kind::new("zones", v4("/zones"), |i| json!({ "name": format!("zone-{i}.test") })) },
        Kind {
            largest: 5000,
            ..Kind::new(
                "records",
                of_zone("dns_records"),
                |i| json!({ "type": "A", "name": format!("n{i}"), "content": "192.0.2.1" }),
            )
        },
        living(Kind::new("tunnels", of_account("cfd_tunnel"), |i| json!({ "name": format!("t{i}") }))),
        Kind {
            list: "/snicket/v1/routes?".into(),
            path: "/snicket/v1/routes".into(),
            id: "hostname",
            by_age: false,
            make: Box::new(move |i| {
                let name = format!("r{}.example.test", (i * 7919) % 10_007);
                (Method::PUT, leads.clone(), json!({ "type": "dns", "user_hostname": name }))
            }),
            ..Kind::new("routes", String::new(), |_| Value::Null)
        },
        Kind::new("tokens", v4("/user/tokens"), move |i| {
            let resources = json!({ scope.as_str(): "*" });
            let policy =
                json!({ "effect": "allow", "resources": resources, "permission_groups": [{ "name": "Zone Read" }] });
            json!({ "name": format!("token {i}"), "policies": [policy] })
        }),
        Kind {
            list: v4(&format!("/certificates?zone_id={zone}")),
            ..Kind::new(
                "certificates",
                v4("/certificates"),
                move |i| json!({ "csr": csr, "hostnames": [format!("n{i}.example.test")], "request_type": "origin-ecc" }),
            )
        },
        few(Kind::new(
            "pools",
            of_account("load_balancers/pools"),
            |i| json!({ "name": format!("p{i}"), "origins": [] }),
        )),
        few(Kind::new(
            "monitors",
            of_account("load_balancers/monitors"),
            |i| json!({ "description": format!("m{i}") }),
        )),
        Kind::new(
            "load balancers",
            of_zone("load_balancers"),
            move |i| json!({ "name": format!("lb{i}.example.test"), "default_pools": [pool], "fallback_pool": pool }),
        ),
        few(Kind::new("applications", of_zone("spectrum/apps"), |i| {
            let name = json!({ "type": "CNAME", "name": format!("a{i}.example.test") });
            json!({ "dns": name, "protocol": "tcp/22", "origin_direct": ["tcp://192.0.2.1:22"] })
        })),
        few(Kind::new("limits", of_zone("rate_limits"), |i| {
            json!({ "match": { "request": { "url": format!("example.test/{i}") } }, "threshold": 5, "period": 60,
                "action": { "mode": "ban", "timeout": 600 } })
        })),
        Kind::new(
            "custom hostnames",
            of_zone("custom_hostnames"),
            |i| json!({ "hostname": format!("h{i}.other.test") }),
        ),
        few(living(Kind::new(
            "virtual networks",
            of_account("teamnet/virtual_networks"),
            |i| json!({ "name": format!("v{i}") }),
        ))),
        few(living(Kind::new(
            "private routes",
            of_account("teamnet/routes"),
            move |i| json!({ "network": format!("10.{}.{}.0/24", i / 256, i % 256), "tunnel_id": tunnel }),
        ))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_is_whole_at_each_size_and_while_items_come_and_go() {
    let mut lists = JoinSet::new();
    for index in 0..kinds(&Caller::start().await).await.len() {
        lists.spawn(async move {
            // Each with an edge, and calls, of its own.
            let caller = Caller::start().await;
            lists_of(&caller, &kinds(&caller).await.swap_remove(index)).await;
        });
    }
    lists.join_all().await;
}

/// Reads on from where the last part ended until there is no more; in between, `changes` does something.
async fn read_on(caller: &Caller, list: &str, mut changes: impl AsyncFnMut(&[String])) -> Vec<String> {
    let (mut all, mut cursor): (Vec<String>, _) = (Vec::new(), String::new());
    loop {
        let answer = caller.call(Method::GET, &format!("{list}?per_page={PAGE}&cursor={cursor}"), String::new()).await;
        let result = answer.result();
        let ids: Vec<_> = result.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
        let info = &answer.json()["result_info"];
        assert_eq!((&info["count"], &info["per_page"]), (&json!(ids.len()), &json!(PAGE)));
        all.extend(ids.iter().cloned());
        let Some(next) = info.get("cursor") else { return all };
        assert_eq!(ids.len(), PAGE, "a part that is not the last is full");
        cursor = next.as_str().unwrap().to_owned();
        changes(&ids).await;
    }
}

#[tokio::test]
async fn who_reads_on_by_a_cursor_gets_all_that_stays_exactly_once() {
    /// As many as there may be.
    const MOST: usize = 100;
    let caller = Caller::start().await;
    let list = format!("/client/v4/accounts/{}/rulesets", caller.edge.account);
    let kind = Kind::new(
        "rulesets",
        list.clone(),
        |i| json!({ "name": format!("c{i}"), "kind": "custom", "phase": "http_request_firewall_custom" }),
    );
    let mut present: Vec<String> = Vec::new();
    for wanted in [0, 1, PAGE, PAGE + 1, MOST - 4] {
        for index in present.len()..wanted {
            caller.add(&kind, index).await;
        }
        let found = read_on(&caller, &list, async |_| ()).await;
        assert!(found.len() == wanted && found.starts_with(&present), "{found:?}");
        present = found;
    }
    let (mut removed, mut added) = (Vec::new(), 0);
    let found = read_on(&caller, &list, async |part| {
        // What the cursor stands at and one before it go, and so does one to come; one comes.
        let ahead = present.iter().rev().find(|id| !removed.contains(*id)).unwrap().clone();
        for gone in [part[PAGE - 1].clone(), part[3].clone(), ahead] {
            caller.remove(&kind, &gone).await;
            removed.push(gone);
        }
        caller.add(&kind, MOST + added).await;
        added += 1;
    })
    .await;
    check_distinct(&kind, &found);
    assert_eq!(added, 4);
    let stays = |id: &&String| !removed.contains(*id);
    let stayed: Vec<_> = present.iter().filter(stays).collect();
    let of_before: Vec<_> = found.iter().filter(|id| present.contains(*id)).filter(stays).collect();
    assert_eq!(of_before, stayed);
    assert_eq!(found.iter().filter(|id| !present.contains(*id)).count(), added, "those that came are at the end");
}
