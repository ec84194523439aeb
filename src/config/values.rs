//! Single values as a configuration writes them: addresses, names, choices.
//!
//! Each function takes the text of one value and gives the value or what is [`Wrong`] with it. Bounds and rules between
//! values are the plan's affair.
//!
//! Read first: RFC 4291 section 2.2 (IPv6 addresses), RFC 4632 section 3.1 (prefixes), RFC 1123 section 2.1 (host names).

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use crate::plan::{Prefix, QueryLog, Server};
use crate::wire::Name;

use super::suggest::nearest;

/// Why a text is not the value it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Wrong {
    pub what: String,
    pub remedy: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

/// Reads one of a few words.
///
/// # Errors
/// The word that was probably meant, or all of them.
pub(super) fn word<T: Copy>(text: &str, words: &[(&'static str, T)]) -> Result<T, Wrong> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let all = || words.iter().map(|(word, _)| *word);
    let remedy = match nearest(text, all()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("write {}", either(all())),
    };
    Err(Wrong::new(format!("`{text}` is none of the choices"), remedy))
}

/// The words as a choice: "`a`, `b` or `c`"; of many, the first ones.
pub(super) fn either<'w>(words: impl Iterator<Item = &'w str>) -> String {
    const MOST: usize = 16;
    let mut words: Vec<String> = words.take(MOST + 1).map(|word| format!("`{word}`")).collect();
    if words.len() > MOST {
        "another".clone_into(&mut words[MOST]);
    }
    match words.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

/// Whether a text says that something is not wanted; YAML 1.1 took `off` and `no` for `false`, so people write either.
pub(super) fn is_off(text: &str) -> bool {
    matches!(text, "off" | "false" | "no" | "Off" | "False" | "No" | "OFF" | "FALSE" | "NO")
}

/// Reads `true` or `false`, in YAML's older spellings too.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn boolean(text: &str) -> Result<bool, Wrong> {
    match text {
        _ if is_off(text) => Ok(false),
        "true" | "on" | "yes" | "True" | "On" | "Yes" | "TRUE" | "ON" | "YES" => Ok(true),
        _ => Err(Wrong::new(format!("`{text}` is neither true nor false"), "write `true` or `false`")),
    }
}

/// Reads a whole number from 0 up to what `T` holds.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn number<T: FromStr>(text: &str) -> Result<T, Wrong> {
    if text.is_empty() || !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(Wrong::new(format!("`{text}` is no whole number"), "write digits only, such as 64"));
    }
    text.parse().map_err(|_| Wrong::new(format!("`{text}` is too large"), "write a smaller number"))
}

/// Reads a port, 1 to 65535.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn port(text: &str) -> Result<u16, Wrong> {
    text.parse()
        .ok()
        .filter(|&port| port > 0 && text.bytes().all(|octet| octet.is_ascii_digit()))
        .ok_or_else(|| Wrong::new(format!("`{text}` is no port"), "write a number from 1 to 65535"))
}

/// Reads `auto` (`None`) or a number of threads.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn workers(text: &str) -> Result<Option<NonZeroUsize>, Wrong> {
    if text == "auto" {
        return Ok(None);
    }
    match text.parse() {
        Ok(count) => Ok(Some(count)),
        Err(_) => Err(Wrong::new(
            format!("`{text}` is no number of threads"),
            "write `auto` for one per core, or a number from 1",
        )),
    }
}

/// Reads an IP address.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn ip(text: &str) -> Result<IpAddr, Wrong> {
    refuse_zone_id(text)?;
    text.parse().map_err(|_| {
        let remedy = if text.parse::<SocketAddr>().is_ok() {
            "write the address alone, without a port"
        } else if text.contains('/') {
            "write one address, without a length"
        } else {
            "write an IP address, such as 10.96.0.10 or \"fd00::a\""
        };
        Wrong::new(format!("`{text}` is no IP address"), remedy)
    })
}

