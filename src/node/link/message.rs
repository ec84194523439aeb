//! One address as a netlink message: how ours are written, and how they are told from others.

use std::net::IpAddr;
use std::time::Duration;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, CacheInfo,
};

use super::{ALIAS, PROTOCOL};

/// Longest label in octets, IFNAMSIZ less the final zero.
const LABEL_MAX: usize = 15;

/// The address and nothing else: what identifies it.
pub(super) fn address(index: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    (message.header.family, message.header.prefix_len) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}

/// The address as we put it on a link: marked, for `valid`.
pub(super) fn lease(link: &str, index: u32, ip: IpAddr, valid: Duration) -> AddressMessage {
    let mut message = address(index, ip);
    let seconds = u32::try_from(valid.as_secs()).unwrap_or(u32::MAX - 1).clamp(1, u32::MAX - 1);
    let mut lifetime = CacheInfo::default();
    lifetime.ifa_valid = seconds;
    let mut flags = AddressFlags::Noprefixroute;
    if ip.is_ipv6() {
        // RFC 6724 section 5 rule 3: a deprecated address is nobody's source unless he asks for it. Else the node's own
        // packets could leave with the address of the DNS service.
        lifetime.ifa_preferred = 0;
        flags |= AddressFlags::Nodad;
        message.header.flags = AddressHeaderFlags::Nodad;
    } else {
        lifetime.ifa_preferred = seconds;
        if let Some(label) = label(link) {
            message.attributes.push(AddressAttribute::Label(label));
        }
    }
    message.attributes.push(AddressAttribute::Flags(flags));
    message.attributes.push(AddressAttribute::CacheInfo(lifetime));
    message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)));
    message
}

/// The address a message is about; `None` for multicast and anycast.
pub(super) fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let local =
        message.attributes.iter().find_map(|it| if let AddressAttribute::Local(ip) = it { Some(*ip) } else { None });
    local.or_else(|| {
        message.attributes.iter().find_map(|it| if let AddressAttribute::Address(ip) = it { Some(*ip) } else { None })
    })
}

/// What is left of the lifetime; `None` = for ever.
pub(super) fn left_of(message: &AddressMessage) -> Option<Duration> {
    message.attributes.iter().find_map(|it| match it {
        AddressAttribute::CacheInfo(info) if info.ifa_valid != u32::MAX => {
            Some(Duration::from_secs(info.ifa_valid.into()))
        }
        _ => None,
    })
}

/// Whether we put it there. `unmarked`: on this link habits are proof enough, see the module above.
pub(super) fn is_ours(message: &AddressMessage, unmarked: bool) -> bool {
    let mut permanent = true;
    let mut labelled = false;
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Protocol(protocol) => return *protocol == AddressProtocol::Other(PROTOCOL),
            AddressAttribute::Label(label) => labelled = label.strip_suffix(ALIAS).is_some_and(|it| it.ends_with(':')),
            AddressAttribute::Flags(all) => flags = *all,
            AddressAttribute::CacheInfo(info) => permanent = info.ifa_valid == u32::MAX,
            _ => {}
        }
    }
    let habits = match message.header.family {
        AddressFamily::Inet => message.header.prefix_len == 32 && flags.contains(AddressFlags::Noprefixroute),
        AddressFamily::Inet6 => message.header.prefix_len == 128 && flags.contains(AddressFlags::Nodad),
        _ => false,
    };
    labelled || (unmarked && habits && !permanent)
}

/// `<link>:nodens`, as old as aliases of addresses are; `None` where the kernel has no room for it.
fn label(link: &str) -> Option<String> {
    let label = format!("{link}:{ALIAS}");
    (label.len() <= LABEL_MAX).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTES: Duration = Duration::from_mins(5);

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// As a kernel before 5.18 gives it back: without `IFA_PROTO`.
    fn on_an_old_kernel(mut message: AddressMessage) -> AddressMessage {
        message.attributes.retain(|it| !matches!(it, AddressAttribute::Protocol(_)));
        message
    }

    #[test]
    fn what_we_write_is_ours_on_any_link() {
        for address in ["169.254.20.10", "fd00::10"] {
            assert!(is_ours(&lease("lo", 1, ip(address), MINUTES), false), "{address}");
        }
    }

    #[test]
    fn old_kernels_know_ours_by_label_or_habits() {
        let labelled = on_an_old_kernel(lease("lo", 1, ip("169.254.20.10"), MINUTES));
        assert!(is_ours(&labelled, false));
        let long_name = on_an_old_kernel(lease("nodelocaldns", 1, ip("169.254.20.10"), MINUTES));
        assert!(!is_ours(&long_name, false));
        assert!(is_ours(&long_name, true));
        let six = on_an_old_kernel(lease("lo", 1, ip("fd00::10"), MINUTES));
        assert!(!is_ours(&six, false));
        assert!(is_ours(&six, true));
    }

    #[test]
    fn an_address_for_ever_is_never_ours_without_a_mark() {
        let mut message = on_an_old_kernel(lease("lo", 1, ip("fd00::10"), MINUTES));
        for attribute in &mut message.attributes {
            if let AddressAttribute::CacheInfo(info) = attribute {
                info.ifa_valid = u32::MAX;
            }
        }
        assert!(!is_ours(&message, true));
        assert_eq!(left_of(&message), None);
    }

    #[test]
    fn another_protocol_mark_is_somebody_elses_whatever_the_label_says() {
        let mut message = lease("lo", 1, ip("169.254.20.10"), MINUTES);
        message.attributes.retain(|it| !matches!(it, AddressAttribute::Protocol(_)));
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(99)));
        assert!(!is_ours(&message, true));
    }

    #[test]
    fn lifetimes_are_finite_and_at_least_a_second() {
        assert_eq!(left_of(&lease("lo", 1, ip("10.0.0.1"), Duration::ZERO)), Some(Duration::from_secs(1)));
        assert_eq!(
            left_of(&lease("lo", 1, ip("10.0.0.1"), Duration::MAX)),
            Some(Duration::from_secs(u64::from(u32::MAX) - 1))
        );
    }
}
