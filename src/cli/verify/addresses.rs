//! Every address answers over UDP and TCP, and it is Nodens who answers: a name that nobody else knows is the proof.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::report::Report;
use crate::net::probe::ProbeName;
use crate::wire::Transport;

/// Time for an answer. The agent answers this name itself, at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks each of `addresses` once over each transport.
///
/// # Errors
/// Those of the output.
pub(super) fn check(addresses: &[SocketAddr], report: &mut Report) -> io::Result<()> {
    for address in addresses {
        for (transport, word) in [(Transport::Udp, "UDP"), (Transport::Tcp, "TCP")] {
            let start = Instant::now();
            let asked = ProbeName::new(rand::random()).ask(*address, transport, PATIENCE);
            let took = start.elapsed().as_secs_f64() * 1e3;
            let outcome = asked.map(|()| format!("Nodens, in {took:.1} ms")).map_err(|error| reason(&error));
            report.check(&format!("{address} answers over {word}"), outcome)?;
        }
    }
    Ok(())
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("nothing in {} s", PATIENCE.as_secs()),
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        _ => error.to_string(),
    }
}
