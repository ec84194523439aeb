//! Who serves where: the worker threads and the sockets they hold, and how both change without losing a query.
//!
//! ```text
//! address ─► pair 0, 1, 2, …   bound for good, numbered by the kernel in this order; pair n is served by worker n mod workers
//! prepare  what is missing is bound and unsteered; nothing has changed yet, and any failure leaves it so
//! apply    new pairs get their workers ─► the kernel is told how many to steer to ─► moved pairs are handed over
//!          addresses given up are drained ─► workers too many end when what they have under way has ended
//! ```
//! As long as an address stays, none of its sockets is ever closed: what waits in its queue is read by whoever serves it
//! next. Fewer workers leave pairs that get nothing new and cost a buffer; more workers later find them bound.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak, mpsc};
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc as orders;
use tokio::sync::watch;

use super::StartError;
use crate::metrics::{self, Metrics};
use crate::net::listen::{ListenError, Pair};
use crate::net::worker::{self, Leave, Post, Shared};
use crate::plan::Listen;

/// Workers and sockets in force.
pub(super) struct Crew {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    /// In the order of their numbers.
    hands: Vec<Hand>,
    stations: Vec<Station>,
    /// Port 0 in the plan: the one the kernel chose.
    any_port: Option<u16>,
    /// Pairs of addresses given up, while they are drained: whoever wants the address back finds them in the kernel's
    /// numbering.
    leaving: Vec<Leaving>,
    /// Workers that end, or have ended.
    parted: Vec<Thread>,
}

/// A worker. Dropped, it leaves its posts as they say and ends.
struct Hand {
    posts: orders::UnboundedSender<Post>,
    /// Where only our probes ask.
    own: SocketAddr,
    leave_own: watch::Sender<Leave>,
    thread: Thread,
}

struct Thread {
    handle: JoinHandle<io::Result<()>>,
    /// Written by this thread alone as long as it lives.
    cells: Arc<metrics::Worker>,
}

/// One address.
struct Station {
    address: SocketAddr,
    seats: Vec<Seat>,
}

/// One pair and who serves it.
struct Seat {
    pair: Arc<Pair>,
    hand: usize,
    leave: watch::Sender<Leave>,
}

/// One pair that is drained.
struct Leaving {
    address: SocketAddr,
    pair: Weak<Pair>,
    leave: watch::Sender<Leave>,
}

/// What [`Crew::prepare`] made ready.
pub(super) struct Change {
    workers: usize,
    hired: Vec<Hand>,
    stations: Vec<(SocketAddr, Vec<Planned>)>,
    any_port: Option<u16>,
}

/// A pair in the order of its address; `fresh`: it gets another worker.
struct Planned {
    pair: Arc<Pair>,
    fresh: Option<(watch::Sender<Leave>, Post)>,
}

impl Crew {
    pub(super) fn new(shared: Arc<Shared>, metrics: Arc<Metrics>) -> Self {
        Self {
            shared,
            metrics,
            hands: Vec::new(),
            stations: Vec::new(),
            any_port: None,
            leaving: Vec::new(),
            parted: Vec::new(),
        }
    }

    /// Binds and hires what `listen` wants and is not there.
    ///
    /// # Errors
    /// The first address or thread that cannot be had. Everything is as it was then.
    pub(super) fn prepare(&mut self, listen: &Listen) -> Result<Change, StartError> {
        let cores = thread::available_parallelism();
        let workers = listen.workers.or(cores.ok()).map_or(1, usize::from);
        let mut port = if listen.port == 0 { self.any_port.unwrap_or(0) } else { listen.port };
        let mut stations = Vec::with_capacity(listen.addresses.len());
        for ip in &listen.addresses {
            let planned = self.plan_station(SocketAddr::new(*ip, port), workers)?;
            let address = planned[0].pair.address().map_err(StartError::Thread)?;
            // Port 0 means any: the first address decides, the others share it.
            port = address.port();
            stations.push((address, planned));
        }
        let any_port = (listen.port == 0).then_some(port);
        let hired = (self.hands.len()..workers).map(|number| self.hire(number)).collect::<Result<_, _>>()?;
        Ok(Change { workers, hired, stations, any_port })
    }

    fn plan_station(&self, address: SocketAddr, workers: usize) -> Result<Vec<Planned>, StartError> {
        let known = self.stations.iter().find(|station| station.address == address);
        let mut pairs: Vec<Arc<Pair>> = if let Some(station) = known {
            station.seats.iter().map(|seat| Arc::clone(&seat.pair)).collect()
        } else {
            let returning = self.leaving.iter().filter(|it| it.address == address);
            returning.filter_map(|it| it.pair.upgrade()).collect()
        };
        let mut at = address;
        while pairs.len() < workers {
            let pair = Pair::bind(at).map_err(StartError::Listen)?;
            if pairs.is_empty() {
                at = pair.address().map_err(StartError::Thread)?;
                // Before it has company: what is bound behind it gets nothing until somebody serves it.
                pair.steer(1)
                    .map_err(|source| StartError::Listen(ListenError { address, transport: "UDP and TCP", source }))?;
            }
            pairs.push(Arc::new(pair));
        }
        let stays = |number: usize| {
            known.and_then(|station| station.seats.get(number)).is_some_and(|seat| seat.hand == number % workers)
        };
        let plan = |(number, pair): (usize, Arc<Pair>)| {
            if stays(number) {
                return Ok(Planned { pair, fresh: None });
            }
            let (leave, left) = watch::channel(Leave::Stay);
            let post = Post::at(&pair, left).map_err(StartError::Thread)?;
            Ok(Planned { pair, fresh: Some((leave, post)) })
        };
        pairs.into_iter().enumerate().map(plan).collect()
    }

