//! Where servers come from, and networks that go away: resolv.conf, routes, odd lists of servers.

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use std::{fs, thread};

use crate::crowd::{self, ask_all, assert_all_right};
use crate::network::{in_a_network_of_its_own, ip};
use crate::peers::programs::skip;
use crate::support::agent::{Agent, Reload};
use crate::support::client::{Ask, ask};
use crate::support::config::Config;
use crate::support::octets::{A, NOERROR, SERVFAIL};
use crate::support::upstream::{self, Upstream, address_of, encoded};
use crate::support::{fresh_address, seconds, until};

/// Writes a resolv.conf the way a mounted `ConfigMap` changes: a new directory, and one rename of the link to it.
fn mount(volume: &Path, version: u32, servers: &[&Upstream]) {
    let data = format!("..version_{version}");
    fs::create_dir(volume.join(&data)).expect("the directory is ours");
    let lines: Vec<String> = servers.iter().map(|server| format!("nameserver {}\n", server.address().ip())).collect();
    fs::write(volume.join(&data).join("resolv.conf"), lines.concat()).expect("the directory is ours");
    symlink(&data, volume.join("..data_tmp")).expect("the directory is ours");
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("the directory is ours");
    if version == 1 {
        symlink("..data/resolv.conf", volume.join("resolv.conf")).expect("the directory is ours");
    }
}

// H18: the file that names the servers is swapped under load.
#[test]
fn servers_follow_resolv_conf_without_a_lost_question() {
    if UdpSocket::bind((fresh_address(), 53)).is_err() {
        return skip("servers in a resolv.conf are asked on port 53, which only root can take");
    }
    let on_53 = || Upstream::at(SocketAddr::new(fresh_address(), 53), true, encoded(300));
    let (leaving, staying, coming, elsewhere) = (on_53(), on_53(), on_53(), Upstream::new(encoded(300)));
    let volume = tempfile::tempdir().expect("a temporary directory can be made");
    mount(volume.path(), 1, &[&leaving, &staying]);
    let config = Config::with_servers(&[leaving.address()], "")
        .upstream("elsewhere", &[elsewhere.address()], "")
        .zone("elsewhere.test", "{ upstream: elsewhere }");
    let agent = Agent::start(&config);
    let by_address = format!("servers: [\"{}\"]", leaving.address());
    let by_file = format!("resolv_conf: \"{}\"", volume.path().join("resolv.conf").display());
    let yaml = agent.config().yaml().replace(&by_address, &by_file).replace("sequential", "round-robin");
    assert!(yaml.contains(&by_file), "{yaml}");
    assert_eq!(agent.reload_yaml(&yaml), Reload::Done);

    assert_all_right(&ask_all(agent.addr(), crowd::names("before.test", 100), 4, seconds(5)));
    let shares = [&leaving, &staying].map(|server| server.seen().len());
    assert!(shares.iter().all(|share| *share > 0), "shares of 100: {shares:?}");

    // Questions go on while the file changes, until the new server has some; ten seconds at most.
    let arrived = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            mount(volume.path(), 2, &[&staying, &coming]);
            let _ = coming.wait_for(1);
            arrived.store(true, Ordering::SeqCst);
        });
        let (mut round, start) = (0, Instant::now());
        while !arrived.load(Ordering::SeqCst) && start.elapsed() < seconds(11) {
            round += 1;
            let names = crowd::names(&format!("r{round}.during.test"), 50);
            assert_all_right(&ask_all(agent.addr(), names, 4, seconds(5)));
        }
    });
    let before = leaving.seen().len();
    assert_all_right(&ask_all(agent.addr(), crowd::names("after.test", 100), 4, seconds(5)));
    assert_eq!(leaving.seen().len(), before, "the server that left the file is still asked");
    ask(agent.addr(), "x.elsewhere.test", A).assert_encodes("x.elsewhere.test");
    assert_eq!(elsewhere.seen().len(), 1, "{}", elsewhere.history());
}

/// Processor time the agent has used so far, in hundredths of a second.
fn processor_time(agent: &Agent) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", agent.pid())).expect("the agent runs");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("a name in brackets").split(' ').collect();
    [11, 12].map(|field| fields[field].parse::<u64>().expect("utime and stime are numbers")).iter().sum()
}

// H19: no route to the server for a while (ENETUNREACH): known names go stale, nothing spins, all is well afterwards.
#[test]
fn a_lost_route_is_survived_and_its_return_noticed() {
    in_a_network_of_its_own(|| {
        ip("address add 10.53.0.1/32 dev lo");
        let server = SocketAddr::new([10, 53, 0, 1].into(), upstream::PORT);
        let upstream = Upstream::at(server, true, encoded(1));
        let agent = Agent::start(&Config::new(&upstream));
        let known = ask(agent.addr(), "known.test", A);
        known.assert_encodes("known.test");

        ip("address del 10.53.0.1/32 dev lo");
        let (lost, used) = (Instant::now(), processor_time(&agent));
        until(known.at + seconds(2));
        let stale = ask(agent.addr(), "known.test", A);
        stale.assert_encodes("known.test").assert_ede(&[crate::support::octets::STALE_ANSWER]);
        for name in crowd::names("lost.test", 3) {
            ask(agent.addr(), &name, A).assert_rcode(SERVFAIL);
        }
        until(lost + seconds(4));
        let used = processor_time(&agent) - used;
        let elapsed = lost.elapsed().as_millis() as u64 / 10;
        assert!(used < elapsed / 4, "{used} of {elapsed} hundredths of a second spent on nothing");

        ip("address add 10.53.0.1/32 dev lo");
        let back = Instant::now();
        let mut number = 0_u32;
        loop {
            number += 1;
            let name = format!("n{number}.back.test");
            let answer = Ask::new(&name, A).within(seconds(5)).send(agent.addr());
            if answer.rcode() == NOERROR {
                assert_eq!(answer.ipv4(), [address_of(&name)]);
                break;
            }
            assert!(back.elapsed() < seconds(2) + super::SLACK, "no service {:?} after the route", back.elapsed());
            until(back + super::AT_ONCE / 5 * number);
        }
    });
}

// H20: long lists, repeated servers, addresses with a zone: taken, or refused with a text that names the server.
#[test]
fn odd_lists_of_servers_are_taken_or_refused_in_words() {
    let many: Vec<String> = (1..=16).map(|last| format!("\"192.0.2.{last}\"")).collect();
    for (servers, named) in [
        (many.join(", "), "servers"),
        ("\"192.0.2.1\", \"192.0.2.1:53\"".to_owned(), "192.0.2.1"),
        ("\"[fe80::1%lo]:53\"".to_owned(), "fe80::1"),
    ] {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let file = directory.path().join("nodens.yaml");
        let yaml =
            format!("upstreams: {{ main: {{ servers: [{servers}] }} }}\nzones: {{ \".\": {{ upstream: main }} }}\n");
        fs::write(&file, yaml).expect("the directory takes files");
        let output = Command::new(env!("CARGO_BIN_EXE_nodens"))
            .args(["check", "-c"])
            .arg(&file)
            .output()
            .expect("cargo built the binary");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        match output.status.code() {
            Some(0) => {}
            Some(1) => assert!(said.contains(named), "{servers} is refused without a reason: {said}"),
            other => panic!("check of {servers} ended with {other:?}: {said}"),
        }
    }
}
