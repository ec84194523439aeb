//! What this kernel's `nf_tables` can do, found out by trying.
//!
//! A trial is a batch without an end: the kernel checks it and carries nothing out. Only the renewal of an element cannot
//! be tried so; it is done on a table made for it and removed at once.

use std::net::IpAddr;
use std::time::Duration;

use super::expression::{End, Transport, forget_flow, from_this_host, notrack, port, socket_bound};
use super::ruleset::{and, flows};
use super::table::{Chain, Hook, Kind, Rule, Set, Table};
use super::{Batch, FLOWS4, Family, LEASED4, Nft, NftError};

const TRIAL: &str = "nodens_trial";
const RAW: i32 = -300;

/// Something a kernel may lack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Feature {
    /// Tables for IPv4 and IPv6, sets with timeouts and such as packets fill (Linux 5.4), `notrack`, and the right to use
    /// them.
    Tables,
    /// `socket wildcard` (`nft_socket`; Linux 5.8).
    SocketMatch,
    /// Tables that go with their owner's socket (Linux 5.12).
    OwnerFlag,
    /// `fib` (`nft_fib_inet`), which the fallback needs for the host's own queries.
    Fib,
}

impl Nft {
    /// Whether the kernel can do that; the error says what it said.
    ///
    /// # Errors
    ///
    /// The kernel's reason: `EPERM` without `CAP_NET_ADMIN`, `EOPNOTSUPP` or `ENOENT` where something is missing.
    pub async fn can(&mut self, feature: Feature) -> Result<(), NftError> {
        self.check(&trial(feature)).await
    }

    /// Whether an element's lifetime can be renewed in place (Linux 6.12).
    ///
    /// # Errors
    ///
    /// If even the trial's table is refused.
    pub async fn renews_in_place(&mut self) -> Result<bool, NftError> {
        let short = Duration::from_secs(60);
        let address = IpAddr::from([192, 0, 2, 1]);
        let key = [super::expression::octets(address)];
        let place = (Family::Inet, TRIAL);
        let mut made = Batch::new();
        table(Vec::new()).replace(&mut made);
        made.elements(place, LEASED4, &key, Some(short));
        self.commit(&made).await?;
        let mut renewal = Batch::new();
        renewal.elements(place, LEASED4, &key, Some(short * 2));
        let renewed = self.commit(&renewal).await;
        let found = self.elements_of(Family::Inet, TRIAL, LEASED4).await;
        let mut removal = Batch::new();
        removal.delete_table(Family::Inet, TRIAL);
        self.commit(&removal).await?;
        renewed?;
        Ok(found?.elements.iter().any(|element| element.address == address && element.expires > short))
    }
}

fn table(rules: Vec<Rule>) -> Table {
    Table {
        family: Family::Inet,
        name: TRIAL,
        owner: false,
        sets: vec![Set { name: LEASED4, key: super::expression::Datatype::Ipv4, filled: None }, flows(true)],
        chains: vec![Chain::base("trial", Kind::Filter, Hook::Prerouting, RAW, rules)],
    }
}

fn trial(feature: Feature) -> Batch {
    let dns = || port(Transport::Udp, End::Destination, 53);
    let rule = match feature {
        Feature::Tables => and(forget_flow(true, FLOWS4), [notrack()]),
        Feature::OwnerFlag => and(dns(), [notrack()]),
        Feature::SocketMatch => and(and(dns(), socket_bound()), [notrack()]),
        Feature::Fib => and(dns(), from_this_host()),
    };
    let mut batch = Batch::new();
    let table = Table { owner: feature == Feature::OwnerFlag, ..table(vec![Rule::new("trial", rule)]) };
    table.replace(&mut batch);
    batch
}
