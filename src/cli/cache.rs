//! `nodens cache dump` and `nodens cache flush`: the cache of a running agent, through its control socket.

use std::path::PathBuf;

use super::{ConfigFile, Exit};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print what is cached.
    #[command(after_help = "Examples:
  nodens cache dump                            everything, a line each
  nodens cache dump --zone cluster.local       what lies in one zone
  nodens cache dump --name example.com --json  one name, for jq")]
    Dump {
        #[command(flatten)]
        which: Which,
        /// Print JSON, an object a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        agent: Agent,
    },
    /// Forget what is cached; the next query asks upstream.
    #[command(after_help = "Examples:
  nodens cache flush                         everything
  nodens cache flush --zone corp.example     a name and all below it
  nodens cache flush --name www.example.com  one name, all types")]
    Flush {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        agent: Agent,
    },
}

/// The part of the cache that is meant; all of it if nothing is said.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Which {
    /// This name and all names below it.
    #[arg(long, value_name = "ZONE", conflicts_with = "name")]
    pub(super) zone: Option<String>,
    /// This name alone.
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
}

/// Which agent: the socket, else the one its configuration names, else /run/nodens/control.sock.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Agent {
    /// The agent's control socket.
    #[arg(long, value_name = "SOCKET")]
    pub(super) control: Option<PathBuf>,
    #[command(flatten)]
    pub(super) config: ConfigFile,
}

pub(super) fn execute(command: &Command) -> Exit {
    let agent = match command {
        Command::Dump { agent, .. } | Command::Flush { agent, .. } => agent,
    };
    let socket = agent.control.clone().unwrap_or_else(|| PathBuf::from("/run/nodens/control.sock"));
    anstream::eprintln!("nodens: this build cannot reach an agent at {}", socket.display());
    Exit::Unreachable
}
