//! `nodens demo --serve`: leaves the stage lit for `dig`, until Ctrl-C.

use std::io::{self, Write};
use std::net::SocketAddr;

use tokio::signal::unix::{SignalKind, signal};

use super::screen::Screen;
use super::server::{Manner, Server};

/// What to ask, and what it shows.
const SUGGESTIONS: [(&str, &str); 10] = [
    ("kubernetes.default.svc.cluster.local", "a Service; ask twice"),
    ("web.default.svc.cluster.local", "a headless Service"),
    ("SRV _http._tcp.web.default.svc.cluster.local", "its ports"),
    ("-x 10.244.2.12", "a pod's name"),
    ("files.default.svc.cluster.local", "an ExternalName"),
    ("idrac.viktorbarzin.lan", "by Technitium"),
    ("www.google.com.viktorbarzin.lan", "noise: here"),
    ("forgejo.viktorbarzin.me", "pinned: here"),
    ("AAAA example.com", "stripped"),
    ("HTTPS example.com", "no ipv6hint"),
];

/// Prints what to try and returns on SIGINT or SIGTERM. SIGUSR1 silences the cluster DNS, and wakes it again.
///
/// # Errors
/// If the screen is gone or signals cannot be had.
pub(super) async fn until_interrupted(
    agent: SocketAddr,
    cluster: &Server,
    screen: &mut Screen<impl Write>,
) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut outage = signal(SignalKind::user_defined1())?;

    screen.section("Ask it")?;
    let dig = format!("dig @{} -p {}", agent.ip(), agent.port());
    for (question, shows) in SUGGESTIONS {
        screen.suggest(&format!("{dig} {question}"), shows)?;
    }
    screen.section("Break it")?;
    screen.suggest(&format!("kill -USR1 {}", std::process::id()), "the cluster DNS goes silent; again: it is back")?;
    screen.section("Ctrl-C ends it.")?;
    loop {
        tokio::select! {
            _ = interrupt.recv() => return screen.blank(),
            _ = terminate.recv() => return Ok(()),
            _ = outage.recv() => {
                let silent = cluster.manner() == Manner::Silent;
                cluster.behave(if silent { Manner::Prompt } else { Manner::Silent });
                screen.say(if silent { "# the cluster DNS answers again" } else { "# the cluster DNS is silent" })?;
            }
        }
    }
}
