//! How a route comes to be: its handler, its scope and the problems it can answer, in one line.
//!
//! [`Routes`] is the only way to register a route of `/v1`. From one registration follow the check
//! of the caller's scope, the idempotency key and the audit row of a change, the refusal of undocumented query parameters and the problem responses in
//! the specification, so that what is served, enforced and documented cannot differ.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::Request;
use axum::middleware::{self, Next};
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::Type;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ContentBuilder, ObjectBuilder, Ref, RefOr};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::auth::{Rule, Scope};
use super::change::Named;
use super::code::Code;
use super::etag::optional_header;
use super::problem::MEDIA_TYPE;
use super::state::ApiState;
use super::{change, idempotency, wait};

/// The name of the security scheme in the specification.
pub(super) const SECURITY_SCHEME: &str = "bearer";

/// Routes that ask who calls.
#[derive(Default)]
pub(super) struct Routes(OpenApiRouter<ApiState>);

impl Routes {
    /// Adds one operation, which needs `scope` and can answer `codes` beside those that follow from
    /// its shape (see [`implied`]).
    #[must_use]
    pub(super) fn add(self, scope: Scope, codes: &[Code], routes: UtoipaMethodRouter<ApiState>) -> Self {
        self.add_operation(scope, codes, routes, false)
    }

    /// The same for a change that is committed before the data plane enforces it: it takes `Prefer: wait`, and can
    /// answer 202.
    #[must_use]
    pub(super) fn add_enforced(
        self,
        scope: Scope,
        codes: &[Code],
        routes: UtoipaMethodRouter<ApiState>,
    ) -> Self {
        self.add_operation(scope, codes, routes, true)
    }

    fn add_operation(
        self,
        scope: Scope,
        codes: &[Code],
        routes: UtoipaMethodRouter<ApiState>,
        is_enforced: bool,
    ) -> Self {
        let (schemas, mut paths, mut handlers) = routes;
        // Two would share a rule that was made for one of them.
        debug_assert_eq!(paths.paths.values_mut().flat_map(operations).count(), 1, "one operation at a time");
        for (path, item) in &mut paths.paths {
            let changes = item.get.is_none();
            for operation in operations(item) {
                let query = query_parameters(operation);
                require(operation, scope);
                let mut codes: BTreeSet<Code> =
                    implied(path, operation).into_iter().chain(codes.iter().copied()).collect();
                if is_enforced {
                    wait::document(operation);
                }
                if changes {
                    codes.extend(idempotency::CODES);
                    document_key(operation);
                    let operation = operation.operation_id.clone().unwrap_or_default().into();
                    let named = Named { operation, is_enforced };
                    handlers =
                        handlers.route_layer(middleware::from_fn(move |request: Request, next: Next| {
                            change::carry_out(named.clone(), request, next)
                        }));
                }
                document(operation, codes);
                // Laid around the change: who may not, changes nothing and claims no key.
                let rule = Rule { scope, query: query.into() };
                handlers = handlers.route_layer(middleware::from_fn(move |request: Request, next: Next| {
                    rule.clone().guard(request, next)
                }));
            }
        }
        Self(self.0.routes((schemas, paths, handlers)))
    }

    /// The router with the specification of its routes.
    pub(super) fn into_router(self) -> OpenApiRouter<ApiState> {
        self.0
    }
}

/// Routes that anybody may call: probes and documentation, nothing of a cluster.
pub(super) fn public(codes: &[Code], routes: UtoipaMethodRouter<ApiState>) -> OpenApiRouter<ApiState> {
    let (schemas, mut paths, handlers) = routes;
    for item in paths.paths.values_mut() {
        for operation in operations(item) {
            let codes = [Code::RequestTimeout, Code::Internal].iter().chain(codes).copied().collect();
            document(operation, codes);
        }
    }
    OpenApiRouter::default().routes((schemas, paths, handlers))
}

/// The operations of a path.
fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete].into_iter().flatten()
}

