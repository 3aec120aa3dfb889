//! What each route takes and answers: one entry a line of the route table.

/// What the document says of one route.
pub(super) struct Operation {
    /// Name for generated clients.
    pub(super) id: &'static str,
    /// One line.
    pub(super) summary: &'static str,
    /// Query parameters.
    pub(super) query: &'static [Parameter],
    /// Request header fields beyond the usual.
    pub(super) headers: &'static [Parameter],
    /// Request body.
    pub(super) request: Option<Body>,
    /// Status of success.
    pub(super) status: &'static str,
    /// Media type and body of success.
    pub(super) response: Option<(&'static str, Body)>,
}

/// A parameter, always optional.
pub(super) struct Parameter {
    /// Its name.
    pub(super) name: &'static str,
    /// JSON Schema type.
    pub(super) kind: &'static str,
    /// What it does.
    pub(super) description: &'static str,
}

/// A body's schema.
#[derive(Clone, Copy)]
pub(super) enum Body {
    /// A component.
    Named(&'static str),
    /// One of two components.
    Either(&'static str, &'static str),
    /// A resource.
    AnyKind,
    /// A merge patch.
    Patch,
    /// Plain text.
    Text,
    /// Any JSON.
    Anything,
}

const JSON: &str = "application/json";

const NAMESPACE: Parameter =
    Parameter { name: "namespace", kind: "string", description: "Namespace; default `default`." };
const NAMESPACES: Parameter = Parameter {
    name: "namespace",
    kind: "string",
    description: "Namespace; default `default`; `*`: all that the token is good for.",
};
const LABELS: Parameter = Parameter {
    name: "labels",
    kind: "string",
    description: "Conditions on labels, comma separated: `team=x`, `team!=x`, `team`, `!team`.",
};
const LIMIT: Parameter = Parameter { name: "limit", kind: "integer", description: "At most so many items." };
const CURSOR: Parameter =
    Parameter { name: "cursor", kind: "string", description: "`nextCursor` of the page before." };
const SECRETS: Parameter = Parameter {
    name: "secrets",
    kind: "string",
    description: "`masked` (default): `***` in their place; `sealed`: for a restore, readable with the master key only; \
                  needs the role admin.",
};
const DRY_RUN: Parameter =
    Parameter { name: "dryRun", kind: "boolean", description: "Do everything but store it." };
const FORCE: Parameter = Parameter {
    name: "force",
    kind: "boolean",
    description: "Also a data plane that was never seen; otherwise that is 404.",
};
const IF_MATCH: Parameter = Parameter {
    name: "If-Match",
    kind: "string",
    description: "Refuse with 412 unless the object has this ETag; `*`: unless it exists.",
};
const IF_NONE_MATCH: Parameter = Parameter {
    name: "If-None-Match",
    kind: "string",
    description: "`*`: refuse with 412 if the object exists.",
};

const fn read(
    id: &'static str,
    summary: &'static str,
    query: &'static [Parameter],
    answer: &'static str,
) -> Operation {
    let response = Some((JSON, Body::Named(answer)));
    Operation { id, summary, query, headers: &[], request: None, status: "200", response }
}

const fn ask(
    id: &'static str,
    summary: &'static str,
    request: &'static str,
    answer: &'static str,
) -> Operation {
    let operation = read(id, summary, &[], answer);
    Operation { request: Some(Body::Named(request)), ..operation }
}

const fn write(id: &'static str, summary: &'static str, request: Option<Body>) -> Operation {
    let operation = read(id, summary, &[NAMESPACE, DRY_RUN], "ApplyResponse");
    Operation { request, headers: &[IF_MATCH, IF_NONE_MATCH], ..operation }
}

/// The entry of a route; `None` if it was forgotten, which a test finds.
pub(super) fn operation(method: &str, path: &str) -> Option<Operation> {
    Some(match (method, path) {
        ("GET", "/v1/{plural}") => read(
            "list",
            "A page of one kind, by namespace and name.",
            &[NAMESPACES, LABELS, LIMIT, CURSOR, SECRETS],
            "List",
        ),
        ("GET", "/v1/{plural}/{name}") => Operation {
            response: Some((JSON, Body::AnyKind)),
            ..read("get", "One object, with its ETag.", &[NAMESPACE], "List")
        },
        ("PUT", "/v1/{plural}/{name}") => {
            write("put", "Creates or replaces one object.", Some(Body::AnyKind))
        }
        ("PATCH", "/v1/{plural}/{name}") => {
            write("patch", "Changes parts of one object (RFC 7396).", Some(Body::Patch))
        }
        ("DELETE", "/v1/{plural}/{name}") => write("delete", "Deletes one object.", None),
        ("POST", "/v1/credentials/{name}/rotate") => Operation {
            query: &[NAMESPACE],
            ..ask(
                "rotateCredential",
                "Another key in the place of the one there is; it is shown once.",
                "RotateCredential",
                "RotatedCredential",
            )
        },
        ("POST", "/v1/apply") => Operation {
            query: &[DRY_RUN],
            ..ask("apply", "Makes a batch of changes, all or nothing.", "ApplyRequest", "ApplyResponse")
        },
        ("POST", "/v1/diff") => Operation {
            query: &[DRY_RUN],
            ..ask("diff", "What an apply would change, with contents.", "ApplyRequest", "DiffResponse")
        },
        ("POST", "/v1/restore") => ask(
            "restore",
            "Makes the store what a backup says, in a new epoch; without `replace` only one that holds nothing.",
            "RestoreRequest",
            "ApplyResponse",
        ),
        ("GET", "/v1/revisions") => {
            read("listRevisions", "History, newest first.", &[LIMIT, CURSOR], "RevisionList")
        }
        ("GET", "/v1/revisions/{range}") => Operation {
            response: Some((JSON, Body::Either("Revision", "RevisionDiff"))),
            ..read(
                "getRevisions",
                "`{n}`: what a revision did; without `changes` when they are over 10,000. `{a}...{b}`: what lies between \
                 two; 413 when that is more.",
                &[],
                "Revision",
            )
        },
        ("POST", "/v1/revisions/{range}/rollback") => read(
            "rollback",
            "A new revision with the content of an earlier one.",
            &[DRY_RUN],
            "ApplyResponse",
        ),
        ("GET", "/v1/data-planes") => {
            read("listDataPlanes", "Every data-plane replica.", &[], "DataPlaneList")
        }
        ("GET", "/v1/data-planes/{id}") => read("getDataPlane", "One data-plane replica.", &[], "DataPlane"),
        ("GET", "/v1/status/{plural}/{name}") => read(
            "status",
            "Which data planes have applied an object, and which refused it.",
            &[NAMESPACE],
            "ObjectStatus",
        ),
        ("POST", "/v1/explain") => {
            ask("explain", "How a request would be routed, and why.", "ExplainRequest", "ExplainResponse")
        }
        ("GET", "/v1/tokens") => read("listTokens", "Admin tokens, without their secrets.", &[], "TokenList"),
        ("POST", "/v1/tokens") => Operation {
            status: "201",
            ..ask("createToken", "A new admin token; its secret is shown once.", "CreateToken", "Token")
        },
        ("DELETE", "/v1/tokens/{name}") => Operation {
            status: "204",
            response: None,
            ..read("deleteToken", "Revokes an admin token.", &[], "Token")
        },
        ("POST", "/v1/data-planes/{id}/revoke") => Operation {
            status: "204",
            response: None,
            ..read(
                "revokeDataPlane",
                "Refuses the certificates that a data plane has by now.",
                &[FORCE],
                "DataPlane",
            )
        },
        ("GET", "/v1/discovery") => read(
            "listDiscovery",
            "Every discovery source, as the control plane that answers sees it.",
            &[],
            "DiscoverySourceStatusList",
        ),
        ("GET", "/v1/discovery/{name}") => {
            read("getDiscovery", "The same of one.", &[NAMESPACE], "DiscoverySourceStatus")
        }
        ("GET", "/v1/ca") => read("caStatus", "The control plane's own CA.", &[], "CaStatus"),
        ("POST", "/v1/ca/rotate") => {
            read("rotateCa", "Begins to replace the control plane's own CA.", &[], "CaStatus")
        }
        ("GET", "/v1/join-tokens") => {
            read("listJoinTokens", "Join tokens, without their secrets.", &[], "JoinTokenList")
        }
        ("POST", "/v1/join-tokens") => Operation {
            status: "201",
            ..ask(
                "createJoinToken",
                "A token that data planes of a group join with; its secret is shown once.",
                "CreateJoinToken",
                "JoinToken",
            )
        },
        ("DELETE", "/v1/join-tokens/{name}") => Operation {
            status: "204",
            response: None,
            ..read("deleteJoinToken", "Revokes a join token.", &[], "JoinToken")
        },
        ("GET", "/v1/audit") => {
            read("listAudit", "Who did what, newest first.", &[LIMIT, CURSOR], "AuditList")
        }
        ("POST", "/v1/secrets/rewrap") => read(
            "rewrapSecrets",
            "Seals every secret with the first key of --master-key-file.",
            &[],
            "RewrapResponse",
        ),
        ("GET", "/v1/watch") => Operation {
            response: Some(("text/event-stream", Body::Named("WatchEvent"))),
            ..read("watch", "Events of revisions and data planes as they happen.", &[], "WatchEvent")
        },
        ("GET", "/livez") => text("livez", "The process answers.", "text/plain"),
        ("GET", "/readyz") => text("readyz", "The head is in memory and followed.", "text/plain"),
        ("GET", "/metrics") => text("metrics", "Prometheus text.", "text/plain"),
        ("GET", "/openapi.json") => Operation {
            response: Some((JSON, Body::Anything)),
            ..read("openapi", "This document.", &[], "Problem")
        },
        _ => return None,
    })
}

const fn text(id: &'static str, summary: &'static str, media: &'static str) -> Operation {
    let operation = read(id, summary, &[], "Problem");
    Operation { response: Some((media, Body::Text)), ..operation }
}
