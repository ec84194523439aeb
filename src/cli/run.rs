//! `nodens run`: the agent, its signals, its log.

mod last_good;

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::log::Log;
use super::{ConfigFile, Exit, FileOrOption};
use crate::config::{self, ConfigErrors, MAX_FILE};
use crate::plan::Plan;
use crate::run::{Agent, Host, StartError};
use last_good::LastGood;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  nodens run                      127.0.0.1:1053, to the servers in /etc/resolv.conf
  nodens run nodens.yaml          as configured; so does -c nodens.yaml

Reload:
  The file is followed: a saved change is in force after 100 ms. SIGHUP reads it at once.
  A wrong one is refused, with its mistakes in the log, and the old plan runs on.
  With `cache.snapshot: PATH` the last good one is kept as PATH.good.yaml, and a
  restart with a wrong one starts with that.

Signals:
  SIGHUP    read the configuration again
  SIGTERM   answer what is waiting, then end")]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) config: FileOrOption,
}

/// The configuration, and what was in its file when it was last read for a plan.
struct Source {
    file: ConfigFile,
    tried: Mutex<Option<Vec<u8>>>,
}

pub(super) fn execute(args: &Args) -> Exit {
    let source = Arc::new(Source { file: args.config.choose(), tried: Mutex::default() });
    // Why the file's own plan is not the one that runs.
    let mut refused = None;
    let plan = match source.load() {
        Ok(plan) => plan,
        Err(errors) => {
            let Some(good) = source.last_good() else {
                anstream::eprintln!("{errors}");
                return Exit::Failed;
            };
            refused = Some(format!("the last good one runs, {}; {errors}", good.place.display()));
            good.plan
        }
    };
    let log = Arc::new(Log::start(plan.log));
    raise_descriptor_limit();
    // Signals first: one that comes while the agent starts is heeded when it has.
    let heard = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| Ok((runtime.block_on(async { Signals::listen() })?, runtime)));
    let (signals, runtime) = match heard {
        Ok(heard) => heard,
        Err(error) => {
            anstream::eprintln!("nodens: signals cannot be heard: {error}");
            return Exit::Failed;
        }
    };
    match start(plan, &source, &log, &mut refused) {
        Ok(agent) => {
            if let Some(why) = refused {
                tracing::error!("the configuration is refused: {why}");
                agent.refuse(why);
            }
            runtime.block_on(heed(signals, &agent, &source));
            agent.stop();
            tracing::info!("stopped");
            Exit::Done
        }
        Err(error) => {
            anstream::eprintln!("nodens: {error}");
            Exit::Failed
        }
    }
}

/// Starts an agent with `plan`; if that cannot be had although it is legal, as when an address is another's, with the
/// last good one.
fn start(plan: Plan, source: &Arc<Source>, log: &Arc<Log>, refused: &mut Option<String>) -> Result<Agent, StartError> {
    let host = || {
        let (loader, adopter, logger, leveller) =
            (Arc::clone(source), Arc::clone(source), Arc::clone(log), Arc::clone(log));
        Host {
            load: Box::new(move || loader.load().map_err(|errors| errors.to_string())),
            set_log_level: Box::new(move |wanted| leveller.set_level(wanted)),
            adopted: Box::new(move |plan| {
                logger.adopt(plan.log);
                adopter.keep(plan);
            }),
        }
    };
    for lack in plan.not_yet() {
        tracing::warn!("not in this version: {lack}");
    }
    let kept = plan.clone();
    match Agent::start_on(plan, host()) {
        Err(error) if refused.is_none() => {
            let Some(good) = source.last_good().filter(|good| !source.tried_is(&good.text)) else { return Err(error) };
            *refused = Some(format!("the last good one runs, {}; {error}", good.place.display()));
            log.adopt(good.plan.log);
            Agent::start_on(good.plan, host())
        }
        started => {
            if started.is_ok() && refused.is_none() {
                source.keep(&kept);
            }
            started
        }
    }
}

/// The signals we heed.
pub(super) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
}

/// What a plan is read from, and read from again when it changes.
pub(super) trait Followed: Send + Sync + 'static {
    /// The files and directories in which a change matters, as far as they are known by now.
    fn paths(&self) -> Vec<PathBuf>;

    /// Whether there is something else than what was tried last, be it legal or not.
    fn has_changed(&self) -> bool;
}

