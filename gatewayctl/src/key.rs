//! `key`: API keys of consumers. A key is shown once, when it is made; what is kept of it is its SHA-256.

use gateway_proto::admin::{RotateCredential, RotatedCredential};
use gateway_proto::credential::{self, KeyDigest, RANDOM_LEN};
use gateway_proto::kind::{Key, Kind};
use http::{Method, StatusCode};
use rand::distr::{Alphanumeric, SampleString as _};
use serde_json::{Value, json};

use crate::cli::KeyCommand;
use crate::client::{CallError, Client, object_path};
use crate::objects::{self, Filter, text};
use crate::output::{Output, table};
use crate::report::{Exit, Failure};

/// Makes a key without a control plane, for manifests that a data plane reads itself.
pub(crate) fn generate(output: &Output) -> Result<(), Failure> {
    let key = made();
    output.note(format!("sha256: {}", KeyDigest::of(key.as_bytes())));
    output.line(key)
}

fn made() -> String {
    credential::key(&Alphanumeric.sample_string(&mut rand::rng(), RANDOM_LEN))
}

/// Runs it.
pub(crate) async fn run(command: &KeyCommand, client: &Client, output: &Output) -> Result<(), Failure> {
    match command {
        KeyCommand::Generate => generate(output),
        KeyCommand::Create { name, consumer, namespace, expires } => {
            let key = Key::new(Kind::Credential, namespace, name);
            let text = made();
            let mut spec = json!({ "consumer": consumer, "apiKey": { "key": text } });
            if let Some(end) = expires {
                spec["expires"] = end.to_string().into();
            }
            create(&key, &spec, client).await?;
            let id = KeyDigest::of(text.as_bytes()).id();
            output.note(format!(
                "key {} of consumer {consumer}, id {}, shown this once:",
                key.qualified(),
                id.as_str()
            ));
            output.line(text)
        }
        KeyCommand::Rotate { name, namespace, grace } => {
            let key = Key::new(Kind::Credential, namespace, name);
            let made = rotate(&key, grace.clone(), client).await?;
            match &made.retiring_until {
                Some(until) => output.note(format!("the key before is taken until {until}")),
                None => output.note("the key before is refused from now on"),
            }
            output.note(format!("key {}, id {}, shown this once:", made.object.qualified(), made.id));
            output.line(made.key)
        }
        KeyCommand::Revoke { name, namespace } => {
            let key = Key::new(Kind::Credential, namespace, name);
            let query = [("namespace", namespace.as_str())];
            let _: Value = client.call(Method::DELETE, &object_path(&key), &query, None).await?;
            output.say(format!("key {} is revoked", key.qualified()))
        }
        KeyCommand::List { namespace, all_namespaces } => {
            let namespace = if *all_namespaces { "*" } else { namespace };
            let list =
                objects::list(client, Kind::Credential, &Filter { namespace, labels: None, sealed: false })
                    .await?;
            let rows: Vec<Vec<String>> = list.iter().map(row).collect();
            output.raw(&table(
                &["NAMESPACE", "NAME", "CONSUMER", "ID", "EXPIRES", "RETIRING", "UPDATED"],
                &rows,
            ))
        }
    }
}

/// A new one with its key, in one step: of two who make one of the same name, one does. One that exists is not touched.
async fn create(key: &Key, spec: &Value, client: &Client) -> Result<(), Failure> {
    let body = json!({ "spec": spec }).to_string().into_bytes();
    let query = [("namespace", key.namespace.as_str())];
    match client.create::<Value>(&object_path(key), &query, body).await {
        Ok(_) => Ok(()),
        Err(CallError::Refused(problem)) if problem.status == StatusCode::PRECONDITION_FAILED.as_u16() => {
            let message = format!("there is already a {key}");
            Err(Failure::new(Exit::Conflict, message)
                .help("choose another name, or give it another key with `gatewayctl key rotate`"))
        }
        Err(error) => Err(error.into()),
    }
}

async fn rotate(key: &Key, grace: Option<String>, client: &Client) -> Result<RotatedCredential, Failure> {
    let body = serde_json::to_vec(&RotateCredential { grace });
    let body = body.map_err(|error| Failure::runtime(error.to_string()))?;
    let path = format!("{}/rotate", object_path(key));
    Ok(client.call(Method::POST, &path, &[("namespace", &key.namespace)], Some(body)).await?)
}

fn row(object: &Value) -> Vec<String> {
    let digest = text(object, "/spec/apiKey/sha256");
    let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    let retiring = match text(object, "/spec/apiKey/retiringUntil") {
        "" => String::new(),
        until => format!("{} until {until}", id(text(object, "/spec/apiKey/retiringSha256"))),
    };
    vec![
        text(object, "/metadata/namespace").to_owned(),
        text(object, "/metadata/name").to_owned(),
        text(object, "/spec/consumer").to_owned(),
        or(id(digest), "none yet"),
        or(text(object, "/spec/expires"), "never"),
        retiring,
        text(object, "/metadata/updatedAt").to_owned(),
    ]
}

/// What a key is known by.
pub(crate) fn id(digest: &str) -> &str {
    digest.get(..16).unwrap_or(digest)
}
