//! What the demo looks like: at most 80 columns, aligned, coloured where a terminal shows it.

use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::cluster::Count;
use super::tour::Source;
use crate::cli::client::{Question, Reply};

const TITLE: Style = AnsiColor::Cyan.on_default().bold();
const SECTION: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Columns of a line.
const WIDTH: usize = 80;
/// Column at which the notes start, and with them the source of the answer below.
const RIGHT: usize = 48;
/// Columns for what happened, in front of counts.
const COUNTED: usize = 38;

/// Where the demo writes. Every call is whole lines, out at once.
pub(super) struct Screen<W> {
    out: W,
}

// === impl Screen ===

impl<W: Write> Screen<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }

    pub(super) fn title(&mut self, left: &str, right: &str) -> io::Result<()> {
        let gap = WIDTH.saturating_sub(left.chars().count() + right.chars().count());
        writeln!(self.out, "\n{TITLE}{left}{TITLE:#}{:gap$}{DIM}{right}{DIM:#}\n", "")?;
        self.out.flush()
    }

    pub(super) fn section(&mut self, heading: &str) -> io::Result<()> {
        writeln!(self.out, "\n{SECTION}{heading}{SECTION:#}")?;
        self.out.flush()
    }

    pub(super) fn blank(&mut self) -> io::Result<()> {
        writeln!(self.out)?;
        self.out.flush()
    }

    /// A line of plain text, below a section.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "  {text}")?;
        self.out.flush()
    }

    /// A line in the background.
    pub(super) fn whisper(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "  {DIM}{text}{DIM:#}")?;
        self.out.flush()
    }

    /// `label` and what belongs to it, in two columns.
    pub(super) fn pair(&mut self, label: &str, text: &str) -> io::Result<()> {
        writeln!(self.out, "  {label:<13}{text}")?;
        self.out.flush()
    }

    /// A question and its checked answer: two lines.
    pub(super) fn exchange(&mut self, asked: &Question, note: &str, reply: &Reply, source: Source) -> io::Result<()> {
        let answer = match reply.ede {
            Some(code) => format!("{} (EDE {code})", reply.result),
            None => reply.result.to_string(),
        };
        self.row(&asked.to_string(), note, &answer, source, reply.ttl, reply.took)
    }

    /// As [`Screen::exchange`], for a row that stands for many questions.
    pub(super) fn row(
        &mut self,
        asked: &str,
        note: &str,
        answer: &str,
        source: Source,
        ttl: Option<u32>,
        took: Duration,
    ) -> io::Result<()> {
        let asked = fit(asked, RIGHT - 3);
        let note = fit(note, WIDTH - RIGHT);
        // A long answer may use the columns of a short source, never those of the figures.
        let answer = fit(answer, RIGHT - 9);
        let ttl = ttl.map_or_else(String::new, |seconds| format!("TTL {seconds}"));
        let colour = source.colour();
        writeln!(self.out, "{GOOD}✓{GOOD:#} {asked:<width$}{DIM}{note}{DIM:#}", width = RIGHT - 2)?;
        writeln!(
            self.out,
            "        {answer:<width$}{colour}{source:<12}{colour:#}{ttl:<8}{time:>11}",
            width = RIGHT - 8,
            source = source.label(),
            time = show_time(took),
        )?;
        self.out.flush()
    }

    /// Above lines of [`Screen::count`].
    pub(super) fn count_heads(&mut self) -> io::Result<()> {
        let [asked, cluster, agent, lost] = ["asked", "cluster DNS", "agent", "lost"];
        writeln!(self.out, "  {:COUNTED$}{DIM}{asked:>8}{cluster:>13}{agent:>9}{lost:>8}{DIM:#}", "")?;
        self.out.flush()
    }

    /// What happened, and what became of the questions meanwhile.
    pub(super) fn count(&mut self, what: &str, count: &Count) -> io::Result<()> {
        let Count { asked, cluster, agent, lost } = count;
        let what = fit(what, COUNTED);
        let colour = if *lost > 0 { AnsiColor::Yellow.on_default() } else { Style::new() };
        let answered = format!("{asked:>8}{cluster:>13}{agent:>9}");
        writeln!(self.out, "{GOOD}✓{GOOD:#} {what:<COUNTED$}{answered}{colour}{lost:>8}{colour:#}")?;
        self.out.flush()
    }

    /// A command to try, with a remark where there is room for one. The whole line can be pasted into a shell.
    pub(super) fn suggest(&mut self, command: &str, remark: &str) -> io::Result<()> {
        let room = WIDTH.saturating_sub(command.chars().count() + 6);
        if remark.is_empty() || remark.chars().count() > room {
            writeln!(self.out, "  {command}")?;
        } else {
            // Aligned where the remark leaves the columns for it.
            let column = (WIDTH - 4 - remark.chars().count()).min(56);
            writeln!(self.out, "  {command:<column$}  {DIM}# {remark}{DIM:#}", column = column - 2)?;
        }
        self.out.flush()
    }

    /// What was asked, what should have come, what came.
    pub(super) fn failure(&mut self, asked: &str, wanted: &str, got: &str) -> io::Result<()> {
        writeln!(self.out, "{BAD}✗{BAD:#} {asked}")?;
        writeln!(self.out, "        wanted  {wanted}")?;
        writeln!(self.out, "        got     {BAD}{got}{BAD:#}")?;
        self.out.flush()
    }
}

