//! A restart: what was known before is known after, whatever became of the upstreams, the file or the disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::support::agent::Agent;
use crate::support::client::{Ask, ask, ask_many};
use crate::support::config::Config;
use crate::support::octets::{A, AAAA, NXDOMAIN, STALE_ANSWER};
use crate::support::upstream::{Upstream, encoded, nxdomain};
use crate::support::{seconds, until};

/// A configuration with a snapshot in a folder of its own.
struct Kept {
    folder: tempfile::TempDir,
    config: Config,
}

impl Kept {
    fn new(upstream: &Upstream) -> Self {
        let folder = tempfile::tempdir().expect("the temporary directory can be written");
        let config = Config::new(upstream).metrics();
        let config = config.cache(&format!("snapshot: {}", folder.path().join("cache").display()));
        Self { folder, config }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("cache")
    }
}

fn stop(agent: &Agent) {
    assert!(agent.stop().success(), "{}", agent.said());
}

// Issue 4: every name known before answers, with every upstream dead.
#[test]
fn every_name_known_before_a_restart_answers_after_it_without_upstreams() {
    let upstream =
        Upstream::new(|seen| if seen.name.starts_with("no") { nxdomain(seen).now() } else { encoded(1)(seen) });
    let kept = Kept::new(&upstream);
    let names: Vec<String> = (0..200).map(|nth| format!("host-{nth}.test")).collect();
    let agent = Agent::start(&kept.config);
    let questions = || names.iter().flat_map(|name| [Ask::new(name, A), Ask::new(name, AAAA).dnssec_ok()]);
    let last = ask_many(agent.addr(), questions(), 64).pop().expect("all are answered");
    ask(agent.addr(), "no.test", A).assert_rcode(NXDOMAIN);
    stop(&agent);
    upstream.stop();
    until(last.at + seconds(2));

    let agent = Agent::start(&kept.config);
    assert!(agent.said().contains("the cache goes on where it was"), "{}", agent.said());
    for name in &names {
        ask(agent.addr(), name, A).assert_encodes(name).assert_ede(&[STALE_ANSWER]);
    }
    for answer in ask_many(agent.addr(), questions(), 64) {
        answer.assert_ede(&[STALE_ANSWER]);
    }
    ask(agent.addr(), "no.test", A).assert_rcode(NXDOMAIN);
    assert_eq!(agent.metric("nodens_cache_snapshots_total", "restored").to_string(), "1");
    // What was restored is written again, and survives another restart.
    stop(&agent);
    let agent = Agent::start(&kept.config);
    ask(agent.addr(), &names[7], A).assert_encodes(&names[7]);
}

#[test]
fn an_answer_goes_on_ageing_over_a_restart() {
    let upstream = Upstream::new(encoded(300));
    let kept = Kept::new(&upstream);
    let agent = Agent::start(&kept.config);
    let first = ask(agent.addr(), "a.test", A);
    first.assert_ttl_near(300);
    stop(&agent);
    until(first.at + seconds(3));
    let agent = Agent::start(&kept.config);
    let again = ask(agent.addr(), "a.test", A);
    again.assert_encodes("a.test").assert_ede(&[]);
    assert!((290..=297).contains(&again.ttl()), "{}", again.ttl());
    assert_eq!(upstream.count_of("a.test", A), 1);
}

// An agent that is killed has written its last snapshot a minute ago at most.
#[test]
fn a_killed_agent_leaves_the_snapshot_of_the_last_minute() {
    if std::env::var("NODENS_LOAD").is_ok_and(|it| it == "full") {
        let upstream = Upstream::new(encoded(300));
        let kept = Kept::new(&upstream);
        let agent = Agent::start(&kept.config);
        ask(agent.addr(), "a.test", A);
        let asked = Instant::now();
        while !kept.file().exists() {
            assert!(asked.elapsed() < seconds(75), "{}", agent.said());
            until(Instant::now() + seconds(1));
        }
        drop(agent);
        let agent = Agent::start(&kept.config);
        ask(agent.addr(), "a.test", A).assert_encodes("a.test");
        assert_eq!(upstream.count_of("a.test", A), 1);
    }
}

