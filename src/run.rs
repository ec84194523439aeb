//! Who owns what: the agent as a whole, its start, its reload and its end.
//!
//! ```text
//! start:  sockets bound ─► workers serve ─► control thread (names, probes, endpoints) ─► "serving"
//! reload: plan checked by its maker ─► policy and groups made ─► swapped as one; cache and flights stay
//! stop:   told ─► what is queued is answered ─► flights land or run out of time ─► threads joined
//! ```

mod control;
mod file;
mod node;
mod rows;
mod snapshot;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::health::{Health as Latch, Scope};
use crate::metrics::{Gauges, Metrics, Reader, Reload};
use crate::net::listen::{self, ListenError};
use crate::net::probe::{ProbeName, Prober, Trust};
use crate::net::tls::{Tls, TlsError};
use crate::net::worker::{self, Shared};
use crate::node::facts::Mode;
use crate::node::plane::{Plane, Seat};
use crate::plan::{Plan, Protocol};
use crate::resolve::{Active, Resolver};
use crate::upstream::Health;
use snapshot::Keeper;

pub use control::Host;

/// The running agent. Dropped, it stops.
pub struct Agent {
    inner: Arc<Inner>,
    host: Arc<Host>,
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    control: Option<JoinHandle<()>>,
    /// The thread that asks ourselves; it ends when the health is closed.
    prober: Option<JoinHandle<()>>,
    keeper: Option<Keeper>,
    /// What we are on this host, if the plan wants us to be anything.
    plane: Option<Plane>,
}

/// What the agent's parts share.
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<Metrics>,
    /// Told of every plan that comes into force.
    plans: watch::Sender<Arc<Active>>,
    /// Held by whoever reloads.
    reloading: Mutex<()>,
    /// Why the newest configuration was refused, while it is.
    refused: Mutex<Option<String>>,
    /// What the prober has found; `None`: nobody wants to know, so nobody probes.
    pub(crate) health: Option<Arc<Latch>>,
    /// The node plane, once it runs.
    pub(crate) node: Arc<OnceLock<node::Link>>,
}

/// Why the agent cannot start.
#[derive(Debug)]
pub enum StartError {
    Listen(ListenError),
    /// The host refuses what the `node:` block asks for.
    Node(String),
    Thread(io::Error),
    Tls {
        upstream: String,
        source: TlsError,
    },
}

/// What a reload cannot change while the agent runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NeedsRestart(pub Vec<&'static str>);

