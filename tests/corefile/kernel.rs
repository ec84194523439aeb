//! The flags that change the host, in a network namespace of the process's own.

use std::process::{Command, Stdio};

use crate::process::{DNS, NodeCache};

/// Runs what follows in a network namespace with a loopback.
const APART: [&str; 5] = ["unshare", "-n", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""];

fn inside(agent: &NodeCache, command: &[&str]) -> String {
    let output = Command::new("nsenter").args(["-t", &agent.pid().to_string(), "-n"]).args(command).output();
    String::from_utf8_lossy(&output.expect("util-linux has nsenter").stdout).into_owned()
}

// incumbent.md section 1.1: two families are fatal to it, and so is an interval of 10s
#[test]
fn both_families_are_put_on_the_host_and_intercepted() {
    let tried = Command::new(APART[0]).args(&APART[1..]).arg("true").stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no network namespaces");
        return;
    }
    let addresses = ["169.254.20.10", "fd00::a"];
    let localip = format!("-localip={}", addresses.join(","));
    let flags = [localip.as_str(), "-setupinterface=true", "-setupiptables=true"];
    let agent = NodeCache::spawn_behind(&APART, "answers", &flags);
    // What is intercepted is answered, or the lease would not be held.
    assert!(agent.wait_for(0, "intercepting").is_some(), "{}", agent.said());
    let on_host = inside(&agent, &["ip", "-br", "address"]);
    for address in addresses {
        assert!(on_host.contains(address), "{on_host}");
        let asked = ["dig", &format!("@{address}"), "-p", &DNS.to_string(), "+short", "x.pinned.test"];
        assert_eq!(inside(&agent, &asked).trim(), "10.0.0.9", "{address}:\n{}", agent.said());
    }
    assert!(inside(&agent, &["nft", "list", "tables"]).contains("nodens"), "{}", agent.said());
    agent.stop();
}
