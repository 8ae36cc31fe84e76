use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;

use super::schema::{Schema, count, text};
use crate::state::Shared;

/// What is done at a path by a method: the handler, and what it takes and answers.
pub(crate) struct Operation {
    pub(super) about: About,
    serve: MethodRouter<Arc<Shared>>,
}

/// The description of an operation.
pub(crate) struct About {
    pub(super) method: Method,
    /// What it belongs to.
    pub(super) tag: &'static str,
    pub(super) summary: String,
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
    /// JSON without the envelope.
    Bare(Schema),
    /// Text of this kind; failures with these statuses are such, too.
    Text(&'static str, &'static [u16]),
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident $method:ident;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name<H: Handler<T, Arc<Shared>>, T: 'static>(summary: impl Into<String>, handler: H) -> Operation {
            Operation { about: About::new(Method::$method, summary.into()), serve: on(MethodFilter::$method, handler) }
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

/// What GET does at a path that whoever serves the router adds to it.
pub(crate) fn elsewhere(summary: &str) -> Operation {
    Operation { about: About::new(Method::GET, summary.to_owned()), serve: MethodRouter::new() }
}

impl About {
    fn new(method: Method, summary: String) -> Self {
        Self {
            method,
            tag: "",
            summary,
            parameters: Vec::new(),
            body: None,
            outcome: Outcome::Result(super::schema::null()),
            failures: Vec::new(),
        }
    }
}

impl Operation {
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
        self.about.body = Some(Body { content: vec![("application/json", schema)], required });
        self
    }

    /// Takes text of this kind, or of this other one.
    pub(crate) fn takes_content<const N: usize>(mut self, content: [(&'static str, Schema); N]) -> Self {
        let content = content.map(|(kind, schema)| (kind, schema.taken())).into();
        self.about.body = Some(Body { content, required: true });
        self
    }

    /// A parameter of the query.
    pub(crate) fn query(self, name: impl Into<String>, schema: Schema, summary: &'static str) -> Self {
        self.parameter(Parameter { place: "query", name: name.into(), summary, schema, required: false })
    }

    /// A parameter of the query that must be there.
    pub(crate) fn asks(self, name: &str, schema: Schema, summary: &'static str) -> Self {
        self.parameter(Parameter { place: "query", name: name.into(), summary, schema, required: true })
    }

    /// Only if the version is this one.
    pub(crate) fn if_match(self) -> Self {
        let summary = "The version that is to be changed, in quotes, or `*`; another one is refused with 412";
        let schema = super::schema::like(r#"^\s*("[+-]?[0-9]+"|\*)\s*$"#);
        self.parameter(Parameter { place: "header", name: "If-Match".into(), summary, schema, required: false })
            .fails([412])
    }

    fn parameter(mut self, parameter: Parameter) -> Self {
        self.about.parameters.push(parameter);
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

    /// Answers this, with the number of its page.
    pub(crate) fn answers_page(self, result: Schema) -> Self {
        self.pages().outcome(Outcome::Page(result))
    }

    /// Answers a part of these.
    pub(crate) fn answers_part_of(self, item: Schema) -> Self {
        self.query("per_page", count(), "Items at most")
            .query("cursor", text(), "Where to go on, as the last part said")
            .outcome(Outcome::Stretch(super::schema::list(item)))
    }

    /// Answers this JSON, not in the envelope.
    pub(crate) fn answers_bare(self, schema: Schema) -> Self {
        self.outcome(Outcome::Bare(schema))
    }

    /// Answers text of this kind, in failures with these statuses as well.
    pub(crate) fn answers_text(self, kind: &'static str, failures: &'static [u16]) -> Self {
        self.outcome(Outcome::Text(kind, failures)).fails(failures.iter().copied())
    }

    fn pages(self) -> Self {
        self.query("page", count(), "Which page, from 1").query("per_page", count(), "Items on a page")
    }

    fn outcome(mut self, outcome: Outcome) -> Self {
        self.about.outcome = outcome;
        self
    }

    /// May fail with these statuses as well.
    pub(crate) fn fails(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.about.failures.extend(statuses);
        self
    }

    /// With another way to serve it, such as what other methods do.
    pub(crate) fn serving(self, change: impl FnOnce(MethodRouter<Arc<Shared>>) -> MethodRouter<Arc<Shared>>) -> Self {
        Self { serve: change(self.serve), ..self }
    }
}

/// Paths with what is done at them.
#[derive(Default)]
pub(crate) struct Routes {
    pub(crate) router: Router<Arc<Shared>>,
    pub(super) described: Vec<(String, About)>,
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What is done at this path.
    pub(crate) fn at(mut self, path: &str, operations: impl IntoIterator<Item = Operation>) -> Self {
        let mut serve = MethodRouter::new();
        for operation in operations {
            serve = serve.merge(operation.serve);
            self.described.push((path.to_owned(), operation.about));
        }
        Self { router: self.router.route(path, serve), ..self }
    }

    /// With those as well.
    pub(crate) fn and(mut self, others: Self) -> Self {
        self.described.extend(others.described);
        Self { router: self.router.merge(others.router), ..self }
    }

    /// All of these belong to this.
    pub(crate) fn tagged(mut self, tag: &'static str) -> Self {
        self.described.iter_mut().for_each(|(_, about)| about.tag = tag);
        self
    }
}
