//! Clients that others wrote: dig, drill, and the stub resolvers of glibc and musl.

mod view;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use self::view::{Library, POD, View};
use crate::peers::programs;
use crate::support::agent::Agent;
use crate::support::config::Config;
use crate::support::octets::{self, A, AAAA};
use crate::support::upstream::{
    Act, Reply, Seen, Upstream, address_of, address6_of, encoded, encoded_reply, nxdomain, silent,
};
use crate::support::{fresh_address, until};

/// Names that a search list makes up do not exist; every other name has its encoded addresses.
fn outside_world(seen: &Seen) -> Vec<Act> {
    if seen.name.ends_with("cluster.local") {
        Reply { authorities: vec![octets::soa("cluster.local", 1, 1)], ..nxdomain(seen) }.now()
    } else {
        encoded_reply(seen, 300).now()
    }
}

/// An agent where C libraries look for one.
fn agent_on_port_53(config: &Config) -> Agent {
    Agent::start(&config.clone().listen(&[fresh_address()]).port(53))
}

/// Both addresses that stand for a name, as a C library prints them in order.
fn both_addresses(name: &str) -> Vec<String> {
    let mut both = vec![address_of(name).to_string(), address6_of(name).to_string()];
    both.sort_unstable();
    both
}

// V13: A and AAAA leave one socket in one go, a thousand times; a lost one would show as a stall of 5 s.
#[test]
fn both_addresses_come_without_a_stall_a_thousand_times() {
    if !view::possible() {
        return;
    }
    let upstream = Upstream::new(encoded(300));
    let agent = agent_on_port_53(&Config::new(&upstream));
    let view = View::new(&agent, "options ndots:1");
    for library in Library::present() {
        for found in view.resolve(library, 1_000, "n%d.pair.test") {
            assert_eq!(found.error, 0, "{library:?}: {found:?}");
            assert_eq!(found.addresses, both_addresses(&found.name), "{library:?}: {found:?}");
            assert!(found.milliseconds < 4_000, "{library:?} waited: {found:?}");
        }
    }
}

// V13, V01: with the IPv6 addresses stripped there is one answer and one empty one, and still no stall.
#[test]
fn a_stripped_family_is_neither_an_error_nor_a_stall() {
    if !view::possible() {
        return;
    }
    let upstream = Upstream::new(encoded(300));
    let agent = agent_on_port_53(&Config::new(&upstream).top("aaaa", "strip"));
    let view = View::new(&agent, "options ndots:1");
    for library in Library::present() {
        for found in view.resolve(library, 200, "n%d.strip.test") {
            assert_eq!(found.error, 0, "{library:?}: {found:?}");
            assert_eq!(found.addresses, [address_of(&found.name).to_string()], "{library:?}: {found:?}");
            assert!(found.milliseconds < 4_000, "{library:?} waited: {found:?}");
        }
    }
    assert_eq!(upstream.seen().iter().filter(|seen| seen.rtype == AAAA).count(), 0, "{}", upstream.history());
}

// V02: three names of the search list do not exist, the fourth does; both libraries have to walk the whole list.
#[test]
fn an_outside_name_is_found_behind_a_search_list() {
    if !view::possible() {
        return;
    }
    let upstream = Upstream::new(outside_world);
    for mode in ["keep", "strip", "strip-if-a"] {
        let agent = agent_on_port_53(&Config::new(&upstream).top("aaaa", mode));
        let view = View::new(&agent, POD);
        for library in Library::present() {
            let found = view.resolve_one(library, "api.example.com");
            assert_eq!(found.error, 0, "{library:?}, {mode}: {found:?}");
            let expected = match mode {
                "keep" => both_addresses("api.example.com"),
                _ => vec![address_of("api.example.com").to_string()],
            };
            assert_eq!(found.addresses, expected, "{library:?}, {mode}");
        }
        let listed = view.run("getent", &["ahosts", "api.example.com"]);
        assert!(listed.contains(&address_of("api.example.com").to_string()), "{mode}: {listed}");
    }
}

// S12: the cluster DNS is gone, yet names outside must be found: the stale NXDOMAINs of the search list lead there.
#[test]
fn an_outside_name_is_found_while_the_upstream_is_silent() {
    if !view::possible() {
        return;
    }
    let upstream = Upstream::new(outside_world);
    let cache = "serve_stale: { max_stale: 1h, ttl: 30s, client_timeout: 0s }";
    let agent = agent_on_port_53(&Config::new(&upstream).cache(cache));
    let view = View::new(&agent, POD);
    // Twice: a stale NXDOMAIN is kept only for names that are asked more than once.
    for _ in 0..2 {
        for library in Library::present() {
            assert_eq!(view.resolve_one(library, "api.example.com").error, 0);
        }
    }
    let last = upstream.seen().last().expect("the names were asked for").at;
    upstream.set(silent);
    until(last + std::time::Duration::from_secs(2));

    for library in Library::present() {
        let found = view.resolve_one(library, "api.example.com");
        assert_eq!((found.error, &found.addresses), (0, &both_addresses("api.example.com")), "{library:?}: {found:?}");
    }
}

