//! Which links lead out of the node.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};

use super::{LinkError, Links};

impl Links {
    /// Names of the links that hold a default route of either family, in any table, sorted.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn uplinks(&self) -> Result<Vec<String>, LinkError> {
        let mut indexes = BTreeSet::new();
        let (four, six) =
            (RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build());
        for request in [four, six] {
            let routes: Vec<RouteMessage> =
                self.ask("list the routes", self.handle.route().get(request).execute().try_collect()).await?;
            indexes.extend(routes.iter().filter(|it| is_default(it)).flat_map(exits));
        }
        let found = self.ask("list the links", self.handle.link().get().execute().try_collect::<Vec<_>>()).await?;
        let mut names: Vec<String> = found
            .iter()
            .map(super::Link::of)
            .filter(|it| indexes.contains(&it.index) && !it.loopback)
            .map(|it| it.name)
            .collect();
        names.sort_unstable();
        Ok(names)
    }
}

/// Whether it sends everything somewhere: `unreachable default` does not.
pub(super) fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
}

/// Indexes of the links it leaves by.
fn exits(route: &RouteMessage) -> Vec<u32> {
    let mut indexes = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => indexes.push(*index),
            RouteAttribute::MultiPath(hops) => indexes.extend(hops.iter().map(|it| it.interface_index)),
            _ => {}
        }
    }
    indexes
}
