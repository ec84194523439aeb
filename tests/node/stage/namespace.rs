//! A network namespace without a name: it is gone when the last thread, process and socket in it are.
//!
//! Read first: `network_namespaces(7)`.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::{panic, process};

use nix::sched::{CloneFlags, setns, unshare};

use std::os::fd::AsRawFd as _;

/// A network of its own, `lo` up.
pub struct Namespace {
    name: &'static str,
    file: Arc<File>,
    /// Starts processes: they ask the kernel to end them with the thread that started them.
    starter: Option<mpsc::Sender<Start>>,
    keeper: Option<JoinHandle<()>>,
}

struct Start {
    command: Command,
    started: mpsc::Sender<io::Result<Child>>,
}

// === impl Namespace ===

impl Namespace {
    /// Makes a namespace; `name` is for messages.
    ///
    /// # Errors
    /// Without the right to.
    pub fn new(name: &'static str) -> io::Result<Self> {
        let (starter, jobs) = mpsc::channel::<Start>();
        let (made, file) = mpsc::channel();
        let keeper = thread::spawn(move || {
            let opened = unshare(CloneFlags::CLONE_NEWNET)
                .map_err(io::Error::from)
                .and_then(|()| File::open("/proc/thread-self/ns/net"));
            let goes_on = opened.is_ok();
            made.send(opened).expect("the maker waits for it");
            if goes_on {
                for mut job in jobs {
                    job.started.send(job.command.spawn()).expect("the caller waits for it");
                }
            }
        });
        let file = Arc::new(file.recv().expect("the keeper sends once")?);
        let namespace = Self { name, file, starter: Some(starter), keeper: Some(keeper) };
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0");
        namespace.sysctl("net/ipv6/conf/all/accept_dad", "0");
        namespace.ip("link set lo up");
        Ok(namespace)
    }

    /// What `ip link … netns` takes for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", process::id(), self.file.as_raw_fd()))
    }

    /// Does `work` inside, on a thread of its own; sockets it opens stay inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.file);
                work()
            });
            thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
        })
    }

    /// Starts a thread inside that goes on by itself.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let file = self.file.clone();
        thread::spawn(move || {
            enter(&file);
            work()
        })
    }

    /// Starts a process inside that dies with the namespace, or with us.
    pub fn start(&self, program: &str, configure: impl FnOnce(&mut Command)) -> Child {
        self.start_with(&[], program, configure)
    }

    /// As [`Namespace::start`], with more words for setpriv: `--bounding-set=-net_admin`.
    pub fn start_with(&self, rights: &[&str], program: &str, configure: impl FnOnce(&mut Command)) -> Child {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(rights).arg("--").arg(program);
        configure(&mut command);
        let (started, child) = mpsc::channel();
        let starter = self.starter.as_ref().expect("only drop takes it");
        starter.send(Start { command, started }).expect("the keeper lives as long as we do");
        child.recv().expect("the keeper answers").expect("util-linux has setpriv")
    }

    /// Runs a tool inside to its end, ten seconds at most, `input` on its standard input.
    pub fn output(&self, program: &str, arguments: &[&str], input: &str) -> Output {
        self.run(|| {
            let mut command = Command::new("timeout");
            command.arg("10").arg(program).args(arguments);
            let mut child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("coreutils has timeout");
            let written = child.stdin.take().expect("stdin is piped").write_all(input.as_bytes());
            let output = child.wait_with_output().expect("the child is ours");
            // A tool that ended without reading all has its own words for it.
            assert!(written.is_ok() || !output.status.success(), "{program} did not read its input");
            output
        })
    }

    /// As [`Namespace::output`] for tools that must succeed; what they printed.
    #[track_caller]
    pub fn tool(&self, program: &str, arguments: &[&str], input: &str) -> String {
        let output = self.output(program, arguments, input);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {program} {arguments:?}: {}\n{said}\n{input}", self.name, output.status);
        String::from_utf8(output.stdout).expect("tools print text")
    }

    /// Runs `ip` with lines of words, all in one process.
    #[track_caller]
    pub fn ip(&self, lines: &str) {
        self.tool("ip", &["-batch", "-"], lines);
    }

    /// Runs an nft script as one transaction.
    #[track_caller]
    pub fn nft(&self, script: &str) {
        self.tool("nft", &["-f", "-"], script);
    }

    /// Writes a setting under /proc/sys.
    #[track_caller]
    pub fn sysctl(&self, path: &str, value: &str) {
        let written = self.run(|| std::fs::write(format!("/proc/sys/{path}"), value));
        written.unwrap_or_else(|error| panic!("{} {path}: {error}", self.name));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.starter = None;
        if let Some(keeper) = self.keeper.take() {
            // Its panic has been told where it happened.
            let _ = keeper.join();
        }
    }
}

fn enter(file: &File) {
    setns(file, CloneFlags::CLONE_NEWNET).expect("who may make a namespace may enter it");
}
