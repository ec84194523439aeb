//! The log: what gets a line, that nothing breaks out of it, and that nothing makes a flood.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::agent::Agent;
use crate::support::client::{Ask, ask, ask_many};
use crate::support::config::Config;
use crate::support::octets::{A, AAAA, SERVFAIL};
use crate::support::upstream::{Upstream, encoded, failing};

/// A name with everything that could hurt a log: a line feed, an escape sequence, quotes, a brace, a space.
fn evil() -> Ask {
    let mut ask = Ask::new("x.test", A);
    let label = b"a\n2026 ERROR\x1b[31m \"}\\x";
    ask.qname = [&[label.len() as u8][..], label, b"\x04test\x00"].concat();
    ask
}

fn queries(agent: &Agent) -> Vec<String> {
    agent.said().lines().filter(|line| line.contains("query")).map(str::to_owned).collect()
}

// config.md: `log: { format: json, queries: all }`. O09: names are escaped.
#[test]
fn the_query_log_is_json_with_names_escaped() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream).top("log", "{ level: info, format: json, queries: all }"));
    evil().own_reader_only().send(agent.addr());
    Ask::new("b.test", AAAA).tcp().send(agent.addr());
    // Ends the log: whatever was said is there then.
    assert!(agent.stop().success());
    for line in agent.said().lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|it| it.is_object()), "no object: {line}");
    }
    let lines: Vec<Value> = queries(&agent).iter().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0]["name"], "a\\0102026\\032ERROR\\027[31m\\032\\\"}\\\\x.test.");
    assert_eq!((&lines[0]["level"], &lines[0]["type"]), (&"INFO".into(), &"A".into()));
    assert_eq!(lines[0]["outcome"], "asked upstream");
    assert!(lines[0]["client"].as_str().is_some_and(|client| client.starts_with("127.")));
    assert_eq!(
        (&lines[1]["name"], &lines[1]["type"], &lines[1]["transport"]),
        (&"b.test.".into(), &"AAAA".into(), &"Tcp".into())
    );
}

// O09
#[test]
fn the_query_log_as_text_has_one_line_a_query() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream).top("log", "{ level: info, format: text, queries: all }"));
    evil().own_reader_only().send(agent.addr());
    assert!(agent.stop().success());
    let lines = queries(&agent);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("\\0102026\\032ERROR\\027[31m"), "{lines:?}");
    assert!(!agent.said().contains('\u{1b}'));
}

// config.md: `queries: 1/1000`.
#[test]
fn the_query_log_is_sampled() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream).top("log", "{ level: info, queries: 1/10 }"));
    for _ in 0..200 {
        ask(agent.addr(), "a.test", A);
    }
    assert!(agent.stop().success());
    // Each of the two workers counts for itself.
    assert!((18..=20).contains(&queries(&agent).len()), "{}", queries(&agent).len());
}

#[test]
fn without_a_query_log_no_name_is_in_the_log() {
    let upstream = Upstream::new(encoded(60));
    let agent = Agent::start(&Config::new(&upstream));
    ask(agent.addr(), "secret.test", A);
    upstream.set(failing(SERVFAIL));
    ask(agent.addr(), "other-secret.test", A);
    assert!(agent.stop().success());
    assert!(!agent.said().contains("secret"), "{}", agent.said());
}

// O08: whatever goes wrong upstream, a class of lines has ten a second.
#[test]
fn thousands_of_upstream_errors_are_a_few_lines() {
    let upstream = Upstream::new(failing(SERVFAIL));
    // Each group of servers that fails is its own error; what fails is not remembered for long.
    let agent = Agent::start(&Config::new(&upstream).cache("failure_ttl: 1s").metrics());
    let questions = (0..5000).map(|number| Ask::new(&format!("a{number}.test"), A));
    // A busy machine loses a few on the way; how many answers there are is not what this is about.
    assert!(ask_many(agent.addr(), questions, 200).len() > 4000);
    assert!(agent.count("nodens_upstream_exchanges_total", "outcome=\"servfail\"") > 4000);
    assert!(agent.stop().success());
    let mut classes: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in agent.said().lines() {
        // Second and the words before the first field.
        let words = line.get(28..).unwrap_or_default().split('=').next().unwrap_or_default().to_owned();
        *classes.entry((line.chars().take(19).collect(), words)).or_default() += 1;
    }
    assert!(classes.values().all(|lines| *lines <= 11), "{classes:?}");
}
