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
    /// A command to print the page of, such as `check` or `cache-dump`.
    command: Option<String>,
}

pub(super) fn execute(args: &Args) -> Exit {
    if let Some(page) = page(args.command.as_deref()) {
        super::print(page);
        return Exit::Done;
    }
    let name = super::agent::printable(args.command.as_deref().unwrap_or_default());
    anstream::eprintln!("nodens: there is no command `{name}`; `nodens --help` lists them");
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
            let found = find(&whole, name)?.clone();
            let full_name = format!("nodens-{name}");
            found.display_name(full_name)
        }
    };
    let environment = environment(&wanted);
    let after_help = wanted.get_after_help().map(ToString::to_string);
    let mut page = Vec::new();
    // The text behind the options has lines of its own, which the generator would fill into paragraphs.
    let man = Man::new(wanted.after_help("")).source(concat!("nodens ", env!("CARGO_PKG_VERSION")));
    man.render(&mut page).expect("writing to memory does not fail");
    let page = String::from_utf8(page).expect("the page is made of our own text, which is UTF-8");
    let extra = extra(after_help.as_deref().unwrap_or_default());
    Some(without_empty_sections(&page) + &environment + &extra)
}

/// The command a page is named after: `cache-dump` is `dump` below `cache`, as pages are called on disk.
fn find<'c>(whole: &'c clap::Command, name: &str) -> Option<&'c clap::Command> {
    if let Some(found) = whole.find_subcommand(name) {
        return Some(found);
    }
    let (parent, child) = name.split_once('-')?;
    find(whole.find_subcommand(parent)?, child)
}

/// The text behind the options of `--help` as sections of the page: a line that ends in a colon is a heading.
///
/// Its lines stay as they are (`.nf`): columns and commands would be lost in a paragraph.
fn extra(text: &str) -> String {
    const NOTES: &str = ".SH \"NOTES\"\n";
    let mut section = String::new();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let Some((heading, lines)) = block.split_once(":\n").filter(|(heading, _)| !heading.contains('\n')) else {
            let start = if section.contains(NOTES) { ".PP\n" } else { NOTES };
            let _ = writeln!(section, "{start}{}", escaped(block));
            continue;
        };
        // man-pages(7) has a name for this one.
        let heading = if heading == "Exit codes" { "EXIT STATUS".to_owned() } else { heading.to_uppercase() };
        let _ = write!(section, ".SH \"{heading}\"\n.nf\n");
        let _ = writeln!(section, "{}\n.fi", escaped(lines));
    }
    section
}

/// `text` as roff that shows it: no line of it is a request.
fn escaped(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let shown = line.replace('\\', "\\e").replace('-', "\\-");
        if shown.starts_with(['.', '\'']) { format!("\\&{shown}") } else { shown }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// `page` without headings nothing follows.
fn without_empty_sections(page: &str) -> String {
    let lines: Vec<&str> = page.lines().collect();
    let mut kept = String::with_capacity(page.len());
    for (index, line) in lines.iter().enumerate() {
        let rest = lines[index + 1..].iter().find(|it| !it.trim().is_empty());
        if line.starts_with(".SH") && rest.is_none_or(|next| next.starts_with(".SH")) {
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept
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
        for part in ["nodens\\-check", ".SH \"EXAMPLES\"\n.nf\n  nodens demo", ".SH \"EXIT STATUS\"\n.nf\n  0  done\n"]
        {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
    }

    #[test]
    fn each_command_has_its_page_and_others_have_none() {
        assert!(page(Some("check")).is_some_and(|page| page.contains("NODENS_CONFIG")));
        assert!(
            page(Some("cache-dump")).is_some_and(|page| page.contains("nodens cache dump \\-\\-zone cluster.local"))
        );
        for unknown in ["cheque", "cache-dmp", "cache-", "-dump"] {
            assert_eq!(page(Some(unknown)), None, "{unknown}");
        }
    }
}
