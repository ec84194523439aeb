//! The status page as a real browser shows it: Debian's Chromium without a window, against the real agent on loopback.
//!
//! `NODENS_PICTURES=/some/folder` keeps pictures of it, for whoever wants to look.
#![allow(dead_code, reason = "only a part of the loopback tests' support is needed here")]

#[path = "loopback/peers/programs.rs"]
mod programs;
#[path = "loopback/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use support::agent::{Agent, Reload, http_get};
use support::client::{Ask, ask};
use support::config::Config;
use support::fresh_address;
use support::octets::A;
use support::upstream::{Upstream, encoded};

/// A name that would be markup if it were put in as such.
const HOSTILE: &str = "<svg/onload=title=1>.<b>.test";
/// Longest time a browser may take for one page, on a busy machine.
const BROWSER: &str = "90";

/// An agent with a debug endpoint, and where that is.
fn start(upstream: &Upstream) -> (Agent, SocketAddr) {
    let address = fresh_address();
    let debug = SocketAddr::new(address, 5303);
    let config = Config::new(upstream).listen(&[address]).endpoint(&format!("debug: \"{debug}\""));
    (Agent::start(&config.zone("pin.test", "{ answer: [192.0.2.9] }")), debug)
}

/// Runs Chromium on the page, for `seconds` of the page's own time. What it prints, and what the page logged.
fn browse(page: &str, seconds: u32, more: &[&str]) -> (String, Vec<String>) {
    // Chromium itself crashes now and then, headless on a machine without a bus or a screen; the page has no part in it.
    let crashes = |it: &Output| it.status.signal().is_some();
    let mut output = run_browser(page, seconds, more);
    for _ in 0..2 {
        if crashes(&output) {
            output = run_browser(page, seconds, more);
        }
    }
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{log}", output.status);
    let logged = log.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned);
    (String::from_utf8_lossy(&output.stdout).into_owned(), logged.collect())
}

fn run_browser(page: &str, seconds: u32, more: &[&str]) -> Output {
    let profile = tempfile::tempdir().expect("a temporary directory can be made");
    Command::new("timeout")
        .args([BROWSER, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-extensions",
        ])
        .args(["--disable-dev-shm-usage", "--no-proxy-server", "--enable-logging=stderr", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--virtual-time-budget={}", seconds * 1000))
        .args(more)
        .arg(page)
        .stdin(Stdio::null())
        .output()
        .expect("timeout can be run")
}

/// The text between `start` and the next `end`.
#[track_caller]
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start:?} in:\n{text}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end:?} after {start:?}")).0
}

/// Issue 4: the page shows what the agent says, names as text, and the browser has nothing to complain about.
#[test]
fn the_page_shows_how_the_agent_stands() {
    if !programs::present(&["chromium"]) {
        return;
    }
    let upstream = Upstream::new(encoded(60));
    let (agent, debug) = start(&upstream);
    for name in ["a.test", "a.test", "a.test", "www.pin.test", HOSTILE] {
        ask(agent.addr(), name, A);
    }
    assert_eq!(agent.reload_yaml("zones: 1\n"), Reload::Refused);
    let (shown, logged) = browse(&format!("http://{debug}/"), 6, &["--dump-dom"]);
    assert_eq!(logged, Vec::<String>::new());
    let of = |id: &str, end: &str| between(&shown, &format!("id=\"{id}\""), end).to_owned();

    assert!(shown.contains(&format!("version {}, up ", env!("CARGO_PKG_VERSION"))), "{shown}");
    assert!(of("state", "</p>").contains("This agent answers at its own addresses"), "{shown}");
    assert!(of("reasons", "</ul>").contains("the newest configuration is refused"), "{shown}");
    assert!(of("facts", "</dl>").contains(&agent.addr().to_string()), "{shown}");
    let counts = of("counts", "</dl>");
    assert!(counts.contains("5, 0 of them over TCP") && counts.contains("50.0 % since the start"), "{counts}");
    assert!(counts.contains("2 fresh, 1 answered here, 2 asked upstream"), "{counts}");
    let servers = of("upstreams", "</tbody>");
    assert!(servers.contains(&upstream.address().to_string()) && servers.contains(" ms<"), "{servers}");
    assert!(of("clients", "</tbody>").contains("127."), "{shown}");
    assert!(of("incidents", "</tbody>").contains("reload refused: "), "{shown}");
    // Polled more than once: there are points to draw.
    assert!(of("t-rate", "</figcaption>").contains("now 0/s"), "{shown}");
    assert!(of("c-rate", "</svg>").contains("d=\"M"), "{shown}");

    let names = of("names", "</tbody>");
    assert!(names.contains("a.test.") && names.contains("&lt;svg/onload=title=1&gt;.&lt;b&gt;.test."), "{names}");
    assert!(!shown.contains("<svg/") && !shown.contains("onload=\"") && !shown.contains("<b>"), "{shown}");
}

