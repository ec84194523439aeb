//! Called as `node-cache`: the real program with other people's Corefiles, flags and ConfigMaps, on loopback.
//!
//! The Corefiles are in `tests/corefiles`: the incumbent's own, kubespray's, the deliveryhero chart's, and others of varied
//! taste. Their ports are moved away from 53, and what listens everywhere listens on the test's own address.

#[allow(dead_code, reason = "the harness of the loopback tests has more than is needed here")]
#[path = "loopback/support/mod.rs"]
mod support;

#[path = "corefile/configmap.rs"]
mod configmap;
#[path = "corefile/import.rs"]
mod import;
#[path = "corefile/kernel.rs"]
mod kernel;
#[path = "corefile/process.rs"]
mod process;
#[path = "corefile/taste.rs"]
mod taste;

use process::{NodeCache, node_cache};
use support::agent::http_get;
use support::client::ask;
use support::octets::A;

// incumbent.md section 1.8: the manifest's flags, and what is looked at from outside
#[test]
fn the_manifest_s_set_up_has_its_health_its_metrics_and_its_pid_file() {
    let agent = NodeCache::start("incumbent", &[]);
    ask(agent.at(), "a.cluster.local", A).assert_encodes("a.cluster.local");
    let (address, folder) = (agent.at().ip(), agent.folder());
    for (port, path) in [(8080, "/health"), (9253, "/metrics"), (9353, "/metrics")] {
        let (head, _) = http_get((address, port).into(), path);
        assert!(head.contains(" 200 "), "{port}{path}: {head}");
    }
    let pid = std::fs::read_to_string(folder.join("pid")).expect("it is written when it serves");
    assert_eq!(pid.trim(), agent.pid().to_string());
    agent.stop();
    assert!(!folder.join("pid").exists(), "a PID file ends with its process");
}

// Without the right to intercept, node-cache logs that and serves.
#[test]
fn without_rights_to_the_host_it_serves_all_the_same() {
    let Some(agent) = NodeCache::start_without_rights("one-server") else { return };
    assert!(agent.said().contains("traffic is not intercepted"), "{}", agent.said());
    ask(agent.at(), "a.cluster.local", A).assert_encodes("a.cluster.local");
}

#[test]
fn a_hard_link_is_node_cache_too() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let link = folder.path().join("node-cache");
    if std::fs::hard_link(env!("CARGO_BIN_EXE_nodens"), &link).is_err() {
        eprintln!("SKIPPED: no hard links here");
        return;
    }
    let output = std::process::Command::new(link).arg("-version").output().expect("it runs");
    assert!(String::from_utf8_lossy(&output.stdout).contains("node-cache"));
}

#[test]
fn flags_that_ask_for_something_else_print_it() {
    let printed = |flag: &str| {
        let output = node_cache(&[flag]);
        assert_eq!(output.status.code(), Some(0), "{flag}");
        String::from_utf8(output.stdout).expect("it prints text")
    };
    assert!(printed("-version").contains(env!("CARGO_PKG_VERSION")));
    assert!(printed("-plugins").contains("dns.forward"));
    assert!(printed("-help").contains("-basecorefile"));
}

#[test]
fn impossible_flags_are_refused_by_name() {
    let output = node_cache(&["-localip", "10.0.0.300", "-upstreamscv", "-p=x"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    for word in ["10.0.0.300", "did you mean -upstreamsvc?", "-p: `x` is no port"] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn without_any_corefile_it_says_where_it_looked() {
    let output = node_cache(&["-localip", "127.0.0.1", "-basecorefile", "/nowhere/base", "-conf", "/nowhere/conf"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/conf: this file cannot be read"));
}

// incumbent.md section 1.5
#[test]
fn sigusr1_reloads_and_sigquit_ends() {
    let agent = NodeCache::start("one-server", &[]);
    let seen = agent.lines();
    agent.signal("USR2");
    agent.signal("USR1");
    assert!(agent.wait_for(seen, "reloaded").is_some(), "{}", agent.said());
    agent.signal("QUIT");
    assert_eq!(agent.wait_for_exit().code(), Some(0));
}
