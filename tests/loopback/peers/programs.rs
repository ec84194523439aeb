//! Other people's DNS programs as children of a test, each on an address of its own, gone when the test ends.
//!
//! A program that is missing makes its test skip aloud, unless `NODENS_NO_SKIP=1` says that nothing may be skipped.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fs, thread};

use tempfile::TempDir;

/// Longest time a program may take to come up.
const STARTUP: Duration = Duration::from_secs(20);

/// Whether all of `names` can be run. Says which cannot; panics where nothing may be skipped.
#[must_use]
pub fn present(names: &[&str]) -> bool {
    let missing: Vec<&str> = names.iter().copied().filter(|name| find(name).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    skip(&format!("{} missing", missing.join(", ")));
    false
}

/// Says aloud that the calling test does nothing, and why.
pub fn skip(reason: &str) {
    assert!(env::var_os("NODENS_NO_SKIP").is_none_or(|it| it != "1"), "may not be skipped, but {reason}");
    eprintln!("SKIPPED: {reason}");
}

/// Runs a tool to its end and returns what it printed; ten minutes at most.
pub fn run(name: &str, arguments: &[&str], directory: &Path) -> Output {
    Command::new("timeout")
        .arg("600")
        .arg(find(name).unwrap_or_else(|| panic!("{name} is not installed")))
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{name} cannot be run: {error}"))
}

/// Like [`run`], for tools that must succeed; returns their standard output.
pub fn output_of(name: &str, arguments: &[&str], directory: &Path) -> String {
    let output = run(name, arguments, directory);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{name} {arguments:?} failed with {}:\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Full path of a program in `PATH` or where Debian keeps daemons.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// A loopback address nobody else in this test run listens on, and a port that is free there over UDP and TCP.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    loop {
        let address = Ipv4Addr::new(
            127,
            100 + (std::process::id() >> 8 & 0x3f) as u8,
            std::process::id() as u8,
            NEXT.fetch_add(1, Ordering::Relaxed) as u8,
        );
        let Ok(udp) = UdpSocket::bind((address, 0)) else { continue };
        let bound = udp.local_addr().expect("a bound socket has an address");
        if TcpListener::bind(bound).is_ok() {
            return bound;
        }
    }
}

/// A running server; dropping it ends it.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// Where it keeps its files.
    directory: TempDir,
}

