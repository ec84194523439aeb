//! The real binary on loopback, for the tests of commands that talk to a running agent.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anything here may take; a test that hangs fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running agent. Dropping it kills it.
pub struct Agent {
    child: Child,
    pub address: SocketAddr,
    folder: tempfile::TempDir,
}

/// A DNS server that answers every question with one address, over UDP and TCP, for as long as the test runs.
pub struct Upstream {
    pub address: SocketAddr,
}

// === impl Agent ===

impl Agent {
    /// Starts an agent on loopback and waits until it serves. `rest` is its file but for `listen:` and `http:`.
    pub fn start(rest: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = free_address();
        let file = folder.path().join("nodens.yaml");
        let yaml = format!(
            "listen: {{ addresses: [127.0.0.1], port: {}, workers: 1 }}\nhttp: {{ control: {} }}\n{rest}",
            address.port(),
            folder.path().join("control.sock").display(),
        );
        std::fs::write(&file, yaml).expect("the folder is ours");
        let child = spawn(&file);
        Self { child, address, folder }
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("nodens.yaml")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// Adds to its file, sends SIGHUP and waits until `is_so` of the status.
    pub fn reload_with(&self, more: &str, is_so: impl Fn(&serde_json::Value) -> bool) {
        let text = std::fs::read_to_string(self.file()).expect("it is there") + more;
        std::fs::write(self.file(), text).expect("the folder is ours");
        self.signal(Signal::SIGHUP);
        let start = std::time::Instant::now();
        while !is_so(&self.status()) {
            assert!(start.elapsed() < PATIENCE, "{:#}", self.status());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it is our child");
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again with the same file.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.file());
    }

    /// What `nodens status --json` prints.
    pub fn status(&self) -> serde_json::Value {
        let output = self.run(&["status", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Runs a command that talks to this agent.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let socket = self.socket();
        nodens(&[arguments, &["--control", socket.to_str().expect("text")]].concat())
    }

    /// Asks for `name` IN A over UDP and waits for the answer.
    pub fn ask(&self, name: &str) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        socket.connect(self.address).expect("loopback");
        socket.send(&query(name)).expect("sent");
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).expect("an answer");
        answer[..length].to_vec()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(file: &std::path::Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodens"));
    command.args(["run", "-c"]).arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary of this crate");
    let log = child.stderr.take().expect("stderr is piped");
    let (said, lines) = mpsc::channel();
    // Reads on to the end, so that the child can always write.
    std::thread::spawn(move || BufReader::new(log).lines().map_while(Result::ok).for_each(|it| drop(said.send(it))));
    let mut log = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) if line.contains("serving") => return child,
            Ok(line) => log.push(line),
            Err(error) => panic!("{error}; the agent said {log:#?}"),
        }
    }
}

/// Runs the binary to its end.
pub fn nodens(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nodens"))
        .args(arguments)
        .env_remove("NODENS_CONFIG")
        .stdin(Stdio::null())
        .output()
        .expect("the binary of this crate")
}

/// A loopback address whose port was free for UDP and TCP a moment ago.
pub fn free_address() -> SocketAddr {
    let (udp, tcp) = both();
    drop(tcp);
    udp.local_addr().expect("bound")
}

fn both() -> (UdpSocket, TcpListener) {
    let find = || {
        let udp = UdpSocket::bind("127.0.0.1:0")?;
        let tcp = TcpListener::bind(udp.local_addr()?)?;
        std::io::Result::Ok((udp, tcp))
    };
    (0..16).find_map(|_| find().ok()).expect("a port")
}

// === impl Upstream ===

impl Upstream {
    pub fn start() -> Self {
        let (udp, tcp) = both();
        let address = udp.local_addr().expect("bound");
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, client)) = udp.recv_from(&mut query) {
                let _ = udp.send_to(&reply(&query[..length]), client);
            }
        });
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut length = [0; 2];
                    while stream.read_exact(&mut length).is_ok() {
                        let mut query = vec![0; u16::from_be_bytes(length).into()];
                        stream.read_exact(&mut query)?;
                        let reply = reply(&query);
                        let length = u16::try_from(reply.len()).expect("replies are small");
                        stream.write_all(&[&length.to_be_bytes()[..], &reply].concat())?;
                    }
                    std::io::Result::Ok(())
                });
            }
        });
        Self { address }
    }
}

/// `name` IN A with RD, without EDNS.
fn query(name: &str) -> Vec<u8> {
    let mut out = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).expect("labels are short"));
        out.extend(label.bytes());
    }
    out.extend([0, 0, 1, 0, 1]);
    out
}

/// The answer to a query with one question: one A record, 192.0.2.1, TTL one minute, without EDNS.
fn reply(query: &[u8]) -> Vec<u8> {
    let name = query[12..].iter().position(|octet| *octet == 0).expect("a whole name without pointers");
    let mut out = query[..12 + name + 5].to_vec();
    out[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    out.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    out
}
