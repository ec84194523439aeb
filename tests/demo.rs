//! `nodens demo`, run as a user runs it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest wait for anything that should come at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// A child that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Words for setpriv that leave no right to make namespaces, whoever runs the test.
const WITHOUT_RIGHTS: [&str; 3] = ["--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"];
const NODENS: &str = env!("CARGO_BIN_EXE_nodens");

/// C01, C14, H15, H16, Q01, S01, S08, S09, S16, V01, V02: the tour checks each and ends at the first that fails.
#[test]
fn the_tour_is_right_at_every_step() {
    let shown = tour(Command::new("setpriv").args(WITHOUT_RIGHTS).args([NODENS, "demo"]));
    assert!(shown.contains("one process, no root, no network"), "{shown}");
    let lacks: Vec<_> = shown.lines().filter(|line| line.contains("interception is not shown: ")).collect();
    assert_eq!(lacks.len(), 1, "{shown}");
    every_step_is_there(&shown);
}

/// Namespaces alone are not enough: where the rest cannot be had, the tour without it is taken, too.
#[test]
fn where_no_server_can_have_its_port_the_tour_is_the_plain_one() {
    if !may_make_namespaces() {
        return;
    }
    let rights = ["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service", "--"];
    let shown = tour(Command::new("setpriv").args(rights).args([NODENS, "demo"]));
    assert!(shown.contains("interception is not shown: no DNS server: "), "{shown}");
    every_step_is_there(&shown);
}

/// Runs a demo to its good end; what it printed.
fn tour(command: &mut Command) -> String {
    let output = command.output().expect("util-linux and the binary of this crate");
    let shown = String::from_utf8(output.stdout).expect("text");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{shown}\n{complaint}");
    shown
}

fn every_step_is_there(shown: &str) {
    for (line, follows) in [
        ("asked again", "hit"),
        ("routed to Technitium", "192.168.1.4"),
        ("search-list noise (max_labels)", "NXDOMAIN"),
        ("pinned to an address", "10.97.4.20"),
        ("NODATA with SOA: it exists", "NODATA"),
        ("1 upstream query", "10.96.14.8, 200 times"),
        ("waits 1.8 s for a fresh answer", "(EDE 3)"),
        ("never seen: an error, in time", "SERVFAIL (EDE 22)"),
    ] {
        let mut lines = shown.lines().skip_while(|it| !it.contains(line));
        assert!(lines.next().is_some(), "no step {line:?} in\n{shown}");
        assert!(lines.next().is_some_and(|it| it.contains(follows)), "{line:?} brought no {follows:?} in\n{shown}");
    }
    assert!(shown.contains("0 lost"), "{shown}");
    // A pipe is no terminal.
    assert!(!shown.contains('\u{1b}'), "{shown}");
    for line in shown.lines() {
        assert!(line.chars().count() <= 80, "{line:?}");
    }
}

#[test]
fn serve_prints_questions_that_are_answered_and_ends_at_an_interrupt() {
    let demo = Command::new(env!("CARGO_BIN_EXE_nodens")).args(["demo", "--serve"]).stdout(Stdio::piped()).spawn();
    let mut demo = Running(demo.expect("the binary of this crate"));
    let output = demo.0.stdout.take().expect("piped");
    let (sender, lines) = mpsc::channel();
    // Reads on to the end, so that the child can always write.
    std::thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).try_for_each(|it| sender.send(it)));
    let mut command = None;
    loop {
        let line = lines.recv_timeout(PATIENCE).expect("a line");
        if let Some(dig) = line.trim().strip_prefix("dig @") {
            command.get_or_insert_with(|| dig.to_owned());
        }
        if line.contains("Ctrl-C ends it") {
            break;
        }
    }
    let command = command.expect("a dig line");
    let (address, rest) = command.split_once(" -p ").expect("a port");
    let port: u16 = rest.split(' ').next().and_then(|it| it.parse().ok()).expect("a port");

    // A Service of the demo, type A, RD=1, octet by octet.
    let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
        \x03api\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01";
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    socket.connect((address, port)).expect("the agent's address");
    socket.send(query).expect("a query");
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).expect("an answer");
    assert_eq!(answer[..2], query[..2]);
    assert!(answer[..length].ends_with(&[10, 96, 14, 8]), "{:02x?}", &answer[..length]);

    let interrupt = format!("kill -INT {}", demo.0.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().expect("a shell").success());
    while lines.recv_timeout(PATIENCE) != Err(mpsc::RecvTimeoutError::Disconnected) {}
    assert_eq!(demo.0.wait().expect("our own child").code(), Some(0));
}

/// Whether namespaces can be made here; says aloud if not.
fn may_make_namespaces() -> bool {
    let tried = Command::new("unshare").args(["--net", "true"]).output().expect("util-linux has unshare");
    let may = tried.status.success();
    if !may {
        assert!(std::env::var_os("NODENS_NO_SKIP").is_none_or(|it| it != "1"), "may not be skipped, but no namespaces");
        eprintln!("SKIPPED: no right to make network namespaces");
    }
    may
}

/// The figures of a line of counts: asked, by cluster DNS, by the agent, lost.
fn figures(shown: &str, what: &str) -> [usize; 4] {
    let line = shown.lines().find_map(|it| it.strip_prefix("✓ ")?.strip_prefix(what));
    let line = line.unwrap_or_else(|| panic!("no line {what:?} in\n{shown}"));
    let figures: Vec<usize> = line.split_whitespace().map(|it| it.parse().expect("a number")).collect();
    figures.try_into().unwrap_or_else(|_| panic!("{line:?}"))
}

