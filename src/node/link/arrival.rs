//! When an IPv6 address is really there.
//!
//! The kernel acknowledges a new IPv6 address before packets to it are local: the route to it is put in by a worker of the
//! kernel's, some milliseconds later, even without duplicate address detection. Whoever intercepts packets in between has
//! them forwarded to nowhere. So we wait for the route. (IPv4 routes are there with the acknowledgement.) An address that
//! somebody removes in between never gets one.

use std::net::{IpAddr, Ipv6Addr};

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use nix::errno::Errno;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{MulticastGroup, RouteMessageBuilder};
use tokio::task::JoinHandle;

use super::message::address_of;
use super::{LinkError, Links, PATIENCE};

/// News of IPv6 routes and addresses. Opened before the addresses are added, so that none is missed.
pub(super) struct Arrivals {
    messages: BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>,
    connection: JoinHandle<()>,
}

impl Arrivals {
    pub(super) fn open() -> Result<Self, LinkError> {
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Ipv6Route, MulticastGroup::Ipv6Ifaddr])
                .map_err(|source| LinkError { step: "open a netlink socket for IPv6 routes".to_owned(), source })?;
        Ok(Self { messages: messages.map(|(message, _)| message).boxed(), connection: tokio::spawn(connection) })
    }

    /// Returns once packets to `address`, just put on the link `index`, are local.
    ///
    /// # Errors
    /// If somebody has removed it.
    pub(super) async fn of(&mut self, address: Ipv6Addr, index: u32, links: &Links) -> Result<(), LinkError> {
        let arrival = async {
            loop {
                if links.delivers(address).await? {
                    return Ok(());
                }
                // An overrun is a reason to look again, like the route itself.
                while let Some(message) = self.messages.next().await {
                    match message.payload {
                        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(it)) if is_local(&it) => break,
                        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(it))
                            if it.header.index == index && address_of(&it) == Some(IpAddr::V6(address)) =>
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
    /// Whether packets to `address` are local.
    async fn delivers(&self, address: Ipv6Addr) -> Result<bool, LinkError> {
        let request = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).build();
        let step = format!("ask for the route to {}", IpAddr::V6(address));
        match self.ask(step, self.handle.route().get(request).execute().try_collect::<Vec<_>>()).await {
            Ok(routes) => Ok(routes.iter().any(is_local)),
            Err(error) if error.is(Errno::ENETUNREACH) || error.is(Errno::EHOSTUNREACH) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn is_local(route: &RouteMessage) -> bool {
    let to_an_address = |it: &RouteAttribute| matches!(it, RouteAttribute::Destination(RouteAddress::Inet6(_)));
    route.header.kind == RouteType::Local && route.attributes.iter().any(to_an_address)
}
