//! Programs that resolve names through the C library, pointed at an agent.
//!
//! A C library reads `/etc/resolv.conf` and asks port 53. So the agent listens on port 53 of a loopback address of its
//! own, and the program runs in a mount namespace of its own where that file says so.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::peers::programs::{self, skip};
use crate::support::agent::Agent;

/// The search list a pod has, and the `ndots` that makes it bite.
pub const POD: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5";

/// The source of the client in `stub.c`.
const STUB: &str = include_str!("stub.c");

/// Mounts the files of directory `$1` over the system's and becomes the program behind.
const ENTER: &str = "mount --bind \"$1/resolv.conf\" /etc/resolv.conf && \
    mount --bind \"$1/nsswitch.conf\" /etc/nsswitch.conf && shift && exec \"$@\"";

/// A program's view of the system: the agent is its resolver.
pub struct View {
    directory: TempDir,
}

/// What the C library said about one name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    pub name: String,
    /// 0 is success; else the error code of getaddrinfo.
    pub error: i32,
    pub milliseconds: u64,
    /// In ascending order as text.
    pub addresses: Vec<String>,
}

/// Which C library the client is built with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Library {
    Glibc,
    Musl,
}

/// Whether port 53 can be had and mounts can be hidden; says so aloud if not.
pub fn possible() -> bool {
    let script = "test \"$(id -u)\" = 0 && unshare -m true";
    let possible = Command::new("sh").args(["-c", script]).status().is_ok_and(|status| status.success());
    if !possible {
        skip("only root can take port 53 and mount a resolv.conf");
    }
    possible
}

// === impl View ===

impl View {
    /// `options` are more lines of the resolv.conf.
    pub fn new(agent: &Agent, options: &str) -> Self {
        assert_eq!(agent.addr().port(), 53, "a C library asks port 53");
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let resolv_conf = format!("nameserver {}\n{options}\n", agent.addr().ip());
        fs::write(directory.path().join("resolv.conf"), resolv_conf).expect("the directory takes files");
        fs::write(directory.path().join("nsswitch.conf"), "hosts: files dns\n").expect("the directory takes files");
        Self { directory }
    }

    /// Runs a program to its end and returns what it printed, whether it succeeded or not.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let directory = self.path().display().to_string();
        let enter = ["-m", "sh", "-c", ENTER, "sh", &directory, program];
        let output = programs::run("unshare", &[&enter, arguments].concat(), self.path());
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(complaint.is_empty(), "{program} {arguments:?} complains: {complaint}");
        String::from_utf8(output.stdout).expect("names and addresses are text")
    }

    /// Asks `library` for the names that `format` (one `%d`) gives for the numbers up to `count`.
    pub fn resolve(&self, library: Library, count: u32, format: &str) -> Vec<Found> {
        fs::write(self.path().join("stub.c"), STUB).expect("the directory takes files");
        let binary = self.path().join(library.compiler());
        let path = binary.display().to_string();
        if !binary.exists() {
            let mut arguments = vec!["-O1", "-o", &path, "stub.c"];
            if library == Library::Musl {
                arguments.push("-static");
            }
            programs::output_of(library.compiler(), &arguments, self.path());
        }
        let found: Vec<Found> = self.run(&path, &[&count.to_string(), format]).lines().map(Found::read).collect();
        assert_eq!(found.len(), count as usize, "a line for every name");
        found
    }

    /// Asks `library` for one name.
    pub fn resolve_one(&self, library: Library, name: &str) -> Found {
        self.resolve(library, 1, name).remove(0)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

// === impl Found ===

impl Found {
    /// Reads a line of `stub.c`.
    fn read(line: &str) -> Self {
        let mut words = line.split_ascii_whitespace();
        let mut next = || words.next().unwrap_or_else(|| panic!("the client broke off in {line:?}"));
        let name = next().to_owned();
        let error = next().parse().expect("the second word is a number");
        let milliseconds = next().parse().expect("the third word is a number");
        let mut addresses: Vec<String> = words.map(str::to_owned).collect();
        addresses.sort_unstable();
        Self { name, error, milliseconds, addresses }
    }
}

// === impl Library ===

impl Library {
    /// The compiler that links with it.
    pub fn compiler(self) -> &'static str {
        match self {
            Self::Glibc => "gcc",
            Self::Musl => "musl-gcc",
        }
    }

    /// All that can be had here; says aloud what cannot.
    pub fn present() -> Vec<Self> {
        [Self::Glibc, Self::Musl].into_iter().filter(|library| programs::present(&[library.compiler()])).collect()
    }
}
