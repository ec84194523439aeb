//! `nodens check`: what it says of broken files, of good ones, and of anything else.
//!
//! Each file in `tests/broken` has a snapshot of the message: where, what, how to mend. After a change of the wording,
//! `INSTA_UPDATE=always cargo test --test check` writes them anew, and the diff shows what people will read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nodens::config::{self, ConfigErrors};
use nodens::plan::{Action, Members, Plan};
use proptest::prelude::*;

#[test]
fn every_broken_file_is_told_where_what_and_how_to_mend() {
    let files = files_in("tests/broken");
    assert!(files.len() >= 30, "{} files", files.len());
    for path in files {
        let errors = config::load(&path, &no_environment).expect_err("the file is broken");
        for mistake in errors.mistakes() {
            assert!(!mistake.what.is_empty() && !mistake.remedy.is_empty(), "{mistake:?}");
        }
        let name = path.file_stem().expect("files in the folder have names").to_string_lossy().into_owned();
        insta::assert_snapshot!(name, errors.to_string());
    }
}

#[test]
fn every_example_is_accepted() {
    for path in files_in("manifests/examples") {
        if let Err(errors) = config::load(&path, &no_environment) {
            panic!("{errors}");
        }
    }
}

#[test]
fn check_prints_the_plan_and_succeeds() {
    let output = check(&["-c", "manifests/examples/home-lab.yaml"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("viktorbarzin.lan."));
    assert!(output.stderr.is_empty());
}

#[test]
fn check_of_a_broken_file_says_so_on_standard_error_and_fails() {
    let output = check(&["-c", "tests/broken/missing-root.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the zone \".\" is missing"));
}

#[test]
fn check_of_a_file_that_is_not_there_fails() {
    let output = check(&["-c", "tests/broken/no-such-file.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be read"));
}

#[test]
fn the_file_can_be_named_without_its_option_but_not_twice() {
    let file = "manifests/examples/home-lab.yaml";
    assert_eq!(check(&[file]).stdout, check(&["-c", file]).stdout);
    assert_eq!(check(&[file]).status.code(), Some(0));
    assert_eq!(check(&["-c", file, "manifests/examples/strip.yaml"]).status.code(), Some(2));
}

#[test]
fn check_of_a_dash_reads_standard_input() {
    let file = fs::File::open("tests/broken/missing-root.yaml").expect("the file belongs to the repository");
    let output = Command::new(env!("CARGO_BIN_EXE_nodens"))
        .args(["check", "-c", "-"])
        .env_remove("NODENS_CONFIG")
        .stdin(file)
        .output()
        .expect("the program was built for this test");
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.starts_with("standard input:") && complaint.contains("the zone \".\" is missing"), "{complaint}");
}

#[test]
fn what_this_version_does_not_do_is_said() {
    let output = check(&["manifests/examples/home-lab.yaml"]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("not in this version: `upstreams.cluster.service`"), "{shown}");
    assert!(!String::from_utf8_lossy(&check(&[]).stdout).contains("not in this version"));
}

#[test]
fn check_without_a_file_shows_what_runs_without_one() {
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("127.0.0.1:1053"));
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    assert_eq!(check(&["--no-such-option"]).status.code(), Some(2));
}

#[test]
fn a_huge_file_is_refused_without_being_read_to_its_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("huge.yaml");
    fs::write(&path, "# é\n".repeat(config::MAX_FILE / 5 + 1)).expect("the folder takes a file");
    let errors = config::load(&path, &no_environment).expect_err("the file is too large");
    assert!(errors.mistakes()[0].what.contains("larger than 1MiB"), "{errors}");
    assert!(config::parse(&" ".repeat(config::MAX_FILE + 1), "f", &no_environment).is_err());
}

#[test]
fn aliases_cannot_grow_a_small_file_into_a_large_one() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let last = format!("*a{}", level - 1);
        let ten = [last.as_str(); 10].join(", ");
        text.push_str(&["a", &level.to_string(), ": &a", &level.to_string(), " [", &ten, "]\n"].concat());
    }
    let errors = parse(&text).expect_err("none of this is configuration");
    assert!(errors.to_string().contains("aliases stand for more than"), "{errors}");
}

#[test]
fn ten_thousand_zones_are_read_and_ten_thousand_mistakes_are_counted() {
    let zones = |body: &str| {
        let lines = (0..10_000).map(|index| format!("  z{index}.lan: {body}\n")).collect::<Vec<_>>().concat();
        format!("upstreams:\n  a: {{ servers: [10.0.0.1] }}\nzones:\n  \".\": {{ upstream: a }}\n{lines}")
    };
    assert_eq!(parse(&zones("{ upstream: a }")).expect("all zones are right").zones.len(), 10_001);
    let errors = parse(&zones("{ upstraem: a }")).expect_err("all zones are wrong");
    assert!(errors.to_string().ends_with("10000 mistakes in nodens.yaml, the first 100 of them above"), "{errors}");
}

#[test]
fn a_reference_is_replaced_in_values_and_never_becomes_structure() {
    let env = |name: &str| match name {
        "IP" => Some("fd00::53".to_owned()),
        "EVIL" => Some("a, answer: nxdomain }".to_owned()),
        _ => None,
    };
    let text =
        "upstreams:\n  a: { servers: [\"${IP}\", \"${GONE:-10.0.0.1}:53\"] }\nzones:\n  \".\": { upstream: a }\n";
    let plan = config::parse(text, "f", &env).expect("both references have a value");
    assert_eq!(plan.upstreams[0].members.to_string(), "[fd00::53]:53, 10.0.0.1:53");

    let errors =
        config::parse(&text.replace("upstream: a", "upstream: \"${EVIL}\""), "f", &env).expect_err("no such upstream");
    assert_eq!(errors.mistakes().len(), 1, "{errors}");
    assert_eq!(errors.mistakes()[0].place.map(|place| (place.line, place.column)), Some((4, 20)));
}

