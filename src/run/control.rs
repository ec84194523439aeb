//! The control thread: everything that is not a query. Names, probes, endpoints; nothing here can delay an answer.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, mpsc};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet, LocalSet};

use super::{Inner, rows, status};
use crate::config::corefile;
use crate::control::{self, Handlers};
use crate::discover;
use crate::dump::Source;
use crate::http::{self, Debug, Readiness, Site};
use crate::net::exchange::ExchangeCounters;
use crate::net::health;
use crate::net::stream::{Limits, StreamPool};
use crate::net::udp_pool::UdpPool;
use crate::plan::{Http, Plan};
use crate::resolve::Active;

/// What the process around the agent provides.
pub struct Host {
    /// Reads the configuration again.
    pub load: Box<Load>,
    /// Sets the log level.
    pub set_log_level: Box<SetLevel>,
    /// Told of each plan from `load` that has come into force later than the first.
    pub adopted: Box<dyn Fn(&Plan) + Send + Sync>,
}

type Load = dyn Fn() -> Result<Plan, String> + Send + Sync;
type SetLevel = dyn Fn(&str) -> Result<(), String> + Send + Sync;

impl Default for Host {
    fn default() -> Self {
        Self {
            load: Box::new(|| Err("this agent has no configuration file".to_owned())),
            set_log_level: Box::new(|_| Err("this agent's log level is fixed".to_owned())),
            adopted: Box::new(|_| {}),
        }
    }
}

/// Sockets for probes: suspects are few.
const PROBE_PORTS: usize = 16;

/// Runs until the agent stops.
pub(super) fn run(
    inner: &Arc<Inner>,
    host: &Arc<Host>,
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
        let mut follow = JoinSet::new();
        let active = plans.borrow_and_update().clone();
        let mut endpoints = Endpoints::default();
        serve_endpoints(inner, host, &active, &mut endpoints);
        follow_members(inner, &mut follow, &active);
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
                    endpoints.close_others(&active.plan.http).await;
                    serve_endpoints(inner, host, &active, &mut endpoints);
                    follow.shutdown().await;
                    follow_members(inner, &mut follow, &active);
                }
                _ = stopping.wait_for(|stop| *stop) => break,
            }
        }
    });
}

