//! The specification, generated from the routes that are served.

use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{ArrayItems, Components, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{Info, License, Object, OpenApi, Ref, RefOr, Server};
use utoipa::{PartialSchema, ToSchema};

use super::code::Code;
use super::problem::{FieldError, Problem, ProblemBody};
use super::routes::SECURITY_SCHEME;
use super::{health, schema, v1};

const ABOUT: &str = "\
Holdfast is a managed MQTT service that keeps sessions. What is read here is what a device meets \
over MQTT, and what is changed here holds for the next packet.

**Errors** are `application/problem+json` (RFC 9457). `code` is stable; each operation lists those \
it can answer with. **Times** are RFC 3339 in UTC with milliseconds; durations are whole seconds, \
in fields that end in `_seconds`. **Lists** are paged: send `next_page_token` back as `page_token`, \
with the same filter, until it is absent. **Concurrency**: send a record's `ETag` back as `If-Match` \
and a change is made to what you have read or not at all. **Effects**: a change is answered when the data \
plane enforces it. When that takes longer than `Prefer: wait=N` (2 seconds when not sent), the answer is 202: with \
`Enforcement: pending` it is committed and will be enforced, over a crash too; with an operation or a path, these tell \
what becomes of it. **Unknown** fields and query parameters \
are refused. **Request ids**: send `X-Request-Id`, or take the one in the answer; the service's log \
has it. **Idempotency**: send `Idempotency-Key` with a change and repeat it safely for 24 hours. After \
a crash a database change was made with its answer or not at all, so the repetition is right either \
way; a command to the data plane (disconnect, delete a session) that was under way is not repeated, but \
answered `idempotency_outcome_unknown`: read the record. **Audit**: every change is a row in \
`/v1/audit-log`, written before its effect.";

const TOKEN: &str = "\
A JSON Web Token (HS256), which `holdfast token create --role viewer` makes, or an API key of `/v1/api-keys`. The first start leaves an \
administrator's in `{data-dir}/admin.token`. Roles: `viewer` reads, `operator` acts on sessions, \
`admin` changes clusters, quotas and users. A token bound to a cluster sees that one alone.";

/// The specification of the API that this program serves.
pub fn openapi() -> OpenApi {
    let (_, mut document) = v1::routes().into_router().merge(health::routes()).split_for_parts();
    document.info = Info::new("Holdfast", env!("CARGO_PKG_VERSION"));
    document.info.description = Some(ABOUT.to_owned());
    let mut licence = License::new("Apache-2.0");
    licence.identifier = Some("Apache-2.0".to_owned());
    document.info.license = Some(licence);
    document.servers = Some(vec![Server::new("/")]);
    document.tags = Some(tags());

    let components = document.components.get_or_insert_with(Components::new);
    components.schemas.extend(schema::all());
    for (name, schema) in
        [(ProblemBody::name(), ProblemBody::schema()), (FieldError::name(), FieldError::schema())]
    {
        components.schemas.insert(name.into_owned(), schema);
    }
    components.schemas.iter_mut().for_each(|(name, schema)| refer_to_items(name, schema));
    components.examples.extend(Code::ALL.iter().map(|code| (code.as_str().to_owned(), example(*code))));
    components.headers.extend(HEADERS.map(|(name, about)| {
        let text = Object::with_type(Type::String);
        let header = HeaderBuilder::new().schema(Some(text)).description(Some(about)).build();
        (name.to_owned(), header.into())
    }));
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
    let bearer = bearer.description(Some(TOKEN)).build();
    components.add_security_scheme(SECURITY_SCHEME, SecurityScheme::Http(bearer));
    document
}

/// A page is generated with its items written out; they have a name of their own, after `Page_`.
fn refer_to_items(name: &str, schema: &mut RefOr<Schema>) {
    let Some(item) = name.strip_prefix("Page_") else { return };
    if let RefOr::T(Schema::Object(page)) = schema
        && let Some(RefOr::T(Schema::Array(items))) = page.properties.get_mut("items")
    {
        items.items = ArrayItems::RefOrSchema(Box::new(RefOr::Ref(Ref::from_schema_name(item))));
    }
}

fn example(code: Code) -> RefOr<Example> {
    let problem = Problem::new(code, code.about().replace('`', ""));
    let body = problem.body("/v1/clusters/default/sessions/meter-17", "0b6d7cf1-6a0f-4f7e-9a39-5a1f6f4b1d3c");
    let value = serde_json::to_value(body).ok();
    ExampleBuilder::new().summary(code.title()).value(value).build().into()
}

/// Headers that many answers have.
const HEADERS: [(&str, &str); 6] = [
    ("X-Request-Id", "The request's id: the caller's own when it was well-formed, else a new one."),
    ("WWW-Authenticate", "How to log in."),
    ("Idempotency-Replayed", "`true` when this is the answer to an earlier request with the same key."),
    (
        "Enforcement",
        "`pending`: the change is committed, and the data plane has not confirmed yet that it enforces it.",
    ),
    ("Preference-Applied", "The `wait` that is over, when one was preferred (RFC 7240)."),
    ("Retry-After", "Seconds to wait before asking again."),
];

fn tags() -> Vec<utoipa::openapi::Tag> {
    [
        ("clusters", "Clusters, their quotas and what they use of them."),
        ("sessions", "Client sessions: what they are, when they end, what they subscribe to."),
        ("shared-groups", "Shared subscriptions: who shares what, how far they are, and who gets a message."),
        ("nodes", "The processes that serve."),
        ("users", "Users: whom the clients of a cluster may prove to be, by password."),
        ("webhooks", "Where the events of a cluster's sessions are delivered to, signed."),
        ("plans", "Named sets of quotas."),
        ("operations", "Work that outlasts its request."),
        (
            "access",
            "What clients may do, who is kept out, and API keys: what programs send in place of a token.",
        ),
        ("messages", "What is added to what clients publish."),
        ("audit", "Who asked for which change, and what became of it."),
        ("health", "Probes and the specification itself."),
    ]
    .map(|(name, about)| TagBuilder::new().name(name).description(Some(about)).build())
    .into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn document() -> Value {
        serde_json::to_value(openapi()).expect("json")
    }

    /// Calls `visit` for every object in the document, with its path.
    fn walk(value: &Value, path: &str, visit: &mut impl FnMut(&str, &serde_json::Map<String, Value>)) {
        match value {
            Value::Object(object) => {
                visit(path, object);
                for (key, value) in object {
                    walk(value, &format!("{path}/{key}"), visit);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    walk(value, &format!("{path}/{index}"), visit);
                }
            }
            _ => {}
        }
    }

    fn operations(document: &Value) -> Vec<(String, Value)> {
        let paths = document["paths"].as_object().expect("paths");
        let each = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().expect("an item").iter();
            methods.map(move |(method, operation)| (format!("{method} {path}"), operation.clone()))
        });
        each.collect()
    }

    #[test]
    fn every_reference_resolves() {
        let document = document();
        let mut missing = BTreeSet::new();
        walk(&document, "", &mut |path, object| {
            if let Some(Value::String(target)) = object.get("$ref") {
                let pointer = target.strip_prefix('#').expect("a local reference");
                if document.pointer(pointer).is_none() {
                    missing.insert(format!("{path}: {target}"));
                }
            }
        });
        assert_eq!(missing, BTreeSet::new());
    }

    #[test]
    fn every_operation_says_what_it_is() {
        let mut ids = BTreeSet::new();
        for (name, operation) in operations(&document()) {
            let id = operation["operationId"].as_str().expect("an operation id").to_owned();
            assert!(ids.insert(id), "{name}: its operation id is another's too");
            assert!(operation["summary"].is_string(), "{name} has no summary");
            assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{name} has one tag");
            for (status, answer) in operation["responses"].as_object().expect("responses") {
                let description = answer["description"].as_str().unwrap_or_default();
                assert!(!description.is_empty(), "{name} {status} has no description");
                assert!(answer["headers"]["X-Request-Id"].is_object(), "{name} {status}");
            }
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for parameter in parameters {
                assert!(parameter["description"].is_string(), "{name}: {parameter}");
            }
        }
    }

    #[test]
    fn every_operation_of_v1_names_its_scope() {
        for (name, operation) in operations(&document()) {
            let scope = operation.pointer("/security/0/bearer/0");
            let guarded = name.contains("/v1/") || name.ends_with(" /metrics");
            assert_eq!(guarded, scope.is_some(), "{name}");
        }
    }

    #[test]
    fn every_property_says_what_it_is() {
        let document = document();
        let mut silent = BTreeSet::new();
        walk(&document["components"]["schemas"], "", &mut |path, object| {
            let Some(Value::Object(properties)) = object.get("properties") else { return };
            for (name, property) in properties {
                // A property that may be null says it beside its type.
                let said = [&property["description"], &property["oneOf"][0]["description"]];
                if said.iter().all(|text| text.is_null()) {
                    silent.insert(format!("{path}/{name}"));
                }
            }
        });
        assert_eq!(silent, BTreeSet::new());
    }
}
