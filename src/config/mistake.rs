//! What is wrong with a configuration file, where, and how to mend it.
//!
//! Readers put every mistake they meet into [`Notes`] and go on; whoever asked gets all of them at once, in the order of
//! the file. Nothing a file or the environment says reaches a terminal as a control character.
//!
//! ```text
//! nodens.yaml:14:5: `upstrems` is no key of `zones.corp.lan`
//!   14 |     upstrems: corp
//!      |     ^^^^^^^^
//!      = did you mean `upstream`?
//! ```

use std::fmt;

/// Mistakes that are reported; a file with more has one cause, such as being no configuration at all.
const MAX_MISTAKES: usize = 100;
/// Columns of an excerpt; of a longer line the part around the mistake is shown.
const EXCERPT_WIDTH: usize = 100;

/// Everything that is wrong with a configuration; never empty.
///
/// Its `Display` is the whole message: each mistake with file, line, column, excerpt and remedy, and their number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigErrors {
    file: String,
    mistakes: Vec<Mistake>,
    /// Mistakes beyond [`MAX_MISTAKES`].
    left_out: usize,
}

impl ConfigErrors {
    /// A flaw of the file as a whole, such as not being there.
    pub(super) fn whole(file: &str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        let mistake = Mistake { place: None, excerpt: String::new(), what: what.into(), remedy: remedy.into() };
        Self { file: printable(file), mistakes: vec![mistake], left_out: 0 }
    }

    /// The mistakes, in the order of the file; at most 100.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.mistakes {
            f.write_str(&self.file)?;
            if let Some(Place { line, column }) = mistake.place {
                write!(f, ":{line}:{column}")?;
            }
            writeln!(f, ": {}", mistake.what)?;
            if mistake.excerpt.is_empty() {
                writeln!(f, "  = {}\n", mistake.remedy)?;
            } else {
                let indent = mistake.excerpt.find('|').unwrap_or(0);
                writeln!(f, "{}\n{:indent$}= {}\n", mistake.excerpt, "", mistake.remedy)?;
            }
        }
        match self.mistakes.len() + self.left_out {
            1 => write!(f, "1 mistake in {}", self.file)?,
            many => write!(f, "{many} mistakes in {}", self.file)?,
        }
        if self.left_out > 0 {
            write!(f, ", the first {} of them above", self.mistakes.len())?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// One thing to mend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mistake {
    /// `None`: it concerns the file as a whole.
    pub place: Option<Place>,
    /// The line, numbered, and a caret line below it; empty without a place.
    pub excerpt: String,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub remedy: String,
}

/// A place in a file; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// The line's number.
    pub line: usize,
    /// The character's number in it.
    pub column: usize,
}

// === Notes ===

/// Collects mistakes while a file is read.
pub(super) struct Notes<'t> {
    lines: Lines<'t>,
    /// With the spot each is about.
    mistakes: Vec<(Spot, Mistake)>,
    left_out: usize,
}

/// A stretch of one line: where a caret line goes.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Spot {
    /// From 1.
    pub line: usize,
    /// From 0, in characters.
    pub column: usize,
    /// Characters; what reaches beyond the line is not underlined.
    pub width: usize,
}

impl<'t> Notes<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { lines: Lines::new(text), mistakes: Vec::new(), left_out: 0 }
    }

    pub(super) fn add(&mut self, spot: Spot, what: impl Into<String>, remedy: impl Into<String>) {
        if self.mistakes.len() == MAX_MISTAKES {
            self.left_out += 1;
            return;
        }
        let place = Some(Place { line: spot.line, column: spot.column + 1 });
        let excerpt = self.excerpt(spot);
        self.mistakes
            .push((spot, Mistake { place, excerpt, what: printable(&what.into()), remedy: printable(&remedy.into()) }));
    }

    /// Whether a mistake at this very place is known: others there may be its consequences.
    pub(super) fn has(&self, spot: Spot) -> bool {
        self.mistakes.iter().any(|(known, _)| (known.line, known.column) == (spot.line, spot.column))
    }

    /// Whether no more would be reported.
    pub(super) fn is_full(&self) -> bool {
        self.mistakes.len() == MAX_MISTAKES
    }

    /// The source line a spot lies in.
    pub(super) fn line(&self, spot: Spot) -> &'t str {
        self.lines.get(spot.line)
    }

    /// `Ok` if nothing was noted.
    pub(super) fn finish(mut self, file: &str) -> Result<(), ConfigErrors> {
        if self.mistakes.is_empty() {
            return Ok(());
        }
        self.mistakes.sort_by_key(|(spot, _)| (spot.line, spot.column));
        let mistakes = self.mistakes.into_iter().map(|(_, mistake)| mistake).collect();
        Err(ConfigErrors { file: printable(file), mistakes, left_out: self.left_out })
    }

    fn excerpt(&self, spot: Spot) -> String {
        let line: Vec<char> = self.line(spot).trim_end().chars().map(shown).collect();
        let column = spot.column.min(line.len());
        let width = spot.width.clamp(1, (line.len() - column).max(1));
        // A long line is cut to a window that begins a little before the mistake.
        let start = if line.len() <= EXCERPT_WIDTH { 0 } else { column.saturating_sub(EXCERPT_WIDTH / 4) };
        let end = line.len().min(start + EXCERPT_WIDTH);
        let text: String = line[start..end].iter().collect();
        let (before, after) = (if start > 0 { "…" } else { "" }, if end < line.len() { "…" } else { "" });
        let number = spot.line.to_string();
        let blank = " ".repeat(number.len());
        let pad = " ".repeat(column - start + usize::from(start > 0));
        let carets = "^".repeat(width.min(EXCERPT_WIDTH + start - column));
        format!("  {number} | {before}{text}{after}\n  {blank} | {pad}{carets}")
    }
}

