//! Links and addresses in namespaces of the tests' own, seen by `ip` as an independent eye.

use futures_util::StreamExt as _;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteProtocol, RouteType};
use serde_json::Value;

use super::*;
use crate::node::testing::{PATIENCE, in_a_namespace, is_a_child, run, run_without_net_admin, try_run};

const MINUTES: Duration = Duration::from_mins(5);
const LINK_LOCAL: &str = "169.254.20.10";
const SERVICE: &str = "10.96.0.10";
const SERVICE6: &str = "fd00:10:96::a";

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|it| it.parse().expect("an address")).collect()
}

fn ours() -> Vec<IpAddr> {
    ips(&[LINK_LOCAL, SERVICE, SERVICE6])
}

fn links() -> Links {
    Links::open().expect("a netlink socket")
}

async fn loopback(links: &Links) -> Place {
    links.ensure(LOOPBACK).await.expect("the loopback")
}

/// What `ip` sees on a link: one object per address.
fn seen(link: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(&run(&format!("ip -j addr show dev {link}"))).expect("JSON");
    all[0]["addr_info"].as_array().expect("a list").clone()
}

/// What `ip` sees of one address, which is there exactly once.
fn seen_once(link: &str, address: &str) -> Value {
    let mut found: Vec<Value> = seen(link).into_iter().filter(|it| it["local"] == address).collect();
    assert_eq!(found.len(), 1, "{address} on {link}: {found:?}");
    found.remove(0)
}

fn locals(link: &str) -> Vec<String> {
    seen(link).iter().map(|it| it["local"].as_str().expect("text").to_owned()).collect()
}

/// Waits for the first event `wanted` says yes to.
async fn await_event(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    let search = async {
        loop {
            let event = events.next().await;
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, search).await.expect("the event comes")
}

// L01: what draws packets to us is on the host exactly as we mean it.
#[test]
fn addresses_are_leased_for_minutes_and_marked_as_ours() {
    in_a_namespace(|| async {
        let links = links();
        let place = loopback(&links).await;
        assert_eq!(place.carrier, Carrier::Loopback);
        let put = links.put(&place, &ours(), MINUTES).await.expect("put");
        assert_eq!(put, Put { added: ours(), ..Put::default() });

        for address in [LINK_LOCAL, SERVICE] {
            let it = seen_once("lo", address);
            assert_eq!(it["prefixlen"], 32);
            assert_eq!(it["label"], "lo:nodens");
            assert!((290..=300).contains(&it["valid_life_time"].as_u64().expect("seconds")), "{it}");
        }
        let six = seen_once("lo", SERVICE6);
        assert_eq!(six["prefixlen"], 128);
        assert_eq!(six["nodad"], true);
        assert!(six.get("tentative").is_none(), "usable at once: {six}");
        assert_eq!(six["deprecated"], true, "nobody's source address: {six}");
        assert_eq!(six["noprefixroute"], true, "that route would outlive it: {six}");
        assert!((290..=300).contains(&six["valid_life_time"].as_u64().expect("seconds")), "{six}");
    });
}

// A worker of the kernel's makes them local, later than it acknowledges the address; connected sockets look again when
// something changes in the main table.
#[test]
fn packets_to_an_ipv6_address_are_local_before_it_comes() {
    in_a_namespace(|| async {
        let links = links();
        let place = loopback(&links).await;
        let news = rtnetlink::new_multicast_connection(&[rtnetlink::MulticastGroup::Ipv6Route]);
        let (connection, _, mut news) = news.expect("a second socket");
        tokio::spawn(connection);
        links.put(&place, &ours(), MINUTES).await.expect("put");
        let to_us = RouteAttribute::Destination(RouteAddress::Inet6(SERVICE6.parse().expect("an address")));
        let mut said = Vec::new();
        while said.len() < 5 {
            let message = tokio::time::timeout(PATIENCE, news.next()).await.expect("in time").expect("more news").0;
            let NetlinkPayload::InnerMessage(news) = message.payload else { continue };
            let (verb, route) = match news {
                RouteNetlinkMessage::NewRoute(route) => ("new", route),
                RouteNetlinkMessage::DelRoute(route) => ("gone", route),
                _ => continue,
            };
            if route.attributes.contains(&to_us) {
                assert_eq!(route.header.kind, RouteType::Local);
                said.push((verb, route.header.table, route.header.protocol));
            }
        }
        let (main, local) = (RouteHeader::RT_TABLE_MAIN, 255);
        let (ours, the_kernels) = (RouteProtocol::Other(PROTOCOL), RouteProtocol::Kernel);
        let expected = [
            ("new", local, ours),
            ("new", main, ours),
            ("new", local, the_kernels),
            ("gone", local, ours),
            ("gone", main, ours),
        ];
        assert_eq!(said, expected);
        links.sweep(None).await.expect("swept");
        let left = run("ip -6 route show table all");
        assert!(!left.contains("96::a"), "{left}");
    });
}

// Nothing is left of a step that fails.
#[test]
fn the_routes_before_an_address_go_with_a_put_that_fails() {
    in_a_namespace(|| async {
        let links = links();
        let place = loopback(&links).await;
        let impossible = ips(&[SERVICE6, "ff02::1"]);
        links.put(&place, &impossible, MINUTES).await.expect_err("a group is no address");
        assert_eq!(locals("lo"), ["127.0.0.1", "::1"]);
        let routes = run("ip -6 route show table all");
        assert!(!routes.contains("96::a"), "{routes}");
    });
}

// The kernel acknowledges an IPv6 address before packets to it are local, so this goes round a few times.
#[test]
fn a_socket_answers_on_a_leased_address_of_either_family() {
    in_a_namespace(|| async {
        let links = links();
        let place = loopback(&links).await;
        for _ in 0..20 {
            links.put(&place, &ours(), MINUTES).await.expect("put");
            for address in ours() {
                let client =
                    std::net::UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).expect("bound");
                client.send_to(b"?", (address, 53)).expect("local at once");
            }
            links.sweep(None).await.expect("swept");
        }
        links.put(&place, &ours(), MINUTES).await.expect("put");
        for address in ours() {
            let server = tokio::net::UdpSocket::bind((address, 53)).await.expect("bound");
            let client =
                std::net::UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).expect("bound");
            client.send_to(b"?", (address, 53)).expect("sent");
            let mut octets = [0; 4];
            let (length, _) = tokio::time::timeout(PATIENCE, server.recv_from(&mut octets))
                .await
                .expect("in time")
                .expect("received");
            assert_eq!(&octets[..length], b"?");
        }
    });
}

