//! Host names, resolved against scripted servers.

use std::net::Ipv4Addr;

use tokio::net::UdpSocket;

use super::*;
use crate::discover::testing::{Recorder, beside, socket};

#[test]
fn name_is_resolved_with_its_time_to_live() {
    on_runtime(async |server, address| {
        let (mut resolver, query) = (Resolver::default(), "dns.example");
        let answers = serve(&server, 77, &[[192, 0, 2, 2], [192, 0, 2, 1]]);
        let resolved = resolver.resolve_with(query, vec![address]);
        let resolved = with(answers, resolved).await.expect("resolved");

        assert_eq!(resolved.addresses.len(), 2);
        let time_to_live = resolved.time_to_live.as_secs();
        assert!((70..=77).contains(&time_to_live), "{time_to_live}");
    });
}

#[test]
fn name_without_address_is_an_error() {
    on_runtime(async |server, address| {
        let answers = serve(&server, 77, &[]);
        let mut resolver = Resolver::default();
        let resolved = with(answers, resolver.resolve_with("dns.example.", vec![address])).await;
        assert!(resolved.is_err());
    });
}

#[test]
fn nobody_but_ourselves_is_nobody() {
    on_runtime(async |_, _| {
        assert!(Resolver::default().resolve_with("dns.example.", vec![]).await.is_err());
    });
}

#[test]
fn failure_keeps_the_last_addresses_and_is_reported() {
    let (server, recorder) = (host(), Recorder::default());
    let mut member = Member::new(&server, Instant::now());
    let [one, other] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
    let found = Resolved { addresses: vec![other, one], time_to_live: Duration::ZERO };

    member.on_resolved("dns.example", 853, Ok(found), &recorder);
    let known = ["192.0.2.1:853", "192.0.2.2:853"].map(socket);
    assert_eq!(member.addresses, known, "sorted: rotation is no change");
    let soonest = member.due.expect("a name is due again") - Instant::now();
    assert!(soonest > SOONEST / 2 && soonest <= SOONEST, "{soonest:?}");

    member.on_resolved("dns.example", 853, Err("no".into()), &recorder);
    assert_eq!(member.addresses, known);
    let expected = DiscoverEvent::Unresolved { name: "dns.example".into(), why: "no".into() };
    assert_eq!(*recorder.events.borrow(), [expected]);
}

#[test]
fn time_to_live_is_bounded_above() {
    let (server, recorder) = (host(), Recorder::default());
    let mut member = Member::new(&server, Instant::now());
    let found = Resolved { addresses: vec![Ipv4Addr::LOCALHOST.into()], time_to_live: Duration::from_secs(86_400) };
    member.on_resolved("dns.example", 53, Ok(found), &recorder);
    assert!(member.due.expect("a name is due again") <= Instant::now() + LATEST);
}

#[test]
fn failing_names_are_tried_ever_more_slowly_and_not_in_step() {
    assert_eq!([1, 2, 3].map(|failures| back_off(failures, 0.0)), [1, 2, 4].map(Duration::from_secs));
    assert_eq!(back_off(1, 1.0), Duration::from_millis(500));
    assert_eq!(back_off(u32::MAX, 0.0), BACK_OFF_MAX);
}

/// Addresses beside names do not wait for them.
#[test]
fn addresses_are_offered_though_a_name_fails() {
    let servers = [Server::Address(socket("192.0.2.1:53")), host()];
    let recorder = Recorder::default();
    beside(follow(&servers, Path::new("/nowhere"), &recorder), async {
        recorder.until(|recorder| recorder.last() == Some(vec![socket("192.0.2.1:53")])).await;
        assert_eq!(recorder.events.borrow()[0].label(), "unresolved");
    });
}

fn host() -> Server {
    Server::Host { name: "dns.example".into(), port: 853 }
}

fn on_runtime(test: impl AsyncFnOnce(UdpSocket, SocketAddr)) {
    beside(std::future::pending(), async {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback is there");
        let address = server.local_addr().expect("bound");
        test(server, address).await;
    });
}

/// Runs `answers`, which never ends, beside `asking`.
async fn with<T>(answers: impl Future<Output = ()>, asking: impl Future<Output = T>) -> T {
    tokio::select! {
        () = answers => panic!("the server has ended"),
        asked = asking => asked,
    }
}

/// Answers questions for A with `addresses`, all others with nothing.
async fn serve(server: &UdpSocket, time_to_live: u8, addresses: &[[u8; 4]]) {
    let mut query = [0; 512];
    loop {
        let (length, from) = server.recv_from(&mut query).await.expect("loopback gives it");
        let question = 12 + query[12..length].iter().position(|&octet| octet == 0).expect("a name ends") + 5;
        let addresses = if query[question - 3] == 1 { addresses } else { &[] };
        let mut answer = query[..question].to_vec();
        let count = u8::try_from(addresses.len()).expect("few");
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
        for address in addresses {
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, time_to_live, 0, 4]);
            answer.extend_from_slice(address);
        }
        server.send_to(&answer, from).await.expect("loopback takes it");
    }
}
