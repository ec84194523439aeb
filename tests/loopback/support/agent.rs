//! The real binary, run as its users run it: a file, a process, signals.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::config::Config;
use super::{LIMIT, fresh_address};

/// A running agent. Dropping it kills it.
pub struct Agent {
    config: Config,
    child: Mutex<Child>,
    log: Arc<Log>,
    file: PathBuf,
    /// Holds the file, unless it is another's.
    _directory: tempfile::TempDir,
}

/// What became of a reload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reload {
    Done,
    Refused,
}

/// What a process has said on standard error, line by line.
#[derive(Default)]
pub struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    /// The process has closed its end.
    ended: bool,
}

// === impl Agent ===

impl Agent {
    /// Starts an agent, on an address of its own unless `config` names some, and waits until it serves.
    pub fn start(config: &Config) -> Self {
        let agent = Self::spawn(config);
        let serves = agent.log.wait_for(0, LIMIT, |line| line.contains("serving")).is_some();
        assert!(serves, "the agent does not serve; {}\nit says:\n{}", agent.config.yaml(), agent.said());
        agent
    }

    /// Starts an agent and waits for nothing.
    pub fn spawn(config: &Config) -> Self {
        Self::spawn_on(config, |file, yaml| std::fs::write(file, yaml).expect("the directory is ours"))
    }

    /// As [`Agent::spawn`], with `lay` putting the text where the file is looked for.
    pub fn spawn_on(config: &Config, lay: impl FnOnce(&Path, &str)) -> Self {
        let mut config = config.clone();
        if config.addresses().is_empty() {
            config = config.listen(&[fresh_address()]);
        }
        let directory = tempfile::tempdir().expect("the temporary directory can be written");
        config = config.control(directory.path().join("control.sock"));
        let file = directory.path().join("nodens.yaml");
        lay(&file, &config.yaml());
        Self::run(config, directory, file)
    }

    /// Starts an agent on a file that is there already, and waits for nothing. `config` says where to find it.
    pub fn restart_on(config: &Config, file: &Path) -> Self {
        let directory = tempfile::tempdir().expect("the temporary directory can be written");
        Self::run(config.clone(), directory, file.to_owned())
    }

