//! Who owns what: the agent as a whole, its start, its reload and its end.
//!
//! ```text
//! start:  cache restored ─► sockets bound ─► workers serve ─► control thread (names, probes, endpoints) ─► "serving"
//! reload: plan checked by its maker ─► what is new is bound ─► host told ─► plan swapped as one; cache and flights stay
//!         ─► new sockets are served, old ones drained                     a failure on the way: nothing has changed
//! stop:   told ─► what is queued is answered ─► flights land or run out of time ─► threads joined ─► cache written
//! ```

mod control;
mod crew;
mod drops;
pub(crate) mod file;
mod gauges;
mod node;
mod process;
mod rows;
mod snapshot;
mod status;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::health::{Health as Latch, Scope};
use crate::incidents::{Incidents, What};
use crate::metrics::{Metrics, Reload, Talks};
use crate::net::listen::ListenError;
use crate::net::probe::{ProbeName, Prober, Targets, Trust};
use crate::net::tls::{Tls, TlsError};
use crate::net::worker::Shared;
use crate::node::Desired;
use crate::node::facts::Mode;
use crate::node::plane::Plane;
use crate::plan::{Plan, Protocol};
use crate::resolve::{Active, Resolver};
use crew::Crew;
use snapshot::Keeper;

pub use control::Host;

/// The running agent. Dropped, it stops.
pub struct Agent {
    inner: Arc<Inner>,
    host: Arc<Host>,
    stop: watch::Sender<bool>,
    control: Option<JoinHandle<()>>,
    keeper: Option<Keeper>,
}

/// What the agent's parts share.
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<Metrics>,
    /// Which plan is in force, and when that changed.
    reloads: gauges::Reloads,
    /// Our probes of ourselves.
    probes: Arc<Talks>,
    /// Where we listen.
    own: Arc<ArcSwap<Vec<SocketAddr>>>,
    /// Where each worker alone can be asked.
    workers: Arc<ArcSwap<Vec<SocketAddr>>>,
    /// Told of every plan that comes into force.
    plans: watch::Sender<Arc<Active>>,
    /// Held from reading a configuration until it is in force, or refused.
    loading: Mutex<()>,
    /// Held by whoever reloads; `None`: the agent has stopped.
    running: Mutex<Option<Running>>,
    /// Why the newest configuration was refused, while it is.
    refused: Mutex<Option<String>>,
    /// What went other than planned, but for what the plane keeps.
    incidents: Mutex<Incidents>,
    /// What the prober has found, while anybody wants to know.
    pub(crate) health: Arc<Latch>,
    /// The node plane, while it runs.
    pub(crate) node: Arc<node::Slot>,
}

/// What a plan has put to work.
struct Running {
    crew: Crew,
    /// What we are on this host, if the plan wants us to be anything.
    plane: Option<Plane>,
    /// The thread that asks ourselves, since somebody wanted to know; it ends when the health is closed.
    prober: Option<JoinHandle<()>>,
}

/// Why a plan cannot be put in force, at the start or later.
#[derive(Debug)]
pub enum StartError {
    Listen(ListenError),
    /// The host refuses what the `node:` block asks for.
    Node(String),
    /// The agent ends.
    Stopping,
    Thread(io::Error),
    Tls {
        upstream: String,
        source: TlsError,
    },
}

