//! One connection to one server, with many questions under way on it.
//!
//! The promise: an answer reaches the question it answers, in whatever order answers come; a message nobody waits for
//! is counted and dropped; a length and its message leave in one write (RFC 7766 section 8); when the connection ends,
//! whoever still waits is told so at once.
//!
//! ```text
//! ask ─► ID from the dice ─► waiting ─────────────────────────┐
//!             └────────────► outgoing ─► write ─► server ─► read ─► by ID ─► Response::parse_for ─► asker
//! ```
//!
//! Read first: RFC 7766 sections 6 to 8, RFC 7858 section 3.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::exchange::ExchangeCounters;
use super::stream::{Limits, StreamError};
use super::tls::Tls;
use crate::wire::response::Asked;
use crate::wire::{HEADER, MESSAGE_MAX, Response, Transport};

/// Octets read at once; most answers are far shorter.
const READ: usize = 4096;

/// Questions on one connection at most, given up or not; an ID is drawn among 65,536.
const IDS_KEPT: usize = 4096;
/// Time for a polite good-bye (TLS `close_notify`) before the connection is just closed.
const FAREWELL: Duration = Duration::from_millis(100);

/// A connection, from before it is established until it has ended.
pub(super) struct Connection {
    pub(super) born: Instant,
    /// No new question from then on.
    retire_at: Instant,
    state: Cell<State>,
    /// Questions asked so far.
    asked: Cell<u64>,
    last_asked: Cell<Instant>,
    last_heard: Cell<Option<Instant>>,
    /// When the first question was asked of those since the server last said anything.
    silent_since: Cell<Option<Instant>>,
    waiting: RefCell<HashMap<u16, Waiting, ahash::RandomState>>,
    outgoing: RefCell<Vec<u8>>,
    to_write: Notify,
    /// Told when a question has been answered; somebody may be waiting for room.
    answered: Rc<Notify>,
    /// Told when the connection may have nobody left to serve.
    drained: Notify,
    limits: Limits,
    counters: Rc<ExchangeCounters>,
}

/// Whether new questions may be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Ended,
    /// Connecting or connected.
    Open,
    /// Too long silent. One message from the server makes it open again.
    Suspect,
}

/// A question under way. It stays, and so does its ID, if the asker leaves: the answer may still come.
struct Waiting {
    /// As sent, this connection's ID included.
    query: Bytes,
    asker: oneshot::Sender<Result<Response, StreamError>>,
}

/// A question asked, seen from the asker.
pub(super) struct Ticket {
    pub(super) connection: Rc<Connection>,
    pub(super) answer: oneshot::Receiver<Result<Response, StreamError>>,
    pub(super) asked_at: Instant,
    /// Whether the connection had been used before, and how.
    pub(super) before: Before,
}

/// What a connection had seen when a question was asked on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Before {
    Answers,
    Nothing,
    Questions,
}

// === impl Connection ===

impl Connection {
    /// A connection to be: [`run`](Self::run) establishes it. Questions may be asked at once.
    pub(super) fn new(limits: Limits, age: Duration, answered: Rc<Notify>, counters: Rc<ExchangeCounters>) -> Self {
        let born = Instant::now();
        Self {
            born,
            retire_at: born + age,
            state: Cell::new(State::Open),
            asked: Cell::new(0),
            last_asked: Cell::new(born),
            last_heard: Cell::new(None),
            silent_since: Cell::new(None),
            waiting: RefCell::default(),
            outgoing: RefCell::default(),
            to_write: Notify::new(),
            answered,
            drained: Notify::new(),
            limits,
            counters,
        }
    }

    /// Whether the connection may take questions, full or not.
    pub(super) fn is_open(&self) -> bool {
        let now = Instant::now();
        // One that has never said anything is not asked for ever either.
        let mute = self.silent_since.get().is_some_and(|since| now - since > self.limits.connect + self.limits.silence);
        self.state.get() == State::Open && now < self.retire_at && !mute
    }

    /// Whether one more question may be under way.
    pub(super) fn has_room(&self) -> bool {
        let waiting = self.waiting.borrow();
        // Questions given up keep their IDs, but not their places: names nobody answers must not starve the others.
        let live = waiting.values().filter(|question| !question.asker.is_closed()).count();
        live < self.limits.in_flight && waiting.len() < IDS_KEPT
    }

