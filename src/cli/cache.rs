//! `nodens cache`: what the agent remembers, shown and forgotten.
//!
//! Names and records are printable whatever octets a client asked for: escaped by the agent, and once more here.

use anstyle::Style;
use std::io::{self, Write};

use super::Exit;
use super::agent::{Agent, Trouble, ask, printable};
use crate::control::{Request, Which};
use crate::dump::DumpRow;

#[derive(Clone, Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print what is cached.
    #[command(after_help = "Examples:
  nodens cache dump                            everything, as a table
  nodens cache dump --zone cluster.local       what lies in one zone
  nodens cache dump --name example.com --json  one name, for jq")]
    Dump {
        #[command(flatten)]
        which: WhichArgs,
        /// Only entries of this type, such as AAAA.
        #[arg(long = "type", value_name = "TYPE")]
        qtype: Option<String>,
        /// At most so many entries.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Print JSON, an object a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        agent: Agent,
    },
    /// Forget what is cached; the next query asks upstream.
    #[command(after_help = "Examples:
  nodens cache flush                         everything
  nodens cache flush --zone corp.example     a name and all below it
  nodens cache flush --name www.example.com  one name, all types")]
    Flush {
        #[command(flatten)]
        which: WhichArgs,
        #[command(flatten)]
        agent: Agent,
    },
}

/// The part of the cache that is meant; all of it if nothing is said.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct WhichArgs {
    /// This name and all names below it.
    #[arg(long, value_name = "ZONE", conflicts_with = "name")]
    pub(super) zone: Option<String>,
    /// This name alone.
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
}

pub(super) fn execute(command: &Command) -> Exit {
    match carry_out(command, &mut anstream::stdout().lock()) {
        Ok(()) => Exit::Done,
        Err(trouble) => trouble.report(),
    }
}

fn carry_out(command: &Command, out: &mut impl Write) -> Result<(), Trouble> {
    match command {
        Command::Dump { which, qtype, limit, json, agent } => {
            let request = Request::Dump(Which { qtype: qtype.clone(), limit: *limit, ..which.into() });
            let socket = agent.socket()?;
            if *json {
                ask(&socket, &request, |line, _| Ok(writeln!(out, "{line}")?))?;
            } else {
                let mut rows = Vec::new();
                ask(&socket, &request, |_, row| {
                    let row = serde_json::from_value::<DumpRow>(row);
                    rows.push(
                        row.map_err(|error| Trouble::Refused(format!("the agent is of another version: {error}")))?,
                    );
                    Ok(())
                })?;
                print_table(&rows, out)?;
            }
        }
        Command::Flush { which, agent } => {
            let end = ask(&agent.socket()?, &Request::Flush(which.into()), |_, _| Ok(()))?;
            let flushed = end["flushed"].as_u64().unwrap_or_default();
            let entries = if flushed == 1 { "entry" } else { "entries" };
            writeln!(out, "{flushed} {entries} flushed")?;
        }
    }
    Ok(())
}

/// The heads of the columns; those of numbers are aligned to the right.
const HEADS: [(&str, Align); 9] = [
    ("NAME", Align::Left),
    ("TYPE", Align::Left),
    ("FLAGS", Align::Left),
    ("RCODE", Align::Left),
    ("TTL LEFT", Align::Right),
    ("STALE FOR", Align::Right),
    ("HITS", Align::Right),
    ("SIZE", Align::Right),
    ("RECORDS", Align::Left),
];

#[derive(Clone, Copy, Eq, PartialEq)]
enum Align {
    Left,
    Right,
}

/// One line for each record; the cells before it once an entry.
fn print_table(rows: &[DumpRow], out: &mut impl Write) -> io::Result<()> {
    let lines: Vec<[String; 9]> = rows.iter().flat_map(lines_of).collect();
    let mut widths = HEADS.map(|(head, _)| head.len());
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let bold = Style::new().bold();
    writeln!(out, "{bold}{}{bold:#}", padded(&HEADS.map(|(head, _)| head.to_owned()), &widths))?;
    for line in &lines {
        writeln!(out, "{}", padded(line, &widths))?;
    }
    let entries = if rows.len() == 1 { "entry" } else { "entries" };
    writeln!(out, "{} {entries}", rows.len())
}

