//! Settings of zones: kept and shown, and not obeyed yet (docs/api.md says so).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{Zone, ZoneSetting};
use serde::Deserialize;
use serde_json::{Value, json};

use super::find;
use crate::body;
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::openapi::schema::{Schema, any_of, count, flag, must, object, one_of, text, time, whole};
use crate::openapi::{Operation, delete, get, patch, post};
use crate::state::Shared;

/// A setting, what it is without being set, and what it may be.
pub(crate) struct Setting {
    name: &'static str,
    usual: Usual,
    allowed: &'static [&'static str],
}

enum Usual {
    Text(&'static str),
    /// In seconds.
    Number(u32),
}

const TOGGLE: &[&str] = &["on", "off"];
/// For a setting that is a number: up to a year, as browsers take it (RFC 9111 leaves it open).
const MAX_SECONDS: u32 = 31_536_000;

const fn toggle(name: &'static str, usual: &'static str) -> Setting {
    Setting { name, usual: Usual::Text(usual), allowed: TOGGLE }
}

const SETTINGS: [Setting; 12] = [
    toggle("0rtt", "off"),
    toggle("always_online", "off"),
    toggle("always_use_https", "off"),
    Setting { name: "browser_cache_ttl", usual: Usual::Number(14_400), allowed: &[] },
    toggle("development_mode", "off"),
    toggle("http2", "on"),
    toggle("http3", "on"),
    toggle("ipv6", "on"),
    Setting { name: "min_tls_version", usual: Usual::Text("1.2"), allowed: &["1.0", "1.1", "1.2", "1.3"] },
    Setting { name: "ssl", usual: Usual::Text("full"), allowed: &["off", "flexible", "full", "strict"] },
    Setting { name: "tls_1_3", usual: Usual::Text("on"), allowed: &["on", "off", "zrt"] },
    toggle("websockets", "on"),
];

/// Those with a path of their own (section 11 of the API page): smart routing and the cache.
pub(crate) static APART: [(&str, Setting); 5] = [
    ("argo/smart_routing", toggle("smart_routing", "off")),
    ("argo/tiered_caching", toggle("tiered_caching", "off")),
    ("cache/tiered_cache_smart_topology_enable", toggle("tiered_cache_smart_topology_enable", "off")),
    ("cache/regional_tiered_cache", toggle("tc_regional", "off")),
    ("cache/cache_reserve", toggle("cache_reserve", "off")),
];

#[derive(Deserialize)]
struct ChangeBody {
    value: Option<Value>,
}

/// The names of those that are listed.
pub(crate) fn names() -> Vec<&'static str> {
    SETTINGS.iter().map(|setting| setting.name).collect()
}

/// As JSON has one.
pub(crate) fn described() -> Schema {
    object([
        must("id", text()),
        must("value", any_of([text(), count()])),
        must("editable", flag()),
        must("modified_on", time().or_null()),
    ])
    .named("ZoneSetting")
}

/// What a change of one has in it.
fn change_described() -> Schema {
    let value = any_of([text(), whole(0, MAX_SECONDS.into())]);
    object([must("value", value.about("One of the setting's texts, or seconds"))]).named("ZoneSetting")
}

pub(crate) async fn list(State(shared): State<Arc<Shared>>, Path(zone): Path<String>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let zone = find(&snapshot, &zone)?;
    Ok(success(SETTINGS.iter().map(|setting| setting.shown(zone)).collect::<Vec<_>>()))
}

async fn one(State(shared): State<Arc<Shared>>, Path((zone, name)): Path<(String, String)>) -> Answer {
    show(&shared, &zone, named(&name)?)
}

async fn change(State(shared): State<Arc<Shared>>, Path((zone, name)): Path<(String, String)>, body: Body) -> Answer {
    set(&shared, &zone, named(&name)?, body).await
}

/// What is done with one of those that are listed.
pub(crate) fn one_of_list() -> [Operation; 2] {
    [
        get("Show a setting", one, |it| it.answers(described())),
        patch("Change a setting", change, |it| it.takes(change_described()).answers(described())),
    ]
}