// L10: whoever takes it away again at once is not waited for.
#[test]
fn an_address_that_is_removed_before_it_is_there_is_an_error_at_once() {
    in_a_namespace(|| async {
        let links = links();
        let place = loopback(&links).await;
        let address = SERVICE6.parse().expect("an address");
        let mut arrivals = Arrivals::herald(&links, place.index, vec![address]).await.expect("events");
        run(&format!("ip addr add {SERVICE6}/128 dev lo nodad"));
        run(&format!("ip addr del {SERVICE6}/128 dev lo"));
        let error = arrivals.complete(&links).await.expect_err("it is gone");
        arrivals.dismiss(&links).await;
        assert!(error.to_string().contains(SERVICE6) && error.is(Errno::EADDRNOTAVAIL), "{error}");
    });
}

// L02: a start that fails later leaves the link as it was; one that an earlier start made is not its to remove.
#[test]
fn a_start_takes_back_what_it_put_there_and_no_more() {
    in_a_namespace(|| async {
        let links = links().making(InfoKind::Bridge);
        let place = links.ensure("nodens").await.expect("made");
        let put = links.put(&place, &ours(), MINUTES).await.expect("put");
        links.take_back(&place, &put).await;
        assert!(try_run("ip link show dev nodens").is_err());

        let first = links.ensure("nodens").await.expect("made again");
        links.put(&first, &ips(&[LINK_LOCAL]), MINUTES).await.expect("put");
        let second = links.ensure("nodens").await.expect("adopted");
        let put = links.put(&second, &ours(), MINUTES).await.expect("put");
        links.take_back(&second, &put).await;
        assert_eq!(locals("nodens"), [LINK_LOCAL]);
    });
}

