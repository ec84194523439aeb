//! Some clients are stripped of IPv6, others are not, and all share one cache.

use std::net::{IpAddr, Ipv6Addr};

use super::{AAAA, Agent, Ask, Config, MX, Reply, Upstream, address6_of, assert_no_ipv6, assert_stripped, encoded};
use crate::support::client::Answer;
use crate::support::fresh_address;
use crate::support::octets::{self, A, NOERROR, TC};

/// An agent that strips for one of the two addresses only.
fn choosy(upstream: &Upstream) -> (Agent, [IpAddr; 2]) {
    let clients = [fresh_address(), fresh_address()];
    let prefix = format!("[\"{}/32\"]", clients[0]);
    (Agent::start(&Config::new(upstream).top("aaaa", "strip").top("aaaa_clients", &prefix)), clients)
}

fn ask_from(agent: &Agent, client: IpAddr, name: &str, rtype: u16) -> Answer {
    Ask::new(name, rtype).from(client).send(agent.addr())
}

// V09: whoever asks first, each set of clients sees its own answer, from one cache.
#[test]
fn only_the_chosen_clients_are_stripped() {
    let upstream = Upstream::new(encoded(300));
    let (agent, [stripped, other]) = choosy(&upstream);
    for (name, order) in [("one.test", [stripped, other]), ("two.test", [other, stripped])] {
        for client in order.into_iter().chain(order) {
            let answer = ask_from(&agent, client, name, AAAA);
            if client == stripped {
                assert_stripped(&answer);
            } else {
                assert_eq!(answer.ipv6(), [address6_of(name)], "{answer:?}");
                answer.assert_ede(&[]);
            }
            ask_from(&agent, client, name, A).assert_encodes(name);
        }
    }
}

// V09: an edit of one client's copy leaves the cached octets alone, also where records are taken out of the middle.
#[test]
fn records_taken_from_one_client_are_there_for_the_next() {
    let upstream = Upstream::new(|seen| {
        Reply::to(seen)
            .answer(octets::mx(&seen.name, 300, "host.test"))
            .additional(octets::aaaa("host.test", 300, address6_of("host.test")))
            .additional(octets::a("host.test", 300, [192, 0, 2, 1]))
            .now()
    });
    let (agent, [stripped, other]) = choosy(&upstream);
    for _ in 0..3 {
        let short = ask_from(&agent, stripped, "mail.test", MX);
        assert_no_ipv6(&short);
        assert_eq!(short.additionals.len(), 1, "{short:?}");
        assert_eq!(ask_from(&agent, other, "mail.test", MX).additionals.len(), 2);
    }
    assert_eq!(upstream.count_of("mail.test", MX), 1, "{}", upstream.history());
}

// V09: whether an answer fits is found out from what is sent, not from what is stored.
#[test]
fn truncation_is_about_the_message_that_is_sent() {
    let upstream = Upstream::new(|seen| {
        let addresses =
            (0..30_u16).map(|last| octets::aaaa("host.test", 300, Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)));
        let mut reply = Reply::to(seen).answer(octets::mx(&seen.name, 300, "host.test"));
        reply.additionals.extend(addresses);
        reply.additional(octets::a("host.test", 300, [192, 0, 2, 1])).now()
    });
    let (agent, [stripped, other]) = choosy(&upstream);
    for _ in 0..2 {
        let ask = |client| Ask::new("mail.test", MX).size(512).from(client).send(agent.addr());
        let whole = ask(stripped);
        whole.assert_rcode(NOERROR);
        assert!(!whole.has(TC) && whole.additionals.len() == 1, "{whole:?}");
        let cut = ask(other);
        assert!(cut.octets.len() <= 512, "{} octets", cut.octets.len());
        assert!(cut.has(TC) || cut.additionals.len() < 31, "{cut:?}");
    }
}
