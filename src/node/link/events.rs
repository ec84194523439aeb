//! What happens to links, addresses and default routes, told by the kernel.
//!
//! A socket of its own: the kernel does not tell the asking socket what it asked for, so [`Links`](super::Links) would be
//! deaf to half of it. Our own changes arrive here like anybody's; the plane compares wish and state and finds nothing to do.

use std::net::IpAddr;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::AsyncSocket;
use tokio::task::JoinHandle;

use super::message::address_of;
use super::uplinks::is_default;
use super::{Link, LinkError};

/// Room for events we have not read yet, in bytes. A rolling update of a node's pods is some thousand messages of about
/// 1 KiB of kernel memory each; the kernel grants at most `net.core.rmem_max`.
const ROOM: usize = 1 << 20;

/// The stream of events. Lives on the tokio runtime it was opened on.
pub struct Events {
    messages: BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>,
    connection: JoinHandle<()>,
}

/// Something changed. `index` is the link's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// An address was added or its lifetime renewed.
    AddressAdded {
        index: u32,
        address: IpAddr,
    },
    /// An address was removed, or its lifetime is over.
    AddressRemoved {
        index: u32,
        address: IpAddr,
    },
    /// No more events will come, and a new subscription was refused: look at the state, and call again later.
    Closed,
    /// A default route came or went: ask for [`uplinks`](super::Links::uplinks) again.
    DefaultRoute,
    /// A link was made or changed.
    LinkChanged {
        index: u32,
        name: String,
    },
    LinkRemoved {
        index: u32,
        name: String,
    },
    /// The kernel had more to tell than there was room for (ENOBUFS): anything may have changed, look at the state.
    Overrun,
}

impl Events {
    /// Subscribes. Whatever changes from here on is told.
    ///
    /// # Errors
    /// If the kernel refuses a netlink socket.
    pub fn open() -> Result<Self, LinkError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (mut connection, _, messages) = rtnetlink::new_multicast_connection(&groups).map_err(|source| {
            LinkError { step: "open a netlink socket for events of links and addresses".to_owned(), source }
        })?;
        // With less room there are more overruns, and each is answered by a look at the state.
        let _ = connection.socket_mut().socket_mut().set_rx_buf_sz(ROOM);
        let messages = messages.map(|(message, _)| message).boxed();
        Ok(Self { messages, connection: tokio::spawn(connection) })
    }

    /// The next event. Cancel safe: an event not returned comes with the next call.
    ///
    /// After an [`Event::Overrun`] or an [`Event::Closed`] the state is to be looked at; what happens during that look is
    /// told by later events.
    pub async fn next(&mut self) -> Event {
        loop {
            let message = self.messages.next().await;
            match message.map(|it| event_of(it.payload)) {
                Some(Some(Event::Overrun)) | None => return self.subscribe_again(),
                Some(Some(event)) => return event,
                Some(None) => {}
            }
        }
    }

    /// Replaces the socket by a fresh one.
    ///
    /// The kernel says ENOBUFS once, ahead of what is still queued, and drops in silence until the queue is read to its end. A
    /// look at the state in between would miss what is dropped after it. A new subscription loses nothing from here on.
    fn subscribe_again(&mut self) -> Event {
        match Self::open() {
            Ok(fresh) => {
                *self = fresh;
                Event::Overrun
            }
            Err(_) => Event::Closed,
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What a message means to us; `None` if nothing.
fn event_of(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<Event> {
    let message = match payload {
        NetlinkPayload::Overrun(_) => return Some(Event::Overrun),
        NetlinkPayload::InnerMessage(message) => message,
        _ => return None,
    };
    Some(match message {
        RouteNetlinkMessage::NewAddress(it) => {
            Event::AddressAdded { index: it.header.index, address: address_of(&it)? }
        }
        RouteNetlinkMessage::DelAddress(it) => {
            Event::AddressRemoved { index: it.header.index, address: address_of(&it)? }
        }
        RouteNetlinkMessage::NewLink(it) => {
            let link = Link::of(&it);
            Event::LinkChanged { index: link.index, name: link.name }
        }
        // A bridge that loses a port says so with a DELLINK of its own family; the link itself lives on.
        RouteNetlinkMessage::DelLink(it) if it.header.interface_family == AddressFamily::Unspec => {
            let link = Link::of(&it);
            Event::LinkRemoved { index: link.index, name: link.name }
        }
        RouteNetlinkMessage::NewRoute(it) | RouteNetlinkMessage::DelRoute(it) if is_default(&it) => Event::DefaultRoute,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_buffer_is_an_overrun() {
        assert_eq!(event_of(NetlinkPayload::Overrun(Vec::new())), Some(Event::Overrun));
    }
}
