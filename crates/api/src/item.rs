//! What the registry keeps as checked documents (sections 10, 12 and 13 of the API page): each kind is a
//! [`Collection`], and one set of handlers serves them all.

pub(crate) mod application;
pub(crate) mod custom_hostname;
pub(crate) mod network;
pub(crate) mod rate_limit;
pub(crate) mod ruleset;
pub(crate) mod transfer;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{Item, ItemError, ItemId, ItemKind, Members, Snapshot, Which, ZoneId};
use serde_json::{Value, json};

use crate::envelope::{Answer, page, success};
use crate::error::ApiError;
use crate::openapi::schema::{Schema, flag, id, must, object, one_of, text, time, uuid};
use crate::openapi::{About, Routes, delete, get, patch, post, put};
use crate::query::Query;
use crate::state::Shared;
use crate::{account, body, zone};

/// The parameters of a path, by name: `zone` or `account`, and `item` for one of a list.
type Parameters = Vec<(String, String)>;

/// Says which of a list are wanted.
type Filter<'a> = Box<dyn Fn(&Item) -> bool + Send + 'a>;

/// What items are sorted by.
type Order = fn(&Item) -> String;

/// A list of one kind, and what its members are like in the API.
pub(crate) struct Collection {
    pub(crate) kind: ItemKind,
    /// How many come on a page, if nobody says, and at most.
    pub(crate) page: (usize, usize),
    /// Whether PUT replaces one.
    pub(crate) is_replaced: bool,
    /// Whether PATCH changes one.
    pub(crate) is_changed: bool,
    /// Brings what came into the members that are kept.
    pub(crate) read: fn(&mut Members),
    /// Adds to what is kept what else is shown.
    pub(crate) show: fn(&Item, &Snapshot, &mut Value),
    /// Adds to the description of what is kept what else is taken.
    pub(crate) taken: fn(Schema) -> Schema,
    /// Adds to the description of what is kept what else is shown.
    pub(crate) described: fn(Schema) -> Schema,
    /// What of a query [`Self::filter`] looks at.
    pub(crate) filters: &'static [(&'static str, Kind)],
    /// Reads what a list is to be cut down to.
    pub(crate) filter: for<'a> fn(&'a Query, &'a Snapshot) -> Result<Filter<'a>, ApiError>,
    /// By what a list can be sorted, besides when its items were made.
    pub(crate) orders: &'static [(&'static str, Order)],
    /// Whether what was removed is shown, and not only its id.
    pub(crate) shows_removed: bool,
}

impl Collection {
    /// As most are.
    pub(crate) const fn new(kind: ItemKind) -> Self {
        Self {
            kind,
            page: (20, 1000),
            is_replaced: true,
            is_changed: true,
            read: |_| (),
            show: |_, _, _| (),
            taken: |schema| schema,
            described: |schema| schema,
            filters: &[],
            filter: |_, _| Ok(Box::new(|_| true)),
            orders: &[],
            shows_removed: false,
        }
    }

    fn body(&self) -> Schema {
        (self.taken)(Schema::of_items(self.kind))
    }

    /// What is shown of one.
    fn schema(&self) -> Schema {
        let id = if self.has_uuids() { uuid() } else { id() };
        (self.described)(Schema::of_items(self.kind).with([must("id", id)]))
    }

    /// What is answered of one that was removed.
    fn removed(&self) -> Schema {
        if self.shows_removed { self.schema() } else { object([must("id", text())]) }
    }

    fn has_uuids(&self) -> bool {
        self.kind.id_text(ItemId::from_bytes([0; 16])).contains('-')
    }

    fn shown(&self, item: &Item, snapshot: &Snapshot) -> Value {
        let mut shown = Value::Object(item.terms.clone());
        shown["id"] = item.id_text().into();
        (self.show)(item, snapshot, &mut shown);
        shown
    }

    fn find(&self, snapshot: &Snapshot, path: &Parameters) -> Result<(Option<ZoneId>, ItemId), ApiError> {
        let zone = owner(snapshot, path)?;
        let text = parameter(path, "item");
        let id = self.kind.parse_id(text).ok_or_else(|| no_item(self.kind, text))?;
        Ok((zone, id))
    }
}

/// What a parameter of a query is.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Text,
    Flag,
    /// The same, also as a digit.
    Digit,
    Time,
}

/// What serves a list at this path.
pub(crate) fn collection(path: &str, of: &'static Collection) -> Routes {
    type Shares = State<Arc<Shared>>;
    type At = Path<Parameters>;
    let title = of.kind.title();
    let all = [
        get(
            format!("List each {title}"),
            async |State(shared): Shares, Path(path): At, query: Query| list(of, &shared, &path, &query),
            move |it| listing(of, it),
        ),
        post(
            format!("Make one {title}"),
            async |State(shared): Shares, Path(path): At, body: Body| {
                write(of, &shared, &path, body, Manner::Create).await
            },
            move |it| it.takes(of.body()).answers(of.schema()).fails([409, 412]),
        ),
    ];
    let mut one = vec![
        get(
            format!("Show one {title}"),
            async |State(shared): Shares, Path(path): At| show(of, &shared, &path),
            move |it| it.answers(of.schema()),
        ),
        delete(
            format!("Remove one {title}"),
            async |State(shared): Shares, Path(path): At, query: Query| delete_one(of, &shared, &path, &query).await,
            move |it| it.query("force", flag(), "Also what belongs to it").answers(of.removed()).fails([409, 412]),
        ),
    ];
    one.extend(of.is_replaced.then(|| {
        put(
            format!("Replace one {title}"),
            async |State(shared): Shares, Path(path): At, body: Body| {
                write(of, &shared, &path, body, Manner::Replace).await
            },
            move |it| it.takes(of.body()).answers(of.schema()).fails([409, 412]),
        )
    }));
    one.extend(of.is_changed.then(|| {
        patch(
            format!("Change one {title}"),
            async |State(shared): Shares, Path(path): At, body: Body| {
                write(of, &shared, &path, body, Manner::Change).await
            },
            move |it| it.takes_change_of(of.body()).answers(of.schema()).fails([409, 412]),
        )
    }));
    Routes::new().at(path, all).at(&format!("{path}/{{item}}"), one)
}

