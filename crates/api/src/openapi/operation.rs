use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;

use super::schema::{Schema, any_of, count, like, text};
use crate::state::Shared;

/// What is done at a path by a method: the handler, and what it takes and answers. The latter is written when somebody
/// asks for the document, since all of it together is megabytes.
pub(crate) struct Operation {
    pub(super) method: Method,
    pub(super) summary: String,
    pub(super) describe: Box<dyn FnOnce(About) -> About>,
    /// None: whoever serves the router does that.
    serve: Option<MethodRouter<Arc<Shared>>>,
}

/// What an operation takes and answers.
pub(crate) struct About {
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Body>,
    pub(super) outcome: Outcome,
    /// Statuses of failures, beside those that follow from the rest.
    pub(super) failures: Vec<u16>,
}

/// What a query or a header has in it.
pub(super) struct Parameter {
    pub(super) place: &'static str,
    pub(super) name: String,
    pub(super) summary: &'static str,
    pub(super) schema: Schema,
    pub(super) required: bool,
}

/// What is sent.
pub(super) struct Body {
    /// Kinds of content, and what each is like.
    pub(super) content: Vec<(&'static str, serde_json::Value)>,
    pub(super) required: bool,
}

/// What is answered, if all is well.
pub(super) enum Outcome {
    /// In the envelope.
    Result(Schema),
    /// A page of a list, in the envelope.
    Page(Schema),
    /// A part of a list after which one reads on by a cursor, in the envelope.
    Stretch(Schema),
    /// JSON without the envelope, with these statuses as well.
    Bare(Schema, &'static [u16]),
    /// Text of this kind; failures with these statuses are such, too.
    Text(&'static str, &'static [u16]),
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident $method:ident;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name<H: Handler<T, Arc<Shared>>, T: 'static>(
            summary: impl Into<String>,
            handler: H,
            describe: impl FnOnce(About) -> About + 'static,
        ) -> Operation {
            Operation {
                method: Method::$method,
                summary: summary.into(),
                describe: Box::new(describe),
                serve: Some(on(MethodFilter::$method, handler)),
            }
        }
    )*};
}

methods! {
    /// What GET does.
    get GET;
    /// What POST does.
    post POST;
    /// What PUT does.
    put PUT;
    /// What PATCH does.
    patch PATCH;
    /// What DELETE does.
    delete DELETE;
}

/// As [`Query::page`](crate::query::Query::page) reads it.
fn page_number() -> Schema {
    any_of([count(), like(r"^[0-9]+\.0*$")])
}

/// What GET does at a path that whoever serves the router adds to it.
pub(crate) fn elsewhere(summary: &str, describe: impl FnOnce(About) -> About + 'static) -> Operation {
    let describe = Box::new(describe);
    Operation { method: Method::GET, summary: summary.to_owned(), describe, serve: None }
}

impl Operation {
    /// With another way to serve it, such as what other methods do.
    pub(crate) fn serving(self, change: impl FnOnce(MethodRouter<Arc<Shared>>) -> MethodRouter<Arc<Shared>>) -> Self {
        Self { serve: self.serve.map(change), ..self }
    }
}

impl About {
    /// Nothing is said of it yet.
    pub(super) fn new() -> Self {
        let outcome = Outcome::Result(super::schema::null());
        Self { parameters: Vec::new(), body: None, outcome, failures: Vec::new() }
    }

    /// Takes JSON, in full. Nothing at all is the same as an empty object.
    pub(crate) fn takes(self, body: Schema) -> Self {
        self.body(body.taken())
    }

    /// Takes JSON that says what is to be otherwise.
    pub(crate) fn takes_change_of(self, body: Schema) -> Self {
        self.body(body.changed())
    }

    fn body(mut self, schema: serde_json::Value) -> Self {
        let required = schema.get("required").is_some() || schema.get("type").is_none();
        self.body = Some(Body { content: vec![("application/json", schema)], required });
        self
    }

