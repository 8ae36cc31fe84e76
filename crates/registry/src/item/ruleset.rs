//! Rulesets: rules of one phase, in order. Pure. Expressions are kept unread.

use std::collections::{HashMap, HashSet, VecDeque};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::form::{self, Form, Member, Shape, flag, list, may, must, number, text};
use super::{Check, Item, ItemError, Members, Rules, bad};
use crate::{BadTerms, ItemId, ItemKind};

pub(super) static RULES: Rules =
    Rules { name: "rulesets", title: "ruleset", has_uuid: false, most: MOST_RULESETS, members: &MEMBERS, check, index };

/// A zone has one for each phase at the most, and the account some of its own; each may be large.
const MOST_RULESETS: usize = 100;
/// Rules of one ruleset; each request looks through them in order.
const MAX_RULES: usize = 1000;
/// Of an expression, as in the original.
const MAX_EXPRESSION_CHARS: usize = 4096;
/// Of what an action is told.
const MAX_PARAMETERS_BYTES: usize = 32 << 10;
const MAX_NAME_CHARS: usize = 256;
const MAX_DESCRIPTION_CHARS: usize = 1024;

static MEMBERS: [Member; 6] = [
    text("name", Form::Word(MAX_NAME_CHARS), "default"),
    text("description", Form::Text(MAX_DESCRIPTION_CHARS), ""),
    must("kind", Form::Choice(&["zone", "root", "custom"])),
    must("phase", Form::Own(Shape::Text, read_phase)),
    number("version", Form::Whole(1, u32::MAX), 1),
    list("rules", &Form::Object(&RULE), MAX_RULES),
];

/// Those that we set come last.
static RULE: [Member; 11] = [
    must("action", Form::Word(64)),
    must("expression", Form::Word(MAX_EXPRESSION_CHARS)),
    text("description", Form::Text(MAX_DESCRIPTION_CHARS), ""),
    flag("enabled", true),
    may("action_parameters", Form::Free(MAX_PARAMETERS_BYTES)),
    may("ratelimit", Form::Object(&RATE_LIMIT)),
    may("logging", Form::Object(&[flag("enabled", true)])),
    may("ref", Form::Word(MAX_NAME_CHARS)),
    may("id", Form::Own(Shape::Text, read_id)),
    number("version", Form::Whole(1, u32::MAX), 1),
    may("last_updated", Form::Text(64)),
];

/// Of any length: the original takes a few only.
static RATE_LIMIT: [Member; 8] = [
    must("characteristics", Form::List(&Form::Word(256), 1, 10)),
    must("period", Form::Whole(1, 86_400)),
    may("requests_per_period", Form::Whole(1, 1_000_000_000)),
    may("score_per_period", Form::Whole(1, 1_000_000_000)),
    may("score_response_header_name", Form::Word(256)),
    may("mitigation_timeout", Form::Whole(0, 86_400)),
    may("counting_expression", Form::Text(MAX_EXPRESSION_CHARS)),
    flag("requests_to_origin", false),
];

/// A phase in which rules are kept, and the actions that they may have in it.
#[derive(Debug, PartialEq, Eq)]
pub struct RulesetPhase {
    /// Its name.
    pub name: &'static str,
    actions: &'static [&'static str],
}

const DEFENCES: &[&str] = &["block", "challenge", "js_challenge", "managed_challenge", "log"];

impl RulesetPhase {
    /// All that there are.
    pub const ALL: [Self; 9] = [
        Self { name: "http_ratelimit", actions: DEFENCES },
        Self {
            name: "http_request_firewall_custom",
            actions: &["block", "skip", "log", "challenge", "js_challenge", "managed_challenge"],
        },
        Self { name: "http_request_redirect", actions: &["redirect"] },
        Self { name: "http_request_dynamic_redirect", actions: &["redirect"] },
        Self { name: "http_request_transform", actions: &["rewrite"] },
        Self { name: "http_request_late_transform", actions: &["rewrite"] },
        Self { name: "http_response_headers_transform", actions: &["rewrite"] },
        Self { name: "http_request_origin", actions: &["route"] },
        Self { name: "http_request_cache_settings", actions: &["set_cache_settings"] },
    ];

