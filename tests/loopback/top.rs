//! The names and clients that come up most, at /debug/top.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::agent::{Agent, http_get};
use crate::support::client::{Ask, ask, ask_many};
use crate::support::config::Config;
use crate::support::fresh_address;
use crate::support::octets::A;
use crate::support::upstream::{Upstream, encoded};

/// An agent with a debug endpoint, and where that is.
fn start(upstream: &Upstream) -> (Agent, SocketAddr) {
    let address = fresh_address();
    let debug = SocketAddr::new(address, 5303);
    let config = Config::new(upstream).listen(&[address]).endpoint(&format!("debug: \"{debug}\""));
    (Agent::start(&config), debug)
}

fn top(debug: SocketAddr, parameters: &str) -> Value {
    let (head, body) = http_get(debug, &format!("/debug/top{parameters}"));
    assert_eq!(head.split(' ').nth(1), Some("200"), "{head}");
    serde_json::from_str(&body).expect("JSON")
}

// Issue 4: who asks for what; a quiet agent counts every query, whatever the letter case and the transport.
#[test]
fn what_few_ask_is_counted_one_by_one() {
    let upstream = Upstream::new(encoded(60));
    let (agent, debug) = start(&upstream);
    let (one, other) = (fresh_address(), fresh_address());
    for name in ["often.test", "OFTEN.test", "often.TEST", "once.test"] {
        Ask::new(name, A).from(one).send(agent.addr());
    }
    Ask::new("often.test", A).tcp().from(other).send(agent.addr());
    let all = top(debug, "");
    let names = [("often.test.", 4), ("once.test.", 1)];
    let expected: Vec<Value> = names
        .iter()
        .map(|(name, queries)| serde_json::json!({ "name": name, "queries": queries, "at_most_too_many": 0 }))
        .collect();
    assert_eq!(all["names"], Value::Array(expected), "{all}");
    assert_eq!(all["clients"][0]["client"], one.to_string());
    assert_eq!((&all["clients"][0]["queries"], &all["clients"][1]["queries"]), (&4.into(), &1.into()));
    assert_eq!(all["queries"], 5);
    assert_eq!(top(debug, "?limit=1")["names"].as_array().map(Vec::len), Some(1));
}

// O09: names are escaped, here too.
#[test]
fn a_name_cannot_break_out_of_the_page() {
    let upstream = Upstream::new(encoded(60));
    let (agent, debug) = start(&upstream);
    let mut evil = Ask::new("x.test", A);
    evil.qname = b"\x0ca\n\"}]<script\x04test\x00".to_vec();
    evil.own_reader_only().send(agent.addr());
    assert_eq!(top(debug, "")["names"][0]["name"], "a\\010\\\"}]<script.test.");
}

// Issue 4: bounded, and a flood of names hides nobody who asks a lot.
#[test]
fn a_flood_of_names_leaves_the_page_bounded_and_right() {
    let upstream = Upstream::new(encoded(60));
    let (agent, debug) = start(&upstream);
    ask(agent.addr(), "hot.test", A);
    let name = |number: u32| if number.is_multiple_of(4) { "hot.test".to_owned() } else { format!("n{number}.test") };
    let questions = (0..8000).map(|number| Ask::new(&name(number), A));
    assert_eq!(ask_many(agent.addr(), questions, 64).len(), 8000);
    let all = top(debug, "?limit=100000");
    assert_eq!(all["names"][0]["name"], "hot.test.");
    let hot = all["names"][0]["queries"].as_u64().expect("a number");
    assert!((1000..4000).contains(&hot), "2,001 were asked, {hot} are shown");
    // Two workers with 256 places in each of two windows.
    assert!(all["names"].as_array().is_some_and(|names| names.len() <= 4 * 256));
}
