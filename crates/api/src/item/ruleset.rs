//! Rulesets (section 12 of the API page), of a zone or of the account: kept, checked and shown. Expressions are not
//! read, and no request is changed or stopped by them yet.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use jiff::Timestamp;
use registry::{Item, ItemId, ItemKind, Members, RulesetEdit, RulesetPhase, Snapshot, Which, ZoneId};
use serde_json::{Value, json};

use super::{Parameters, no_item, owner, parameter};
use crate::body;
use crate::envelope::{Answer, stretch, success};
use crate::error::ApiError;
use crate::openapi::schema::{
    Schema, anything, id, like, list as listed, may, must, null, object, one_of, text, time, usual, whole,
};
use crate::openapi::{Routes, delete, get, patch, post, put};
use crate::query::Query;
use crate::state::Shared;

/// On a page, if nobody says how many, and at most.
const PAGE: (usize, usize) = (25, 1000);

type Shares = State<Arc<Shared>>;
type At = Path<Parameters>;

/// What serves rulesets at this path.
pub(crate) fn rulesets(path: &str) -> Routes {
    let below = |rest: &str| format!("{path}/{rest}");
    Routes::new()
        .at(
            path,
            [
                get("List rulesets, without their rules", list, |it| it.answers_part_of(described(false))),
                post("Make a ruleset", create, |it| it.takes(new_described()).answers(described(true)).fails([409])),
            ],
        )
        .at(
            &below("{item}"),
            [
                get("Show a ruleset", one, |it| it.answers(described(true))),
                put("Replace a ruleset's rules", replace, |it| {
                    it.takes_change_of(body_described()).answers(described(true)).fails([409])
                }),
                delete("Remove a ruleset", remove, |it| it.answers(object([must("id", id())])).fails([412])),
            ],
        )
        .at(
            &below("{item}/versions"),
            [get("List a ruleset's versions: the present one", versions, |it| it.answers(listed(described(false))))],
        )
        .at(
            &below("{item}/versions/{version}"),
            [get("Show a version of a ruleset", version, |it| it.answers(described(true)))],
        )
        .at(
            &below("{item}/rules"),
            [post("Add a rule", add_rule, |it| it.takes(placed_described()).answers(described(true)).fails([409]))],
        )
        .at(
            &below("{item}/rules/{rule}"),
            [
                patch("Change a rule", change_rule, |it| {
                    it.takes_change_of(placed_described()).answers(described(true)).fails([409])
                }),
                delete("Remove a rule", remove_rule, |it| it.answers(described(true)).fails([409])),
            ],
        )
        .at(
            &below("phases/{phase}/entrypoint"),
            [
                get("Show the rules of a phase", entry_point, |it| it.answers(described(true))),
                put("Write the rules of a phase", put_entry_point, |it| {
                    it.takes_change_of(body_described()).answers(described(true)).fails([409])
                }),
            ],
        )
}

/// A ruleset as a body has it.
fn body_described() -> Schema {
    let phases = RulesetPhase::ALL.map(|phase| phase.name);
    let ruleset = Schema::of_items(ItemKind::Ruleset);
    ruleset.with([
        must("phase", one_of(&phases)),
        usual("rules", listed(rule_described()), json!([])),
        // Whoever sends back what he read has it as a text; nobody looks at it.
        may("version", anything()),
    ])
}

/// A new ruleset as a body has it.
fn new_described() -> Schema {
    body_described().named("NewRuleset").with([must("name", text().least(1))])
}

/// A rule as a body has it, and where among the others it is to be.
fn placed_described() -> Schema {
    let place = object([may("before", text()), may("after", text()), may("index", whole(1, 1_001))]);
    rule_described().named("PlacedRule").with([may("position", place)])
}

/// A rule as a body has it; what we set of it nobody looks at.
fn rule_described() -> Schema {
    let rule = Schema::of_items(ItemKind::Ruleset).member("rules").items();
    rule.with([may("version", anything()), may("last_updated", anything())]).named("Rule")
}

/// A ruleset as it is shown.
fn described(with_rules: bool) -> Schema {
    let version = like("^[0-9]+$");
    let ruleset = Schema::of_items(ItemKind::Ruleset);
    let rule = ruleset.member("rules").items().with([
        must("id", id()),
        must("ref", text()),
        must("version", version.clone()),
        must("last_updated", time()),
    ]);
    let ruleset = ruleset.with([must("id", id()), must("version", version), must("last_updated", time())]);
    match with_rules {
        true => ruleset.with([must("rules", listed(rule.named("ShownRule")))]).named("ShownRuleset"),
        false => ruleset.with([may("rules", null())]).named("ListedRuleset"),
    }
}

/// Without their rules.
async fn list(State(shared): Shares, Path(path): At, query: Query) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let zone = owner(&snapshot, &path)?;
    let (usual, most) = PAGE;
    let size = query.page(usual, most)?.size;
    let after = match query.one("cursor") {
        Some(cursor) => Some(find_id(cursor).map_err(|_| ApiError::not_valid("cursor: it is none of ours"))?),
        None => None,
    };
    let mut rulesets = snapshot.items(ItemKind::Ruleset, zone).filter(|item| after.is_none_or(|after| item.id > after));
    let result: Vec<_> = rulesets.by_ref().take(size).collect();
    let next = rulesets.next().and_then(|_| result.last()).map(|last| last.id_text());
    Ok(stretch(result.iter().map(|item| shown(item, false)).collect(), size, next))
}

async fn one(State(shared): Shares, Path(path): At) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    Ok(success(shown(find(&snapshot, &path)?, true)))
}

