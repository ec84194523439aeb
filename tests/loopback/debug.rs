//! What the debug endpoint shows of the plan.

use std::net::SocketAddr;
use std::process::Command;

use crate::support::agent::{Agent, http_get};
use crate::support::config::Config;
use crate::support::fresh_address;
use crate::support::upstream::{Upstream, encoded};

/// What `nodens check` says of a configuration.
fn words(text: &str) -> String {
    let file = tempfile::NamedTempFile::new().expect("the temporary directory can be written");
    std::fs::write(file.path(), text).expect("it is ours");
    let output = Command::new(env!("CARGO_BIN_EXE_nodens")).arg("check").arg(file.path()).output();
    let output = output.expect("the binary of this crate");
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("words").replace(&file.path().display().to_string(), "FILE")
}

// config.md, /debug/plan: JSON, and JSON is YAML: what is shown is a configuration that means the same.
#[test]
fn the_plan_shown_is_a_configuration_that_means_the_same() {
    let upstream = Upstream::new(encoded(60));
    let address = fresh_address();
    let debug = SocketAddr::new(address, 5303);
    let config = Config::new(&upstream).listen(&[address]).endpoint(&format!("debug: \"{debug}\""));
    let agent = Agent::start(&config);
    let (head, shown) = http_get(debug, "/debug/plan");
    assert!(head.contains("200") && head.contains("application/json"), "{head}");
    assert!(serde_json::from_str::<serde_json::Value>(&shown).is_ok_and(|it| it.is_object()), "{shown}");
    let config = config.control(agent.control_socket());
    assert_eq!(words(&shown), words(&config.yaml()));
}
