use http::Method;
use registry::{AccountId, Area, Permission, RulesetPhase, ZoneId};
use serde_json::{Map, Value, json};

use super::operation::{About, Body, Described, Outcome, Parameter, Routes};
use super::schema::{self, NAME, Schema, like, list, may, must, object, one_of, text, walk};
use crate::error::CODES;
use crate::permission::{self, Need};
use crate::token;

/// Who may do what is done at some paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Everybody.
    Open,
    /// Whoever shows a token that may do it, below the v4 API's base.
    V4,
    /// The same, below the base of what only this edge has.
    Own,
}

/// Paths that begin alike, and are guarded alike.
pub(crate) struct Part {
    pub(crate) base: &'static str,
    pub(crate) guard: Guard,
    pub(crate) routes: Routes,
}

/// What all of it is.
const ABOUT: &str = "The control API of a Snicket edge, in the shape of the Cloudflare v4 API. Calls with a token are \
                     counted: 1,200 of one token in five minutes. Members of a body that are not described are passed over, \
                     its content type does not matter, and an empty body is an empty object.";

/// The document of these routes.
pub(super) fn write(parts: impl IntoIterator<Item = Part>) -> Value {
    let mut document = json!({
        "openapi": "3.1.0",
        "info": { "title": "Snicket", "version": env!("CARGO_PKG_VERSION"), "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" } },
        "servers": [{ "url": "/" }],
        "paths": {},
        "components": { "schemas": {}, "responses": failures(), "securitySchemes": schemes() },
    });
    for Part { base, guard, routes } in parts {
        for described in routes.described {
            let path = format!("{base}{}", described.path);
            let method = described.method.as_str().to_ascii_lowercase();
            document["paths"][path][method] = operation(base, guard, described);
        }
    }
    lift_schemas(&mut document);
    document
}

fn operation(base: &str, guard: Guard, described: Described) -> Value {
    let Described { path, method, summary, tag, describe } = described;
    let About { parameters, body, outcome, failures } = describe(About::new());
    let mut said = json!({
        "operationId": operation_id(&method, base, &path),
        "summary": summary,
        "responses": responses(outcome),
    });
    if !tag.is_empty() {
        said["tags"] = json!([tag]);
    }
    let in_path = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}')).map(in_path);
    let parameters: Vec<_> = in_path.chain(parameters).map(parameter).collect();
    let mut statuses = failures;
    if !parameters.is_empty() {
        said["parameters"] = parameters.into();
    }
    if path.contains('{') {
        statuses.push(404);
    }
    if let Some(Body { content, required }) = body {
        let content: Map<_, _> =
            content.into_iter().map(|(kind, schema)| (kind.into(), json!({ "schema": schema }))).collect();
        said["requestBody"] = json!({ "required": required, "content": content });
        statuses.extend([400, 408, 413]);
    }
    if guard != Guard::Open {
        statuses.extend([400, 403, 429]);
        statuses.extend(permission::is_write(&method).then_some(503));
        said["security"] = json!([{ "token": [] }, { "email": [], "key": [] }]);
        if path.starts_with("/certificates") {
            said["security"] = json!([{ "token": [] }, { "email": [], "key": [] }, { "certificatesKey": [] }]);
        }
        if let Some(group) = permission_group(guard, &method, &path) {
            said["x-permission-group"] = group.into();
        }
    }
    for status in statuses {
        let responses = said["responses"].as_object_mut().expect("written as an object");
        responses
            .entry(status.to_string())
            .or_insert_with(|| json!({ "$ref": format!("#/components/responses/{status}") }));
    }
    said
}

fn operation_id(method: &Method, base: &str, path: &str) -> String {
    let words = format!("{} {base}{path}", method.as_str().to_ascii_lowercase());
    let words = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_")
}

/// The name of the permissions that a token needs, as the guard decides by the path.
fn permission_group(guard: Guard, method: &Method, path: &str) -> Option<String> {
    let path = path.replace("{zone}", &ZoneId::from_bytes([0; 16]).to_string());
    let path = path.replace("{account}", &AccountId::from_bytes([0; 16]).to_string());
    let need = if guard == Guard::V4 { permission::need(method, &path) } else { permission::own_need(&path) };
    let write = permission::takes_write(method, &path);
    let named = |area| token::group_name(Permission { area, write }).map(str::to_owned);
    match need {
        Need::Token => None,
        Need::Account(area, _) | Need::Zone(area, _) => named(area),
        Need::NewZone => named(Area::Zone),
        Need::Everything => Some("all of them".to_owned()),
    }
}

fn parameter(parameter: Parameter) -> Value {
    let Parameter { place, name, summary, schema, required } = parameter;
    json!({ "in": place, "name": name, "description": summary, "required": required, "schema": schema.answered() })
}