fn listing(of: &Collection, list: About) -> About {
    let filter = |list: About, (name, kind): &(&'static str, Kind)| {
        let schema = match kind {
            Kind::Text => text(),
            Kind::Flag => flag(),
            Kind::Digit => one_of(&["0", "1", "false", "true"]),
            Kind::Time => time(),
        };
        list.query(*name, schema, "Only those that have it so")
    };
    let list = of.filters.iter().fold(list, filter);
    let list = list.query("direction", text(), "`desc` for the last first");
    let list = if of.orders.is_empty() { list } else { list.query("order", text(), "By which member") };
    list.answers_page_of(of.schema())
}

/// What a body says of an item.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// All of a new one.
    Create,
    /// All of it.
    Replace,
    /// What is to be otherwise; `null` is as usual.
    Change,
}

fn list(of: &Collection, shared: &Shared, path: &Parameters, query: &Query) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let zone = owner(&snapshot, path)?;
    let wanted = (of.filter)(query, &snapshot)?;
    let mut items: Vec<&Item> =
        snapshot.items(of.kind, zone).map(|item| &item.value).filter(|item| wanted(item)).collect();
    let order = query.one("order");
    if let Some((_, key)) = of.orders.iter().find(|(name, _)| order == Some(name)) {
        items.sort_by_cached_key(|item| key(item));
    }
    if query.one("direction") == Some("desc") {
        items.reverse();
    }
    let (usual, most) = of.page;
    Ok(page(&items, query.page(usual, most)?, |item| of.shown(item, &snapshot)))
}

fn show(of: &Collection, shared: &Shared, path: &Parameters) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let (zone, id) = of.find(&snapshot, path)?;
    let item = snapshot.item(of.kind, zone, id).ok_or_else(|| no_item(of.kind, &of.kind.id_text(id)))?;
    Ok(success(of.shown(item, &snapshot)))
}

async fn write(of: &Collection, shared: &Shared, path: &Parameters, body: Body, manner: Manner) -> Answer {
    let registry = &shared.state.registry;
    let snapshot = registry.snapshot();
    let (zone, which) = match manner {
        Manner::Create => (owner(&snapshot, path)?, Which::New),
        Manner::Replace | Manner::Change => {
            let (zone, id) = of.find(&snapshot, path)?;
            // Whether it is there comes before what it is to be.
            snapshot.item(of.kind, zone, id).ok_or_else(|| no_item(of.kind, &of.kind.id_text(id)))?;
            (zone, Which::One(id))
        }
    };
    drop(snapshot);
    let mut given: Members = body::json(body, body::SMALL).await?;
    (of.read)(&mut given);
    let mut read = |old: Option<&Item>| {
        let mut terms = match (manner, old) {
            (Manner::Change, Some(old)) => old.terms.clone(),
            (Manner::Create | Manner::Replace, _) | (Manner::Change, None) => Members::new(),
        };
        terms.extend(given.clone());
        Ok::<_, ItemError>(terms)
    };
    let item = registry.write_item(Timestamp::now(), of.kind, zone, which, &mut read).await?;
    Ok(success(of.shown(&item, &registry.snapshot())))
}

async fn delete_one(of: &Collection, shared: &Shared, path: &Parameters, query: &Query) -> Answer {
    let registry = &shared.state.registry;
    let (zone, id) = of.find(&registry.snapshot(), path)?;
    let force = query.parsed("force")?.unwrap_or(false);
    let item = registry.delete_item(of.kind, zone, id, force).await?;
    if !of.shows_removed {
        return Ok(success(json!({ "id": item.id_text() })));
    }
    let mut shown = of.shown(&item, &registry.snapshot());
    shown["deleted_at"] = json!(Timestamp::now());
    Ok(success(shown))
}

/// The zone of a path, or else nothing: it is the account's, which is the one that there is.
fn owner(snapshot: &Snapshot, path: &Parameters) -> Result<Option<ZoneId>, ApiError> {
    match parameter(path, "zone") {
        "" => account::check(snapshot, parameter(path, "account")).map(|()| None),
        id => Ok(Some(zone::find(snapshot, id)?.id)),
    }
}

fn parameter<'a>(path: &'a Parameters, name: &str) -> &'a str {
    path.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap_or_default()
}

fn no_item(kind: ItemKind, id: &str) -> ApiError {
    ApiError::no_object(&format!("the {} {id}", kind.title()))
}

/// Adds when an item was made and changed, as older parts of the API call it.
fn with_times(item: &Item, _: &Snapshot, shown: &mut Value) {
    shown["created_on"] = json!(item.created_at);
    shown["modified_on"] = json!(item.modified_at);
}

/// The same, described.
fn with_times_described(schema: Schema) -> Schema {
    schema.with([must("created_on", time()), must("modified_on", time())])
}
