//! Where members come from, followed over their changes.

use std::rc::Rc;
use std::time::Duration;

use super::testing::{beside, socket};
use super::*;
use crate::plan::{Choice, HealthCheck};
use crate::wire::Name;

#[test]
fn addresses_as_written_are_set_once() {
    let servers = ["192.0.2.2:53", "192.0.2.1:5353", "[2001:db8::1]:53"].map(socket);
    let upstream = upstream(Members::Servers(servers.map(Server::Address).to_vec()));
    let sets = Rc::new(RefCell::new(Vec::new()));
    let following = async {
        let set = |set| sets.borrow_mut().push(set);
        follow(&upstream, Path::new("/nowhere"), &[], set, |event| panic!("{event:?}")).await;
    };
    beside(following, async {
        while sets.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(*sets.borrow(), [servers.to_vec()], "in the order of the configuration");
    });
}

#[test]
fn our_own_addresses_are_dropped_and_reported() {
    let own = [socket("169.254.20.10:53")];
    let (sets, events) = offer(&own, &[&["169.254.20.10:53", "169.254.20.10:54", "192.0.2.1:53"]]);
    assert_eq!(sets, [["169.254.20.10:54", "192.0.2.1:53"].map(socket)]);
    assert_eq!(events, [DiscoverEvent::Own(own[0])]);
}

#[test]
fn our_own_address_is_known_in_its_mapped_form() {
    let (_, events) = offer(&[socket("127.0.0.1:53")], &[&["[::ffff:127.0.0.1]:53", "192.0.2.1:53"]]);
    assert_eq!(events, [DiscoverEvent::Own(socket("[::ffff:127.0.0.1]:53"))]);
}

#[test]
fn who_listens_on_all_addresses_is_not_asked_on_loopback() {
    let (sets, _) = offer(&[socket("0.0.0.0:53")], &[&["127.0.0.53:53", "[::1]:53", "127.0.0.1:5353"]]);
    assert_eq!(sets, [[socket("127.0.0.1:5353")]]);
}

/// H18: a set that is empty, or ours alone, changes nothing and is reported once.
#[test]
fn empty_set_keeps_the_last_one() {
    let own = ["127.0.0.1:53"];
    let (sets, events) = offer(&own.map(socket), &[&["192.0.2.1:53"], &[], &[], &own, &["192.0.2.2:53"], &own]);
    assert_eq!(sets, [[socket("192.0.2.1:53")], [socket("192.0.2.2:53")]]);
    assert_eq!(events, [DiscoverEvent::Empty, DiscoverEvent::Own(socket(own[0])), DiscoverEvent::Empty]);
}

#[test]
fn same_set_is_not_set_again_and_duplicates_count_once() {
    let (sets, _) = offer(&[], &[&["192.0.2.1:53", "192.0.2.1:53"], &["192.0.2.1:53"]]);
    assert_eq!(sets, [[socket("192.0.2.1:53")]]);
}

/// Offers `sets` one after another; returns what came out, and what was reported.
fn offer(own: &[SocketAddr], sets: &[&[&str]]) -> (Vec<Vec<SocketAddr>>, Vec<DiscoverEvent>) {
    let (out, events) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let sieve = Sieve {
        own,
        known: RefCell::default(),
        empty: Cell::new(false),
        set: |set| out.borrow_mut().push(set),
        on_event: |event| events.borrow_mut().push(event),
    };
    for set in sets {
        sieve.offer(set.iter().map(|address| socket(address)).collect());
    }
    (out.take(), events.take())
}

fn upstream(members: Members) -> Upstream {
    Upstream {
        name: "test".into(),
        members,
        choice: Choice::Sequential,
        protocol: Protocol::Udp,
        tls_name: None,
        tls_ca: None,
        health_check: HealthCheck { interval: Duration::from_secs(5), max_fails: 2, name: Name::root() },
        random_case: false,
    }
}
