//! Each zone's upstream answers: asked through the agent, for a name that cannot be in its cache.

use std::io;
use std::net::SocketAddr;

use hickory_proto::rr::{Name, RecordType};

use super::super::client::{Outcome, Question};
use super::report::Report;
use crate::control::status::{Status, Zone};

/// Asks `agent` for a name in each zone that has an upstream, all at once.
///
/// # Errors
/// Those of the output.
pub(super) async fn check(status: &Status, agent: SocketAddr, report: &mut Report) -> io::Result<()> {
    let routed = status.zones.iter().filter(|zone| zone.upstream.is_some());
    let asked: Vec<_> = routed.map(|zone| (zone, tokio::spawn(ask(zone.name.clone(), agent)))).collect();
    for (zone, asked) in asked {
        let upstream = zone.upstream.as_deref().unwrap_or_default();
        let outcome = asked.await.unwrap_or_else(|_| Err("asking panicked".to_owned()));
        let what = format!("zone {}: upstream {upstream} answers", zone.name);
        report.check(&what, outcome.map(|more| more + &suspects(status, zone)))?;
    }
    Ok(())
}

/// What came, in words; whatever is an answer of the upstream will do.
async fn ask(zone: String, agent: SocketAddr) -> Result<String, String> {
    let name = format!("nodens-verify-{:016x}.{}", rand::random::<u64>(), zone.trim_start_matches('.'));
    let name = Name::from_ascii(&name).map_err(|error| format!("no name can be asked for: {error}"))?;
    let reply = Question { name, kind: RecordType::A }.ask(agent).await.map_err(|error| error.to_string())?;
    match &reply.result {
        Outcome::Failure(what) => Err(reply.ede.map_or_else(|| what.clone(), |code| format!("{what} (EDE {code})"))),
        Outcome::Data(_) | Outcome::NoData | Outcome::NxDomain => {
            Ok(format!("{}, in {:.1} ms", reply.result, reply.took.as_secs_f64() * 1e3))
        }
    }
}

/// Servers of the zone's upstream that do not answer, although the upstream does.
fn suspects(status: &Status, zone: &Zone) -> String {
    let group = status.upstreams.iter().find(|it| Some(&it.name) == zone.upstream.as_ref());
    let servers = group.map(|it| it.servers.as_slice()).unwrap_or_default();
    let down: Vec<_> = servers.iter().filter(|it| !it.healthy).map(|it| it.address.to_string()).collect();
    match down.as_slice() {
        [] => String::new(),
        down => format!("; {} of {} servers silent: {}", down.len(), servers.len(), down.join(", ")),
    }
}