/// L06, L08: with rights the demo intercepts, kills the agent and restarts it; nothing planned loses a question.
#[test]
fn with_rights_the_counts_of_the_interception_add_up() {
    if !may_make_namespaces() {
        return;
    }
    let shown = tour(Command::new(NODENS).arg("demo"));
    let mut sum = [0; 4];
    for (what, by_cluster, by_agent, may_lose) in [
        ("no agent on the node", true, false, false),
        ("the agent starts and takes over", true, true, false),
        ("kill -9", true, true, true),
        ("it starts again", true, true, false),
        ("rolling update: SIGTERM, start", true, true, false),
    ] {
        let [asked, cluster, agent, lost] = figures(&shown, what);
        assert_eq!(asked, cluster + agent + lost, "{what}\n{shown}");
        assert_eq!((cluster > 0, agent > 0), (by_cluster, by_agent), "{what}\n{shown}");
        assert!(may_lose || lost == 0, "{what}\n{shown}");
        // A question a millisecond for the time the kernel takes to close a process's sockets.
        assert!(lost < asked / 2, "{what}\n{shown}");
        sum = [sum[0] + asked, sum[1] + cluster, sum[2] + agent, sum[3] + lost];
    }
    let [asked, cluster, agent, lost] = sum;
    let streams = format!("{asked} questions: {agent} to the agent, {cluster} to cluster DNS, {lost} lost");
    assert!(shown.contains(&streams), "no {streams:?} in\n{shown}");
    every_step_is_there(&shown);
}

/// What is in a network namespace that the demo must not touch: links, addresses, tables, routes.
const LOOK: &str = "ip addr; ip route show table all; nft list ruleset; cat /proc/sys/net/ipv4/ip_forward";

/// The demo in a network namespace that stands for the host's; dropped, all of it is killed.
struct Demo {
    shell: Running,
    lines: mpsc::Receiver<String>,
}

impl Demo {
    fn start() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", &format!("{LOOK}; echo started $$; exec {NODENS} demo")]);
        let mut shell = Running(command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("util-linux"));
        let output = shell.0.stdout.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|it| sender.send(it))
        });
        Self { shell, lines }
    }

    /// The lines up to and with the one with `words`.
    #[track_caller]
    fn until(&self, words: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{error} in {seen:#?}"));
            seen.push(line);
            if seen.last().is_some_and(|it| it.contains(words)) {
                return seen;
            }
        }
    }

    /// What [`LOOK`] shows of the namespace that stands for the host's.
    fn look(&self) -> Vec<String> {
        let pid = self.shell.0.id().to_string();
        let output = Command::new("nsenter").args(["-n", "-t", &pid, "sh", "-c", LOOK]).output().expect("util-linux");
        String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
    }

    /// Its children, and the network namespaces they and its threads are in.
    fn belongings(&self) -> (Vec<u32>, Vec<PathBuf>) {
        let own = format!("/proc/{}", self.shell.0.id());
        let (mut children, mut namespaces) = (Vec::new(), Vec::new());
        for thread in fs::read_dir(format!("{own}/task")).expect("it runs").flatten() {
            let text = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            children.extend(text.split_whitespace().filter_map(|it| it.parse::<u32>().ok()));
            namespaces.extend(fs::read_link(thread.path().join("ns/net")));
        }
        for child in &children {
            namespaces.extend(fs::read_link(format!("/proc/{child}/ns/net")));
        }
        let host = fs::read_link(format!("{own}/ns/net")).expect("it runs");
        namespaces.retain(|it| *it != host);
        namespaces.sort();
        namespaces.dedup();
        (children, namespaces)
    }
}

/// Whether process `pid` still does something; nobody may have asked yet how it ended.
fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Whether a process or a thread of it is in a namespace.
fn is_inhabited(namespace: &Path) -> bool {
    let processes = fs::read_dir("/proc").expect("procfs").flatten();
    let mut threads = processes.flat_map(|it| fs::read_dir(it.path().join("task")).into_iter().flatten().flatten());
    threads.any(|it| fs::read_link(it.path().join("ns/net")).is_ok_and(|seen| seen == namespace))
}

fn leaves_nothing_behind(signal: &str) {
    if !may_make_namespaces() {
        return;
    }
    let mut demo = Demo::start();
    let before = demo.until("started ");
    demo.until("The agent is killed");
    let (mut children, mut namespaces) = (Vec::new(), Vec::new());
    let start = Instant::now();
    // Between kill -9 and the next start there is no agent.
    while children.is_empty() {
        assert!(start.elapsed() < PATIENCE, "the agent is a child of the demo");
        (children, namespaces) = demo.belongings();
    }
    assert!(namespaces.len() >= 4, "two pods, a node, the servers: {namespaces:?}");
    assert_eq!(demo.look(), before[..before.len() - 1], "the demo touches what is not its own");
    let kill = format!("kill -{signal} {}", demo.shell.0.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    demo.shell.0.wait().expect("our own child");
    let start = Instant::now();
    while children.iter().any(|pid| lives(*pid)) || namespaces.iter().any(|it| is_inhabited(it)) {
        assert!(start.elapsed() < PATIENCE, "{children:?} or {namespaces:?} outlive SIG{signal}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    leaves_nothing_behind("INT");
}

#[test]
fn a_killed_demo_leaves_nothing_behind() {
    leaves_nothing_behind("KILL");
}

/// The agent's own process must not outlive a demo that was gone before it could ask for that.
#[test]
fn an_agent_without_its_demo_does_not_start() {
    let output = Command::new(NODENS).args(["demo", "--leash", "1"]).output().expect("the binary of this crate");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is gone"));
}
