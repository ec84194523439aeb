//! `nodens verify` on loopback: right where all is right, and each check failing by itself.

mod process;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Output;

use process::{Agent, Upstream, free_address, nodens};
use serde_json::{Value, json};

fn agent(upstream: SocketAddr) -> Agent {
    Agent::start(&format!(
        "upstreams: {{ up: {{ servers: [\"{upstream}\"] }} }}\n\
         zones:\n  \".\": {{ upstream: up }}\n  corp.test: {{ upstream: up, max_labels: 1 }}\n  pin.test: {{ answer: [192.0.2.9] }}\n"
    ))
}

fn shown(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Panics unless exactly these checks failed, each named by a part of its line.
#[track_caller]
fn assert_failed(output: &Output, wrong: &[&str]) {
    let shown = shown(output);
    let failed: Vec<_> = shown.lines().filter(|line| line.starts_with('✗')).collect();
    assert_eq!(failed.len(), wrong.len(), "{shown}");
    for (line, part) in failed.iter().zip(wrong) {
        assert!(line.contains(part), "{line:?} has no {part:?}\n{shown}");
    }
    assert_eq!(output.status.code(), Some(i32::from(!wrong.is_empty())), "{shown}");
}

/// An agent that only has a control socket, and says of itself what the test wants.
struct Pretender {
    folder: tempfile::TempDir,
}

impl Pretender {
    fn start(status: Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("control.sock")).expect("bound");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut request = String::new();
                BufReader::new(&stream).read_line(&mut request).expect("a request");
                assert_eq!(request, "{\"do\":\"status\"}\n");
                writeln!(stream, "{}", json!({ "done": true, "status": status })).expect("it waits for it");
            }
        });
        Self { folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    fn verify(&self) -> Output {
        nodens(&["verify", "--control", self.socket().to_str().expect("text")])
    }
}

/// What an agent says that listens at `address` and has nothing else to say.
fn status_of(address: SocketAddr) -> Value {
    let upstream = Upstream::start().address;
    let mut status = agent(upstream).status();
    status["listen"] = json!([address]);
    status["zones"] = json!([]);
    status
}

#[test]
fn where_all_is_right_every_check_is_named() {
    let agent = agent(Upstream::start().address);
    let output = agent.run(&["verify"]);
    assert_failed(&output, &[]);
    let shown = shown(&output);
    for line in [
        "✓ the agent is ready",
        &format!("✓ {} answers over UDP: Nodens", agent.address),
        &format!("✓ {} answers over TCP: Nodens", agent.address),
        "✓ zone .: upstream up answers",
        "✓ zone corp.test.: upstream up answers",
        "· connection tracking and fallback: nothing is intercepted here",
        "5 checks, all right",
    ] {
        assert!(shown.contains(line), "no {line:?} in\n{shown}");
    }
    assert!(!shown.contains("pin.test") && !shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn a_zone_whose_upstream_is_dead_fails() {
    let agent = agent(free_address());
    assert_failed(&agent.run(&["verify"]), &["zone .: upstream up answers: SERVFAIL", "zone corp.test."]);
}

#[test]
fn an_agent_that_is_not_ready_fails() {
    let agent = agent(Upstream::start().address);
    agent.reload_with("nonsense: 1\n", |status| status["ready"] == false);
    assert_failed(&agent.run(&["verify"]), &["the agent is ready: the newest configuration is refused"]);
}

#[test]
fn an_address_where_nobody_listens_fails() {
    let pretender = Pretender::start(status_of(free_address()));
    assert_failed(&pretender.verify(), &["over UDP: nobody listens there", "over TCP: nobody listens there"]);
}

#[test]
fn an_address_where_somebody_else_answers_fails() {
    let pretender = Pretender::start(status_of(Upstream::start().address));
    assert_failed(&pretender.verify(), &["over UDP: somebody else answered", "over TCP: somebody else answered"]);
}

#[test]
fn an_agent_that_listens_nowhere_fails() {
    let mut status = status_of(free_address());
    status["listen"] = json!([]);
    assert_failed(&Pretender::start(status).verify(), &["zones: there is no address"]);
}

#[test]
fn an_agent_of_another_version_is_refused_in_words() {
    let pretender = Pretender::start(json!({ "version": "9.9.9" }));
    let output = pretender.verify();
    assert_eq!(output.status.code(), Some(1));
    assert!(shown(&output).contains("of another version"), "{}", shown(&output));
}

#[test]
fn without_an_agent_the_exit_code_is_three() {
    let output = nodens(&["verify", "--control", "/nonexistent/control.sock"]);
    assert_eq!(output.status.code(), Some(3), "{}", shown(&output));
}

#[test]
fn in_a_pod_the_proof_is_asked_for_and_no_control_socket() {
    let agent = agent(Upstream::start().address);
    let address = agent.address.to_string();
    assert_failed(&nodens(&["verify", "--from-pod", &address]), &[]);
    let other = Upstream::start().address.to_string();
    let closed = free_address().to_string();
    assert_failed(
        &nodens(&["verify", "--from-pod", &address, &other, &closed]),
        &["over UDP: somebody else", "over TCP: somebody else", "over UDP: nobody", "over TCP: nobody"],
    );
}

#[test]
fn in_a_pod_silence_is_a_failed_check() {
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    // Connections wait in the kernel's queue for ever.
    let tcp = std::net::TcpListener::bind(udp.local_addr().expect("bound")).expect("the same port");
    let address = tcp.local_addr().expect("bound").to_string();
    let output = nodens(&["verify", "--from-pod", &address]);
    assert_failed(&output, &["over UDP: nothing in 2 s", "over TCP: nothing in 2 s"]);
}

#[test]
fn addresses_belong_to_a_pod() {
    assert_eq!(nodens(&["verify", "127.0.0.1"]).status.code(), Some(2));
    assert_eq!(nodens(&["verify", "--from-pod", "kube-dns"]).status.code(), Some(2));
}