/// Says that a change may be asked for under a key.
fn document_key(operation: &mut Operation) {
    let mut key =
        optional_header("Idempotency-Key", idempotency::ABOUT, "8e03978e-40d5-43dd-bc93-6894a57f9324");
    let visible = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[!-~]{1,255}$"));
    key.schema = Some(visible.into());
    operation.parameters.get_or_insert_with(Vec::new).push(RefOr::T(key));
    for (status, answer) in &mut operation.responses.responses {
        if let RefOr::T(answer) = answer
            && status.starts_with('2')
        {
            let replayed = RefOr::Ref(header("Idempotency-Replayed"));
            answer.headers.insert("Idempotency-Replayed".to_owned(), replayed);
        }
    }
}

fn query_parameters(operation: &Operation) -> Vec<String> {
    let parameters = operation.parameters.iter().flatten();
    parameters
        .filter_map(|parameter| match parameter {
            RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => {
                Some(parameter.name.clone())
            }
            _ => None,
        })
        .collect()
}

fn require(operation: &mut Operation, scope: Scope) {
    operation.security = Some(vec![SecurityRequirement::new(SECURITY_SCHEME, [scope.as_str()])]);
    let global = if scope.is_global() { ", and a token that is not bound to one cluster" } else { "" };
    let needs = format!("Needs the role `{}` (`{}`){global}.", scope.least_role(), scope.as_str());
    let description = operation.description.take().unwrap_or_default();
    operation.description = Some(format!("{description}\n\n{needs}").trim().to_owned());
}

/// The problems that follow from what an operation is: that it asks who calls, works on a cluster
/// or a session, takes parameters, takes a body.
fn implied(path: &str, operation: &Operation) -> Vec<Code> {
    let mut codes = vec![
        Code::UnknownParameter,
        Code::TokenMissing,
        Code::TokenInvalid,
        Code::TokenExpired,
        Code::Forbidden,
        Code::RequestTimeout,
        Code::Internal,
        Code::Overloaded,
        Code::RateLimited,
        Code::KeysUnavailable,
        // Whoever comes with an API key is looked up.
        Code::StoreUnavailable,
    ];
    if operation.parameters.iter().flatten().next().is_some() {
        codes.push(Code::InvalidParameter);
    }
    if path.contains("{cluster}") {
        codes.push(Code::ClusterNotFound);
    }
    if path.contains("/sessions/{client_id}") {
        codes.push(Code::SessionNotFound);
    }
    if operation.request_body.is_some() {
        codes.extend([Code::InvalidJson, Code::InvalidBody, Code::InvalidRequest]);
        codes.extend([Code::UnsupportedMediaType, Code::BodyTooLarge]);
    }
    codes
}

/// Adds one response for each status that the codes have.
fn document(operation: &mut Operation, codes: BTreeSet<Code>) {
    let mut by_status = BTreeMap::<u16, Vec<Code>>::new();
    for code in codes {
        by_status.entry(code.status().as_u16()).or_default().push(code);
    }
    let answers = &mut operation.responses.responses;
    answers.extend(by_status.iter().map(|(status, codes)| (status.to_string(), problems(*status, codes))));
    for answer in answers.values_mut() {
        if let RefOr::T(answer) = answer {
            answer.headers.insert("X-Request-Id".to_owned(), RefOr::Ref(header("X-Request-Id")));
        }
    }
}

fn problems(status: u16, codes: &[Code]) -> RefOr<Response> {
    let titles = codes.iter().map(|code| format!("- `{}`: {}", code.as_str(), code.title()));
    let examples = codes.iter().map(|code| {
        let example = Ref::new(format!("#/components/examples/{}", code.as_str()));
        (code.as_str(), RefOr::Ref(example))
    });
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem")));
    let mut response = Response::new(titles.collect::<Vec<_>>().join("\n"));
    response.content.insert(MEDIA_TYPE.to_owned(), content.examples_from_iter(examples).build().into());
    let told = match status {
        401 => Some("WWW-Authenticate"),
        429 | 503 => Some("Retry-After"),
        _ => None,
    };
    response.headers.extend(told.map(|name| (name.to_owned(), RefOr::Ref(header(name)))));
    response.into()
}

fn header(name: &str) -> Ref {
    Ref::new(format!("#/components/headers/{name}"))
}
