//! `get`: objects as columns, JSON, YAML or names; with `-w` it goes on with what changes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use gateway_proto::kind::Kind;
use serde_json::{Value, json};

use crate::cli::{Format, GetArgs, Subject};
use crate::client::Client;
use crate::discovery;
use crate::key;
use crate::objects::{self, Filter, text};
use crate::output::{Output, table};
use crate::report::{Exit, Failure};

/// Pause before a broken watch is opened again.
const AGAIN: Duration = Duration::from_secs(1);

/// Runs it.
pub(crate) async fn run(args: &GetArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    let objects = fetch(args, client).await?;
    if objects.is_empty() && matches!(args.output, Format::Table | Format::Wide) {
        let place = if args.scope.all_namespaces {
            "any namespace".to_owned()
        } else {
            format!("namespace {}", args.scope.namespace)
        };
        output.note(format!("none found in {place}"));
    }
    output.raw(&rendered(&objects, args))?;
    if args.watch { watch(args, client, output, objects).await } else { Ok(()) }
}

async fn fetch(args: &GetArgs, client: &Client) -> Result<Vec<Value>, Failure> {
    let namespace = if args.scope.all_namespaces { "*" } else { &args.scope.namespace };
    let filter = Filter { namespace, labels: args.selector.as_ref(), sealed: false };
    let keys = args.kind.keys(&args.names, &args.scope.namespace);
    let mut objects = Vec::new();
    for key in keys.map_err(|why| Failure::new(Exit::Usage, why))? {
        objects.push(objects::get(client, &key).await?);
    }
    match &args.kind {
        Subject::Kinds(kinds) if args.names.is_empty() => {
            for kind in kinds {
                objects.extend(objects::list(client, *kind, &filter).await?);
            }
        }
        _ => {}
    }
    if matches!(args.output, Format::Table | Format::Wide) {
        discovery::tell(client, &mut objects).await?;
    }
    Ok(objects)
}

/// Objects of several namespaces may be among them.
const fn everywhere(args: &GetArgs) -> bool {
    args.scope.all_namespaces || matches!(args.kind, Subject::Object(_))
}

/// Writes an object again whenever it changes, and says when one goes.
async fn watch(args: &GetArgs, client: &Client, output: &Output, objects: Vec<Value>) -> Result<(), Failure> {
    let mut known: BTreeMap<String, Value> = by_name(objects);
    loop {
        let mut events = client.watch().await?;
        loop {
            let now = by_name(fetch(args, client).await?);
            let changed: Vec<Value> = now
                .iter()
                .filter(|(name, object)| known.get(*name) != Some(object))
                .map(|(_, object)| object.clone())
                .collect();
            output.raw(&rendered(&changed, args))?;
            for name in known.keys().filter(|name| !now.contains_key(*name)) {
                output.line(format!("{name} deleted"))?;
            }
            known = now;
            if !until_revision(&mut events).await {
                break;
            }
        }
        output.note("the stream ended, opening it again");
        tokio::time::sleep(AGAIN).await;
    }
}

async fn until_revision(events: &mut crate::client::Events) -> bool {
    loop {
        match events.next().await {
            Ok(Some(name)) if name == "revision" => return true,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return false,
        }
    }
}

fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
    objects.into_iter().map(|object| (title(&object), object)).collect()
}

/// `Route default/users`.
fn title(object: &Value) -> String {
    format!(
        "{} {}/{}",
        text(object, "/kind"),
        text(object, "/metadata/namespace"),
        text(object, "/metadata/name")
    )
}

