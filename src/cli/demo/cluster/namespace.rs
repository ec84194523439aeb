//! A network namespace without a name: gone when the last thread, process and socket in it are, whatever ended them.
//!
//! Read first: `network_namespaces(7)`, `PR_SET_PDEATHSIG` in `prctl(2)`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::fd::RawFd;
use std::process::{Child, Command};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns, unshare};

/// A network of its own.
pub(super) struct Namespace {
    file: Arc<File>,
    /// Starts processes: the kernel ends them with the thread that started them.
    starter: Option<mpsc::Sender<Start>>,
    keeper: Option<JoinHandle<()>>,
}

struct Start {
    command: Command,
    started: mpsc::Sender<io::Result<Child>>,
}

// === impl Namespace ===

impl Namespace {
    /// Makes one with nothing in it but a loopback that is down.
    ///
    /// # Errors
    /// Without the right to (CAP_SYS_ADMIN).
    pub(super) fn new() -> io::Result<Self> {
        let (starter, jobs) = mpsc::channel::<Start>();
        let (made, file) = mpsc::channel();
        let keeper = thread::Builder::new().name("demo-namespace".to_owned()).spawn(move || {
            let opened = unshare(CloneFlags::CLONE_NEWNET)
                .map_err(io::Error::from)
                .and_then(|()| File::open("/proc/thread-self/ns/net"));
            let goes_on = opened.is_ok();
            if made.send(opened).is_ok() && goes_on {
                for mut job in jobs {
                    // Whoever no longer waits for it has dropped everything else, too.
                    let _ = job.started.send(job.command.spawn());
                }
            }
        })?;
        let file = file.recv().map_err(|_| io::Error::other("the thread of a namespace ended"))??;
        Ok(Self { file: Arc::new(file), starter: Some(starter), keeper: Some(keeper) })
    }

    /// What a netlink message calls it.
    pub(super) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Does `work` inside, on a thread of its own; sockets it opens stay inside.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.file);
                work()
            });
            thread.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
        })
    }

    /// Starts a thread inside that goes on by itself.
    ///
    /// # Errors
    /// If there are too many threads.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let file = Arc::clone(&self.file);
        thread::Builder::new().name("demo-pod".to_owned()).spawn(move || {
            enter(&file);
            work()
        })
    }

    /// Starts a process inside. A parent-death signal it asks for comes when this namespace is dropped or we die.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(super) fn start(&self, command: Command) -> io::Result<Child> {
        let (started, child) = mpsc::channel();
        let starter = self.starter.as_ref().expect("only drop takes it");
        starter.send(Start { command, started }).expect("the keeper lives as long as we do");
        child.recv().expect("the keeper answers")
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