// Bad input: torn, foreign, corrupt, empty, huge, a folder, a pipe, a newer version.
#[test]
fn a_file_that_is_no_snapshot_is_ignored_with_one_line_and_counted() {
    let upstream = Upstream::new(encoded(300));
    let kept = Kept::new(&upstream);
    let agent = Agent::start(&kept.config);
    for nth in 0..100 {
        ask(agent.addr(), &format!("host-{nth}.test"), A);
    }
    stop(&agent);
    let good = fs::read(kept.file()).expect("it was written at the end");
    assert_eq!(fs::metadata(kept.file()).expect("just read").permissions().mode() & 0o777, 0o600);
    let mut corrupt = good.clone();
    corrupt[good.len() / 2] ^= 4;
    let mut newer = good.clone();
    newer[15] += 1;
    let write = |octets: &[u8]| fs::write(kept.file(), octets).expect("the folder is ours");
    let cases: [(&str, &dyn Fn()); 8] = [
        ("it ends early", &|| write(&good[..good.len() / 2])),
        ("it is corrupt", &|| write(&corrupt)),
        ("it is no snapshot", &|| write(b"")),
        ("it is no snapshot", &|| write(&[0x5a; 4096])),
        ("it is of version 2", &|| write(&newer)),
        ("it is no snapshot", &|| {
            write(b"");
            let huge = fs::File::options().write(true).open(kept.file()).expect("just written");
            huge.set_len(1 << 40).expect("a file with a hole needs no room");
        }),
        ("it is no snapshot", &|| {
            fs::remove_file(kept.file()).expect("it is there");
            fs::create_dir(kept.file()).expect("the folder is ours");
        }),
        ("it is no snapshot", &|| {
            fs::remove_dir(kept.file()).expect("empty");
            let made = std::process::Command::new("mkfifo").arg(kept.file()).status().expect("coreutils has mkfifo");
            assert!(made.success());
        }),
    ];
    for (complaint, spoil) in cases {
        spoil();
        let agent = Agent::start(&kept.config);
        let said = agent.said();
        assert_eq!(said.matches("is ignored").count(), 1, "{said}");
        assert!(said.contains(complaint), "{complaint}: {said}");
        ask(agent.addr(), "host-1.test", A).assert_encodes("host-1.test");
        assert_eq!(agent.metric("nodens_cache_snapshots_total", "ignored").to_string(), "1");
    }
}

#[test]
fn a_snapshot_nobody_can_write_is_one_line_and_the_agent_goes_on() {
    let upstream = Upstream::new(encoded(300));
    let folder = tempfile::tempdir().expect("the temporary directory can be written");
    let file = folder.path().join("file");
    fs::write(&file, "in the way").expect("the folder is ours");
    // A full disk, as the kernel has one for tests; a folder that is a file.
    for path in [Path::new("/dev/full/cache").to_owned(), file.join("cache")] {
        let agent = Agent::start(&Config::new(&upstream).cache(&format!("snapshot: {}", path.display())));
        ask(agent.addr(), "a.test", A).assert_encodes("a.test");
        let status = agent.stop();
        let said = agent.said();
        assert!(status.success(), "{said}");
        assert_eq!(said.matches("no snapshot of the cache is written").count(), 1, "{said}");
    }
}

/// A file system of 64 KiB: what is half written goes away again, and the snapshot before it stays.
#[test]
fn a_full_disk_leaves_the_snapshot_before_and_no_torso() {
    let upstream = Upstream::new(encoded(300));
    let kept = Kept::new(&upstream);
    let mount = |options: &[&str]| {
        std::process::Command::new(options[0])
            .args(&options[1..])
            .arg(kept.folder.path())
            .status()
            .is_ok_and(|it| it.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"]) {
        eprintln!("skipped: a file system cannot be mounted here");
        return;
    }
    let agent = Agent::start(&kept.config);
    ask(agent.addr(), "small.test", A);
    stop(&agent);
    let before = fs::read(kept.file()).expect("it fits");
    let agent = Agent::start(&kept.config);
    ask_many(agent.addr(), (0..2000).map(|nth| Ask::new(&format!("host-{nth}.test"), A)), 64);
    let status = agent.stop();
    let (said, after) = (agent.said(), fs::read(kept.file()));
    let torso = kept.folder.path().join("cache.new").exists();
    assert!(mount(&["umount"]));
    assert!(status.success() && said.contains("No space left on device"), "{said}");
    assert!(after.expect("it stays") == before && !torso);
}

/// The aim is 30 ms with 100,000 entries in a release build; here the figures are said, not judged.
#[test]
fn a_large_cache_is_there_again_and_its_file_is_bounded() {
    let full = std::env::var("NODENS_LOAD").is_ok_and(|it| it == "full");
    let (count, memory) = if full { (500_000, 256) } else { (20_000, 16) };
    let upstream = Upstream::new(encoded(3600));
    let kept = Kept::new(&upstream);
    let snapshot = format!("memory: {memory}MiB, snapshot: {}", kept.file().display());
    let config = kept.config.clone().cache(&snapshot).limits("in_flight: 8192, in_flight_per_client: 8192");
    let agent = Agent::start(&config);
    let name = |nth: usize| format!("host-{nth}.a-zone-of-usual-length.test");
    ask_many(agent.addr(), (0..count).map(|nth| Ask::new(&name(nth), A)), 256);
    let rss = agent.rss();
    stop(&agent);
    upstream.stop();
    let size = fs::metadata(kept.file()).expect("it was written at the end").len();
    assert!(size < memory << 20, "{size}");

    let started = Instant::now();
    let agent = Agent::spawn(&config);
    let first = loop {
        if let Some(answer) = Ask::new(&name(1), A).within(seconds(1)).try_send(agent.addr()) {
            break answer;
        }
    };
    let took = started.elapsed();
    first.assert_encodes(&name(1));
    eprintln!(
        "{count} entries, {size} octets: first answer {took:?} after the start; RSS {rss} before, {} after",
        agent.rss()
    );
    for nth in (0..count).step_by(count / 200) {
        ask(agent.addr(), &name(nth), A).assert_encodes(&name(nth));
    }
    let entries = || agent.metric("nodens_cache_entries", "positive").to_string();
    while entries() != count.to_string() {
        assert!(started.elapsed() < seconds(60), "{} of {count}", entries());
        std::thread::yield_now();
    }
}
