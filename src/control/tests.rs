//! The socket file, and clients of every manner behind it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::dump::DumpRow;
use crate::dump::testing::row;

/// Longer than anything here may take; a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_dump_ends_with_the_number_of_rows() {
    let agent = Agent::start(3);
    let lines = agent.ask(r#"{"do":"cache.dump"}"#).await;
    let row: DumpRow = serde_json::from_value(lines[2].clone()).expect("a row");
    assert_eq!(row.name, "n2.test.");
    assert_eq!(lines[3], json!({ "done": true, "rows": 3 }));
    let lines = agent.ask(r#"{"do":"cache.dump","zone":"TEST","name":"n1.test","type":"a","limit":5}"#).await;
    assert_eq!((lines.len(), &lines[0]["name"]), (2, &json!("n1.test.")));
}

#[tokio::test]
async fn a_flush_says_how_many_went() {
    let agent = Agent::start(3);
    assert_eq!(agent.ask(r#"{"do":"cache.flush","zone":"b.test"}"#).await, [json!({ "done": true, "flushed": 1 })]);
    assert_eq!(agent.ask(r#"{"do":"cache.flush"}"#).await, [json!({ "done": true, "flushed": 0 })]);
    let asked = agent.flushed.lock().expect("no panic");
    assert_eq!(asked[0].zone, Some("b.test.".parse().expect("a name")));
    assert_eq!(asked[1], Filter::default());
}

#[tokio::test]
async fn a_reload_and_a_log_level_are_acknowledged_or_refused() {
    let agent = Agent::start(0);
    assert_eq!(agent.ask(r#"{"do":"reload"}"#).await, [json!({ "done": true, "message": "plan 2" })]);
    assert_eq!(agent.ask(r#"{"do":"reload"}"#).await, [json!({ "error": "line 3: no such key" })]);
    assert_eq!(agent.ask(r#"{"do":"log","level":"debug"}"#).await, [json!({ "done": true })]);
    assert_eq!(agent.ask(r#"{"do":"log","level":"loud"}"#).await, [json!({ "error": "no level: loud" })]);
}

#[tokio::test]
async fn the_status_is_one_object_beside_done() {
    let agent = Agent::start(0);
    let lines = agent.ask(r#"{"do":"status"}"#).await;
    assert_eq!((lines.len(), &lines[0]["done"], &lines[0]["status"]["uptime_seconds"]), (1, &json!(true), &json!(1.5)));
}

#[tokio::test]
async fn garbage_gets_an_error_line_and_the_next_client_an_answer() {
    let agent = Agent::start(1);
    let long = format!(r#"{{"do":"log","level":"{}"}}"#, "a".repeat(REQUEST));
    let deep = "[".repeat(REQUEST - 1);
    for garbage in [
        "",
        "hello",
        "\0\u{1b}[31m",
        "{}",
        "[]",
        r#"{"do":"format"}"#,
        r#"{"do":"cache.flush","nmae":"a.test"}"#,
        r#"{"do":"cache.flush","name":5}"#,
        r#"{"do":"cache.dump","name":"a..b"}"#,
        r#"{"do":"cache.dump","limit":-1}"#,
        &long,
        &deep,
    ] {
        let lines = agent.ask(garbage).await;
        assert!(lines.len() == 1 && lines[0]["error"].is_string(), "{garbage:?}: {lines:?}");
    }
    let octets = agent.exchange(b"\xff\xfe{\n").await;
    assert!(octets.starts_with("{\"error\":"), "{octets}");
    assert!(agent.flushed.lock().expect("no panic").is_empty(), "nothing was flushed by mistake");
    assert_eq!(agent.ask(r#"{"do":"cache.dump"}"#).await.len(), 2);
}

#[tokio::test]
async fn a_client_that_never_writes_is_told_and_dropped() {
    let agent = Agent::start(1);
    let mut silent = agent.connect().await;
    let mut said = String::new();
    timeout(PATIENCE, silent.read_to_string(&mut said)).await.expect("dropped in time").expect("read");
    assert_eq!(said, "{\"error\":\"no request within 2 s\"}\n");
}

#[tokio::test]
async fn a_client_that_never_reads_is_dropped_and_stops_nobody() {
    let mut agent = Agent::start(100_000);
    let mut deaf = agent.connect().await;
    deaf.write_all(b"{\"do\":\"cache.dump\"}\n").await.expect("sent");
    let lines = agent.ask(r#"{"do":"cache.dump","limit":1}"#).await;
    assert_eq!(lines.len(), 2, "others are served meanwhile");
    // A dump ends with its client: that of the other one, then that of the deaf one.
    for _ in 0..2 {
        timeout(PATIENCE, agent.ended.recv()).await.expect("dropped in time");
    }
    let mut rest = String::new();
    timeout(PATIENCE, deaf.read_to_string(&mut rest)).await.expect("closed").expect("read");
    assert!(!rest.contains("done"), "an answer that was cut must not look whole");
}

#[tokio::test]
async fn a_17th_client_waits_for_a_place() {
    let agent = Agent::start(1);
    let mut silent = Vec::new();
    for _ in 0..CLIENTS {
        silent.push(agent.connect().await);
    }
    assert_eq!(agent.ask(r#"{"do":"cache.dump"}"#).await.len(), 2);
    // It was answered, so one of the others must have been dropped before.
    let waiting = silent.iter().filter(
        |stream| matches!(stream.try_read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock),
    );
    assert!(waiting.count() < CLIENTS);
}

#[tokio::test]
async fn the_socket_file_is_for_its_owner_alone() {
    let agent = Agent::start(0);
    assert_eq!(fs::metadata(&agent.path).expect("a file").mode() & 0o777, 0o600);
}

#[tokio::test]
async fn an_abandoned_socket_file_is_replaced_and_a_living_one_is_not() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("new").join("control.sock");
    let listener = Listener::bind(&path).expect("the folder is made");
    assert_eq!(Listener::bind(&path).expect_err("somebody answers").kind(), io::ErrorKind::AddrInUse);
    drop(listener);
    assert!(!path.exists(), "removed at the end");
    // As after SIGKILL: the file stays, nobody is behind it.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    assert!(path.exists());
    drop(Listener::bind(&path).expect("nobody answers"));
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("precious");
    fs::write(&path, "data").expect("written");
    assert_eq!(Listener::bind(&path).expect_err("no socket").kind(), io::ErrorKind::AddrInUse);
    assert_eq!(fs::read_to_string(&path).expect("still there"), "data");
}

#[tokio::test]
async fn a_file_that_became_anothers_is_not_removed() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("control.sock");
    let first = Listener::bind(&path).expect("bound");
    fs::rename(&path, folder.path().join("aside")).expect("moved");
    let second = Listener::bind(&path).expect("bound");
    drop(first);
    assert!(path.exists());
    drop(second);
}

/// An agent that has nothing but a control socket.
struct Agent {
    path: PathBuf,
    flushed: Arc<Mutex<Vec<Filter>>>,
    /// One for each dump that ended.
    ended: UnboundedReceiver<()>,
    _folder: TempDir,
}

/// Tells when it is dropped.
struct Tell(UnboundedSender<()>);

impl Agent {
    fn start(entries: usize) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("control.sock");
        let flushed = Arc::new(Mutex::new(Vec::new()));
        let (tell, ended) = unbounded_channel();
        let asked = Arc::clone(&flushed);
        let reloads = AtomicUsize::new(0);
        let handlers = Handlers {
            dump: Source::new(move |filter: &Filter| {
                let (filter, tell) = (filter.clone(), Tell(tell.clone()));
                (0..entries).map(row).filter(move |row| {
                    let _ = &tell;
                    let name = row.name.parse().expect("a name");
                    filter.admits(&name, row.qtype.parse().expect("a type"))
                })
            }),
            flush: Box::new(move |filter| {
                asked.lock().expect("no panic").push(filter.clone());
                u64::from(filter.zone.is_some())
            }),
            reload: Box::new(move || match reloads.fetch_add(1, Ordering::Relaxed) {
                0 => Ok("plan 2".to_owned()),
                _ => Err("line 3: no such key".to_owned()),
            }),
            log_level: Box::new(|level| match level {
                "debug" => Ok(()),
                _ => Err(format!("no level: {level}")),
            }),
            status: Box::new(|| status::Status { uptime_seconds: 1.5, ..status::Status::default() }),
        };
        tokio::spawn(Listener::bind(&path).expect("bound").serve(Arc::new(handlers)));
        Self { path, flushed, ended, _folder: folder }
    }

    /// Sends a line and returns the lines that come back.
    async fn ask(&self, line: &str) -> Vec<Value> {
        let answer = self.exchange(format!("{line}\n").as_bytes()).await;
        answer.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    async fn exchange(&self, octets: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The agent may have hung up on what it does not want to read.
        let _ = stream.write_all(octets).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("closed in time");
        String::from_utf8(answer).expect("text")
    }

    async fn connect(&self) -> UnixStream {
        timeout(PATIENCE, UnixStream::connect(&self.path)).await.expect("in time").expect("connected")
    }
}

impl Drop for Tell {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.send(());
    }
}
