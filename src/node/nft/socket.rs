//! The socket to the kernel's `nf_tables`: one transaction at a time, every acknowledgement read.
//!
//! The kernel works while we send; its replies are there when `send` returns. Every wait has an end all the same.
//!
//! Read first: netlink(7), Linux `Documentation/userspace-api/netlink/intro.rst`.

use std::io;
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use tokio::time::timeout;

use super::attributes::Attributes;
use super::batch::{Batch, dump, message, request};
use super::ruleset::OURS;
use super::tracked::{Flow, GET_TRACKED, unless_untracked};
use super::{Family, Found, NftError, filter};

/// How long the kernel may take to answer. It answers at once; more is a fault worth reporting.
const PATIENCE: Duration = Duration::from_secs(5);
/// Room for one read: dumps come in parts of at most 32 KiB.
const PART: usize = 64 * 1024;
/// Receive buffer asked for: room for the acknowledgements of a batch.
const RECEIVE_BUFFER: i32 = 1 << 20;
/// Dumps that somebody's change cut across are begun again this often.
const TRIES: u32 = 8;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
const BOTH_HEADERS: usize = 20;

/// A netlink socket for `nf_tables`. The table [`HOST`](super::HOST) made through it is removed by the kernel when it is
/// dropped, however the process ends.
pub struct Nft {
    socket: TokioSocket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One message as received.
pub(crate) struct Received<'a> {
    /// Subsystem and message.
    pub(crate) kind: u16,
    flags: u16,
    sequence: u32,
    /// The port of whoever caused it.
    pub(crate) port: u32,
    /// What is behind `struct nlmsghdr`.
    rest: &'a [u8],
}

impl<'a> Received<'a> {
    /// The messages in what one read gave; ends at the first that is malformed.
    pub(crate) fn all(mut octets: &'a [u8]) -> impl Iterator<Item = Received<'a>> {
        std::iter::from_fn(move || {
            let word = |at: usize| Some(u32::from_ne_bytes(octets.get(at..at + 4)?.try_into().ok()?));
            let half = |at: usize| Some(u16::from_ne_bytes(octets.get(at..at + 2)?.try_into().ok()?));
            let length = word(0)? as usize;
            let received = Received {
                kind: half(4)?,
                flags: half(6)?,
                sequence: word(8)?,
                port: word(12)?,
                rest: octets.get(HEADER..length)?,
            };
            octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some(received)
        })
    }

    /// The family and the attributes of a message of `nf_tables`.
    pub(crate) fn body(&self) -> (u8, &'a [u8]) {
        let family = self.rest.first().copied().unwrap_or(0);
        (family, self.rest.get(BOTH_HEADERS - HEADER..).unwrap_or_default())
    }

    /// The verdict of an acknowledgement or of a dump's end.
    fn verdict(&self) -> Option<io::Result<()>> {
        let code = i32::from_ne_bytes(self.rest.get(..4).and_then(|code| code.try_into().ok()).unwrap_or([0; 4]));
        matches!(self.kind, NLMSG_ERROR | NLMSG_DONE).then(|| match code {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        })
    }
}

impl Nft {
    /// Opens a socket in the network namespace of this thread. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    ///
    /// `EPROTONOSUPPORT` where the kernel has no netfilter netlink at all.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        let inner = socket.socket_mut();
        let address = inner.bind_auto()?;
        // an error need not repeat the message it is about
        inner.set_cap_ack(true)?;
        inner.set_rx_buf_sz(RECEIVE_BUFFER)?;
        Ok(Self { socket, port: address.port_number(), sequence: 1, buffer: Vec::with_capacity(PART) })
    }

    /// The netlink port: changes with it are our own.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Carries the batch out: all of it or nothing. An empty one does nothing.
    ///
    /// # Errors
    ///
    /// The first step refused, with the kernel's reason; nothing was changed then. `ENOBUFS` and `TimedOut` leave the
    /// outcome open.
    pub async fn commit(&mut self, batch: &Batch) -> Result<(), NftError> {
        self.transact(batch, true).await
    }

    /// Has the batch checked by the kernel, without carrying it out.
    ///
    /// # Errors
    ///
    /// As [`Self::commit`].
    pub async fn check(&mut self, batch: &Batch) -> Result<(), NftError> {
        self.transact(batch, false).await
    }

    async fn transact(&mut self, batch: &Batch, end: bool) -> Result<(), NftError> {
        if batch.is_empty() {
            return Ok(());
        }
        let count = u32::try_from(batch.len()).expect("a batch is short");
        let begin = self.sequence;
        self.sequence = self.sequence.wrapping_add(count + 2);
        let whole = |source| NftError { step: "the transaction as a whole".to_owned(), source };
        self.send(&batch.encode(begin, end)).await.map_err(whole)?;
        let mut waiting = count;
        let mut refused: Option<(u32, io::Error)> = None;
        while waiting > 0 {
            let octets = self.receive().await.map_err(whole)?;
            for received in Received::all(octets) {
                // replies to what somebody stopped waiting for have older numbers
                let step = received.sequence.wrapping_sub(begin);
                let Some(verdict) = received.verdict().filter(|_| step <= count) else { continue };
                match verdict {
                    Err(source) if step == 0 => return Err(whole(source)),
                    Err(source) if refused.as_ref().is_none_or(|(first, _)| step < *first) => {
                        refused = Some((step, source));
                    }
                    _ => {}
                }
                waiting = waiting.saturating_sub(1);
            }
        }
        match refused {
            Some((step, source)) => Err(NftError { step: batch.step(step as usize - 1).to_owned(), source }),
            None => Ok(()),
        }
    }

