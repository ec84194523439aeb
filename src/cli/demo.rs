//! `nodens demo`: one command that shows what Nodens does.

use super::Exit;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  nodens demo             a tour: hit, miss, route, search noise, outage, recovery
  nodens demo --serve     leave it running, and ask it with dig")]
pub(super) struct Args {
    /// Leave the servers running after the tour, and print lines for dig.
    #[arg(long)]
    pub(super) serve: bool,
}

pub(super) fn execute(args: &Args) -> Exit {
    let what = if args.serve { "demo to serve" } else { "demo" };
    anstream::eprintln!("nodens: this build contains no {what}");
    Exit::Failed
}
