//! Scenarios: what the agent does, told in files, played with a clock that is moved by hand. See README.md.
//!
//! `SCENARIO=text cargo test --test scenarios` plays only those whose file name contains the text.

mod client;
mod message;
mod player;
mod reply;
mod script;
mod world;

use std::fs;
use std::path::{Path, PathBuf};

use player::{Failure, Trouble, play};

/// The folders; a test for each.
const FOLDERS: &[&str] = &["cache", "coalescing", "edns", "failover", "local", "stale", "strip"];

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// The scenarios of a folder, by name.
fn scenarios(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in fs::read_dir(home().join(folder)).expect("a folder of scenarios") {
        let path = file.expect("readable").path();
        let name = format!("{folder}/{}", path.file_name().expect("a file").to_string_lossy());
        found.push((name, fs::read_to_string(&path).expect("text")));
    }
    found.sort();
    found
}

fn all_hold(folder: &str) {
    let wanted = std::env::var("SCENARIO").unwrap_or_default();
    let all = scenarios(folder);
    assert!(!all.is_empty(), "no scenario in {folder}");
    let failures: Vec<String> = all
        .iter()
        .filter(|(name, _)| name.contains(&wanted))
        .filter_map(|(name, text)| play(&format!("tests/scenarios/{name}"), text).err())
        .map(|failure| failure.to_string())
        .collect();
    assert!(failures.is_empty(), "{} of {} scenarios fail:\n\n{}", failures.len(), all.len(), failures.join("\n"));
}

#[test]
fn scenarios_of_the_cache_hold() {
    all_hold("cache");
}

#[test]
fn scenarios_of_coalescing_hold() {
    all_hold("coalescing");
}

#[test]
fn scenarios_of_edns_hold() {
    all_hold("edns");
}

#[test]
fn scenarios_of_failover_and_routing_hold() {
    all_hold("failover");
}

#[test]
fn scenarios_of_answers_made_here_hold() {
    all_hold("local");
}

#[test]
fn scenarios_of_stale_answers_hold() {
    all_hold("stale");
}

#[test]
fn scenarios_of_stripping_hold() {
    all_hold("strip");
}

/// A file nobody plays would look like a promise kept.
#[test]
fn every_folder_and_file_is_played() {
    for entry in fs::read_dir(home()).expect("our own folder") {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            assert!(FOLDERS.contains(&name.as_str()), "{name} is played by no test");
        } else {
            let known = path.extension().is_some_and(|it| it == "rs" || it == "md");
            assert!(known, "{name} belongs into a folder");
        }
    }
    for (name, _) in FOLDERS.iter().flat_map(|folder| scenarios(folder)) {
        assert!(Path::new(&name).extension().is_some_and(|it| it == "scenario"), "{name}: what is it?");
    }
}

// === the runner itself: a scenario that does not hold says where and why ===

fn fails(text: &str) -> Failure {
    play("a.scenario", text).expect_err("this scenario must not hold")
}

/// A scenario in which a name was asked for and answered.
const PRIMED: &str =
    "# C01: a test of the runner\nask a.test A\nu1 gets a.test A\nu1 answers NOERROR a=192.0.2.7 ttl=60\n";

#[test]
fn a_line_that_cannot_be_read_is_reported_with_its_number() {
    for (line, text, why) in [
        (1, "at 0s ask a.test A\n", "begins with"),
        (2, "# C01: x\nask a.test\n", "NAME TYPE"),
        (4, "# C01: x\n\nask a.test A\nu1 answers noerror\n", "no rcode"),
        (2, "# C01: x\nask a.test A ttl=4\n", "not known here"),
        (2, "# C01: x\nat 5x ask a.test A\n", "no time"),
        (3, "# C01: x\nask a.test A\nrepeat 3\nask b.test A\n", "has no `end`"),
        (2, "# C01: x\nu1 is tired\n", "no step begins like this"),
    ] {
        let failure = fails(text);
        let Trouble::Wrong(got) = &failure.trouble else { panic!("{failure}") };
        assert!(got.contains(why), "{failure}");
        assert_eq!(failure.line, line, "{failure}");
    }
}

#[test]
fn a_configuration_with_a_mistake_is_reported_in_its_own_words() {
    let failure = fails("# C01: x\nconfig:\n  zones: { '.': { upstream: nobody } }\nask a.test A\n");
    assert!(failure.to_string().contains("there is no upstream `nobody`"), "{failure}");
}

#[test]
fn a_wrong_reply_is_shown_beside_the_expected_one() {
    let failure = fails(&format!("{PRIMED}reply NOERROR a=192.0.2.8\n"));
    assert_eq!((failure.line, failure.text.as_str()), (5, "reply NOERROR a=192.0.2.8"));
    let Trouble::Differs { expected, got } = &failure.trouble else { panic!("{failure}") };
    assert_eq!(expected, "a=192.0.2.8");
    assert!(got.contains("a.test. 60 A 192.0.2.7"), "{got}");
}

#[test]
fn records_that_are_not_listed_are_too_many() {
    assert!(play("a.scenario", &format!("{PRIMED}reply NOERROR\nanswer @ 60 A 192.0.2.7\n")).is_ok());
    let failure = fails(&format!("{PRIMED}reply NOERROR\nauthority test. 60 SOA *\n"));
    assert!(failure.to_string().contains("Answer without a.test. 60 A 192.0.2.7"), "{failure}");
}

#[test]
fn what_the_scenario_does_not_speak_of_must_not_happen() {
    let unspoken = fails(&format!("{PRIMED}at 1s\n"));
    assert!(unspoken.to_string().contains("expected: nothing else"), "{unspoken}");
    let on_the_way = fails("# Q02: x\nask a.test A\nu1 gets a.test A\nat 1s\n");
    assert!(on_the_way.to_string().contains("at 400ms u1 gets a.test. A again"), "{on_the_way}");
    let at_the_end = fails("# Q02: x\nu1 is silent\nask a.test A\n");
    assert_eq!(at_the_end.text, "the end");
}

#[test]
fn the_clock_does_not_go_back() {
    let failure = fails("# C01: x\nat 5s\nat 4s\n");
    assert_eq!(failure.line, 3);
    assert!(failure.to_string().contains("shows 5s already"), "{failure}");
}
