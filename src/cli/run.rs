//! `nodens run`: the agent.

use super::{ConfigFile, Exit};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  nodens run                      127.0.0.1:1053, to the servers in /etc/resolv.conf
  nodens run -c nodens.yaml       as configured

Signals:
  SIGHUP    read the configuration again; a wrong one is refused, and the old plan runs on
  SIGTERM   answer what is waiting, then end")]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) config: ConfigFile,
}

pub(super) fn execute(args: &Args) -> Exit {
    match args.config.load() {
        Ok(_plan) => {
            anstream::eprintln!("nodens: this build contains no agent");
            Exit::Failed
        }
        Err(errors) => {
            anstream::eprintln!("{errors}");
            Exit::Failed
        }
    }
}
