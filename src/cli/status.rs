//! `nodens status`: how a running agent stands, on one screen.
//!
//! The agent gathers ([`Status`]), the page shows. `--watch` asks every second and draws over the last picture instead of
//! wiping it, so that nothing flickers; where the output is no terminal, it prints one block after the other.

mod page;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::Exit;
use super::agent::{Agent, Trouble, ask_status};
use crate::control::status::Status;
use page::Page;

/// Time between two pictures.
const INTERVAL: Duration = Duration::from_secs(1);
/// Columns where the output is no terminal.
const WIDTH: usize = 100;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  nodens status                  the agent behind /run/nodens/control.sock
  nodens status -c nodens.yaml   the one this file configures
  nodens status --watch          once a second, until Ctrl-C
  nodens status --json | jq '.upstreams[].servers[] | select(.healthy | not)'

Fields of --json; their names and meanings stay, new ones may come:
  version uptime_seconds ready missing[] listen[]
  config    generation refused
  node      intercepting since_seconds waiting_for mode lease_seconds link addresses[] trouble
            degraded[] {reason words}   tables[] {name rules leased[]}
            fallback[] {address servers[]}
            repaired {link tables last {seconds_ago what}}
            null: nothing is done to the host
  upstreams[] {name servers[] {address healthy failures_in_a_row outstanding round_trip_seconds}}
  zones[]   {name upstream}     upstream null: answered here
  queries   udp tcp fresh stale failure_cached local miss parked refused dropped hit_rate
  latency   bounds_seconds[] outcomes[] {outcome at_most[] count sum_seconds}
  cache     positive negative failures bytes limit_bytes
  top       seconds queries names[] {name queries at_most_too_many} clients[] {client queries at_most_too_many}
  incidents[] {seconds_ago what words}

Exit codes: 0; 1 if the agent refuses; 3 if it cannot be reached.")]
pub(super) struct Args {
    /// Draw anew every second, until Ctrl-C.
    #[arg(short, long)]
    watch: bool,
    /// Print JSON: one object, or with --watch one a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: Agent,
}

pub(super) fn execute(args: &Args) -> Exit {
    let shown =
        args.agent.socket().and_then(|socket| if args.watch { watch(args, &socket) } else { once(args, &socket) });
    match shown {
        Ok(()) => Exit::Done,
        Err(trouble) => trouble.report(),
    }
}

fn once(args: &Args, socket: &Path) -> Result<(), Trouble> {
    let status = ask_status(socket)?;
    let mut out = anstream::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&status).expect("a status is plain data"))?;
    } else {
        write!(out, "{}", Page { status: &status, before: None, width: width() })?;
    }
    Ok(out.flush()?)
}

/// Shows one picture a second until SIGINT or SIGTERM.
///
/// # Errors
/// If there is no agent at the start; one that goes later is waited for, since a restart is what people watch.
fn watch(args: &Args, socket: &Path) -> Result<(), Trouble> {
    let first = ask_status(socket)?;
    let mut screen = Screen::of(args);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shown = runtime.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        screen.show(Ok(first))?;
        loop {
            let socket = socket.to_owned();
            let next = async {
                ticks.tick().await;
                tokio::task::spawn_blocking(move || ask_status(&socket)).await.expect("asking does not panic")
            };
            tokio::select! {
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                status = next => screen.show(status)?,
            }
        }
    });
    // An agent that hangs must not keep us.
    runtime.shutdown_background();
    shown
}

fn width() -> usize {
    terminal_size::terminal_size().map_or(WIDTH, |(width, _)| usize::from(width.0))
}

/// Where `--watch` draws, and what it remembers for the rates.
struct Screen {
    json: bool,
    before: Option<(Instant, Status)>,
    /// Drawn over at each picture; `None`: the output is no terminal.
    drawn: Option<Drawn>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Drawn {
    Nothing,
    Something,
}

// === impl Screen ===

impl Screen {
    fn of(args: &Args) -> Self {
        let terminal = io::stdout().is_terminal() && !args.json;
        Self { json: args.json, before: None, drawn: terminal.then_some(Drawn::Nothing) }
    }

