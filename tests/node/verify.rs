//! The gate after an apply, on a node: right when the traffic is the agent's, wrong for each thing that is not so.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::agent::{Agent, Config};
use crate::stage::{CLUSTER_IPS, Flavour, NODE, Namespace, OWN_IPS, Stage};

const NODENS: &str = env!("CARGO_BIN_EXE_nodens");

fn verify(namespace: &Namespace, socket: &Path) -> Output {
    namespace.output(NODENS, &["verify", "--control", socket.to_str().expect("text")], "")
}

/// Panics unless exactly these checks failed, each named by a part of its line; what it printed.
#[track_caller]
fn assert_failed(output: &Output, wrong: &[&str]) -> String {
    let shown = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let failed: Vec<_> = shown.lines().filter(|line| line.starts_with('✗')).collect();
    assert_eq!(failed.len(), wrong.len(), "{shown}");
    for (line, part) in failed.iter().zip(wrong) {
        assert!(line.contains(part), "{line:?} has no {part:?}\n{shown}");
    }
    assert_eq!(output.status.code(), Some(i32::from(!wrong.is_empty())), "{shown}");
    shown
}

/// Runs verify against an agent that is none, and says `status` of itself.
fn verify_pretender(namespace: &Namespace, status: &Value) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("control.sock");
    let listener = UnixListener::bind(&socket).expect("bound");
    let line = format!("{}\n", json!({ "done": true, "status": status }));
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("verify asks");
        let mut request = String::new();
        BufReader::new(&stream).read_line(&mut request).expect("a request");
        stream.write_all(line.as_bytes()).expect("it waits for it");
    });
    verify(namespace, &socket)
}

/// The status of an agent on this stage, which is gone when this returns; with one address and no zones.
fn status_once(stage: &Stage, address: std::net::IpAddr) -> Value {
    let agent = Agent::start(&stage.node, &Config::new());
    let socket = agent.socket();
    let output = stage.node.output(NODENS, &["status", "--json", "--control", socket.to_str().expect("text")], "");
    let mut status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    status["listen"] = json!([SocketAddr::new(address, 53)]);
    status["zones"] = json!([]);
    status["ready"] = json!(true);
    status
}

/// L13 and the gate: nothing to find fault with, on the node and in a pod.
#[test]
fn an_agent_that_intercepts_passes_on_the_node_and_in_a_pod() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let agent = Agent::start(&stage.node, &Config::new());
    let shown = assert_failed(&verify(&stage.node, &agent.socket()), &[]);
    for line in [
        "✓ 10.96.0.10:53 answers over UDP: Nodens",
        "✓ [fd00:169:20::10]:53 answers over TCP: Nodens",
        "✓ zone up.test.: upstream up answers",
        "✓ connection tracking holds nothing of it",
        "✓ fallback for 169.254.20.10 is armed: 3 servers answer",
        "· fallback for 10.96.0.10: kube-proxy's",
    ] {
        assert!(shown.contains(line), "no {line:?} in\n{shown}");
    }
    // As a pod is configured.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("resolv.conf");
    std::fs::write(&file, "search default.svc\nnameserver 10.96.0.10\nnameserver 169.254.20.10\n").expect("written");
    let script = format!("mount --bind {} /etc/resolv.conf && exec {NODENS} verify --from-pod", file.display());
    let output = stage.pods[0].output("unshare", &["--mount", "sh", "-c", &script], "");
    let shown = assert_failed(&output, &[]);
    assert!(shown.contains("✓ 169.254.20.10:53 answers over TCP") && shown.contains("4 checks, all right"), "{shown}");
}

/// In a pod, cluster DNS is not Nodens, however well it answers.
#[test]
fn without_an_agent_a_pod_finds_out_who_answers() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let output = stage.pods[0].output(NODENS, &["verify", "--from-pod", "10.96.0.10"], "");
    assert_failed(&output, &["over UDP: somebody else answered", "over TCP: somebody else answered"]);
}

/// A node where packets to the address are tracked: kube-proxy translates them, whatever an agent says.
#[test]
fn tracked_packets_fail() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let mut status = status_once(&stage, CLUSTER_IPS[0]);
    status["node"]["fallback"] = json!([]);
    let output = verify_pretender(&stage.node, &status);
    let wrong = ["over UDP: somebody else", "over TCP: somebody else", "connection tracking holds nothing of it: "];
    let shown = assert_failed(&output, &wrong);
    assert!(shown.contains(" to 10.96.0.10:53"), "{shown}");
}

#[test]
fn a_fallback_that_is_not_in_the_kernel_fails() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let status = status_once(&stage, OWN_IPS[0]);
    stage.node.nft("delete table inet nodens");
    let output = verify_pretender(&stage.node, &status);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("✗ fallback for 169.254.20.10 is armed: chain inet nodens fallback is missing"), "{shown}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_fallback_whose_servers_are_dead_fails() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let mut config = Config::new();
    // The node itself, where nobody listens.
    config.cluster = vec![SocketAddr::new(NODE, 53)];
    config.addresses = vec![OWN_IPS[0]];
    let agent = Agent::start(&stage.node, &config);
    let output = verify(&stage.node, &agent.socket());
    assert_failed(&output, &["zone .: upstream cluster", "fallback for 169.254.20.10 is armed: none of its servers"]);
}

#[test]
fn a_fallback_without_servers_fails() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let mut config = Config::new().node("interface: lo, interception: auto, lease: 3s");
    config.addresses = vec![OWN_IPS[0]];
    let agent = Agent::start(&stage.node, &config);
    assert_failed(&verify(&stage.node, &agent.socket()), &["fallback for 169.254.20.10 is armed: no servers"]);
}

/// L19: permanent rules leave nobody to fall back to, and the gate says so.
#[test]
fn interception_without_a_fallback_fails() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let config = Config::new().node("interface: lo, interception: iptables, lease: 3s, fallback: cluster");
    let agent = Agent::start(&stage.node, &config);
    // Before its rules were there, its first probes went the way of all packets.
    stage.node.tool("conntrack", &["-F"], "");
    let output = verify(&stage.node, &agent.socket());
    assert_failed(&output, &["the fallback is armed: interception by iptables has none"]);
}

/// What the kernel does not show cannot be vouched for.
#[test]
fn without_the_right_to_look_the_checks_of_the_kernel_fail() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let agent = Agent::start(&stage.node, &Config::new());
    let socket = agent.socket();
    let words = ["--bounding-set=-net_admin", "--inh-caps=-net_admin", "--", NODENS, "verify", "--control"];
    let output = stage.node.output("setpriv", &[&words[..], &[socket.to_str().expect("text")]].concat(), "");
    // Three addresses have a fallback of ours: kube-proxy's IPv6 address cannot be told from our own.
    let wrong = ["connection tracking", "fallback for fd00:10", "fallback for 169", "fallback for fd00:169"];
    assert!(assert_failed(&output, &wrong).contains("ermitted"), "{output:?}");
}
