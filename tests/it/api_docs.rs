//! The specification and its page.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::support::api::{Api, DOCUMENT};

#[test]
fn the_committed_specification_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/holdfast.json");
    let generated = holdfast::control_plane::http::openapi().to_pretty_json().expect("json") + "\n";
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "openapi/holdfast.json is not what the code says: run `make openapi`");
}

#[tokio::test]
async fn the_specification_is_served() {
    let api = Api::start().await;
    let answer = api.anonymous().get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.expect(200), *DOCUMENT);
}

#[tokio::test]
async fn the_page_and_its_parts_come_from_this_host_alone() {
    let api = Api::start().await;
    let page = api.anonymous().get("/docs/").await;
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(!policy.contains("http") && !policy.contains('*'), "{policy}");

    let mut parts: Vec<_> = quoted_after(&page.text, &["src=\"", "href=\""]);
    assert!(parts.iter().any(|part| part.ends_with("swagger-ui-bundle.js")), "{parts:?}");
    parts.push("swagger-initializer.js".to_owned());
    for part in parts {
        assert!(!part.contains("//"), "{part} is elsewhere");
        let answer = api.anonymous().get(&format!("/docs/{}", part.trim_start_matches("./"))).await;
        assert_eq!(answer.status, 200, "{part}");
        if answer.header("content-type").contains("css") {
            let urls = quoted_after(&answer.text, &["url(\"", "url('", "@import \""]);
            assert!(urls.iter().all(|url| url.starts_with("data:")), "{part}: {urls:?}");
        }
        if answer.header("content-type").contains("javascript") {
            let loaded: Vec<_> =
                origins(&answer.text).into_iter().filter(|o| !INERT.contains(&o.as_str())).collect();
            assert!(loaded.is_empty(), "{part} mentions {loaded:?}: see that nothing is loaded from there");
        }
    }
    let settings = api.anonymous().get("/docs/swagger-initializer.js").await.text;
    assert!(settings.contains("\"validatorUrl\": \"none\""), "{settings}");
    assert!(settings.contains("/openapi.json") && !settings.contains("petstore"), "{settings}");

    api.anonymous().get("/docs/none.js").await.expect_problem("route_not_found");
}

/// The lines of the runbook's list of routes, as the specification says them.
#[test]
fn the_runbook_lists_every_route_with_its_scope() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md");
    let runbook = std::fs::read_to_string(path).expect("the runbook");
    let listed: BTreeSet<&str> = runbook.lines().filter(|line| line.starts_with("| `")).collect();
    let mut routes = BTreeSet::new();
    for (path, item) in DOCUMENT["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            let Some(scope) = operation["security"][0]["bearer"][0].as_str() else { continue };
            let description = operation["description"].as_str().expect("a description");
            let role = description.rsplit_once("Needs the role `").expect("it names the role").1;
            let role = role.split('`').next().expect("a role");
            routes.insert(format!("| `{} {path}` | `{scope}` | {role} |", method.to_uppercase()));
        }
    }
    assert_eq!(listed, routes.iter().map(String::as_str).collect(), "docs/runbook.md");
}

fn quoted_after(text: &str, marks: &[&str]) -> Vec<String> {
    let each = marks.iter().flat_map(|mark| {
        text.split(mark).skip(1).map(|rest| rest.split(['"', '\'']).next().unwrap_or_default().to_owned())
    });
    each.collect()
}

/// Hosts of absolute URLs.
fn origins(text: &str) -> Vec<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let mut found: Vec<_> = text
        .match_indices("://")
        .map(|(at, mark)| text[at + mark.len()..].chars().take_while(|c| plain(*c)).collect::<String>())
        .filter(|host| host.contains('.'))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Hosts that the bundles name and load nothing from. The policy would stop them if they did.
const INERT: &[&str] = &[
    // Names of XML namespaces and of JSON schemas.
    "www.w3.org",
    "json-schema.org",
    "spec.openapis.org",
    "example.com",
    // Comments, and texts of errors and grammars.
    "datatracker.ietf.org",
    "fb.me",
    "github.com",
    "reactjs.org",
    "redux.js.org",
    "spdx.org",
    "vladimirgorej.com",
    "www.rfc-editor.org",
    // Links that a person may follow; some are of a linkifier that recognises hashtags.
    "instagram.com",
    "soundcloud.com",
    "swagger.io",
    "twitter.com",
    "www.facebook.com",
    "www.tiktok.com",
    // The online validator, which the settings turn off.
    "validator.swagger.io",
];

#[tokio::test]
async fn every_example_is_what_its_schema_says() {
    // Examples of requests are sent as they stand by `api_authorization` and others; here the shape
    // of the answers' examples is held against their required fields.
    let schemas = DOCUMENT["components"]["schemas"].as_object().expect("schemas");
    for (name, schema) in schemas {
        let Some(example) = schema.get("example").and_then(Value::as_object) else { continue };
        let referred = |part: &'static Value| {
            let of = part["$ref"].as_str().and_then(|path| path.rsplit('/').next()).expect("a reference");
            &schemas[of]
        };
        let parts: Vec<&Value> = match schema["allOf"].as_array() {
            Some(parts) => parts.iter().map(referred).collect(),
            None => vec![schema],
        };
        for field in parts.iter().flat_map(|part| part["required"].as_array().into_iter().flatten()) {
            assert!(example.contains_key(field.as_str().expect("a name")), "{name}'s example lacks {field}");
        }
        for field in example.keys() {
            let known = parts.iter().any(|part| part["properties"].get(field).is_some());
            assert!(known, "{name}'s example has the unknown field {field}");
        }
    }
}
