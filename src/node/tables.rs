//! Our tables on the host, and whose they are to write: one instance at a time gives the traffic and takes it back.
//!
//! Two instances share the port, the addresses and the table that outlives them. Packets go to the elder's sockets as
//! long as there are any, whoever leases; so only the elder may lease, or what its queues hold when it closes is lost.
//! The kernel knows who that is: the table [`HOST`] belongs to one netlink socket and goes with it.
//!
//! ```text
//!               HOST is another's                      HOST is free: made, whatever was leased is given back
//!   start ─────► Waiting ───────────────────────────────► Holding ◄─────────────┐
//!                writes nothing; probes its own workers    │ probes the addresses │ probes fail: given back at once
//!                                                          └─ they answer ─► leasing, renewed; probes too old: it lapses
//!   SIGTERM of the holder: leases given back ─► sockets answer what is left, close ─► HOST deleted: the news the next waits for
//!   its death: HOST is gone without news; the next looks with every tick. What it had leased reaches the next one's sockets,
//!   if they are bound, or the cluster DNS; a lease nobody renews lapses
//!   its hang: HOST stays its own and nobody renews; the cluster DNS answers until it wakes up or dies
//!   death of the one who waits: it had written nothing
//! ```
//! Where the kernel knows no owners (before Linux 5.12) each instance leases for itself. A successor then takes the
//! elder's farewell for damage and leases again, so that up to a queue of questions is lost when the elder closes.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::nft::{self, Batch, Family, Found, HOST, Nft, Renewal, Rules, Ruleset};

/// Our tables.
pub struct Tables {
    nft: Nft,
    pub rules: Rules,
    renewal: Renewal,
    /// Those that were there at the last look.
    pub seen: Vec<TableSeen>,
    /// What was not as we had made it when they were last mended, in words.
    pub differed: String,
}

/// A table of ours as the kernel has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TableSeen {
    /// Family and name.
    pub name: String,
    pub rules: usize,
    /// Addresses under lease in it.
    pub leased: Vec<IpAddr>,
}

/// What is to become of the lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lease<'a> {
    /// Given back at once.
    GiveBack,
    /// Not touched.
    LetLapse,
    /// These addresses are leased for so long from here on.
    Renew(&'a [IpAddr], Duration),
}

/// What a look at the tables has come to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tended {
    /// They are ours, and as they are to be; whether anything is leased.
    Holding { mended: Mended, leased: bool },
    /// They are another instance's. Nothing was written.
    Waiting {
        /// The netlink port of its socket: for the first socket of a process its PID.
        holder: u32,
    },
}

/// Whether the tables had to be mended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mended {
    No,
    Yes,
}

impl Tables {
    pub fn new(nft: Nft, rules: Rules, renewal: Renewal) -> Self {
        Self { nft, rules, renewal, seen: Vec::new(), differed: String::new() }
    }

    /// Changes by others, as they happen.
    ///
    /// # Errors
    /// Where the kernel has no netfilter netlink.
    pub fn events(&self) -> io::Result<nft::Events> {
        nft::Events::open(&self.nft)
    }

    /// Writes what differs from the rules, and the lease with it: one transaction, never a moment without. Nothing is written
    /// where another instance holds the traffic.
    ///
    /// `held`: whether anything was leased the last time.
    ///
    /// # Errors
    /// What the kernel refuses, in one line.
    pub async fn tend(&mut self, lease: Lease<'_>, held: bool) -> Result<Tended, String> {
        let mut found = self.observe().await?;
        loop {
            self.seen = TableSeen::all(&found);
            if let Some(holder) = holder(&found) {
                return Ok(Tended::Waiting { holder });
            }
            let (batch, mended) = self.changes(&found, lease, held);
            if mended == Mended::Yes {
                self.differed = self.differences(&found);
            }
            let leased = match lease {
                Lease::GiveBack => false,
                Lease::LetLapse => mended == Mended::No && !found.elements.is_empty(),
                Lease::Renew(..) => true,
            };
            let Err(error) = self.nft.commit(&batch).await else { return Ok(Tended::Holding { mended, leased }) };
            found = self.observe().await?;
            // Another instance that starts at the same time may have been faster.
            if holder(&found).is_none() {
                return Err(error.to_string());
            }
        }
    }