/// Reads `10.0.0.1:9253` or `[fd00::1]:9253`.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn socket(text: &str) -> Result<SocketAddr, Wrong> {
    refuse_zone_id(text)?;
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 => Ok(address),
        Ok(_) => Err(Wrong::new(format!("`{text}` has no port to call at"), "write a port from 1 to 65535")),
        Err(_) => {
            let remedy = match text.parse::<IpAddr>() {
                Ok(IpAddr::V4(address)) => format!("add a port, such as \"{address}:9253\""),
                Ok(IpAddr::V6(address)) => format!("add brackets and a port, such as \"[{address}]:9253\""),
                Err(_) if text.starts_with(':') => format!("write the address too, such as \"0.0.0.0{text}\""),
                Err(_) => "write address and port, such as \"127.0.0.1:9254\" or \"[::1]:9254\"".to_owned(),
            };
            Err(Wrong::new(format!("`{text}` is no address with a port"), remedy))
        }
    }
}

/// Reads `10.0.0.0/8` or `fd00::/8`.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn prefix(text: &str) -> Result<Prefix, Wrong> {
    refuse_zone_id(text)?;
    let wrong = |remedy: String| Err(Wrong::new(format!("`{text}` is no network"), remedy));
    let Some((address, length)) = text.split_once('/') else {
        return match text.parse::<IpAddr>() {
            Ok(address) => wrong(format!("add its length, such as {address}/{}", width(address))),
            Err(_) => wrong("write address/length, such as 10.0.0.0/8 or \"fd00::/8\"".to_owned()),
        };
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return wrong("write address/length, such as 10.0.0.0/8 or \"fd00::/8\"".to_owned());
    };
    let width = width(address);
    let digits = !length.is_empty() && length.bytes().all(|octet| octet.is_ascii_digit());
    match length.parse::<u8>() {
        Ok(length) if digits && length <= width => {
            let network = masked(address, length);
            if network == address {
                Ok(Prefix { address, length })
            } else {
                let what = format!("`{text}` has bits behind its length");
                Err(Wrong::new(what, format!("write {network}/{length}, or {address}/{width} for this address alone")))
            }
        }
        _ => wrong(format!("write a length from 0 to {width}")),
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first address of the network of `length` bits that `address` lies in.
fn masked(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match address {
        IpAddr::V4(it) => IpAddr::V4((it.to_bits() & !u32::MAX.checked_shr(length).unwrap_or(0)).into()),
        IpAddr::V6(it) => IpAddr::V6((it.to_bits() & !u128::MAX.checked_shr(length).unwrap_or(0)).into()),
    }
}

/// Reads a server: an address or a host name, its port if it is not `default_port`.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn server(text: &str, default_port: u16) -> Result<Server, Wrong> {
    refuse_zone_id(text)?;
    if let Ok(address) = text.parse::<SocketAddr>() {
        port(&address.port().to_string())?;
        return Ok(Server::Address(address));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(Server::Address(SocketAddr::new(address, default_port)));
    }
    let wrong = || {
        let remedy = "write IP, IP:port, \"[v6]:port\", or a host name";
        Wrong::new(format!("`{text}` is no server"), remedy)
    };
    if text.contains("://") {
        return Err(Wrong::new(
            format!("`{text}` is no server"),
            "write the host alone; `protocol:` says how it is asked",
        ));
    }
    let (name, port) = match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => return Err(wrong()),
        Some((name, digits)) => (name, port(digits)?),
        None => (text, default_port),
    };
    if !is_host_name(name) {
        return Err(wrong());
    }
    Ok(Server::Host { name: name.to_owned(), port })
}

/// Whether `name` can be a host's: legal, letters, digits, `-` and `_`, and not a mistyped IPv4 address.
pub(super) fn is_host_name(name: &str) -> bool {
    let labels = name.strip_suffix('.').unwrap_or(name);
    let legal = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    // RFC 1123 section 2.1: a name whose last label is a number would look like an address.
    let last_is_number = labels.rsplit('.').next().is_some_and(|it| it.bytes().all(|octet| octet.is_ascii_digit()));
    !last_is_number && labels.bytes().all(legal) && name.parse::<Name>().is_ok()
}

/// Reads a domain name.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn name(text: &str) -> Result<Name, Wrong> {
    text.parse::<Name>().map_err(|error| {
        let remedy = "write a domain name, such as corp.example; its labels have 1 to 63 octets, all of it at most 255";
        Wrong::new(format!("`{text}` is no domain name: {}", error.label()), remedy)
    })
}