#[test]
fn renewal_is_in_place() {
    in_a_namespace(|| async {
        let links = links();
        let place = loopback(&links).await;
        links.put(&place, &ours(), Duration::from_secs(60)).await.expect("put");
        let mut events = Events::open().expect("events");
        let put = links.put(&place, &ours(), MINUTES).await.expect("renewed");
        assert_eq!(put, Put { renewed: ours(), ..Put::default() });
        for address in [LINK_LOCAL, SERVICE, SERVICE6] {
            assert!(seen_once("lo", address)["valid_life_time"].as_u64().expect("seconds") > 200);
        }
        // Whatever was said between the renewal and this sentinel, it was not that an address went.
        run("ip addr add 192.0.2.99/32 dev lo");
        let sentinel = ips(&["192.0.2.99"])[0];
        let ends = |it: &Event| {
            matches!(it, Event::AddressRemoved { .. })
                || matches!(it, Event::AddressAdded { address, .. } if *address == sentinel)
        };
        assert_eq!(await_event(&mut events, ends).await, Event::AddressAdded { index: place.index, address: sentinel });
    });
}

// L09: one copy of each address after 50 restarts, whoever died in between.
#[test]
fn fifty_restarts_leave_one_copy_of_each_address() {
    in_a_namespace(|| async {
        for life in 0..50 {
            let links = links();
            let place = loopback(&links).await;
            let put = links.put(&place, &ours(), MINUTES).await.expect("put");
            assert_eq!(put.added.len(), if life == 0 { 3 } else { 0 });
            assert_eq!(links.sweep(Some((&place, &ours()))).await.expect("swept"), Swept::default());
        }
        for address in [LINK_LOCAL, SERVICE, SERVICE6] {
            seen_once("lo", address);
        }
    });
}

#[test]
fn the_kernel_takes_back_what_nobody_renews() {
    in_a_namespace(|| async {
        let links = links();
        let place = loopback(&links).await;
        let mut events = Events::open().expect("events");
        links.put(&place, &ours(), Duration::from_secs(1)).await.expect("put");
        for address in ours() {
            let gone = Event::AddressRemoved { index: place.index, address };
            // Both families end at their own pace: a stream of its own for each would miss the earlier one.
            if links
                .observe("lo")
                .await
                .expect("observed")
                .expect("there")
                .addresses
                .iter()
                .any(|it| it.address == address)
            {
                await_event(&mut events, |it| *it == gone).await;
            }
        }
        assert_eq!(locals("lo"), ["127.0.0.1", "::1"]);
    });
}

#[test]
fn addresses_no_longer_wanted_go_and_the_others_stay() {
    in_a_namespace(|| async {
        let links = links();
        let place = loopback(&links).await;
        links.put(&place, &ours(), MINUTES).await.expect("put");
        let wanted = ips(&[LINK_LOCAL]);
        let mut swept = links.sweep(Some((&place, &wanted))).await.expect("swept");
        swept.addresses.sort();
        assert_eq!(
            swept.addresses,
            ips(&[SERVICE, SERVICE6]).into_iter().map(|it| ("lo".to_owned(), it)).collect::<Vec<_>>()
        );
        assert_eq!(locals("lo"), ["127.0.0.1", LINK_LOCAL, "::1"]);
    });
}

#[test]
fn what_somebody_else_put_there_is_used_and_left() {
    in_a_namespace(|| async {
        run(&format!("ip addr add {SERVICE}/32 dev lo"));
        run(&format!("ip addr add {SERVICE6}/128 dev lo"));
        run("ip addr add 192.0.2.7/32 dev lo valid_lft 900 preferred_lft 900");
        let links = links();
        let place = loopback(&links).await;
        let put = links.put(&place, &ours(), MINUTES).await.expect("put");
        assert_eq!(put, Put { added: ips(&[LINK_LOCAL]), renewed: vec![], foreign: ips(&[SERVICE, SERVICE6]) });
        let swept = links.sweep(None).await.expect("swept");
        assert_eq!(swept.addresses, vec![("lo".to_owned(), ips(&[LINK_LOCAL])[0])]);
        assert_eq!(seen_once("lo", SERVICE)["valid_life_time"], u64::from(u32::MAX));
        assert_eq!(seen_once("lo", SERVICE6)["valid_life_time"], u64::from(u32::MAX));
        seen_once("lo", "192.0.2.7");
    });
}

#[test]
fn a_failed_put_takes_back_what_it_had_added() {
    in_a_namespace(|| async {
        std::fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "1").expect("the switch of this namespace");
        let links = links();
        let place = loopback(&links).await;
        let error = links.put(&place, &ours(), MINUTES).await.expect_err("IPv6 is off");
        assert!(error.to_string().starts_with("could not put fd00:10:96::a on the link `lo`: "), "{error}");
        assert_eq!(locals("lo"), ["127.0.0.1"]);
    });
}

