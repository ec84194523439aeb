//! The real binary on the node, started, signalled and watched as the kubelet would.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::stage::{CLUSTER_IPS, Namespace, OWN_IPS, UP, endpoints_of};

/// Longest time anything that must happen may take before a test gives up.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Where the agent reports its health.
pub const HEALTH_PORT: u16 = 8080;

/// What the agent is told. Starts as all four addresses, interception left to it.
#[derive(Clone, Debug)]
pub struct Config {
    pub addresses: Vec<IpAddr>,
    /// The body of `node:`; empty: no such block.
    pub node: String,
    /// Cluster DNS.
    pub cluster: Vec<SocketAddr>,
    /// More lines for the end of the file.
    pub more: String,
}

/// A running agent. Dropping it kills it.
pub struct Agent {
    child: Child,
    log: Arc<Log>,
    pub started: Instant,
    /// Holds the configuration file and the control socket.
    directory: tempfile::TempDir,
    ended: Option<ExitStatus>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    lines: Vec<(Instant, String)>,
    /// The process has closed its end.
    ended: bool,
}

// === impl Config ===

impl Config {
    pub fn new() -> Self {
        Self {
            addresses: CLUSTER_IPS.into_iter().chain(OWN_IPS).collect(),
            node: "interface: lo, interception: auto, lease: 3s, fallback: cluster".into(),
            cluster: CLUSTER_IPS.into_iter().flat_map(endpoints_of).collect(),
            more: String::new(),
        }
    }

    /// Other words for `node:`.
    pub fn node(mut self, body: &str) -> Self {
        body.clone_into(&mut self.node);
        self
    }

    /// More at the end of the file.
    pub fn more(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.more);
        self
    }

    fn yaml(&self, control: &std::path::Path) -> String {
        let quoted = |all: Vec<String>| all.iter().map(|it| format!("\"{it}\"")).collect::<Vec<_>>().join(", ");
        let text = |it: &SocketAddr| it.to_string();
        format!(
            "listen: {{ addresses: [{}], port: 53, workers: 2 }}\n\
             {}\
             upstreams:\n  cluster: {{ servers: [{}] }}\n  up: {{ servers: [{}] }}\n\
             zones:\n  \".\": {{ upstream: cluster }}\n  pin.test: {{ answer: [10.8.8.8] }}\n  up.test: {{ upstream: up }}\n\
             http: {{ health: \"{}\", metrics: \"127.0.0.1:9253\", debug: \"127.0.0.1:9254\", control: \"{}\" }}\n\
             log: {{ level: info, format: text }}\n{}\n",
            quoted(self.addresses.iter().map(ToString::to_string).collect()),
            if self.node.is_empty() { String::new() } else { format!("node: {{ {} }}\n", self.node) },
            quoted(self.cluster.iter().map(text).collect()),
            quoted(UP.iter().map(|ip| text(&SocketAddr::new(*ip, 53))).collect()),
            SocketAddr::new(OWN_IPS[0], HEALTH_PORT),
            control.display(),
            self.more
        )
    }
}

// === impl Agent ===

impl Agent {
    /// Starts an agent and waits until what the kernel catches is its.
    pub fn start(node: &Namespace, config: &Config) -> Self {
        let agent = Self::spawn(node, config);
        agent.wait_for("intercepting");
        agent
    }

    /// Starts an agent and waits for nothing.
    pub fn spawn(node: &Namespace, config: &Config) -> Self {
        Self::spawn_with(node, config, &[])
    }

