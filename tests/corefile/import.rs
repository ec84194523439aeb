//! `nodens import`: what is printed is a configuration, and says the same.

use std::process::{Command, Output};

use nodens::config;

use crate::taste;

const FLAGS: &str = "-localip 169.254.20.10,10.96.0.10 -upstreamsvc kube-dns-upstream";

fn import(corefile: &str, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodens"));
    command.args(["import", corefile]).args(flags).env("TEST_UPSTREAM", "10.0.0.1").env("TEST_TTL", "30");
    command.output().expect("cargo built the binary")
}

#[test]
fn every_corefile_becomes_a_legal_configuration_with_what_it_lost_beside_it() {
    for name in taste::all() {
        let output = import(&format!("tests/corefiles/{name}"), &["--flags", FLAGS]);
        let (yaml, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let bad = matches!(name.as_str(), "mistyped" | "rewritten");
        assert_eq!(output.status.code(), Some(i32::from(bad)), "{name}:\n{said}");
        assert_eq!(said.is_empty(), !bad, "{name}:\n{said}");
        if let Err(errors) = config::parse(&yaml, "imported.yaml", &|_| None) {
            panic!("{name}:\n{errors}\n{yaml}");
        }
    }
}

#[test]
fn the_incumbent_s_own_reads_as_people_would_write_it() {
    let output = import("tests/corefiles/incumbent", &["--flags", FLAGS]);
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stdout));
}

#[test]
fn what_is_lost_is_named_with_its_line() {
    let output = import("tests/corefiles/rewritten", &["--flags", FLAGS]);
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_template_without_flags_says_what_is_missing() {
    let output = import("tests/corefiles/incumbent", &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("was left unfilled") && said.contains("-upstreamsvc"), "{said}");
}

#[test]
fn wrong_flags_and_no_file_are_told() {
    let output = import("tests/corefiles/incumbent", &["--flags", "-localip x"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`x` is no IP address"));
    let output = import("tests/corefiles/nothing", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be read"));
}
