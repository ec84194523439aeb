//! Called as `node-cache`: the agent, told what to do by node-cache's flags, Corefile template and kube-dns ConfigMap.
//!
//! A template or a ConfigMap that is wrong never stops what runs: the last good one stays. At the start a wrong ConfigMap
//! is left out, and instead of a wrong template what was last accepted is read, if it was kept at `-conf`.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::signal::unix::{SignalKind, signal};

use super::Exit;
use super::log::Log;
use super::run::{self, Followed, Signals};
use crate::config::corefile::{self, PLUGINS, Reading, Remark, Settings, Surroundings};
use crate::config::node_cache::{Action, Flags, HELP, KubeDns, rendered, settings};
use crate::config::{ConfigErrors, MAX_FILE};
use crate::http::{self, Site};
use crate::plan::{Draft, Plan};
use crate::run::{Agent, Host, StartError};

/// Where the ConfigMap of kube-dns is mounted.
const KUBE_DNS: &str = "/etc/kube-dns";
/// Where Kubernetes tells a pod its namespace.
const OWN_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// The namespace of node-local-dns everywhere.
pub(super) const NAMESPACE: &str = "kube-system";

/// Whether the program was called by this name.
pub(super) fn is_called() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    name.as_deref().and_then(Path::file_name).is_some_and(|name| name == "node-cache")
}

/// Does what the command line says; 2 if it is wrong.
pub(super) fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|it| it.to_string_lossy().into_owned()).collect();
    let flags = match Flags::parse(&arguments) {
        Ok(flags) => flags,
        Err(wrong) => {
            for line in wrong {
                anstream::eprintln!("node-cache: {line}");
            }
            anstream::eprintln!("`node-cache -help` lists the flags");
            return 2.into();
        }
    };
    match flags.action {
        Action::Help => super::print(HELP),
        Action::Plugins => {
            let list: Vec<String> = PLUGINS.iter().map(|plugin| format!("  dns.{plugin}")).collect();
            super::print(format!("Server types:\n  dns\n\nOther plugins:\n{}\n", list.join("\n")));
        }
        Action::Version => super::print(format!("Nodens-{} as node-cache\n", env!("CARGO_PKG_VERSION"))),
        Action::Run => return execute(flags).into(),
    }
    Exit::Done.into()
}

fn execute(flags: Flags) -> Exit {
    let template = Arc::new(Template::new(flags));
    let (plan, late) = match template.start() {
        Ok(plan) => plan,
        Err(errors) => {
            anstream::eprintln!("{errors}");
            return Exit::Failed;
        }
    };
    let log = Arc::new(Log::start(plan.log));
    template.say();
    if let Some(why) = &late {
        tracing::error!("the template is refused, what was last accepted runs: {why}");
    }
    run::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let heard = runtime.and_then(|runtime| Ok((runtime.block_on(async { Signals::listen() })?, runtime)));
    let (signals, runtime) = match heard {
        Ok(heard) => heard,
        Err(error) => {
            anstream::eprintln!("node-cache: signals cannot be heard: {error}");
            return Exit::Failed;
        }
    };
    for lack in plan.not_yet() {
        tracing::warn!("not in this version: {lack}");
    }
    let host = || {
        let (reloaded, adopter, leveller) = (Arc::clone(&template), Arc::clone(&log), Arc::clone(&log));
        Host {
            load: Box::new(move || {
                let outcome = reloaded.load().map_err(|errors| errors.to_string());
                reloaded.say();
                outcome
            }),
            set_log_level: Box::new(move |wanted| leveller.set_level(wanted)),
            adopted: Box::new(move |plan| adopter.adopt(plan.log)),
        }
    };
    let agent = match Agent::start_on(plan.clone(), host()) {
        Err(StartError::Node(why)) => {
            // As node-cache does it: an answer without interception is better than none.
            tracing::error!("traffic is not intercepted: {why}");
            let draft = Draft { node: None, ..(*plan).clone() };
            let plan = Plan::new(draft).expect("a legal plan that wants less is legal");
            Agent::start_on(plan, host())
        }
        started => started,
    };
    let agent = match agent {
        Ok(agent) => agent,
        Err(error) => {
            anstream::eprintln!("node-cache: {error}");
            return Exit::Failed;
        }
    };
    if let Some(why) = late {
        agent.refuse(why);
    }
    let pid_file = template.flags.pid_file.as_deref().and_then(PidFile::write);
    runtime.block_on(async {
        // node-cache has the same metrics at two places.
        if let Some(address) = template.flags.metrics.filter(|address| Some(*address) != plan.http.metrics) {
            let site = Arc::new(Site::Metrics(Arc::clone(agent.metrics())));
            tokio::spawn(http::keep_serving(address, site, move |listening| {
                if let Err(error) = listening {
                    tracing::warn!(%address, %error, "no second metrics endpoint; trying again");
                }
            }));
        }
        tokio::select! {
            () = run::heed(signals, &agent, &template) => {}
            () = heed_old_signals(&agent) => {}
        }
    });
    drop(pid_file);
    agent.stop();
    tracing::info!("stopped");
    Exit::Done
}