    fn named(name: &str) -> Option<&'static Self> {
        static ALL: [RulesetPhase; 9] = RulesetPhase::ALL;
        ALL.iter().find(|phase| phase.name == name)
    }
}

/// What is to become of a ruleset.
#[derive(Debug, Clone)]
pub enum RulesetEdit {
    /// All of it, or its rules at least: what is not said of the rest stays.
    Replace(Members),
    /// One rule more, at the end if it does not say where.
    AddRule(Members),
    /// Another rule for this one, or another place; what is not said stays.
    ChangeRule(String, Members),
    /// Without this rule.
    RemoveRule(String),
}

impl RulesetEdit {
    /// What the ruleset is to be, by what it is. `kind` and `phase` are those of a new one.
    ///
    /// # Errors
    /// A rule will not do, or is not there.
    pub fn apply(
        &self,
        now: Timestamp,
        old: Option<&Item>,
        kind: &str,
        phase: Option<&str>,
    ) -> Result<Members, ItemError> {
        let old_rules = old.map(rules_of).unwrap_or_default();
        let mut ruleset = match old {
            Some(old) => old.terms.clone(),
            None => Members::from_iter([("kind".to_owned(), Value::from(kind))]),
        };
        if let (None, Some(phase)) = (old, phase) {
            ruleset.insert("phase".into(), phase.into());
        }
        let rules = match self {
            Self::Replace(given) => {
                for member in ["name", "description", "kind", "phase"] {
                    ruleset.extend(given.get(member).map(|value| (member.to_owned(), value.clone())));
                }
                let given = given.get("rules").filter(|rules| !rules.is_null()).cloned();
                let Value::Array(given) = given.unwrap_or_else(|| json!([])) else {
                    return Err(bad("rules", "a list of rules is wanted"));
                };
                given
            }
            Self::AddRule(rule) => {
                let mut rules = old_rules.clone();
                let at = place(rule, &rules)?.unwrap_or(rules.len());
                rules.insert(at, without_id(rule).into());
                rules
            }
            Self::ChangeRule(id, change) => {
                let mut rules = old_rules.clone();
                let present = position(&rules, id)?;
                let mut rule = rules.remove(present);
                let at = place(change, &rules)?.unwrap_or(present);
                if let Value::Object(rule) = &mut rule {
                    let is_rule = |member: &str| member != "position" && member != "id";
                    rule.extend(change.clone().into_iter().filter(|(member, _)| is_rule(member)));
                }
                rules.insert(at, rule);
                rules
            }
            Self::RemoveRule(id) => {
                let mut rules = old_rules.clone();
                rules.remove(position(&rules, id)?);
                rules
            }
        };
        if rules.len() > MAX_RULES {
            return Err(bad("rules", format_args!("at most {MAX_RULES} are wanted")));
        }
        ruleset.insert("rules".into(), arranged(now, &old_rules, &rules)?.into());
        ruleset.remove("version");
        let mut ruleset = form::read(&MEMBERS, &ruleset)?;
        if let Some(old) = old {
            let version = &old.terms["version"];
            ruleset.insert("version".into(), version.clone());
            if ruleset != old.terms {
                let next = version.as_u64().unwrap_or_default().saturating_add(1);
                ruleset.insert("version".into(), next.into());
            }
        }
        Ok(ruleset)
    }
}

/// Rules with an id, a reference and a version each: those of an old rule where it is the same one, by its id, by its
/// reference, or else by all that it says.
fn arranged(now: Timestamp, old: &[Value], given: &[Value]) -> Result<Vec<Value>, ItemError> {
    let mut read = Vec::with_capacity(given.len());
    for (index, rule) in given.iter().enumerate() {
        let within = |problem: BadTerms| BadTerms::new(format_args!("rules[{index}].{problem}"));
        let rule = rule.as_object().ok_or_else(|| bad(&format!("rules[{index}]"), "an object is wanted"))?;
        read.push(form::read(&RULE, &without_position(rule)).map_err(within)?);
    }
    let same = same_rules(old, &read);
    let mut references = HashSet::new();
    for (index, (rule, same)) in read.iter_mut().zip(same).enumerate() {
        let id = same.map_or_else(|| ItemId::at(now).to_string(), |old| text_of(old, "id").to_owned());
        let usual = same.map_or(&*id, |old| text_of(old, "ref"));
        let reference = rule.get("ref").and_then(Value::as_str).unwrap_or(usual).to_owned();
        if !references.insert(reference.clone()) {
            let place = format!("rules[{index}].ref");
            return Err(bad(&place, format_args!("two rules are called {reference}; each needs a name of its own")));
        }
        rule.insert("ref".into(), reference.into());
        rule.insert("id".into(), id.into());
        let is_same = same.is_some_and(|old| said(old.as_object()) == said(Some(rule)) && old["ref"] == rule["ref"]);
        let (version, updated) = match same {
            Some(old) if is_same => (old["version"].clone(), old["last_updated"].clone()),
            Some(old) => (json!(old["version"].as_u64().unwrap_or_default().saturating_add(1)), json!(now)),
            None => (json!(1), json!(now)),
        };
        rule.insert("version".into(), version);
        rule.insert("last_updated".into(), updated);
    }
    Ok(read.into_iter().map(Value::Object).collect())
}

