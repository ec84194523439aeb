//! Leases: an address is ours while its set element lives, and only we renew it.

use std::net::IpAddr;
use std::time::Duration;

use super::expression::octets;
use super::{Batch, Family, HOST, LEASED4, LEASED6, PODS};

/// How a lease is renewed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Renewal {
    /// The element gets more time (Linux 6.12). Elements not named are left to expire.
    InPlace,
    /// Every element is deleted and those named are added, in the same transaction.
    Anew,
}

/// Leases `addresses` for `timeout` in the tables named ([`PODS`], [`HOST`]), which must exist.
///
/// With [`Renewal::Anew`] the addresses named are leased afterwards and no others.
pub fn lease(tables: &[&str], addresses: &[IpAddr], timeout: Duration, renewal: Renewal) -> Batch {
    let mut batch = match renewal {
        Renewal::InPlace => Batch::new(),
        Renewal::Anew => withdraw(tables),
    };
    for table in tables {
        for (set, v4) in [(LEASED4, true), (LEASED6, false)] {
            let keys: Vec<Vec<u8>> =
                addresses.iter().filter(|address| address.is_ipv4() == v4).map(|address| octets(*address)).collect();
            if !keys.is_empty() {
                batch.elements((Family::Inet, table), set, &keys, Some(timeout));
            }
        }
    }
    batch
}

/// Ends every lease in the tables named, at once and in one transaction. Connections that are remembered stay with us.
pub fn withdraw(tables: &[&str]) -> Batch {
    debug_assert!(tables.iter().all(|table| [PODS, HOST].contains(table)), "{tables:?}");
    let mut batch = Batch::new();
    for table in tables {
        for set in [LEASED4, LEASED6] {
            batch.flush_set(Family::Inet, table, set);
        }
    }
    batch
}