    /// What is on the host in our tables and in the chains of its firewall that concern us.
    ///
    /// # Errors
    ///
    /// The kernel's reason and what was being listed.
    pub async fn observe(&mut self) -> Result<Found, NftError> {
        let mut tries = TRIES;
        loop {
            match self.look().await {
                // a table went while its contents were being listed
                Err(error) if error.source.kind() == io::ErrorKind::NotFound && tries > 0 => tries -= 1,
                outcome => return outcome,
            }
        }
    }

    async fn look(&mut self) -> Result<Found, NftError> {
        let none = Attributes::new();
        let mut found = Found { port: self.port, ..Found::default() };
        self.list("tables", message::GET_TABLE, 0, &none, &mut found).await?;
        found.tables.retain(|table| OURS.contains(&(table.family, &table.name)));
        for family in [Family::Inet, Family::Arp] {
            self.list("chains", message::GET_CHAIN, family.number(), &none, &mut found).await?;
        }
        found.chains.retain(|chain| OURS.contains(&(chain.family, &chain.table)));
        for family in [Family::Ip, Family::Ip6] {
            for chain in filter::CHAINS {
                self.look_at_filter(family, chain, &mut found).await?;
            }
        }
        for (family, name) in OURS {
            if found.tables.iter().any(|table| table.family == family && table.name == name) {
                let of_table = Attributes::new().text(1, name);
                self.list("rules", message::GET_RULE, family.number(), &of_table, &mut found).await?;
                self.list("sets", message::GET_SET, family.number(), &of_table, &mut found).await?;
            }
        }
        // what packets filled is not ours to judge, and may be much
        for set in found.sets.clone().into_iter().filter(|set| set.filled.is_none()) {
            let more = self.elements_of(set.family, &set.table, &set.name).await?;
            found.elements.extend(more.elements);
        }
        Ok(found)
    }

    /// What the kernel tracks, of both families; nothing where it tracks nothing at all.
    ///
    /// # Errors
    ///
    /// The kernel's reason.
    pub async fn tracked(&mut self) -> io::Result<Vec<Flow>> {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        self.send(&dump(GET_TRACKED, sequence)).await?;
        let mut flows = Vec::new();
        loop {
            let octets = self.receive().await?;
            for received in Received::all(octets).filter(|received| received.sequence == sequence) {
                match received.verdict() {
                    Some(Ok(())) => return Ok(flows),
                    Some(Err(error)) => return unless_untracked(error),
                    None => flows.extend(Flow::of(received.body().1)),
                }
            }
        }
    }

    /// The elements of one set; the rest of the answer is empty.
    pub(crate) async fn elements_of(&mut self, family: Family, table: &str, set: &str) -> Result<Found, NftError> {
        let mut found = Found::default();
        let of_set = Attributes::new().text(1, table).text(2, set);
        self.list("set elements", message::GET_ELEMENT, family.number(), &of_set, &mut found).await?;
        Ok(found)
    }

    /// A chain of the host's firewall and its rules, if it is there.
    async fn look_at_filter(&mut self, family: Family, chain: &str, found: &mut Found) -> Result<(), NftError> {
        let one = Attributes::new().text(1, filter::TABLE).text(3, chain);
        match self.ask(message::GET_CHAIN, NLM_F_ACK, family.number(), &one, found).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(NftError { step: format!("list chain {family} filter {chain}"), source }),
        }
        let of_chain = Attributes::new().text(1, filter::TABLE).text(2, chain);
        self.list("rules", message::GET_RULE, family.number(), &of_chain, found).await
    }

    /// One dump, begun again if somebody changed things meanwhile.
    async fn list(
        &mut self,
        what: &str,
        kind: u16,
        family: u8,
        filter: &Attributes,
        found: &mut Found,
    ) -> Result<(), NftError> {
        let failed = |source| NftError { step: format!("list {what}"), source };
        for _ in 0..TRIES {
            let mut part = Found::default();
            if self.ask(kind, NLM_F_DUMP, family, filter, &mut part).await.map_err(failed)? {
                found.tables.extend(part.tables);
                found.chains.extend(part.chains);
                found.rules.extend(part.rules);
                found.sets.extend(part.sets);
                found.elements.extend(part.elements);
                return Ok(());
            }
        }
        Err(failed(io::ErrorKind::Interrupted.into()))
    }

    /// Sends one request and adds what the answer says; `false`: the answer is not of one piece.
    async fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        filter: &Attributes,
        found: &mut Found,
    ) -> io::Result<bool> {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        self.send(&request(kind, flags, sequence, family, filter)).await?;
        let mut whole = true;
        loop {
            let octets = self.receive().await?;
            for received in Received::all(octets).filter(|received| received.sequence == sequence) {
                whole &= received.flags & NLM_F_DUMP_INTR == 0;
                if let Some(verdict) = received.verdict() {
                    return verdict.map(|()| whole);
                }
                let (family, body) = received.body();
                found.add(received.kind & 0xFF, family, body);
            }
        }
    }

    async fn send(&self, octets: &[u8]) -> io::Result<()> {
        let sent = timeout(PATIENCE, self.socket.send(octets)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if sent == octets.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    async fn receive(&mut self) -> io::Result<&[u8]> {
        self.buffer.clear();
        timeout(PATIENCE, self.socket.recv(&mut self.buffer)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        Ok(&self.buffer)
    }
}
