//! Upstream connections that end, break off or lead to a pod that is gone.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Mutex;

use crate::crowd::{self, ask_all, assert_all_right};
use crate::support::agent::Agent;
use crate::support::client::ask;
use crate::support::config::Config;
use crate::support::octets::A;
use crate::support::upstream::{Act, Seen, Upstream, encoded_reply};
use crate::support::{millis, seconds, until};

/// How an idle connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Closed in order.
    Fin,
    /// Broken off.
    Rst,
    /// The other side is gone and says nothing.
    Vanished,
}

/// Answers the first question on each connection, which then ends in this way.
fn one_answer_a_connection(end: End) -> impl Fn(&Seen) -> Vec<Act> + Send + Sync {
    let used: Mutex<HashSet<SocketAddr>> = Mutex::default();
    move |seen| {
        if !used.lock().expect("a script does not panic").insert(seen.source) {
            return Vec::new();
        }
        let mut acts = encoded_reply(seen, 300).now();
        match end {
            End::Fin => acts.push(Act::Close { after: millis(50) }),
            End::Rst => acts.push(Act::Reset { after: millis(50) }),
            End::Vanished => {}
        }
        acts
    }
}

// H09: whatever became of an idle connection, the next question has its answer within a second.
#[test]
fn a_question_survives_the_end_of_an_idle_connection() {
    for end in [End::Fin, End::Rst, End::Vanished] {
        let upstream = Upstream::new(one_answer_a_connection(end));
        let agent = Agent::start(&Config::with_servers(&[upstream.address()], "protocol: tcp"));
        for name in crowd::names("idle.test", 4) {
            let answer = ask(agent.addr(), &name, A);
            answer.assert_encodes(&name);
            assert!(answer.elapsed < seconds(1) + super::SLACK, "{end:?}: answered after {:?}", answer.elapsed);
            // The connection has ended by the time of the next question.
            until(answer.at + millis(120));
        }
    }
}

// H09, H11: a connection that breaks under a load takes no question with it.
#[test]
fn questions_in_flight_move_to_a_new_connection() {
    for break_off in [Act::Close { after: millis(0) }, Act::Reset { after: millis(0) }] {
        // Every fortieth question ends its connection, unanswered; asked again it is another number.
        let script = move |seen: &Seen| match seen.nth % 40 {
            39 => vec![break_off.clone()],
            _ => encoded_reply(seen, 300).after(millis(2)),
        };
        let upstream = Upstream::new(script);
        let agent = Agent::start(&Config::with_servers(&[upstream.address()], "protocol: tcp"));

        assert_all_right(&ask_all(agent.addr(), crowd::names("broken.test", 800), 16, seconds(5)));
    }
}

/// One address with a succession of pods behind it: a flow stays with the pod it first met, even when that is gone.
///
/// So does a `ClusterIP`: connection tracking sends a known source port to the old pod, a new one to the new pod.
fn replaced_every(questions: usize) -> impl Fn(&Seen) -> Vec<Act> + Send + Sync {
    let flows: Mutex<HashMap<SocketAddr, usize>> = Mutex::default();
    move |seen| {
        // The third pod stays.
        let pod = (seen.nth / questions).min(2);
        let met = *flows.lock().expect("a script does not panic").entry(seen.source).or_insert(pod);
        if met == pod { encoded_reply(seen, 300).now() } else { Vec::new() }
    }
}

// H11: pods behind one address are replaced in turn; no question is lost.
#[test]
fn replaced_pods_behind_one_address_cost_no_question() {
    for protocol in ["udp", "tcp"] {
        let upstream = Upstream::new(replaced_every(400));
        let agent = Agent::start(&Config::with_servers(&[upstream.address()], &format!("protocol: {protocol}")));

        assert_all_right(&ask_all(agent.addr(), crowd::names("replaced.test", 1_200), 16, seconds(5)));
    }
}