/// What is done with a setting that has a path of its own.
pub(crate) fn apart(setting: &'static Setting) -> [Operation; 4] {
    type Zone = Path<String>;
    let set =
        async |State(shared): State<Arc<Shared>>, Path(zone): Zone, body| set(&shared, &zone, setting, body).await;
    let back = || object([must("id", text()), must("editable", flag())]);
    let value = || object([must("value", one_of(setting.allowed))]);
    let title = format!("{} of a zone", setting.name);
    [
        get(
            format!("Show {title}"),
            async |State(shared): State<Arc<Shared>>, Path(zone): Zone| show(&shared, &zone, setting),
            |it| it.answers(described()),
        ),
        patch(format!("Change {title}"), set, move |it| it.takes(value()).answers(described())),
        // One of the libraries makes it so.
        post(format!("Change {title}, as PATCH does"), set, move |it| it.takes(value()).answers(described())),
        delete(
            format!("Put {title} back to what is usual"),
            async |State(shared): State<Arc<Shared>>, Path(zone): Zone| reset(&shared, &zone, setting).await,
            move |it| it.answers(back()),
        ),
    ]
}

fn show(shared: &Shared, zone: &str, setting: &Setting) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    Ok(success(setting.shown(find(&snapshot, zone)?)))
}

async fn set(shared: &Shared, zone: &str, setting: &Setting, body: Body) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&registry.snapshot(), zone)?.id;
    let body: ChangeBody = body::json(body, body::SMALL).await?;
    let value = setting.check(&body.value.unwrap_or_default())?;
    let now = Timestamp::now();
    let changed = registry.change_zone(now, id, |_, settings| {
        if settings.get(setting.name).map_or_else(|| value != setting.usual(), |present| present.value != value) {
            settings.insert(setting.name.into(), ZoneSetting { value: value.clone(), modified_at: now });
        }
    });
    Ok(success(setting.shown(&changed.await?)))
}

/// Back to what it is without being set, which the answer does not say.
async fn reset(shared: &Shared, zone: &str, setting: &Setting) -> Answer {
    let registry = &shared.state.registry;
    let id = find(&registry.snapshot(), zone)?.id;
    registry.change_zone(Timestamp::now(), id, |_, settings| drop(settings.remove(setting.name))).await?;
    Ok(success(json!({ "id": setting.name, "editable": true })))
}

fn named(name: &str) -> Result<&'static Setting, ApiError> {
    let setting = SETTINGS.iter().find(|setting| setting.name == name);
    setting.ok_or_else(|| ApiError::no_object(&format!("the setting {name}")))
}

impl Setting {
    fn usual(&self) -> Value {
        match self.usual {
            Usual::Text(text) => text.into(),
            Usual::Number(number) => number.into(),
        }
    }

    fn shown(&self, zone: &Zone) -> Value {
        let present = zone.settings.get(self.name);
        json!({
            "id": self.name,
            "value": present.map_or_else(|| self.usual(), |present| present.value.clone()),
            "editable": true,
            "modified_on": present.map(|present| present.modified_at),
        })
    }

    /// The value in its one form.
    fn check(&self, value: &Value) -> Result<Value, ApiError> {
        match self.usual {
            Usual::Text(_) => {
                let given = value.as_str().filter(|given| self.allowed.contains(given));
                let wanted = || ApiError::not_valid(format!("value: one of {} is wanted", self.allowed.join(", ")));
                given.map(Value::from).ok_or_else(wanted)
            }
            Usual::Number(_) => {
                let number = serde_json::from_value::<crate::number::Whole>(value.clone()).ok();
                let number = number.map(|number| number.0).filter(|number| *number <= MAX_SECONDS);
                let wanted = || ApiError::not_valid(format!("value: seconds from 0 to {MAX_SECONDS} are wanted"));
                number.map(Value::from).ok_or_else(wanted)
            }
        }
    }
}