impl Agent {
    /// Starts an agent as `plan` says; it serves when this returns.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    pub fn start(plan: Plan) -> Result<Self, StartError> {
        Self::start_on(plan, Host::default())
    }

    /// Starts an agent whose reload and log level `host` provides.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    pub fn start_on(plan: Plan, host: Host) -> Result<Self, StartError> {
        let epoch = Instant::now();
        let cores = thread::available_parallelism();
        let count = plan.listen.workers.or(cores.ok()).map_or(1, usize::from);
        // Before the sockets, so that they are closed first should we be killed.
        let seat = plan.node.as_ref().map(|_| Seat::take()).transpose().map_err(StartError::Node)?;
        let mut sockets = listen::bind(&plan.listen.addresses, plan.listen.port, count).map_err(StartError::Listen)?;
        let addresses = sockets[0].udp.iter().map(std::net::UdpSocket::local_addr);
        let addresses: Vec<SocketAddr> = addresses.collect::<Result<_, _>>().map_err(StartError::Thread)?;
        let tls = tls_of(&plan)?;
        let probed = plan.http.health.is_some() || plan.node.is_some();
        let own = if probed { listen::bind_own(&mut sockets).map_err(StartError::Listen)? } else { Vec::new() };
        let resolver = Arc::new(Resolver::new(&plan, epoch));
        let restored = snapshot::restore(&resolver.cache, &plan);
        let active = Arc::new(Active::new(plan, None, epoch));
        let (stop, stopping) = watch::channel(false);
        let shared = Arc::new(Shared {
            resolver,
            active: ArcSwap::new(Arc::clone(&active)),
            tls: ArcSwap::from_pointee(tls),
            suspects: Notify::new(),
            connections: AtomicUsize::new(0),
            idle_connections: AtomicUsize::new(0),
            room_wanted: AtomicUsize::new(0),
            make_room: Notify::new(),
            stop: stopping.clone(),
        });
        let node = Arc::<OnceLock<node::Link>>::default();
        let metrics = Arc::new(Metrics::new(count, gauges(&shared, &node)));
        if let Some(restored) = restored {
            metrics.control().snapshots.bump(restored);
        }
        let (plans, followed) = watch::channel(active);
        let health = probed.then(|| Arc::new(Latch::new(Instant::now())));
        let inner = Inner {
            shared: Arc::clone(&shared),
            metrics,
            plans,
            reloading: Mutex::new(()),
            refused: Mutex::new(None),
            health,
            node,
        };
        let inner = Arc::new(inner);
        let host = Arc::new(host);
        let mut agent = Self {
            inner,
            host: Arc::clone(&host),
            addresses,
            stop,
            workers: Vec::new(),
            control: None,
            prober: None,
            keeper: None,
            plane: None,
        };
        if agent.inner.shared.active.load().plan.node.is_none() {
            agent.warn_of_absent_addresses();
        }
        let (ready, awaited) = mpsc::channel();
        for (index, sockets) in sockets.into_iter().enumerate() {
            let (shared, ready, cells) = (Arc::clone(&shared), ready.clone(), agent.inner.metrics.worker(index));
            let worker = move || worker::run(shared, sockets, cells, move || ready.send(()).unwrap_or_default());
            let thread = thread::Builder::new().name(format!("nodens-{index}")).spawn(worker);
            agent.workers.push(thread.map_err(StartError::Thread)?);
        }
        let inner = Arc::clone(&agent.inner);
        let listening = agent.addresses.clone();
        let control = move || control::run(&inner, host, &listening, followed, stopping, &ready);
        let thread = thread::Builder::new().name("nodens-control".to_owned()).spawn(control);
        agent.control = Some(thread.map_err(StartError::Thread)?);
        // An error means that a worker ended instead: joining it says why.
        for _ in 0..=count {
            if awaited.recv().is_err() {
                break;
            }
        }
        agent.keeper = Some(Keeper::start(Arc::clone(&agent.inner)).map_err(StartError::Thread)?);
        agent.start_plane(seat)?;
        agent.start_probing(own)?;
        Ok(agent)
    }

    /// Addresses may be bound before they exist; with nobody there to put them on the host, that is worth a word.
    fn warn_of_absent_addresses(&self) {
        for address in &self.addresses {
            if std::net::UdpSocket::bind((address.ip(), 0)).is_err() {
                tracing::warn!(%address, "this address is not on this host yet; nobody can reach it until it is");
            }
        }
    }

    /// Goes to work on the host, if the plan wants that.
    fn start_plane(&mut self, seat: Option<Seat>) -> Result<(), StartError> {
        let active = self.inner.shared.active.load_full();
        let (Some(seat), Some(desired), Some(health)) = (seat, node::desired(&active), self.inner.health.clone())
        else {
            return Ok(());
        };
        let plane = Plane::start(seat, desired, health).map_err(StartError::Node)?;
        // Set once: an agent has one plane.
        let _ = self.inner.node.set(node::Link { news: plane.news(), status: plane.status() });
        self.plane = Some(plane);
        Ok(())
    }

    /// Begins to ask ourselves, if anybody wants to know. `workers`: their own sockets.
    fn start_probing(&mut self, workers: Vec<SocketAddr>) -> Result<(), StartError> {
        let Some(health) = self.inner.health.clone() else { return Ok(()) };
        // What the plane leaves to others is theirs to answer.
        let (mut addresses, mut trust) = (self.addresses.clone(), Trust::Agents);
        if let Some(link) = self.inner.node.get() {
            let status = link.status.borrow();
            addresses.retain(|address| status.addresses.contains(&address.ip()));
            trust = if status.mode == Mode::Iptables.label() { Trust::Anybody } else { Trust::Agents };
        }
        let prober = Prober::new(ProbeName::new(rand::random()), workers, addresses, trust);
        let node = Arc::clone(&self.inner.node);
        let told = move |health: &Latch| {
            match health.state(Instant::now()).held_by.as_slice() {
                [] if health.scope() == Scope::Workers => tracing::info!("every worker answers"),
                [] => tracing::info!("every address answers"),
                held_by => tracing::warn!(reason = held_by.join("; "), "not serving"),
            }
            if let Some(link) = node.get() {
                link.news.look();
            }
        };
        let probe = move || prober.run(&health, || told(&health));
        let thread = thread::Builder::new().name("nodens-probe".to_owned()).spawn(probe);
        self.prober = Some(thread.map_err(StartError::Thread)?);
        Ok(())
    }

    /// Where it listens, UDP and TCP.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Puts `plan` in force. The cache and what was learnt about servers stay.
    ///
    /// # Errors
    /// [`StartError::Tls`]; the plan before it stays in force.
    pub fn reload(&self, plan: Plan) -> Result<NeedsRestart, StartError> {
        self.inner.reload(plan)
    }

    /// Reads the configuration again and puts it in force, or logs why not and stays with the plan before it.
    pub fn reload_from_host(&self) {
        // What came of it has been logged, and readiness shows it.
        drop(control::reload_from(&self.inner, &self.host));
    }

    /// What it counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// Answers what is under way, within its time, and ends.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // First of all the traffic goes back: what arrives from here on finds the cluster DNS.
        if let Some(health) = &self.inner.health {
            health.close(Instant::now());
        }
        if let Some(plane) = &self.plane {
            plane.withdraw();
        }
        if let Some(prober) = self.prober.take()
            && prober.join().is_err()
        {
            tracing::error!("the prober panicked");
        }
        // The receivers are gone only if every thread has ended already.
        let _ = self.stop.send(true);
        for worker in self.workers.drain(..) {
            match worker.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a worker failed"),
                Err(_) => tracing::error!("a worker panicked"),
            }
        }
        if let Some(control) = self.control.take()
            && control.join().is_err()
        {
            tracing::error!("the control thread panicked");
        }
        // Our sockets are closed and the connections of the host's own clients have ended: whoever waits for the traffic may
        // have it.
        drop(self.plane.take());
        // The last answers are in it.
        if let Some(keeper) = self.keeper.take() {
            keeper.finish();
        }
    }
}

