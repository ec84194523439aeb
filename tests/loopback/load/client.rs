//! A client that asks at a given rate and checks every answer by its content.
//!
//! It never sends a question twice: an answer that does not come within [`PATIENCE`] is lost. If the machine cannot
//! keep up, it asks more slowly (at most [`WINDOW`] questions are open on a socket) and loses nothing by that.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::oracle;

/// Questions open at a time on one socket.
const WINDOW: usize = 256;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Sockets, each with a thread: other source ports reach other workers.
const SOCKETS: u64 = 4;

/// What became of the questions.
#[derive(Debug, Default)]
pub struct Outcome {
    pub right: u64,
    pub lost: u64,
    /// What was wrong with the wrong ones; the first few.
    pub wrong: Vec<String>,
    pub took: Duration,
}

/// Asks the questions with these numbers, `rate` a second over all sockets.
pub fn ask(server: SocketAddr, numbers: Range<u64>, rate: u64) -> Outcome {
    let start = Instant::now();
    let threads: Vec<_> = (0..SOCKETS)
        .map(|share| {
            let mine = numbers.clone().skip(share as usize).step_by(SOCKETS as usize);
            thread::spawn(move || ask_share(server, mine, Duration::from_secs(SOCKETS) / rate as u32))
        })
        .collect();
    let mut sum = Outcome::default();
    for thread in threads {
        let part = thread.join().expect("a load thread ends");
        sum.right += part.right;
        sum.lost += part.lost;
        sum.wrong.extend(part.wrong);
    }
    sum.took = start.elapsed();
    sum
}

/// A question that waits for its answer.
struct Open {
    query: Vec<u8>,
    sent: Instant,
}

fn ask_share(server: SocketAddr, numbers: impl Iterator<Item = u64>, pace: Duration) -> Outcome {
    let socket = UdpSocket::bind((server.ip(), 0)).expect("loopback has free ports");
    socket.connect(server).expect("a loopback address can be connected");
    SockRef::from(&socket).set_recv_buffer_size(4 << 20).expect("a large buffer is allowed");
    let mut outcome = Outcome::default();
    let mut open: HashMap<u16, Open> = HashMap::with_capacity(WINDOW);
    let mut numbers = numbers.peekable();
    let (mut id, mut due) = (0_u16, Instant::now());
    let mut buffer = [0; 1500];
    while numbers.peek().is_some() || !open.is_empty() {
        while open.len() < WINDOW && Instant::now() >= due {
            let Some(number) = numbers.next() else { break };
            // IDs go round; one still open keeps its place.
            while open.contains_key(&id) {
                id = id.wrapping_add(1);
            }
            let query = oracle::query(id, &oracle::question(number));
            socket.send(&query).expect("the agent listens");
            open.insert(id, Open { query, sent: Instant::now() });
            id = id.wrapping_add(1);
            due += pace;
        }
        let pause = if numbers.peek().is_some() && open.len() < WINDOW {
            due.saturating_duration_since(Instant::now()).max(Duration::from_micros(50))
        } else {
            // A full window: the rate is what the other side can do.
            due = due.max(Instant::now());
            Duration::from_millis(100)
        };
        socket.set_read_timeout(Some(pause)).expect("a pause is above zero");
        if let Ok(length) = socket.recv(&mut buffer) {
            let answer = &buffer[..length];
            let id = u16::from_be_bytes([answer[0], answer[1]]);
            match open.remove(&id).map(|asked| oracle::check(&asked.query, answer)) {
                Some(Ok(())) => outcome.right += 1,
                Some(Err(what)) => outcome.wrong.push(what),
                None => outcome.wrong.push(format!("an answer nobody waits for: {answer:02x?}")),
            }
        } else if pause >= Duration::from_millis(100) {
            let before = open.len();
            open.retain(|_, asked| asked.sent.elapsed() < PATIENCE);
            outcome.lost += (before - open.len()) as u64;
        }
    }
    outcome
}