impl Agent {
    /// Starts an agent as `plan` says; it serves when this returns.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    pub fn start(plan: Plan) -> Result<Self, StartError> {
        Self::start_on(plan, Host::default())
    }

    /// Starts an agent whose reload and log `host` provides.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    pub fn start_on(plan: Plan, host: Host) -> Result<Self, StartError> {
        let epoch = Instant::now();
        let tls = tls_of(&plan)?;
        let low = plan.node.is_some().then(keep_low_descriptors).transpose().map_err(StartError::Thread)?;
        let resolver = Arc::new(Resolver::new(&plan, epoch));
        let restored = snapshot::restore(&resolver.cache, &plan);
        let active = Arc::new(Active::new(plan, None, epoch));
        let shared = Arc::new(Shared {
            resolver,
            active: ArcSwap::new(Arc::clone(&active)),
            tls: ArcSwap::from_pointee(tls),
            suspects: Notify::new(),
            connections: AtomicUsize::new(0),
            idle_connections: AtomicUsize::new(0),
            room_wanted: AtomicUsize::new(0),
            make_room: Notify::new(),
        });
        let (plans, followed) = watch::channel(Arc::clone(&active));
        let inner = Arc::new_cyclic(|inner| Inner {
            shared: Arc::clone(&shared),
            metrics: Arc::new(Metrics::new(0, gauges::gauges(inner))),
            reloads: gauges::Reloads::begin(),
            probes: Arc::default(),
            own: Arc::default(),
            workers: Arc::default(),
            plans,
            loading: Mutex::new(()),
            running: Mutex::default(),
            refused: Mutex::new(None),
            incidents: Mutex::default(),
            health: Arc::new(Latch::new(Instant::now())),
            node: Arc::default(),
        });
        if let Some(restored) = restored {
            inner.metrics.control().snapshots.bump(restored);
        }
        let mut crew = Crew::new(shared, Arc::clone(&inner.metrics));
        let change = crew.prepare(&active.plan.listen)?;
        let own = change.addresses();
        if active.plan.node.is_none() {
            warn_of_absent_addresses(&own);
        }
        crew.apply(change);
        inner.own.store(Arc::new(own));
        inner.workers.store(Arc::new(crew.own()));
        *inner.running() = Some(Running { crew, plane: None, prober: None });
        let (stop, stopping) = watch::channel(false);
        let mut agent = Self { inner, host: Arc::new(host), stop, control: None, keeper: None };
        let (ready, awaited) = mpsc::channel();
        let (inner, host) = (Arc::clone(&agent.inner), Arc::clone(&agent.host));
        let control = move || control::run(&inner, &host, followed, stopping, &ready);
        let thread = thread::Builder::new().name("nodens-control".to_owned()).spawn(control);
        agent.control = Some(thread.map_err(StartError::Thread)?);
        // An error means that the thread has ended instead, and said why.
        let _ = awaited.recv();
        agent.keeper = Some(Keeper::start(Arc::clone(&agent.inner)).map_err(StartError::Thread)?);
        drop(low);
        agent.inner.begin()?;
        Ok(agent)
    }

    /// Where it listens, UDP and TCP.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.inner.own().to_vec()
    }

    /// Puts `plan` in force. The cache and what was learnt about servers stay, and so do the sockets of addresses that stay.
    ///
    /// # Errors
    /// [`StartError`]; the plan before it stays in force, untouched.
    pub fn reload(&self, plan: Plan) -> Result<(), StartError> {
        self.inner.reload(plan)
    }

    /// Reads the configuration again and puts it in force, or logs why not and stays with the plan before it.
    pub fn reload_from_host(&self) {
        // What came of it has been logged, and readiness shows it.
        drop(control::reload_from(&self.inner, &self.host));
    }

    /// Tells everybody that the newest configuration is not the one in force, and `why`.
    pub fn refuse(&self, why: String) {
        self.inner.refuse(why);
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
        let running = self.inner.running().take();
        let mut left = None;
        if let Some(Running { crew, plane, prober }) = running {
            // First of all the traffic goes back: what arrives from here on finds the cluster DNS.
            self.inner.health.close(Instant::now());
            if let Some(plane) = &plane {
                plane.withdraw();
            }
            if prober.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("the prober panicked");
            }
            crew.stop();
            left = plane;
        }
        // The receiver is gone only if the thread has ended already.
        let _ = self.stop.send(true);
        if let Some(control) = self.control.take()
            && control.join().is_err()
        {
            tracing::error!("the control thread panicked");
        }
        // Our sockets are closed and the connections of the host's own clients have ended: whoever waits for the traffic may
        // have it.
        drop(left);
        // The last answers are in it.
        if let Some(keeper) = self.keeper.take() {
            keeper.finish();
        }
    }
}

// === impl Inner ===

