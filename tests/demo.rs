//! `nodens demo`, run as a user runs it.

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

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

/// C01, C14, H15, H16, Q01, S01, S08, S09, S16, V01, V02: the tour checks each and ends at the first that fails.
#[test]
fn the_tour_is_right_at_every_step() {
    let output = Command::new(env!("CARGO_BIN_EXE_nodens")).arg("demo").output().expect("the binary of this crate");
    let shown = String::from_utf8(output.stdout).expect("text");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{shown}\n{complaint}");
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