    /// What the rules find to mend, in words.
    fn differences(&self, found: &Found) -> String {
        match Ruleset::new(&self.rules).differences(found).as_slice() {
            [] => "the accepts in the host's filter were gone".to_owned(),
            differences => differences.join("; "),
        }
    }

    fn changes(&self, found: &Found, lease: Lease<'_>, held: bool) -> (Batch, Mended) {
        let ruleset = Ruleset::new(&self.rules);
        let repair = ruleset.repair(found).then(nft::accept_in_filter(found, &self.rules));
        let mended = if repair.is_empty() { Mended::No } else { Mended::Yes };
        let leasable = ruleset.leasable(found);
        let renewal = if held && mended == Mended::No { self.renewal } else { Renewal::Anew };
        let batch = match lease {
            Lease::GiveBack if !found.elements.is_empty() => repair.then(nft::withdraw(&leasable)),
            Lease::GiveBack | Lease::LetLapse => repair,
            Lease::Renew(addresses, time) => repair.then(nft::lease(&leasable, addresses, time, renewal)),
        };
        (batch, mended)
    }

    /// Writes what differs from the rules, where they are ours. A lease that a replaced table loses is back with the next
    /// renewal.
    ///
    /// # Errors
    /// What the kernel refuses, in one line.
    pub async fn mend(&mut self) -> Result<(), String> {
        let found = self.observe().await?;
        if holder(&found).is_some() {
            return Ok(());
        }
        let batch = Ruleset::new(&self.rules).repair(&found).then(nft::accept_in_filter(&found, &self.rules));
        self.commit(&batch).await
    }

    /// Gives the traffic back, where it is ours to give.
    ///
    /// # Errors
    /// What the kernel refuses, in one line.
    pub async fn give_back(&mut self) -> Result<(), String> {
        let found = self.observe().await?;
        if holder(&found).is_some() {
            return Ok(());
        }
        let leasable = Ruleset::new(&self.rules).leasable(&found);
        self.commit(&nft::withdraw(&leasable)).await
    }

    /// Lets the next instance have the traffic. The kernel would do it when our socket closes, but tell nobody.
    ///
    /// # Errors
    /// What the kernel refuses, in one line.
    pub async fn leave(&mut self) -> Result<(), String> {
        let found = self.observe().await?;
        let mut batch = Batch::new();
        if owner(&found) == Some(found.port) {
            batch.delete_table(Family::Inet, HOST);
        }
        self.commit(&batch).await
    }

    async fn observe(&mut self) -> Result<Found, String> {
        self.nft.observe().await.map_err(|error| error.to_string())
    }

    async fn commit(&mut self, batch: &Batch) -> Result<(), String> {
        self.nft.commit(batch).await.map_err(|error| error.to_string())
    }
}

// === impl TableSeen ===

impl TableSeen {
    fn all(found: &Found) -> Vec<Self> {
        let seen = found.tables.iter().map(|table| {
            let rules = found.rules.iter().filter(|it| it.family == table.family && it.table == table.name).count();
            // The ARP table has the name of another, and no leases.
            let leased = if table.family == Family::Arp { Vec::new() } else { found.leased(&table.name) };
            Self { name: format!("{} {}", table.family, table.name), rules, leased }
        });
        seen.collect()
    }
}

/// The netlink port of the other instance that holds the traffic, if one does.
fn holder(found: &Found) -> Option<u32> {
    owner(found).filter(|owner| *owner != found.port)
}

/// The netlink port of whoever owns [`HOST`].
fn owner(found: &Found) -> Option<u32> {
    let host = found.tables.iter().find(|table| (table.family, &*table.name) == (Family::Inet, HOST))?;
    host.owner
}
