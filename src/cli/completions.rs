//! `nodens completions SHELL`: prints a script that completes commands and options.

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::{Cli, Exit};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  source <(nodens completions bash)
  nodens completions zsh > ~/.zfunc/_nodens
  nodens completions fish > ~/.config/fish/completions/nodens.fish")]
pub(super) struct Args {
    /// The shell to complete for.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn execute(args: &Args) -> Exit {
    super::print(script(args.shell));
    Exit::Done
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "nodens", &mut script);
    String::from_utf8(script)
        .unwrap_or_else(|_| unreachable!("our commands are ASCII, and so is {:?}'s script", shell.to_possible_value()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in Shell::value_variants() {
            assert!(script(*shell).contains("check"), "{shell}");
        }
    }
}