fn lines_of(row: &DumpRow) -> impl Iterator<Item = [String; 9]> {
    let flags = match (row.dnssec_ok, row.checking_disabled) {
        (false, false) => "-",
        (false, true) => "CD",
        (true, false) => "DO",
        (true, true) => "DO,CD",
    };
    let first = [
        printable(&row.name),
        printable(&row.qtype),
        flags.to_owned(),
        printable(&row.rcode),
        if row.ttl_left == 0 { "expired".to_owned() } else { duration(row.ttl_left) },
        duration(row.stale_left),
        row.hits.to_string(),
        size(row.bytes),
        row.records.first().map_or_else(|| format!("({})", printable(&row.kind)), |record| printable(record)),
    ];
    let more = row.records.iter().skip(1).map(|record| {
        let mut line: [String; 9] = Default::default();
        line[8] = printable(record);
        line
    });
    std::iter::once(first).chain(more)
}

fn padded(cells: &[String; 9], widths: &[usize; 9]) -> String {
    let mut line = String::new();
    for ((cell, width), (_, align)) in cells.iter().zip(widths).zip(HEADS) {
        let padding = " ".repeat(width - cell.chars().count());
        let parts: [&str; 3] = if align == Align::Left { [cell, &padding, "  "] } else { [&padding, cell, "  "] };
        line.extend(parts);
    }
    line.truncate(line.trim_end().len());
    line
}

/// Seconds in the two largest units: `45s`, `4m05s`, `1h00m`, `6d23h`.
fn duration(seconds: u32) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// Bytes in the largest unit that leaves a digit before the point: `210B`, `1.5KiB`.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes}B"),
        1_024..1_048_576 => format!("{}.{}KiB", bytes / 1_024, bytes % 1_024 * 10 / 1_024),
        _ => format!("{}.{}MiB", bytes / 1_048_576, bytes % 1_048_576 * 10 / 1_048_576),
    }
}