/// The old rule that each rule is, if it is one: none is two.
fn same_rules<'a>(old: &'a [Value], read: &[Members]) -> Vec<Option<&'a Value>> {
    let mut left: Vec<Option<&Value>> = old.iter().map(Some).collect();
    let mut same: Vec<Option<&Value>> = vec![None; read.len()];
    for name in ["id", "ref"] {
        let places: HashMap<&str, usize> =
            old.iter().enumerate().map(|(index, old)| (text_of(old, name), index)).collect();
        for (rule, same) in read.iter().zip(&mut same).filter(|(_, same)| same.is_none()) {
            let place = rule.get(name).and_then(Value::as_str).and_then(|wanted| places.get(wanted));
            *same = place.and_then(|place| left[*place].take());
        }
    }
    // Whoever names none of his rules means by the same words the same rule.
    let mut nameless: HashMap<String, VecDeque<&Value>> = HashMap::new();
    for old in left.into_iter().flatten().filter(|old| old["ref"] == old["id"]) {
        nameless.entry(said(old.as_object())).or_default().push_back(old);
    }
    for (rule, same) in read.iter().zip(&mut same).filter(|(rule, same)| same.is_none() && !rule.contains_key("ref")) {
        *same = nameless.get_mut(&said(Some(rule))).and_then(VecDeque::pop_front);
    }
    same
}

/// What somebody has said of a rule, without what we add.
fn said(rule: Option<&Members>) -> String {
    let ours = |name: &str| matches!(name, "id" | "ref" | "version" | "last_updated");
    let said = rule.into_iter().flatten().filter(|(name, _)| !ours(name));
    // The members are in the order of their names.
    said.map(|(name, value)| format!("{name}:{value},")).collect()
}

fn without_position(rule: &Members) -> Members {
    let mut rule = rule.clone();
    // Of whoever has read it before.
    for member in ["position", "version", "last_updated"] {
        rule.remove(member);
    }
    rule
}

fn without_id(rule: &Members) -> Members {
    let mut rule = rule.clone();
    rule.remove("id");
    rule
}

/// Where a rule wants to be among these.
fn place(rule: &Members, rules: &[Value]) -> Result<Option<usize>, ItemError> {
    let Some(position) = rule.get("position").filter(|position| !position.is_null()) else { return Ok(None) };
    let member = |name: &str| position.get(name).filter(|value| !value.is_null());
    let other = |value: &Value| position_of(rules, value.as_str().unwrap_or_default());
    match (member("before"), member("after"), member("index")) {
        (Some(before), None, None) if before == "" => Ok(Some(0)),
        (Some(before), None, None) => other(before).map(Some).ok_or_else(|| bad("position.before", "no such rule")),
        (None, Some(after), None) if after == "" => Ok(Some(rules.len())),
        (None, Some(after), None) => {
            other(after).map(|at| Some(at + 1)).ok_or_else(|| bad("position.after", "no such rule"))
        }
        (None, None, Some(index)) => {
            let number = crate::balance::number::whole::<usize, _>(index).ok();
            let number = number.filter(|number| (1..=rules.len() + 1).contains(number));
            let wanted = || bad("position.index", format_args!("a number from 1 to {} is wanted", rules.len() + 1));
            number.map(|number| Some(number - 1)).ok_or_else(wanted)
        }
        _ => Err(bad("position", "one of before, after and index is wanted")),
    }
}

