//! `GET /openapi.json`: the API described for programs (OpenAPI 3.1). Bodies come from the shared Rust types, the
//! kinds from the protos with their comments, the paths from the route table; a test holds that none is forgotten.

mod kinds;
mod operations;

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use gateway_proto::admin;
use gateway_proto::kind::Kind;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::{Access, Route, routes};
use operations::{Body, Operation, operation};

/// The document; built at first use, the same for as long as the process runs.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| build().to_string());

#[derive(OpenApi)]
#[openapi(components(schemas(
    admin::List,
    admin::ApplyRequest,
    admin::ApplyResponse,
    admin::RestoreRequest,
    admin::DiffResponse,
    admin::Revision,
    admin::RevisionList,
    admin::RevisionDiff,
    admin::DataPlane,
    admin::DataPlaneList,
    admin::ObjectStatus,
    admin::ExplainRequest,
    admin::ExplainResponse,
    admin::CreateToken,
    admin::Token,
    admin::TokenList,
    admin::DiscoverySourceStatusList,
    admin::DiscoverySourceStatus,
    admin::CaStatus,
    admin::CreateJoinToken,
    admin::JoinToken,
    admin::JoinTokenList,
    admin::RewrapResponse,
    admin::RotateCredential,
    admin::RotatedCredential,
    admin::AuditList,
    admin::WatchEvent,
    admin::Problem,
)))]
struct Bodies;

/// The document.
pub(super) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}

fn build() -> Value {
    let bodies = serde_json::to_value(Bodies::openapi()).unwrap_or_default();
    let mut schemas = bodies["components"]["schemas"].as_object().cloned().unwrap_or_default();
    kinds::add(&mut schemas);
    let mut paths = Map::new();
    for route in routes() {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(operation) = operation(route.method, route.path) {
            path[route.method.to_ascii_lowercase()] = describe(&route, &operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Gateway admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Resources, numbered history and data planes of the gateway.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn describe(route: &Route, operation: &Operation) -> Value {
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters(route, operation),
        "responses": {
            operation.status: answer(operation),
            "default": {
                "description": "What went wrong.",
                "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
            },
        },
    });
    if let Some(request) = operation.request {
        let media = if route.method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        described["requestBody"] =
            json!({ "required": true, "content": { media: { "schema": schema(request) } } });
    }
    if let Access::Role(role) = route.access {
        described["security"] = json!([{ "token": [] }]);
        described["description"] = json!(format!("Needs a token with the role `{}`.", role.as_str()));
    }
    described
}

fn answer(operation: &Operation) -> Value {
    match operation.response {
        None => json!({ "description": "Done." }),
        Some((media, body)) => {
            json!({ "description": "Done.", "content": { media: { "schema": schema(body) } } })
        }
    }
}

fn parameters(route: &Route, operation: &Operation) -> Vec<Value> {
    let in_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| {
        let schema = if name == "plural" {
            json!({ "type": "string", "enum": Kind::ALL.iter().map(|kind| kind.plural()).collect::<Vec<_>>() })
        } else {
            json!({ "type": "string" })
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    });
    let in_query = operation.query.iter().map(|parameter| {
        json!({
            "name": parameter.name,
            "in": "query",
            "description": parameter.description,
            "schema": { "type": parameter.kind },
        })
    });
    let in_headers = operation.headers.iter().map(|parameter| {
        json!({
            "name": parameter.name,
            "in": "header",
            "description": parameter.description,
            "schema": { "type": parameter.kind },
        })
    });
    in_path.chain(in_query).chain(in_headers).collect()
}

fn schema(body: Body) -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    match body {
        Body::Named(name) => reference(name),
        Body::Either(one, other) => json!({ "oneOf": [reference(one), reference(other)] }),
        Body::AnyKind => {
            json!({ "oneOf": Kind::ALL.iter().map(|kind| reference(kind.as_str())).collect::<Vec<_>>() })
        }
        Body::Patch => json!({ "type": "object" }),
        Body::Text => json!({ "type": "string" }),
        Body::Anything => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document = build();
        let mut described = HashSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            described.extend(
                item.as_object()
                    .expect("operations")
                    .keys()
                    .map(|method| (method.to_uppercase(), path.clone())),
            );
        }
        let routed: HashSet<_> =
            routes().iter().map(|route| (route.method.to_owned(), route.path.to_owned())).collect();
        assert_eq!(described, routed);
    }

    #[test]
    fn operation_ids_are_unique_and_every_reference_resolves() {
        let document = build();
        let mut ids = HashSet::new();
        let mut references = Vec::new();
        walk(&document, &mut |name, value| match (name, value.as_str()) {
            ("operationId", Some(id)) => assert!(ids.insert(id.to_owned()), "{id} twice"),
            ("$ref", Some(reference)) => references.push(reference.to_owned()),
            _ => {}
        });
        assert!(ids.len() == routes().len() && references.len() > 30);
        for reference in references {
            let pointer = reference.strip_prefix('#').expect("a reference into this document");
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }

    #[test]
    fn path_parameters_are_those_of_the_path() {
        let document = build();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for operation in item.as_object().expect("operations").values() {
                let named: Vec<_> = operation["parameters"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .filter(|parameter| parameter["in"] == "path")
                    .map(|parameter| parameter["name"].as_str().expect("a name").to_owned())
                    .collect();
                assert_eq!(named.len(), path.matches('{').count(), "{path}");
                assert!(named.iter().all(|name| path.contains(&format!("{{{name}}}"))), "{path}");
            }
        }
    }

    #[test]
    fn kinds_carry_their_json_names_bounds_and_comments() {
        let document = build();
        let schemas = &document["components"]["schemas"];
        let spec = &schemas["HttpSettings"]["properties"];
        assert_eq!(spec["maxHeaderBytes"]["type"], "integer");
        assert!(spec["maxHeaderBytes"]["description"].as_str().expect("a comment").contains("431"));
        assert_eq!(schemas["ListenerSpec"]["properties"]["protocol"]["enum"], json!(["http", "https"]));
        assert_eq!(schemas["Metadata"]["properties"]["labels"]["additionalProperties"]["type"], "string");
        assert_eq!(schemas["RouteSpec"]["additionalProperties"], false);
        assert_eq!(schemas["CertificateSpec"]["properties"]["key"]["format"], "password");
        assert_eq!(schemas["CertificateSpec"]["properties"]["cert"].get("format"), None);
        assert!(
            schemas["RouteSpec"]["description"]
                .as_str()
                .expect("a comment")
                .contains("forward, redirect, respond")
        );
    }

    fn walk(value: &Value, visit: &mut impl FnMut(&str, &Value)) {
        match value {
            Value::Object(map) => map.iter().for_each(|(name, value)| {
                visit(name, value);
                walk(value, visit);
            }),
            Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
            _ => {}
        }
    }
}
