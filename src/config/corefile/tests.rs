//! Corefiles as people write them, and what comes of them.

use std::collections::HashMap;
use std::path::Path;

use super::*;
use crate::config;
use crate::plan::{Aaaa, Action, Choice, Members, Prefetch, Protocol, QueryLog, Zone};

/// Words that have a meaning somewhere in a Corefile, and some that have none.
const WORDS: &[&str] = &[
    "{",
    "}",
    "\n",
    "\n",
    "\n",
    "\"",
    "#",
    ",",
    ". {\n",
    "a.test:53 {\n",
    "bind 127.0.0.1\n",
    "forward . 10.0.0.1\n",
    "import",
    "(s) {\n",
    "s",
    "cache",
    "30",
    "success",
    "denial",
    "serve_stale",
    "1h",
    "verify",
    "immediate",
    "prefetch",
    "20%",
    "servfail",
    "disable",
    "forward",
    ".",
    "a.test",
    "b.a.test",
    "tls://9.9.9.9",
    "/etc/resolv.conf",
    "except",
    "policy",
    "random",
    "tls_servername",
    "health_check",
    "0.7s",
    "max_fails",
    "0",
    "max_concurrent",
    "template",
    "IN",
    "ANY",
    "AAAA",
    "A",
    "rcode",
    "NXDOMAIN",
    "answer",
    "\"{{ .Name }} A 10.0.0.9\"",
    "match",
    ".*\\..*\\.a\\.test\\.$",
    "fallthrough",
    "hosts",
    "10.0.0.7",
    "fd00::1",
    "log",
    "health",
    ":8080",
    "prometheus",
    "bind",
    "0.0.0.0",
    "eth0",
    "10.0.0.0/14",
    "{$DNS}",
    "{$",
    "on",
    "1e3",
    "é\u{1b}",
    "a\\032b",
    "$x",
    "service://a/b",
    "\r\n",
    "\t",
];

/// Lines that are right, if each is there once.
const LINES: &[&str] = &[
    "cache",
    "cache 30",
    "cache 3600 a.test c.b.test",
    "cache {\n serve_stale 1h immediate\n}",
    "cache 60 {\n success 5 300 90\n denial 5 5\n disable success b.test\n serve_stale 0 verify 1ms\n}",
    "cache {\n prefetch 1 1m 90%\n servfail 5m\n disable denial\n}",
    "forward . 10.0.0.1 10.0.0.2 10.0.0.1",
    "forward a.test tls://9.9.9.9",
    "forward . /etc/$re/${solv}.conf",
    "forward b.test service://a/b {\n except c.b.test\n}",
    "forward . tls://1.1.1.1 tls://[fd00::1]:8853 {\n tls_servername x.test\n tls /ca.pem\n policy sequential\n}",
    "forward . 10.0.0.9 {\n force_tcp\n health_check 1.2345s domain a\\$b.test\n max_fails 7\n max_concurrent 5\n}",
    "template IN AAAA {\n rcode NOERROR\n}",
    "template ANY ANY b.test {\n rcode NXDOMAIN\n}",
    "template IN A a.test {\n answer \"{{ .Name }} A 10.0.0.9\"\n}",
    "template ANY ANY {\n match \".*\\..*\\.a\\.test\\.$\"\n rcode NXDOMAIN\n fallthrough\n}",
    "hosts {\n 10.0.0.7 x.a.test y.b.test\n fd00::1 x.a.test a.test\n fallthrough\n}",
    "hosts {\n 10.0.0.7 z.test\n}",
    "log",
    "debug",
    "errors",
    "loop",
    "reload 30s",
    "prometheus :9253",
    "health :8080",
    "pprof",
    "bufsize 4096",
];

