//! The file as it comes and goes: swapped as the kubelet does it, torn, empty, huge, binary, gone.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::agent::{Agent, Reload};
use crate::support::client::ask;
use crate::support::config::Config;
use crate::support::octets::{A, NXDOMAIN};
use crate::support::upstream::{Upstream, encoded};

/// Makes a version of the ConfigMap's volume and swaps `..data` to it, as the kubelet's atomic writer does.
fn swap(volume: &Path, version: &str, yaml: &str) {
    let before = fs::read_link(volume.join("..data")).ok();
    let folder = volume.join(format!("..2026_11_21_{version}"));
    fs::create_dir(&folder).expect("the folder is ours");
    fs::write(folder.join("nodens.yaml"), yaml).expect("the folder is ours");
    symlink(folder.file_name().expect("it has one"), volume.join("..data_tmp")).expect("the folder is ours");
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("the folder is ours");
    if let Some(before) = before {
        fs::remove_dir_all(volume.join(before)).expect("the folder is ours");
    }
}

// Issue 4: ConfigMap updates, exactly as the kubelet makes them; nobody sends a signal.
#[test]
fn an_updated_configmap_is_in_force_without_a_signal() {
    let upstream = Upstream::new(encoded(60));
    let config = Config::new(&upstream);
    let agent = Agent::spawn_on(&config, |file, yaml| {
        let volume = file.parent().expect("in a folder");
        swap(volume, "00", yaml);
        symlink("..data/nodens.yaml", file).expect("the folder is ours");
    });
    agent.wait_for_line("serving");
    let config = agent.config().clone();
    let file = agent.file();
    let volume = file.parent().expect("in a folder");
    for version in 1..6 {
        let zone = format!("v{version}.test");
        let seen = agent.lines_said();
        swap(volume, &format!("{version:02}"), &config.clone().zone(&zone, "{ answer: nxdomain }").yaml());
        assert_eq!(agent.verdict_from(seen), Reload::Done);
        ask(agent.addr(), &format!("a.{zone}"), A).assert_rcode(NXDOMAIN);
    }
    let seen = agent.lines_said();
    swap(volume, "bad", "zones: [");
    assert_eq!(agent.verdict_from(seen), Reload::Refused);
    ask(agent.addr(), "a.v5.test", A).assert_rcode(NXDOMAIN);
}

// Bad input: one clear line each, counted, and the old plan runs on.
#[test]
fn a_file_that_is_no_configuration_is_one_line_and_the_agent_goes_on() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream).metrics());
    let good = agent.config().yaml();
    let huge = format!("# {}\n{good}", "x".repeat(32 << 20));
    let torn = &good[..good.len() / 2];
    let cases: [&[u8]; 5] =
        [torn.as_bytes(), b"", huge.as_bytes(), &[0xff, 0xfe, 0, 1, 2, 3, 0x80], b"%PDF-1.7\n\x00\x01"];
    for (nth, octets) in cases.iter().enumerate() {
        let rss = agent.rss();
        let seen = agent.lines_said();
        agent.replace_file(octets);
        assert_eq!(agent.verdict_from(seen), Reload::Refused, "case {nth}");
        ask(agent.addr(), "a.test", A).assert_encodes("a.test");
        assert_eq!(agent.metric("nodens_config_reloads_total", "rejected").to_string(), (nth + 1).to_string());
        assert!(agent.rss() < rss + (8 << 20), "a file is read up to a bound");
    }
    // Gone: nothing happens by itself, for it may be about to be replaced; who insists is told.
    fs::remove_file(agent.file()).expect("it is there");
    let seen = agent.lines_said();
    agent.signal("HUP");
    assert_eq!(agent.verdict_from(seen), Reload::Refused);
    assert!(agent.said().contains("No such file"), "{}", agent.said());
    let seen = agent.lines_said();
    agent.replace_file(good.as_bytes());
    assert_eq!(agent.verdict_from(seen), Reload::Done);
}