// L10: somebody deletes our link; a bridge stands in for the dummy link that this kernel may not have.
#[test]
fn a_link_of_our_making_is_marked_made_again_and_removed() {
    in_a_namespace(|| async {
        let links = links().making(InfoKind::Bridge);
        let mut events = Events::open().expect("events");
        let place = links.ensure("nodens").await.expect("made");
        assert!(place.ours && place.carrier == Carrier::Own, "{place:?}");
        links.put(&place, &ours(), MINUTES).await.expect("put");
        let shown: Value = serde_json::from_str(&run("ip -j link show dev nodens")).expect("JSON");
        assert_eq!(shown[0]["ifalias"], "nodens");
        assert!(shown[0]["flags"].as_array().expect("flags").contains(&"UP".into()), "{shown}");
        assert_eq!(locals("nodens"), [LINK_LOCAL, SERVICE, SERVICE6], "no address of the kernel's own idea");

        run("ip link del nodens");
        let gone = Event::LinkRemoved { index: place.index, name: "nodens".to_owned() };
        await_event(&mut events, |it| *it == gone).await;
        assert_eq!(links.observe("nodens").await.expect("observed"), None);
        let again = links.ensure("nodens").await.expect("made again");
        assert_ne!(again.index, place.index);
        links.put(&again, &ours(), MINUTES).await.expect("put");

        let swept = links.sweep(None).await.expect("swept");
        assert_eq!(swept, Swept { addresses: vec![], links: vec!["nodens".to_owned()] });
        assert!(try_run("ip link show dev nodens").is_err());
    });
}

#[test]
fn a_link_of_ours_is_adopted_also_if_its_maker_died_before_marking_it() {
    in_a_namespace(|| async {
        run("ip link add nodens type bridge");
        let links = links().making(InfoKind::Bridge);
        let place = links.ensure("nodens").await.expect("adopted");
        assert!(place.ours);
        assert!(!place.made);
        assert_eq!(links.ensure("nodens").await.expect("adopted again"), place);
    });
}

#[test]
fn a_link_with_somebody_elses_address_is_used_and_stays() {
    in_a_namespace(|| async {
        run("ip link add nodens type bridge");
        run("ip addr add 192.0.2.1/24 dev nodens");
        let links = links().making(InfoKind::Bridge);
        let place = links.ensure("nodens").await.expect("used");
        assert!(!place.ours);
        links.put(&place, &ours(), MINUTES).await.expect("put");
        // On somebody else's link only a mark counts: this is IFA_PROTO there and back.
        let swept = links.sweep(None).await.expect("swept");
        let all = ours().into_iter().map(|it| ("nodens".to_owned(), it)).collect();
        assert_eq!(swept, Swept { addresses: all, links: vec![] });
        seen_once("nodens", "192.0.2.1");
    });
}

#[test]
fn a_change_of_interface_leaves_nothing_on_the_old_one() {
    in_a_namespace(|| async {
        let links = links().making(InfoKind::Bridge);
        let old = loopback(&links).await;
        links.put(&old, &ours(), MINUTES).await.expect("put");
        let new = links.ensure("nodens").await.expect("made");
        links.put(&new, &ours(), MINUTES).await.expect("put");
        links.sweep(Some((&new, &ours()))).await.expect("swept");
        assert_eq!(locals("lo"), ["127.0.0.1", "::1"]);
        assert_eq!(locals("nodens"), [LINK_LOCAL, SERVICE, SERVICE6]);
    });
}

#[test]
fn a_link_of_another_kind_is_not_ours_to_use() {
    in_a_namespace(|| async {
        run("ip link add nodens type bridge");
        let error = links().ensure("nodens").await.expect_err("a bridge is no dummy link");
        assert!(error.to_string().contains("`nodens`: it is of the kind bridge, not dummy"), "{error}");
        run("ip link show dev nodens");
    });
}

#[test]
fn the_driver_is_asked_for_without_making_anything() {
    in_a_namespace(|| async {
        let before = run("ip -o link");
        assert!(links().making(InfoKind::Bridge).has_driver().await.expect("an answer"));
        assert!(!links().making(InfoKind::Other("nosuchdriver".to_owned())).has_driver().await.expect("an answer"));
        let answer = links().has_driver().await.expect("an answer");
        assert_eq!(run("ip -o link"), before);
        assert_eq!(answer, try_run("ip link add probe type dummy").is_ok());
    });
}