    /// Takes text of these kinds, or nothing.
    pub(crate) fn takes_content<const N: usize>(mut self, content: [(&'static str, Schema); N]) -> Self {
        let content = content.map(|(kind, schema)| (kind, schema.taken())).into();
        self.body = Some(Body { content, required: false });
        self
    }

    /// A parameter of the query. An empty one counts as absent.
    pub(crate) fn query(self, name: impl Into<String>, schema: Schema, summary: &'static str) -> Self {
        let schema = if schema.is_any_text() { schema } else { any_of([schema, like("^$")]) };
        self.parameter(Parameter { place: "query", name: name.into(), summary, schema, required: false })
    }

    /// A parameter of the query that must be there.
    pub(crate) fn asks(self, name: &str, schema: Schema, summary: &'static str) -> Self {
        self.parameter(Parameter { place: "query", name: name.into(), summary, schema, required: true })
    }

    /// Only if the version is this one.
    pub(crate) fn if_match(self) -> Self {
        let summary = "The version that is to be changed, in quotes, or `*`; another one is refused with 412";
        let schema = like(r#"^\s*("[+-]?[0-9]+"|\*)\s*$"#);
        self.parameter(Parameter { place: "header", name: "If-Match".into(), summary, schema, required: false })
            .fails([412])
    }

    fn parameter(mut self, parameter: Parameter) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// Answers this as the result.
    pub(crate) fn answers(self, result: Schema) -> Self {
        self.outcome(Outcome::Result(result))
    }

    /// Answers a page of these.
    pub(crate) fn answers_page_of(self, item: Schema) -> Self {
        self.pages().outcome(Outcome::Page(super::schema::list(item)))
    }

    /// Answers all of these, on one page.
    pub(crate) fn answers_all_of(self, item: Schema) -> Self {
        self.outcome(Outcome::Page(super::schema::list(item)))
    }

    /// Answers this, with the number of its page.
    pub(crate) fn answers_page(self, result: Schema) -> Self {
        self.pages().outcome(Outcome::Page(result))
    }

    /// Answers a part of these.
    pub(crate) fn answers_part_of(self, item: Schema) -> Self {
        self.query("per_page", page_number(), "Items at most")
            .query("cursor", text(), "Where to go on, as the last part said")
            .outcome(Outcome::Stretch(super::schema::list(item)))
    }

    /// Answers this JSON, not in the envelope.
    pub(crate) fn answers_bare(self, schema: Schema) -> Self {
        self.answers_bare_even_at(schema, &[])
    }

    /// Answers this JSON, not in the envelope, with these statuses as well.
    pub(crate) fn answers_bare_even_at(self, schema: Schema, statuses: &'static [u16]) -> Self {
        self.outcome(Outcome::Bare(schema, statuses))
    }

    /// Answers text of this kind, in failures with these statuses as well.
    pub(crate) fn answers_text(self, kind: &'static str, failures: &'static [u16]) -> Self {
        self.outcome(Outcome::Text(kind, failures)).fails(failures.iter().copied())
    }

    fn pages(self) -> Self {
        let pages = self.query("page", page_number(), "Which page, from 1");
        pages.query("per_page", page_number(), "Items on a page")
    }

    fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// May fail with these statuses as well.
    pub(crate) fn fails(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.failures.extend(statuses);
        self
    }
}

/// Paths with what is done at them.
#[derive(Default)]
pub(crate) struct Routes {
    pub(crate) router: Router<Arc<Shared>>,
    pub(super) described: Vec<Described>,
}

/// What is to be told of an operation.
pub(super) struct Described {
    pub(super) path: String,
    pub(super) method: Method,
    pub(super) summary: String,
    /// What it belongs to.
    pub(super) tag: &'static str,
    pub(super) describe: Box<dyn FnOnce(About) -> About>,
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What is done at this path.
    pub(crate) fn at(mut self, path: &str, operations: impl IntoIterator<Item = Operation>) -> Self {
        let mut served: Option<MethodRouter<_>> = None;
        for Operation { method, summary, describe, serve } in operations {
            served = match (served, serve) {
                (Some(served), Some(serve)) => Some(served.merge(serve)),
                (served, serve) => served.or(serve),
            };
            self.described.push(Described { path: path.to_owned(), method, summary, tag: "", describe });
        }
        if let Some(served) = served {
            self.router = self.router.route(path, served);
        }
        self
    }

    /// With those as well.
    pub(crate) fn and(mut self, others: Self) -> Self {
        self.described.extend(others.described);
        Self { router: self.router.merge(others.router), ..self }
    }

    /// All of these belong to this.
    pub(crate) fn tagged(mut self, tag: &'static str) -> Self {
        self.described.iter_mut().for_each(|described| described.tag = tag);
        self
    }
}
