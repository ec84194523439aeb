//! The demo's agent as a process of its own, so that it can be killed: this binary, `run -c …`.
//!
//! Its configuration is a file in memory, its standard input. It dies with us: between fork and exec it asks the kernel
//! for a signal at our death ([`leash`]).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, execv, getppid};

use super::namespace::Namespace;

/// This program, whatever its file is called by now.
const ITSELF: &str = "/proc/self/exe";
/// Standard input as a file that can be read again.
const INPUT: &str = "/proc/self/fd/0";
/// Lines of its log that are kept.
const LOG: usize = 32;

/// A running agent. Dropping it kills it.
pub(super) struct Agent {
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
}

// === impl Agent ===

impl Agent {
    /// Starts an agent in `node`; it intercepts some time after this returns.
    ///
    /// # Errors
    /// If no process can be started.
    pub(super) fn start(node: &Namespace, yaml: &str) -> io::Result<Self> {
        let mut file = File::from(memfd_create(c"nodens.yaml", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(yaml.as_bytes())?;
        file.rewind()?;
        let mut command = Command::new(ITSELF);
        command.args(["demo", "--leash", &std::process::id().to_string()]);
        command.env_remove("NODENS_CONFIG").stdin(file).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = node.start(command)?;
        let log = Arc::<Mutex<VecDeque<String>>>::default();
        let lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let kept = Arc::clone(&log);
        std::thread::Builder::new().name("demo-agent-log".to_owned()).spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.truncate(LOG - 1);
                kept.push_front(line);
            }
        })?;
        Ok(Self { child, log })
    }

    /// What it said last.
    pub(super) fn last_word(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.front().cloned().unwrap_or_else(|| "it said nothing".to_owned())
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL. Returns when the kernel is done with it.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// SIGTERM. Returns when it has answered what it had and ended.
    ///
    /// # Errors
    /// If it did not end well.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        // Not waited for yet, so its number is still its own.
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("the agent ended with {status}"))) }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.kill();
    }
}

/// Becomes the agent that [`Agent::start`] wants, on a leash: the kernel kills it when process `owner` is gone.
///
/// # Errors
/// If the kernel refuses, or `owner` was gone before the leash was on.
pub(in super::super) fn leash(owner: i32) -> io::Result<Infallible> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != Pid::from_raw(owner) {
        return Err(io::Error::other("whoever started this agent is gone"));
    }
    let word = |text: &str| CString::new(text).expect("words written down in this program have no NUL");
    Ok(execv(&word(ITSELF), &["nodens", "run", "-c", INPUT].map(word))?)
}
