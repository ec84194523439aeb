//! TCP and TLS towards upstream servers: few connections, many questions on each, none too old.
//!
//! The promise: at most [`Limits::in_flight`] questions on a connection and [`Limits::connections`] open connections
//! to a server, more wait; no connection is asked after its maximum age, so a server behind a Service address that is
//! replaced is left within two minutes; a question whose connection turns out dead is asked once more on a new one,
//! and the asker does not notice.
//!
//! ```text
//! ask ─► first open connection with room, else a new one, else wait ─► answer
//!              └─ had answered before, yet closes or falls silent ─► once more, on a connection born since
//! ```
//!
//! Read first: RFC 7766 sections 6 and 7, RFC 7858 section 3, RFC 9210 section 4.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio::sync::oneshot::error::RecvError;
use tokio::time::Instant;

use super::connection::{Before, Connection, Ticket};
use super::exchange::ExchangeCounters;
use super::tls::Tls;
use crate::wire::response::Asked;
use crate::wire::{Response, Unfit};

/// A worker's connections to all its servers. Must live in a runtime that takes `spawn_local`.
pub struct StreamPool {
    shared: Rc<Shared>,
}

struct Shared {
    /// A handful: one for each server and way to talk to it.
    lines: RefCell<Vec<Rc<Line>>>,
    dice: RefCell<StdRng>,
    limits: Limits,
    counters: Rc<ExchangeCounters>,
}

/// Bounds on connections and patience.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Questions under way on one connection.
    pub in_flight: usize,
    /// Connections to one server that take questions; as many again may be winding down.
    pub connections: usize,
    /// Questions to one server, under way or waiting for room.
    pub queued: usize,
    /// Bytes that wait to be written to one connection.
    pub buffered: usize,
    /// Time for connecting, and again for the TLS handshake.
    pub connect: Duration,
    /// Time after which a connection that has answered before is suspected dead.
    pub silence: Duration,
    /// Time after which a connection without questions and answers is closed.
    pub idle: Duration,
    /// Age at which a connection takes no more questions: at random between this and twice this.
    pub age: Duration,
}

/// One server, one way to talk to it.
struct Line {
    server: SocketAddr,
    tls: Option<Tls>,
    connections: RefCell<Vec<Rc<Connection>>>,
    /// Told when a question may find room.
    room: Rc<Notify>,
}

/// Why a question got no answer over a connection.
#[derive(Clone, Debug)]
pub enum StreamError {
    /// Too much waits for this server already.
    Busy,
    /// The connection ended before the answer came.
    Closed,
    /// TCP or TLS took too long to be established.
    ConnectTimedOut,
    /// The server sent a length that no message can have; the connection has been dropped.
    Frame,
    /// TLS could not be agreed on: certificate, name or version.
    Handshake,
    /// Nothing listens on the server's port.
    Refused,
    /// An answer came, and it is of no use.
    Unfit(Unfit),
    /// The network says that the server cannot be reached, or no socket was to be had.
    Unreachable(io::ErrorKind),
}

// === impl StreamPool ===

impl StreamPool {
    /// Makes a pool with no connection. `dice` gives IDs and must be seeded well.
    pub fn new(dice: StdRng, limits: Limits, counters: Rc<ExchangeCounters>) -> Self {
        let shared = Shared { lines: RefCell::default(), dice: RefCell::new(dice), limits, counters };
        Self { shared: Rc::new(shared) }
    }

    /// Asks `server` what `asked` says, over TLS if `tls` says how.
    ///
    /// The query's ID is replaced by one that is free on the connection, and its letter case need not come back. There is no overall time limit: dropping the
    /// future gives up, and harms nobody.
    ///
    /// # Errors
    /// [`StreamError`]; the caller asks another server.
    pub async fn ask(&self, server: SocketAddr, tls: Option<&Tls>, asked: &Asked<'_>) -> Result<Response, StreamError> {
        let line = self.shared.line(server, tls);
        let mut first = self.shared.place(&line, asked, None).await?;
        if first.before != Before::Nothing {
            count(&self.shared.counters.tcp_reused);
        }
        let answered = tokio::select! {
            answered = &mut first.answer => Some(flatten(answered)),
            () = first.connection.silence(first.asked_at), if first.before == Before::Answers => None,
        };
        match answered {
            Some(Err(StreamError::Closed)) if first.before != Before::Nothing || first.connection.has_heard() => {
                count(&self.shared.counters.tcp_retries);
                let mut second = self.shared.place(&line, asked, Some(first.asked_at)).await?;
                flatten((&mut second.answer).await)
            }
            Some(answered) => answered,
            None => {
                first.connection.suspect();
                count(&self.shared.counters.tcp_retries);
                let second = async {
                    let mut second = self.shared.place(&line, asked, Some(first.asked_at)).await?;
                    flatten((&mut second.answer).await)
                };
                tokio::select! {
                    // A slow server, not a dead one.
                    Ok(Ok(answer)) = &mut first.answer => Ok(answer),
                    answered = second => answered,
                }
            }
        }
    }