#[test]
fn off_is_off_however_it_is_spelt() {
    for off in ["off", "false", "no", "\"off\"", "Off"] {
        let text = format!(
            "upstreams: {{ a: {{ servers: [10.0.0.1] }} }}\nzones: {{ \".\": {{ upstream: a }} }}\nnode: {off}\n\
             cache: {{ serve_stale: {off}, prefetch: {off}, snapshot: {off} }}\nhttp: {{ control: {off}, metrics: {off} }}\n\
             log: {{ queries: {off} }}\n"
        );
        let plan = parse(&text).expect("off is a value");
        assert!(plan.node.is_none() && plan.cache.prefetch.is_none() && plan.http.control.is_none(), "{off}");
        assert_eq!(plan.zones[0].lifetimes.max_stale, 0, "{off}");
    }
}

#[test]
fn zones_inherit_what_they_do_not_say() {
    let text = "upstreams: { a: { servers: [10.0.0.1] } }\naaaa: strip\ncache: { max_ttl: 1h, serve_stale: { ttl: 10s } }\n\
                zones:\n  lan: { upstream: a, aaaa: keep, cache: { max_ttl: 30s } }\n  \".\": { upstream: a }\n";
    let plan = parse(text).expect("the text is right");
    let [lan, root] = plan.zones.as_slice() else { panic!("two zones were written") };
    assert_eq!((lan.lifetimes.max_ttl, root.lifetimes.max_ttl), (30, 3600));
    assert_eq!((lan.lifetimes.stale_ttl, root.lifetimes.stale_ttl), (10, 10));
    assert_eq!((lan.aaaa.to_string(), root.aaaa.to_string()), ("keep".to_owned(), "strip".to_owned()));
}

#[test]
fn line_ends_of_other_systems_and_a_byte_order_mark_change_nothing() {
    let text = "\u{feff}upstreams:\n  a: { servers: [10.0.0.1] }\nzones:\n  \".\": { upstream: b }\n";
    for text in [text.to_owned(), text.replace('\n', "\r\n")] {
        let errors = parse(&text).expect_err("there is no such upstream");
        assert_eq!(errors.mistakes()[0].place.map(|place| (place.line, place.column)), Some((4, 20)), "{errors}");
        assert!(errors.mistakes()[0].excerpt.contains("  4 |   \".\": { upstream: b }\n"), "{errors}");
    }
}

#[test]
fn without_a_file_the_hosts_own_servers_are_asked() {
    let plan = config::without_a_file(Path::new("/run/resolv.conf"));
    assert_eq!(plan.upstreams[0].members, Members::ResolvConf(PathBuf::from("/run/resolv.conf")));
    assert_eq!(plan.zones[0].action, Action::Route(0));
    assert!(plan.node.is_none() && plan.http.metrics.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_gives_a_plan_or_a_message(text in any::<String>()) {
        has_an_outcome(&text)?;
    }

    #[test]
    fn any_text_of_yamls_own_characters_gives_a_plan_or_a_message(text in "[a-z.:\\[\\]{},&*!|>'\"%@`#~$0-9\\- \\n\\t\\r?]{0,200}") {
        has_an_outcome(&text)?;
    }

    #[test]
    fn any_cut_or_change_of_a_good_file_gives_a_plan_or_a_message(
        from in 0..3000_usize,
        length in 0..40_usize,
        put in "[a-z0-9:{}\\[\\]\"'$. \\n-]{0,12}",
    ) {
        let mut text = include_str!("../manifests/examples/home-lab.yaml").to_owned();
        let from = text.floor_char_boundary(from.min(text.len()));
        let to = text.floor_char_boundary((from + length).min(text.len()));
        text.replace_range(from..to, &put);
        has_an_outcome(&text)?;
    }

    #[test]
    fn a_torn_file_gives_a_plan_or_a_message(length in 0..3000_usize) {
        let text = include_str!("../manifests/examples/home-lab.yaml");
        has_an_outcome(&text[..text.floor_char_boundary(length.min(text.len()))])?;
    }
}

/// Every place lies in the text, and the whole message can be printed on a terminal.
fn has_an_outcome(text: &str) -> Result<(), TestCaseError> {
    let Err(errors) = parse(text) else { return Ok(()) };
    prop_assert!(!errors.mistakes().is_empty());
    for mistake in errors.mistakes() {
        if let Some(place) = mistake.place {
            prop_assert!(place.line >= 1 && place.column >= 1);
            prop_assert!(place.line <= text.matches(['\n', '\r']).count() + 1, "{errors}");
        }
    }
    prop_assert!(errors.to_string().chars().all(|it| it == '\n' || !it.is_control()), "{errors}");
    Ok(())
}

fn parse(text: &str) -> Result<Plan, ConfigErrors> {
    config::parse(text, "nodens.yaml", &no_environment)
}

fn no_environment(_name: &str) -> Option<String> {
    None
}

fn files_in(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder belongs to the repository");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    files.sort();
    files
}

fn check(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nodens"))
        .arg("check")
        .args(arguments)
        .env_remove("NODENS_CONFIG")
        .output()
        .expect("the program was built for this test")
}
