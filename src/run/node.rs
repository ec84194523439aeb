//! The agent's side of the node plane: what it is told, what it tells.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use crate::control::status;
use crate::node::Desired;
use crate::node::plane::News;
use crate::node::status::Status;
use crate::resolve::Active;

/// Where the rest of the agent finds the plane, while there is one.
#[derive(Default)]
pub(crate) struct Slot(ArcSwapOption<Link>);

impl Slot {
    pub(crate) fn get(&self) -> Option<Arc<Link>> {
        self.0.load_full()
    }

    pub(super) fn set(&self, link: Option<Link>) {
        self.0.store(link.map(Arc::new));
    }
}

/// What the rest of the agent has of the plane.
pub(crate) struct Link {
    pub(crate) news: News,
    pub(crate) status: watch::Receiver<Status>,
}

impl Link {
    /// What keeps us from intercepting, for readiness.
    pub(super) fn missing(&self) -> Option<String> {
        let status = self.status.borrow();
        let off = status.mode == "off";
        // Who waits is ready to take over; the one before us goes only once we are.
        let held = status.intercepting || status.waiting_for.is_some() || off;
        (!held).then(|| match &status.trouble {
            Some(trouble) => format!("the lease is not held: {trouble}"),
            None => "the lease is not held".to_owned(),
        })
    }

    /// How it stands, with the plan in force.
    pub(super) fn show(&self, active: &Active) -> status::Node {
        let seen = self.status.borrow();
        let served = |address: &IpAddr| seen.addresses.contains(address);
        let fallback = desired(active).map(|desired| desired.fallback).unwrap_or_default().into_iter();
        status::Node {
            intercepting: seen.intercepting,
            since_seconds: seen.since.map(ago),
            waiting_for: seen.waiting_for,
            mode: seen.mode.to_owned(),
            degraded: seen
                .degraded
                .iter()
                .map(|it| status::Degraded { reason: it.label.label().to_owned(), words: it.words.clone() })
                .collect(),
            lease_seconds: seen.lease.as_secs_f64(),
            link: seen.link.clone(),
            addresses: seen.addresses.clone(),
            tables: seen
                .tables
                .iter()
                .map(|it| status::Table { name: it.name.clone(), rules: it.rules, leased: it.leased.clone() })
                .collect(),
            fallback: fallback
                .filter(|(address, _)| served(address))
                .map(|(address, servers)| status::Fallback { address, servers })
                .collect(),
            repaired: status::Repaired {
                link: seen.repaired.link,
                tables: seen.repaired.tables,
                last: seen.last_repair.clone().map(|(when, what)| status::Repair { seconds_ago: ago(when), what }),
            },
            trouble: seen.trouble.clone(),
        }
    }
}

/// Seconds since a moment of the wall clock; 0 if the clock has been set back behind it.
fn ago(moment: SystemTime) -> f64 {
    moment.elapsed().unwrap_or_default().as_secs_f64()
}

/// What the plan in force wants on this host; `None`: nothing.
pub(super) fn desired(active: &Active) -> Option<Desired> {
    let plan = &active.plan;
    let node = plan.node.as_ref()?;
    let servers: Vec<SocketAddr> = node
        .fallback
        .map(|index| active.upstreams.group(index).servers().iter().map(|server| server.address).collect())
        .unwrap_or_default();
    let fallback = plan.listen.addresses.iter().filter(|address| nobody_else_answers_for(**address)).map(|address| {
        let same_family = servers.iter().filter(|server| server.is_ipv4() == address.is_ipv4());
        (*address, same_family.copied().collect())
    });
    Some(Desired {
        interface: node.interface.clone(),
        addresses: plan.listen.addresses.clone(),
        port: plan.listen.port,
        health: plan.http.health.filter(|at| plan.listen.addresses.contains(&at.ip())).into_iter().collect(),
        fallback: fallback.collect(),
        allow: plan.limits.allow.clone(),
        lease: node.lease,
        interception: node.interception,
    })
}

/// Whether what is desired is another place on the host; the rest a running plane can adapt to.
pub(super) fn moves(old: Option<&Desired>, new: Option<&Desired>) -> bool {
    let place = |it: Option<&Desired>| {
        it.map(|it| (it.interface.clone(), it.interception, it.addresses.clone(), it.port, it.health.clone()))
    };
    place(old) != place(new)
}

/// Whether an address is one that kube-proxy does not know. Of IPv6 addresses that cannot be told, and need not: our
/// fallback leads to the same servers as kube-proxy's rules.
fn nobody_else_answers_for(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(_) => true,
    }
}
