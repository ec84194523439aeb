//! `nodens man`: prints the manual page, made from the same text as `--help`.

use std::fmt::Write;

use clap::CommandFactory;
use clap_mangen::Man;

use super::{Cli, Exit};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  nodens man | man -l -
  nodens man check | man -l -
  nodens man > /usr/local/share/man/man1/nodens.1")]
pub(super) struct Args {
    /// A command to print the page of.
    command: Option<String>,
}

pub(super) fn execute(args: &Args) -> Exit {
    if let Some(page) = page(args.command.as_deref()) {
        super::print(page);
        return Exit::Done;
    }
    anstream::eprintln!("nodens: there is no such command; `nodens --help` lists them");
    Exit::Failed
}

/// The page, in roff; `None` if there is no such command.
fn page(command: Option<&str>) -> Option<String> {
    let mut whole = Cli::command().disable_help_subcommand(true);
    // Gives each command its full name, `nodens check`, as pages and usage lines show it.
    whole.build();
    let wanted = match command {
        None => whole,
        Some(name) => {
            let found = whole.find_subcommand(name)?.clone();
            let full_name = format!("nodens-{name}");
            found.display_name(full_name)
        }
    };
    let environment = environment(&wanted);
    let mut page = Vec::new();
    let man = Man::new(wanted).source(concat!("nodens ", env!("CARGO_PKG_VERSION")));
    man.render(&mut page).expect("writing to memory does not fail");
    Some(String::from_utf8(page).expect("the page is made of our own text, which is UTF-8") + &environment)
}

/// The variables that stand in for options, which the generator leaves out.
fn environment(command: &clap::Command) -> String {
    let mut section = String::new();
    for argument in command.get_arguments() {
        let (Some(option), Some(variable)) = (argument.get_long(), argument.get_env()) else { continue };
        if section.is_empty() {
            section.push_str(".SH ENVIRONMENT\n");
        }
        let variable = variable.to_string_lossy();
        let _ = write!(section, ".TP\n\\fB{variable}\\fR\nStands in for \\fB\\-\\-{option}\\fR.\n");
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_commands_examples_and_exit_codes() {
        let page = page(None).expect("the page of nodens itself");
        for part in ["nodens\\-check", "Examples:", "Exit codes:"] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
    }

    #[test]
    fn each_command_has_its_page_and_others_have_none() {
        assert!(page(Some("check")).is_some_and(|page| page.contains("NODENS_CONFIG")));
        assert_eq!(page(Some("cheque")), None);
    }
}
