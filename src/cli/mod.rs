//! The commands: what a person types, and which module does it.
//!
//! `--help` is the manual; `nodens man` and `nodens completions` print the same knowledge for other readers. A command is
//! one module with an `Args` and one function that returns an [`Exit`].

mod agent;
mod cache;
mod check;
mod client;
mod completions;
mod demo;
mod import;
mod log;
mod man;
mod node_cache;
mod run;
mod status;
mod teardown;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{self, ConfigErrors};
use crate::plan::Plan;

/// A DNS cache for every Kubernetes node that goes on answering when what is around it fails.
///
/// Nodens answers from its cache, asks the right upstream for each zone, and goes on with what it knows while that
/// upstream is silent. Without a configuration it needs no right and touches nothing: it listens on 127.0.0.1:1053 and
/// asks the servers in /etc/resolv.conf.
#[derive(Debug, Parser)]
#[command(name = "nodens", version, after_help = EXAMPLES, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  nodens demo                          see it work: a cluster, an outage, a recovery, in one process
  nodens run                           127.0.0.1:1053, to the servers in /etc/resolv.conf
  dig @127.0.0.1 -p 1053 example.com   ask it
  nodens check -c nodens.yaml          every mistake at once, or the plan in words
  nodens run -c nodens.yaml            as configured; SIGHUP reloads, SIGTERM drains
  nodens import Corefile               the same as node-local-dns, in our words

Exit codes:
  0  done
  1  wrong input, or a failed check
  2  wrong usage of the command line
  3  the agent cannot be reached";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent.
    Run(run::Args),
    /// Check a configuration and print the plan in words.
    Check(check::Args),
    /// See Nodens work: no root, no network, nothing to set up.
    Demo(demo::Args),
    /// How a running agent stands, on one screen.
    Status(status::Args),
    /// Check that what runs does what it should: the gate after an apply.
    Verify(verify::Args),
    /// Look into the cache of a running agent, or empty it.
    #[command(subcommand)]
    Cache(cache::Command),
    /// Print the configuration that says what a Corefile of node-local-dns says.
    Import(import::Args),
    /// Remove everything Nodens ever put on this host.
    Teardown(teardown::Args),
    /// Print completions for a shell.
    Completions(completions::Args),
    /// Print the manual page, for `man -l -`.
    Man(man::Args),
}

/// How a command ended; its number is the exit code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// It did what was asked.
    Done = 0,
    /// The input is wrong, or a check failed; the message is on standard error.
    Failed = 1,
    /// The agent cannot be reached.
    Unreachable = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Does what the command line says. Wrong usage, `--help` and `--version` end the process here (codes 2, 0, 0).
///
/// Called as `node-cache`, it is that: other flags, another configuration, the same agent.
pub fn main() -> ExitCode {
    if node_cache::is_called() {
        return node_cache::main();
    }
    let exit = match Cli::parse().command {
        Command::Run(args) => run::execute(&args),
        Command::Check(args) => check::execute(&args),
        Command::Demo(args) => demo::execute(&args),
        Command::Cache(command) => cache::execute(&command),
        Command::Import(args) => import::execute(&args),
        Command::Completions(args) => completions::execute(&args),
        Command::Man(args) => man::execute(&args),
        Command::Status(args) => status::execute(&args),
        Command::Verify(args) => verify::execute(&args),
        Command::Teardown(_) => teardown::execute(),
    };
    exit.into()
}

/// The option by which commands find the configuration.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConfigFile {
    /// The configuration, YAML. Left out: 127.0.0.1:1053, to the servers in /etc/resolv.conf.
    #[arg(short, long, value_name = "FILE", env = "NODENS_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

/// The configuration where it is what a command is about: it can be named without the option.
#[derive(Args, Clone, Debug)]
pub(crate) struct FileOrOption {
    /// The configuration; the same as -c FILE.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
}

impl FileOrOption {
    /// The one that is meant: what the command line names goes before the environment.
    ///
    /// Two files on the command line are wrong usage and end the process, as clap does it.
    pub(crate) fn choose(&self) -> ConfigFile {
        let Some(file) = &self.file else { return self.config.clone() };
        let from_environment = std::env::var_os("NODENS_CONFIG");
        if self.config.config.as_ref().is_some_and(|option| Some(option.as_os_str()) != from_environment.as_deref()) {
            let message = "the configuration is named twice: write FILE or -c FILE";
            Cli::command().error(clap::error::ErrorKind::ArgumentConflict, message).exit();
        }
        ConfigFile { config: Some(file.clone()) }
    }
}

impl ConfigFile {
    /// Reads the configuration, with references to this process's environment replaced.
    ///
    /// # Errors
    /// Every mistake in it.
    pub(crate) fn load(&self) -> Result<Plan, ConfigErrors> {
        match &self.config {
            Some(path) => config::load(path, &|name| std::env::var(name).ok()),
            None => Ok(config::without_a_file(Path::new("/etc/resolv.conf"))),
        }
    }
}

/// Writes `text` to standard output. A reader that went away (`nodens check | head`) has seen enough.
fn print(text: impl std::fmt::Display) {
    use std::io::Write;
    let _ = write!(anstream::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no about text", command.get_name());
        }
    }
}