    /// Draws the picture of this second: how the agent stands, or why nobody can say.
    fn show(&mut self, status: Result<Status, Trouble>) -> Result<(), Trouble> {
        match status {
            Ok(status) => {
                let now = Instant::now();
                let text = if self.json {
                    serde_json::to_string(&status).expect("a status is plain data") + "\n"
                } else {
                    let before = self.before.as_ref().map(|(at, before)| (now - *at, before));
                    // Of another process, nothing is a difference.
                    let before = before.filter(|(_, before)| before.uptime_seconds < status.uptime_seconds);
                    Page { status: &status, before, width: width() }.to_string()
                };
                self.before = Some((now, status));
                self.draw(&text)
            }
            Err(Trouble::Enough) => Err(Trouble::Enough),
            Err(trouble) if self.json => {
                trouble.report();
                Ok(())
            }
            Err(trouble) => self.draw(&format!("{trouble}\nwaiting for it\n")),
        }
    }

    fn draw(&mut self, text: &str) -> Result<(), Trouble> {
        let mut out = io::stdout().lock();
        // What colours come to is anstream's business, the cursor is ours.
        let plain = anstream::AutoStream::choice(&out) == anstream::ColorChoice::Never;
        let text = if plain { anstream::adapter::strip_str(text).to_string() } else { text.to_owned() };
        match &mut self.drawn {
            None => write!(out, "{text}{}", if self.json { "" } else { "\n" })?,
            Some(drawn) => {
                let size = terminal_size::terminal_size();
                let (columns, rows) = size.map_or((WIDTH, usize::MAX), |(w, h)| (w.0.into(), h.0.into()));
                out.write_all(frame(&text, columns, rows, *drawn).as_bytes())?;
                *drawn = Drawn::Something;
            }
        }
        Ok(out.flush()?)
    }
}

/// One write that puts `text` over the last picture: home, each line with its rest wiped, all below wiped.
fn frame(text: &str, columns: usize, rows: usize, drawn: Drawn) -> String {
    let mut frame = String::from(if drawn == Drawn::Nothing { "\x1b[2J\x1b[H" } else { "\x1b[H" });
    // The last row stays free, or the terminal scrolls.
    for line in text.lines().take(rows.saturating_sub(1)) {
        frame.push_str(clip(line, columns));
        frame.push_str("\x1b[0m\x1b[K\r\n");
    }
    frame.push_str("\x1b[J");
    frame
}

/// As much of `line` as `columns` hold; escape sequences take no room.
fn clip(line: &str, columns: usize) -> &str {
    let mut room = columns;
    let mut in_escape = false;
    for (at, letter) in line.char_indices() {
        match (in_escape, letter) {
            (true, letter) => in_escape = !letter.is_ascii_alphabetic(),
            (false, '\x1b') => in_escape = true,
            (false, _) if room == 0 => return &line[..at],
            (false, _) => room -= 1,
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_clipped_to_the_columns_and_colours_take_none() {
        assert_eq!(clip("abcdef", 3), "abc");
        assert_eq!(clip("\x1b[1mabc\x1b[0mdef", 4), "\x1b[1mabc\x1b[0md");
        assert_eq!(clip("äöü", 3), "äöü");
    }

    #[test]
    fn a_picture_is_drawn_over_the_last_one_and_never_scrolls() {
        let first = frame("a\nb\nc\n", 80, 3, Drawn::Nothing);
        assert!(first.starts_with("\x1b[2J"), "{first:?}");
        assert_eq!(first.matches('\n').count(), 2, "a row stays free: {first:?}");
        let second = frame("a\n", 80, 24, Drawn::Something);
        assert!(!second.contains("\x1b[2J") && second.ends_with("\x1b[J"), "{second:?}");
    }
}
