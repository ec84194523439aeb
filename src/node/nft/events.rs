//! What others do to our rules: the kernel tells everybody of every change.
//!
//! The promise: our own changes are not reported, others' only where they concern us, once for each transaction. If the
//! kernel had more to tell than the socket holds, that is reported too: then observe.
//!
//! Read first: netlink(7) (`ENOBUFS`), Linux `nf_tables.h` (`NFTA_GEN_*`).

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};

use super::attributes::{find, number, text};
use super::batch::message;
use super::found::comment;
use super::ruleset::OURS;
use super::socket::Received;
use super::table::MARK;
use super::{Family, Nft, filter};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// Room for one read.
const PART: usize = 64 * 1024;

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// Somebody changed a table of ours: the name and the number of the process, as the kernel gives them.
    Ours {
        /// Such as `nft (1234)`.
        by: String,
    },
    /// Somebody changed `INPUT` or `OUTPUT` of the host's firewall, or took our accepts out of it.
    Filter {
        /// Such as `iptables-restor (1234)`.
        by: String,
    },
    /// More happened than we were told.
    Overrun,
}

/// The stream of changes.
pub struct Events {
    socket: TokioSocket,
    own: u32,
    buffer: Vec<u8>,
    /// What the transaction being reported has touched so far.
    ours: bool,
    filter: bool,
    /// What is to be handed out before more is read.
    ready: Vec<Change>,
}

impl Events {
    /// Listens from now on; what comes through `nft` is our own and not reported.
    ///
    /// # Errors
    ///
    /// Where the kernel has no netfilter netlink.
    pub fn open(nft: &Nft) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_mut().add_membership(GROUP)?;
        Ok(Self {
            socket,
            own: nft.port(),
            buffer: Vec::with_capacity(PART),
            ours: false,
            filter: false,
            ready: Vec::new(),
        })
    }

    /// Waits for the next change that concerns us. Nothing is lost if the wait is given up.
    ///
    /// # Errors
    ///
    /// The socket's, other than an overrun.
    pub async fn changed(&mut self) -> io::Result<Change> {
        loop {
            if let Some(change) = self.ready.pop() {
                return Ok(change);
            }
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer).await {
                Ok(()) => self.read(),
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {
                    self.forget();
                    return Ok(Change::Overrun);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Throws away what is waiting. Until the queue has been empty once the kernel adds nothing to it, and does not say so
    /// again; so an overrun may be reported only after that.
    fn forget(&mut self) {
        (self.ours, self.filter) = (false, false);
        loop {
            self.buffer.clear();
            match self.socket.socket_ref().recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
                // nothing left; any other error comes again when it is waited for
                Err(_) => return,
            }
        }
    }

    /// Notes what was received; the end of a transaction makes it ready.
    fn read(&mut self) {
        for received in Received::all(&self.buffer) {
            if received.kind >> 8 != SUBSYSTEM || received.port == self.own {
                continue;
            }
            let kind = received.kind & 0xFF;
            let (family, body) = received.body();
            if kind == message::NEW_GENERATION {
                let process = find(body, 2).and_then(number).unwrap_or(0);
                let by = format!("{} ({process})", find(body, 3).map(text).unwrap_or_default());
                if std::mem::take(&mut self.filter) {
                    self.ready.push(Change::Filter { by: by.clone() });
                }
                if std::mem::take(&mut self.ours) {
                    self.ready.push(Change::Ours { by });
                }
                continue;
            }
            let Some(family) = Family::from_number(family) else { continue };
            // every object of nf_tables names its table in attribute 1
            let table = find(body, 1).map(text).unwrap_or_default();
            self.ours |= OURS.contains(&(family, table.as_str()));
            self.filter |= [Family::Ip, Family::Ip6].contains(&family)
                && table == filter::TABLE
                && concerns_us_in_filter(kind, body);
        }
    }
}

/// Whether a change to the host's firewall may take our accepts away, or make them necessary.
fn concerns_us_in_filter(kind: u16, body: &[u8]) -> bool {
    match kind {
        message::DELETE_TABLE => true,
        message::NEW_CHAIN | message::DELETE_CHAIN => {
            find(body, 3).map(text).is_some_and(|name| filter::CHAINS.contains(&name.as_str()))
        }
        message::DELETE_RULE => find(body, 7).and_then(comment).is_some_and(|comment| comment.starts_with(MARK)),
        _ => false,
    }
}