// === impl Source ===

impl Source {
    fn colour(self) -> Style {
        match self {
            Self::Cluster | Self::Technitium => AnsiColor::Blue.on_default(),
            Self::Here => AnsiColor::Cyan.on_default(),
            Self::Hit => AnsiColor::Green.on_default(),
            Self::Nobody => AnsiColor::Red.on_default(),
            Self::Stale => AnsiColor::Yellow.on_default(),
        }
    }
}

/// A time with two or three figures that matter, in a unit that suits.
pub(super) fn show_time(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    match milliseconds {
        ..10.0 => format!("{milliseconds:.2} ms"),
        10.0..1000.0 => format!("{milliseconds:.0} ms"),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

/// `text` in at most `width` columns, its loss shown.
fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width { text.to_owned() } else { text.chars().take(width - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::RecordType;

    use super::*;
    use crate::cli::client::Outcome;

    #[test]
    fn no_line_is_wider_than_80_columns_whatever_the_answer() {
        let mut screen = Screen::new(anstream::StripStream::new(Vec::new()));
        let question = Question::new(RecordType::A, &["label"; 20].join("."));
        let result = Outcome::Data(vec!["255.255.255.255".to_owned(); 9]);
        let took = Duration::from_millis(99_999);
        let reply = Reply { result, ttl: Some(86_400), ede: Some(3), took };
        screen
            .exchange(&question, "a note that has nothing to say but says it at length", &reply, Source::Cluster)
            .expect("a vector");
        let shown = String::from_utf8(screen.out.into_inner()).expect("text");
        assert_eq!(shown.lines().count(), 2);
        for line in shown.lines() {
            assert!(line.chars().count() <= WIDTH, "{line:?}");
        }
    }

    #[test]
    fn a_command_and_its_remark_can_be_pasted_into_a_shell() {
        let mut screen = Screen::new(anstream::StripStream::new(Vec::new()));
        for (command, remark) in [("true", "easy"), ("true", ""), (&*"x".repeat(60), "much too long for what is left")]
        {
            screen.suggest(command, remark).expect("a vector");
        }
        let shown = String::from_utf8(screen.out.into_inner()).expect("text");
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].starts_with("  true ") && lines[0].ends_with("  # easy"), "{shown}");
        assert_eq!(lines[1], "  true");
        assert_eq!(lines[2].trim_start(), "x".repeat(60));
    }

    #[test]
    fn times_are_shown_in_a_unit_that_suits() {
        assert_eq!(show_time(Duration::from_micros(57)), "0.06 ms");
        assert_eq!(show_time(Duration::from_micros(12_400)), "12 ms");
        assert_eq!(show_time(Duration::from_millis(1_804)), "1.80 s");
    }
}
