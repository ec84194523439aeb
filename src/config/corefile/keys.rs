//! The zones in front of a server block: `cluster.local:53`, `10.0.0.0/16`, `dns://.:1053`.

use std::net::IpAddr;

use super::super::values::{Wrong, name};
use crate::wire::{Name, name as names};

/// Zones a network may stand for: /9 gives 128 of them, and nothing sensible gives more.
const MAX_SPLIT: u32 = 256;

/// A key: its zones, and its port if one is written.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Key {
    pub zones: Vec<Name>,
    pub port: Option<u16>,
}

/// Reads a key as CoreDNS does.
///
/// # Errors
/// What is wrong with it.
pub(super) fn key(text: &str) -> Result<Key, Wrong> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("dns", text));
    if !scheme.eq_ignore_ascii_case("dns") {
        let what = format!("`{scheme}://`: Nodens serves plain DNS over UDP and TCP");
        return Err(Wrong::new(what, format!("write {}", rest.split(':').next().unwrap_or(rest))));
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, "")) => {
            return Err(Wrong::new(format!("`{text}` ends in a colon"), format!("write {host}:53")));
        }
        Some((host, digits)) if digits.bytes().all(|it| it.is_ascii_digit()) => {
            let port = digits.parse::<u16>().ok().filter(|&port| port > 0);
            let port =
                port.ok_or_else(|| Wrong::new(format!("`{digits}` is no port"), "write a number from 1 to 65535"))?;
            (host, Some(port))
        }
        _ => (rest, None),
    };
    if host.is_empty() {
        return Err(Wrong::new(format!("`{text}` names no zone"), format!("write .:{}", port.unwrap_or(53))));
    }
    Ok(Key { zones: zones(host)?, port })
}

/// Reads a zone, or a network as its reverse zones.
///
/// # Errors
/// What is wrong with it.
pub(super) fn zones(text: &str) -> Result<Vec<Name>, Wrong> {
    if text.contains("__PILLAR__") {
        let what = format!("`{text}` was left unfilled");
        return Err(Wrong::new(what, "replace it, as the manifest's instructions say (sed), such as by cluster.local"));
    }
    if let Some((address, length)) = text.split_once('/')
        && let (Ok(address), Ok(length)) = (address.parse::<IpAddr>(), length.parse::<u8>())
    {
        return reverse_zones(address, length).ok_or_else(|| {
            Wrong::new(format!("`{text}` is no network with reverse zones"), "write such as 10.0.0.0/8")
        });
    }
    Ok(vec![plain_name(text)?])
}

/// Reads a name that is itself and no pattern.
///
/// # Errors
/// What is wrong with it.
pub(super) fn plain_name(text: &str) -> Result<Name, Wrong> {
    let name = name(text)?;
    // The octet behind the first label's length.
    if name.as_wire().get(1) == Some(&b'*') {
        let covered = text.split_once('.').map_or(".", |(_, covered)| covered);
        return Err(Wrong::new(
            format!("`{text}`: `*` is no wildcard here"),
            format!("a zone covers all names below it: write {covered}"),
        ));
    }
    Ok(name)
}

/// The reverse zones of a network: one, or so many that they end where labels do (octets in IPv4, nibbles in IPv6).
fn reverse_zones(address: IpAddr, length: u8) -> Option<Vec<Name>> {
    let (width, label) = if address.is_ipv4() { (32, 8) } else { (128, 4) };
    if length > width {
        return None;
    }
    let whole = length.div_ceil(label) * label;
    let count = 1_u32.checked_shl((whole - length).into()).filter(|count| *count <= MAX_SPLIT)?;
    let bits = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    let first = if length == 0 { 0 } else { bits >> (128 - u32::from(length)) << (128 - u32::from(length)) };
    let step = |index: u32| if whole == 0 { 0 } else { u128::from(index) << (128 - u32::from(whole)) };
    // Labels of the whole reverse name in front of those of the zone.
    let left_out = usize::from((width - whole) / label);
    let zone = |index: u32| {
        let bits = first | step(index);
        let address = match address {
            IpAddr::V4(_) => IpAddr::V4(((bits >> 96) as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(bits.into()),
        };
        let reverse = names::reverse(address);
        let suffix = names::suffixes(reverse.as_wire()).nth(left_out)?;
        Name::from_wire(suffix)
    };
    (0..count).map(zone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> (Vec<String>, Option<u16>) {
        let key = key(text).unwrap_or_else(|wrong| panic!("{text}: {}", wrong.what));
        (key.zones.iter().map(ToString::to_string).collect(), key.port)
    }

    #[test]
    fn a_key_is_a_zone_with_or_without_scheme_and_port() {
        for (text, zone, port) in [
            (".:53", ".", Some(53)),
            (".", ".", None),
            ("Cluster.Local:53", "cluster.local.", Some(53)),
            ("dns://example.org.", "example.org.", None),
            ("in-addr.arpa:5353", "in-addr.arpa.", Some(5353)),
            ("10.0.0.0/8", "10.in-addr.arpa.", None),
            ("10.1.2.0/24:53", "2.1.10.in-addr.arpa.", Some(53)),
            ("192.168.1.7/32", "7.1.168.192.in-addr.arpa.", None),
            ("fd00:10::/32", "0.1.0.0.0.0.d.f.ip6.arpa.", None),
        ] {
            assert_eq!(shown(text), (vec![zone.to_owned()], port), "{text}");
        }
    }

    #[test]
    fn a_network_between_labels_is_several_zones() {
        assert_eq!(
            shown("10.96.0.0/14").0,
            ["96.10.in-addr.arpa.", "97.10.in-addr.arpa.", "98.10.in-addr.arpa.", "99.10.in-addr.arpa."]
        );
        assert_eq!(shown("172.16.0.0/12").0.len(), 16);
        assert_eq!(shown("fd00::/7").0, ["c.f.ip6.arpa.", "d.f.ip6.arpa."]);
        assert_eq!(shown("0.0.0.0/0").0, ["in-addr.arpa."]);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            ":53",
            "a:",
            "a..b",
            "tls://.",
            "https://.:443",
            "a:0",
            "a:65536",
            "*.a",
            "*",
            r"\042.a",
            "10.0.0.0/33",
            "é",
            "__PILLAR__DNS__DOMAIN__:53",
        ] {
            assert!(key(text).is_err(), "{text}");
        }
    }
}