    fn hire(&mut self, number: usize) -> Result<Hand, StartError> {
        // Cells of one that has ended go on counting, so that the sums never fall and their number stays bounded.
        let ended = self.parted.iter().position(|thread| thread.handle.is_finished());
        let cells = match ended.map(|at| self.parted.swap_remove(at)) {
            Some(thread) => {
                join(thread.handle);
                thread.cells
            }
            None => self.metrics.add_worker(),
        };
        let (posts, heard) = orders::unbounded_channel();
        let (ready, awaited) = mpsc::channel();
        let (shared, counted) = (Arc::clone(&self.shared), Arc::clone(&cells));
        let work = move || worker::run(shared, heard, counted, move || ready.send(()).unwrap_or_default());
        let handle = thread::Builder::new().name(format!("nodens-{number}")).spawn(work).map_err(StartError::Thread)?;
        if awaited.recv().is_err() {
            // It has ended instead.
            let why = match handle.join() {
                Ok(Err(error)) => error,
                Ok(Ok(())) | Err(_) => io::Error::other("a worker panicked"),
            };
            return Err(StartError::Thread(why));
        }
        let pair = Arc::new(Pair::own().map_err(StartError::Listen)?);
        let own = pair.address().map_err(StartError::Thread)?;
        let (leave_own, left) = watch::channel(Leave::Stay);
        // It has just said that it is there.
        drop(posts.send(Post::at(&pair, left).map_err(StartError::Thread)?));
        Ok(Hand { posts, own, leave_own, thread: Thread { handle, cells } })
    }

    /// Lets a change be: who was hired for it goes, and leaves its cells to the next.
    pub(super) fn discard(&mut self, change: Change) {
        self.parted.extend(change.hired.into_iter().map(|hand| hand.thread));
    }

    /// Puts a change in force.
    pub(super) fn apply(&mut self, change: Change) {
        self.any_port = change.any_port;
        self.hands.extend(change.hired);
        let mut before = std::mem::take(&mut self.stations);
        for (address, planned) in change.stations {
            let known = before.iter().position(|station| station.address == address).map(|at| before.swap_remove(at));
            let moved = planned.iter().any(|it| it.fresh.is_some());
            let mut old = known.map(|station| station.seats).unwrap_or_default().into_iter();
            let mut handed_over = Vec::new();
            let mut seats = Vec::with_capacity(planned.len());
            for (number, Planned { pair, fresh }) in planned.into_iter().enumerate() {
                let hand = number % change.workers;
                match (old.next(), fresh) {
                    (Some(seat), None) => seats.push(seat),
                    (seat, Some((leave, post))) => {
                        handed_over.extend(seat);
                        // An error means that the worker panicked, which its end has said.
                        drop(self.hands[hand].posts.send(post));
                        seats.push(Seat { pair, hand, leave });
                    }
                    (None, None) => unreachable!("a seat stays only where there was one"),
                }
            }
            if moved && let Err(error) = seats[0].pair.steer(change.workers) {
                // All of them are served, so nothing is lost but the way that costs least.
                tracing::warn!(%address, %error, "queries are not steered to the worker of their CPU");
            }
            for seat in handed_over {
                // Without a receiver nobody serves it any more: its worker panicked.
                let _ = seat.leave.send(Leave::HandOver);
            }
            self.stations.push(Station { address, seats });
        }
        let returned = |it: &Leaving| self.stations.iter().any(|station| station.address == it.address);
        for it in self.leaving.extract_if(.., |it| returned(it) || it.pair.strong_count() == 0) {
            // Whoever drained it is no longer needed.
            let _ = it.leave.send(Leave::HandOver);
        }
        for Station { address, seats } in before {
            for Seat { pair, leave, .. } in seats {
                let _ = leave.send(Leave::Drain);
                self.leaving.push(Leaving { address, pair: Arc::downgrade(&pair), leave });
            }
        }
        for hand in self.hands.drain(change.workers.min(self.hands.len())..) {
            let _ = hand.leave_own.send(Leave::HandOver);
            self.parted.push(hand.thread);
        }
    }

    /// Where each worker alone can be asked.
    pub(super) fn own(&self) -> Vec<SocketAddr> {
        self.hands.iter().map(|hand| hand.own).collect()
    }

    /// Drains every address and waits until all workers have ended.
    pub(super) fn stop(self) {
        for seat in self.stations.iter().flat_map(|station| &station.seats) {
            // Without a receiver nobody serves it.
            let _ = seat.leave.send(Leave::Part);
        }
        for hand in &self.hands {
            let _ = hand.leave_own.send(Leave::Part);
        }
        let threads: Vec<Thread> = self.hands.into_iter().map(|hand| hand.thread).chain(self.parted).collect();
        drop(self.stations);
        for thread in threads {
            join(thread.handle);
        }
    }
}

impl Change {
    /// Where the agent listens once this is in force.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.stations.iter().map(|(address, _)| *address).collect()
    }
}

fn join(worker: JoinHandle<io::Result<()>>) {
    match worker.join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "a worker failed"),
        Err(_) => tracing::error!("a worker panicked"),
    }
}