// E06, C26: forty addresses do not fit 512 octets. glibc asks again over TCP; musl takes what fits, or does the same.
#[test]
fn a_name_with_forty_addresses_is_usable() {
    if !view::possible() {
        return;
    }
    let addresses = |seen: &Seen| match seen.rtype {
        A => Reply::to(seen).answers((0..40).map(|last| octets::a(&seen.name, 300, [192, 0, 2, last]))).now(),
        _ => encoded_reply(seen, 300).now(),
    };
    let upstream = Upstream::new(addresses);
    let agent = agent_on_port_53(&Config::new(&upstream));
    let view = View::new(&agent, "options ndots:1");
    for library in Library::present() {
        let found = view.resolve_one(library, "forty.test");
        assert_eq!(found.error, 0, "{library:?}: {found:?}");
        let count = found.addresses.iter().filter(|address| address.starts_with("192.0.2.")).count();
        let least = if library == Library::Glibc { 40 } else { 20 };
        assert!(count >= least, "{library:?} has {count} of 40 addresses");
    }
}

// T01: `use-vc` makes glibc ask over TCP, both questions on one connection. The other options change its sockets.
#[test]
fn glibc_is_served_whatever_its_options() {
    if !view::possible() || !programs::present(&["gcc"]) {
        return;
    }
    let upstream = Upstream::new(encoded(300));
    let agent = agent_on_port_53(&Config::new(&upstream));
    for options in ["use-vc", "single-request", "single-request-reopen", "edns0", "trust-ad edns0", "rotate"] {
        let view = View::new(&agent, &format!("options ndots:1 {options}"));
        for found in view.resolve(Library::Glibc, 20, "n%d.option.test") {
            assert_eq!((found.error, &found.addresses), (0, &both_addresses(&found.name)), "{options}: {found:?}");
            assert!(found.milliseconds < 4_000, "{options}: {found:?}");
        }
    }
}

/// What dig prints about a question asked with these words.
fn dig(agent: SocketAddr, words: &str) -> String {
    let (address, port) = (format!("@{}", agent.ip()), agent.port().to_string());
    let mut arguments = vec![&address[..], "-p", &port, "+tries=1", "+time=6"];
    arguments.extend(words.split(' '));
    let text = programs::output_of("dig", &arguments, Path::new("/"));
    for complaint in ["malformed", "extra bytes", "not available", "mismatch", "Warning", "bad packet", "no servers"] {
        assert!(!text.contains(complaint), "dig {words} complains of {complaint:?}:\n{text}");
    }
    text
}

// E01, E02, E07, E13, E15: every way dig can ask has an answer that dig finds nothing wrong with.
#[test]
fn dig_is_content_with_every_answer() {
    if !programs::present(&["dig"]) {
        return;
    }
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    let address = address_of("www.test").to_string();
    for words in [
        "www.test",
        "www.test +tcp",
        "www.test +bufsize=512",
        "www.test +bufsize=4096",
        "www.test +dnssec",
        "www.test +nocookie",
        "www.test +noedns",
        "www.test +cdflag +adflag",
        "www.test +nsid",
        "www.test +subnet=192.0.2.0/24",
        "www.test +padding=128",
        "www.test +ednsopt=65001:cafe",
        "www.test +ednsflags=0x7fff",
        "www.test +zflag",
        "www.test +tcp +keepalive",
        "WwW.tEsT",
    ] {
        let text = dig(agent.addr(), words);
        assert!(text.contains("status: NOERROR") && text.contains(&address), "dig {words}:\n{text}");
        assert!(text.contains("flags: qr rd ra"), "dig {words}:\n{text}");
        assert_eq!(text.contains("EDNS: version: 0"), !words.contains("noedns"), "dig {words}:\n{text}");
        for option in ["COOKIE", "NSID:", "CLIENT-SUBNET:", "PAD", "OPT=65001", "MBZ"] {
            assert!(!text.contains(option), "dig {words} gets {option} back:\n{text}");
        }
        assert_eq!(text.contains("TCP KEEPALIVE"), words.contains("keepalive"), "dig {words}:\n{text}");
    }
    for (words, status) in [
        ("www.test +edns=1 +noednsnegotiation", "BADVERS"),
        ("+header-only www.test", "FORMERR"),
        ("www.test +opcode=notify", "NOTIMP"),
        ("version.bind TXT CH", "REFUSED"),
        ("www.test MX", "NOERROR"),
    ] {
        let text = dig(agent.addr(), words);
        assert!(text.contains(&format!("status: {status}")), "dig {words}:\n{text}");
    }
}

// T01, T02: many questions on one connection, as dig's batch mode puts them.
#[test]
fn dig_keeps_a_connection_open_for_many_questions() {
    if !programs::present(&["dig"]) {
        return;
    }
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let names: Vec<String> = (0..50).map(|number| format!("n{number}.batch.test")).collect();
    fs::write(directory.path().join("names"), names.join("\n")).expect("the directory takes files");

    let (address, port) = (format!("@{}", agent.addr().ip()), agent.addr().port().to_string());
    let arguments = [&address, "-p", &port, "+tcp", "+keepopen", "+short", "-f", "names"];
    let text = programs::output_of("dig", &arguments, directory.path());

    let expected: Vec<String> = names.iter().map(|name| address_of(name).to_string()).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

// E02: drill reads messages with another library (ldns).
#[test]
fn drill_is_content_with_every_answer() {
    if !programs::present(&["drill"]) {
        return;
    }
    let upstream = Upstream::new(encoded(300));
    let agent = Agent::start(&Config::new(&upstream));
    let (at, port) = (format!("@{}", agent.addr().ip()), agent.addr().port().to_string());
    for options in [&[][..], &["-t"], &["-D"], &["-b", "512"], &["-a"]] {
        let arguments = [options, &["-p", &port, "www.test", &at, "A"]].concat();
        let text = programs::output_of("drill", &arguments, Path::new("/"));
        assert!(text.contains("rcode: NOERROR") && text.contains(&address_of("www.test").to_string()), "{text}");
        assert!(text.contains("flags: qr rd ra"), "{text}");
    }
}
