//! Many questions at once.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::support::client::{Answer, Ask};
use crate::support::octets::{A, NOERROR};
use crate::support::upstream::address_of;

/// One name and what came back.
pub struct Asked {
    pub name: String,
    pub answer: Option<Answer>,
}

impl Asked {
    /// Whether the answer is the address that stands for the name.
    pub fn is_right(&self) -> bool {
        let right = |answer: &Answer| answer.rcode() == NOERROR && answer.ipv4() == [address_of(&self.name)];
        self.answer.as_ref().is_some_and(right)
    }
}

/// Asks for the A records of all `names`, `at_once` in parallel, each with `within` to come back.
pub fn ask_all(agent: SocketAddr, names: Vec<String>, at_once: usize, within: Duration) -> Vec<Asked> {
    let names = Mutex::new(names.into_iter());
    let asked = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let next = names.lock().expect("no asker panics with it").next();
                    let Some(name) = next else { break };
                    let answer = Ask::new(&name, A).within(within).try_send(agent);
                    asked.lock().expect("no asker panics with it").push(Asked { name, answer });
                }
            });
        }
    });
    asked.into_inner().expect("all askers have ended")
}

/// `count` names nobody asked for before, under `zone`.
pub fn names(zone: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("n{number}.{zone}")).collect()
}

/// Asserts that every answer is right.
#[track_caller]
pub fn assert_all_right(asked: &[Asked]) {
    let wrong: Vec<&Asked> = asked.iter().filter(|asked| !asked.is_right()).collect();
    let first = wrong.first().map(|asked| (&asked.name, &asked.answer));
    assert!(wrong.is_empty(), "{} of {} not right; the first: {first:?}", wrong.len(), asked.len());
}

/// The time within which `per_mille` of the answers came; silence counts as the longest time there is.
pub fn quantile(asked: &[Asked], per_mille: usize) -> Duration {
    let mut times: Vec<Duration> =
        asked.iter().map(|asked| asked.answer.as_ref().map_or(Duration::MAX, |answer| answer.elapsed)).collect();
    times.sort_unstable();
    times[(times.len() - 1) * per_mille / 1_000]
}
