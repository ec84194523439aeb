//! `nodens teardown`: the host as if we had never been there.

use super::Exit;
use crate::node::plane;

#[derive(Debug, clap::Args)]
#[command(after_help = "Removes the tables, the rules, the addresses and the link of Nodens from this host,
whoever put them there and whenever. While an agent intercepts it refuses: stop it first.

Needs CAP_NET_ADMIN. Exit codes: 0 removed, 1 refused.")]
pub(super) struct Args {}

pub(super) fn execute() -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            anstream::eprintln!("nodens teardown: {error}");
            return Exit::Failed;
        }
    };
    match runtime.block_on(plane::tear_down()) {
        Ok(removed) if removed.is_empty() => super::print("nothing of Nodens is on this host\n"),
        Ok(removed) => removed.iter().for_each(|it| super::print(format_args!("removed {it}\n"))),
        Err(error) => {
            anstream::eprintln!("nodens teardown: {error}");
            return Exit::Failed;
        }
    }
    Exit::Done
}
