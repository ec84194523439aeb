//! Hosts that cannot do all, and hosts where Nodens may do nothing: a clear line, and never half a state.

use std::net::{IpAddr, SocketAddr};
use std::process::Output;

use crate::agent::{Agent, Config};
use crate::eye::{self, Sight};
use crate::stage::servers::Server;
use crate::stage::{CLUSTER_IPS, Flavour, OWN_IPS, Servers, Stage};
use crate::stream::{Load, Transport};

/// `nodens teardown` on the node.
pub fn teardown(stage: &Stage) -> Output {
    let output = stage.node.output(env!("CARGO_BIN_EXE_nodens"), &["teardown"], "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "teardown: {}; it said:\n{said}", output.status);
    output
}

fn all() -> Vec<IpAddr> {
    [CLUSTER_IPS, OWN_IPS].concat()
}

/// L19
#[test]
fn teardown_leaves_nothing() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let before = Sight::of(&stage.node);
    let mut agent = Agent::start(&stage.node, &Config::new());
    agent.kill();
    assert!(!before.differences(&Sight::of(&stage.node)).is_empty(), "the fallback stays");
    teardown(&stage);
    before.assert_same(&Sight::of(&stage.node), "teardown left or took something");
    teardown(&stage);
    before.assert_same(&Sight::of(&stage.node), "a second teardown did something");
}

/// After SIGTERM the fallback, the guard and the addresses stay for the next instance; nothing is intercepted.
#[test]
fn sigterm_leaves_what_the_next_instance_adopts() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let mut agent = Agent::start(&stage.node, &Config::new());
    assert_eq!(eye::leased(&stage.node, "nodens").len(), 4);
    assert_eq!(eye::leased(&stage.node, "nodens_host").len(), 4);
    let mut tables = eye::our_tables(&stage.node);
    tables.sort();
    assert_eq!(tables, ["arp nodens", "inet nodens", "inet nodens_host"]);
    assert!(agent.stop().1.success());
    let mut tables = eye::our_tables(&stage.node);
    tables.sort();
    assert_eq!(tables, ["arp nodens", "inet nodens"], "the owner is gone, and with it its table");
    assert!(eye::leased(&stage.node, "nodens").is_empty());
    assert_eq!(eye::our_addresses(&stage.node).len(), 4);
    for client in [&stage.pods[0], &stage.node] {
        for transport in [Transport::Udp, Transport::Tcp] {
            Load::to(&all()).ask(client, transport, 80).assert_all_by_cluster();
        }
    }
}

/// Rules and addresses that an earlier configuration wanted are gone.
#[test]
fn a_start_with_fewer_addresses_removes_the_others() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let mut agent = Agent::start(&stage.node, &Config::new());
    assert!(agent.stop().1.success());
    let mut config = Config::new();
    config.addresses = vec![OWN_IPS[0]];
    let _agent = Agent::start(&stage.node, &config);
    assert_eq!(eye::our_addresses(&stage.node), [OWN_IPS[0]]);
    assert_eq!(eye::leased(&stage.node, "nodens"), [OWN_IPS[0]]);
    Load::to(&OWN_IPS[..1]).ask(&stage.pods[0], Transport::Udp, 40).assert_all_by_agent();
    Load::to(&CLUSTER_IPS).ask(&stage.pods[0], Transport::Udp, 40).assert_all_by_cluster();
}

/// L02: runs the agent to its end; it must fail, say one line, and leave the node as it was.
fn is_refused(stage: &Stage, config: &Config, rights: &[&str], words: &[&str]) {
    let before = Sight::of(&stage.node);
    let mut agent = Agent::spawn_with(&stage.node, config, rights);
    let status = agent.wait_for_exit();
    let said = agent.said();
    println!("{status}: {said}");
    assert!(!status.success() && status.code().is_some(), "{status}; it said:\n{said}");
    let line = said.lines().last().unwrap_or_default().to_lowercase();
    assert!(words.iter().all(|word| line.contains(&word.to_lowercase())), "{words:?} are not in:\n{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(agent.count_of("nodens:"), 1, "one line:\n{said}");
    before.assert_same(&Sight::of(&stage.node), "it left something");
}

/// L02
#[test]
fn without_net_admin_it_says_so_and_leaves_nothing() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let rights = ["--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    is_refused(&stage, &Config::new(), &rights, &["net_admin"]);
    Load::to(&CLUSTER_IPS).ask(&stage.pods[0], Transport::Udp, 20).assert_all_by_cluster();
}

/// L02
#[test]
fn without_the_right_to_port_53_it_says_so_and_leaves_nothing() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let rights = ["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"];
    is_refused(&stage, &Config::new(), &rights, &["53"]);
}