proptest::proptest! {
    #[test]
    fn any_words_give_a_plan_or_mistakes(words in proptest::collection::vec(proptest::sample::select(WORDS), 0..60)) {
        read_and_again(&words.join(" "));
    }

    #[test]
    fn any_plugins_together_give_a_plan_that_yaml_can_say(
        blocks in proptest::collection::vec(
            (
                proptest::sample::select(&[".", "a.test b.test", "10.0.0.0/14", "c.b.test on", "\"a\\032\\\\b\""][..]),
                proptest::collection::vec(proptest::sample::select(LINES), 1..6),
            ),
            1..4,
        ),
    ) {
        let blocks = blocks.iter().map(|(zones, lines)| format!("{zones} {{\nbind 127.0.0.1 fd00::9\n{}\n}}\n", lines.join("\n")));
        read_and_again(&blocks.collect::<Vec<_>>().concat());
    }
}

/// Reads a text for a plan or mistakes; a plan reads again from its YAML.
fn read_and_again(text: &str) {
    let reading = read_with(text, &Files::new(), &Settings::default());
    let differs = reading.remarks.iter().any(|remark| remark.what.contains("`client_timeout` for all"));
    match reading.plan() {
        Ok(plan) => {
            let yaml = yaml(&plan, &[]);
            let again =
                config::parse(&yaml, "again.yaml", &|_| None).unwrap_or_else(|errors| panic!("{errors}\n{yaml}"));
            assert!(differs || format!("{plan:?}") == format!("{again:?}"), "{text}\n{yaml}");
        }
        Err(errors) => assert!(!errors.mistakes().is_empty()),
    }
}

/// Files by path, in a directory tree of its own.
type Files<'a> = HashMap<&'a str, &'a str>;