    /// As [`Agent::spawn`], with words for setpriv.
    pub fn spawn_with(node: &Namespace, config: &Config, rights: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("the temporary directory can be written");
        let file = directory.path().join("nodens.yaml");
        std::fs::write(&file, config.yaml(&directory.path().join("control.sock"))).expect("the directory is ours");
        let started = Instant::now();
        let mut child = node.start_with(rights, &binary(), |command| {
            command.args(["run", "-c"]).arg(&file).env("RUST_BACKTRACE", "1");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        });
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("stderr is piped");
        thread::spawn({
            let log = log.clone();
            move || log.follow(stderr)
        });
        Self { child, log, started, directory, ended: None }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("the kernel's PIDs are positive numbers"))
    }

    pub fn file(&self) -> PathBuf {
        self.directory.path().join("nodens.yaml")
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    /// Its log so far.
    pub fn said(&self) -> String {
        let lines = self.log.lock();
        let line = |(at, line): &(Instant, String)| {
            format!("{:8.1} ms  {line}", at.duration_since(self.started).as_secs_f64() * 1_000.0)
        };
        lines.lines.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// How many of its lines contain `words`.
    pub fn count_of(&self, words: &str) -> usize {
        self.log.lock().lines.iter().filter(|(_, line)| line.contains(words)).count()
    }

    /// Waits for a line with `words`, and says when it came.
    #[track_caller]
    pub fn wait_for(&self, words: &str) -> Instant {
        self.wait_for_any(0, &[words]).0
    }

    /// The first line from number `from` on with any of `words`, and when it came.
    #[track_caller]
    fn wait_for_any(&self, from: usize, words: &[&str]) -> (Instant, String) {
        let found = self.log.wait_for(from, LIMIT, |line| words.iter().any(|words| line.contains(words)));
        found.unwrap_or_else(|| panic!("the agent never said {words:?}; it said:\n{}", self.said()))
    }

    /// Replaces the file at once, sends SIGHUP and waits for the verdict; whether it was taken.
    #[track_caller]
    pub fn reload(&self, config: &Config) -> bool {
        self.reload_text(&config.yaml(&self.directory.path().join("control.sock")))
    }

    /// As [`Agent::reload`], with any text.
    #[track_caller]
    pub fn reload_text(&self, yaml: &str) -> bool {
        let seen = self.log.lock().lines.len();
        let next = self.directory.path().join("next");
        std::fs::write(&next, yaml).expect("the directory is ours");
        std::fs::rename(&next, self.file()).expect("the directory is ours");
        self.signal(Signal::SIGHUP);
        self.wait_for_any(seen, &["reloaded", "reload refused"]).1.contains("reloaded")
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it has not been waited for");
    }

    /// Sends SIGTERM, waits for the end; when it was sent and the exit status.
    pub fn stop(&mut self) -> (Instant, ExitStatus) {
        let sent = Instant::now();
        self.signal(Signal::SIGTERM);
        (sent, self.wait_for_exit())
    }

    /// Sends SIGKILL and waits until the kernel is done with the process; when it was sent, and when it was gone.
    pub fn kill(&mut self) -> (Instant, Instant) {
        let sent = Instant::now();
        self.signal(Signal::SIGKILL);
        self.wait_for_exit();
        (sent, Instant::now())
    }

    /// Waits until the process has ended.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        // The pipe closes with the process: an event, where waiting for a child has no limit.
        assert!(self.log.wait_for_end(LIMIT), "the agent does not end; it said:\n{}", self.said());
        let status = self.child.wait().expect("the child is ours");
        self.ended = Some(status);
        status
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- agent {} said ---\n{}\n---", self.child.id(), self.said());
        }
    }
}

/// The agent to test: `NODENS_BINARY`, else the one built with the tests.
fn binary() -> String {
    std::env::var("NODENS_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_nodens").to_owned())
}

// === impl Log ===

impl Log {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, stderr: impl Read) {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.lock().lines.push((Instant::now(), line));
            self.changed.notify_all();
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// The first line from number `from` on that `wanted` likes; `None` after `limit` or at the end.
    fn wait_for(&self, from: usize, limit: Duration, wanted: impl Fn(&str) -> bool) -> Option<(Instant, String)> {
        let deadline = Instant::now() + limit;
        let mut log = self.lock();
        loop {
            if let Some(line) = log.lines.iter().skip(from).find(|(_, line)| wanted(line)) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || log.ended {
                return None;
            }
            log = self.changed.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait_for_end(&self, limit: Duration) -> bool {
        let wait = self.changed.wait_timeout_while(self.lock(), limit, |log| !log.ended);
        wait.unwrap_or_else(PoisonError::into_inner).0.ended
    }
}
