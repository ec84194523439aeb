//! Links, addresses and routes of the demo's namespaces, over netlink: no program but the kernel is needed.

use std::fmt::Display;
use std::net::Ipv4Addr;

use futures_util::TryStreamExt;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::namespace::Namespace;

/// Length of the prefix of each cable's two ends.
const PREFIX: u8 = 24;

/// One end of a cable.
#[derive(Clone, Copy)]
pub(super) struct End<'a> {
    pub(super) of: &'a Namespace,
    /// The link's name; at most 15 octets, on both sides of the cable another.
    pub(super) link: &'a str,
    pub(super) address: Ipv4Addr,
}

/// Lays a cable from `near` to `far`, whose way to everywhere else it becomes.
///
/// # Errors
/// The step that the kernel refused, in words.
pub(super) fn lay(near: End<'_>, far: End<'_>) -> Result<(), String> {
    let descriptor = far.of.descriptor();
    inside(near.of, async |netlink| {
        let cable = LinkVeth::new(near.link, far.link).build();
        said("make a veth pair", netlink.link().add(cable).execute().await)?;
        let over = LinkUnspec::new_with_name(far.link).setns_by_fd(descriptor).build();
        said("move a link into a namespace", netlink.link().set(over).execute().await)?;
        dress(&netlink, near.link, &[near.address]).await
    })?;
    inside(far.of, async |netlink| {
        dress(&netlink, far.link, &[far.address]).await?;
        let out = RouteMessageBuilder::<Ipv4Addr>::new().gateway(near.address).build();
        said("add a default route", netlink.route().add(out).execute().await)
    })
}

/// Raises the loopback of `namespace` and puts `addresses` on it.
///
/// # Errors
/// The step that the kernel refused, in words.
pub(super) fn raise_loopback(namespace: &Namespace, addresses: &[Ipv4Addr]) -> Result<(), String> {
    inside(namespace, async |netlink| dress(&netlink, "lo", addresses).await)
}

/// Puts `addresses` on a link and sets it up.
async fn dress(netlink: &Handle, link: &str, addresses: &[Ipv4Addr]) -> Result<(), String> {
    let found = netlink.link().get().match_name(link.to_owned()).execute().try_next().await;
    let index = said("find a link", found)?.ok_or_else(|| format!("could not find the link {link}"))?.header.index;
    for address in addresses {
        let prefix = if link == "lo" { 32 } else { PREFIX };
        said("add an address", netlink.address().add(index, (*address).into(), prefix).execute().await)?;
    }
    let up = LinkUnspec::new_with_index(index).up().build();
    said("set a link up", netlink.link().set(up).execute().await)
}

/// Talks to the kernel inside `namespace`.
fn inside(namespace: &Namespace, work: impl AsyncFnOnce(Handle) -> Result<(), String> + Send) -> Result<(), String> {
    namespace.run(move || {
        let runtime = said("make a runtime", tokio::runtime::Builder::new_current_thread().enable_all().build())?;
        runtime.block_on(async {
            let (connection, netlink, _) = said("open a netlink socket", rtnetlink::new_connection())?;
            tokio::spawn(connection);
            work(netlink).await
        })
    })
}

/// The value, or in words which step failed.
fn said<T, E: Display>(step: &str, outcome: Result<T, E>) -> Result<T, String> {
    outcome.map_err(|error| format!("could not {step}: {error}"))
}