fn read_with(text: &str, files: &Files<'_>, settings: &Settings) -> Reading {
    let env = |name: &str| (name == "DNS").then(|| "10.96.0.10".to_owned());
    let read_file = |path: &Path| {
        let found = path.to_str().and_then(|path| files.get(path));
        found.map(|text| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
    };
    let list = |path: &Path| {
        let names = files.keys().filter_map(|file| {
            let file = Path::new(file);
            (file.parent() == Some(path)).then(|| file.file_name()?.to_str().map(str::to_owned))?
        });
        Ok(names.collect())
    };
    let addresses = |interface: Option<&str>| match interface {
        None => vec!["192.168.1.9".parse().expect("legal"), "fe80::1".parse().expect("legal")],
        Some("eth0") => vec!["192.168.1.9".parse().expect("legal")],
        Some(_) => Vec::new(),
    };
    let around = Surroundings { env: &env, read: &read_file, list: &list, addresses: &addresses };
    read(text, Path::new("/etc/coredns/Corefile"), &around, settings)
}

fn draft(text: &str) -> Draft {
    let reading = read_with(text, &Files::new(), &Settings::default());
    assert!(reading.errors.is_none(), "{}\n{text}", reading.errors.expect("there are some"));
    reading.draft
}

/// Line and message of every mistake.
fn mistakes(text: &str) -> Vec<(usize, String)> {
    let reading = read_with(text, &Files::new(), &Settings::default());
    let errors = reading.errors.unwrap_or_else(|| panic!("nothing is wrong in\n{text}"));
    let lines = errors.mistakes().iter().map(|it| (it.place.map_or(0, |place| place.line), it.what.clone()));
    lines.collect()
}

/// The only zone that is not the root, in a block with these plugins.
fn zone(plugins: &str) -> Zone {
    let draft = draft(&format!("a.test {{\n bind 127.0.0.1\n{plugins}\n}}\n"));
    draft.zones.into_iter().find(|zone| zone.name.to_string() == "a.test.").expect("the block is for it")
}

fn remarks(text: &str) -> String {
    let reading = read_with(text, &Files::new(), &Settings::default());
    reading.remarks.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_longest_zone_has_its_own_upstream() {
    let draft = draft(
        "a.test b.test:53 {\n bind 127.0.0.1\n forward . 10.0.0.1 10.0.0.2:5300\n}\n. {\n forward . /etc/resolv.conf\n}",
    );
    let shown: Vec<_> = draft.zones.iter().map(|zone| (zone.name.to_string(), zone.action.clone())).collect();
    let [route, other] = [Action::Route(0), Action::Route(1)];
    assert_eq!(shown, [("a.test.".into(), route.clone()), ("b.test.".into(), route), (".".into(), other)]);
    assert_eq!(draft.upstreams[0].name, "a.test");
    assert_eq!(draft.upstreams[0].members.to_string(), "10.0.0.1:53, 10.0.0.2:5300");
    assert_eq!(draft.upstreams[1].name, "default");
    assert_eq!(draft.upstreams[1].members, Members::ResolvConf("/etc/resolv.conf".into()));
    assert_eq!(draft.listen.port, 53);
}

#[test]
fn what_no_block_is_for_is_refused() {
    let draft = draft("a.test {\n bind 127.0.0.1\n forward . 10.0.0.1\n}");
    let root = draft.zones.iter().find(|zone| zone.name.labels() == 0).expect("a plan has a root");
    assert_eq!(root.action, Action::Refused);
}

#[test]
fn a_single_server_needs_no_braces() {
    let draft = draft(".:5353\nbind 127.0.0.1\nforward . 10.0.0.1\ncache 30\n");
    assert_eq!((draft.listen.port, draft.zones.len(), draft.zones[0].lifetimes.max_ttl), (5353, 1, 30));
}

#[test]
fn lifetimes_are_those_of_the_cache_and_nothing_is_stale_unless_written() {
    let lifetimes = |cache: &str| zone(&format!("forward . 10.0.0.1\n{cache}")).lifetimes;
    let plain = lifetimes("cache");
    assert_eq!(
        (plain.max_ttl, plain.max_negative_ttl, plain.min_ttl, plain.failure_ttl, plain.max_stale),
        (3600, 1800, 0, 5, 0)
    );
    let both = lifetimes("cache 30");
    assert_eq!((both.max_ttl, both.max_negative_ttl), (30, 30));
    let each = lifetimes("cache {\n success 9984 300 60\n denial 9984 5\n servfail 2s\n serve_stale 2h verify\n}");
    assert_eq!(
        (each.max_ttl, each.min_ttl, each.max_negative_ttl, each.failure_ttl, each.max_stale),
        (300, 60, 5, 2, 7200)
    );
    assert_eq!(each.client_timeout.as_millis(), 1800);
    assert_eq!(lifetimes("cache {\n serve_stale\n}").client_timeout.as_millis(), 0);
    assert_eq!(lifetimes("cache {\n serve_stale 1h verify 500ms\n}").client_timeout.as_millis(), 500);
    assert_eq!(lifetimes("cache {\n servfail 0\n}").failure_ttl, 1);
    assert_eq!(lifetimes("cache {\n success 9984 30 60\n}").min_ttl, 30);
    assert_eq!(lifetimes("cache {\n disable denial\n}").max_negative_ttl, 0);
    assert_eq!(lifetimes("").max_stale, 0);
}

#[test]
fn prefetch_is_off_unless_written() {
    let prefetch =
        |cache: &str| draft(&format!(". {{\n bind 127.0.0.1\n forward . 10.0.0.1\n{cache}\n}}")).cache.prefetch;
    assert_eq!(prefetch("cache"), None);
    assert_eq!(prefetch("cache {\n prefetch 0\n}"), None);
    assert_eq!(prefetch("cache {\n prefetch 5 1m 20%\n}"), Some(Prefetch { hits: 5, at_percent: 20 }));
    assert_eq!(prefetch("cache {\n prefetch 500\n}"), Some(Prefetch { hits: 255, at_percent: 10 }));
}

#[test]
fn parts_of_a_zone_that_plugins_name_become_zones() {
    let draft = draft(
        ". {\n bind 127.0.0.1\n cache 30 a.test\n forward b.test 10.0.0.2\n forward . 10.0.0.1 {\n  except c.test\n }\n}",
    );
    let shown: Vec<_> =
        draft.zones.iter().map(|it| (it.name.to_string(), it.action.clone(), it.lifetimes.max_ttl)).collect();
    let of = |name: &str| shown.iter().find(|(known, ..)| known == name).map(|(_, action, ttl)| (action.clone(), *ttl));
    assert_eq!(of("a.test."), Some((of(".").expect("root").0, 30)));
    assert_eq!(of(".").expect("root").1, 86_400);
    assert_eq!(of("c.test.").map(|it| it.0), Some(Action::Refused));
    let Some((Action::Route(index), _)) = of("b.test.") else { panic!("{shown:?}") };
    assert_eq!(draft.upstreams[index].members.to_string(), "10.0.0.2:53");
}

#[test]
fn forward_says_how_servers_are_asked() {
    let upstream = |options: &str| {
        let text = format!(". {{\n bind 127.0.0.1\n forward . 10.0.0.1 {{\n{options}\n}}\n}}");
        draft(&text).upstreams.swap_remove(0)
    };
    let plain = upstream("");
    assert_eq!((plain.protocol, plain.choice, plain.health_check.max_fails), (Protocol::Udp, Choice::Random, 2));
    assert_eq!(plain.health_check.interval.as_millis(), 500);
    assert_eq!(upstream("force_tcp\nexpire 10s").protocol, Protocol::Tcp);
    assert_eq!(upstream("prefer_udp").protocol, Protocol::Udp);
    assert_eq!(upstream("policy sequential").choice, Choice::Sequential);
    let check = upstream("health_check 5s no_rec domain x.test\nmax_fails 0").health_check;
    assert_eq!((check.interval.as_secs(), check.name.to_string(), check.max_fails), (5, "x.test.".into(), 100));
}

#[test]
fn tls_needs_a_name_and_takes_the_address_of_a_single_server() {
    let text = |to: &str, options: &str| format!(". {{\n bind 127.0.0.1\n forward . {to} {{\n{options}\n}}\n}}");
    let quad9 =
        draft(&text("tls://9.9.9.9 tls://149.112.112.112", "tls_servername dns.quad9.net")).upstreams.swap_remove(0);
    assert_eq!((quad9.protocol, quad9.tls_name.as_deref()), (Protocol::Tls, Some("dns.quad9.net")));
    assert_eq!(quad9.members.to_string(), "9.9.9.9:853, 149.112.112.112:853");
    assert_eq!(draft(&text("tls://9.9.9.9%dns.quad9.net", "")).upstreams[0].tls_name.as_deref(), Some("dns.quad9.net"));
    assert_eq!(draft(&text("tls://1.1.1.1", "")).upstreams[0].tls_name.as_deref(), Some("1.1.1.1"));
    assert_eq!(mistakes(&text("tls://9.9.9.9 tls://1.1.1.1", ""))[0].0, 3);
    assert_eq!(mistakes(&text("tls://9.9.9.9 1.1.1.1", "tls_servername a.test"))[0].0, 3);
    assert_eq!(mistakes(&text("tls://9.9.9.9", "tls /c.pem /k.pem"))[0].0, 4);
}

#[test]
fn the_common_templates_are_understood() {
    let with = |template: &str| zone(&format!("forward . 10.0.0.1\n{template}"));
    assert_eq!(with("template IN AAAA {\n rcode NOERROR\n}").aaaa, Aaaa::Strip);
    assert_eq!(with("template ANY ANY {\n rcode NXDOMAIN\n}").action, Action::Nxdomain);
    let pinned = with("template IN A {\n answer \"{{ .Name }} 60 IN A 10.0.0.9\"\n}");
    assert_eq!(pinned.action, Action::Addresses(vec!["10.0.0.9".parse().expect("legal")]));
    let noise = with("template ANY ANY a.test {\n match \".*\\..*\\.a\\.test\\.$\"\n rcode NXDOMAIN\n fallthrough\n}");
    assert_eq!((noise.max_labels, noise.action), (Some(1), Action::Route(0)));
    let text = "a.test {\n bind 127.0.0.1\n forward . 10.0.0.1\n template IN MX {\n  answer \"{{ .Name }} 60 IN MX 10 b.\"\n }\n}";
    assert_eq!(mistakes(text)[0].0, 5);
}

#[test]
fn lines_of_hosts_are_pins() {
    let text = ". {\n bind 127.0.0.1\n hosts {\n  10.0.0.1 a.test b.test\n  fd00::1 a.test\n  fallthrough\n }\n forward . 10.0.0.3\n}";
    let draft = draft(text);
    let of = |name: &str| draft.zones.iter().find(|zone| zone.name.to_string() == name).map(|zone| &zone.action);
    let [one, six] = ["10.0.0.1", "fd00::1"].map(|it| it.parse().expect("legal"));
    assert_eq!(of("a.test."), Some(&Action::Addresses(vec![one, six])));
    assert_eq!(of("b.test."), Some(&Action::Addresses(vec![one])));
    assert_eq!(of("."), Some(&Action::Route(0)));
    assert!(
        mistakes(". {\n bind 127.0.0.1\n hosts /etc/hosts {\n  fallthrough\n }\n forward . 10.0.0.1\n}")[0]
            .1
            .contains("file")
    );
    assert!(mistakes(". {\n bind 127.0.0.1\n hosts\n forward . 10.0.0.1\n}")[0].1.contains("/etc/hosts"));
}

#[test]
fn endpoints_are_where_they_were() {
    let text = ". {\n bind 127.0.0.1\n forward . 10.0.0.1\n prometheus :9253\n health 127.0.0.1:8080 {\n  lameduck 5s\n }\n log\n debug\n}\na.test {\n prometheus :9253\n forward . 10.0.0.1\n}";
    let draft = draft(text);
    assert_eq!(draft.http.metrics, Some("0.0.0.0:9253".parse().expect("legal")));
    assert_eq!(draft.http.health, Some("127.0.0.1:8080".parse().expect("legal")));
    assert_eq!((draft.log.queries, draft.log.level), (QueryLog::OneIn(1), tracing::Level::DEBUG));
    assert_eq!(mistakes(". {\n bind 127.0.0.1\n prometheus :1\n}\na.test {\n prometheus :2\n}")[0].0, 6);
}

#[test]
fn addresses_are_bound_by_name_of_an_interface_and_never_all_at_once() {
    let addresses = |bind: &str, settings: &Settings| {
        let reading = read_with(&format!(". {{\n{bind}\n forward . 10.0.0.1\n}}"), &Files::new(), settings);
        assert!(reading.errors.is_none(), "{bind}");
        reading.draft.listen.addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let local = |node| Settings { local: vec!["169.254.20.10".parse().expect("legal")], node, ..Settings::default() };
    let node = NodeSettings { interface: "nodelocaldns".to_owned(), interception: Interception::Auto };
    assert_eq!(addresses("bind eth0 127.0.0.1 127.0.0.1", &Settings::default()), ["192.168.1.9", "127.0.0.1"]);
    assert_eq!(addresses("bind 0.0.0.0", &local(Some(node))), ["169.254.20.10"]);
    // Without interception, packets may come to any address of the pod.
    assert_eq!(addresses("bind 0.0.0.0", &local(None)), ["169.254.20.10", "192.168.1.9"]);
    assert_eq!(mistakes(". {\n bind eth7\n forward . 10.0.0.1\n}")[0].0, 2);
}

#[test]
fn what_the_plan_cannot_say_is_refused_by_plugin_and_line() {
    for (plugin, named) in [
        ("dns64", "dns64"),
        ("rewrite name exact a.test b.test", "rewrite"),
        ("dnstap /tmp/x full", "dnstap"),
        ("trace", "trace"),
        ("whoami", "whoami"),
        ("kubernetes cluster.local", "kubernetes"),
        ("ready", "ready"),
        ("forwrd . 10.0.0.1", "forwrd"),
        ("loadbalance weighted /w", "weighted"),
    ] {
        let found = mistakes(&format!(". {{\n bind 127.0.0.1\n forward . 10.0.0.1\n {plugin}\n}}"));
        assert_eq!((found.len(), found[0].0), (1, 4), "{found:?}");
        assert!(found[0].1.contains(named), "{found:?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let text =
        ".:53 {\n bind 127.0.0.1\n cache 0\n forward . 10.0.0.300 {\n  policy fastest\n }\n error\n}\na.test:54 {\n}\n";
    assert_eq!(mistakes(text).iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 4, 5, 7, 9]);
}

#[test]
fn flaws_of_the_plan_are_shown_where_they_come_from() {
    let many = (1..=16).map(|last| format!("10.0.0.{last}")).collect::<Vec<_>>().join(" ");
    assert_eq!(mistakes(&format!(". {{\n bind 127.0.0.1\n forward . {many}\n}}"))[0].0, 3);
    assert_eq!(mistakes(". {\n bind 224.0.0.1\n forward . 10.0.0.1\n}")[0].0, 2);
    let own = mistakes(". {\n bind 127.0.0.1\n forward . 127.0.0.1\n}");
    assert_eq!((own.len(), own[0].0), (1, 3), "{own:?}");
    assert_eq!(mistakes(". {\n bind 127.0.0.1\n forward . 10.0.0.1\n health 127.0.0.1:53\n}")[0].0, 4);
}

#[test]
fn snippets_and_files_stand_where_they_are_imported() {
    let files = Files::from([
        ("/etc/coredns/custom/a.override", "cache 30\n"),
        ("/etc/coredns/custom/b.server", "b.test {\n import base\n forward . 10.0.0.2\n}\n"),
        ("/etc/coredns/custom/.hidden", "nonsense\n"),
    ]);
    let text = "(base) {\n bind 127.0.0.1\n errors\n}\n. {\n import base\n import custom/*.override\n forward . {$DNS}\n}\nimport custom/*.server\n";
    let reading = read_with(text, &files, &Settings::default());
    assert!(reading.errors.is_none(), "{:?}", reading.errors);
    assert_eq!(reading.draft.zones.len(), 2);
    assert_eq!(reading.draft.zones[0].lifetimes.max_ttl, 30);
    assert_eq!(reading.draft.upstreams[0].members.to_string(), "10.96.0.10:53");
    let imports: Vec<_> = reading.imports.iter().map(|path| path.display().to_string()).collect();
    assert!(
        imports.contains(&"/etc/coredns/custom/b.server".to_owned())
            && imports.contains(&"/etc/coredns/custom".to_owned())
    );
}

#[test]
fn a_mistake_in_an_imported_file_names_that_file() {
    let files = Files::from([("/etc/coredns/more", "errors\ncahce 30\n")]);
    let reading = read_with(". {\n bind 127.0.0.1\n import more\n forward . 10.0.0.1\n}", &files, &Settings::default());
    let errors = reading.errors.expect("there is a mistake");
    assert_eq!(errors.mistakes()[0].place.map(|place| place.line), Some(3));
    assert!(errors.mistakes()[0].what.contains("/etc/coredns/more:2"), "{errors}");
}

#[test]
fn imports_are_bounded() {
    let files = Files::from([("/etc/coredns/me", "import me\n")]);
    let me = read_with(". {\n import me\n}", &files, &Settings::default());
    assert!(me.errors.expect("it never ends").to_string().contains("itself"));
    // Ten snippets, each ten times the one before: ten thousand million words.
    let mut bomb = "(s0) {\n x x x x x x x x x x\n}\n".to_owned();
    for level in 1..=10 {
        let import = format!(" import s{}\n", level - 1);
        bomb.extend([format!("(s{level}) {{\n"), import.repeat(10), "}\n".to_owned()]);
    }
    assert!(mistakes(&(bomb + ". {\n import s10\n}"))[0].1.contains("words"));
    assert_eq!(mistakes("(a) {\n import a\n}\n. {\n import a\n}")[0].0, 2);
    assert!(mistakes(". {\n import nothing\n}")[0].1.contains("cannot be read"));
}

#[test]
fn what_differs_on_purpose_is_said() {
    let text = ". {\n bind 127.0.0.1\n cache 30 {\n  serve_stale\n }\n forward . /etc/resolv.conf\n}";
    let said = remarks(text);
    for word in ["TTL of 30s instead of 0", "AA=0", "not 5s at least", "followed"] {
        assert!(said.contains(word), "`{word}` is not in\n{said}");
    }
    assert!(remarks(". {\n bind 127.0.0.1\n forward . 10.0.0.1\n cache\n}").contains("no `serve_stale`"));
}

#[test]
fn nothing_of_the_file_reaches_a_terminal_as_a_command() {
    let said = remarks(". {\n bind 127.0.0.1\n import \"\u{1b}c*\"\n forward . 10.0.0.1\n}");
    assert!(said.contains("no file matches") && !said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn a_file_that_is_none_is_refused_as_a_whole() {
    for text in ["", "# nothing\n", "\0", "(a) {\n errors\n}\n"] {
        assert_eq!(mistakes(text).len(), 1, "{text:?}");
    }
    assert!(mistakes("forward . 10.0.0.1\n")[0].0 <= 1);
    assert!(mistakes(&"a".repeat(2 << 20))[0].1.contains("1MiB"));
}

#[test]
fn a_service_stands_for_its_endpoints() {
    let draft = draft(". {\n bind 127.0.0.1\n forward . service://kube-system/kube-dns-upstream\n}");
    let service = Members::Service { namespace: "kube-system".into(), name: "kube-dns-upstream".into() };
    assert_eq!(draft.upstreams[0].members, service);
}

#[test]
fn variables_of_a_template_are_words_or_parts_of_words() {
    let variables =
        vec![(CLUSTER_DNS, "10.96.0.10".to_owned()), ("__PILLAR__LOCAL__DNS__", "fd00::a 169.254.20.10".to_owned())];
    let settings = Settings { variables, ..Settings::default() };
    let text = ". {\n bind __PILLAR__LOCAL__DNS__\n health __PILLAR__LOCAL__DNS__:8080\n forward . dns://__PILLAR__CLUSTER__DNS__\n}";
    let reading = read_with(text, &Files::new(), &settings);
    assert!(reading.errors.is_none(), "{:?}", reading.errors);
    assert_eq!(reading.draft.listen.addresses.len(), 2);
    assert_eq!(reading.draft.http.health, Some("[fd00::a]:8080".parse().expect("legal")));
    assert_eq!(reading.draft.upstreams[0].name, "cluster");
}

#[test]
fn as_yaml_it_is_the_same_plan() {
    let texts = [
        "a.test b.test {\n bind 127.0.0.1 fd00::1\n cache 30\n forward . 10.0.0.1\n}",
        ". {\n bind 127.0.0.1\n forward . tls://9.9.9.9 {\n tls_servername dns.quad9.net\n health_check 5s\n policy sequential\n max_concurrent 1000\n}\n cache {\n serve_stale 1h verify\n prefetch 3 1m 20%\n servfail 1s\n}\n}",
        ". {\n bind 127.0.0.1\n log\n debug\n forward . /etc/resolv.conf\n prometheus :9253\n health :8080\n template IN AAAA {\n rcode NOERROR\n}\n template ANY ANY x.test {\n rcode NXDOMAIN\n}\n hosts {\n 10.0.0.1 y.test\n fallthrough\n}\n}\n\"a\\032b.test\" {\n cache {\n serve_stale\n}\n forward . service://a/b\n}",
        "on.test no 10.0.0.0/14 {\n bind ::1\n forward . /etc/$x/${y}/resolv.conf\n cache {\n disable denial z.on.test\n success 10 300 60\n}\n}",
    ];
    for text in texts {
        let reading = read_with(text, &Files::new(), &Settings::default());
        let comments: Vec<String> = reading.remarks.iter().map(ToString::to_string).collect();
        let plan = reading.plan().unwrap_or_else(|errors| panic!("{errors}"));
        let yaml = yaml(&plan, &comments);
        let again = config::parse(&yaml, "again.yaml", &|_| None).unwrap_or_else(|errors| panic!("{errors}\n{yaml}"));
        assert_eq!(format!("{plan:#?}"), format!("{again:#?}"), "{yaml}");
    }
}