/// Reads the path of a file.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn path(text: &str) -> Result<PathBuf, Wrong> {
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        return Err(Wrong::new(
            format!("`{}` is no path", text.escape_debug()),
            "write the path of a file, such as /run/nodens/cache",
        ));
    }
    Ok(PathBuf::from(text))
}

/// Reads `off`, `all` or `1/1000`.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn query_log(text: &str) -> Result<QueryLog, Wrong> {
    match text {
        _ if is_off(text) => Ok(QueryLog::Off),
        "all" => Ok(QueryLog::OneIn(1)),
        _ => match text.strip_prefix("1/").and_then(|many| many.parse().ok()) {
            Some(many) if many > 0 => Ok(QueryLog::OneIn(many)),
            _ => Err(Wrong::new(
                format!("`{text}` is no share of the queries"),
                "write `off`, `all`, or a share such as 1/1000",
            )),
        },
    }
}

/// Zone ids name an interface of one host; a plan is the same on all of them.
fn refuse_zone_id(text: &str) -> Result<(), Wrong> {
    let is_address = |it: &str| it.trim_start_matches('[').parse::<std::net::Ipv6Addr>().is_ok();
    match text.split_once('%') {
        Some((address, _)) if is_address(address) => {
            let remedy = "write an address that needs none: a global one, or one from fd00::/8";
            Err(Wrong::new(format!("`{text}` has a zone id, which means another link on every node"), remedy))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remedy<T: std::fmt::Debug>(result: Result<T, Wrong>) -> String {
        result.expect_err("the text is wrong").remedy
    }

    #[test]
    fn a_server_is_an_address_or_a_host_name() {
        for (text, shown) in [
            ("10.96.0.53", "10.96.0.53:853"),
            ("10.96.0.53:5353", "10.96.0.53:5353"),
            ("fd00::a", "[fd00::a]:853"),
            ("[fd00::a]", "[fd00::a]:853"),
            ("[fd00::a]:53", "[fd00::a]:53"),
            ("dns.corp.example", "dns.corp.example:853"),
            ("kube-dns.kube-system.svc:53", "kube-dns.kube-system.svc:53"),
        ] {
            assert_eq!(server(text, 853).map(|it| it.to_string()), Ok(shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in [
            "",
            ".",
            "10.96.0.530",
            "10.96.0",
            "1.1.1.1:0",
            "1.1.1.1:65536",
            "host:",
            "host:+53",
            "a..b",
            "fd00::x",
            "https://dns.google",
            "a b",
        ] {
            assert!(server(text, 53).is_err(), "{text}");
        }
    }

    // H20
    #[test]
    fn an_address_with_a_zone_id_is_refused_with_a_reason() {
        for text in ["fe80::1%eth0", "[fe80::1%eth0]:53"] {
            assert!(server(text, 53).expect_err("zone id").what.contains("zone id"), "{text}");
            assert!(ip(text).expect_err("zone id").what.contains("zone id"), "{text}");
        }
    }

    #[test]
    fn networks_are_written_with_their_length_and_nothing_behind_it() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.168.1.7/32", "fd00::/8", "::/0", "fd00::1/128"] {
            assert_eq!(prefix(text).map(|it| it.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(remedy(prefix("10.1.0.0/8")), "write 10.0.0.0/8, or 10.1.0.0/32 for this address alone");
        assert_eq!(remedy(prefix("10.0.0.1")), "add its length, such as 10.0.0.1/32");
        for text in ["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0/8", "fd00::/129", "/8", "pods"] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_choice_that_is_mistyped_is_answered_with_the_nearest() {
        let words = [("udp", 1), ("tcp", 2)];
        assert_eq!(remedy(word("tpc", &words)), "did you mean `tcp`?");
        assert_eq!(remedy(word("quic", &words)), "write `udp` or `tcp`");
    }

    #[test]
    fn a_socket_address_says_what_it_lacks() {
        assert_eq!(remedy(socket("127.0.0.1")), "add a port, such as \"127.0.0.1:9253\"");
        assert_eq!(remedy(socket(":9253")), "write the address too, such as \"0.0.0.0:9253\"");
        assert!(socket("127.0.0.1:0").is_err());
    }
}
