//! What the metrics say about the host: the lease, who answers, what was repaired.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::agent::{Agent, Config, LIMIT};
use crate::stage::{Flavour, Namespace, Stage};
use crate::stream::wait_until;

/// The value of one series; `None`: there is none.
fn metric(node: &Namespace, series: &str) -> Option<f64> {
    let text = node.run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9253").ok()?;
        stream.set_read_timeout(Some(LIMIT)).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    });
    let text = text.expect("the endpoint answers");
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.parse().ok()
}

/// Issue 4, item 3: lease state, and repairs by kind.
#[test]
fn the_lease_and_repairs_show_in_the_metrics() {
    let Some(stage) = Stage::build(Flavour::Nftables) else { return };
    let _agent = Agent::start(&stage.node, &Config::new());
    let is = |series: &str, value: f64| metric(&stage.node, series) == Some(value);
    assert!(wait_until(LIMIT, || is("nodens_intercepting", 1.0)).is_some());
    assert!(is("nodens_fallback_active", 0.0) && is("nodens_node_trouble", 0.0) && is("nodens_ready", 1.0));
    assert!(is("nodens_node_failures_total", 0.0) && is("nodens_node_repairs{what=\"tables\"}", 0.0));
    assert!(metric(&stage.node, "nodens_lease_seconds").is_some_and(|lease| lease >= 1.0));
    stage.node.nft("delete table inet nodens");
    let repaired = || metric(&stage.node, "nodens_node_repairs{what=\"tables\"}").is_some_and(|count| count >= 1.0);
    assert!(wait_until(LIMIT, repaired).is_some());
    stage.node.ip("address delete 169.254.20.10/32 dev lo");
    let repaired = || metric(&stage.node, "nodens_node_repairs{what=\"link\"}").is_some_and(|count| count >= 1.0);
    assert!(wait_until(LIMIT, repaired).is_some());
}