/// Serves until a signal says otherwise.
pub(super) async fn heed(mut signals: Signals, agent: &Agent, source: &Arc<impl Followed>) {
    let addresses: Vec<String> = agent.addresses().iter().map(ToString::to_string).collect();
    tracing::info!(listen = addresses.join(" "), "serving");
    let (changed, mut changes) = tokio::sync::mpsc::channel(1);
    let mut watching = tokio::task::JoinSet::new();
    let mut watched = HashSet::new();
    loop {
        // Each reload may know of more.
        for path in source.paths() {
            if watched.insert(path.clone()) {
                watching.spawn(watch_file(path, Arc::clone(source), changed.clone()));
            }
        }
        tokio::select! {
            _ = signals.hangup.recv() => agent.reload_from_host(),
            // A SIGHUP may have been quicker than the watch.
            Some(()) = changes.recv() => if source.has_changed() { agent.reload_from_host() },
            _ = signals.interrupt.recv() => break,
            _ = signals.terminate.recv() => break,
        }
    }
    watching.shutdown().await;
    tracing::info!("stopping: what is waiting gets its answer");
}

/// Time a file must have been quiet: an editor or the kubelet touches it more than once.
const QUIET: Duration = Duration::from_millis(100);

/// Tells `changed` whenever something at `file` has happened and what is there is other than what was tried.
async fn watch_file(file: PathBuf, source: Arc<impl Followed>, changed: tokio::sync::mpsc::Sender<()>) {
    let mut watcher = match crate::discover::FileWatcher::new(&file) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "changes of the file are not noticed; SIGHUP reloads");
            return;
        }
    };
    // The first look is for what happened between the start and the watch.
    loop {
        if source.has_changed() && changed.send(()).await.is_err() {
            return;
        }
        if watcher.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(QUIET).await;
    }
}

// === impl Source ===

impl Source {
    /// Reads the configuration for a plan, and remembers what it read.
    fn load(&self) -> Result<Plan, ConfigErrors> {
        let content = self.content();
        let outcome = match (&self.file.config, &content) {
            (Some(path), Some(octets)) => {
                config::read(&octets[..], &path.display().to_string(), &|name| std::env::var(name).ok())
            }
            // No file, or one that cannot be read: the reason is told.
            _ => self.file.load(),
        };
        *self.tried() = content;
        outcome
    }

    /// Keeps what was read last, which `plan` was made of, for a restart with a bad file.
    fn keep(&self, plan: &Plan) {
        if let (Some(snapshot), Some(config), Some(text)) = (&plan.cache.snapshot, &self.file.config, &*self.tried()) {
            last_good::keep(snapshot, config, text);
        }
    }

    fn last_good(&self) -> Option<LastGood> {
        let bad = self.tried().clone().unwrap_or_default();
        last_good::find(self.file.config.as_ref()?, &bad)
    }

    fn tried_is(&self, text: &[u8]) -> bool {
        self.tried().as_deref() == Some(text)
    }

    fn tried(&self) -> std::sync::MutexGuard<'_, Option<Vec<u8>>> {
        self.tried.lock().expect("no holder panics")
    }

    fn content(&self) -> Option<Vec<u8>> {
        let file = File::open(self.file.config.as_ref()?).ok()?;
        let mut octets = Vec::new();
        // One octet more than is ever read for a plan.
        file.take(MAX_FILE as u64 + 1).read_to_end(&mut octets).ok()?;
        Some(octets)
    }
}

impl Followed for Source {
    fn paths(&self) -> Vec<PathBuf> {
        self.file.config.iter().cloned().collect()
    }

    fn has_changed(&self) -> bool {
        let now = self.content();
        // A file that is gone for the moment is about to be replaced.
        now.is_some() && now != *self.tried()
    }
}

/// Descriptors cost nothing until they are used; upstream ports and connections of a busy node need more than 1,024.
pub(super) fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_is_not_tried_again_until_the_file_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("nodens.yaml");
        let write = |text: &str| std::fs::write(&path, text).expect("the folder takes a file");
        write("zones: 1\n");
        let source = Source { file: ConfigFile { config: Some(path.clone()) }, tried: Mutex::default() };
        assert!(source.has_changed());
        assert!(source.load().is_err());
        assert!(!source.has_changed(), "a mistake is told once");
        write("zones: 2\n");
        assert!(source.has_changed());
        std::fs::remove_file(&path).expect("it was there");
        assert!(!source.has_changed(), "a file that is gone is about to be replaced");
    }
}