/// What else node-cache is told by signals: SIGUSR1 reads the template, SIGQUIT ends, SIGUSR2 means nothing here.
async fn heed_old_signals(agent: &Agent) {
    let hear = |kind| signal(kind).ok();
    let (Some(mut reload), Some(mut quit), Some(mut upgrade)) =
        (hear(SignalKind::user_defined1()), hear(SignalKind::quit()), hear(SignalKind::user_defined2()))
    else {
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = reload.recv() => agent.reload_from_host(),
            _ = upgrade.recv() => tracing::info!("SIGUSR2 changes nothing: replace the image"),
            _ = quit.recv() => return,
        }
    }
}

/// A file with our process ID, for as long as this lives.
struct PidFile<'a>(&'a Path);

impl<'a> PidFile<'a> {
    fn write(path: &'a Path) -> Option<Self> {
        match fs::write(path, format!("{}\n", std::process::id())) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "no PID file");
                None
            }
        }
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        // If it is gone already, so much the better.
        let _ = fs::remove_file(self.0);
    }
}

// === Template ===

/// Everything the plan is read from.
struct Template {
    flags: Flags,
    kube_dns: Option<PathBuf>,
    namespace: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The ConfigMap that was last accepted.
    kube_dns: KubeDns,
    /// Why the one there is now was not.
    refused: Option<String>,
    /// What the template imported when it was last read.
    imports: Vec<PathBuf>,
    /// What was there then, file by file.
    tried: Vec<(PathBuf, Option<Vec<u8>>)>,
    /// What is to be said, and what was said before.
    unsaid: Vec<Remark>,
    said: Vec<Remark>,
}

