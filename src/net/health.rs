//! Probes suspected servers until they are back. Healthy servers are never probed; questions show that they live.
//!
//! Any reply that matches the probe counts as a sign of life, whatever it says: a server that refuses us still works.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
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
    let prober = Rc::new(Prober { shared, udp, streams });
    let mut probed: HashMap<(String, SocketAddr), Instant> = HashMap::new();
    loop {
        let suspects = suspects(&prober.shared);
        if suspects.is_empty() {
            probed.clear();
            prober.shared.suspects.notified().await;
            continue;
        }
        for (group, server) in suspects {
            let now = Instant::now();
            // The first question to a suspect is one that must not come back to us, the others the plan's.
            let name = match probed.entry((group.name.clone(), server.address)) {
                Entry::Occupied(at) if now < *at.get() + group.health_check.interval => continue,
                Entry::Occupied(mut at) => {
                    at.insert(now);
                    group.health_check.name.clone()
                }
                Entry::Vacant(never) => {
                    never.insert(now);
                    let (upstream, address, failures) = (&group.name, server.address, server.fails());
                    tracing::warn!(upstream, server = %address, failures, "the server does not answer; probing it");
                    let random = u128::from(dice.next_u64()) << 64 | u128::from(dice.next_u64());
                    prober.shared.resolver.loops.name(&group, random, now)
                }
            };
            let (prober, mut dice) = (Rc::clone(&prober), rand::make_rng::<StdRng>());
            tokio::task::spawn_local(async move {
                let answered = prober.probe(&group, &server, &name, &mut dice);
                if let Ok(Some(round_trip)) = tokio::time::timeout(PATIENCE, answered).await {
                    group.on_reply(&server, round_trip, Instant::now());
                    tracing::info!(upstream = group.name, server = %server.address, "the server answers again");
                } else {
                    server.talks.fail_probe();
                }
            });
        }
        tokio::time::sleep(TICK).await;
    }
}

fn suspects(shared: &Shared) -> Vec<(Arc<Group>, Arc<Server>)> {
    let mut found = Vec::new();
    for group in shared.active.load().upstreams.iter() {
        let servers = group.servers();
        let suspects = servers.iter().filter(|server| group.health(server) == Health::Suspect);
        found.extend(suspects.map(|server| (Arc::clone(group), Arc::clone(server))));
    }
    found
}

/// Asks suspects.
struct Prober {
    shared: Arc<Shared>,
    udp: UdpPool,
    streams: StreamPool,
}

impl Prober {
    /// Asks once; the round trip if anything matching came back.
    async fn probe(&self, group: &Group, server: &Server, name: &Name, dice: &mut StdRng) -> Option<Duration> {
        let key = Key::new(name.as_wire(), Type::NS, false, false)?;
        let mut query = [0; compose::QUERY_MAX];
        let begun = Instant::now();
        let id = dice.next_u32() as u16;
        let length = compose::upstream_query(&key, id, None, !group.is_plain(server, begun), &mut query)?;
        let query = &query[..length];
        if group.protocol != Protocol::Udp {
            let asked = Asked { query, transport: Transport::Tcp, exact_case: false };
            let known = self.shared.tls.load_full();
            let tls = known.get(&group.name).filter(|_| group.protocol == Protocol::Tls);
            if group.protocol == Protocol::Tls && tls.is_none() {
                return None;
            }
            return self.streams.ask(server.address, tls, &asked).await.ok().map(|_| begun.elapsed());
        }
        let asked = Asked { query, transport: Transport::Udp, exact_case: false };
        let mut ask = self.udp.open(server.address, dice, begun).ok()?;
        ask.send(query).ok()?;
        loop {
            match ask.heard(&asked).await {
                Heard::Answer(_) => return Some(begun.elapsed()),
                Heard::NearMiss(_) | Heard::Malformed(_) => {}
                Heard::Refused | Heard::Unreachable(_) => return None,
            }
        }
    }
}