impl Server {
    /// Starts `program` and returns once it has printed `ready`.
    fn start(program: &str, arguments: &[&str], address: SocketAddr, directory: TempDir, ready: &'static str) -> Self {
        let mut child = Command::new(find(program).unwrap_or_else(|| panic!("{program} is not installed")))
            .args(arguments)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
        let lines = BufReader::new(child.stderr.take().expect("standard error is a pipe")).lines();
        let (tell, heard) = mpsc::channel();
        thread::spawn(move || {
            // Read to the end, or the child stops at a full pipe.
            for line in lines.map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let server = Self { child, address, directory };
        let mut said = String::new();
        loop {
            match heard.recv_timeout(STARTUP) {
                Ok(line) if line.contains(ready) => return server,
                Ok(line) => writeln!(said, "{line}").expect("a String takes all"),
                Err(reason) => panic!("{program} did not come up ({reason}); it said:\n{said}"),
            }
        }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM, so that servers with children of their own end those too.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// A zone as a master file.
pub struct Zone {
    pub name: &'static str,
    pub records: String,
    /// Sign it, and keep the key for [`trust_anchor`].
    pub signing: Signing,
}

/// What becomes of a zone before it is served.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Signing {
    /// Signed, then the addresses 192.0.2.66 become 192.0.2.99, which no signature covers.
    Forged,
    None,
    Signed,
}

/// The tools that [`nsd`] needs for zones of this kind.
pub const NSD: [&str; 1] = ["nsd"];
pub const NSD_SIGNED: [&str; 3] = ["nsd", "ldns-keygen", "ldns-signzone"];

/// An authoritative server for `zones`.
pub fn nsd(zones: &[Zone]) -> Server {
    nsd_at(free_address(), zones)
}

/// An authoritative server for `zones` at a given address.
pub fn nsd_at(address: SocketAddr, zones: &[Zone]) -> Server {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path();
    let mut config = format!(
        "server:\n ip-address: {}@{}\n username: \"\"\n chroot: \"\"\n zonesdir: \"{dir}\"\n database: \"\"\n \
         zonelistfile: \"{dir}/zone.list\"\n pidfile: \"\"\n xfrdfile: \"\"\n xfrdir: \"{dir}\"\n server-count: 1\n \
         tcp-count: 100\nremote-control:\n control-enable: no\n",
        address.ip(),
        address.port(),
        dir = path.display(),
    );
    for zone in zones {
        let file = write_zone(zone, path);
        writeln!(config, "zone:\n name: {}\n zonefile: {file}", zone.name).expect("a String takes all");
    }
    fs::write(path.join("nsd.conf"), config).expect("the directory takes files");
    Server::start("nsd", &["-d", "-c", "nsd.conf"], address, directory, "nsd started")
}

/// Writes the zone, signed if so wanted, and returns the file's name.
fn write_zone(zone: &Zone, directory: &Path) -> String {
    let name = zone.name;
    let file = format!("{name}.zone");
    let text = format!(
        "$ORIGIN {name}.\n$TTL 300\n@ SOA ns hostmaster 1 3600 900 86400 60\n@ NS ns\nns A 192.0.2.53\n{}",
        zone.records
    );
    fs::write(directory.join(&file), text).expect("the directory takes files");
    if zone.signing == Signing::None {
        return file;
    }
    let key = output_of("ldns-keygen", &["-a", "ECDSAP256SHA256", name], directory);
    let key = key.trim();
    output_of("ldns-signzone", &[&file, key], directory);
    fs::rename(directory.join(format!("{key}.key")), directory.join(format!("{name}.key"))).expect("the key was made");
    let signed = format!("{file}.signed");
    if zone.signing == Signing::Forged {
        let text = fs::read_to_string(directory.join(&signed)).expect("ldns-signzone wrote it");
        assert!(text.contains("192.0.2.66"), "nothing to forge in {name}");
        fs::write(directory.join(&signed), text.replace("192.0.2.66", "192.0.2.99")).expect("the file can be replaced");
    }
    signed
}

/// Path of the key that a validator has to trust for a zone [`nsd`] signed.
pub fn trust_anchor(authority: &Server, zone: &str) -> String {
    authority.directory().join(format!("{zone}.key")).display().to_string()
}

/// A resolver that asks `authority` for `stubs` and everything else nowhere; it validates with `anchors`.
pub fn unbound(authority: SocketAddr, stubs: &[&str], anchors: &[String]) -> Server {
    let mut zones = String::new();
    for stub in stubs {
        writeln!(zones, "stub-zone:\n name: {stub}\n stub-addr: {}@{}", authority.ip(), authority.port())
            .expect("a String takes all");
    }
    unbound_with(stubs, anchors, &zones)
}

/// A resolver that forwards everything to `upstream`.
pub fn unbound_forwarding(upstream: SocketAddr, zones: &[&str]) -> Server {
    let forward = format!("forward-zone:\n name: .\n forward-addr: {}@{}\n", upstream.ip(), upstream.port());
    unbound_with(zones, &[], &forward)
}

fn unbound_with(zones: &[&str], anchors: &[String], clauses: &str) -> Server {
    let address = free_address();
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let mut config = format!(
        "server:\n interface: {}@{}\n do-daemonize: no\n use-syslog: no\n logfile: \"\"\n verbosity: 1\n \
         username: \"\"\n chroot: \"\"\n directory: \"{}\"\n pidfile: \"\"\n num-threads: 1\n do-ip6: no\n \
         do-not-query-localhost: no\n access-control: 127.0.0.0/8 allow\n max-udp-size: 1232\n",
        address.ip(),
        address.port(),
        directory.path().display(),
    );
    for zone in zones {
        // Unbound answers special names such as `test.` itself unless told not to.
        writeln!(config, " local-zone: \"{zone}.\" transparent").expect("a String takes all");
    }
    writeln!(config, " local-zone: \"test.\" nodefault").expect("a String takes all");
    match anchors {
        [] => writeln!(config, " module-config: \"iterator\"").expect("a String takes all"),
        anchors => {
            for anchor in anchors {
                writeln!(config, " trust-anchor-file: \"{anchor}\"").expect("a String takes all");
            }
        }
    }
    write!(config, "remote-control:\n control-enable: no\n{clauses}").expect("a String takes all");
    fs::write(directory.path().join("unbound.conf"), config).expect("the directory takes files");
    Server::start("unbound", &["-d", "-c", "unbound.conf"], address, directory, "start of service")
}