impl Template {
    fn new(flags: Flags) -> Self {
        let kube_dns = flags.kube_dns.clone().or_else(|| Some(PathBuf::from(KUBE_DNS)).filter(|it| it.is_dir()));
        let own = fs::read_to_string(OWN_NAMESPACE).ok().map(|name| name.trim().to_owned());
        let namespace = std::env::var("POD_NAMESPACE").ok().or(own).filter(|name| !name.is_empty());
        let namespace = namespace.unwrap_or_else(|| NAMESPACE.to_owned());
        Self { flags, kube_dns, namespace, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The template, or without one the Corefile at `-conf`.
    fn source(&self) -> &Path {
        if self.flags.base_corefile.exists() { &self.flags.base_corefile } else { &self.flags.conf }
    }

    /// The plan to start with, and why it is not the template's own if it is not.
    fn start(&self) -> Result<(Plan, Option<String>), ConfigErrors> {
        let errors = match self.load() {
            Ok(plan) => return Ok((plan, None)),
            Err(errors) => errors,
        };
        if self.source() == self.flags.conf {
            return Err(errors);
        }
        // Its stub domains are in it already.
        let settings = Settings { more: None, ..self.settings(&KubeDns::default()) };
        match read(&self.flags.conf, &settings, &addresses).and_then(Reading::plan) {
            Ok(plan) => Ok((plan, Some(errors.to_string()))),
            Err(_) => Err(errors),
        }
    }

    fn settings(&self, kube_dns: &KubeDns) -> Settings {
        settings(&self.flags, kube_dns, &self.namespace, &|name| std::env::var(name).ok())
    }

    /// Reads everything for a plan, and remembers what it read.
    fn load(&self) -> Result<Plan, ConfigErrors> {
        // What is imported is known when it was read; with that the watch sees what was tried, and not more.
        let mut tries = 0;
        let (reading, settings) = loop {
            // Before the plan: of a change in between, the watch finds that it was not tried.
            let tried = self.content();
            let mut state = self.state();
            state.tried = tried;
            if let Some(directory) = &self.kube_dns {
                match KubeDns::read(directory, &|path| fs::read(path)) {
                    Ok(read) => (state.kube_dns, state.refused) = (read, None),
                    Err(why) => state.refused = Some(why),
                }
            }
            let settings = self.settings(&state.kube_dns);
            let reading = read(self.source(), &settings, &addresses)?;
            tries += 1;
            if state.imports == reading.imports || tries == 3 {
                state.unsaid.clone_from(&reading.remarks);
                break (reading, settings);
            }
            state.imports.clone_from(&reading.imports);
        };
        let plan = reading.plan()?;
        self.keep(&settings);
        Ok(plan)
    }

    /// Writes what was accepted to `-conf`, as node-cache does: for people, and for the next start.
    fn keep(&self, settings: &Settings) {
        if self.source() == self.flags.conf {
            return;
        }
        let Ok(text) = fs::read_to_string(&self.flags.base_corefile) else { return };
        let text = rendered(&text, settings);
        if fs::read_to_string(&self.flags.conf).is_ok_and(|known| known == text) {
            return;
        }
        // Whole or not at all: half a file would be no last good one.
        let next = self.flags.conf.with_extension("next");
        if let Err(error) = fs::write(&next, text).and_then(|()| fs::rename(&next, &self.flags.conf)) {
            tracing::debug!(file = %self.flags.conf.display(), %error, "the Corefile in force is not written down");
        }
    }

    /// Logs what has not been said yet.
    fn say(&self) {
        let mut state = self.state();
        if let Some(why) = &state.refused {
            tracing::error!("the kube-dns ConfigMap is refused, the one before it holds: {why}");
        }
        let flags = if state.said.is_empty() { self.flags.remarks.as_slice() } else { &[] };
        let unsaid: Vec<Remark> = std::mem::take(&mut state.unsaid);
        let new: Vec<Remark> = unsaid.into_iter().filter(|remark| !state.said.contains(remark)).collect();
        // One line of the log, which bounds how many there are.
        let lines: Vec<String> = flags.iter().cloned().chain(new.iter().map(ToString::to_string)).collect();
        if !lines.is_empty() {
            tracing::info!("what Nodens does otherwise:\n  {}", lines.join("\n  "));
        }
        state.said.extend(new);
    }

    /// What is followed as it is now; of a directory, its names.
    fn content(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let content = |path: PathBuf| {
            let octets = if path.is_dir() {
                names(&path).ok().map(|mut names| {
                    names.sort();
                    names.join("\n").into_bytes()
                })
            } else {
                bounded(&path).ok()
            };
            (path, octets)
        };
        self.paths().into_iter().map(content).collect()
    }
}

impl Followed for Template {
    fn paths(&self) -> Vec<PathBuf> {
        let kube_dns = self.kube_dns.iter().flat_map(|directory| KubeDns::files(directory));
        let template = [self.source().to_owned()];
        template.into_iter().chain(kube_dns).chain(self.state().imports.clone()).collect()
    }

    fn has_changed(&self) -> bool {
        let now = self.content();
        // A template that is gone for the moment is about to be replaced.
        now.first().is_some_and(|(_, content)| content.is_some()) && now != self.state().tried
    }
}

/// Reads the Corefile at `path`.
///
/// # Errors
/// Why there is nothing to read.
pub(super) fn read(
    path: &Path,
    settings: &Settings,
    addresses: &dyn Fn(Option<&str>) -> Vec<IpAddr>,
) -> Result<Reading, ConfigErrors> {
    let text = crate::config::text(path)?;
    let around = Surroundings {
        env: &|name| std::env::var(name).ok(),
        read: &|path: &Path| bounded(path),
        list: &|directory: &Path| names(directory),
        addresses,
    };
    Ok(corefile::read(&text, path, &around, settings))
}

/// The addresses of an interface, or of all; the loopback's only if it is named.
pub(super) fn addresses(interface: Option<&str>) -> Vec<IpAddr> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let mut found = Vec::new();
    for entry in all.filter(|entry| interface.is_none_or(|name| entry.interface_name == name)) {
        let address = entry.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
        });
        found.extend(address.filter(|address| interface.is_some() || !address.is_loopback()));
    }
    found
}

/// A file's content, one octet more than is ever taken for text.
fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut octets = Vec::new();
    fs::File::open(path)?.take(MAX_FILE as u64 + 1).read_to_end(&mut octets)?;
    Ok(octets)
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
