//! The agent's log: lines on standard error, their level and shape as the plan in force says.

use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer, Layered, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::plan::{self, LogFormat};

/// What can be changed about the log.
pub(super) struct Log {
    level: reload::Handle<LevelFilter, Registry>,
    lines: reload::Handle<Lines, Filtered>,
    /// As the last plan said.
    told: Mutex<plan::Log>,
}

type Filtered = Layered<reload::Layer<LevelFilter, Registry>, Registry>;
type Lines = Box<dyn Layer<Filtered> + Send + Sync>;

impl Log {
    /// Logs as `plan` says. A second agent in this process shares the first one's log.
    pub(super) fn start(plan: plan::Log) -> Self {
        let (filter, level) = reload::Layer::new(LevelFilter::from_level(plan.level));
        let (shaped, lines) = reload::Layer::new(shape(plan.format));
        drop(tracing_subscriber::registry().with(filter).with(shaped).try_init());
        Self { level, lines, told: Mutex::new(plan) }
    }

    /// Changes what another plan says otherwise; a level set by hand lasts until a plan has a word about it.
    pub(super) fn adopt(&self, plan: plan::Log) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = [
            (told.level != plan.level).then(|| self.level.reload(LevelFilter::from_level(plan.level))),
            (told.format != plan.format).then(|| self.lines.reload(shape(plan.format))),
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

fn shape(format: LogFormat) -> Lines {
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr).with_target(false);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).boxed(),
    }
}
