//! The rules in namespaces of the tests' own, seen by `iptables-save` as an independent eye.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::*;
use crate::node::testing::{child, in_a_namespace, is_a_child, run, run_without_net_admin, skip, try_run};

fn addresses() -> Vec<IpAddr> {
    ["169.254.20.10", "fd00:10:96::a"].map(|it| it.parse().expect("an address")).to_vec()
}

fn ports() -> Ports {
    Ports { dns: 53, health: vec![8080] }
}

/// Runs `test` in a namespace, if there is an `iptables` to be tested with.
fn with_iptables(test: fn()) {
    in_a_namespace(move || async move {
        match try_run("iptables --version").and_then(|_| try_run("ip6tables --version")) {
            Ok(_) => test(),
            Err(error) => skip(&format!("no `iptables`: {error}")),
        }
    });
}

/// The rules with our comment that the other program sees, sorted.
fn saved(program: &str) -> Vec<String> {
    let mut table = "";
    let all = run(program);
    let mut rules = Vec::new();
    for line in all.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if line.contains("--comment nodens ") {
            rules.push(format!("{table} {line}"));
        }
    }
    rules.sort();
    rules
}

/// The incumbent's list, written down by hand and sorted.
fn expected(address: &str) -> Vec<String> {
    let rule = |start: &str, side: &str, transport: &str, ports: &str, target: &str| {
        format!(
            "{start} {side} {address} -p {transport} -m {transport} {ports} -m comment --comment nodens -j {target}"
        )
    };
    let mut rules = Vec::new();
    for transport in ["tcp", "udp"] {
        rules.push(rule("raw -A PREROUTING", "-d", transport, "--dport 53", "NOTRACK"));
        rules.push(rule("filter -A INPUT", "-d", transport, "--dport 53", "ACCEPT"));
        rules.push(rule("raw -A OUTPUT", "-s", transport, "--sport 53", "NOTRACK"));
        rules.push(rule("filter -A OUTPUT", "-s", transport, "--sport 53", "ACCEPT"));
        rules.push(rule("raw -A OUTPUT", "-d", transport, "--dport 53", "NOTRACK"));
    }
    rules.push(rule("raw -A OUTPUT", "-d", "tcp", "--dport 8080", "NOTRACK"));
    rules.push(rule("raw -A OUTPUT", "-s", "tcp", "--sport 8080", "NOTRACK"));
    rules.sort();
    rules
}

fn assert_all_there_once() {
    // What some versions of the program print for NOTRACK.
    let plain = |rules: Vec<String>| rules.iter().map(|it| it.replace("CT --notrack", "NOTRACK")).collect::<Vec<_>>();
    assert_eq!(plain(saved("iptables-save")), expected("169.254.20.10/32"));
    assert_eq!(plain(saved("ip6tables-save")), expected("fd00:10:96::a/128"));
}

#[test]
fn the_twelve_rules_of_the_incumbent_are_there_and_go_without_a_trace() {
    with_iptables(|| {
        run("iptables -A INPUT -p tcp --dport 22 -j ACCEPT");
        run("iptables -t raw -A OUTPUT -d 169.254.20.10/32 -p udp --dport 53 -m comment --comment another -j NOTRACK");
        let others = run("iptables-save");
        let iptables = Iptables::open(&addresses()).expect("the programs");
        let ensured = iptables.ensure(&addresses(), &ports()).expect("put there");
        assert_eq!((ensured.added.len(), ensured.removed), (24, 0));
        assert_all_there_once();
        assert_eq!(iptables.remove().expect("removed"), 24);
        assert_eq!(rules_only(&run("iptables-save")), rules_only(&others));
        assert_eq!(saved("ip6tables-save"), Vec::<String>::new());
    });
}

/// Without comments and counters, which change with the time of day.
fn rules_only(save: &str) -> Vec<&str> {
    save.lines().filter(|it| it.starts_with("-A")).collect()
}

// L09: whenever an instance is killed, the next one leaves one copy of each rule.
#[test]
fn fifty_killed_instances_leave_one_copy_of_each_rule() {
    with_iptables(|| {
        for life in 0..50 {
            let mut victim = child(&[], "node::iptables::tests::the_one_who_is_killed")
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("a second one of this program");
            let mut steps = BufReader::new(victim.stdout.take().expect("piped")).lines();
            // After an odd number of steps it is removing, after an even one putting them there.
            for step in 0..=life % 2 {
                let said = steps.by_ref().map(|it| it.expect("text")).find(|it| it == STEP);
                assert_eq!(said.as_deref(), Some(STEP), "step {step}");
            }
            victim.kill().expect("killed");
            victim.wait().expect("dead");

            let iptables = Iptables::open(&addresses()).expect("the programs");
            iptables.ensure(&addresses(), &ports()).expect("put there");
            assert_eq!(iptables.ensure(&addresses(), &ports()), Ok(Ensured::default()));
            assert_all_there_once();
        }
        assert_eq!(Iptables::found().remove(), Ok(24));
    });
}