impl From<&WhichArgs> for Which {
    fn from(args: &WhichArgs) -> Self {
        Self { zone: args.zone.clone(), name: args.name.clone(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::Parser;
    use tempfile::TempDir;

    use super::*;
    use crate::control::{Handlers, Listener};
    use crate::dump::{Filter, Source};
    use crate::wire::Type;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn a_dump_is_an_aligned_table() {
        let expected = [
            r"NAME              TYPE  FLAGS  RCODE     TTL LEFT  STALE FOR  HITS    SIZE  RECORDS",
            r"www.test.         A     -      NOERROR        29s      1h00m     3    210B  10.0.0.1",
            r"                                                                            10.0.0.2",
            r"a\010b\027.test.  AAAA  DO,CD  NXDOMAIN   expired      4m05s  1200  1.5KiB  (nxdomain)",
            r"2 entries",
        ];
        let agent = FakeAgent::start();
        assert_eq!(agent.run(&["dump"]).expect("shown").lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_dump_in_json_has_one_row_a_line_and_respects_the_filters() {
        let agent = FakeAgent::start();
        let rows: Vec<DumpRow> = agent
            .run(&["dump", "--json", "--name", "www.test", "--type", "A", "--limit", "9"])
            .expect("shown")
            .lines()
            .map(|line| serde_json::from_str(line).expect("a row"))
            .collect();
        assert_eq!(rows, [www()]);
    }

    #[test]
    fn a_flush_says_how_many_went() {
        let agent = FakeAgent::start();
        assert_eq!(agent.run(&["flush", "--zone", "test"]).expect("flushed"), "1 entry flushed\n");
        assert_eq!(agent.run(&["flush"]).expect("flushed"), "2 entries flushed\n");
    }

    #[test]
    fn a_bad_name_is_a_failure_and_no_agent_is_told_apart() {
        let agent = FakeAgent::start();
        let refused = agent.run(&["flush", "--name", "a..b"]).expect_err("no name");
        assert_eq!(refused.exit(), Exit::Failed, "{refused}");
        assert!(refused.to_string().starts_with("name: "), "{refused}");
        let nowhere = agent.folder.path().join("nowhere\n.sock");
        let trouble = run_line(&["dump", "--control", nowhere.to_str().expect("text")]).expect_err("nobody there");
        assert_eq!(trouble.exit(), Exit::Unreachable);
        let said = trouble.to_string();
        assert!(said.contains("nowhere\\010.sock cannot be reached") && said.lines().count() == 1, "{said}");
    }

    #[test]
    fn an_output_nobody_reads_is_no_failure_but_a_full_disk_is() {
        let agent = FakeAgent::start();
        let to = |kind| {
            let line = Line::parse_from(["cache", "dump", "--json", "--control", &agent.path]);
            carry_out(&line.command, &mut Closed(kind)).expect_err("nothing can be written").exit()
        };
        assert_eq!(to(io::ErrorKind::BrokenPipe), Exit::Done);
        assert_eq!(to(io::ErrorKind::StorageFull), Exit::Failed);
    }

    #[test]
    fn an_answer_that_is_cut_off_is_no_answer() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("control.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            writeln!(stream, "{}", serde_json::to_string(&www()).expect("plain data")).expect("sent");
        });
        let trouble = run_line(&["dump", "--control", path.to_str().expect("text")]).expect_err("cut off");
        assert_eq!(trouble.exit(), Exit::Unreachable, "{trouble}");
        agent.join().expect("no panic");
    }

    #[test]
    fn times_and_sizes_are_short() {
        let times = [0, 59, 60, 3_599, 3_600, 86_399, 604_799].map(duration);
        assert_eq!(times, ["0s", "59s", "1m00s", "59m59s", "1h00m", "23h59m", "6d23h"]);
        assert_eq!(
            [0, 1_023, 1_024, 1_048_575, 68_157_440].map(size),
            ["0B", "1023B", "1.0KiB", "1023.9KiB", "65.0MiB"]
        );
    }

    /// An output that takes nothing.
    struct Closed(io::ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An agent with two entries, on a thread of its own that ends with the test.
    struct FakeAgent {
        folder: TempDir,
        path: String,
        _runtime: tokio::runtime::Runtime,
    }

    impl FakeAgent {
        fn start() -> Self {
            let folder = TempDir::new().expect("a folder");
            let path = folder.path().join("control.sock");
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let runtime = runtime.expect("a runtime");
            let handlers = Handlers {
                dump: Source::new(|filter: &Filter| {
                    let filter = filter.clone();
                    let keys = [("www.test.", Type::A), (r"a\010b\027.test.", Type::AAAA)];
                    let rows = keys.map(|(name, qtype)| (name.parse().expect("a name"), qtype)).into_iter();
                    let rows = rows.zip([www(), odd()]);
                    rows.filter(move |((name, qtype), _)| filter.admits(name, *qtype)).map(|(_, row)| row)
                }),
                flush: Box::new(|filter| if filter.zone.is_some() { 1 } else { 2 }),
                reload: Box::new(|| Err("not here".to_owned())),
                log_level: Box::new(|_| Err("not here".to_owned())),
                status: Box::new(Default::default),
            };
            let entered = runtime.enter();
            let listener = Listener::bind(&path).expect("bound");
            drop(entered);
            runtime.spawn(listener.serve(Arc::new(handlers)));
            Self { path: path.to_str().expect("text").to_owned(), folder, _runtime: runtime }
        }

        fn run(&self, line: &[&str]) -> Result<String, Trouble> {
            run_line(&[line, &["--control", &self.path]].concat())
        }
    }

    fn run_line(line: &[&str]) -> Result<String, Trouble> {
        let line = Line::parse_from(std::iter::once(&"cache").chain(line));
        let mut out = anstream::StripStream::new(Vec::new());
        carry_out(&line.command, &mut out)?;
        Ok(String::from_utf8(out.into_inner()).expect("text"))
    }

    fn www() -> DumpRow {
        DumpRow {
            name: "www.test.".to_owned(),
            qtype: "A".to_owned(),
            dnssec_ok: false,
            checking_disabled: false,
            rcode: "NOERROR".to_owned(),
            kind: "answer".to_owned(),
            ttl_left: 29,
            stale_left: 3_600,
            hits: 3,
            bytes: 210,
            records: vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()],
        }
    }

    /// As no agent would send it: unescaped (MC53).
    fn odd() -> DumpRow {
        DumpRow {
            name: "a\nb\u{1b}.test.".to_owned(),
            qtype: "AAAA".to_owned(),
            dnssec_ok: true,
            checking_disabled: true,
            rcode: "NXDOMAIN".to_owned(),
            kind: "nxdomain".to_owned(),
            ttl_left: 0,
            stale_left: 245,
            hits: 1_200,
            bytes: 1_536,
            records: Vec::new(),
        }
    }
}