/// L02
#[test]
fn where_the_port_is_taken_it_says_so_and_leaves_nothing() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let server = Server { listens: SocketAddr::from(([0; 4], 53)), says: [10, 9, 9, 99].into() };
    let _other = Servers::start(&stage.node, vec![server]);
    is_refused(&stage, &Config::new(), &[], &["53", "in use"]);
}

/// L02
#[test]
fn a_bad_node_block_is_refused_before_anything_is_touched() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let before = Sight::of(&stage.node);
    let bad = Config::new().node("interface: lo, interception: sometimes, lease: 3s, fallback: nobody");
    let mut agent = Agent::spawn(&stage.node, &bad);
    let status = agent.wait_for_exit();
    let said = agent.said();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("sometimes") && said.contains("nobody"), "both mistakes, at once:\n{said}");
    before.assert_same(&Sight::of(&stage.node), "it left something");
}

/// L19: the incumbent's rules, as long as the agent runs.
#[test]
fn interception_by_iptables_has_the_twelve_rules_and_removes_them() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    let config = Config::new().node("interface: lo, interception: iptables, lease: 3s, fallback: cluster");
    let before = eye::iptables(&stage.node);
    let mut agent = Agent::start(&stage.node, &config);
    for _ in 0..2 {
        // Before its rules were there, its first probes went the way of all packets.
        stage.node.tool("conntrack", &["-F"], "");
        let rules = eye::iptables(&stage.node);
        for ip in all() {
            let count =
                rules.iter().filter(|line| line.contains(&format!(" {ip}/"))).filter(|it| !it.contains("KUBE")).count();
            assert_eq!(count, 12, "{ip}: {rules:#?}");
        }
        for client in [&stage.pods[0], &stage.node] {
            for transport in [Transport::Udp, Transport::Tcp] {
                Load::to(&all()).ask(client, transport, 40).assert_all_by_agent();
            }
        }
        assert_eq!(eye::tracked(&stage.node), [""; 0]);
        // Killed, it leaves them; the next one finds them and adds nothing.
        agent.kill();
        agent = Agent::start(&stage.node, &config);
    }
    assert!(agent.stop().1.success(), "{}", agent.said());
    assert_eq!(eye::iptables(&stage.node), before);
    Load::to(&CLUSTER_IPS).ask(&stage.pods[0], Transport::Udp, 40).assert_all_by_cluster();
}

/// L19: IPVS answers for the Service itself.
#[test]
fn where_kube_ipvs0_has_the_cluster_ip_only_our_own_addresses_are_served() {
    only_our_own("link add kube-ipvs0 type bridge\naddress add 10.96.0.10/32 dev kube-ipvs0", "ipvs");
}

/// L19: an eBPF kube-proxy translates before netfilter sees anything.
#[test]
fn where_cilium_replaces_kube_proxy_only_our_own_addresses_are_served() {
    only_our_own("link add cilium_host type veth peer name cilium_net\nlink set cilium_host up", "cilium");
}

fn only_our_own(host: &str, word: &str) {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    stage.node.ip(host);
    let mut config = Config::new();
    config.addresses = vec![CLUSTER_IPS[0], OWN_IPS[0]];
    let agent = Agent::start(&stage.node, &config);
    assert_eq!(eye::leased(&stage.node, "nodens"), [OWN_IPS[0]], "{}", agent.said());
    let warned = agent.said().lines().filter(|line| line.contains("WARN") && line.contains(word)).count();
    assert_eq!(warned, 1, "one line says so:\n{}", agent.said());
    let on_lo = eye::addresses(&stage.node).iter().any(|(link, ip)| link == "lo" && *ip == CLUSTER_IPS[0]);
    assert!(!on_lo, "{:?}", Sight::of(&stage.node));
    Load::to(&OWN_IPS[..1]).ask(&stage.pods[0], Transport::Udp, 40).assert_all_by_agent();
}
