//! Saved servers and tokens: `$XDG_CONFIG_HOME/gateway/contexts.yaml` (else `~/.config`), readable by its owner only.
//! Flags and environment go before it. A saved token is used for the saved server only: naming another server never
//! sends it there.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use gateway_proto::admin::DataPlaneList;
use serde::{Deserialize, Serialize};

use crate::cli::{Connection, LoginArgs};
use crate::client::Client;
use crate::output::{Output, table};
use crate::report::{Exit, Failure};

/// Where a control plane is when nothing is said.
const DEFAULT_SERVER: &str = "http://127.0.0.1:9000";

/// The server to ask and who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Endpoint {
    /// URL of the admin API.
    pub(crate) server: String,
    /// Admin token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// Authority that signed the server's certificate; none: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// The file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Contexts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Endpoint>,
}

/// What flags, environment and the saved context say together.
pub(crate) fn endpoint(connection: &Connection) -> Result<Endpoint, Failure> {
    // Where there is no place for contexts, as in a container, there are none.
    let contexts = if place().is_some() { Contexts::read(&file()?)? } else { Contexts::default() };
    chosen(connection, &contexts)
}

fn chosen(connection: &Connection, contexts: &Contexts) -> Result<Endpoint, Failure> {
    let name = connection.context.as_ref().or(contexts.current.as_ref());
    let saved = match name {
        None => None,
        Some(name) => Some(contexts.contexts.get(name).ok_or_else(|| unknown(name, contexts))?),
    };
    let server = connection.server.clone().or_else(|| saved.map(|saved| saved.server.clone()));
    let server = server.unwrap_or_else(|| DEFAULT_SERVER.to_owned());
    let saved = saved.filter(|saved| saved.server == server);
    Ok(Endpoint {
        token: connection.token.clone().or_else(|| saved.and_then(|saved| saved.token.clone())),
        ca_file: connection.ca_file.clone().or_else(|| saved.and_then(|saved| saved.ca_file.clone())),
        server,
    })
}

fn unknown(name: &str, contexts: &Contexts) -> Failure {
    let known = contexts.contexts.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() {
        "there are none; make one with `gatewayctl login`".to_owned()
    } else {
        format!("there are {known}")
    };
    Failure::runtime(format!("no context {name:?}")).help(known)
}

/// `login`: checks what was given and saves it.
pub(crate) async fn login(args: &LoginArgs, connection: &Connection, output: &Output) -> Result<(), Failure> {
    let mut endpoint = endpoint(&Connection { context: None, ..connection.clone() })?;
    if connection.token.is_none() {
        return Err(
            Failure::new(Exit::Usage, "login needs a token").help("give it with --token or GATEWAY_TOKEN")
        );
    }
    if let Some(ca_file) = &endpoint.ca_file {
        let absolute =
            std::path::absolute(ca_file).map_err(|error| Failure::runtime(format!("--ca-file: {error}")))?;
        endpoint.ca_file = Some(absolute);
    }
    let _: DataPlaneList = Client::new(&endpoint)?.get("/v1/data-planes", &[]).await?;
    save(&args.name, endpoint)?;
    output.note(format!("saved as context {}, which later commands use", args.name));
    Ok(())
}

/// Saves a context and chooses it.
fn save(name: &str, endpoint: Endpoint) -> Result<(), Failure> {
    let file = file()?;
    let mut contexts = Contexts::read(&file)?;
    contexts.choose(name, endpoint);
    contexts.write(&file)
}

/// A context for as long as its server runs.
#[derive(Debug)]
pub(crate) struct Lent {
    name: String,
    endpoint: Endpoint,
    previous: Option<String>,
}

impl Lent {
    /// Saves a context and chooses it until it is taken back.
    pub(crate) fn new(name: &str, endpoint: Endpoint) -> Result<Self, Failure> {
        let file = file()?;
        let mut contexts = Contexts::read(&file)?;
        let previous = contexts.choose(name, endpoint.clone());
        contexts.write(&file)?;
        Ok(Lent { name: name.to_owned(), endpoint, previous })
    }

    /// Removes it and chooses the context that was chosen before.
    pub(crate) fn take_back(self) -> Result<(), Failure> {
        let file = file()?;
        let mut contexts = Contexts::read(&file)?;
        if contexts.remove(&self) { contexts.write(&file) } else { Ok(()) }
    }
}

/// `context list`.
pub(crate) fn list(output: &Output) -> Result<(), Failure> {
    let contexts = Contexts::read(&file()?)?;
    let rows: Vec<Vec<String>> = contexts
        .contexts
        .iter()
        .map(|(name, endpoint)| {
            let mark = if contexts.current.as_ref() == Some(name) { "*" } else { "" };
            vec![mark.to_owned(), name.clone(), endpoint.server.clone()]
        })
        .collect();
    if rows.is_empty() {
        output.note("no contexts; make one with `gatewayctl login`");
    }
    output.raw(&table(&["", "NAME", "SERVER"], &rows))
}

/// `context use`.
pub(crate) fn switch(name: &str, output: &Output) -> Result<(), Failure> {
    let file = file()?;
    let mut contexts = Contexts::read(&file)?;
    if !contexts.contexts.contains_key(name) {
        return Err(unknown(name, &contexts));
    }
    contexts.current = Some(name.to_owned());
    contexts.write(&file)?;
    output.note(format!("later commands use context {name}"));
    Ok(())
}

fn place() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))
}

fn file() -> Result<PathBuf, Failure> {
    let folder = place()
        .ok_or_else(|| Failure::runtime("no place for contexts").help("set HOME or XDG_CONFIG_HOME"))?;
    Ok(folder.join("gateway").join("contexts.yaml"))
}