const STEP: &str = "a step is done";

#[test]
#[ignore = "killed by fifty_killed_instances_leave_one_copy_of_each_rule, in that test's namespace"]
fn the_one_who_is_killed() {
    if !is_a_child() {
        return;
    }
    // Bounded, should nobody kill it.
    for _ in 0..20 {
        let iptables = Iptables::open(&addresses()).expect("the programs");
        iptables.ensure(&addresses(), &ports()).expect("put there");
        println!("\n{STEP}");
        iptables.remove().expect("removed");
        println!("\n{STEP}");
    }
}

#[test]
fn second_copies_and_rules_for_other_addresses_go() {
    with_iptables(|| {
        let iptables = Iptables::open(&addresses()).expect("the programs");
        let old = ["10.96.0.10".parse().expect("an address")];
        iptables.ensure(&old, &ports()).expect("put there");
        run(
            "iptables -t raw -I PREROUTING -d 169.254.20.10/32 -p udp --dport 53 -m comment --comment nodens -j NOTRACK",
        );
        run(
            "iptables -t raw -I PREROUTING -d 169.254.20.10/32 -p udp --dport 53 -m comment --comment nodens -j NOTRACK",
        );
        let ensured = iptables.ensure(&addresses(), &ports()).expect("put there");
        assert_eq!((ensured.added.len(), ensured.removed), (23, 13));
        assert_all_there_once();
    });
}

// L10: a flushed table is whole again after the next look.
#[test]
fn flushed_rules_come_back() {
    with_iptables(|| {
        let iptables = Iptables::open(&addresses()).expect("the programs");
        iptables.ensure(&addresses(), &ports()).expect("put there");
        run("iptables -t raw -F");
        assert_eq!(iptables.ensure(&addresses(), &ports()).expect("put there").added.len(), 8);
        assert_all_there_once();
    });
}

#[test]
fn our_accept_comes_before_a_drop_of_the_hosts() {
    with_iptables(|| {
        run("iptables -A INPUT -j DROP");
        let iptables = Iptables::open(&addresses()).expect("the programs");
        iptables.ensure(&addresses(), &ports()).expect("put there");
        let input = run("iptables -S INPUT");
        let lines: Vec<&str> = input.lines().filter(|it| it.starts_with("-A")).collect();
        assert_eq!(lines.last(), Some(&"-A INPUT -j DROP"), "{input}");
        assert_eq!(lines.len(), 3);
    });
}

// L02: a refused rule ends in a message that names it, and takes the others back.
#[test]
fn a_refused_rule_is_named_and_nothing_of_the_attempt_stays() {
    with_iptables(|| {
        let iptables = Iptables::open(&addresses()).expect("the programs");
        let four_only = Iptables::open(&addresses()[..1]).expect("the program");
        let error = four_only.ensure(&addresses(), &ports()).expect_err("no ip6tables was opened");
        assert!(
            error.to_string().starts_with("could not run `ip6tables -t raw -C OUTPUT -s fd00:10:96::a/128"),
            "{error}"
        );
        assert_eq!(iptables.remove().expect("removed"), 0);
        assert_eq!(saved("iptables-save"), Vec::<String>::new());
    });
}

// L02: no NET_ADMIN ends in one clear line.
#[test]
fn without_net_admin_the_step_is_named() {
    run_without_net_admin("node::iptables::tests::the_part_without_net_admin");
}

#[test]
#[ignore = "run by without_net_admin_the_step_is_named, with its rights taken away"]
fn the_part_without_net_admin() {
    if !is_a_child() {
        return;
    }
    let iptables = match Iptables::open(&addresses()) {
        Ok(iptables) => iptables,
        Err(error) => return skip(&error.to_string()),
    };
    let error = iptables.ensure(&addresses(), &ports()).expect_err("no rights");
    let said = error.to_string();
    assert!(said.starts_with("could not run `iptables -t filter -S INPUT`: ") && said.contains("ermission"), "{said}");
}