#[test]
fn without_the_driver_the_loopback_takes_the_links_place() {
    in_a_namespace(|| async {
        let links = links().making(InfoKind::Other("nosuchdriver".to_owned()));
        let place = links.ensure("nodens").await.expect("the loopback");
        assert_eq!((place.name.as_str(), place.carrier), ("lo", Carrier::LoopbackForWantOfDriver));
        links.put(&place, &ours(), MINUTES).await.expect("put");
        seen_once("lo", SERVICE);
    });
}

// The one test that may be skipped wherever it runs: the machine's kernel either has the driver or not.
#[test]
fn a_dummy_link_is_made_where_the_kernel_has_the_driver() {
    in_a_namespace(|| async {
        let links = links();
        if !links.has_driver().await.expect("an answer") {
            eprintln!("SKIPPED: this kernel has no `dummy` driver");
            return;
        }
        let place = links.ensure("nodens").await.expect("made");
        assert!(place.ours && place.carrier == Carrier::Own, "{place:?}");
        links.put(&place, &ours(), MINUTES).await.expect("put");
        assert_eq!(locals("nodens"), [LINK_LOCAL, SERVICE, SERVICE6]);
        let shown = run("ip -d link show dev nodens");
        assert!(shown.contains("dummy") && shown.contains("alias nodens"), "{shown}");
        assert_eq!(links.sweep(None).await.expect("swept").links, ["nodens"]);
    });
}

#[test]
fn uplinks_hold_a_default_route_that_leads_somewhere() {
    in_a_namespace(|| async {
        let links = links();
        let mut events = Events::open().expect("events");
        assert_eq!(links.uplinks().await.expect("listed"), Vec::<String>::new());
        for name in ["wan4", "wan6", "pod", "spread"] {
            run(&format!("ip link add {name} type bridge"));
            run(&format!("ip link set {name} up"));
        }
        run("ip addr add 192.0.2.1/24 dev wan4");
        run("ip addr add 198.51.100.1/24 dev spread");
        run("ip -6 addr add 2001:db8::1/64 dev wan6 nodad");
        run("ip route add 203.0.113.0/24 dev pod");
        run("ip route add unreachable default metric 4000");
        run("ip route add default via 192.0.2.254");
        run("ip -6 route add default via 2001:db8::ff dev wan6");
        run("ip route add default table 77 nexthop via 192.0.2.253 nexthop via 198.51.100.253");
        await_event(&mut events, |it| *it == Event::DefaultRoute).await;
        assert_eq!(links.uplinks().await.expect("listed"), ["spread", "wan4", "wan6"]);
    });
}

#[test]
fn a_flood_of_events_ends_in_an_overrun_and_the_stream_goes_on() {
    in_a_namespace(|| async {
        let mut events = Events::open().expect("events");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let many: String = (0..4000_u32)
            .fold(String::new(), |all, it| all + &format!("addr add 10.9.{}.{}/32 dev lo\n", it / 250, it % 250));
        std::fs::write(file.path(), many).expect("written");
        // Nothing here yields to the runtime, so nobody reads the events meanwhile.
        run(&format!("ip -batch {}", file.path().display()));
        await_event(&mut events, |it| *it == Event::Overrun).await;
        run("ip addr add 192.0.2.99/32 dev lo");
        let sentinel = ips(&["192.0.2.99"])[0];
        await_event(&mut events, |it| matches!(it, Event::AddressAdded { address, .. } if *address == sentinel)).await;
    });
}

// L02: no NET_ADMIN ends in one clear line, with nothing left behind.
#[test]
fn without_net_admin_the_step_and_the_right_are_named() {
    run_without_net_admin("node::link::tests::the_part_without_net_admin");
}

#[test]
#[ignore = "run by without_net_admin_the_step_and_the_right_are_named, with its rights taken away"]
fn the_part_without_net_admin() {
    if !is_a_child() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let links = links();
        let error = links.ensure("nodens").await.expect_err("no right to make links");
        assert!(error.is(Errno::EPERM));
        assert_eq!(
            error.to_string(),
            "could not make the dummy link `nodens`: Operation not permitted (os error 1) (this needs CAP_NET_ADMIN)"
        );
        let place = links.ensure(LOOPBACK).await.expect("looking is free");
        let error = links.put(&place, &ours(), MINUTES).await.expect_err("no right to put addresses");
        assert!(error.to_string().starts_with("could not put 169.254.20.10 on the link `lo`: "), "{error}");
    });
}