fn position(rules: &[Value], id: &str) -> Result<usize, ItemError> {
    position_of(rules, id).ok_or_else(|| ItemError::NotFound(format!("rule {id}")))
}

fn position_of(rules: &[Value], id: &str) -> Option<usize> {
    rules.iter().position(|rule| text_of(rule, "id") == id)
}

fn rules_of(item: &Item) -> Vec<Value> {
    item.terms.get("rules").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn text_of<'a>(rule: &'a Value, member: &str) -> &'a str {
    rule[member].as_str().unwrap_or_default()
}

fn read_phase(value: &Value) -> Result<Value, String> {
    let phase = value.as_str().and_then(RulesetPhase::named);
    phase.map(|phase| phase.name.into()).ok_or_else(|| {
        let known = RulesetPhase::ALL.map(|phase| phase.name).join(", ");
        format!("rules are kept of these phases: {known}")
    })
}

fn read_id(value: &Value) -> Result<Value, String> {
    let id = value.as_str().and_then(|text| text.parse::<ItemId>().ok());
    id.map(|id| id.to_string().into()).ok_or_else(|| "an id is wanted".into())
}

/// The one that tools write is found by its phase.
fn index(terms: &Members) -> Option<&str> {
    let is_entry_point = terms.get("kind").is_some_and(|kind| kind != "custom");
    terms.get("phase")?.as_str().filter(|_| is_entry_point)
}