// === impl Inner ===

impl Inner {
    pub(crate) fn reload(&self, plan: Plan) -> Result<NeedsRestart, StartError> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let tls = tls_of(&plan)?;
        let before = self.shared.active.load_full();
        let mut fixed = Vec::new();
        let (old, new) = (&before.plan.listen, &plan.listen);
        if (&old.addresses, old.port) != (&new.addresses, new.port) {
            fixed.push("listen");
        }
        if old.workers != new.workers {
            fixed.push("listen.workers");
        }
        if before.plan.http != plan.http {
            fixed.push("http");
        }
        self.shared.resolver.cache.resize(&plan.cache);
        let active = Arc::new(Active::new(plan, Some(&before), self.shared.resolver.cache.epoch()));
        self.shared.tls.store(Arc::new(tls));
        self.shared.active.store(Arc::clone(&active));
        self.plans.send_replace(active);
        // Another bound on failures may have made suspects.
        self.shared.suspects.notify_one();
        self.adapt_node();
        *self.refused() = None;
        self.metrics.control().reloads.bump(Reload::Accepted);
        Ok(NeedsRestart(fixed))
    }

    /// Tells the node plane what is desired by now.
    pub(crate) fn adapt_node(&self) {
        if let (Some(link), Some(desired)) = (self.node.get(), node::desired(&self.shared.active.load())) {
            link.news.adapt(desired);
        }
    }

    pub(crate) fn refuse(&self, why: String) {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        *self.refused() = Some(why);
        self.metrics.control().reloads.bump(Reload::Rejected);
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What keeps us from being ready, one line each.
    pub(crate) fn missing(&self) -> Vec<String> {
        let refused = self.refused().clone().map(|why| format!("the newest configuration is refused: {why}"));
        let held_by = self.health.as_ref().map(|health| health.state(Instant::now()).held_by).unwrap_or_default();
        let node = self.node.get().and_then(node::Link::missing);
        refused.into_iter().chain(held_by).chain(node).collect()
    }
}