    /// Number of connections, over all servers.
    pub fn connections(&self) -> usize {
        self.shared.lines.borrow().iter().map(|line| line.connections.borrow().len()).sum()
    }
}

// === impl Shared ===

impl Shared {
    fn line(&self, server: SocketAddr, tls: Option<&Tls>) -> Rc<Line> {
        let mut lines = self.lines.borrow_mut();
        if let Some(line) = lines.iter().find(|line| line.server == server && line.tls.as_ref() == tls) {
            return Rc::clone(line);
        }
        // Servers come and go; lines nobody holds go when one comes.
        lines.retain(|line| Rc::strong_count(line) > 1);
        let line =
            Rc::new(Line { server, tls: tls.cloned(), connections: RefCell::default(), room: Rc::new(Notify::new()) });
        lines.push(Rc::clone(&line));
        line
    }

    /// Puts the question on a connection, if need be one born after `not_before`. Waits while all are full.
    async fn place(
        &self,
        line: &Rc<Line>,
        asked: &Asked<'_>,
        not_before: Option<Instant>,
    ) -> Result<Ticket, StreamError> {
        loop {
            let room = line.room.notified();
            if let Some(connection) = self.pick(line, not_before) {
                return connection.ask(asked, &mut *self.dice.borrow_mut());
            }
            if Rc::strong_count(line) > self.limits.queued {
                return Err(StreamError::Busy);
            }
            room.await;
        }
    }

    fn pick(&self, line: &Rc<Line>, not_before: Option<Instant>) -> Option<Rc<Connection>> {
        let connections = line.connections.borrow();
        let open = || connections.iter().filter(|connection| connection.is_open());
        let fitting = |connection: &&Rc<Connection>| {
            connection.has_room() && not_before.is_none_or(|instant| connection.born > instant)
        };
        if let Some(connection) = open().find(fitting) {
            return Some(Rc::clone(connection));
        }
        if open().count() >= self.limits.connections || connections.len() >= 2 * self.limits.connections {
            return None;
        }
        drop(connections);
        Some(self.connect(line))
    }

    fn connect(&self, line: &Rc<Line>) -> Rc<Connection> {
        let age = self.limits.age + self.limits.age.mul_f64(self.dice.borrow_mut().random());
        let connection = Connection::new(self.limits, age, Rc::clone(&line.room), Rc::clone(&self.counters));
        let connection = Rc::new(connection);
        line.connections.borrow_mut().push(Rc::clone(&connection));
        let life = Life { line: Rc::clone(line), connection: Rc::clone(&connection) };
        tokio::task::spawn_local(async move {
            let why = life.connection.run(life.line.server, life.line.tls.as_ref()).await;
            life.connection.end(&why);
        });
        connection
    }
}

/// Takes a connection off its line when its task ends, however it ends.
struct Life {
    line: Rc<Line>,
    connection: Rc<Connection>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.line.connections.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.connection));
        self.connection.end(&StreamError::Closed);
    }
}

// === impl Limits ===

impl Default for Limits {
    /// What the product uses.
    fn default() -> Self {
        Self {
            // RFC 7766 section 6.2.1 wants few connections; 100 is what we grant our own clients.
            in_flight: 100,
            connections: 4,
            queued: 1024,
            buffered: 1 << 20,
            connect: Duration::from_secs(1),
            // Well under a client's second, well over a round trip.
            silence: Duration::from_millis(400),
            idle: Duration::from_secs(10),
            age: Duration::from_secs(60),
        }
    }
}

// === impl StreamError ===

impl StreamError {
    /// A name for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Closed => "closed",
            Self::ConnectTimedOut => "connect_timed_out",
            Self::Frame => "bad_frame",
            Self::Handshake => "tls_handshake",
            Self::Refused => "refused",
            Self::Unfit(unfit) => unfit.label(),
            Self::Unreachable(_) => "unreachable",
        }
    }
}

/// An asker whose connection is gone without a word has been told that it is closed.
fn flatten(answered: Result<Result<Response, StreamError>, RecvError>) -> Result<Response, StreamError> {
    answered.unwrap_or(Err(StreamError::Closed))
}

fn count(counter: &std::cell::Cell<u64>) {
    counter.set(counter.get() + 1);
}

#[cfg(test)]
mod tests;
