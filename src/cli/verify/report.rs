//! The lines of `nodens verify`: what was checked, whether it is right, and why not.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::super::agent::printable;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// A line for each check, as it is made, and their sum.
pub(super) struct Report {
    out: anstream::Stdout,
    right: usize,
    wrong: usize,
}

/// What all checks come to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Right,
    Wrong,
}

impl Report {
    pub(super) fn new(out: anstream::Stdout) -> Self {
        Self { out, right: 0, wrong: 0 }
    }

    /// `what` is as it should be.
    pub(super) fn right(&mut self, what: &str, more: &str) -> io::Result<()> {
        self.right += 1;
        self.line(GOOD, '✓', what, more)
    }

    /// `what` is not as it should be, and why.
    pub(super) fn wrong(&mut self, what: &str, why: &str) -> io::Result<()> {
        self.wrong += 1;
        self.line(BAD, '✗', what, why)
    }

    /// One or the other.
    pub(super) fn check(&mut self, what: &str, outcome: Result<String, String>) -> io::Result<()> {
        match outcome {
            Ok(more) => self.right(what, &more),
            Err(why) => self.wrong(what, &why),
        }
    }

    /// Nothing to check here, and why.
    pub(super) fn note(&mut self, what: &str, why: &str) -> io::Result<()> {
        self.line(DIM, '·', what, why)
    }

    /// The sum. Nothing checked is nothing proven.
    pub(super) fn end(&mut self) -> io::Result<Verdict> {
        let total = self.right + self.wrong;
        if self.wrong > 0 || total == 0 {
            writeln!(self.out, "{BAD}{} of {total} checks failed{BAD:#}", self.wrong)?;
            return Ok(Verdict::Wrong);
        }
        writeln!(self.out, "{GOOD}{total} checks, all right{GOOD:#}")?;
        Ok(Verdict::Right)
    }

    fn line(&mut self, style: Style, mark: char, what: &str, more: &str) -> io::Result<()> {
        let (what, more) = (printable(what), printable(more));
        let gap = if more.is_empty() { "" } else { ": " };
        writeln!(self.out, "{style}{mark}{style:#} {what}{gap}{more}")?;
        self.out.flush()
    }
}