    fn run(config: Config, directory: tempfile::TempDir, file: PathBuf) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_nodens"))
            .args(["run", "-c"])
            .arg(&file)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cargo built the binary");
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("stderr is piped");
        thread::spawn({
            let log = log.clone();
            move || log.follow(stderr)
        });
        Self { config, child: Mutex::new(child), log, file, _directory: directory }
    }

    /// Where it answers queries.
    pub fn addr(&self) -> SocketAddr {
        self.config.query_address()
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// Its log so far.
    pub fn said(&self) -> String {
        self.log.said()
    }

    /// Replaces the file at once (as a `ConfigMap` does), asks for the reload and waits for the verdict.
    pub fn reload(&mut self, config: &Config) -> Reload {
        let mut config = config.clone();
        if config.addresses().is_empty() {
            config = config.listen(self.config.addresses());
        }
        config = config.control(self.control_socket());
        let verdict = self.reload_yaml(&config.yaml());
        if verdict == Reload::Done {
            self.config = config;
        }
        verdict
    }

    /// As [`Agent::reload`], with any text.
    pub fn reload_yaml(&self, yaml: &str) -> Reload {
        self.replace_file(yaml.as_bytes());
        let mut control = UnixStream::connect(self.control_socket()).expect("it has a control socket");
        control.set_read_timeout(Some(LIMIT)).expect("the limit is not zero");
        control.write_all(b"{\"do\":\"reload\"}\n").expect("it reads requests");
        let mut verdict = String::new();
        control.read_to_string(&mut verdict).expect("it answers and closes");
        if verdict.contains("\"done\":true") { Reload::Done } else { Reload::Refused }
    }

    /// Waits until the agent has said, in a line from number `seen` on, what became of a reload.
    pub fn verdict_from(&self, seen: usize) -> Reload {
        let is_verdict = |line: &str| line.contains("reloaded") || line.contains("reload refused");
        match self.log.wait_for(seen, LIMIT, is_verdict) {
            Some(line) if line.contains("reload refused") => Reload::Refused,
            Some(_) => Reload::Done,
            None => panic!("no verdict on the reload; the agent says:\n{}", self.said()),
        }
    }

    /// Replaces its file at once, as a `ConfigMap` does.
    pub fn replace_file(&self, octets: &[u8]) {
        let next = self.file.with_file_name("next");
        std::fs::write(&next, octets).expect("the directory is ours");
        std::fs::rename(&next, &self.file).expect("the directory is ours");
    }

    /// How many lines it has said.
    pub fn lines_said(&self) -> usize {
        self.log.lines.lock().unwrap_or_else(PoisonError::into_inner).lines.len()
    }

    pub fn file(&self) -> PathBuf {
        self.file.clone()
    }

    /// Waits for a line of its log that says so.
    pub fn wait_for_line(&self, wanted: &str) -> String {
        let line = self.log.wait_for(0, LIMIT, |line| line.contains(wanted));
        line.unwrap_or_else(|| panic!("no line with `{wanted}`; the agent says:\n{}", self.said()))
    }

    pub fn control_socket(&self) -> PathBuf {
        self.config.control_socket().expect("every agent has one").to_owned()
    }

    /// Runs `nodens ARGUMENTS --control SOCKET`; panics unless it succeeds within the limit.
    pub fn command(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("timeout");
        command.arg(LIMIT.as_secs().to_string()).arg(env!("CARGO_BIN_EXE_nodens")).args(arguments);
        let output = command.arg("--control").arg(self.control_socket()).output().expect("coreutils has timeout");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "nodens {arguments:?}: {}; it says:\n{said}", output.status);
        String::from_utf8(output.stdout).expect("commands print text")
    }

    /// Sends a signal by its name without SIG.
    pub fn signal(&self, signal: &str) {
        // The shell's own kill: `unsafe` is denied here, and no child of ours is reaped before we wait for it.
        let status = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", self.pid())).status();
        assert!(status.expect("there is a shell").success(), "no process {} to signal", self.pid());
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(&self) -> ExitStatus {
        self.signal("TERM");
        self.wait_for_exit()
    }

    /// Waits until the process has ended.
    pub fn wait_for_exit(&self) -> ExitStatus {
        // The pipe closes with the process: an event, where waiting for a child has no limit.
        assert!(self.log.wait_for_end(LIMIT), "the agent does not end; it says:\n{}", self.said());
        self.child.lock().unwrap_or_else(PoisonError::into_inner).wait().expect("the child is ours")
    }

    /// Whether the process runs.
    pub fn is_alive(&self) -> bool {
        matches!(self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait(), Ok(None))
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the agent runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says VmRSS");
        let kib: u64 = line.split_ascii_whitespace().nth(1).and_then(|it| it.parse().ok()).expect("a number of KiB");
        kib * 1024
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the agent runs").count()
    }

    /// The text at /metrics; the configuration must have said [`Config::metrics`].
    pub fn metrics(&self) -> String {
        let address = self.config.metrics_address().expect("the configuration serves metrics");
        let (head, body) = http_get(address, "/metrics");
        assert_eq!(head.split(' ').nth(1), Some("200"), "metrics: {head}");
        body
    }

    /// The sum of all samples of a metric whose labels contain `label` (empty: any).
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        self.samples::<f64>(name, label).into_iter().sum()
    }

    /// As [`Agent::metric`], of whole numbers.
    pub fn count(&self, name: &str, label: &str) -> u64 {
        self.samples::<u64>(name, label).into_iter().sum()
    }

    fn samples<T: std::str::FromStr>(&self, name: &str, label: &str) -> Vec<T> {
        let is_sample = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
        };
        let value = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse().ok());
        self.metrics().lines().filter(is_sample).filter_map(value).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Errors mean that it has ended already.
        let _ = child.kill();
        let _ = child.wait();
        if thread::panicking() {
            eprintln!("--- the agent at {} said ---\n{}\n---", self.config.query_address(), self.said());
        }
    }
}

// === impl Log ===

impl Log {
    pub fn follow(&self, stderr: impl Read) {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.lines.lock().unwrap_or_else(PoisonError::into_inner).lines.push(line);
            self.changed.notify_all();
        }
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.changed.notify_all();
    }

    /// All of it so far.
    pub fn said(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).lines.join("\n")
    }

    /// The first line from number `from` on that `wanted` likes; `None` after `limit` or at the end.
    pub fn wait_for(&self, from: usize, limit: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + limit;
        let mut log = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = log.lines.iter().skip(from).find(|line| wanted(line)) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || log.ended {
                return None;
            }
            log = self.changed.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub fn wait_for_end(&self, limit: Duration) -> bool {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = self.changed.wait_timeout_while(lines, limit, |log| !log.ended);
        wait.unwrap_or_else(PoisonError::into_inner).0.ended
    }
}

/// Head and body of the answer to a GET.
pub fn http_get(address: SocketAddr, path: &str) -> (String, String) {
    try_http_get(address, path).expect("the endpoint listens, answers and closes")
}

/// The same of an endpoint that may be on the move.
pub fn try_http_get(address: SocketAddr, path: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer).expect("metrics are text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head ends with an empty line");
    Ok((head.to_owned(), body.to_owned()))
}