/// Issue 4: a page left open over the end of its agent does not go on as if nothing had happened.
#[test]
fn a_page_that_reaches_no_agent_says_so() {
    if !programs::present(&["chromium"]) {
        return;
    }
    let upstream = Upstream::new(encoded(60));
    let (agent, debug) = start(&upstream);
    let (_, body) = http_get(debug, "/");
    // The file alone, from nowhere: it may ask nobody.
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let file = folder.path().join("page.html");
    std::fs::write(&file, body).expect("the directory takes files");
    let (shown, _) = browse(&format!("file://{}", file.display()), 4, &["--dump-dom"]);
    let state = between(&shown, "id=\"state\"", "</p>");
    assert!(state.contains("class=\"bad\"") && state.contains("The agent cannot be reached since"), "{state}");
    assert!(agent.is_alive());
}

/// Issue 4: readable at 380 px: nothing is wider than the window, with the longest name there can be.
#[test]
fn nothing_is_wider_than_a_small_window() {
    if !programs::present(&["chromium"]) {
        return;
    }
    let upstream = Upstream::new(encoded(60));
    let (agent, debug) = start(&upstream);
    let longest = [["x"; 63].concat(), ["y"; 63].concat(), ["z"; 63].concat(), ["w"; 55].concat()].join(".") + ".test";
    ask(agent.addr(), &longest, A);
    // A window is at least 500 px wide; a frame is as wide as it is told. It may not show the page, so it gets its text.
    let (_, body) = http_get(debug, "/");
    let (_, status) = http_get(debug, "/debug/status");
    assert!(status.contains(&"x".repeat(63)));
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let answered = body.replace("const response = await fetch(", "const response = new Response(ANSWER); void (");
    assert_ne!(answered, body);
    let answered =
        answered.replace("\"use strict\";", &format!("\"use strict\"; const ANSWER = JSON.stringify({status});"));
    std::fs::write(folder.path().join("page.html"), answered).expect("the directory takes files");
    let frame = "<iframe src=page.html width=380 height=800></iframe><p id=it></p><script>setTimeout(() => {\
        const root = frames[0].document.documentElement;\
        it.textContent = [root.scrollWidth, root.clientWidth, frames[0].names.textContent.length].join(' '); }, 3000)</script>";
    let file = folder.path().join("frame.html");
    std::fs::write(&file, frame).expect("the directory takes files");
    let page = format!("file://{}", file.display());
    let (shown, _) = browse(&page, 6, &["--dump-dom", "--allow-file-access-from-files"]);
    let measured: Vec<u32> =
        between(&shown, "<p id=\"it\">", "</p>").split(' ').map(|it| it.parse().unwrap_or_default()).collect();
    let [content, window, name] = measured[..] else { panic!("{measured:?}") };
    assert!(window <= 380 && content <= window && name > 250, "{content} in {window} px, with {name} characters");
}

/// Pictures of a page with traffic, small and large, light and dark, for whoever wants to look.
#[test]
fn pictures_can_be_taken() {
    let Some(folder) = std::env::var_os("NODENS_PICTURES") else { return };
    let upstream = Upstream::new(encoded(60));
    let (agent, debug) = start(&upstream);
    let stop = Arc::new(AtomicBool::new(false));
    let clients = {
        let (stop, address) = (Arc::clone(&stop), agent.addr());
        thread::spawn(move || {
            for number in 0_u32.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let name = if number % 7 == 0 {
                    format!("n{number}.test")
                } else {
                    format!("web{}.shop.svc.cluster.local", number % 5)
                };
                Ask::new(&name, A).send(address);
                if number % 50 == 0 {
                    ask(address, HOSTILE, A);
                }
                thread::sleep(Duration::from_millis(10 + u64::from(number / 40 % 9) * 4));
            }
        })
    };
    assert_eq!(agent.reload_yaml("zones: 1\n"), Reload::Refused);
    for (name, more) in [
        ("small", &["--window-size=380,3000"][..]),
        ("large", &["--window-size=1280,1500"]),
        ("small-dark", &["--window-size=380,3000", "--blink-settings=preferredColorScheme=0"]),
        ("large-dark", &["--window-size=1280,1500", "--blink-settings=preferredColorScheme=0"]),
    ] {
        let picture = format!("--screenshot={}", Path::new(&folder).join(format!("{name}.png")).display());
        let (_, logged) = browse(&format!("http://{debug}/"), 40, &[more, &[&*picture]].concat());
        assert_eq!(logged, Vec::<String>::new());
    }
    stop.store(true, Ordering::Relaxed);
    clients.join().expect("it does not panic");
}
