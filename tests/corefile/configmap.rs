//! The ConfigMaps change, for better or worse, and nothing stops. incumbent.md section 1.6.

use std::fs;
use std::sync::Arc;

use crate::process::{NodeCache, moved};
use crate::support::client::ask;
use crate::support::octets::{A, REFUSED};
use crate::support::upstream::{Upstream, encoded};

#[test]
fn a_stub_domain_is_in_force_when_it_is_written() {
    let agent = NodeCache::start("incumbent", &[]);
    let stub = Upstream::new(encoded(60));
    let text = format!("{{\"acme.test\": [\"{}\"]}}", stub.address());
    agent.replace("kube-dns/stubDomains", text.as_bytes(), "reloaded");
    ask(agent.at(), "www.acme.test", A).assert_encodes("www.acme.test");
    assert_eq!((stub.count_of("www.acme.test", A), agent.node.count_of("www.acme.test", A)), (1, 0));
    let kept = fs::read_to_string(agent.folder().join("Corefile")).expect("what is in force is written down");
    assert!(kept.contains("acme.test:5300 {") && !kept.contains("__PILLAR__"), "{kept}");
}

#[test]
fn a_stub_domain_that_has_a_block_already_changes_nothing() {
    let agent = NodeCache::start("incumbent", &[]);
    agent.replace("kube-dns/stubDomains", b"{\"cluster.local\": [\"10.0.0.1\"]}", "reloaded");
    ask(agent.at(), "a.cluster.local", A).assert_encodes("a.cluster.local");
    assert!(agent.said().contains("left out"), "{}", agent.said());
}

#[test]
fn a_bad_configmap_stops_neither_what_runs_nor_what_starts() {
    let agent = NodeCache::start("incumbent", &[]);
    for bad in [&b"\xff\xfe\x00"[..], b"{", b"{\"acme.test\": [\"dns.example\"]}", b"{\"a.test\": []}"] {
        agent.replace("kube-dns/stubDomains", bad, "ConfigMap is refused");
        ask(agent.at(), "a.example.org", A).assert_encodes("a.example.org");
    }
    let agent = NodeCache::again(&agent);
    assert!(agent.wait_for(0, "serving").is_some(), "{}", agent.said());
    assert!(agent.said().contains("ConfigMap is refused"), "{}", agent.said());
    ask(agent.at(), "a.cluster.local", A).assert_encodes("a.cluster.local");
}

#[test]
fn a_bad_template_stops_neither_what_runs_nor_what_starts() {
    let agent = NodeCache::start("incumbent", &[]);
    agent.replace("Corefile.base", b".:5300 {\n  forwrd . 10.0.0.1\n}\n", "reload refused");
    ask(agent.at(), "a.cluster.local", A).assert_encodes("a.cluster.local");
    // What was last accepted is kept at -conf.
    let agent = NodeCache::again(&agent);
    assert!(agent.wait_for(0, "serving").is_some(), "{}", agent.said());
    assert!(agent.said().contains("`forwrd` is no plugin"), "{}", agent.said());
    ask(agent.at(), "b.cluster.local", A).assert_encodes("b.cluster.local");
    // And the template is taken again as soon as it is right.
    agent.replace(
        "Corefile.base",
        moved("cluster.local:53 {\n bind __PILLAR__LOCAL__DNS__\n forward . __PILLAR__CLUSTER__DNS__\n}\n", agent.at())
            .as_bytes(),
        "reloaded",
    );
    ask(agent.at(), "example.org", A).assert_rcode(REFUSED);
}

#[test]
fn an_imported_file_is_followed() {
    let agent = NodeCache::start("environment", &[]);
    agent.replace("parts/deeper", b"cahce 30\n", "reload refused");
    assert!(agent.said().contains("deeper:1: `cahce` is no plugin"), "{}", agent.said());
    // One that comes is noticed too.
    agent.replace("parts/deeper", b"bufsize 1232\n", "reloaded");
    agent.replace("parts/20-more.override", b"template ANY ANY gone.test {\n rcode REFUSED\n}\n", "reloaded");
    ask(agent.at(), "x.gone.test", A).assert_rcode(REFUSED);
}

#[test]
fn servers_of_the_users_own_are_asked_over_udp_although_the_template_says_tcp() {
    let agent = NodeCache::start("incumbent", &[]);
    let template = "\
.:53 {
    bind __PILLAR__LOCAL__DNS__
    forward . __PILLAR__UPSTREAM__SERVERS__ {
            force_tcp
    }
}
";
    let node = Arc::clone(&agent.node);
    agent.replace("Corefile.base", moved(template, agent.at()).as_bytes(), "reloaded");
    ask(agent.at(), "udp.test", A).assert_encodes("udp.test");
    let seen = node.seen_of("udp.test", A);
    assert!(seen.iter().all(|query| query.transport == crate::support::upstream::Transport::Udp), "{seen:?}");
}
