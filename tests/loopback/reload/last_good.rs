//! A restart with a bad file: the last good configuration runs, and says so.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;

use crate::support::agent::{Agent, Reload, http_get};
use crate::support::client::ask;
use crate::support::config::Config;
use crate::support::fresh_address;
use crate::support::octets::{A, NXDOMAIN};
use crate::support::upstream::{Upstream, encoded};

/// An agent's configuration with a snapshot in `folder`, and where its readiness is shown.
fn config(upstream: &Upstream, folder: &Path) -> (Config, SocketAddr) {
    let own = fresh_address();
    let health = SocketAddr::new(own, 5303);
    let config = Config::new(upstream).listen(&[own]).metrics().endpoint(&format!("health: \"{health}\""));
    (config.cache(&format!("snapshot: {}", folder.join("cache").display())), health)
}

/// Starts an agent on `text` in `file`, which must be the file of the agent before it.
fn restart(config: &Config, file: &Path, text: &[u8]) -> Agent {
    fs::write(file, text).expect("the folder is ours");
    Agent::restart_on(config, file)
}

// Issue 4: a restart with a bad file starts with the last good one, loudly.
#[test]
fn a_restart_with_a_bad_file_starts_with_the_last_good_one() {
    let upstream = Upstream::new(encoded(60));
    let folder = tempfile::tempdir().expect("the temporary directory can be written");
    let (config, health) = config(&upstream, folder.path());
    let file = folder.path().join("nodens.yaml");
    let config = config.control(folder.path().join("control.sock"));
    let first = restart(&config, &file, config.yaml().as_bytes());
    first.wait_for_line("serving");
    // What a reload brought is the last good one, not what the start had.
    first.replace_file(config.clone().zone("corp.test", "{ answer: nxdomain }").yaml().as_bytes());
    first.wait_for_line("reloaded");
    assert!(first.stop().success());

    let text = config.yaml();
    let (cut, _) = text.split_at(text.find("snapshot:").expect("it has one") + 9 + folder.path().as_os_str().len() + 8);
    for bad in [format!("{text}\nzonse: 1\n"), format!("{cut} # torn [")] {
        let agent = restart(&config, &file, bad.as_bytes());
        agent.wait_for_line("serving");
        let line = agent.wait_for_line("the configuration is refused");
        assert!(line.contains("ERROR") && line.contains("cache.good.yaml"), "{line}");
        ask(agent.addr(), "a.corp.test", A).assert_rcode(NXDOMAIN);
        ask(agent.addr(), "a.test", A).assert_encodes("a.test");
        let (head, body) = http_get(health, "/readyz");
        assert!(head.contains("503") && body.contains("the last good one runs"), "{head} {body}");
        assert!(agent.metric("nodens_config_reloads_total", "rejected") >= 1.0);
        // Mended, it is in force again.
        agent.replace_file(text.as_bytes());
        agent.wait_for_line("reloaded");
        ask(agent.addr(), "a.corp.test", A).assert_encodes("a.corp.test");
        assert!(!http_get(health, "/readyz").1.contains("refused"));
        assert!(agent.stop().success());
        fs::write(&file, config.clone().zone("corp.test", "{ answer: nxdomain }").yaml()).expect("the folder is ours");
        let again = Agent::restart_on(&config, &file);
        again.wait_for_line("serving");
        assert!(again.stop().success());
    }
}

#[test]
fn a_restart_that_cannot_bind_starts_with_the_last_good_one() {
    let upstream = Upstream::new(encoded(60));
    let folder = tempfile::tempdir().expect("the temporary directory can be written");
    let (config, _) = config(&upstream, folder.path());
    let file = folder.path().join("nodens.yaml");
    let config = config.control(folder.path().join("control.sock"));
    let first = restart(&config, &file, config.yaml().as_bytes());
    first.wait_for_line("serving");
    assert!(first.stop().success());
    let busy = fresh_address();
    let _squatter = UdpSocket::bind((busy, 5300)).expect("nobody else is there");
    let agent = restart(&config, &file, config.clone().listen(&[config.addresses()[0], busy]).yaml().as_bytes());
    agent.wait_for_line("serving");
    let line = agent.wait_for_line("the configuration is refused");
    assert!(line.contains(&format!("{busy}:5300")), "{line}");
    ask(agent.addr(), "a.test", A).assert_encodes("a.test");
    assert_eq!(agent.reload_yaml(&config.yaml()), Reload::Done);
}

#[test]
fn without_a_last_good_one_a_bad_file_is_the_end_as_ever() {
    let upstream = Upstream::new(encoded(60));
    let folder = tempfile::tempdir().expect("the temporary directory can be written");
    let (config, _) = config(&upstream, folder.path());
    let file = folder.path().join("nodens.yaml");
    let agent = restart(&config, &file, format!("{}\nzonse: 1\n", config.yaml()).as_bytes());
    let status = agent.wait_for_exit();
    assert_eq!(status.code(), Some(1), "{}", agent.said());
    assert!(agent.said().contains("zonse"));
}