/// Keeps every group's members up to date.
fn follow_members(inner: &Arc<Inner>, tasks: &mut JoinSet<()>, active: &Arc<Active>) {
    for (index, group) in active.upstreams.iter().enumerate() {
        let (inner, active, group, own) = (Arc::clone(inner), Arc::clone(active), Arc::clone(group), inner.own());
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

/// Endpoints being served: where, and the task.
#[derive(Default)]
struct Endpoints(HashMap<&'static str, (String, JoinHandle<()>)>);

impl Endpoints {
    /// Ends those that `http` wants elsewhere, or nowhere. What they are just answering is answered.
    async fn close_others(&mut self, http: &Http) {
        let addresses = [("metrics", http.metrics), ("health", http.health), ("debug", http.debug)];
        let mut wanted: HashMap<&str, String> =
            addresses.into_iter().filter_map(|(what, at)| Some((what, at?.to_string()))).collect();
        wanted.extend(http.control.as_ref().map(|path| ("control", path.display().to_string())));
        let others = self.0.extract_if(|what, (at, _)| wanted.get(what) != Some(at));
        for (_, (_, task)) in others.collect::<Vec<_>>() {
            task.abort();
            // Its port and file are free once it has ended, by being aborted.
            drop(task.await);
        }
    }

    fn serve(&mut self, address: SocketAddr, what: &'static str, site: Site) {
        let report = move |listening: io::Result<SocketAddr>| match listening {
            Ok(at) => tracing::debug!(address = %at, "{what} endpoint"),
            // DNS goes on without it.
            Err(error) => tracing::warn!(%address, %error, "no {what} endpoint; trying again"),
        };
        let task = tokio::task::spawn_local(async move {
            http::keep_serving(address, Arc::new(site), report).await;
        });
        self.0.insert(what, (address.to_string(), task));
    }

    /// Where `what` is to be served, unless it is already.
    fn due<T>(&self, what: &str, wanted: Option<T>) -> Option<T> {
        wanted.filter(|_| !self.0.contains_key(what))
    }
}

/// Metrics, health, debug and control, each where the plan wants it and it is not yet.
fn serve_endpoints(inner: &Arc<Inner>, host: &Arc<Host>, active: &Active, endpoints: &mut Endpoints) {
    let http = &active.plan.http;
    let dump = |inner: &Arc<Inner>| {
        let inner = Arc::clone(inner);
        Source::new(move |filter| rows::rows(&inner.shared.resolver.cache, filter))
    };
    if let Some(address) = endpoints.due("metrics", http.metrics) {
        endpoints.serve(address, "metrics", Site::Metrics(Arc::clone(&inner.metrics)));
    }
    if let Some(address) = endpoints.due("health", http.health) {
        let inner = Arc::clone(inner);
        endpoints.serve(address, "health", Site::Health(Readiness::new(move || inner.missing())));
    }
    if let Some(address) = endpoints.due("debug", http.debug) {
        let (top, standing) = (Arc::clone(&inner.metrics), Arc::clone(inner));
        let (upstreams, plan, node) = (Arc::clone(inner), Arc::clone(inner), Arc::clone(inner));
        let debug = Debug {
            cache: dump(inner),
            upstreams: Box::new(move || json!(status::upstreams(&upstreams.shared.active.load()))),
            node: Box::new(move || json!(node.node.get().map(|link| link.show(&node.shared.active.load())))),
            top: Box::new(move |limit| json!(rows::top(&top, limit))),
            status: Box::new(move || json!(status::of(&standing, &standing.own()))),
            plan: Box::new(move || show(&plan.shared.active.load().plan)),
        };
        endpoints.serve(address, "debug", Site::Debug(debug));
    }
    if let Some(path) = endpoints.due("control", http.control.clone()) {
        let (flush, reload) = (Arc::clone(inner), Arc::clone(inner));
        let (host, level) = (Arc::clone(host), Arc::clone(host));
        let standing = Arc::clone(inner);
        let handlers = Handlers {
            dump: dump(inner),
            flush: Box::new(move |filter| rows::flush(&flush.shared.resolver.cache, filter) as u64),
            reload: Box::new(move || reload_from(&reload, &host)),
            log_level: Box::new(move |wanted| (level.set_log_level)(wanted)),
            status: Box::new(move || status::of(&standing, &standing.own())),
        };
        let shown = path.display().to_string();
        let at = shown.clone();
        let task = tokio::task::spawn_local(async move {
            let report = |listening: io::Result<()>| match listening {
                Ok(()) => tracing::debug!(socket = shown, "control"),
                Err(error) => tracing::warn!(socket = shown, %error, "no control socket; trying again"),
            };
            control::keep_serving(&path, Arc::new(handlers), report).await;
        });
        endpoints.0.insert("control", (at, task));
    }
}

/// `plan` in the shape of a nodens.yaml that means it.
fn show(plan: &Plan) -> serde_json::Value {
    let yaml = corefile::yaml(plan, &[]);
    // `off` is a word in it.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(&yaml, options).unwrap_or_else(|_| json!(yaml))
}

/// Loads the configuration and puts it in force, or says why not.
pub(super) fn reload_from(inner: &Inner, host: &Host) -> Result<String, String> {
    // What is told to be adopted is what was loaded last.
    let _one_at_a_time = inner.loading.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = (host.load)().and_then(|plan| inner.reload(plan).map_err(|error| error.to_string()));
    match outcome {
        Ok(()) => {
            (host.adopted)(&inner.shared.active.load().plan);
            tracing::info!("reloaded");
            Ok("reloaded".to_owned())
        }
        Err(why) => {
            inner.refuse(why.clone());
            tracing::error!("reload refused, the old plan stays in force: {why}");
            Err(why)
        }
    }
}