impl Inner {
    /// Goes to work on the host and begins to ask ourselves, as the first plan wants.
    fn begin(&self) -> Result<(), StartError> {
        let mut running = self.running();
        let running = running.as_mut().ok_or(StartError::Stopping)?;
        let active = self.shared.active.load_full();
        self.move_plane(&mut running.plane, None, &active)?;
        self.begin_probing(&mut running.prober)
    }

    /// Puts `plan` in force, as a whole or not at all.
    pub(crate) fn reload(&self, plan: Plan) -> Result<(), StartError> {
        let mut running = self.running();
        let running = running.as_mut().ok_or(StartError::Stopping)?;
        let tls = tls_of(&plan)?;
        let before = self.shared.active.load_full();
        let change = running.crew.prepare(&plan.listen)?;
        let active = Arc::new(Active::new(plan, Some(&before), self.shared.resolver.cache.epoch()));
        if let Err(refusal) = self.move_plane(&mut running.plane, Some(&before), &active) {
            running.crew.discard(change);
            return Err(refusal);
        }
        // From here on nothing can fail.
        self.shared.resolver.cache.resize(&active.plan.cache);
        self.shared.tls.store(Arc::new(tls));
        self.shared.active.store(Arc::clone(&active));
        self.own.store(Arc::new(change.addresses()));
        running.crew.apply(change);
        self.workers.store(Arc::new(running.crew.own()));
        self.plans.send_replace(active);
        // Another bound on failures may have made suspects.
        self.shared.suspects.notify_one();
        self.adapt_node();
        if let Err(error) = self.begin_probing(&mut running.prober) {
            tracing::error!(%error, "readiness is not looked into");
        }
        *self.refused() = None;
        self.note_reload(Reload::Accepted);
        Ok(())
    }

    /// Where we listen.
    pub(crate) fn own(&self) -> Arc<Vec<SocketAddr>> {
        self.own.load_full()
    }

    /// Tells the node plane what is desired by now.
    pub(crate) fn adapt_node(&self) {
        if let (Some(link), Some(desired)) = (self.node.get(), node::desired(&self.shared.active.load())) {
            link.news.adapt(desired);
        }
    }

    /// Starts, ends or replaces the plane, if `after` wants another place on the host than `before`; else leaves it to
    /// [`adapt_node`](Self::adapt_node). While it is replaced, the cluster DNS answers.
    fn move_plane(&self, plane: &mut Option<Plane>, before: Option<&Active>, after: &Active) -> Result<(), StartError> {
        let (old, new) = (before.and_then(node::desired), node::desired(after));
        // One that could not be put back is wanted again, too.
        if plane.is_some() == new.is_some() && !node::moves(old.as_ref(), new.as_ref()) {
            return Ok(());
        }
        // On a thread of its own: whoever reloads may be in the middle of a runtime, where nobody may wait.
        let moved = thread::scope(|scope| scope.spawn(|| self.replace_plane(plane, old, new)).join());
        moved.unwrap_or_else(|_| Err(StartError::Node("the node plane panicked".to_owned())))
    }

    fn replace_plane(
        &self,
        plane: &mut Option<Plane>,
        old: Option<Desired>,
        new: Option<Desired>,
    ) -> Result<(), StartError> {
        if let Some(link) = self.node.get() {
            self.incidents().take_in(&link.status.borrow().incidents);
        }
        self.node.set(None);
        drop(plane.take());
        // What the prober has found was about other addresses, or about the workers alone.
        self.health.step_in(Instant::now());
        let mut start = |desired| {
            let started = Plane::start(desired, Arc::clone(&self.health))?;
            self.node.set(Some(node::Link { news: started.news(), status: started.status() }));
            *plane = Some(started);
            Ok(())
        };
        let Some(new) = new else { return Ok(()) };
        start(new).map_err(|refusal| {
            if let Some(Err(trouble)) = old.map(&mut start) {
                let trouble: String = trouble;
                tracing::error!(trouble, "the host does not take us back as we were; the cluster DNS answers");
            }
            StartError::Node(refusal)
        })
    }

