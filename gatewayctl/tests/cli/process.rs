//! The harness: a running `dev` on free ports with a home folder of its own, and commands run against it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long something may take that should happen: only a fault gets there.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running `gatewayctl dev`; killed when dropped.
pub(crate) struct Dev {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    errors: Arc<Errors>,
    pub(crate) home: TempDir,
    /// Listeners that were announced, `namespace/name` and address.
    pub(crate) listeners: Vec<(String, SocketAddr)>,
}

/// What it has written to its standard error so far.
#[derive(Default)]
struct Errors {
    text: Mutex<String>,
    more: Condvar,
}

impl Errors {
    fn collect(self: Arc<Self>, from: impl std::io::Read) {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut text = self.text.lock().expect("no holder panics");
            text.push_str(&line);
            text.push('\n');
            self.more.notify_all();
        }
    }
}

/// What a command did.
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A command with nothing of the outer environment that would change what it does.
pub(crate) fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatewayctl"));
    command.args(arguments).current_dir(home).stdin(Stdio::null());
    for name in ["GATEWAY_SERVER", "GATEWAY_TOKEN", "GATEWAY_CONTEXT", "GATEWAY_CA_FILE"] {
        command.env_remove(name);
    }
    command.env("HOME", home).env("XDG_CONFIG_HOME", home).env("NO_COLOR", "1");
    command
}

/// Runs a command that needs no server.
pub(crate) fn alone(home: &Path, arguments: &[&str]) -> Done {
    done(command(home, arguments))
}

fn done(mut command: Command) -> Done {
    let output = command.output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

impl Dev {
    /// Starts one with the sample.
    pub(crate) fn start() -> Self {
        Dev::with(&["--listen", "127.0.0.1:0"], |_| {})
    }

    /// Starts one after preparing its folder.
    pub(crate) fn with(arguments: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let home = TempDir::new().expect("temporary folder");
        prepare(home.path());
        let arguments = [&["dev", "--admin-listen", "127.0.0.1:0"], arguments].concat();
        let mut command = command(home.path(), &arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let errors = Arc::new(Errors::default());
        let (collector, stderr) = (Arc::clone(&errors), child.stderr.take().expect("piped"));
        std::thread::spawn(move || collector.collect(stderr));
        let mut dev = Dev { child, lines, errors, home, listeners: Vec::new() };
        for line in dev.until("Ctrl-C ends it.") {
            if let Some((address, name)) =
                line.strip_prefix("listener    http://").and_then(|rest| rest.split_once("  ("))
            {
                let address = address.parse().expect("an address");
                dev.listeners.push((name.trim_end_matches(')').to_owned(), address));
            }
        }
        dev
    }

    /// Its lines up to one that holds a text.
    pub(crate) fn until(&mut self, text: &str) -> Vec<String> {
        let mut seen = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.expect("text");
            let last = line.contains(text);
            seen.push(line);
            if last {
                return seen;
            }
        }
        panic!("dev ended before {text:?}: {seen:#?}\n{}", self.errors());
    }

    pub(crate) fn errors(&self) -> String {
        self.errors.text.lock().expect("no holder panics").clone()
    }

    /// Waits until its standard error holds a text.
    pub(crate) fn until_error(&self, wanted: &str) {
        let text = self.errors.text.lock().expect("no holder panics");
        let waited = self.errors.more.wait_timeout_while(text, PATIENCE, |text| !text.contains(wanted));
        let (text, late) = waited.expect("no holder panics");
        assert!(!late.timed_out(), "no {wanted:?} in {text}");
    }

    /// Writes a manifest into its folder.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        // In one step, as editors do it: `dev --watch` never sees half a file.
        let new = self.home.path().join(".new");
        std::fs::write(&new, text).expect("file");
        std::fs::rename(new, path).expect("file");
    }

    /// Runs a command against it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        done(command(self.home.path(), arguments))
    }

    /// Runs a command that must succeed, and returns what it wrote.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        assert_eq!(done.code, Some(0), "{arguments:?}: {}{}\n{}", done.out, done.err, self.errors());
        done.out
    }

    /// Runs a command with something on its standard input.
    pub(crate) fn piped(&self, arguments: &[&str], input: &str) -> Done {
        let mut command = command(self.home.path(), arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// GET from the first listener: status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        fetch(self.listeners[0].1, path)
    }

    /// Asks it to end, and returns its exit code.
    pub(crate) fn interrupt(mut self) -> Option<i32> {
        self.end()
    }

    /// Asks it to end, which must work, and keeps its folder.
    pub(crate) fn interrupt_and_keep(mut self) -> TempDir {
        assert_eq!(self.end(), Some(0), "{}", self.errors());
        let nothing = TempDir::new().expect("temporary folder");
        std::mem::replace(&mut self.home, nothing)
    }

    fn end(&mut self) -> Option<i32> {
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(id), Signal::SIGINT).expect("it runs");
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Already gone after `interrupt`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// GET on a connection of its own: status and body.
pub(crate) fn fetch(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("a response");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// A route of namespace `default` that answers by itself.
pub(crate) fn answering(name: &str, path: &str, body: &str) -> String {
    format!(
        "apiVersion: gateway/v1\nkind: Route\nmetadata: {{ name: {name}, labels: {{ team: shop }} }}\nspec:\n  matches: [{{ path: {{ exact: {path} }} }}]\n  \
         respond: {{ body: \"{body}\" }}\n"
    )
}
