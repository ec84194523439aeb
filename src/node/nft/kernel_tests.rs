//! Against the kernel, in network namespaces made here, and with another program's eye: Debian's `nft`.
//!
//! Without the right to make a namespace a test says SKIPPED and passes, unless `NODENS_NO_SKIP=1`: then it fails.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Batch, Change, Events, Family, Feature, HOST, LEASED4, Nft, PODS, Renewal, Rules, Ruleset, accept_in_filter,
    filter_drops, lease, remove_everything, remove_from_filter, withdraw,
};
use crate::plan::Prefix;

mod packets;

const LONG: Duration = Duration::from_secs(60);

/// Runs `test` in a network namespace of its own; the namespace goes with the thread.
fn in_namespace<T: Send + 'static>(test: impl AsyncFnOnce() -> T + Send + 'static) -> Option<T> {
    let thread = thread::spawn(|| {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            let words = format!("no network namespace of our own: {error}");
            assert!(std::env::var_os("NODENS_NO_SKIP").is_none_or(|it| it != "1"), "{words}");
            eprintln!("SKIPPED: {words}");
            return None;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Some(runtime.block_on(async { timeout(LONG, test()).await.expect("the test ends within a minute") }))
    });
    match thread.join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// What `nft` prints, in the namespace of this thread.
fn nft_says(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().expect("Debian's nft is installed");
    assert!(output.status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("nft prints UTF-8")
}

/// The whole rule set as JSON, without handles, comments, owners and counts, each chain's rules in order.
fn listed() -> Vec<Value> {
    let all: Value = serde_json::from_str(&nft_says(&["-j", "-s", "list", "ruleset"])).expect("nft -j prints JSON");
    let mut all = all["nftables"].as_array().expect("a list").clone();
    all.retain(|object| object.get("metainfo").is_none());
    for object in &mut all {
        for inner in object.as_object_mut().expect("an object").values_mut().filter_map(Value::as_object_mut) {
            for key in ["handle", "comment", "flags"] {
                // the flags of a set stay
                if key != "flags" || !inner.contains_key("type") {
                    inner.remove(key);
                }
            }
        }
    }
    // chains are listed in the order they were made, which means nothing
    all.sort_by_key(|object| {
        let (kind, inner) = object.as_object().and_then(|it| it.iter().next()).expect("one key");
        let word = |key: &str| inner[key].as_str().unwrap_or_default().to_owned();
        let place = if kind == "rule" { word("chain") } else { word("name") };
        (kind.clone(), word("family"), word("table"), place)
    });
    all
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn endpoint(text: &str) -> SocketAddr {
    text.parse().expect("an endpoint")
}

/// Everything there can be.
fn full() -> Rules {
    Rules {
        addresses: vec![ip("169.254.20.10"), ip("10.96.0.10"), ip("fd00::a")],
        port: 53,
        health: vec![endpoint("169.254.20.10:8080")],
        fallback: vec![
            (ip("169.254.20.10"), ["10.1.0.7:53", "10.1.2.9:53", "10.1.4.4:5353"].map(endpoint).to_vec()),
            (ip("fd00::a"), vec![endpoint("[fd00:1::7]:53"), endpoint("10.1.0.7:53")]),
        ],
        allow: vec![Prefix { address: ip("10.0.0.0"), length: 9 }, Prefix { address: ip("fd00:2::"), length: 64 }],
        uplinks: vec!["eth0".to_owned(), "eth1".to_owned()],
        socket_match: true,
        owner_flag: true,
    }
}

/// A socket with the full rule set committed.
async fn with_full_ruleset() -> Nft {
    let mut nft = Nft::open().expect("netfilter netlink");
    let found = nft.observe().await.expect("an empty namespace can be looked at");
    nft.commit(&Ruleset::new(&full()).repair(&found)).await.expect("the kernel takes the rule set");
    nft
}

/// Drops the socket; gives another when the kernel has removed the table that belonged to it. (Another test's child
/// process may hold the socket until it executes its program.)
async fn gone(nft: Nft) -> Nft {
    drop(nft);
    let mut next = Nft::open().expect("a second socket");
    while next.observe().await.expect("a look").tables.iter().any(|table| table.name == HOST) {
        tokio::task::yield_now().await;
    }
    next
}

async fn leased(nft: &mut Nft, table: &str) -> Vec<IpAddr> {
    nft.observe().await.expect("a look").leased(table)
}

/// What we write over netlink is what the design says in nft's language.
#[test]
fn ruleset_is_the_one_of_the_design_in_the_eyes_of_nft() {
    let ours = in_namespace(async || {
        let _nft = with_full_ruleset().await;
        listed()
    });
    let designed = in_namespace(async || {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/node/nft/kernel_tests/full.nft");
        nft_says(&["-f", file]);
        listed()
    });
    let (Some(ours), Some(designed)) = (ours, designed) else { return };
    assert!(designed.len() > 40, "{designed:#?}");
    for (ours, designed) in ours.iter().zip(&designed) {
        assert_eq!(ours, designed);
    }
    assert_eq!(ours.len(), designed.len());
}

#[test]
fn smaller_rulesets_are_accepted_and_have_no_more_than_they_need() {
    in_namespace(async || {
        let rules = Rules {
            addresses: vec![ip("10.96.0.10")],
            health: Vec::new(),
            fallback: Vec::new(),
            allow: Vec::new(),
            uplinks: Vec::new(),
            socket_match: false,
            owner_flag: false,
            ..full()
        };
        let mut nft = Nft::open().expect("netfilter netlink");
        let found = nft.observe().await.expect("a look");
        nft.commit(&Ruleset::new(&rules).repair(&found)).await.expect("the kernel takes it");
        let text = nft_says(&["list", "ruleset"]);
        for absent in ["socket", "fallback", "arp", "owner", "ip6 ", "eth0", "dnat"] {
            assert!(!text.contains(absent), "{absent} in {text}");
        }
        // no servers for an address: the chains are there, the rule is not
        let rules = Rules { fallback: vec![(ip("10.96.0.10"), Vec::new())], ..rules };
        let found = nft.observe().await.expect("a look");
        nft.commit(&Ruleset::new(&rules).repair(&found)).await.expect("the kernel takes it");
        let text = nft_says(&["list", "ruleset"]);
        assert!(text.contains("chain fallback_servers") && !text.contains("dnat ip"), "{text}");
    });
}

#[test]
fn leases_end_by_themselves() {
    in_namespace(async || {
        let mut nft = with_full_ruleset().await;
        let leased_for = |time| lease(&[PODS, HOST], &full().addresses, time, Renewal::Anew);
        nft.commit(&leased_for(LONG)).await.expect("a lease");
        assert_eq!(leased(&mut nft, PODS).await.len(), 3);
        assert!(nft_says(&["list", "set", "inet", PODS, "leased6"]).contains("fd00::a timeout 1m expires"));
        let began = Instant::now();
        let short = Duration::from_millis(500);
        nft.commit(&leased_for(short)).await.expect("a lease");
        while !leased(&mut nft, PODS).await.is_empty() || !leased(&mut nft, HOST).await.is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
        // the kernel counts in ticks of up to 10 ms
        assert!(began.elapsed() + Duration::from_millis(10) >= short, "before its time: {:?}", began.elapsed());
    });
}

#[test]
fn renewal_in_place_leaves_no_moment_without_a_lease() {
    in_namespace(async || {
        let mut nft = with_full_ruleset().await;
        if !nft.renews_in_place().await.expect("a trial") {
            eprintln!("SKIPPED: this kernel does not renew elements in place");
            return;
        }
        assert!(!nft_says(&["list", "ruleset"]).contains("trial"), "the trial leaves nothing behind");
        renewed_without_a_gap(&mut nft, Renewal::InPlace).await;
    });
}

#[test]
fn renewal_anew_leaves_no_moment_without_a_lease() {
    in_namespace(async || renewed_without_a_gap(&mut with_full_ruleset().await, Renewal::Anew).await);
}

/// Renews for four lease times, from another socket looking on all the time.
async fn renewed_without_a_gap(nft: &mut Nft, renewal: Renewal) {
    let short = Duration::from_millis(400);
    let mut witness = Nft::open().expect("a second socket");
    let leases = || lease(&[PODS, HOST], &full().addresses, short, renewal);
    let began = Instant::now();
    nft.commit(&leases()).await.expect("a lease");
    let mut renewed = began;
    let mut looks = 0;
    while began.elapsed() < short * 4 {
        if renewed.elapsed() > short / 4 {
            renewed = Instant::now();
            nft.commit(&leases()).await.expect("a renewal");
        }
        let seen = witness.elements_of(Family::Inet, PODS, LEASED4).await.expect("a look");
        // a machine too busy to renew in time proves nothing
        if renewed.elapsed() < short {
            assert_eq!(seen.elements.len(), 2, "{:?} after {looks} looks", began.elapsed());
            looks += 1;
        }
    }
    assert!(looks > 0, "nothing was seen");
    nft.commit(&lease(&[PODS, HOST], &full().addresses, LONG, renewal)).await.expect("a renewal");
    let left = leased(&mut witness, HOST).await;
    assert_eq!(left.len(), 3);
}

#[test]
fn withdrawal_ends_every_lease_at_once_and_may_be_repeated() {
    in_namespace(async || {
        let mut nft = with_full_ruleset().await;
        nft.commit(&lease(&[PODS, HOST], &full().addresses, LONG, Renewal::Anew)).await.expect("a lease");
        for _ in 0..2 {
            nft.commit(&withdraw(&[PODS, HOST])).await.expect("a withdrawal");
            let found = nft.observe().await.expect("a look");
            assert_eq!(found.elements, []);
            assert_eq!(Ruleset::new(&full()).differences(&found), Vec::<String>::new(), "the tables stay");
        }
        // leased anew for fewer addresses: the others are not
        nft.commit(&lease(&[PODS], &full().addresses, LONG, Renewal::Anew)).await.expect("a lease");
        nft.commit(&lease(&[PODS], &[ip("fd00::a")], LONG, Renewal::Anew)).await.expect("a lease");
        assert_eq!(leased(&mut nft, PODS).await, [ip("fd00::a")]);
    });
}

/// L08.
#[test]
fn host_table_goes_with_its_socket_and_the_other_stays() {
    in_namespace(async || {
        let nft = with_full_ruleset().await;
        assert!(nft_says(&["list", "tables"]).contains("inet nodens_host"));
        let found = gone(nft).await.observe().await.expect("a look");
        assert_eq!(Ruleset::new(&full()).differences(&found), ["table inet nodens_host is missing"]);
    });
}

/// L02, L07.
#[test]
fn table_somebody_else_owns_is_refused_with_the_step_named() {
    in_namespace(async || {
        let _first = with_full_ruleset().await;
        let mut second = Nft::open().expect("a second socket");
        let found = second.observe().await.expect("a look");
        let ruleset = Ruleset::new(&full());
        assert_eq!(ruleset.differences(&found), ["table inet nodens_host belongs to another socket"]);
        assert_eq!(ruleset.leasable(&found), [PODS]);
        assert!(ruleset.repair(&found).is_empty(), "there is nothing the second could do about it");
        let before = listed();
        let error = second.commit(&remove_everything()).await.expect_err("it is the first socket's");
        assert_eq!(error.source.raw_os_error(), Some(nix::libc::EPERM));
        assert_eq!(error.step, "delete table inet nodens_host");
        let error = second.commit(&lease(&[PODS, HOST], &full().addresses, LONG, Renewal::Anew)).await;
        assert_eq!(error.expect_err("no lease either").step, "flush set inet nodens_host leased4");
        assert_eq!(listed(), before, "and nothing of either was done");
        assert_eq!(leased(&mut second, PODS).await, Vec::<IpAddr>::new());
    });
}

/// L02.
#[test]
fn refused_step_leaves_nothing_of_the_batch() {
    in_namespace(async || {
        let mut nft = Nft::open().expect("netfilter netlink");
        let mut batch = Batch::new();
        batch.table(Family::Inet, "one", false);
        batch.flush_chain(Family::Inet, "one", "no_such_chain");
        batch.flush_chain(Family::Inet, "one", "nor_this");
        batch.table(Family::Inet, "two", false);
        let error = nft.commit(&batch).await.expect_err("there is no such chain");
        assert_eq!(error.source.raw_os_error(), Some(nix::libc::ENOENT));
        assert_eq!(error.step, "flush chain inet one no_such_chain", "the first refusal");
        assert_eq!(nft_says(&["list", "tables"]), "");
        // and the socket is good for the next
        nft.commit(&remove_everything()).await.expect("nothing to remove is no error");
    });
}

/// L09: one copy of each rule, whoever left it.
#[test]
fn what_the_last_instance_left_is_adopted_if_complete_and_mended_if_not() {
    in_namespace(async || {
        let mut nft = gone(with_full_ruleset().await).await;
        mend(&mut nft, &full()).await;
        let ruleset = Ruleset::new(&full());
        let found = nft.observe().await.expect("a look");
        assert_eq!(ruleset.differences(&found), Vec::<String>::new());
        assert_eq!(ruleset.leasable(&found), [PODS, HOST]);
        assert!(ruleset.repair(&found).is_empty());
        nft.commit(&lease(&[PODS], &full().addresses, LONG, Renewal::Anew)).await.expect("a lease");

        // a rule too many, in one chain: only that chain is written again, the leases stay
        nft_says(&["add", "rule", "inet", PODS, "guarded_ports", "accept"]);
        let found = nft.observe().await.expect("a look");
        assert_eq!(ruleset.differences(&found), ["rules of chain inet nodens guarded_ports"]);
        mend(&mut nft, &full()).await;
        assert_eq!(leased(&mut nft, PODS).await.len(), 3);

        // other servers: the fallback's rules alone
        let fewer = Rules { fallback: vec![(ip("169.254.20.10"), vec![endpoint("10.1.0.8:53")])], ..full() };
        let mended = mend(&mut nft, &fewer).await;
        assert_eq!(
            mended,
            ["rules of chain inet nodens fallback_servers", "rules of chain inet nodens fallback_source"]
        );
        assert_eq!(leased(&mut nft, PODS).await.len(), 3);
        let text = nft_says(&["list", "chain", "inet", PODS, "fallback_servers"]);
        assert!(text.contains("10.1.0.8 . 53") && !text.contains("10.1.0.7"), "{text}");

        // a chain gone, a chain too many, a set gone, a table asleep
        for damage in [
            "delete chain inet nodens guard",
            "add chain inet nodens theirs",
            "flush table inet nodens; delete set inet nodens leased4",
            "add table inet nodens { flags dormant; }",
            "delete table arp nodens",
            "add chain inet nodens output { policy drop; }",
        ] {
            nft_says(&[damage]);
            assert_ne!(mend(&mut nft, &fewer).await, Vec::<String>::new(), "{damage}");
        }
        // without uplinks there is nothing to hide from
        let homely = Rules { uplinks: Vec::new(), ..fewer };
        assert!(mend(&mut nft, &homely).await.contains(&"table arp nodens is not wanted".to_owned()));
        assert!(!nft_says(&["list", "tables"]).contains("arp"));

        nft.commit(&remove_everything()).await.expect("a teardown");
        assert_eq!(nft_says(&["list", "ruleset"]), "");
    });
}

/// L10. Whoever tears at our chains and sets does not end a lease, nor cut a connection: those sets stay.
#[test]
fn sets_that_are_whole_survive_the_repair_of_everything_around_them() {
    in_namespace(async || {
        let mut nft = with_full_ruleset().await;
        nft.commit(&lease(&[PODS, HOST], &full().addresses, LONG, Renewal::Anew)).await.expect("a lease");
        let flow = "10.244.1.2 . 40000 . 169.254.20.10";
        nft_says(&["add", "element", "inet", PODS, "flows4", &format!("{{ {flow} }}")]);
        for damage in [
            "flush table inet nodens",
            "flush table inet nodens; delete chain inet nodens tcp4",
            "add chain inet nodens theirs; add rule inet nodens theirs ip daddr @leased4 drop",
            "add chain inet nodens theirs;
             add map inet nodens theirs { type ipv4_addr : verdict; elements = { 10.0.0.1 : jump theirs }; }
             add rule inet nodens output ip daddr vmap @theirs",
            "flush table inet nodens; delete set inet nodens flows6; add set inet nodens flows6 { type ipv6_addr; }",
            "add chain inet nodens output { policy drop; }",
        ] {
            nft_says(&[damage]);
            assert_ne!(mend(&mut nft, &full()).await, Vec::<String>::new(), "{damage}");
            assert_eq!(leased(&mut nft, PODS).await.len(), 3, "{damage}");
            assert!(nft_says(&["list", "set", "inet", PODS, "flows4"]).contains(flow), "{damage}");
        }
        // other chains are wanted, in the table that is ours alone
        let without_fallback = Rules { fallback: Vec::new(), ..full() };
        for rules in [without_fallback, full()] {
            assert_ne!(mend(&mut nft, &rules).await, Vec::<String>::new());
            assert!(nft_says(&["list", "set", "inet", PODS, "flows4"]).contains(flow));
        }
        assert_eq!((leased(&mut nft, PODS).await.len(), leased(&mut nft, HOST).await.len()), (3, 3));
    });
}

/// Makes the host's tables those of `rules`; what had to be mended.
async fn mend(nft: &mut Nft, rules: &Rules) -> Vec<String> {
    let ruleset = Ruleset::new(rules);
    let found = nft.observe().await.expect("a look");
    nft.commit(&ruleset.repair(&found)).await.expect("a repair");
    let mended = nft.observe().await.expect("a look");
    assert_eq!(ruleset.differences(&mended), Vec::<String>::new());
    ruleset.differences(&found)
}

/// L10.
#[test]
fn flushes_by_others_are_noticed_and_our_own_changes_are_not() {
    in_namespace(async || {
        let mut nft = with_full_ruleset().await;
        let mut events = Events::open(&nft).expect("events");
        nft.commit(&lease(&[PODS], &full().addresses, LONG, Renewal::Anew)).await.expect("a lease");
        nft_says(&["add table inet somebody_elses"]);
        nft_says(&["flush", "ruleset"]);
        let change = events.changed().await.expect("an event");
        assert!(matches!(&change, Change::Ours { by } if by.starts_with("nft (")), "{change:?}");
        let missing = Ruleset::new(&full()).differences(&nft.observe().await.expect("a look"));
        assert_eq!(missing, ["table inet nodens is missing", "table arp nodens is missing"], "the owned one stays");
        mend(&mut nft, &full()).await;

        // one report for one transaction, and none for ours
        nft_says(&["flush", "chain", "inet", PODS, "guard"]);
        let change = events.changed().await.expect("an event");
        assert!(matches!(change, Change::Ours { .. }), "{change:?}");
        mend(&mut nft, &full()).await;
        nft_says(&["add table ip filter; add chain ip filter INPUT { type filter hook input priority 0; }"]);
        let change = events.changed().await.expect("an event");
        assert!(matches!(change, Change::Filter { .. }), "{change:?}");
    });
}

/// L10.
#[test]
fn more_changes_than_the_socket_holds_are_an_overrun() {
    in_namespace(async || {
        let mut nft = with_full_ruleset().await;
        let mut events = Events::open(&nft).expect("events");
        for _ in 0..400 {
            nft.commit(&lease(&[PODS, HOST], &full().addresses, LONG, Renewal::Anew)).await.expect("a lease");
        }
        assert_eq!(events.changed().await.expect("told so"), Change::Overrun);
        // and from there on everything is heard again
        nft_says(&["flush", "ruleset"]);
        let change = events.changed().await.expect("an event");
        assert!(matches!(change, Change::Ours { .. }), "{change:?}");
    });
}

#[test]
fn firewall_that_drops_by_policy_gets_our_accepts_and_keeps_its_own_rules() {
    in_namespace(async || {
        let firewall = "add table ip filter;
            add chain ip filter INPUT { type filter hook input priority 0; policy drop; };
            add chain ip filter OUTPUT { type filter hook output priority 0; policy accept; };
            add rule ip filter INPUT tcp dport 22 accept;";
        nft_says(&[firewall]);
        let before = listed();
        let mut nft = Nft::open().expect("netfilter netlink");
        let found = nft.observe().await.expect("a look");
        assert_eq!(filter_drops(&found), [(Family::Ip, "INPUT".to_owned())]);
        nft.commit(&accept_in_filter(&found, &full())).await.expect("accepts");

        // in iptables' own words
        let output = Command::new("iptables-nft-save").args(["-t", "filter"]).output().expect("iptables-nft-save");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let input: Vec<String> =
            text.lines().filter(|line| line.starts_with("-A INPUT")).map(without_comment).collect();
        let expected = [
            "-d 169.254.20.10/32 -p udp -m udp --dport 53",
            "-d 169.254.20.10/32 -p tcp -m tcp --dport 53",
            "-d 169.254.20.10/32 -p tcp -m tcp --dport 8080",
            "-s 169.254.20.10/32 -i lo",
            "-d 10.96.0.10/32 -p udp -m udp --dport 53",
            "-d 10.96.0.10/32 -p tcp -m tcp --dport 53",
            "-s 10.96.0.10/32 -i lo",
            "-p tcp -m tcp --dport 22",
        ];
        assert_eq!(input, expected.map(|what| format!("-A INPUT {what} -j ACCEPT")), "{text}");

        let found = nft.observe().await.expect("a look");
        assert!(accept_in_filter(&found, &full()).is_empty(), "nothing is put there twice");
        let mut events = Events::open(&nft).expect("events");
        let handle = found.rules[0].handle.to_string();
        nft_says(&["delete", "rule", "ip", "filter", "INPUT", "handle", &handle]);
        assert!(matches!(events.changed().await.expect("an event"), Change::Filter { .. }));
        let found = nft.observe().await.expect("a look");
        nft.commit(&accept_in_filter(&found, &full())).await.expect("accepts");
        let found = nft.observe().await.expect("a look");
        assert!(accept_in_filter(&found, &full()).is_empty());

        nft.commit(&remove_from_filter(&found)).await.expect("a removal");
        assert_eq!(listed(), before);

        // the policy changes for the better: our accepts go
        accept_now(&mut nft).await.expect("accepts");
        nft_says(&["add chain ip filter INPUT { policy accept; }"]);
        accept_now(&mut nft).await.expect("a removal");
        assert!(!nft_says(&["list", "ruleset"]).contains("nodens"));
    });
}

async fn accept_now(nft: &mut Nft) -> Result<(), super::NftError> {
    let found = nft.observe().await?;
    nft.commit(&accept_in_filter(&found, &full())).await
}

/// A line of iptables-save without `-m comment --comment "…"`.
fn without_comment(line: &str) -> String {
    let Some((before, rest)) = line.split_once(" -m comment --comment \"") else { return line.to_owned() };
    let (comment, after) = rest.split_once('"').expect("a comment ends");
    assert!(comment.starts_with("nodens: "), "{line}");
    format!("{before}{after}")
}

#[test]
fn kernel_is_asked_what_it_can_do_and_nothing_is_left_of_the_question() {
    in_namespace(async || {
        let mut nft = Nft::open().expect("netfilter netlink");
        for feature in [Feature::Tables, Feature::SocketMatch, Feature::OwnerFlag, Feature::Fib] {
            nft.can(feature).await.unwrap_or_else(|error| panic!("{feature:?}: {error}"));
            assert_eq!(nft_says(&["list", "ruleset"]), "");
        }
    });
}

/// Tells the test below that it is the child.
const WITHOUT_RIGHTS: &str = "NODENS_TEST_WITHOUT_RIGHTS";

/// L02.
#[test]
fn without_the_right_everything_is_refused_in_plain_words() {
    if std::env::var_os(WITHOUT_RIGHTS).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        return runtime.block_on(refused_everything());
    }
    in_namespace(async || {
        use std::os::unix::process::CommandExt;
        let before = listed();
        // a copy of this program that anybody may run
        let folder = tempfile::tempdir_in("/tmp").expect("a folder");
        let program = folder.path().join("tests");
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), everybody).expect("for everybody");
        // copied by another process: were the copy open for writing here, a child some other test starts meanwhile would
        // keep it open, and it could not be run
        let mut copy = Command::new("install");
        copy.args(["-m", "755"]).arg(std::env::current_exe().expect("this program")).arg(&program);
        assert!(copy.status().expect("install runs").success());
        let name = "node::nft::kernel_tests::without_the_right_everything_is_refused_in_plain_words";
        let mut child = Command::new(&program);
        child.args(["--exact", name]).env(WITHOUT_RIGHTS, "1").current_dir("/").uid(65534).gid(65534);
        let output = child.output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        assert_eq!(listed(), before);
    });
}

async fn refused_everything() {
    let mut nft = Nft::open().expect("a socket needs no rights");
    let denied = |error: super::NftError| {
        assert_eq!(error.source.raw_os_error(), Some(nix::libc::EPERM), "{error}");
        error.to_string()
    };
    let words = denied(nft.commit(&remove_everything()).await.expect_err("no right to change"));
    assert_eq!(words, "nftables: the transaction as a whole: Operation not permitted (os error 1)");
    denied(nft.can(Feature::Tables).await.expect_err("no right to try"));
    denied(nft.observe().await.expect_err("no right to look"));
}