    /// Begins to ask ourselves, if anybody wants to know and nobody has before.
    fn begin_probing(&self, prober: &mut Option<JoinHandle<()>>) -> Result<(), StartError> {
        if prober.is_some() || !is_probed(&self.shared.active.load().plan) {
            return Ok(());
        }
        let (health, shared) = (Arc::clone(&self.health), Arc::clone(&self.shared));
        let (own, workers) = (Arc::clone(&self.own), Arc::clone(&self.workers));
        let (node, link) = (Arc::clone(&self.node), Arc::clone(&self.node));
        let targets = move || {
            let mut targets = Targets { workers: Vec::new(), addresses: Vec::new(), trust: Trust::Agents };
            if is_probed(&shared.active.load().plan) {
                targets.workers = workers.load().to_vec();
                targets.addresses = own.load().to_vec();
                // What the plane leaves to others is theirs to answer.
                if let Some(link) = link.get() {
                    let status = link.status.borrow();
                    targets.addresses.retain(|address| status.addresses.contains(&address.ip()));
                    let is_iptables = status.mode == Mode::Iptables.label();
                    targets.trust = if is_iptables { Trust::Anybody } else { Trust::Agents };
                }
            }
            targets
        };
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
        let asker = Prober::new(ProbeName::new(rand::random()), targets, Arc::clone(&self.probes));
        let probe = move || asker.run(&health, || told(&health));
        let thread = thread::Builder::new().name("nodens-probe".to_owned()).spawn(probe);
        *prober = Some(thread.map_err(StartError::Thread)?);
        Ok(())
    }

    pub(crate) fn refuse(&self, why: String) {
        let _one_at_a_time = self.running();
        self.incidents().note(Instant::now(), What::ReloadRefused, &why);
        *self.refused() = Some(why);
        self.note_reload(Reload::Rejected);
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self) -> MutexGuard<'_, Option<String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn incidents(&self) -> MutexGuard<'_, Incidents> {
        self.incidents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What keeps us from being ready, one line each.
    pub(crate) fn missing(&self) -> Vec<String> {
        let refused = self.refused().clone().map(|why| format!("the newest configuration is refused: {why}"));
        let probed = is_probed(&self.shared.active.load().plan);
        let held_by = if probed { self.health.state(Instant::now()).held_by } else { Vec::new() };
        let node = match self.node.get() {
            Some(link) => link.missing(),
            None => self.shared.active.load().plan.node.as_ref().map(|_| "the node plane does not run".to_owned()),
        };
        refused.into_iter().chain(held_by).chain(node).collect()
    }
}

/// Descriptors kept free below the listeners': for the plane's other sockets and for watched files.
const LOW_DESCRIPTORS: usize = 32;

/// Takes the lowest descriptors, so that what is opened after they are dropped comes to lie below what is opened before.
///
/// The kernel lets go of a dead process's files from the highest number down, and waits some milliseconds for the end of
/// each inotify and each netlink socket above. Listeners below them would take questions that nobody answers for as long.
fn keep_low_descriptors() -> io::Result<Vec<OwnedFd>> {
    (0..LOW_DESCRIPTORS).map(|_| io::stderr().as_fd().try_clone_to_owned()).collect()
}

/// Whether anybody wants to know if we answer.
fn is_probed(plan: &Plan) -> bool {
    plan.http.health.is_some() || plan.node.is_some()
}

/// Addresses may be bound before they exist; with nobody there to put them on the host, that is worth a word.
fn warn_of_absent_addresses(addresses: &[SocketAddr]) {
    for address in addresses {
        if std::net::UdpSocket::bind((address.ip(), 0)).is_err() {
            tracing::warn!(%address, "this address is not on this host yet; nobody can reach it until it is");
        }
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

// === impl StartError ===

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(error) => error.fmt(f),
            Self::Node(refusal) => f.write_str(refusal),
            Self::Stopping => f.write_str("the agent is about to end"),
            Self::Thread(error) => write!(f, "a thread cannot be started: {error}"),
            Self::Tls { upstream, source } => write!(f, "upstream {upstream}: {source}"),
        }
    }
}

impl std::error::Error for StartError {}
