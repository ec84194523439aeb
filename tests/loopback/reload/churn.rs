//! Many reloads, good and bad, while questions pour in; and the end in the midst of one.

use std::time::{Duration, Instant};

use crate::load::client;
use crate::support::agent::{Agent, Reload};
use crate::support::client::Ask;
use crate::support::config::Config;
use crate::support::octets::A;
use crate::support::upstream::{Upstream, encoded};
use crate::support::{fresh_address, millis};

use super::{QUESTIONS, Stream, streamed};

fn is_full() -> bool {
    std::env::var("NODENS_LOAD").is_ok_and(|it| it == "full")
}

/// The same agent with something else changed each time.
fn variant(config: &Config, extra: std::net::IpAddr, nth: usize) -> Config {
    let own = config.addresses()[0];
    let changed = config.clone().workers(1 + nth % 3);
    let changed = if nth % 4 < 2 { changed.listen(&[own, extra]) } else { changed };
    let changed =
        if nth % 5 < 3 { changed.endpoint(&format!("health: \"{extra}:{}\"", 5320 + nth % 2)) } else { changed };
    changed.zone("corp.test", if nth.is_multiple_of(2) { "{ answer: nxdomain }" } else { "{ upstream: main }" })
}

// L03: nothing lost, nothing wrong, the cache kept, bad ones refused, memory and descriptors flat.
#[test]
fn reloads_lose_nothing_and_leave_nothing_behind() {
    let reloads = if is_full() { 1000 } else { 100 };
    let (authority, config) = streamed();
    let config = config.metrics();
    let mut agent = Agent::start(&config);
    let extra = fresh_address();
    let warm = client::ask(agent.addr(), 0..QUESTIONS, 20_000);
    assert_eq!(warm.lost, 0);
    let stream = Stream::begin(agent.addr(), 20_000);
    let mut memory = Vec::new();
    let mut descriptors = Vec::new();
    for nth in 0..reloads {
        if nth % 10 == 7 {
            let bad = if nth % 20 == 7 { "zones: [" } else { "listen: { addresses: [203.0.113.1.5] }\n" };
            assert_eq!(agent.reload_yaml(bad), Reload::Refused);
        } else {
            assert_eq!(agent.reload(&variant(&config, extra, nth)), Reload::Done, "{nth}");
        }
        if nth % (reloads / 10) == reloads / 10 - 1 {
            memory.push(agent.rss());
            descriptors.push(agent.descriptors());
        }
    }
    assert_eq!(agent.reload(&config), Reload::Done);
    let asked = stream.end();
    eprintln!("{reloads} reloads, {asked} answers; memory {memory:?}, descriptors {descriptors:?}");
    // Whatever was known before the first reload is known after the last: the hit rate is that of an agent left alone.
    let known = authority.queries();
    let again = client::ask(agent.addr(), 0..QUESTIONS, 20_000);
    assert_eq!((again.right, again.lost), (QUESTIONS, 0));
    assert!(authority.queries() - known < 100, "{} of {QUESTIONS} were asked again", authority.queries() - known);
    assert!(memory[9] < memory[4] + (16 << 20), "{memory:?}");
    assert!(descriptors[9] < descriptors[1] + 512, "{descriptors:?}");
    // A file may be tried twice: by us, and because it was changed.
    assert!(agent.metric("nodens_config_reloads_total", "rejected") >= f64::from(reloads as u32 / 10));
    drop(authority);
    assert!(agent.stop().success());
}

// L04: the end is in time whatever is being reloaded.
#[test]
fn sigterm_in_the_midst_of_a_reload_ends_in_time() {
    let upstream = Upstream::new(encoded(60));
    for round in 0..if is_full() { 200 } else { 20 } {
        let config = Config::new(&upstream).listen(&[fresh_address()]);
        let agent = Agent::start(&config);
        Ask::new("a.test", A).send(agent.addr());
        let other = variant(&config.clone().control(agent.control_socket()), fresh_address(), round).workers(3);
        agent.replace_file(other.yaml().as_bytes());
        agent.signal("HUP");
        // From before the reload to after it; the file's change makes it reload, too.
        std::thread::sleep(Duration::from_micros((round as u64 * 7_919) % 20_000));
        let begun = Instant::now();
        let status = agent.stop();
        assert!(status.success(), "{status}: {}", agent.said());
        assert!(begun.elapsed() < millis(5000), "{:?}", begun.elapsed());
    }
}
