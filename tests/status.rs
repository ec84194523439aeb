//! `nodens status`, run as a user runs it, against the real agent on loopback.

mod process;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process::{Agent, PATIENCE, Upstream, nodens};
use serde_json::Value;

fn agent() -> Agent {
    let upstream = Upstream::start().address;
    Agent::start(&format!(
        "upstreams: {{ up: {{ servers: [\"{upstream}\"] }} }}\n\
         zones:\n  \".\": {{ upstream: up }}\n  pin.test: {{ answer: [192.0.2.9] }}\n"
    ))
}

/// `text` with every number as `#` and one space between words: columns follow the width of numbers.
fn masked(text: &str) -> String {
    let mut shown = String::new();
    for letter in text.chars() {
        match letter {
            // `0.1.0` is one number.
            '0'..='9' | '.' | ',' if shown.ends_with('#') => {}
            '0'..='9' => shown.push('#'),
            other => shown.push(other),
        }
    }
    shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[test]
fn the_screen_says_how_the_agent_stands() {
    let agent = agent();
    for name in ["a.test", "a.test", "a.pin.test"] {
        agent.ask(name);
    }
    let output = agent.run(&["status"]);
    assert_eq!(output.status.code(), Some(0));
    let shown = String::from_utf8(output.stdout).expect("text");
    assert!(!shown.contains('\u{1b}'), "a pipe is no terminal: {shown:?}");
    assert!(shown.lines().count() < 24, "one screen:\n{shown}");
    insta::assert_snapshot!(masked(&shown));
}

#[test]
fn json_is_one_object_with_the_promised_fields() {
    let agent = agent();
    for name in ["a.test", "a.test", "a.test", "a.pin.test"] {
        agent.ask(name);
    }
    let status = agent.status();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["listen"], serde_json::json!([agent.address.to_string()]));
    assert_eq!((&status["ready"], &status["node"]), (&Value::Bool(true), &Value::Null));
    assert_eq!(status["config"], serde_json::json!({ "generation": 1, "refused": null }));
    let queries = &status["queries"];
    assert_eq!((&queries["udp"], &queries["miss"], &queries["fresh"]), (&4.into(), &1.into(), &2.into()), "{queries}");
    assert_eq!((&queries["local"], queries["hit_rate"].as_f64()), (&1.into(), Some(2.0 / 3.0)), "{queries}");
    assert_eq!(status["cache"]["positive"], 1);
    let server = &status["upstreams"][0]["servers"][0];
    assert_eq!(server["healthy"], true);
    assert!(server["round_trip_seconds"].as_f64().is_some_and(|it| it > 0.0), "{server}");
    let zones = serde_json::json!([{ "name": ".", "upstream": "up" }, { "name": "pin.test.", "upstream": null }]);
    assert_eq!(status["zones"], zones);
}

/// Every field that the help names is there, so that a script can rely on what it reads.
#[test]
fn the_help_names_the_fields_there_are() {
    let help = String::from_utf8(nodens(&["status", "--help"]).stdout).expect("text");
    let status = agent().status();
    for field in status.as_object().expect("an object").keys() {
        assert!(help.contains(field.as_str()), "{field} is not in the help:\n{help}");
    }
    for part in ["queries", "cache", "config"] {
        for field in status[part].as_object().expect("an object").keys() {
            assert!(help.contains(field.as_str()), "{part}.{field} is not in the help:\n{help}");
        }
    }
}

#[test]
fn the_agent_is_found_through_its_configuration() {
    let agent = agent();
    let file = agent.file();
    let output = nodens(&["status", "-c", file.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_refused_configuration_is_shown() {
    let agent = agent();
    agent.reload_with("nonsense: 1\n", |status| status["config"]["refused"].is_string());
    let status = agent.status();
    assert_eq!((&status["ready"], &status["config"]["generation"]), (&Value::Bool(false), &1.into()));
    let shown = String::from_utf8(agent.run(&["status"]).stdout).expect("text");
    assert!(shown.contains("not ready") && shown.contains("nonsense"), "{shown}");
}

#[test]
fn a_reload_raises_the_generation() {
    let agent = agent();
    // The file is watched too: the signal may find the change in force already.
    agent.reload_with("aaaa: strip\n", |status| status["config"]["generation"].as_u64() >= Some(2));
}

#[test]
fn without_an_agent_the_exit_code_is_three() {
    for more in [&[][..], &["--watch"], &["--json"]] {
        let output = nodens(&[&["status", "--control", "/nonexistent/control.sock"], more].concat());
        assert_eq!(output.status.code(), Some(3), "{more:?}");
        assert!(output.stdout.is_empty(), "{more:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be reached"), "{more:?}");
    }
}

/// A command that goes on; dropped, it is killed.
struct Watching {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Watching {
    fn start(agent: &Agent, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodens"));
        command.args(["status", "--watch", "--control"]).arg(agent.socket()).args(more);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the binary of this crate");
        let (line, lines) = mpsc::channel();
        let output = child.stdout.take().expect("piped");
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|it| line.send(it))
        });
        Self { child, lines }
    }

    /// The next line with `words`.
    #[track_caller]
    fn wait_for(&self, words: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no {words:?}: {error}"));
            if line.contains(words) {
                return line;
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn watching_prints_block_after_block_and_ends_well_at_an_interrupt() {
    let agent = agent();
    let mut watching = Watching::start(&agent, &[]);
    watching.wait_for("Nodens ");
    for _ in 0..2 {
        let first = watching.wait_for("Nodens ");
        assert!(!first.contains('\u{1b}'), "{first:?}");
        watching.wait_for("this second");
    }
    kill(Pid::from_raw(watching.child.id().cast_signed()), Signal::SIGINT).expect("our child");
    assert_eq!(watching.child.wait().expect("our child").code(), Some(0));
}

#[test]
fn watching_outlives_a_restart_of_the_agent() {
    let mut agent = agent();
    let watching = Watching::start(&agent, &[]);
    watching.wait_for("Nodens ");
    agent.kill();
    watching.wait_for("cannot be reached");
    agent.restart();
    watching.wait_for("Nodens ");
}

#[test]
fn watching_as_json_is_an_object_a_line() {
    let agent = agent();
    let watching = Watching::start(&agent, &["--json"]);
    for _ in 0..2 {
        let line = watching.lines.recv_timeout(PATIENCE).expect("a line");
        let status: Value = serde_json::from_str(&line).expect("an object");
        assert!(status["uptime_seconds"].as_f64().is_some(), "{line}");
    }
}
