//! One worker: one core, one thread, one runtime, its own sockets; and what it shares with the others.
//!
//! A query stays on the worker it came to, from the datagram to the reply. What is shared is read without locks (the
//! plan), sharded (the cache, the flights) or touched rarely (the table of clients).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

use super::exchange::ExchangeCounters;
use super::guest::Guest;
use super::listen::Pair;
use super::pilot;
use super::pulse::{BEAT, Pulse};
use super::stream::{Limits, StreamPool};
use super::tls::Tls;
use super::udp_pool::UdpPool;
use super::{tcp, udp};
use crate::metrics;
use crate::plan::QueryLog;
use crate::resolve::pursuit::RESOLVE_TIMER;
use crate::resolve::{Active, Flight, Resolver};
use crate::wire::{MESSAGE_MAX, Query, Transport, name};

/// Upstream ports of one worker for one server: as many must an attacker guess among (2^12, P01). Not shared out between
/// the workers: steering may give all the work to one of them.
const PORTS_PER_SERVER: usize = 4096;
/// Time a socket that goes is served after the last arrival: the traffic was given back before, but what was on its way by
/// then is ours to answer.
pub(super) const LINGER: Duration = Duration::from_millis(30);
/// Time a stopping worker gives what is still under way.
pub(super) const DRAIN: Duration = RESOLVE_TIMER.saturating_add(Duration::from_millis(250));

/// Where the lines of the query log come from.
pub const QUERY_LOG: &str = "queries";

/// What all workers share.
pub struct Shared {
    pub resolver: Arc<Resolver<Guest>>,
    pub active: ArcSwap<Active>,
    /// How to speak TLS with the servers of a group, by its name.
    pub tls: ArcSwap<HashMap<String, Tls>>,
    /// Woken when a server has become a suspect.
    pub suspects: Notify,
    /// TCP connections open, of all workers.
    pub connections: AtomicUsize,
    /// Those of them that wait for their client.
    pub idle_connections: AtomicUsize,
    /// Places for connections that somebody's idle connection has to give.
    pub room_wanted: AtomicUsize,
    /// Told when a worker needs a place for a connection and has no idle one to close.
    pub make_room: Notify,
}

/// A pair of sockets that a worker shall serve. Ownership is shared: another worker may take over.
pub struct Post {
    /// Bound as long as anybody serves it.
    pub pair: Arc<Pair>,
    /// Its sockets under other numbers: one number cannot be waited for twice, as it is while a post changes hands.
    pub udp: UdpSocket,
    pub tcp: Option<TcpListener>,
    pub leave: watch::Receiver<Leave>,
}

impl Post {
    /// A post at `pair`.
    ///
    /// # Errors
    /// The kernel's: no descriptors left.
    pub fn at(pair: &Arc<Pair>, leave: watch::Receiver<Leave>) -> io::Result<Self> {
        Ok(Self {
            pair: Arc::clone(pair),
            udp: pair.udp.try_clone()?,
            tcp: pair.tcp.as_ref().map(TcpListener::try_clone).transpose()?,
            leave,
        })
    }
}

/// How long a [`Post`] is served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Leave {
    /// Until nothing more comes: the address is given up.
    Drain,
    /// No longer: another worker serves it.
    HandOver,
    /// Until nothing more comes and nothing is under way: the agent ends.
    Part,
    /// For good.
    Stay,
}

/// One worker. Lives on its thread.
pub struct Worker {
    pub shared: Arc<Shared>,
    pub resolver: Arc<Resolver<Guest>>,
    pub count: Arc<metrics::Worker>,
    pub udp: UdpPool,
    pub streams: StreamPool,
    pub exchanged: Rc<ExchangeCounters>,
    pub pulse: Pulse,
    /// The UDP sockets it reads.
    pub listening: RefCell<Vec<Weak<UdpSocket>>>,
    dice: RefCell<StdRng>,
    /// Replies that are not part of a batch are written here.
    pub scratch: RefCell<Box<[u8]>>,
    under_way: Cell<usize>,
    /// Queries seen by the query log.
    logged: Cell<u32>,
    landed: Notify,
    /// True once this worker stops.
    stop: watch::Sender<bool>,
    /// Connections of this worker that wait for their client, oldest first, by the number they were given.
    pub idle_connections: RefCell<tcp::Idle>,
}

/// Runs a worker on this thread until nobody can send it a post any more; then it leaves those it has as they say, and
/// ends when everything under way has ended, or had its time.
///
/// # Errors
/// If the runtime cannot be set up.
pub fn run(
    shared: Arc<Shared>,
    mut posts: mpsc::UnboundedReceiver<Post>,
    count: Arc<metrics::Worker>,
    ready: impl FnOnce(),
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exchanged = Rc::new(ExchangeCounters::default());
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let worker = Rc::new(Worker {
            resolver: Arc::clone(&shared.resolver),
            shared,
            count,
            udp: UdpPool::new(PORTS_PER_SERVER, Rc::clone(&exchanged)),
            streams: StreamPool::new(rand::make_rng(), Limits::default(), Rc::clone(&exchanged)),
            exchanged,
            pulse: Pulse::new(Instant::now()),
            listening: RefCell::default(),
            dice: RefCell::new(rand::make_rng()),
            scratch: RefCell::new(vec![0; MESSAGE_MAX].into_boxed_slice()),
            under_way: Cell::new(0),
            logged: Cell::new(0),
            landed: Notify::new(),
            stop: watch::Sender::new(false),
            idle_connections: RefCell::default(),
        });
        let sweeper = tokio::task::spawn_local(sweep(Rc::clone(&worker)));
        let room = tokio::task::spawn_local(tcp::make_room(Rc::clone(&worker)));
        ready();
        let mut serving = JoinSet::new();
        while let Some(Post { pair, udp, tcp, leave }) = posts.recv().await {
            serving.spawn_local(udp::serve(Rc::clone(&worker), Arc::clone(&pair), udp, leave.clone()));
            if let Some(tcp) = tcp {
                serving.spawn_local(tcp::serve(Rc::clone(&worker), pair, tcp, leave));
            }
            // A socket that fails for good ends its task; the others serve on.
            while let Some(ended) = serving.try_join_next() {
                report(ended);
            }
        }
        worker.stop.send_replace(true);
        while let Some(ended) = serving.join_next().await {
            report(ended);
        }
        worker.drain().await;
        sweeper.abort();
        room.abort();
        Ok(())
    })
}

