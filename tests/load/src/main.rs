//! The load side of the benchmarks: an origin that costs next to nothing, and a generator that drives a proxy in
//! closed or open loop and counts every answer that is not exactly what was asked for (one thread each, epoll,
//! prebuilt bytes; `tests/load/run` starts both); and a fleet of data planes for `tests/load/sync`. What they say on
//! standard output is one JSON object a line.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

mod connection;
mod fleet;
mod forward;
mod generate;
mod histogram;
mod http1;
mod http2;
mod origin;
mod socket;
mod tally;
mod traffic;

/// Origin, load generator and fleet of the benchmarks (see tests/load/README.md).
#[derive(Debug, Parser)]
#[command(name = "gateway-load", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer every request with the same body, on connections that stay open
    Origin(origin::Settings),
    /// Pass bytes on between clients and one target, looking at nothing: what the system alone costs
    Forward(forward::Settings),
    /// Send requests and print what came back
    Generate(generate::Settings),
    /// Be a thousand data planes on the stream of a control plane, as light as the protocol allows
    Fleet(fleet::Settings),
    /// Write a self-signed P-256 certificate for localhost: cert.pem, key.pem, and both in one file, both.pem
    Certificate {
        /// Where the files go
        #[arg(long)]
        directory: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Origin(settings) => origin::run(&settings),
        Command::Forward(settings) => forward::run(&settings),
        Command::Generate(settings) => generate::run(settings),
        Command::Fleet(settings) => fleet::run(settings),
        Command::Certificate { directory } => certificate(&directory),
    }
}

/// One line of JSON on standard output, at once: whoever started us reads it while we run.
fn say(line: &serde_json::Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush().context("standard output is closed")
}

fn certificate(directory: &std::path::Path) -> anyhow::Result<()> {
    let names = ["localhost".to_owned(), SocketAddr::from(([127, 0, 0, 1], 0)).ip().to_string()];
    let made = rcgen::generate_simple_self_signed(names).context("cannot make a certificate")?;
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    for (name, text) in [("cert.pem", &cert), ("key.pem", &key), ("both.pem", &format!("{cert}{key}"))] {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
