//! The agent's log: lines on standard error, as text or JSON, never a flood of them.
//!
//! The promise: of each class of lines, which is a place in the code, at most [`PER_SECOND`] are written in any second, and
//! the rest is counted in one line a second. Two kinds are let through whole, since somebody asked for them: the query
//! log, and everything below INFO.
//!
//! ```text
//! event ─► level ─► Consolidate ─┬─► fmt ─► standard error
//!                                └─► counted ─► once a second: "left out", how many, the like of what
//! ```

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, Layered, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::net::worker::QUERY_LOG;
use crate::plan::{self, LogFormat};

/// Lines of one class in any second (O08).
const PER_SECOND: usize = 10;
const SECOND: Duration = Duration::from_secs(1);
/// Where the lines that count others come from.
const COUNTS: &str = "left_out";
/// Letters of a line that stand for its class.
const EXCERPT: usize = 200;

/// What can be changed about a log that runs.
pub(super) struct Log {
    level: reload::Handle<LevelFilter, Registry>,
    lines: reload::Handle<Lines, Filtered>,
    /// As the last plan said.
    told: Mutex<plan::Log>,
}

/// What comes before the lines: the level, the bound.
type Filtered = Layered<Consolidate, Layered<reload::Layer<LevelFilter, Registry>, Registry>>;
type Lines = Box<dyn Layer<Filtered> + Send + Sync>;

impl Log {
    /// Logs to standard error as `plan` says. A second agent in this process shares the first one's log.
    pub(super) fn start(plan: plan::Log) -> Self {
        let (filter, level) = reload::Layer::new(LevelFilter::from_level(plan.level));
        let (consolidate, counts) = Consolidate::new();
        let (shaped, shape) = reload::Layer::new(to_standard_error(plan.format));
        if tracing_subscriber::registry().with(filter).with(consolidate).with(shaped).try_init().is_ok() {
            // Without the thread the rest is not counted; the log goes on.
            let _ = std::thread::Builder::new().name("nodens-log".to_owned()).spawn(move || counts.tell());
        }
        Self { level, lines: shape, told: Mutex::new(plan) }
    }

    /// Changes what another plan says otherwise; a level set by hand lasts until a plan has a word about it.
    pub(super) fn adopt(&self, plan: plan::Log) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = [
            (told.level != plan.level).then(|| self.level.reload(LevelFilter::from_level(plan.level))),
            (told.format != plan.format).then(|| self.lines.reload(to_standard_error(plan.format))),
        ];
        for error in changed.into_iter().flatten().filter_map(Result::err) {
            tracing::warn!(%error, "the log stays as it is");
        }
        *told = plan;
    }

    /// Sets the level until a plan says otherwise.
    ///
    /// # Errors
    /// There is no such level.
    pub(super) fn set_level(&self, wanted: &str) -> Result<(), String> {
        let level: LevelFilter = wanted.parse().map_err(|_| format!("`{wanted}` is no log level"))?;
        self.level.reload(level).map_err(|error| error.to_string())
    }
}

fn to_standard_error(format: LogFormat) -> Lines {
    lines(format, io::stderr().is_terminal(), io::stderr)
}

fn lines<S>(
    format: LogFormat,
    ansi: bool,
    writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(ansi).boxed(),
    }
}

/// Lets through what is within the bound of its class.
struct Consolidate {
    classes: Arc<Mutex<HashMap<Identifier, Class>>>,
    /// Wakes the one who tells what was left out.
    some_left_out: SyncSender<()>,
}

/// What was left out, for the one who tells.
struct Counts {
    classes: Arc<Mutex<HashMap<Identifier, Class>>>,
    some_left_out: Receiver<()>,
}

/// The lines from one place in the code.
#[derive(Default)]
struct Class {
    /// When the last of them were written, at most [`PER_SECOND`] of them.
    written: VecDeque<Instant>,
    left_out: u64,
    /// The first that was left out.
    like: String,
}

// === impl Class ===

impl Class {
    /// Whether one more may be written at `now`. If not, it counts as left out.
    fn admit(&mut self, now: Instant) -> bool {
        if self.written.len() < PER_SECOND {
            self.written.push_back(now);
            return true;
        }
        let oldest = *self.written.front().expect("PER_SECOND is not zero");
        if now.saturating_duration_since(oldest) < SECOND {
            self.left_out += 1;
            return false;
        }
        self.written.pop_front();
        self.written.push_back(now);
        true
    }
}

// === impl Consolidate ===

impl Consolidate {
    fn new() -> (Self, Counts) {
        let classes = Arc::<Mutex<_>>::default();
        // One call is enough for all that is left out until it is heard.
        let (some_left_out, heard) = sync_channel(1);
        let counts = Counts { classes: Arc::clone(&classes), some_left_out: heard };
        (Self { classes, some_left_out }, counts)
    }
}