fn report(ended: Result<io::Result<()>, tokio::task::JoinError>) {
    if let Ok(Err(error)) = ended {
        tracing::error!(%error, "a listening socket failed");
    }
}

/// Says once a second that the worker runs, closes upstream ports that have had their time, and shows what the pools
/// have counted.
async fn sweep(worker: Rc<Worker>) {
    let mut tick = tokio::time::interval(BEAT);
    loop {
        tick.tick().await;
        let now = Instant::now();
        worker.beat(now);
        worker.udp.sweep(now);
        worker.exchanged.show(&worker.count);
    }
}

impl Worker {
    /// Says that the worker runs. True if it has been away: then what waited in its UDP sockets is gone.
    pub fn beat(&self, now: Instant) -> bool {
        let is_back = self.pulse.beat(now);
        if is_back {
            udp::discard_waiting(self);
        }
        is_back
    }

    /// The plan in force.
    pub fn active(&self) -> Guard<Arc<Active>> {
        self.shared.active.load()
    }

    /// A random number nobody can predict.
    pub fn roll(&self) -> u32 {
        self.dice.borrow_mut().next_u32()
    }

    /// Runs `with` the worker's CSPRNG.
    pub fn with_dice<T>(&self, with: impl FnOnce(&mut StdRng) -> T) -> T {
        with(&mut self.dice.borrow_mut())
    }

    /// Flies `flight` as a task of this worker. If the task panics, the flight's drop answers those who wait.
    pub fn launch(self: &Rc<Self>, flight: Box<Flight<Guest>>) {
        let worker = Rc::clone(self);
        self.spawn(async move { pilot::fly(&worker, flight).await });
    }

    /// Runs `task` on this worker; a stopping worker waits for it.
    pub fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        self.under_way.set(self.under_way.get() + 1);
        let done = UnderWay(Rc::clone(self));
        tokio::task::spawn_local(async move {
            let _done = done;
            task.await;
        });
    }

    /// Logs `query` if the plan wants it logged, with what became of it.
    pub fn log(&self, query: &Query<'_>, client: SocketAddr, transport: Transport, outcome: &'static str) {
        let QueryLog::OneIn(many) = self.active().plan.log.queries else { return };
        self.logged.set(self.logged.get().wrapping_add(1));
        if self.logged.get().is_multiple_of(many.max(1)) {
            let name = name::escape(query.qname());
            tracing::info!(target: QUERY_LOG, %client, %name, r#type = %query.qtype(), ?transport, outcome, "query");
        }
    }

    /// Whether a post at `pair` that is left like this may be closed once nothing more comes: an agent that ends goes on
    /// serving while any question is under way, an address given up while anybody waits for an answer from there.
    pub fn may_close(&self, pair: &Arc<Pair>, leave: Leave) -> bool {
        match leave {
            Leave::Part => self.resolver.in_flight() == 0,
            // Those who wait hold the pair, and so do the two tasks that serve it.
            Leave::Drain | Leave::HandOver | Leave::Stay => Arc::strong_count(pair) <= 2,
        }
    }

    /// Completes when this worker stops.
    pub async fn stopping(&self) {
        // An error means that the worker is gone, which is a stop too.
        drop(self.stop.subscribe().wait_for(|stop| *stop).await);
    }

    /// Waits until nothing is under way, at most for [`DRAIN`].
    async fn drain(&self) {
        let all_done = async {
            while self.under_way.get() > 0 {
                self.landed.notified().await;
            }
        };
        if tokio::time::timeout(DRAIN, all_done).await.is_err() {
            tracing::warn!(under_way = self.under_way.get(), "stopped with questions still under way");
        }
    }
}

/// Completes when a post is to be left in another way than was `known`, and says how.
pub(super) async fn left(leave: &mut watch::Receiver<Leave>, known: Leave) -> Leave {
    match leave.wait_for(|it| *it != known).await {
        Ok(how) => *how,
        // The agent is gone.
        Err(_) if known == Leave::Stay => Leave::Part,
        Err(_) => std::future::pending().await,
    }
}

/// Completes at `until`; never, if there is no such moment.
pub(super) async fn over(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

/// A task under way; tells when it ends, however it ends.
struct UnderWay(Rc<Worker>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let worker = &self.0;
        worker.under_way.set(worker.under_way.get() - 1);
        if std::thread::panicking() {
            worker.count.panics.bump();
        }
        worker.landed.notify_one();
    }
}