/// The lines of a text, as YAML breaks them (YAML 1.2.2 section 5.4: LF, CRLF, CR).
struct Lines<'t>(Vec<&'t str>);

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let mut lines = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['\n', '\r']) {
            lines.push(&rest[..at]);
            let broken = &rest[at..];
            rest = broken.strip_prefix("\r\n").unwrap_or(&broken[1..]);
        }
        lines.push(rest);
        Self(lines)
    }

    fn get(&self, number: usize) -> &'t str {
        number.checked_sub(1).and_then(|index| self.0.get(index)).copied().unwrap_or_default()
    }
}

/// What an excerpt shows of a character: one column, and nothing a terminal would obey.
fn shown(character: char) -> char {
    match character {
        '\t' => ' ',
        it if is_harmless(it) => it,
        _ => '\u{fffd}',
    }
}

/// `text` with what a terminal would obey written out.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_harmless(character) {
            out.push(character);
        } else {
            out.extend(character.escape_unicode());
        }
    }
    out
}

/// Neither a control character nor one that turns the direction of writing.
fn is_harmless(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str, spot: Spot) -> String {
        let mut notes = Notes::new(text);
        notes.add(spot, "wrong", "right");
        notes.finish("f").expect_err("a mistake was noted").to_string()
    }

    #[test]
    fn the_caret_stands_below_the_mistake() {
        let shown = message("a: 1\r\n  b: två\n", Spot { line: 2, column: 5, width: 3 });
        assert_eq!(shown, "f:2:6: wrong\n  2 |   b: två\n    |      ^^^\n    = right\n\n1 mistake in f");
    }

    #[test]
    fn a_spot_outside_the_text_still_gives_a_message() {
        for spot in [Spot { line: 9, column: 9, width: 9 }, Spot { line: 1, column: 700, width: 0 }, Spot::default()] {
            assert!(message("a: b", spot).contains("wrong"));
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_mistake() {
        let text = format!("{}!{}", "x".repeat(5000), "y".repeat(5000));
        let shown = message(&text, Spot { line: 1, column: 5000, width: 1 });
        let lines: Vec<Vec<char>> = shown.lines().map(|line| line.chars().collect()).collect();
        let caret = lines[2].iter().position(|&it| it == '^').expect("there is a caret line");
        assert_eq!(lines[1][caret], '!');
        assert!(lines[1].len() < 120);
    }

    #[test]
    fn nothing_of_the_file_reaches_a_terminal_as_a_command() {
        let mut notes = Notes::new("k: \u{1b}[2J\u{202e}");
        notes.add(Spot { line: 1, column: 3, width: 5 }, "`\u{1b}[2J` is wrong", "right");
        let shown = notes.finish("f\u{7}").expect_err("a mistake was noted").to_string();
        assert!(shown.chars().all(|it| it == '\n' || is_harmless(it)), "{shown:?}");
    }

    #[test]
    fn a_file_with_too_many_mistakes_says_how_many() {
        let mut notes = Notes::new("x");
        for _ in 0..250 {
            notes.add(Spot { line: 1, column: 0, width: 1 }, "wrong", "right");
        }
        let errors = notes.finish("f").expect_err("mistakes were noted");
        assert_eq!(errors.mistakes().len(), MAX_MISTAKES);
        assert!(errors.to_string().ends_with("250 mistakes in f, the first 100 of them above"));
    }
}