async fn create(State(shared): Shares, Path(path): At, body: Body) -> Answer {
    let zone = owner(&shared.state.registry.snapshot(), &path)?;
    let given: Members = body::json(body, body::SMALL).await?;
    for member in ["name", "kind", "phase"] {
        if given.get(member).is_none_or(Value::is_null) {
            return Err(ApiError::not_valid(format!("{member}: it is missing")));
        }
    }
    write(&shared, zone, Which::New, &RulesetEdit::Replace(given), None).await
}

async fn replace(State(shared): Shares, Path(path): At, body: Body) -> Answer {
    let (zone, id) = find_place(&shared.state.registry.snapshot(), &path)?;
    let given = body::json(body, body::SMALL).await?;
    write(&shared, zone, Which::One(id), &RulesetEdit::Replace(given), None).await
}

async fn remove(State(shared): Shares, Path(path): At) -> Answer {
    let registry = &shared.state.registry;
    let (zone, id) = find_place(&registry.snapshot(), &path)?;
    let item = registry.delete_item(ItemKind::Ruleset, zone, id, false).await?;
    Ok(success(json!({ "id": item.id_text() })))
}

/// The version that there is: earlier ones are not kept.
async fn versions(State(shared): Shares, Path(path): At) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    Ok(success(json!([shown(find(&snapshot, &path)?, false)])))
}

async fn version(State(shared): Shares, Path(path): At) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let ruleset = shown(find(&snapshot, &path)?, true);
    let wanted = parameter(&path, "version");
    if ruleset["version"] == wanted {
        return Ok(success(ruleset));
    }
    Err(ApiError::no_object(&format!("version {wanted} of the ruleset; earlier ones are not kept")))
}

async fn add_rule(State(shared): Shares, Path(path): At, body: Body) -> Answer {
    let (zone, id) = find_place(&shared.state.registry.snapshot(), &path)?;
    let given = body::json(body, body::SMALL).await?;
    write(&shared, zone, Which::One(id), &RulesetEdit::AddRule(given), None).await
}

async fn change_rule(State(shared): Shares, Path(path): At, body: Body) -> Answer {
    let (zone, id) = find_place(&shared.state.registry.snapshot(), &path)?;
    let given = body::json(body, body::SMALL).await?;
    let edit = RulesetEdit::ChangeRule(parameter(&path, "rule").to_owned(), given);
    write(&shared, zone, Which::One(id), &edit, None).await
}

async fn remove_rule(State(shared): Shares, Path(path): At) -> Answer {
    let (zone, id) = find_place(&shared.state.registry.snapshot(), &path)?;
    let edit = RulesetEdit::RemoveRule(parameter(&path, "rule").to_owned());
    write(&shared, zone, Which::One(id), &edit, None).await
}

/// What tools look at first: none means that there are no rules yet.
async fn entry_point(State(shared): Shares, Path(path): At) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let zone = owner(&snapshot, &path)?;
    let phase = parameter(&path, "phase");
    let found = snapshot.items_named(ItemKind::Ruleset, phase).find(|item| item.zone == zone);
    Ok(success(shown(found.ok_or_else(|| ApiError::no_entry_point(phase))?, true)))
}

async fn put_entry_point(State(shared): Shares, Path(path): At, body: Body) -> Answer {
    let zone = owner(&shared.state.registry.snapshot(), &path)?;
    let phase = parameter(&path, "phase");
    if !RulesetPhase::ALL.iter().any(|known| known.name == phase) {
        let known = RulesetPhase::ALL.map(|phase| phase.name).join(", ");
        return Err(ApiError::not_valid(format!("phase: {phase} is none of which rules are kept; these are {known}")));
    }
    let given = body::json(body, body::SMALL).await?;
    write(&shared, zone, Which::Named(phase), &RulesetEdit::Replace(given), Some(phase)).await
}

async fn write(
    shared: &Shared,
    zone: Option<ZoneId>,
    which: Which<'_>,
    edit: &RulesetEdit,
    phase: Option<&str>,
) -> Answer {
    let now = Timestamp::now();
    let kind = if zone.is_some() { "zone" } else { "root" };
    let mut read = |old: Option<&Item>| edit.apply(now, old, kind, phase);
    let item = shared.state.registry.write_item(now, ItemKind::Ruleset, zone, which, &mut read).await?;
    Ok(success(shown(&item, true)))
}

fn find_place(snapshot: &Snapshot, path: &Parameters) -> Result<(Option<ZoneId>, ItemId), ApiError> {
    let found = find(snapshot, path)?;
    Ok((found.zone, found.id))
}

fn find<'a>(snapshot: &'a Snapshot, path: &Parameters) -> Result<&'a Item, ApiError> {
    let zone = owner(snapshot, path)?;
    let id = find_id(parameter(path, "item"))?;
    let found = snapshot.item(ItemKind::Ruleset, zone, id);
    found.map(|found| &found.value).ok_or_else(|| no_item(ItemKind::Ruleset, &id.to_string()))
}

fn find_id(text: &str) -> Result<ItemId, ApiError> {
    ItemKind::Ruleset.parse_id(text).ok_or_else(|| no_item(ItemKind::Ruleset, text))
}

/// A ruleset as JSON has it, where versions are texts.
fn shown(item: &Item, with_rules: bool) -> Value {
    let as_text = |holder: &mut Value| holder["version"] = holder["version"].to_string().into();
    let mut shown = Value::Object(item.terms.clone());
    as_text(&mut shown);
    shown["id"] = item.id_text().into();
    shown["last_updated"] = json!(item.modified_at);
    match shown.get_mut("rules").and_then(Value::as_array_mut) {
        Some(rules) if with_rules => rules.iter_mut().for_each(as_text),
        _ => drop(shown.as_object_mut().map(|shown| shown.remove("rules"))),
    }
    shown
}