fn check(check: &mut Check<'_>) -> Result<(), ItemError> {
    let item = &*check.new;
    let (kind, phase) = (item.text("kind"), item.text("phase"));
    let kinds: &[&str] = if item.zone.is_some() { &["zone"] } else { &["root", "custom"] };
    if !kinds.contains(&kind) {
        return Err(bad("kind", format_args!("{} is wanted here", kinds.join(" or "))));
    }
    for member in ["kind", "phase"] {
        if let Some(old) = check.old.filter(|old| old.text(member) != item.text(member)) {
            return Err(bad(member, format_args!("it stays {}; make another ruleset", old.text(member))));
        }
    }
    if let Some(name) = index(&item.terms) {
        let mut others = check.snapshot.items_named(ItemKind::Ruleset, name);
        if others.any(|other| other.zone == item.zone && other.id != item.id) {
            return Err(ItemError::Taken(format!("a ruleset of kind {kind} for {phase}; change that one")));
        }
    }
    let actions = RulesetPhase::named(phase).map(|phase| phase.actions).unwrap_or_default();
    for (index, rule) in rules_of(item).iter().enumerate() {
        if !actions.contains(&text_of(rule, "action")) {
            let wanted = format_args!("one of {} is wanted in {phase}", actions.join(", "));
            return Err(bad(&format!("rules[{index}].action"), wanted));
        }
        match (phase == "http_ratelimit", rule.get("ratelimit")) {
            (true, None) => return Err(bad(&format!("rules[{index}].ratelimit"), "it is missing")),
            (false, Some(_)) => {
                return Err(bad(&format!("rules[{index}].ratelimit"), "only in the phase http_ratelimit"));
            }
            (true, Some(limit)) => {
                if limit.get("requests_per_period").is_none() && limit.get("score_per_period").is_none() {
                    return Err(bad(&format!("rules[{index}].ratelimit.requests_per_period"), "it is missing"));
                }
            }
            (false, None) => (),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn members(value: Value) -> Members {
        value.as_object().unwrap().clone()
    }

    fn rule(expression: &str) -> Value {
        json!({ "action": "block", "expression": expression })
    }

    /// Applies edits one after the other.
    fn edited(edits: &[RulesetEdit]) -> Item {
        let mut item: Option<Item> = None;
        for edit in edits {
            let terms = edit.apply(NOW, item.as_ref(), "zone", Some("http_request_firewall_custom")).unwrap();
            let id = item.map_or_else(|| ItemId::at(NOW), |item| item.id);
            item = Some(Item { kind: ItemKind::Ruleset, zone: None, id, terms, created_at: NOW, modified_at: NOW });
        }
        item.unwrap()
    }

    fn expressions(item: &Item) -> Vec<String> {
        rules_of(item).iter().map(|rule| text_of(rule, "expression").to_owned()).collect()
    }

    fn id_of(item: &Item, index: usize) -> String {
        text_of(&rules_of(item)[index], "id").to_owned()
    }

    #[test]
    fn the_same_rules_again_are_the_same() {
        let all = RulesetEdit::Replace(members(
            json!({ "rules": [rule("a"), rule("b"), { "action": "log", "expression": "c", "ref": "mine" }] }),
        ));
        let first = edited(std::slice::from_ref(&all));
        let again = all.apply(NOW, Some(&first), "zone", None).unwrap();
        assert_eq!(again, first.terms, "without ids");
        let read_back = RulesetEdit::Replace(first.terms.clone()).apply(NOW, Some(&first), "zone", None).unwrap();
        assert_eq!(read_back, first.terms, "with ids");
        // In another order each is still itself.
        let rules = json!({ "rules": [{ "action": "block", "expression": "c", "ref": "mine" }, rule("b"), rule("d")] });
        let second = RulesetEdit::Replace(members(rules)).apply(NOW, Some(&first), "zone", None).unwrap();
        let (old, new) = (rules_of(&first), second["rules"].as_array().unwrap().clone());
        assert_eq!((&new[0]["id"], &new[1], &second["version"]), (&old[2]["id"], &old[1], &json!(2)));
        assert_eq!((&new[0]["version"], &new[2]["version"]), (&json!(2), &json!(1)));
        assert!(old.iter().all(|old| old["id"] != new[2]["id"]));
    }

    #[test]
    fn rules_come_where_they_want_to_be() {
        let first = edited(&[RulesetEdit::Replace(members(json!({ "rules": [rule("a"), rule("b")] })))]);
        let at = |position: Value| {
            let mut new = members(rule("n"));
            new.insert("position".into(), position);
            RulesetEdit::AddRule(new)
                .apply(NOW, Some(&first), "zone", None)
                .map(|terms| expressions(&Item { terms, ..first.clone() }).concat())
        };
        for (position, expected) in [
            (json!(null), "abn"),
            (json!({ "index": 1 }), "nab"),
            (json!({ "index": "3" }), "abn"),
            (json!({ "before": id_of(&first, 1) }), "anb"),
            (json!({ "after": id_of(&first, 0) }), "anb"),
            (json!({ "before": "" }), "nab"),
            (json!({ "after": "" }), "abn"),
        ] {
            assert_eq!(at(position.clone()).unwrap(), expected, "{position}");
        }
        for position in [
            json!({}),
            json!({ "index": 0 }),
            json!({ "index": 4 }),
            json!({ "before": "x" }),
            json!({ "index": 1, "after": "" }),
            json!(7),
        ] {
            assert!(at(position.clone()).is_err(), "{position}");
        }
        let moved = RulesetEdit::ChangeRule(
            id_of(&first, 0),
            members(json!({ "position": { "after": "" }, "enabled": false })),
        );
        let moved = Item { terms: moved.apply(NOW, Some(&first), "zone", None).unwrap(), ..first.clone() };
        assert_eq!((expressions(&moved).concat(), id_of(&moved, 1)), ("ba".into(), id_of(&first, 0)));
        assert_eq!((&rules_of(&moved)[1]["enabled"], &rules_of(&moved)[1]["version"]), (&json!(false), &json!(2)));
        let less = RulesetEdit::RemoveRule(id_of(&first, 0)).apply(NOW, Some(&first), "zone", None).unwrap();
        assert_eq!(expressions(&Item { terms: less, ..first.clone() }), ["b"]);
        for edit in [RulesetEdit::RemoveRule("x".into()), RulesetEdit::ChangeRule("x".into(), Members::new())] {
            assert!(matches!(edit.apply(NOW, Some(&first), "zone", None), Err(ItemError::NotFound(_))));
        }
    }

    #[test]
    fn two_rules_of_one_name_are_refused() {
        let mut one = rule("a");
        one["ref"] = json!("x");
        let rules = RulesetEdit::Replace(members(json!({ "rules": [one, one] })));
        let problem = rules.apply(NOW, None, "zone", Some("http_ratelimit")).unwrap_err().to_string();
        assert!(problem.starts_with("rules[1].ref: two rules are called x"), "{problem}");
    }
}