    /// Asks under an ID of its own. Only where [`has_room`](Self::has_room).
    ///
    /// # Errors
    /// [`StreamError::Busy`] if the server takes nothing and too much is buffered.
    pub(super) fn ask(self: &Rc<Self>, asked: &Asked<'_>, dice: &mut impl Rng) -> Result<Ticket, StreamError> {
        let length = u16::try_from(asked.query.len()).expect("a query we composed is no longer than a message may be");
        let mut outgoing = self.outgoing.borrow_mut();
        if outgoing.len() + 2 + asked.query.len() > self.limits.buffered {
            return Err(StreamError::Busy);
        }
        let mut waiting = self.waiting.borrow_mut();
        let id = loop {
            let id = dice.next_u32() as u16;
            if !waiting.contains_key(&id) {
                break id;
            }
        };
        let mut query = BytesMut::with_capacity(asked.query.len());
        query.extend_from_slice(&id.to_be_bytes());
        query.extend_from_slice(&asked.query[2..]);
        outgoing.extend_from_slice(&length.to_be_bytes());
        outgoing.extend_from_slice(&query);
        let (asker, answer) = oneshot::channel();
        waiting.insert(id, Waiting { query: query.freeze(), asker });
        self.to_write.notify_one();

        let now = Instant::now();
        let before = match (self.last_heard.get(), self.asked.get()) {
            (Some(_), _) => Before::Answers,
            (None, 0) => Before::Nothing,
            (None, _) => Before::Questions,
        };
        self.asked.set(self.asked.get() + 1);
        self.last_asked.set(now);
        self.silent_since.set(self.silent_since.get().or(Some(now)));
        Ok(Ticket { connection: Rc::clone(self), answer, asked_at: now, before })
    }

