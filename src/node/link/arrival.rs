//! How an IPv6 address gets there without a moment in which packets to it are lost.
//!
//! The kernel acknowledges a new IPv6 address before packets to it are local: the route to it is put in by a worker of the
//! kernel's, some milliseconds later, even without duplicate address detection. Meanwhile it is chosen as a source already:
//! who asked the cluster's DNS in between lost the answer. And a connected socket keeps the route it has, by an uplink, until
//! a route above it changes in the same table, which the local one is not: the node's own long-lived clients lost all their
//! answers from the first start on. (The prefix route that the kernel would put into the main table is there too early, leads
//! to nowhere until the local one is there, and stays for ever when an address with a lifetime goes.)
//!
//! ```text
//!  herald: local routes of our own, in the table of local routes and in the main one
//!          ─► the address ─► complete: the kernel's local route is there ─► dismiss: ours go
//! ```
//! IPv4 has none of this: its routes are there with the acknowledgement, and every socket looks again. An address that
//! somebody removes before its route is there never gets one, which is an error at once.

use std::net::{IpAddr, Ipv6Addr};

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use nix::errno::Errno;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::{MulticastGroup, RouteMessageBuilder};
use tokio::task::JoinHandle;

use super::message::address_of;
use super::{LinkError, Links, PATIENCE, PROTOCOL};

/// The kernel's numbers of the table of local routes, which is looked at first, and of the main one.
const TABLES: [u32; 2] = [255, 254];
/// Lifetime of our own routes in seconds, if we die before we can remove them.
const HERALD_LIFETIME: u32 = 30;

/// IPv6 addresses that are about to come, and the news of IPv6 routes.
pub(super) struct Arrivals {
    addresses: Vec<Ipv6Addr>,
    link: u32,
    messages: BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>,
    connection: JoinHandle<()>,
}

impl Arrivals {
    /// Makes packets to `addresses` local, which are to come on that link.
    pub(super) async fn herald(links: &Links, link: u32, addresses: Vec<Ipv6Addr>) -> Result<Self, LinkError> {
        // News first, so that none is missed.
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Ipv6Route, MulticastGroup::Ipv6Ifaddr])
                .map_err(|source| LinkError { step: "open a netlink socket for IPv6 routes".to_owned(), source })?;
        let messages = messages.map(|(message, _)| message).boxed();
        let arrivals = Self { addresses, link, messages, connection: tokio::spawn(connection) };
        for route in arrivals.routes() {
            let step = format!("put local routes on link {link}");
            // Whatever forbids it forbids the address too, and is told then.
            let _ = links.ask(step, links.handle.route().add(route).execute()).await;
        }
        Ok(arrivals)
    }

    /// Our own routes: local wherever one looks, whatever comes first.
    fn routes(&self) -> impl Iterator<Item = RouteMessage> + '_ {
        let places = self.addresses.iter().flat_map(|address| TABLES.map(|table| (*address, table)));
        places.map(|(address, table)| {
            RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(address, 128)
                .output_interface(self.link)
                .table_id(table)
                .kind(RouteType::Local)
                .protocol(RouteProtocol::Other(PROTOCOL))
                .expires(HERALD_LIFETIME)
                .build()
        })
    }

    /// Returns once the kernel's own routes to the addresses are there.
    pub(super) async fn complete(&mut self, links: &Links) -> Result<(), LinkError> {
        for address in self.addresses.clone() {
            self.of(address, links).await?;
        }
        Ok(())
    }

    /// Removes our own routes.
    pub(super) async fn dismiss(&self, links: &Links) {
        for route in self.routes() {
            // What cannot be removed has a lifetime.
            let _ = links.ask("remove our own routes", links.handle.route().del(route).execute()).await;
        }
    }

    /// Returns once the kernel's own route to `address` is there.
    ///
    /// # Errors
    /// If somebody has removed the address.
    async fn of(&mut self, address: Ipv6Addr, links: &Links) -> Result<(), LinkError> {
        let arrival = async {
            loop {
                if links.delivers(address).await? {
                    return Ok(());
                }
                // An overrun is a reason to look again, like the route itself.
                while let Some(message) = self.messages.next().await {
                    match message.payload {
                        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(it)) if is_the_kernels(&it) => break,
                        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(it))
                            if it.header.index == self.link && address_of(&it) == Some(IpAddr::V6(address)) =>
                        {
                            return Err(LinkError {
                                step: format!("keep {address}, which somebody removed as soon as it was there"),
                                source: Errno::EADDRNOTAVAIL.into(),
                            });
                        }
                        NetlinkPayload::InnerMessage(_) => {}
                        _ => break,
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, arrival).await.unwrap_or_else(|_| {
            Err(LinkError {
                step: format!("wait until packets to {address} are local (is the link up?)"),
                source: std::io::ErrorKind::TimedOut.into(),
            })
        })
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    /// Whether packets to `address` are local by the kernel's own doing, which comes before ours.
    async fn delivers(&self, address: Ipv6Addr) -> Result<bool, LinkError> {
        let request = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).build();
        let step = format!("ask for the route to {}", IpAddr::V6(address));
        match self.ask(step, self.handle.route().get(request).execute().try_collect::<Vec<_>>()).await {
            Ok(routes) => Ok(routes.iter().any(is_the_kernels)),
            Err(error) if error.is(Errno::ENETUNREACH) || error.is(Errno::EHOSTUNREACH) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether it is the local route of an address.
fn is_the_kernels(route: &RouteMessage) -> bool {
    let to_an_address = |it: &RouteAttribute| matches!(it, RouteAttribute::Destination(RouteAddress::Inet6(_)));
    let header = &route.header;
    header.kind == RouteType::Local
        && header.protocol == RouteProtocol::Kernel
        && route.attributes.iter().any(to_an_address)
}
