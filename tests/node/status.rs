//! What an operator is shown of a node: lease, mode, rules, drift.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::agent::{Agent, Config, LIMIT};
use crate::eye;
use crate::stage::{Flavour, Namespace, OWN_IPS, Stage};
use crate::stream::wait_until;

/// What `nodens status --json` says of the node.
fn node_of(agent: &Agent) -> Value {
    status_of(agent)["node"].take()
}

/// What `nodens status --json` says.
pub fn status_of(agent: &Agent) -> Value {
    let socket = agent.socket();
    let arguments = ["status", "--json", "--control", socket.to_str().expect("text")];
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_nodens")).args(arguments).output();
    let output = output.expect("the binary of this crate");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What the page `/debug/node` shows.
fn page_of(node: &Namespace) -> Value {
    node.run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9254").expect("the agent listens");
        stream.write_all(b"GET /debug/node HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        let (from, to) = (body.find('{').expect("an object"), body.rfind('}').expect("an object"));
        serde_json::from_str(&body[from..=to]).unwrap_or_else(|error| panic!("{error}:\n{body}"))
    })
}

fn texts(list: &Value) -> Vec<String> {
    let mut all: Vec<String> =
        list.as_array().expect("a list").iter().map(|it| it.to_string().replace('"', "")).collect();
    all.sort();
    all
}

#[test]
fn status_and_debug_page_show_lease_mode_rules_and_fallback() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let agent = Agent::start(&stage.node, &Config::new());
    // The tables are shown as the last renewal found them, the first one finds none.
    let leased =
        wait_until(LIMIT, || node_of(&agent)["tables"][0]["leased"].as_array().is_some_and(|it| it.len() == 4));
    let node = node_of(&agent);
    assert!(leased.is_some(), "{node:#}");
    for shown in [&node, &page_of(&stage.node)] {
        assert_eq!((&shown["mode"], &shown["intercepting"]), (&"nftables".into(), &true.into()), "{shown:#}");
        assert_eq!((shown["lease_seconds"].as_f64(), &shown["link"]), (Some(3.0), &"lo".into()), "{shown:#}");
        assert!(shown["since_seconds"].as_f64().is_some_and(|it| it < LIMIT.as_secs_f64()), "{shown:#}");
        let mut own: Vec<String> = eye::our_addresses(&stage.node).iter().map(ToString::to_string).collect();
        own.sort();
        assert_eq!(texts(&shown["addresses"]), own);
        let tables = shown["tables"].as_array().expect("a list");
        let mut names: Vec<&str> = tables.iter().filter_map(|it| it["name"].as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["arp nodens", "inet nodens", "inet nodens_host"]);
        assert!(tables.iter().all(|it| it["rules"].as_u64().is_some_and(|count| count > 0)), "{shown:#}");
        let fallback = shown["fallback"].as_array().expect("a list");
        let of_ours = fallback.iter().find(|it| it["address"] == OWN_IPS[0].to_string()).expect("ours is in it");
        assert_eq!(texts(&of_ours["servers"]), ["10.244.9.2:53", "10.244.9.3:53", "10.244.9.4:53"]);
        assert_eq!((&shown["repaired"]["tables"], &shown["repaired"]["last"]), (&0.into(), &Value::Null), "{shown:#}");
    }
}

/// L10
#[test]
fn status_shows_what_drifted_and_was_repaired() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let agent = Agent::start(&stage.node, &Config::new());
    stage.node.nft("flush chain inet nodens prerouting");
    let repaired = wait_until(LIMIT, || node_of(&agent)["repaired"]["tables"] == 1);
    let node = node_of(&agent);
    assert!(repaired.is_some(), "{node:#}");
    let last = &node["repaired"]["last"];
    assert!(last["what"].as_str().is_some_and(|it| it.contains("prerouting")), "{last}");
    assert!(last["seconds_ago"].as_f64().is_some_and(|it| it < LIMIT.as_secs_f64()), "{last}");
    stage.node.ip("address del 10.96.0.10/32 dev lo");
    let repaired = wait_until(LIMIT, || node_of(&agent)["repaired"]["link"] == 1);
    assert!(repaired.is_some(), "{:#}", node_of(&agent));
    let incidents = status_of(&agent)["incidents"].take();
    let what: Vec<&str> = incidents.as_array().expect("a list").iter().filter_map(|it| it["what"].as_str()).collect();
    assert_eq!(what, ["repaired", "repaired", "intercepting"], "newest first: {incidents:#}");
}

/// L19: where interception is degraded, the status says how and why.
#[test]
fn status_shows_what_this_host_lacks() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let config = Config::new().node("interface: lo, interception: iptables, lease: 3s, fallback: cluster");
    let agent = Agent::start(&stage.node, &config);
    let node = node_of(&agent);
    assert_eq!((&node["mode"], &node["degraded"][0]["reason"]), (&"iptables".into(), &"iptables".into()), "{node:#}");
    assert!(node["degraded"][0]["words"].as_str().is_some_and(|it| it.contains("killed")), "{node:#}");
}