/// How to speak TLS with each upstream that wants it.
fn tls_of(plan: &Plan) -> Result<HashMap<String, Tls>, StartError> {
    let mut all = HashMap::new();
    for upstream in plan.upstreams.iter().filter(|it| it.protocol == Protocol::Tls) {
        let made = Tls::new(upstream);
        let made = made.map_err(|source| StartError::Tls { upstream: upstream.name.clone(), source })?;
        all.extend(made.map(|tls| (upstream.name.clone(), tls)));
    }
    Ok(all)
}

fn gauges(shared: &Arc<Shared>, node: &Arc<OnceLock<node::Link>>) -> Gauges {
    let (intercepting, degraded, repairs) = (Arc::clone(node), Arc::clone(node), Arc::clone(node));
    let resolver = || Arc::clone(&shared.resolver);
    let (entries, bytes, flights) = (resolver(), resolver(), resolver());
    let active = || Arc::clone(shared);
    let (limit, up, outstanding, round_trip) = (active(), active(), active(), active());
    Gauges {
        build_info: Reader::series(|samples| samples.push(&[env!("CARGO_PKG_VERSION")], 1.0)),
        cache_bytes: Reader::value(move || bytes.cache.usage().bytes as f64),
        cache_limit_bytes: Reader::value(move || limit.active.load().plan.cache.memory as f64),
        cache_entries: Reader::series(move |samples| {
            let usage = entries.cache.usage();
            samples.push(&["positive"], usage.positive as f64);
            samples.push(&["negative"], usage.negative as f64);
            samples.push(&["failure"], usage.failures as f64);
        }),
        in_flight: Reader::value(move || flights.in_flight() as f64),
        upstream_up: Reader::series(move |samples| {
            each_server(&up, |group, server| {
                let healthy = group.health(server) == Health::Healthy;
                samples.push(&[&group.name, &server.address.to_string()], f64::from(u8::from(healthy)));
            });
        }),
        upstream_outstanding: Reader::series(move |samples| {
            each_server(&outstanding, |group, server| {
                samples.push(&[&group.name, &server.address.to_string()], server.outstanding().into());
            });
        }),
        upstream_rtt: Reader::series(move |samples| {
            each_server(&round_trip, |group, server| {
                let known = server.round_trip().map_or(f64::NAN, |time| time.as_secs_f64());
                samples.push(&[&group.name, &server.address.to_string()], known);
            });
        }),
        intercepting: Reader::series(move |samples| {
            if let Some(link) = intercepting.get() {
                samples.push(&[], f64::from(u8::from(link.status.borrow().intercepting)));
            }
        }),
        degraded: Reader::series(move |samples| {
            if let Some(link) = degraded.get() {
                link.status.borrow().degraded.iter().for_each(|it| samples.push(&[it.label.label()], 1.0));
            }
        }),
        repairs: Reader::series(move |samples| {
            if let Some(link) = repairs.get() {
                let repaired = link.status.borrow().repaired;
                samples.push(&["link"], repaired.link as f64);
                samples.push(&["tables"], repaired.tables as f64);
            }
        }),
        ..Gauges::default()
    }
}

fn each_server(shared: &Shared, mut show: impl FnMut(&crate::upstream::Group, &crate::upstream::Server)) {
    for group in shared.active.load().upstreams.iter() {
        for server in group.servers().iter() {
            show(group, server);
        }
    }
}

// === impl StartError ===

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(error) => error.fmt(f),
            Self::Node(refusal) => f.write_str(refusal),
            Self::Thread(error) => write!(f, "a thread cannot be started: {error}"),
            Self::Tls { upstream, source } => write!(f, "upstream {upstream}: {source}"),
        }
    }
}

impl std::error::Error for StartError {}

impl fmt::Display for NeedsRestart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}
