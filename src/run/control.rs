//! The control thread: everything that is not a query. Names, probes, endpoints; nothing here can delay an answer.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use super::{Inner, NeedsRestart};
use super::{rows, status};
use crate::control::{self, Handlers};
use crate::discover;
use crate::dump::Source;
use crate::http::{self, Debug, Readiness, Site};
use crate::net::exchange::ExchangeCounters;
use crate::net::health;
use crate::net::stream::{Limits, StreamPool};
use crate::net::udp_pool::UdpPool;
use crate::plan::Plan;
use crate::resolve::Active;

/// What the process around the agent provides.
pub struct Host {
    /// Reads the configuration again.
    pub load: Box<Load>,
    /// Sets the log level.
    pub set_log_level: Box<SetLevel>,
}

type Load = dyn Fn() -> Result<Plan, String> + Send + Sync;
type SetLevel = dyn Fn(&str) -> Result<(), String> + Send + Sync;

impl Default for Host {
    fn default() -> Self {
        Self {
            load: Box::new(|| Err("this agent has no configuration file".to_owned())),
            set_log_level: Box::new(|_| Err("this agent's log level is fixed".to_owned())),
        }
    }
}

/// Sockets for probes: suspects are few.
const PROBE_PORTS: usize = 16;

/// Runs until the agent stops.
pub(super) fn run(
    inner: &Arc<Inner>,
    host: Arc<Host>,
    own: &[SocketAddr],
    mut plans: watch::Receiver<Arc<Active>>,
    mut stopping: watch::Receiver<bool>,
    ready: &mpsc::Sender<()>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no control thread: names are not resolved, endpoints not served");
            return;
        }
    };
    LocalSet::new().block_on(&runtime, async {
        let counters = Rc::new(ExchangeCounters::default());
        let udp = UdpPool::new(PROBE_PORTS, Rc::clone(&counters));
        let streams = StreamPool::new(rand::make_rng(), Limits::default(), counters);
        let shared = Arc::clone(&inner.shared);
        tokio::task::spawn_local(health::watch(Arc::clone(&shared), udp, streams, rand::make_rng()));
        serve_endpoints(inner, host, own);
        let mut follow = JoinSet::new();
        let active = plans.borrow_and_update().clone();
        follow_members(inner, &mut follow, &active, own);
        // The endpoints' tasks have had their turn, and with it their ports and socket, before anybody is told.
        tokio::task::yield_now().await;
        let _ = ready.send(());
        loop {
            tokio::select! {
                changed = plans.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let active = plans.borrow_and_update().clone();
                    follow.shutdown().await;
                    follow_members(inner, &mut follow, &active, own);
                }
                _ = stopping.wait_for(|stop| *stop) => break,
            }
        }
    });
}

/// Keeps every group's members up to date.
fn follow_members(inner: &Arc<Inner>, tasks: &mut JoinSet<()>, active: &Arc<Active>, own: &[SocketAddr]) {
    for (index, group) in active.upstreams.iter().enumerate() {
        let (inner, active, group, own) = (Arc::clone(inner), Arc::clone(active), Arc::clone(group), own.to_vec());
        tasks.spawn_local(async move {
            let name = group.name.clone();
            let set = |addresses: Vec<SocketAddr>| {
                tracing::debug!(upstream = name, servers = ?addresses, "members");
                group.set_servers(&addresses);
                inner.adapt_node();
            };
            let report = |event: discover::DiscoverEvent| {
                tracing::warn!(upstream = name, reason = event.label(), "{event}");
            };
            let upstream = &active.plan.upstreams[index];
            discover::follow(upstream, Path::new("/etc/resolv.conf"), &own, set, report).await;
        });
    }
}

/// Metrics, health, debug and control, each where the plan wants it.
fn serve_endpoints(inner: &Arc<Inner>, host: Arc<Host>, own: &[SocketAddr]) {
    let active = inner.shared.active.load_full();
    let http = &active.plan.http;
    let dump = |inner: &Arc<Inner>| {
        let inner = Arc::clone(inner);
        Source::new(move |filter| rows::rows(&inner.shared.resolver.cache, filter))
    };
    if let Some(address) = http.metrics {
        serve(address, "metrics", Site::Metrics(Arc::clone(&inner.metrics)));
    }
    if let Some(address) = http.health {
        let inner = Arc::clone(inner);
        serve(address, "health", Site::Health(Readiness::new(move || inner.missing())));
    }
    if let Some(address) = http.debug {
        let top = Arc::clone(&inner.metrics);
        let (upstreams, plan, node) = (Arc::clone(inner), Arc::clone(inner), Arc::clone(inner));
        let debug = Debug {
            cache: dump(inner),
            upstreams: Box::new(move || json!(status::upstreams(&upstreams.shared.active.load()))),
            node: Box::new(move || json!(node.node.get().map(|link| link.show(&node.shared.active.load())))),
            top: Box::new(move |limit| rows::top(&top, limit)),
            plan: Box::new(move || json!(format!("{:#?}", plan.shared.active.load().plan).lines().collect::<Vec<_>>())),
        };
        serve(address, "debug", Site::Debug(debug));
    }
    if let Some(path) = http.control.clone() {
        let (flush, reload, level) = (Arc::clone(inner), Arc::clone(inner), Arc::clone(&host));
        let (standing, own) = (Arc::clone(inner), own.to_vec());
        let handlers = Handlers {
            dump: dump(inner),
            flush: Box::new(move |filter| rows::flush(&flush.shared.resolver.cache, filter) as u64),
            reload: Box::new(move || reload_from(&reload, &host)),
            log_level: Box::new(move |wanted| (level.set_log_level)(wanted)),
            status: Box::new(move || status::of(&standing, &own)),
        };
        tokio::task::spawn_local(async move {
            let shown = path.display().to_string();
            let report = |listening: Result<(), std::io::Error>| match listening {
                Ok(()) => tracing::debug!(socket = shown, "control"),
                Err(error) => tracing::warn!(socket = shown, %error, "no control socket; trying again"),
            };
            control::keep_serving(&path, Arc::new(handlers), report).await;
        });
    }
}

fn serve(address: SocketAddr, what: &'static str, site: Site) {
    tokio::task::spawn_local(http::keep_serving(address, Arc::new(site), move |listening| match listening {
        Ok(at) => tracing::debug!(address = %at, "{what} endpoint"),
        // DNS goes on without it.
        Err(error) => tracing::warn!(%address, %error, "no {what} endpoint; trying again"),
    }));
}

/// Loads the configuration and puts it in force, or says why not.
pub(super) fn reload_from(inner: &Inner, host: &Host) -> Result<String, String> {
    let outcome = (host.load)().and_then(|plan| inner.reload(plan).map_err(|error| error.to_string()));
    match outcome {
        Ok(NeedsRestart(fixed)) if fixed.is_empty() => {
            tracing::info!("reloaded");
            Ok("reloaded".to_owned())
        }
        Ok(fixed) => {
            tracing::warn!(needs_restart = %fixed, "reloaded, but for what needs a restart");
            Ok(format!("reloaded; a change of {fixed} needs a restart"))
        }
        Err(why) => {
            tracing::error!("reload refused, the old plan stays in force: {why}");
            inner.refuse(why.clone());
            Err(why)
        }
    }
}
