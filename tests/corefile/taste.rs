//! Every Corefile of `tests/corefiles` starts and serves as it says, or is refused with the right lines.

use std::fs;

use crate::process::NodeCache;
use crate::support::client::ask;
use crate::support::octets::{A, AAAA, NXDOMAIN, REFUSED};

/// Those that are refused, with the lines that are to blame.
const REFUSED_AT: [(&str, &[usize]); 2] = [("mistyped", &[3, 5, 7]), ("rewritten", &[3, 7])];

fn is_refused(name: &str) -> bool {
    REFUSED_AT.iter().any(|(known, _)| *known == name)
}

/// The names of all Corefiles.
pub fn all() -> Vec<String> {
    let entries = fs::read_dir("tests/corefiles").expect("it belongs to the repository");
    let files = entries.map(|entry| entry.expect("it can be listed")).filter(|entry| entry.path().is_file());
    files.map(|entry| entry.file_name().into_string().expect("names are text")).collect()
}

#[test]
fn every_good_one_serves_the_cluster_and_asks_whom_it_says() {
    let names = all();
    assert!(names.len() >= 13, "{names:?}");
    for name in names.iter().filter(|name| !is_refused(name)) {
        let agent = NodeCache::start(name, &[]);
        let zone = match name.as_str() {
            "layout" => "a.test",
            _ => "cluster.local",
        };
        let question = format!("web.default.{zone}");
        ask(agent.at(), &question, A).assert_encodes(&question);
        assert_eq!(agent.cluster.questions_of(&question, A).len(), 1, "{name}");
        agent.stop();
    }
}

#[test]
fn everything_else_goes_to_the_node_s_servers() {
    for name in ["incumbent", "deliveryhero", "expire-and-stub"] {
        let agent = NodeCache::start(name, &[]);
        ask(agent.at(), "example.org", A).assert_encodes("example.org");
        assert_eq!((agent.node.count_of("example.org", A), agent.cluster.count_of("example.org", A)), (1, 0), "{name}");
    }
}

#[test]
fn every_bad_one_is_refused_at_its_lines() {
    for (name, lines) in REFUSED_AT {
        let agent = NodeCache::spawn(name, &[]);
        assert_eq!(agent.wait_for_exit().code(), Some(1), "{name}");
        let said = agent.said();
        let blamed: Vec<usize> = said
            .lines()
            .filter_map(|line| line.split_once("Corefile.base:")?.1.split(':').next()?.parse().ok())
            .collect();
        assert_eq!(blamed, lines, "{name}:\n{said}");
    }
}

#[test]
fn search_list_noise_missing_zones_and_pins_are_answered_here() {
    let agent = NodeCache::start("home-lab", &[]);
    let at = agent.at();
    ask(at, "a.b.viktorbarzin.test", A).assert_rcode(NXDOMAIN);
    ask(at, "a.viktorbarzin.test", A).assert_encodes("a.viktorbarzin.test");
    ask(at, "x.emrsn.test", A).assert_rcode(NXDOMAIN);
    ask(at, "forgejo.viktorbarzin.test", A).assert_address([10, 97, 4, 20]);
    ask(at, "a.nowhere.test", A).assert_rcode(REFUSED);
}

#[test]
fn templates_answer_with_addresses_and_strip_others() {
    let agent = NodeCache::start("answers", &[]);
    let at = agent.at();
    ask(at, "x.pinned.test", A).assert_address([10, 0, 0, 9]);
    ask(at, "example.org", AAAA).assert_nodata();
    ask(at, "x.refused.test", A).assert_rcode(REFUSED);
}

#[test]
fn zones_without_a_block_are_refused() {
    let agent = NodeCache::start("only-cluster", &[]);
    ask(agent.at(), "example.org", A).assert_rcode(REFUSED);
}

#[test]
fn what_differs_is_in_the_log() {
    let agent = NodeCache::start("serve-stale", &[]);
    for word in ["TTL of 30s", "counts once", "keepttl", "lameduck"] {
        assert!(agent.said().contains(word), "{word}:\n{}", agent.said());
    }
}
