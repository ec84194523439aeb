//! Probes suspected servers until they are back. Healthy servers are never probed; questions show that they live.
//!
//! Any reply that matches the probe counts as a sign of life, whatever it says: a server that refuses us still works.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;

use super::stream::StreamPool;
use super::udp_pool::{Heard, UdpPool};
use super::worker::Shared;
use crate::plan::Protocol;
use crate::upstream::{Group, Health, Server};
use crate::wire::response::Asked;
use crate::wire::{Key, Name, Transport, Type, compose};

/// How often the list of suspects is looked through while there are any.
const TICK: Duration = Duration::from_millis(250);
/// Time a probe has; no longer than the shortest interval between two (H06: at most two a second).
const PATIENCE: Duration = Duration::from_millis(500);

/// Probes suspects for ever, with sockets of its own.
pub async fn watch(shared: Arc<Shared>, udp: UdpPool, streams: StreamPool, mut dice: StdRng) {
    let (udp, streams) = (Rc::new(udp), Rc::new(streams));
    let mut probed: HashMap<(String, std::net::SocketAddr), Instant> = HashMap::new();
    loop {
        let active = shared.active.load_full();
        let suspects: Vec<(Arc<Group>, Arc<Server>)> = active
            .upstreams
            .iter()
            .flat_map(|group| group.servers().iter().map(|it| (Arc::clone(group), Arc::clone(it))).collect::<Vec<_>>())
            .filter(|(group, server)| group.health(server) == Health::Suspect)
            .collect();
        if suspects.is_empty() {
            probed.clear();
            shared.suspects.notified().await;
            continue;
        }
        for (group, server) in suspects {
            let now = Instant::now();
            let last = probed.entry((group.name.clone(), server.address));
            let due = match &last {
                Entry::Occupied(at) => now >= *at.get() + group.health_check.interval,
                Entry::Vacant(_) => true,
            };
            if due {
                let (shared, udp, streams) = (Arc::clone(&shared), Rc::clone(&udp), Rc::clone(&streams));
                let id = dice.next_u32() as u16;
                // The first question to a suspect is one that must not come back to us, the others the plan's.
                let name = match last {
                    Entry::Vacant(_) => {
                        let random = u128::from(dice.next_u64()) << 64 | u128::from(dice.next_u64());
                        shared.resolver.loops.name(&group, random, now)
                    }
                    Entry::Occupied(_) => group.health_check.name.clone(),
                };
                last.insert_entry(now);
                let mut dice = rand::make_rng::<StdRng>();
                tokio::task::spawn_local(async move {
                    let answered = probe(&shared, &udp, &streams, &group, &server, &name, id, &mut dice);
                    if let Ok(Some(round_trip)) = tokio::time::timeout(PATIENCE, answered).await {
                        group.on_reply(&server, round_trip, Instant::now());
                        tracing::info!(upstream = group.name, server = %server.address, "the server answers again");
                    }
                });
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Asks once; the round trip if anything matching came back.
async fn probe(
    shared: &Shared,
    udp: &UdpPool,
    streams: &StreamPool,
    group: &Group,
    server: &Server,
    name: &Name,
    id: u16,
    dice: &mut StdRng,
) -> Option<Duration> {
    let key = Key::new(name.as_wire(), Type::NS, false, false)?;
    let mut query = [0; compose::QUERY_MAX];
    let length = compose::upstream_query(&key, id, None, !group.is_plain(server, Instant::now()), &mut query)?;
    let begun = Instant::now();
    if group.protocol == Protocol::Udp {
        let asked = Asked { query: &query[..length], transport: Transport::Udp, exact_case: false };
        let mut ask = udp.open(server.address, dice, begun).ok()?;
        ask.send(asked.query).ok()?;
        loop {
            match ask.heard(&asked).await {
                Heard::Answer(_) => return Some(begun.elapsed()),
                Heard::NearMiss(_) | Heard::Malformed(_) => {}
                Heard::Refused | Heard::Unreachable(_) => return None,
            }
        }
    }
    let asked = Asked { query: &query[..length], transport: Transport::Tcp, exact_case: false };
    let known = shared.tls.load_full();
    let tls = if group.protocol == Protocol::Tls { known.get(&group.name) } else { None };
    streams.ask(server.address, tls, &asked).await.ok().map(|_| begun.elapsed())
}
