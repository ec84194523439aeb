//! The agent's side of the node plane: what it is told, what it tells.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use crate::node::Desired;
use crate::node::plane::{News, Status};
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

    /// Everything about it, for people.
    pub(super) fn show(&self) -> serde_json::Value {
        let status = self.status.borrow();
        let degraded =
            status.degraded.iter().map(|it| serde_json::json!({ "reason": it.label.label(), "words": it.words }));
        serde_json::json!({
            "intercepting": status.intercepting,
            "mode": status.mode,
            "link": status.link,
            "addresses": status.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "degraded": degraded.collect::<Vec<_>>(),
            "repaired": { "link": status.repaired.link, "tables": status.repaired.tables },
            "trouble": status.trouble,
        })
    }
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