impl Contexts {
    /// Puts a context in and chooses it; returns what was chosen before, unless that has gone now.
    fn choose(&mut self, name: &str, endpoint: Endpoint) -> Option<String> {
        self.contexts.insert(name.to_owned(), endpoint);
        self.current.replace(name.to_owned()).filter(|previous| previous != name)
    }

    /// Takes a context out, unless somebody put another in its place; returns whether it was there.
    fn remove(&mut self, lent: &Lent) -> bool {
        if self.contexts.get(&lent.name) != Some(&lent.endpoint) {
            return false;
        }
        self.contexts.remove(&lent.name);
        if self.current.as_ref() == Some(&lent.name) {
            self.current = lent.previous.clone().filter(|name| self.contexts.contains_key(name));
        }
        true
    }

    fn read(file: &Path) -> Result<Self, Failure> {
        let at = |error: &dyn std::fmt::Display| {
            Failure::runtime(format!("cannot read {}: {error}", file.display()))
        };
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Contexts::default()),
            Err(error) => return Err(at(&error)),
        };
        serde_saphyr::from_str(&text).map_err(|error| at(&error).help("mend or remove the file"))
    }

    /// Replaces the file in one step, so that a crash leaves the old or the new one.
    fn write(&self, file: &Path) -> Result<(), Failure> {
        let at = |error: &dyn std::fmt::Display| {
            Failure::runtime(format!("cannot write {}: {error}", file.display()))
        };
        let text = serde_saphyr::to_string(self).map_err(|error| at(&error))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|error| at(&error))?;
        let new = file.with_extension(format!("new-{}", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        let mut out = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(|error| at(&error))?;
        out.write_all(text.as_bytes()).map_err(|error| at(&error))?;
        std::fs::rename(&new, file).map_err(|error| at(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn contexts() -> Contexts {
        let at = |server: &str| Endpoint {
            server: server.into(),
            token: Some(format!("token of {server}")),
            ca_file: None,
        };
        let contexts = [("dev", "http://dev"), ("live", "https://live")];
        Contexts {
            current: Some("dev".into()),
            contexts: contexts.map(|(name, server)| (name.to_owned(), at(server))).into(),
        }
    }

    #[test]
    fn flags_go_before_the_chosen_context_and_its_token_stays_with_its_server() {
        let flags = |server: Option<&str>, token: Option<&str>, context: Option<&str>| Connection {
            server: server.map(str::to_owned),
            token: token.map(str::to_owned),
            context: context.map(str::to_owned),
            ca_file: None,
        };
        for (connection, server, token) in [
            (flags(None, None, None), "http://dev", Some("token of http://dev")),
            (flags(None, None, Some("live")), "https://live", Some("token of https://live")),
            (flags(None, Some("t"), None), "http://dev", Some("t")),
            (flags(Some("http://other"), None, None), "http://other", None),
            (flags(Some("http://dev"), None, None), "http://dev", Some("token of http://dev")),
        ] {
            let endpoint = chosen(&connection, &contexts()).expect("it is there");
            assert_eq!((endpoint.server.as_str(), endpoint.token.as_deref()), (server, token));
        }
        let none = chosen(&flags(None, None, None), &Contexts::default()).expect("a default");
        assert_eq!((none.server.as_str(), none.token), (DEFAULT_SERVER, None));
        let failure = chosen(&flags(None, None, Some("nope")), &contexts()).expect_err("unknown");
        assert_eq!(failure.help.as_deref(), Some("there are dev, live"));
    }

    #[test]
    fn a_lent_context_goes_and_the_one_before_is_chosen_again() {
        let endpoint = |server: &str| Endpoint { server: server.into(), token: None, ca_file: None };
        let lend = |contexts: &mut Contexts| {
            let previous = contexts.choose("dev", endpoint("http://mine"));
            Lent { name: "dev".to_owned(), endpoint: endpoint("http://mine"), previous }
        };
        let mut before = contexts();
        before.contexts.remove("dev");
        before.current = Some("live".to_owned());
        let mut now = Contexts { current: before.current.clone(), contexts: before.contexts.clone() };
        let lent = lend(&mut now);
        assert_eq!(now.current.as_deref(), Some("dev"));
        assert!(now.remove(&lent));
        assert_eq!(now, before);

        // One of an earlier `dev` that was killed is no place to go back to.
        let mut now = contexts();
        let lent = lend(&mut now);
        assert!(now.remove(&lent));
        assert_eq!((now.current.as_deref(), now.contexts.len()), (None, 1));

        // What was chosen in between stays, and so does another's `dev`.
        let mut now = contexts();
        let lent = lend(&mut now);
        now.current = Some("live".to_owned());
        assert!(now.remove(&lent));
        assert_eq!(now.current.as_deref(), Some("live"));
        now.choose("dev", endpoint("http://theirs"));
        assert!(!now.remove(&lent));
        assert_eq!(now.current.as_deref(), Some("dev"));
    }

    #[test]
    fn the_file_is_for_its_owner_and_reads_back() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("gateway/contexts.yaml");
        assert_eq!(Contexts::read(&file).expect("none yet"), Contexts::default());
        contexts().write(&file).expect("written");
        contexts().write(&file).expect("written again");
        assert_eq!(Contexts::read(&file).expect("it is there"), contexts());
        assert_eq!(file.metadata().expect("there").permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "contexts: 7").expect("written");
        assert!(Contexts::read(&file).expect_err("nonsense").to_string().contains("mend or remove"));
    }
}