fn rendered(objects: &[Value], args: &GetArgs) -> String {
    match args.output {
        Format::Table => tables(objects, args, Columns::Few),
        Format::Wide => tables(objects, args, Columns::Many),
        Format::Json => match objects {
            [one] if !args.names.is_empty() || matches!(args.kind, Subject::Object(_)) => objects::json(one),
            many => objects::json(&json!(many)),
        },
        Format::Yaml => objects.iter().map(objects::yaml).collect::<Vec<_>>().join("---\n"),
        Format::Name => objects.iter().fold(String::new(), |mut out, object| {
            out.push_str(&text(object, "/kind").to_lowercase());
            if everywhere(args) {
                let _ = write!(out, "/{}", text(object, "/metadata/namespace"));
            }
            let _ = writeln!(out, "/{}", text(object, "/metadata/name"));
            out
        }),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Columns {
    Few,
    Many,
}

/// One table for each kind.
fn tables(objects: &[Value], args: &GetArgs, columns: Columns) -> String {
    let mut tables = Vec::new();
    let one_kind = matches!(&args.kind, Subject::Kinds(kinds) if kinds.len() == 1);
    for kind in Kind::ALL {
        let mut head: Vec<&str> = if everywhere(args) { vec!["NAMESPACE"] } else { vec![] };
        head.push(if one_kind { "NAME" } else { kind.as_str() });
        head.extend(of_kind(*kind));
        if columns == Columns::Many {
            head.extend(["REVISION", "GENERATION", "UPDATED", "LABELS"]);
        }
        let of_this = objects.iter().filter(|object| text(object, "/kind") == kind.as_str());
        let rows: Vec<Vec<String>> = of_this.map(|object| row(*kind, object, args, columns)).collect();
        if !rows.is_empty() {
            tables.push(table(&head, &rows));
        }
    }
    tables.join("\n")
}

const fn of_kind(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Listener => &["ADDRESS", "PROTOCOL", "GROUP"],
        Kind::Route => &["HOSTS", "MATCHES", "ACTION"],
        Kind::Upstream => &["TARGETS"],
        Kind::Policy => &["GLOBAL", "POLICIES"],
        Kind::Certificate => &[],
        Kind::Consumer => &["GROUPS", "POLICIES"],
        Kind::TokenIssuer => &["ISSUER", "AUDIENCES", "ALGORITHMS", "KEYS"],
        Kind::Credential => &["CONSUMER", "ID", "EXPIRES"],
        Kind::DiscoverySource => &["TYPE", "FROM", "STATE", "SERVICES", "ENDPOINTS"],
    }
}

fn row(kind: Kind, object: &Value, args: &GetArgs, columns: Columns) -> Vec<String> {
    let mut row = Vec::new();
    if everywhere(args) {
        row.push(text(object, "/metadata/namespace").to_owned());
    }
    row.push(text(object, "/metadata/name").to_owned());
    let spec = &object["spec"];
    match kind {
        Kind::Listener => row.extend(listener(spec)),
        Kind::Route => row.extend(route(spec)),
        Kind::Upstream => {
            row.push(match spec.get("discovery") {
                Some(from) => format!("{} of {}", text(from, "/service"), text(from, "/source")),
                None => few(list(&spec["targets"]).map(|target| text(target, "/address").to_owned())),
            });
        }
        Kind::Policy => row.extend([spec["global"].as_bool().unwrap_or(false).to_string(), policies(spec)]),
        Kind::Certificate => {}
        Kind::Consumer => row.extend([few(list(&spec["groups"]).map(scalar)), policies(spec)]),
        Kind::TokenIssuer => row.extend(token_issuer(spec)),
        Kind::Credential => row.extend(credential(spec)),
        Kind::DiscoverySource => row.extend(discovery_source(object)),
    }
    if columns == Columns::Many {
        for field in ["revision", "generation", "updatedAt"] {
            row.push(scalar(&object["metadata"][field]));
        }
        row.push(few(pairs(&object["metadata"]["labels"])));
    }
    row
}

fn credential(spec: &Value) -> [String; 3] {
    let id = key::id(text(spec, "/apiKey/sha256"));
    let expires = spec["expires"].as_str().unwrap_or("never");
    [scalar(&spec["consumer"]), id.to_owned(), expires.to_owned()]
}

fn discovery_source(object: &Value) -> [String; 5] {
    let source = object["spec"].as_object().and_then(|spec| spec.iter().next());
    let (kind, from) =
        source.map_or_else(Default::default, |(kind, from)| (kind.clone(), scalar(&from["path"])));
    let [state, services, endpoints] =
        ["state", "services", "endpoints"].map(|field| scalar(&object["status"][field]));
    [kind, from, state, services, endpoints]
}

fn listener(spec: &Value) -> [String; 3] {
    let address = spec["address"].as_str().unwrap_or("0.0.0.0");
    let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let or = |value: &Value, default: &str| value.as_str().unwrap_or(default).to_owned();
    [
        format!("{address}:{}", scalar(&spec["port"])),
        or(&spec["protocol"], "http"),
        or(&spec["dataPlanes"]["group"], "*"),
    ]
}

fn route(spec: &Value) -> [String; 3] {
    let hosts = few(list(&spec["hosts"]).map(scalar));
    let matches = few(list(&spec["matches"]).map(|entry| {
        let methods = few(list(&entry["methods"]).map(scalar));
        let path = entry["path"].as_object().and_then(|path| path.iter().next());
        let path = path.map_or("*".to_owned(), |(how, path)| format!("{how} {}", scalar(path)));
        if methods.is_empty() { path } else { format!("{methods} {path}") }
    }));
    let action = if spec.get("redirect").is_some() {
        "redirect".to_owned()
    } else if spec.get("respond").is_some() {
        format!("respond {}", spec["respond"]["status"].as_u64().unwrap_or(200))
    } else {
        format!(
            "forward {}",
            few(list(&spec["forward"]["backends"]).map(|it| text(it, "/upstream").to_owned()))
        )
    };
    [or_any(hosts), or_any(matches), action]
}

fn token_issuer(spec: &Value) -> [String; 4] {
    let keys = ["secret", "jwks"].into_iter().find(|keys| spec.get(keys).is_some());
    let keys = keys.unwrap_or_else(|| text(spec, "/jwksUri"));
    [
        text(spec, "/issuer").to_owned(),
        or_any(few(list(&spec["audiences"]).map(scalar))),
        few(list(&spec["algorithms"]).map(scalar)),
        keys.to_owned(),
    ]
}

fn or_any(text: String) -> String {
    if text.is_empty() { "*".to_owned() } else { text }
}

fn policies(spec: &Value) -> String {
    few(list(&spec["policies"]).filter_map(|entry| entry.as_object()?.keys().next().cloned()))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn pairs(value: &Value) -> impl Iterator<Item = String> {
    value.as_object().into_iter().flatten().map(|(name, value)| format!("{name}={}", scalar(value)))
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The first three, and how many more.
fn few(mut all: impl Iterator<Item = String>) -> String {
    let mut text = all.by_ref().take(3).collect::<Vec<_>>().join(",");
    let more = all.count();
    if more > 0 {
        let _ = write!(text, ",+{more}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    fn shown(objects: &[Value], arguments: &[&str]) -> String {
        let cli = Cli::read([&["gatewayctl", "get"], arguments].concat()).expect("it parses");
        let Command::Get(args) = cli.command else { panic!("get") };
        rendered(objects, &args)
    }

    #[test]
    fn each_kind_has_its_columns() {
        let objects = [
            json!({"kind": "Listener", "metadata": {"name": "public", "namespace": "default"}, "spec": {"address": "::1", "port": 80}}),
            json!({"kind": "Route", "metadata": {"name": "users", "namespace": "shop", "revision": "7", "generation": "2", "labels": {"team": "a"}},
                "spec": {"hosts": ["a", "b", "c", "d", "e"], "matches": [{"path": {"prefix": "/u"}, "methods": ["GET"]}, {}],
                "forward": {"backends": [{"upstream": "blue"}]}}}),
            json!({"kind": "Route", "metadata": {"name": "x", "namespace": "shop"}, "spec": {"respond": {}}}),
            json!({"kind": "Upstream", "metadata": {"name": "blue", "namespace": "shop"}, "spec": {"targets": [{"address": "a:1"}]}}),
            json!({"kind": "Policy", "metadata": {"name": "p", "namespace": "shop"}, "spec": {"global": true, "policies": [{"cors": {}}]}}),
        ];
        let all = [
            shown(&objects, &["all", "-A"]),
            shown(&objects[1..2], &["routes", "-n", "shop", "-o", "wide"]),
            shown(&objects, &["all", "-o", "name"]),
            shown(&objects, &["all", "-A", "-o", "name"]),
            shown(&objects[3..4], &["upstream", "blue", "-o", "json"]),
            shown(&objects[3..], &["upstream", "-o", "yaml"]),
        ];
        insta::assert_snapshot!("get", all.join("\n"));
    }
}
