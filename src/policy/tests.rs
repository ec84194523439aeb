//! What the zones of a plan decide. The whole way of a query is told by the scenarios in `tests/scenarios`.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::plan::{self, Draft, Members, Server};

const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));

fn upstream(name: &str) -> plan::Upstream {
    plan::Upstream::new(name, Members::Servers(vec![Server::Address(([192, 0, 2, 1], 53).into())]))
}

fn zone(name: &str, action: Action) -> Zone {
    Zone::new(name.parse().expect("a test's name is legal"), action)
}

fn policy(zones: Vec<Zone>) -> Policy {
    policy_for(zones, Vec::new())
}

fn policy_for(zones: Vec<Zone>, aaaa_clients: Vec<Prefix>) -> Policy {
    let draft = Draft { aaaa_clients, ..Draft::new(vec![upstream("one"), upstream("two")], zones) };
    Policy::new(&Plan::new(draft).expect("a legal plan"))
}

fn key(name: &str, rtype: Type) -> Key {
    let name: Name = name.parse().expect("a test's name is legal");
    Key::new(name.as_wire(), rtype, false, false).expect("a legal name makes a key")
}

/// The upstream a name is routed to.
fn route(policy: &Policy, name: &str) -> usize {
    match policy.decide(&key(name, Type::A), POD).decision {
        Decision::Route { upstream, .. } => upstream,
        other => panic!("{name}: {other:?}"),
    }
}

// H15
#[test]
fn the_longest_zone_on_label_bounds_decides() {
    let policy = policy(vec![
        zone(".", Action::Route(0)),
        zone("corp.test", Action::Route(1)),
        zone("open.corp.test", Action::Route(0)),
    ]);
    for (name, upstream) in [
        ("x.corp.test", 1),
        ("CORP.test", 1),
        ("xcorp.test", 0),
        ("test", 0),
        (".", 0),
        ("a.b.Open.Corp.Test", 0),
        ("xopen.corp.test", 1),
    ] {
        assert_eq!(route(&policy, name), upstream, "{name}");
    }
}

#[test]
fn names_of_any_depth_find_their_zone() {
    let deepest = "a.".repeat(126) + "b";
    let policy = policy(vec![zone(".", Action::Route(0)), zone(&deepest, Action::Route(1))]);
    assert_eq!(route(&policy, &deepest), 1);
    assert_eq!(route(&policy, &deepest[2..]), 0);
    assert_eq!(route(&policy, &deepest.replace('b', "c")), 0);
}

// H16: what a zone says of itself is never overruled by the zone above it.
#[test]
fn zones_answered_here_keep_their_children() {
    let policy = policy(vec![
        zone(".", Action::Route(0)),
        zone("ads.test", Action::Nxdomain),
        zone("good.ads.test", Action::Route(1)),
    ]);
    assert!(matches!(
        policy.decide(&key("x.ads.test", Type::A), POD).decision,
        Decision::Negative { rcode: Rcode::NXDOMAIN, ede: Ede::FILTERED, .. }
    ));
    assert_eq!(route(&policy, "x.good.ads.test"), 1);
}

#[test]
fn only_names_with_too_many_labels_are_search_noise() {
    let mut lan = zone("home.lan", Action::Route(1));
    lan.max_labels = Some(1);
    let policy = policy(vec![zone(".", Action::Route(0)), lan]);
    assert_eq!(route(&policy, "home.lan"), 1);
    assert_eq!(route(&policy, "nas.home.lan"), 1);
    let noise = key("example.com.home.lan", Type::AAAA);
    let Decision::Negative { rcode, zone, ede } = policy.decide(&noise, POD).decision else {
        panic!("not answered here")
    };
    assert_eq!((rcode, zone.to_string().as_str(), ede), (Rcode::NXDOMAIN, "home.lan.", Ede::SYNTHESIZED));
}

#[test]
fn a_pinned_address_leads_back_to_all_its_names() {
    let pin = Action::Addresses(vec![Ipv4Addr::new(10, 97, 4, 20).into()]);
    let policy = policy(vec![zone(".", Action::Route(0)), zone("git.test", pin.clone()), zone("forge.test", pin)]);
    let Decision::Pointers(names) = policy.decide(&key("20.4.97.10.in-addr.arpa", Type::PTR), POD).decision else {
        panic!("no pointers")
    };
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["git.test.", "forge.test."]);
    assert!(matches!(
        policy.decide(&key("20.4.97.10.in-addr.arpa", Type::A), POD).decision,
        Decision::Negative { rcode: Rcode::NOERROR, .. }
    ));
    assert_eq!(route(&policy, "21.4.97.10.in-addr.arpa"), 0);
}

// V09
#[test]
fn stripping_concerns_the_clients_it_names() {
    let mut root = zone(".", Action::Route(0));
    root.aaaa = Aaaa::Strip;
    let pods = Prefix { address: Ipv4Addr::new(10, 1, 0, 0).into(), length: 16 };
    let policy = policy_for(vec![root], vec![pods]);
    for (client, expected) in
        [("10.1.2.3", Aaaa::Strip), ("::ffff:10.1.2.3", Aaaa::Strip), ("10.2.0.1", Aaaa::Keep), ("fd00::1", Aaaa::Keep)]
    {
        let client = client.parse().expect("a legal address");
        let Decision::Route { aaaa, .. } = policy.decide(&key("a.test", Type::AAAA), client).decision else {
            panic!("no route")
        };
        assert_eq!(aaaa, expected, "{client}");
    }
}
