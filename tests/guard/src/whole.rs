//! A whole plain request: the real data plane with one worker, a client and a target on loopback. The client sends on
//! all its connections and then reads from all of them, so that the worker always has many to serve, as under load.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Connections of the client.
const CONNECTIONS: u64 = 32;
/// Requests on each of them, in the two runs.
const FEW: u64 = 30;
const MANY: u64 = 230;
/// Valgrind makes everything slow.
const PATIENCE: Duration = Duration::from_secs(120);

const REQUEST: &[u8] = b"GET /api/v1/shops/17/items?limit=50&cursor=abc HTTP/1.1\r\n\
    Host: shop.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0)\r\n\
    Accept: application/json\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n\r\n";

/// Instructions of one request: the difference of two runs, divided.
pub(crate) fn instructions(program: &Path, folder: &Path) -> anyhow::Result<u64> {
    let (few, many) = (run(program, folder, FEW)?, run(program, folder, MANY)?);
    Ok(many.saturating_sub(few) / ((MANY - FEW) * CONNECTIONS))
}

/// Instructions of a process that serves so many requests on each connection.
fn run(program: &Path, folder: &Path, requests: u64) -> anyhow::Result<u64> {
    let target = target()?;
    // Taken and let go: the data plane is told a port, because nobody asks it for the one it got.
    let listener = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let manifest = folder.join("gateway.yaml");
    std::fs::write(&manifest, manifests(listener, target)).context("cannot write the manifest")?;
    let mut process = Process(
        crate::callgrind(folder, None)
            .arg(program)
            .args(["--admin-listen", "127.0.0.1:0", "--workers", "1", "--drain-delay", "0s", "--manifests"])
            .arg(&manifest)
            .arg("--state-dir")
            .arg(folder.join("state"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start valgrind")?,
    );
    let mut clients = vec![process.connect(listener)?];
    while clients.len() < CONNECTIONS as usize {
        clients.push(TcpStream::connect(listener)?);
    }
    ask(&mut clients, requests)?;
    drop(clients);
    process.stop()?;
    crate::collected(folder)
}

fn manifests(listener: SocketAddr, target: SocketAddr) -> String {
    format!(
        "apiVersion: gateway/v1\nkind: Listener\nmetadata: {{ name: public }}\n\
         spec: {{ address: 127.0.0.1, port: {} }}\n---\n\
         apiVersion: gateway/v1\nkind: Upstream\nmetadata: {{ name: u }}\n\
         spec: {{ targets: [{{ address: '{target}' }}] }}\n---\n\
         apiVersion: gateway/v1\nkind: Route\nmetadata: {{ name: r }}\n\
         spec: {{ matches: [{{ path: {{ prefix: /api }} }}], forward: {{ backends: [{{ upstream: u }}] }} }}\n",
        listener.port()
    )
}

/// A target that answers each request with 1 KiB.
fn target() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot bind the target")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1024\r\n\r\n";
        let answer = [head.as_bytes(), &[b'x'; 1024]].concat();
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                while until(&mut stream, |message| message.ends_with(b"\r\n\r\n")).is_ok() {
                    if stream.write_all(&answer).is_err() {
                        break;
                    }
                }
            });
        }
    });
    Ok(address)
}

/// Reads until a message is whole.
fn until(stream: &mut TcpStream, whole: impl Fn(&[u8]) -> bool) -> anyhow::Result<Vec<u8>> {
    let (mut message, mut piece) = (Vec::new(), [0; 4096]);
    while !whole(&message) {
        match stream.read(&mut piece)? {
            0 => bail!("the connection ended after {} bytes", message.len()),
            count => message.extend_from_slice(&piece[..count]),
        }
    }
    Ok(message)
}

fn ask(clients: &mut [TcpStream], requests: u64) -> anyhow::Result<()> {
    for client in clients.iter() {
        client.set_nodelay(true)?;
        client.set_read_timeout(Some(PATIENCE))?;
    }
    let whole = |message: &[u8]| message.len() > 1024 && message.ends_with(b"xxxx");
    for _ in 0..requests {
        for client in clients.iter_mut() {
            client.write_all(REQUEST)?;
        }
        for client in clients.iter_mut() {
            let answer = until(client, whole)?;
            if !answer.starts_with(b"HTTP/1.1 200") {
                bail!("not answered with 200: {}", String::from_utf8_lossy(&answer));
            }
        }
    }
    Ok(())
}

/// Ended when dropped.
struct Process(Child);

impl Process {
    /// Waits until the data plane listens.
    fn connect(&mut self, address: SocketAddr) -> anyhow::Result<TcpStream> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(stream) = TcpStream::connect(address) {
                return Ok(stream);
            }
            if let Some(status) = self.0.try_wait()? {
                bail!("the data plane ended: {status}");
            }
            if Instant::now() > deadline {
                bail!("the data plane does not listen on {address}");
            }
            std::thread::yield_now();
        }
    }

    /// Ends it as a service manager does, so that valgrind reports.
    fn stop(&mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).context("cannot signal the data plane")?;
        let status = self.0.wait()?;
        if !status.success() {
            bail!("the data plane ended: {status}");
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, or of no use any more.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}
