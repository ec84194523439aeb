//! The program under its other name, with everything it reads in a folder of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, thread};

use crate::support::agent::Log;
use crate::support::upstream::{Upstream, encoded};
use crate::support::{LIMIT, fresh_address};

/// Where it listens, in place of 53.
pub const DNS: u16 = 5300;

/// A running `node-cache`. Dropping it kills it.
pub struct NodeCache {
    address: SocketAddr,
    folder: Arc<tempfile::TempDir>,
    child: Mutex<Child>,
    log: Arc<Log>,
    /// What `-upstreamsvc` and the ConfigMap lead to.
    pub cluster: Arc<Upstream>,
    pub node: Arc<Upstream>,
}

impl NodeCache {
    /// Starts it with a Corefile of `tests/corefiles` and waits until it serves.
    pub fn start(corefile: &str, flags: &[&str]) -> Self {
        let agent = Self::spawn(corefile, flags);
        assert!(agent.wait_for(0, "serving").is_some(), "{corefile} does not serve; it says:\n{}", agent.said());
        agent
    }

    /// Starts it as one who may not change the host, and has it try. `None`, said aloud, where that cannot be had.
    pub fn start_without_rights(corefile: &str) -> Option<Self> {
        let without = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
        let tried = Command::new(without[0]).args(&without[1..]).arg("true").stderr(Stdio::null()).status();
        if !tried.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: setpriv cannot drop CAP_NET_ADMIN");
            return None;
        }
        let flags = ["-setupinterface=true", "-setupiptables=true"];
        let agent = Self::spawn_behind(&without, corefile, &flags);
        assert!(agent.wait_for(0, "serving").is_some(), "{corefile} does not serve; it says:\n{}", agent.said());
        Some(agent)
    }

    /// Starts it and waits for nothing.
    pub fn spawn(corefile: &str, flags: &[&str]) -> Self {
        Self::spawn_behind(&[], corefile, flags)
    }

    /// The same, by way of another program.
    pub fn spawn_behind(wrapper: &[&str], corefile: &str, flags: &[&str]) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("the temporary directory can be written"));
        let path = folder.path();
        fs::create_dir(path.join("kube-dns")).expect("the folder is ours");
        let address = SocketAddr::new(fresh_address(), DNS);
        let text = fs::read_to_string(format!("tests/corefiles/{corefile}")).expect("it belongs to the repository");
        fs::write(path.join("Corefile.base"), moved(&text, address)).expect("the folder is ours");
        fs::create_dir(path.join("parts")).expect("the folder is ours");
        for part in ["10-errors.override", "deeper"] {
            fs::copy(format!("tests/corefiles/parts/{part}"), path.join("parts").join(part)).expect("both are there");
        }
        let [cluster, node] = [(), ()].map(|()| Arc::new(Upstream::new(encoded(60))));
        let nameservers = format!("[\"{}\"]", node.address());
        fs::write(path.join("kube-dns/upstreamNameservers"), nameservers).expect("the folder is ours");
        Self::run(wrapper, folder, address, cluster, node, flags)
    }

    /// Starts it once more where another one was.
    pub fn again(before: &Self) -> Self {
        before.stop();
        let (folder, cluster, node) = (before.folder.clone(), before.cluster.clone(), before.node.clone());
        Self::run(&[], folder, before.address, cluster, node, &[])
    }

    fn run(
        wrapper: &[&str],
        folder: Arc<tempfile::TempDir>,
        address: SocketAddr,
        cluster: Arc<Upstream>,
        node: Arc<Upstream>,
        flags: &[&str],
    ) -> Self {
        let path = |name: &str| folder.path().join(name);
        let program = program(folder.path());
        let mut command = match wrapper {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command.arg("-localip").arg(address.ip().to_string());
        command.arg("-basecorefile").arg(path("Corefile.base")).arg("-conf").arg(path("Corefile"));
        command.arg(format!("-upstreamsvc={}", cluster.address())).arg("-kubednscm").arg(path("kube-dns"));
        command.arg("--pidfile").arg(path("pid")).args(["-setupinterface=false", "-setupiptables=false"]);
        command.arg(format!("-dns.port={DNS}")).arg(format!("-metrics-listen-address={}:9353", address.ip()));
        command.args(["-syncinterval=10s", "-skipteardown=true", "-health-port", "8080"]).args(flags);
        command.env("TEST_UPSTREAM", cluster.address().to_string()).env("TEST_TTL", "30");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("cargo built the binary");
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("stderr is piped");
        thread::spawn({
            let log = log.clone();
            move || log.follow(stderr)
        });
        Self { address, folder, child: Mutex::new(child), log, cluster, node }
    }

    pub fn at(&self) -> SocketAddr {
        self.address
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    pub fn said(&self) -> String {
        self.log.said()
    }

    /// Lines said so far.
    pub fn lines(&self) -> usize {
        self.said().lines().count()
    }

    /// The first line from number `from` on that contains `text`.
    pub fn wait_for(&self, from: usize, text: &str) -> Option<String> {
        self.log.wait_for(from, LIMIT, |line| line.contains(text))
    }

    /// Replaces a file of its folder at once, as the kubelet does, and waits for the line that tells of it.
    pub fn replace(&self, file: &str, content: &[u8], told: &str) {
        let seen = self.lines();
        let next = self.folder.path().join("next");
        fs::write(&next, content).expect("the folder is ours");
        fs::rename(&next, self.folder.path().join(file)).expect("the folder is ours");
        assert!(self.wait_for(seen, told).is_some(), "nothing is said of {file}:\n{}", self.said());
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", self.pid())).status();
        assert!(status.expect("there is a shell").success());
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(&self) {
        self.signal("TERM");
        assert_eq!(self.wait_for_exit().code(), Some(0), "{}", self.said());
    }

    pub fn wait_for_exit(&self) -> ExitStatus {
        assert!(self.log.wait_for_end(LIMIT), "it does not end; it says:\n{}", self.said());
        self.child.lock().unwrap_or_else(PoisonError::into_inner).wait().expect("the child is ours")
    }
}

impl Drop for NodeCache {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Errors mean that it has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Runs it to its end.
pub fn node_cache(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("the temporary directory can be written");
    Command::new(program(folder.path())).args(arguments).output().expect("cargo built the binary")
}

/// The program under its other name.
fn program(folder: &std::path::Path) -> PathBuf {
    let link = folder.join("node-cache");
    // It is there already where something is started again.
    let _ = std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_nodens"), &link);
    link
}

/// A Corefile that needs no right and meets no other test.
pub fn moved(text: &str, address: SocketAddr) -> String {
    let ip = address.ip();
    let text = text.replace(":53 ", &format!(":{DNS} ")).replace(":53,", &format!(":{DNS},"));
    let text = text.replace(":53\n", &format!(":{DNS}\n"));
    text.replace(" :9253", &format!(" {ip}:9253")).replace(" :8080", &format!(" {ip}:8080"))
}
