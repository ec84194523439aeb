//! Many questions, every answer checked by its content: nothing wrong, nothing lost.
//!
//! 100,000 questions in the short form; `NODENS_LOAD=full` asks the million.

pub mod client;
pub mod oracle;

use std::env;
use std::fmt::Write as _;
use std::fs;

use crate::peers::programs;
use crate::support::agent::Agent;
use crate::support::config::Config;

/// Questions a second; what a machine cannot do it does more slowly.
const RATE: u64 = 20_000;

/// One client must be able to have all of the run's questions open.
const LIMITS: &str = "in_flight: 8192, in_flight_per_client: 8192";

/// How many questions a run asks.
fn amount() -> u64 {
    match env::var("NODENS_LOAD") {
        Ok(it) if it == "full" => 1_000_000,
        _ => 100_000,
    }
}

// Issue 2: hits, misses, NXDOMAIN and AAAA pairs, every answer checked by its content.
#[test]
fn no_answer_is_wrong_and_none_is_lost_at_20_000_mixed_questions_a_second() {
    let authority = oracle::Authority::start(programs::free_address());
    let agent = Agent::start(&Config::with_servers(&[authority.address], "").limits(LIMITS));

    let outcome = client::ask(agent.addr(), 0..amount(), RATE);

    eprintln!(
        "{} answers right in {:.1?}; {} of the questions went upstream",
        outcome.right,
        outcome.took,
        authority.queries()
    );
    assert!(
        outcome.wrong.is_empty(),
        "{} wrong: {:#?}",
        outcome.wrong.len(),
        &outcome.wrong[..outcome.wrong.len().min(5)]
    );
    assert_eq!((outcome.right, outcome.lost), (amount(), 0));
    // Hot names and missing names are asked once each, with a margin for sends repeated under load.
    assert!(authority.queries() < amount() * 6 / 10, "{} questions went upstream", authority.queries());
}

// Issue 2: the same mix from a client that others wrote and trust.
#[test]
fn dnsperf_loses_nothing_at_20_000_mixed_questions_a_second() {
    if !programs::present(&["dnsperf"]) {
        return;
    }
    let authority = oracle::Authority::start(programs::free_address());
    let agent = Agent::start(&Config::with_servers(&[authority.address], "").limits(LIMITS));
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let mut questions = String::new();
    for number in 0..amount() {
        let question = oracle::question(number);
        let qtype = if question.qtype == 1 { "A" } else { "AAAA" };
        writeln!(questions, "{} {qtype}", question.name).expect("a String takes all");
    }
    fs::write(directory.path().join("questions"), questions).expect("the directory takes files");

    let (address, port) = (agent.addr().ip().to_string(), agent.addr().port().to_string());
    let rate = RATE.to_string();
    let arguments = ["-s", &address, "-p", &port, "-d", "questions", "-n", "1", "-c", "4", "-q", "500", "-Q", &rate];
    let report = programs::output_of("dnsperf", &arguments, directory.path());

    let figure = |label: &str| {
        let line =
            report.lines().find(|line| line.contains(label)).unwrap_or_else(|| panic!("no {label} in:\n{report}"));
        line.split_ascii_whitespace().nth(2).and_then(|it| it.parse::<u64>().ok()).expect("a number follows the label")
    };
    assert_eq!(figure("Queries sent:"), amount(), "{report}");
    assert_eq!(figure("Queries completed:"), amount(), "{report}");
    assert_eq!(figure("Queries lost:"), 0, "{report}");
    // dnsperf counts rcodes: three questions of 20 are for names that do not exist, all others have an answer.
    assert!(report.contains(&format!("NXDOMAIN {}", amount() * 3 / 20)), "{report}");
    assert!(report.contains(&format!("NOERROR {}", amount() * 17 / 20)), "{report}");
}
