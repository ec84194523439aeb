//! The link and the addresses that make packets for us local.
//!
//! An address is put there for minutes, not for ever: the kernel removes what nobody renews. What we put there is marked,
//! so that the next instance of us adopts it and never touches what somebody else put there. Nothing here decides *when*;
//! every function is one step of the plane's story and says in its error which step failed.
//!
//! ```text
//!  Links::ensure ──► Place ──► Links::put (adds, renews) ──► … ──► Links::sweep (what is no longer wanted)
//!  Events::next  ──► somebody changed something ──► Links::observe ──► the plane compares
//! ```
//!
//! # Whose address is it?
//!
//! 1. `IFA_PROTO` (Linux 5.18, both families) says who put an address there; ours is [`PROTOCOL`]. `ip addr show proto 53`
//!    lists them.
//! 2. Older kernels drop that attribute without a word. IPv4 addresses carry the label `<link>:nodens` besides, if that fits
//!    into 15 octets; where it does not, the link is one of our own making and nothing else is on it with a lifetime.
//! 3. IPv6 has no labels: a /128 with a finite lifetime, without duplicate address detection and without prefix route, on the
//!    loopback or on a link of our making, is ours.
//!
//! A link of our making carries the alias [`ALIAS`].
//!
//! Read first: rtnetlink(7), `Documentation/networking/ip-sysctl.rst` of the kernel; RFC 4862 section 5.5.4 for lifetimes.

mod arrival;
mod events;
mod message;
mod seen;
mod uplinks;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use futures_util::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec};
use tokio::task::JoinHandle;

use arrival::Arrivals;
pub use events::{Event, Events};
pub use seen::{Held, Link};

/// The alias of links we made. `ip link show` prints it.
pub const ALIAS: &str = "nodens";
/// The value of `IFA_PROTO` on addresses we put there. Values up to 3 belong to the kernel; DNS has port 53.
pub const PROTOCOL: u8 = 53;
/// The link that is always there.
const LOOPBACK: &str = "lo";
/// Longest wait for the kernel's answer. It answers within the system call; this bounds a reply lost to a full buffer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A conversation with the kernel about links and addresses. Lives on the tokio runtime it was opened on.
pub struct Links {
    handle: Handle,
    connection: JoinHandle<()>,
    /// What kind of link we make: `dummy`, but for tests on kernels without it.
    kind: InfoKind,
}