/// What stands for a part of a path.
fn in_path(name: &str) -> Parameter {
    let one_of_all = |texts: Vec<&str>| one_of(&texts);
    let (schema, summary): (Schema, _) = match name {
        "account" => (schema::id(), "The account"),
        "tunnel" | "connector" => (schema::uuid(), "Its id"),
        "item" => (like("^[0-9a-f-]{32,36}$"), "Its id"),
        "setting" => (one_of_all(crate::zone::setting::names()), "Which setting"),
        "phase" => (one_of(&RulesetPhase::ALL.map(|phase| phase.name)), "Which phase"),
        "region" => (one_of(&registry::REGIONS.map(|(code, _)| code)), "Which region"),
        "version" => (like("^[0-9]+$"), "Which version"),
        "certificate" => (like("^[1-9][0-9]*$"), "The serial number"),
        "hostname" => (schema::hostname(), "The name"),
        "ip" => (text().least(2).most(45), "An IP address"),
        "protocol" => (one_of(&["tcp", "udp"]), "What visitors speak"),
        "number" => (schema::integer(1, 65_535), "The port"),
        "key" => (text().least(1), "What the agent made up"),
        _ => (schema::id(), "Its id"),
    };
    Parameter { place: "path", name: name.to_owned(), summary, schema, required: true }
}

fn responses(outcome: Outcome) -> Value {
    const NONE: &[u16] = &[];
    let json = |schema: Value| json!({ "application/json": { "schema": schema } });
    let (content, others) = match outcome {
        Outcome::Result(result) => (json(success(result, None)), NONE),
        Outcome::Page(result) => (json(success(result, Some(page_info()))), NONE),
        Outcome::Stretch(result) => (json(success(result, Some(stretch_info()))), NONE),
        Outcome::Bare(schema, others) => (json(schema.answered()), others),
        Outcome::Text(kind, failures) => (json!({ kind: { "schema": text().answered() } }), failures),
    };
    let mut responses = json!({ "200": { "description": "As wanted", "content": content } });
    let failed = json!({ "description": "What is wrong", "content": content });
    others.iter().for_each(|status| responses[status.to_string()] = failed.clone());
    responses
}

/// A result in the envelope.
fn success(result: Schema, info: Option<Schema>) -> Value {
    let success = object([
        must("success", json!({ "const": true }).into()),
        must("errors", list(schema::anything()).most(0)),
        must("messages", list(schema::anything()).most(0)),
    ]);
    let mut inner = object([must("result", result)]);
    if let Some(info) = info {
        inner = inner.with([must("result_info", info)]);
    }
    json!({ "allOf": [success.named("Success").answered(), inner.answered()] })
}

fn page_info() -> Schema {
    let members = ["page", "per_page", "count", "total_count", "total_pages"].map(|name| must(name, schema::count()));
    object(members).named("PageInfo")
}

fn stretch_info() -> Schema {
    object([must("count", schema::count()), must("per_page", schema::count()), may("cursor", text())]).named("PartInfo")
}

/// What is answered with each status of a failure.
fn failures() -> Value {
    let mut statuses: Vec<u16> = CODES.iter().flat_map(|code| code.statuses).copied().collect();
    statuses.sort_unstable();
    statuses.dedup();
    let mut failures = json!({});
    for status in statuses {
        let codes: Vec<_> = CODES.iter().filter(|code| code.statuses.contains(&status)).collect();
        let meanings: Vec<_> = codes.iter().map(|code| format!("- {}: {}", code.number, code.meaning)).collect();
        let numbers: Vec<_> = codes.iter().map(|code| code.number).collect();
        failures[status.to_string()] = json!({
            "description": meanings.join("\n"),
            "content": { "application/json": { "schema": failure(&numbers) } },
        });
    }
    failures
}

fn failure(codes: &[u32]) -> Value {
    let cause = object([must("code", schema::count()), must("message", text())]);
    let error = object([
        must("code", json!({ "type": "integer", "enum": codes }).into()),
        must("message", text()),
        may("error_chain", list(cause).about("What is behind it, such as what is wrong with a DNS record")),
    ]);
    let failure = object([
        must("success", json!({ "const": false }).into()),
        must("errors", list(error).least(1)),
        must("messages", list(schema::anything()).most(0)),
        must("result", schema::null()),
    ]);
    failure.answered()
}

fn schemes() -> Value {
    json!({
        "token": { "type": "http", "scheme": "bearer", "description": "An API token of this edge" },
        "email": { "type": "apiKey", "in": "header", "name": "X-Auth-Email", "description": "Any address; there are no users" },
        "key": { "type": "apiKey", "in": "header", "name": "X-Auth-Key", "description": "An API token of this edge" },
        "certificatesKey": { "type": "apiKey", "in": "header", "name": "X-Auth-User-Service-Key",
            "description": "v1.0- and an API token of this edge; for certificates only" },
    })
}

/// Brings the schemas with names to where all of them are, and leaves references in their places.
fn lift_schemas(document: &mut Value) {
    let schemas = std::cell::RefCell::new(Map::new());
    let lift = |schema: &mut Value| {
        let Some(members) = schema.as_object_mut() else { return };
        let Some(Value::String(name)) = members.remove(NAME) else { return };
        let words = ["default", "description"].map(|word| (word, members.remove(word)));
        let mut reference = json!({ "$ref": format!("#/components/schemas/{name}") });
        for (word, value) in words {
            if let Some(value) = value {
                reference[word] = value;
            }
        }
        let lifted = std::mem::replace(schema, reference);
        let first = schemas.borrow_mut().insert(name.clone(), lifted.clone());
        debug_assert!(first.is_none_or(|first| first == lifted), "{name} is two schemas");
    };
    each_schema(document, &mut |schema| walk(schema, &lift));
    document["components"]["schemas"] = schemas.into_inner().into();
}

/// Shows every schema that stands somewhere by itself.
fn each_schema(value: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if name == "schema" { visit(member) } else { each_schema(member, visit) }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_schema(item, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}
