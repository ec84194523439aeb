//! Hosts that cannot do all, and hosts where Nodens may do nothing: a clear line, and never half a state.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::{Output, Stdio};

use crate::agent::{Agent, Config, LIMIT};
use crate::eye::{self, Sight};
use crate::stage::servers::Server;
use crate::stage::{CLUSTER_IPS, Flavour, OWN_IPS, Servers, Stage};
use crate::stream::{Load, Transport, wait_until};

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
    fails_in_one_line(stage, config, rights, words);
    before.assert_same(&Sight::of(&stage.node), "it left something");
}

fn fails_in_one_line(stage: &Stage, config: &Config, rights: &[&str], words: &[&str]) {
    let mut agent = Agent::spawn_with(&stage.node, config, rights);
    let status = agent.wait_for_exit();
    let said = agent.said();
    println!("{status}: {said}");
    assert!(!status.success() && status.code().is_some(), "{status}; it said:\n{said}");
    let line = said.lines().last().unwrap_or_default().to_lowercase();
    assert!(words.iter().all(|word| line.contains(&word.to_lowercase())), "{words:?} are not in:\n{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(agent.count_of("nodens:"), 1, "one line:\n{said}");
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

/// L02: a link of that name is somebody else's.
#[test]
fn a_link_of_another_kind_is_refused_and_left_alone() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let config = Config::new().node("interface: uplink0, interception: auto, lease: 3s, fallback: cluster");
    is_refused(&stage, &config, &[], &["uplink0", "veth", "not ours to use"]);
}

/// L02: the tables are another program's as long as its socket is open. `nft` holds them until its standard input ends.
#[test]
fn where_another_program_owns_a_table_of_our_name_it_says_so_and_leaves_nothing() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    for table in ["inet nodens", "arp nodens"] {
        let mut owner = stage.node.start("nft", |command| {
            command.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        });
        let mut words = owner.stdin.take().expect("stdin is piped");
        writeln!(words, "add table {table} {{ flags owner; }}").expect("nft reads");
        let there = || stage.node.tool("nft", &["list", "tables"], "").contains(table);
        assert!(wait_until(LIMIT, there).is_some(), "nft took no table {table}");
        // In other words than Sight's: `nft -j` 1.0.6 prints nothing at all about tables owned by nft.
        let tables = || (stage.node.tool("nft", &["list", "tables"], ""), eye::addresses(&stage.node));
        let before = tables();
        fails_in_one_line(&stage, &Config::new(), &[], &[table, "another program owns"]);
        assert_eq!(tables(), before, "it left something");
        drop(words);
        owner.wait().expect("nft ends with its input");
    }
    let agent = Agent::start(&stage.node, &Config::new());
    assert_eq!(eye::leased(&stage.node, "nodens").len(), 4, "{}", agent.said());
}

/// Leaves no room in the hook `input` for another chain; a hook has room for about a thousand.
fn fill_the_input_hook(stage: &Stage) {
    let chain = |number: u32| format!("add chain ip full c{number} {{ type filter hook input priority {number}; }}\n");
    let many: String = (1_000..2_000).map(chain).collect();
    stage.node.nft(&format!("add table ip full\n{many}"));
    let refused = (2_000..2_100).any(|number| {
        let output = stage.node.output("nft", &["-f", "-"], &chain(number));
        !output.status.success()
    });
    assert!(refused, "the kernel has no bound");
}

/// L02: the kernel takes the addresses and refuses the tables: the guard's chain is the one too many, which only the
/// transaction as a whole finds out.
#[test]
fn where_the_kernel_refuses_the_tables_the_addresses_go_too() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    fill_the_input_hook(&stage);
    is_refused(&stage, &Config::new(), &[], &["nftables", "guard", "too long"]);

    // What an earlier life left stays, whatever becomes of a later start: it is what answers.
    stage.node.nft("delete table ip full");
    assert!(Agent::start(&stage.node, &Config::new()).stop().1.success());
    stage.node.nft("delete chain inet nodens guard");
    fill_the_input_hook(&stage);
    is_refused(&stage, &Config::new(), &[], &["nftables", "guard", "too long"]);
    assert_eq!(eye::our_addresses(&stage.node).len(), 4);
    Load::to(&all()).ask(&stage.pods[0], Transport::Udp, 40).assert_all_by_cluster();
}

/// L02: the kernel takes some of the addresses.
#[test]
fn where_an_address_is_refused_those_before_it_go_too() {
    let Some(stage) = Stage::build(Flavour::Iptables) else { return };
    stage.node.sysctl("net/ipv6/conf/lo/disable_ipv6", "1");
    is_refused(&stage, &Config::new(), &[], &["put fd00:10:96::a on the link `lo`", "disable_ipv6"]);
    Load::to(&CLUSTER_IPS[..1]).ask(&stage.pods[0], Transport::Udp, 20).assert_all_by_cluster();
}

/// L02
#[test]
fn teardown_without_net_admin_says_so_and_removes_nothing() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let mut agent = Agent::start(&stage.node, &Config::new());
    assert!(agent.stop().1.success());
    let before = Sight::of(&stage.node);
    let words = ["--bounding-set=-net_admin", "--inh-caps=-net_admin", env!("CARGO_BIN_EXE_nodens"), "teardown"];
    let output = stage.node.output("setpriv", &words, "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().count() == 1 && said.contains("CAP_NET_ADMIN"), "one line with the remedy:\n{said}");
    before.assert_same(&Sight::of(&stage.node), "it removed something");
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
