//! Commands about who data planes are.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{duration, name};

#[derive(Debug, Subcommand)]
pub(crate) enum JoinTokenCommand {
    /// Make a token that data planes join with; it is shown once
    Create {
        /// Its name, for lists and the audit log
        #[arg(value_parser = name)]
        name: String,
        /// Group of the data planes: they are sent what this group takes, and nothing else
        #[arg(long, default_value = "default", value_name = "NAME")]
        group: String,
        /// How many data planes may join with it
        #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
        uses: u32,
        /// How long it is good for
        #[arg(long, default_value = "1h", value_name = "TIME", value_parser = duration)]
        ttl: Duration,
        /// Write it to this file (mode 0600) instead; if a join token is in it already, keep that and make none
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// List join tokens
    List,
    /// End a join token; data planes that have joined with it stay
    Revoke {
        /// Its name
        #[arg(value_parser = name)]
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Show the control plane's own CA, and how far a replacement of it is
    Status,
    /// Replace it: the new one is handed out, signs once every connected data plane has it, and the old one goes once
    /// nobody needs it
    Rotate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NodesFormat {
    /// For people
    Text,
    /// More columns
    Wide,
    /// As the API answers
    Json,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct NodesArgs {
    #[command(subcommand)]
    pub(crate) command: Option<NodesCommand>,
    /// text, wide or json
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: NodesFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodesCommand {
    /// Refuse the certificates that a data plane has by now, whoever shows them; with a new join token it comes back
    Revoke {
        /// Its name
        name: String,
        /// Also if no data plane of that name was ever seen
        #[arg(long)]
        force: bool,
    },
}