    /// Waits until the server has said nothing at all for the time allowed since `asked_at`.
    pub(super) async fn silence(&self, asked_at: Instant) {
        loop {
            let since = self.last_heard.get().map_or(asked_at, |heard| heard.max(asked_at));
            let until = since + self.limits.silence;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// Takes no new questions until the server says something.
    pub(super) fn suspect(&self) {
        if self.state.get() == State::Open {
            self.state.set(State::Suspect);
        }
    }

    /// Whether the server has said anything on this connection.
    pub(super) fn has_heard(&self) -> bool {
        self.last_heard.get().is_some()
    }

    /// Tells whoever still waits that the connection has ended. Nothing happens the second time.
    pub(super) fn end(&self, why: &StreamError) {
        self.state.set(State::Ended);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for (_, question) in waiting {
            // The asker may have left.
            let _ = question.asker.send(Err(why.clone()));
        }
        self.answered.notify_waiters();
    }

    /// Establishes the connection and keeps it going until it ends; returns why it has.
    pub(super) async fn run(&self, server: SocketAddr, tls: Option<&Tls>) -> StreamError {
        let connected = match tls {
            None => tcp(server, self.limits.connect).await.map(Wire::Tcp),
            Some(tls) => handshake(server, tls, self.limits.connect).await.map(|stream| Wire::Tls(Box::new(stream))),
        };
        let counter = if connected.is_ok() { &self.counters.tcp_connects } else { &self.counters.tcp_connect_failures };
        counter.set(counter.get() + 1);
        match connected {
            Ok(Wire::Tcp(stream)) => self.converse(stream).await,
            Ok(Wire::Tls(stream)) => self.converse(*stream).await,
            Err(error) => error,
        }
    }

    async fn converse(&self, stream: impl AsyncRead + AsyncWrite) -> StreamError {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let why = tokio::select! {
            why = self.read(&mut reader) => why,
            why = self.write(&mut writer) => why,
            () = self.served() => StreamError::Closed,
        };
        // Whether the server hears it makes no difference to us.
        let _ = timeout(FAREWELL, writer.shutdown()).await;
        why
    }

    async fn read(&self, reader: &mut (impl AsyncRead + Unpin)) -> StreamError {
        let mut incoming = BytesMut::with_capacity(READ);
        loop {
            loop {
                match cut_frame(&mut incoming) {
                    Ok(Some(message)) => self.on_message(&message),
                    Ok(None) => break,
                    Err(error) => {
                        self.counters.bad_frames.set(self.counters.bad_frames.get() + 1);
                        return error;
                    }
                }
            }
            if incoming.is_empty() && incoming.capacity() > 4 * READ {
                incoming = BytesMut::new();
            }
            incoming.reserve(READ);
            match reader.read_buf(&mut incoming).await {
                Ok(0) | Err(_) => return StreamError::Closed,
                Ok(_) => {}
            }
        }
    }

    async fn write(&self, writer: &mut (impl AsyncWrite + Unpin)) -> StreamError {
        loop {
            let octets = std::mem::take(&mut *self.outgoing.borrow_mut());
            if octets.is_empty() {
                self.to_write.notified().await;
                continue;
            }
            if writer.write_all(&octets).await.is_err() || writer.flush().await.is_err() {
                return StreamError::Closed;
            }
        }
    }

    /// Waits until the connection is of no more use: idle for too long, or drained and not to be asked again.
    async fn served(&self) {
        loop {
            let quiet_since = self.last_heard.get().map_or(self.last_asked.get(), |at| at.max(self.last_asked.get()));
            let close_at = quiet_since + self.limits.idle;
            let now = Instant::now();
            let retired = now >= self.retire_at;
            if now >= close_at || ((retired || self.state.get() == State::Suspect) && self.is_drained()) {
                return;
            }
            let next = if retired { close_at } else { close_at.min(self.retire_at) };
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.drained.notified() => {}
            }
        }
    }

    fn is_drained(&self) -> bool {
        self.waiting.borrow().values().all(|question| question.asker.is_closed())
    }

    fn on_message(&self, message: &[u8]) {
        self.last_heard.set(Some(Instant::now()));
        self.silent_since.set(None);
        if self.state.get() == State::Suspect {
            self.state.set(State::Open);
        }
        let id = u16::from_be_bytes([message[0], message[1]]);
        let Some(question) = self.waiting.borrow_mut().remove(&id) else {
            self.counters.unknown_ids.set(self.counters.unknown_ids.get() + 1);
            return;
        };
        // Letter case guards against guessing, and nobody guesses here; some servers do not keep it (P06).
        let asked = Asked { query: &question.query, transport: Transport::Tcp, exact_case: false };
        match Response::parse_for(message, &asked) {
            // The late answer to an earlier question under the same ID, or a broken server: the right one may come.
            Err(unfit) if unfit.is_near_miss() => {
                self.counters.near_misses.set(self.counters.near_misses.get() + 1);
                self.waiting.borrow_mut().insert(id, question);
            }
            Err(unfit) => {
                self.counters.malformed.set(self.counters.malformed.get() + 1);
                let _ = question.asker.send(Err(StreamError::Unfit(unfit)));
            }
            Ok(response) => {
                let _ = question.asker.send(Ok(response));
            }
        }
        self.answered.notify_one();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Its task looks again whether anybody is left, once `answer` is gone as well.
        self.connection.drained.notify_one();
    }
}

/// Takes the first whole message off `incoming`; `None`: there is none yet.
///
/// # Errors
/// [`StreamError::Frame`]: a length in which no header fits. Where the next message starts cannot be trusted then.
fn cut_frame(incoming: &mut BytesMut) -> Result<Option<BytesMut>, StreamError> {
    let Some(length) = incoming.first_chunk::<2>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*length));
    debug_assert!(length <= MESSAGE_MAX);
    if length < HEADER {
        return Err(StreamError::Frame);
    }
    if incoming.len() < 2 + length {
        return Ok(None);
    }
    let mut frame = incoming.split_to(2 + length);
    Ok(Some(frame.split_off(2)))
}

enum Wire {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

async fn tcp(server: SocketAddr, within: Duration) -> Result<TcpStream, StreamError> {
    let connected = match timeout(within, TcpStream::connect(server)).await {
        Ok(Ok(stream)) => stream.set_nodelay(true).map(|()| stream),
        Ok(Err(error)) => Err(error),
        Err(_elapsed) => return Err(StreamError::ConnectTimedOut),
    };
    connected.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => StreamError::Refused,
        kind => StreamError::Unreachable(kind),
    })
}

async fn handshake(server: SocketAddr, tls: &Tls, within: Duration) -> Result<TlsStream<TcpStream>, StreamError> {
    let stream = tcp(server, within).await?;
    let connector = TlsConnector::from(tls.config.clone());
    match timeout(within, connector.connect(tls.name.clone(), stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            // Once per question at most, so not louder; the suspect's probes are logged.
            tracing::debug!(%server, %error, "TLS handshake failed");
            Err(StreamError::Handshake)
        }
        Err(_elapsed) => Err(StreamError::ConnectTimedOut),
    }
}

#[cfg(test)]
mod tests;
