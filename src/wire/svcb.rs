//! The `ipv6hint` parameter of SVCB and HTTPS records: found, and taken out.
//!
//! Parameters that break the rules of RFC 9460 section 2.2 (order of keys, lengths) are nobody's hint: such a record is
//! neither found to hold one nor changed.
//!
//! ```text
//! RDATA   priority (2)  target name  { key (2)  length (2)  value }*          keys strictly ascending
//! ```
//!
//! Read first: RFC 9460 sections 2.2, 2.4.2, 7.3 and 8.

use super::name;
use super::records::Record;

/// The keys that must be understood (RFC 9460 section 8).
const MANDATORY: u16 = 0;
const IPV6HINT: u16 = 6;

/// The parameters of an SVCB or HTTPS record of `message`; `None` in `AliasMode`, where they mean nothing
/// (RFC 9460 section 2.4.2).
pub(super) fn parameters<'a>(message: &'a [u8], record: &Record) -> Option<&'a [u8]> {
    let rdata = record.rdata_range();
    if message.get(rdata.start..rdata.start + 2)? == [0, 0] {
        return None;
    }
    message.get(name::skip(message, record.rdata_name(message))?..rdata.end)
}

/// Whether `parameters` are in order and hold an IPv6 hint.
pub fn has_ipv6hint(parameters: &[u8]) -> bool {
    are_in_order(parameters) && split(parameters).any(|parameter| parameter.key == IPV6HINT)
}

/// The parameters without the IPv6 hint, and without it among the mandatory keys. `None` if there is nothing to
/// take out, or if they are not in order.
pub fn without_ipv6hint(parameters: &[u8]) -> Option<Vec<u8>> {
    if !has_ipv6hint(parameters) {
        return None;
    }
    let mut left = Vec::with_capacity(parameters.len());
    for parameter in split(parameters) {
        match parameter.key {
            IPV6HINT => {}
            // RFC 9460 section 8: a record whose mandatory key is missing must not be used.
            MANDATORY => {
                let keys = parameter.value.chunks_exact(2).filter(|key| *key != IPV6HINT.to_be_bytes());
                let value: Vec<u8> = keys.flatten().copied().collect();
                if !value.is_empty() {
                    put(&mut left, MANDATORY, &value);
                }
            }
            key => put(&mut left, key, parameter.value),
        }
    }
    Some(left)
}

fn put(parameters: &mut Vec<u8>, key: u16, value: &[u8]) {
    parameters.extend_from_slice(&key.to_be_bytes());
    parameters.extend_from_slice(&(value.len() as u16).to_be_bytes());
    parameters.extend_from_slice(value);
}

/// One `SvcParam`.
struct Parameter<'a> {
    key: u16,
    value: &'a [u8],
    /// Octets behind it.
    rest: usize,
}

/// The parameters up to the first that overruns.
fn split(parameters: &[u8]) -> impl Iterator<Item = Parameter<'_>> {
    let mut rest = parameters;
    std::iter::from_fn(move || {
        let (&[k0, k1, l0, l1], behind) = rest.split_first_chunk()?;
        let (value, next) = behind.split_at_checked(u16::from_be_bytes([l0, l1]).into())?;
        rest = next;
        Some(Parameter { key: u16::from_be_bytes([k0, k1]), value, rest: next.len() })
    })
}

/// Whether keys ascend strictly, nothing overruns, and the values that matter here have their form.
fn are_in_order(parameters: &[u8]) -> bool {
    let mut last = None;
    let mut rest = parameters.len();
    for parameter in split(parameters) {
        let formed = match parameter.key {
            MANDATORY => !parameter.value.is_empty() && parameter.value.len() % 2 == 0,
            // RFC 9460 section 7.3: one address or more.
            IPV6HINT => !parameter.value.is_empty() && parameter.value.len() % 16 == 0,
            _ => true,
        };
        if !formed || last.is_some_and(|last| parameter.key <= last) {
            return false;
        }
        last = Some(parameter.key);
        rest = parameter.rest;
    }
    rest == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALPN: &[u8] = b"\0\x01\0\x03\x02h2";

    fn hint(addresses: u16) -> Vec<u8> {
        let mut parameter = Vec::new();
        put(&mut parameter, IPV6HINT, &vec![0x20; 16 * usize::from(addresses)]);
        parameter
    }

    #[test]
    fn hint_is_taken_out_and_the_rest_left_alone() {
        let port = b"\0\x03\0\x02\x01\xbb";
        let other = b"\xff\0\0\x01x";
        let all = [ALPN, port, &hint(2), other].concat();
        assert!(has_ipv6hint(&all));
        assert_eq!(without_ipv6hint(&all), Some([ALPN, port, other].concat()));
        assert_eq!(without_ipv6hint(&hint(1)), Some(Vec::new()));
    }

    #[test]
    fn nothing_is_taken_out_where_there_is_no_hint() {
        assert_eq!(without_ipv6hint(b""), None);
        assert_eq!(without_ipv6hint(ALPN), None);
        assert!(!has_ipv6hint(ALPN));
    }

    #[test]
    fn hint_that_goes_is_no_longer_mandatory() {
        let among = [b"\0\0\0\x04\0\x01\0\x06", ALPN, &hint(1)].concat();
        assert_eq!(without_ipv6hint(&among), Some([b"\0\0\0\x02\0\x01", ALPN].concat()));
        let alone = [b"\0\0\0\x02\0\x06", &hint(1)[..]].concat();
        assert_eq!(without_ipv6hint(&alone), Some(Vec::new()));
    }

    // V08, MU50, MU51
    #[test]
    fn broken_parameters_hold_no_hint() {
        let short = [ALPN, b"\0\x06\0\x0f", &[0x20; 15]].concat();
        let empty = [ALPN, b"\0\x06\0\0"].concat();
        let overrun = [ALPN, b"\0\x06\0\x20", &[0x20; 16]].concat();
        let descending = [&hint(1)[..], ALPN].concat();
        let twice = [hint(1), hint(1)].concat();
        let ragged = [&hint(1)[..], b"\0"].concat();
        for broken in [short, empty, overrun, descending, twice, ragged] {
            assert!(!has_ipv6hint(&broken), "{broken:x?}");
            assert_eq!(without_ipv6hint(&broken), None, "{broken:x?}");
        }
    }
}