impl<S: Subscriber> Layer<S> for Consolidate {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if is_exempt(event.metadata()) {
            return true;
        }
        let mut classes = lock(&self.classes);
        let class = classes.entry(event.metadata().callsite()).or_default();
        let admitted = class.admit(Instant::now());
        if class.left_out == 1 && !admitted {
            let mut excerpt = Excerpt(String::new());
            event.record(&mut excerpt);
            class.like = excerpt.0;
            // Full: it has been called already.
            let _ = self.some_left_out.try_send(());
        }
        admitted
    }
}

fn is_exempt(metadata: &Metadata<'_>) -> bool {
    matches!(metadata.target(), QUERY_LOG | COUNTS) || *metadata.level() > Level::INFO
}

fn lock(classes: &Mutex<HashMap<Identifier, Class>>) -> MutexGuard<'_, HashMap<Identifier, Class>> {
    // Every hold leaves whole classes behind.
    classes.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Counts ===

impl Counts {
    /// Tells what was left out, at most once a second, as long as there is a log.
    fn tell(&self) {
        while self.some_left_out.recv().is_ok() {
            std::thread::sleep(SECOND);
            for (left_out, like) in self.take() {
                tracing::warn!(target: COUNTS, left_out, like, "more lines of this kind were left out");
            }
        }
    }

    fn take(&self) -> Vec<(u64, String)> {
        let mut classes = lock(&self.classes);
        let some = classes.values_mut().filter(|class| class.left_out > 0);
        some.map(|class| (std::mem::take(&mut class.left_out), std::mem::take(&mut class.like))).collect()
    }
}

/// The beginning of an event's message.
struct Excerpt(String);

impl Visit for Excerpt {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}").chars().take(EXCERPT).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What was written.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panics").write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `log` makes, and what was left out.
    fn logged(format: LogFormat, log: impl FnOnce()) -> (Vec<String>, Vec<(u64, String)>) {
        let page = Page::default();
        let (consolidate, counts) = Consolidate::new();
        let writer = page.clone();
        let subscriber = tracing_subscriber::registry().with(LevelFilter::TRACE).with(consolidate).with(lines(
            format,
            false,
            move || writer.clone(),
        ));
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(page.0.lock().expect("no writer panics").clone()).expect("lines are text");
        (text.lines().map(str::to_owned).collect(), counts.take())
    }

    // O08
    #[test]
    fn of_50_000_errors_ten_are_written_and_the_rest_is_counted() {
        let begun = Instant::now();
        let (lines, left_out) = logged(LogFormat::Text, || {
            for number in 0..50_000 {
                tracing::error!(number, "upstream fails");
                if number % 1000 == 0 {
                    tracing::warn!(number, "another class");
                }
            }
        });
        // A slow machine takes more than a second, in each of which there may be ten.
        let most = PER_SECOND as u64 * (begun.elapsed().as_secs() + 1);
        let of = |class: &str| lines.iter().filter(|line| line.contains(class)).count() as u64;
        let counted = |class: &str| left_out.iter().find(|it| it.1.contains(class)).map_or(0, |it| it.0);
        assert!((PER_SECOND as u64..=most).contains(&of("upstream fails")), "{}", of("upstream fails"));
        assert_eq!(of("upstream fails") + counted("upstream fails"), 50_000);
        assert_eq!(of("another class") + counted("another class"), 50);
        assert!(of("another class") <= most);
    }

    #[test]
    fn in_no_second_are_there_more_than_ten() {
        let (mut class, start) = (Class::default(), Instant::now());
        let times: Vec<Instant> = (0..100_000).map(|at| start + Duration::from_micros(50) * at).collect();
        let written: Vec<Instant> = times.into_iter().filter(|at| class.admit(*at)).collect();
        assert!(written.len() >= PER_SECOND * 5);
        assert!(written.windows(PER_SECOND + 1).all(|some| some[PER_SECOND] - some[0] >= SECOND));
    }

    #[test]
    fn what_was_asked_for_is_not_left_out() {
        let (lines, left_out) = logged(LogFormat::Text, || {
            for number in 0..100 {
                tracing::info!(target: QUERY_LOG, number, "query");
                tracing::debug!(number, "detail");
            }
        });
        assert_eq!((lines.len(), left_out.len()), (200, 0));
    }

    // O09: what comes from outside cannot make a line of its own, in either format.
    #[test]
    fn a_value_cannot_break_out_of_its_line() {
        let evil = "a\n2026-01-01 ERROR forged \u{1b}[31m\"}";
        for format in [LogFormat::Text, LogFormat::Json] {
            let (lines, _) = logged(format, || tracing::warn!(reason = evil, "it failed"));
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(!lines[0].contains('\u{1b}'), "{lines:?}");
        }
        let (lines, _) = logged(LogFormat::Json, || tracing::warn!(reason = evil, "it failed"));
        let line: serde_json::Value = serde_json::from_str(&lines[0]).expect("an object a line");
        assert_eq!(
            (&line["level"], &line["message"], &line["reason"]),
            (&"WARN".into(), &"it failed".into(), &evil.into())
        );
    }
}
