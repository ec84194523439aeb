//! A server as a child process on a core of its own, and what the kernel says about it.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::servers::{Kind, Server};

/// A running server, ended when dropped.
pub struct Process {
    child: Child,
    port: u16,
    kind: Kind,
    started: Instant,
    /// Its configuration, and whatever it writes.
    _folder: TempDir,
}

impl Process {
    /// Starts `server` on `core` with the upstream on port `upstream`.
    pub fn start(server: &Server, upstream: u16, core: usize) -> io::Result<Self> {
        let folder = TempDir::new()?;
        let port = free_port()?;
        let mut command = server.command(port, upstream, folder.path())?;
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let (child, started) = on_core(core, command)?;
        Ok(Self { child, port, kind: server.kind, started, _folder: folder })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn is_echo(&self) -> bool {
        self.kind == Kind::Echo
    }

    /// Time since it was started.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// CPU time of all its threads so far.
    ///
    /// From `schedstat`, in nanoseconds: the ticks of `stat` are too coarse for short runs. Threads that have ended are
    /// not in it; the servers here keep theirs.
    pub fn busy(&self) -> io::Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let running = text.split(' ').next().and_then(|it| it.parse::<u64>().ok());
            nanoseconds += running.ok_or_else(|| io::Error::other("this kernel keeps no CPU time in schedstat"))?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|it| it.trim().strip_suffix(" kB")).and_then(|it| it.parse::<u64>().ok());
        kibibytes.map(|it| it * 1024).ok_or_else(|| io::Error::other("ended by itself"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps the calling thread, and what it starts, on `core`; where there is no such core, anywhere.
pub fn pin(core: usize) {
    let mut cores = CpuSet::new();
    if cores.set(core).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &cores);
    }
}

/// Starts `command` on `core`, from a thread that is there: children inherit it.
fn on_core(core: usize, mut command: Command) -> io::Result<(Child, Instant)> {
    let starter = std::thread::spawn(move || {
        pin(core);
        let started = Instant::now();
        command.spawn().map(|child| (child, started))
    });
    starter.join().expect("starting a process does not panic")
}

fn free_port() -> io::Result<u16> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
