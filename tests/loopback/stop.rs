//! The end of an agent: what is under way is answered, and nothing else is waited for.

use std::time::Instant;

use crate::support::agent::Agent;
use crate::support::client::Ask;
use crate::support::config::Config;
use crate::support::octets::A;
use crate::support::upstream::{Upstream, delayed, encoded};
use crate::support::{millis, seconds};

// L05: questions that wait for a slow upstream get their answer, over UDP and TCP, and with the last of them it is over:
// the rest of the time an agent has for its end (RESOLVE_TIMER) is not used up.
#[test]
fn sigterm_waits_for_what_is_under_way_and_no_longer() {
    let upstream = Upstream::new(delayed(millis(500), encoded(60)));
    let agent = Agent::start(&Config::new(&upstream));
    std::thread::scope(|scope| {
        for ask in [Ask::new("a.test", A), Ask::new("b.test", A).tcp()] {
            let address = agent.addr();
            scope.spawn(move || ask.send(address));
        }
        upstream.wait_for(2);
        let begun = Instant::now();
        let status = agent.stop();
        assert!(status.success(), "{status}: {}", agent.said());
        assert!(begun.elapsed() < seconds(3), "{:?}: {}", begun.elapsed(), agent.said());
    });
}