impl Links {
    /// Opens the conversation.
    ///
    /// # Errors
    /// If the kernel refuses a netlink socket.
    pub fn open() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| LinkError { step: "open a netlink socket for links and addresses".to_owned(), source })?;
        Ok(Self { handle, connection: tokio::spawn(connection), kind: InfoKind::Dummy })
    }

    /// Makes sure that there is a link for our addresses, and that it is up.
    ///
    /// `lo` is used as it is. Any other name becomes a dummy link of our making, or is one already. Where the kernel has no
    /// `dummy` driver the loopback takes its place, and [`Place::carrier`] says so.
    ///
    /// # Errors
    /// Names the step; a link of that name and of another kind is an error, since it is not ours to use.
    pub async fn ensure(&self, interface: &str) -> Result<Place, LinkError> {
        if let Some(found) = self.observe(interface).await? {
            return self.adopt(found).await;
        }
        let message =
            LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(self.kind.clone()).name(interface.to_owned()).build();
        match self
            .ask(format!("make the {} link `{interface}`", self.kind), self.handle.link().add(message).execute())
            .await
        {
            // Somebody was faster. Whatever it is, it is there.
            Ok(()) => {}
            Err(error) if error.is(Errno::EEXIST) => {}
            Err(error) if error.is(Errno::EOPNOTSUPP) => return self.loopback().await,
            Err(error) => return Err(error),
        }
        let gone = || LinkError {
            step: format!("find the link `{interface}` just made"),
            source: io::Error::from_raw_os_error(Errno::ENODEV as i32),
        };
        let made = self.observe(interface).await?.ok_or_else(gone)?;
        let index = made.index;
        match self.adopt(made).await {
            Ok(place) => Ok(Place { made: true, ..place }),
            Err(error) => {
                // The first error is the one to tell.
                let _ = self.handle.link().del(index).execute().await;
                Err(error)
            }
        }
    }

    /// Whether [`Links::ensure`] can make links here. Nothing is made to find out.
    ///
    /// # Errors
    /// If the kernel answers neither yes nor no, for example for want of rights.
    pub async fn has_driver(&self) -> Result<bool, LinkError> {
        // A multicast hardware address is refused by the driver itself, so the refusal proves that there is one. Without a
        // driver the kernel says EOPNOTSUPP before it looks at anything else.
        let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(self.kind.clone())
            .name("nodens-driver?".to_owned())
            .append_extra_attribute(LinkAttribute::Address(vec![0x01, 0, 0, 0, 0, 0]))
            .build();
        match self.ask(format!("ask for the `{}` driver", self.kind), self.handle.link().add(message).execute()).await {
            Err(error) if error.is(Errno::EADDRNOTAVAIL) || error.is(Errno::EINVAL) => Ok(true),
            Err(error) if error.is(Errno::EOPNOTSUPP) => Ok(false),
            Err(error) => Err(error),
            Ok(()) => Err(LinkError {
                step: format!("ask for the `{}` driver", self.kind),
                source: io::Error::other("the kernel took a multicast hardware address"),
            }),
        }
    }

    /// Puts `addresses` on the link for `valid`, and renews those of ours that are there already, in place.
    ///
    /// When it returns, packets to them are local. An address somebody else put on this link is used as it is and named in [`Put::foreign`].
    ///
    /// # Errors
    /// Names the address. Those this call had added before are taken back, so that no half of them stays.
    pub async fn put(&self, place: &Place, addresses: &[IpAddr], valid: Duration) -> Result<Put, LinkError> {
        let held = self.held(place.index, place.may_hold_unmarked()).await?;
        let is_new = |it: &IpAddr| held.iter().all(|held| held.address != *it);
        let new: Vec<Ipv6Addr> = addresses
            .iter()
            .filter_map(|it| if let IpAddr::V6(six) = it { is_new(it).then_some(*six) } else { None })
            .collect();
        let mut arrivals = if new.is_empty() { None } else { Some(Arrivals::herald(self, place.index, new).await?) };
        let mut put = Put::default();
        let mut done = self.put_each(place, addresses, &held, valid, &mut put).await;
        if let Some(arrivals) = &mut arrivals {
            if done.is_ok() {
                done = arrivals.complete(self).await;
            }
            arrivals.dismiss(self).await;
        }
        match done {
            Ok(()) => Ok(put),
            Err(error) => Err(self.undo(place, &put, error).await),
        }
    }

    async fn put_each(
        &self,
        place: &Place,
        addresses: &[IpAddr],
        held: &[Held],
        valid: Duration,
        put: &mut Put,
    ) -> Result<(), LinkError> {
        for &address in addresses {
            let (how, list) = match held.iter().find(|it| it.address == address) {
                Some(it) if it.ours => (NLM_F_REPLACE, &mut put.renewed),
                Some(_) => {
                    put.foreign.push(address);
                    continue;
                }
                None => (NLM_F_EXCL, &mut put.added),
            };
            let message = message::lease(&place.name, place.index, address, valid);
            match self.write(format!("put {address} on the link `{}`", place.name), message, how).await {
                Ok(()) => list.push(address),
                Err(error) if error.is(Errno::EEXIST) => put.foreign.push(address),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes back what was added before `error`, which it returns.
    async fn undo(&self, place: &Place, put: &Put, error: LinkError) -> LinkError {
        self.take_back(place, put).await;
        error
    }

    /// Takes back what one start had put here, for one that failed later: the link if [`Links::ensure`] made it, the addresses
    /// that [`Links::put`] added. What was there before stays.
    ///
    /// The first error is the one to tell, so there is none here; addresses that are left behind have a lifetime.
    pub async fn take_back(&self, place: &Place, put: &Put) {
        for &added in &put.added {
            let _ = self.take(place.index, &place.name, added).await;
        }
        if place.made {
            let _ = self.ask("remove the link", self.handle.link().del(place.index).execute()).await;
        }
    }

    /// Removes every address and every link of ours, on all links, except what `keep` names.
    ///
    /// With `None` the host is as it was before we came. A link of ours that somebody else's address is on stays.
    ///
    /// # Errors
    /// Names the step. What was removed before stays removed; a second call goes on from there.
    pub async fn sweep(&self, keep: Option<(&Place, &[IpAddr])>) -> Result<Swept, LinkError> {
        let mut swept = Swept::default();
        for link in self.survey().await? {
            let kept = keep.filter(|(place, _)| place.index == link.index);
            let removable = kept.is_none() && link.ours && link.kind.as_ref() == Some(&self.kind);
            if removable && link.addresses.iter().all(|it| it.ours || it.is_of_the_kernel()) {
                let step = format!("remove the link `{}`", link.name);
                match self.ask(step, self.handle.link().del(link.index).execute()).await {
                    Ok(()) => swept.links.push(link.name),
                    Err(error) if error.is(Errno::ENODEV) => {}
                    Err(error) => return Err(error),
                }
                continue;
            }
            for held in link.addresses.iter().filter(|it| it.ours) {
                if kept.is_some_and(|(_, wanted)| wanted.contains(&held.address)) {
                    continue;
                }
                if self.take(link.index, &link.name, held.address).await? {
                    swept.addresses.push((link.name.clone(), held.address));
                }
            }
        }
        Ok(swept)
    }

    /// The link called `interface` as it is, with its addresses; `None` if there is none.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn observe(&self, interface: &str) -> Result<Option<Link>, LinkError> {
        let step = format!("look for the link `{interface}`");
        let request = self.handle.link().get().match_name(interface.to_owned()).execute();
        match self.ask(step, request.try_collect::<Vec<_>>()).await {
            Ok(found) => {
                let Some(mut link) = found.first().map(Link::of) else { return Ok(None) };
                link.addresses = self.held(link.index, link.may_hold_unmarked()).await?;
                Ok(Some(link))
            }
            Err(error) if error.is(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every link with its addresses.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub async fn survey(&self) -> Result<Vec<Link>, LinkError> {
        let found = self.ask("list the links", self.handle.link().get().execute().try_collect::<Vec<_>>()).await?;
        let messages = self.addresses().await?;
        let mut links: Vec<Link> = found.iter().map(Link::of).collect();
        for link in &mut links {
            link.addresses = messages
                .iter()
                .filter(|it| it.header.index == link.index)
                .filter_map(|it| Held::of(it, link.may_hold_unmarked()))
                .collect();
        }
        Ok(links)
    }

    /// Marks and raises a link that is there.
    async fn adopt(&self, link: Link) -> Result<Place, LinkError> {
        if link.loopback {
            return Ok(Place {
                name: link.name,
                index: link.index,
                carrier: Carrier::Loopback,
                ours: false,
                made: false,
            });
        }
        if link.kind.as_ref() != Some(&self.kind) {
            let kind = link.kind.as_ref().map_or_else(|| "a device".to_owned(), |it| format!("of the kind {it}"));
            return Err(LinkError {
                step: format!(
                    "use the link `{}`: it is {kind}, not {}, so it is not ours to use",
                    link.name, self.kind
                ),
                source: io::Error::from_raw_os_error(Errno::EEXIST as i32),
            });
        }
        // A link without a mark and without anybody's address is one that we made and died before we could mark it.
        let ours =
            link.ours || (link.alias.is_none() && link.addresses.iter().all(|it| it.ours || it.is_of_the_kernel()));
        if ours && !link.ours {
            let step = format!("mark the link `{}` as ours", link.name);
            let message = LinkUnspec::new_with_index(link.index)
                .append_extra_attribute(LinkAttribute::IfAlias(ALIAS.to_owned()))
                .build();
            self.ask(step, self.handle.link().set(message).execute()).await?;
            self.without_own_ideas(&link).await?;
        }
        if !link.up {
            let step = format!("set the link `{}` up", link.name);
            let message = LinkUnspec::new_with_index(link.index).up().build();
            self.ask(step, self.handle.link().set(message).execute()).await?;
        }
        Ok(Place { name: link.name, index: link.index, carrier: Carrier::Own, ours, made: false })
    }

    /// Keeps the kernel from putting an IPv6 link-local address of its own on a link that leads nowhere.
    async fn without_own_ideas(&self, link: &Link) -> Result<(), LinkError> {
        let none = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let message = LinkUnspec::new_with_index(link.index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![none]))
            .build();
        let step = format!("switch off address generation on the link `{}`", link.name);
        match self.ask(step, self.handle.link().set(message).execute()).await {
            // A host without IPv6 generates none.
            Err(error) if error.is(Errno::EAFNOSUPPORT) || error.is(Errno::EOPNOTSUPP) => Ok(()),
            other => other,
        }
    }

    async fn loopback(&self) -> Result<Place, LinkError> {
        let found = self.observe(LOOPBACK).await?.ok_or_else(|| LinkError {
            step: "find the loopback".to_owned(),
            source: io::Error::from_raw_os_error(Errno::ENODEV as i32),
        })?;
        Ok(Place {
            name: found.name,
            index: found.index,
            carrier: Carrier::LoopbackForWantOfDriver,
            ours: false,
            made: false,
        })
    }

    async fn held(&self, index: u32, unmarked: bool) -> Result<Vec<Held>, LinkError> {
        let messages = self.addresses().await?;
        Ok(messages.iter().filter(|it| it.header.index == index).filter_map(|it| Held::of(it, unmarked)).collect())
    }

    async fn addresses(&self) -> Result<Vec<AddressMessage>, LinkError> {
        self.ask("list the addresses", self.handle.address().get().execute().try_collect()).await
    }

    /// Takes one address away; false if it was gone.
    async fn take(&self, index: u32, link: &str, address: IpAddr) -> Result<bool, LinkError> {
        let step = format!("take {address} from the link `{link}`");
        let message = message::address(index, address);
        match self.ask(step, self.handle.address().del(message).execute()).await {
            Ok(()) => Ok(true),
            Err(error) if error.is(Errno::EADDRNOTAVAIL) || error.is(Errno::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends one `RTM_NEWADDR` and reads its acknowledgement.
    async fn write(&self, step: String, message: AddressMessage, how: u16) -> Result<(), LinkError> {
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewAddress(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | how;
        let mut handle = self.handle.clone();
        self.ask(step, async move {
            let mut replies = handle.request(request)?;
            while let Some(reply) = futures_util::StreamExt::next(&mut replies).await {
                if let NetlinkPayload::Error(error) = reply.payload {
                    return Err(rtnetlink::Error::NetlinkError(error));
                }
            }
            Ok(())
        })
        .await
    }

    /// Waits for the kernel's answer, and names the step if it is no.
    async fn ask<T>(
        &self,
        step: impl Into<String>,
        request: impl Future<Output = Result<T, rtnetlink::Error>>,
    ) -> Result<T, LinkError> {
        let answer = tokio::time::timeout(PATIENCE, request).await;
        let source = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(rtnetlink::Error::NetlinkError(error))) => error.to_io(),
            Ok(Err(error)) => io::Error::other(error.to_string()),
            Err(_) => io::Error::from(io::ErrorKind::TimedOut),
        };
        Err(LinkError { step: step.into(), source })
    }
}

#[cfg(test)]
impl Links {
    /// The same with another kind of link, for kernels without `dummy`.
    fn making(self, kind: InfoKind) -> Self {
        let mut links = self;
        links.kind = kind;
        links
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

// === impl Place ===

/// Where our addresses are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    pub name: String,
    /// The kernel's number; another one after the link was deleted and made again.
    pub index: u32,
    pub carrier: Carrier,
    /// Whether the link is of our making, so that [`Links::sweep`] may remove it.
    pub ours: bool,
    /// Whether this call of [`Links::ensure`] made it.
    pub made: bool,
}

impl Place {
    fn may_hold_unmarked(&self) -> bool {
        self.ours || self.carrier != Carrier::Own
    }
}

/// What kind of link carries our addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Carrier {
    /// The loopback, because the configuration says so.
    Loopback,
    /// The loopback, because this kernel has no `dummy` driver.
    LoopbackForWantOfDriver,
    /// A link for us alone.
    Own,
}

// === impl Put ===

/// What [`Links::put`] did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Put {
    pub added: Vec<IpAddr>,
    pub renewed: Vec<IpAddr>,
    /// There already by somebody else's hand, used and left.
    pub foreign: Vec<IpAddr>,
}

/// What [`Links::sweep`] removed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Swept {
    /// Addresses with the links they were on; those on removed links are not repeated here.
    pub addresses: Vec<(String, IpAddr)>,
    pub links: Vec<String>,
}

// === impl LinkError ===

/// A step that the kernel refused.
#[derive(Debug)]
pub struct LinkError {
    /// What was being done, in words that fit behind "could not".
    pub step: String,
    pub source: io::Error,
}

impl LinkError {
    /// Whether the kernel's reason was `errno`.
    pub fn is(&self, errno: Errno) -> bool {
        self.source.raw_os_error() == Some(errno as i32)
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}: {}", self.step, self.source)?;
        f.write_str(match self.source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM) => " (this needs CAP_NET_ADMIN)",
            // What the kernel says to an IPv6 address, and to nothing else of ours.
            Some(Errno::EACCES) => " (IPv6 is off on this link: net.ipv6.conf.<link>.disable_ipv6)",
            _ => "",
        })
    }
}

impl std::error::Error for LinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
