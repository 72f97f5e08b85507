//! The description of the API that is in the repository is that of the API.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

/// With this variable set, the committed copy is written anew instead of compared.
const UPDATE: &str = "VNET_UPDATE_OPENAPI";

#[test]
fn the_committed_description_is_that_of_the_api() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let is = vnet_netd::http::openapi().unwrap();
    if std::env::var_os(UPDATE).is_some() {
        return std::fs::write(path, is).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap_or_default() == is,
        "docs/openapi.json is not what netd serves: write it anew with `{UPDATE}=1 cargo test -p \
         vnet-netd --test openapi`, and look at what has changed"
    );
}

#[test]
fn everything_is_described() {
    let document: serde_json::Value =
        serde_json::from_str(&vnet_netd::http::openapi().unwrap()).unwrap();
    let mut described = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let text = operation["summary"].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{method} {path} has no description");
            assert!(operation["responses"]["200"].is_object(), "{method} {path}");
            assert!(operation["responses"]["409"].is_object(), "{method} {path}");
            described += 1;
        }
    }
    assert!(described > 10, "only {described} operations");
    for reference in references(&document) {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(schema["description"].is_string(), "the schema {name} has no description");
    }
}

/// Everything that `$ref` names, anywhere in `value`.
fn references(value: &serde_json::Value) -> Vec<String> {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            let own = fields.get("$ref").and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(fields.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}
