//! EDNS, hop by hop: what a client's OPT record says, and the OPT record it gets.
//!
//! Nothing of a client's options outlives its query: what changes our answer is reduced to three fields, the rest is
//! checked for shape and forgotten.
//!
//! Read first: RFC 6891 section 6.1, RFC 3225 section 3, RFC 7828 section 3, RFC 8914 section 2.

use super::{Ede, Rcode, Transport, Type, UDP_MAX};

/// What a client's OPT record says, as far as it changes our answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Edns {
    /// Octets of UDP payload the client can take, as it says; below 512 counts as 512 (RFC 6891 section 6.2.3).
    pub payload_size: u16,
    /// DO: the client wants DNSSEC records (RFC 3225).
    pub dnssec_ok: bool,
    /// The client asked on TCP how long it may keep the connection (RFC 7828); false on UDP.
    pub keepalive: bool,
}

/// Idle time we allow a TCP connection, in units of 100 ms: 10 s (RFC 7828 section 3.1).
pub const KEEPALIVE: u16 = 100;

/// Octets in an OPT record without options.
pub(super) const OPT_MIN: usize = 11;

/// Octets in the longest OPT record we write: an extended error and a keepalive.
pub(super) const OPT_MAX: usize = OPT_MIN + 6 + 6;

/// Options one OPT record may hold; real clients send up to five.
const OPTIONS_MAX: usize = 100;

/// DO, as the first octet of the flags (RFC 3225 section 3).
const DO: u8 = 0x80;

/// OPTION-CODEs we look at (IANA "DNS EDNS0 Option Codes").
mod option {
    pub(super) const COOKIE: u16 = 10;
    pub(super) const KEEPALIVE: u16 = 11;
    pub(super) const EDE: u16 = 15;
}

impl Edns {
    /// Reads an OPT record behind its owner and type: CLASS, the four octets of the TTL, RDATA.
    ///
    /// # Errors
    /// What was read stands beside the flaw, since the reply to it needs an OPT record too.
    #[inline]
    pub(super) fn read(
        payload_size: u16,
        [_, version, flags, _]: [u8; 4],
        options: &[u8],
        transport: Transport,
    ) -> (Self, Result<(), Unreadable>) {
        let mut edns = Self { payload_size, dnssec_ok: flags & DO != 0, keepalive: false };
        // RFC 6891 section 6.1.3: BADVERS, whatever the options mean in that version.
        let result = if version == 0 { edns.read_options(options, transport) } else { Err(Unreadable::Version) };
        (edns, result)
    }

    fn read_options(&mut self, mut rest: &[u8], transport: Transport) -> Result<(), Unreadable> {
        let mut count = 0;
        while let Some((&[c0, c1, l0, l1], behind)) = rest.split_first_chunk() {
            let length = u16::from_be_bytes([l0, l1]);
            let (_, next) = behind.split_at_checked(length.into()).ok_or(Unreadable::Options)?;
            count += 1;
            if count > OPTIONS_MAX {
                return Err(Unreadable::Options);
            }
            match (u16::from_be_bytes([c0, c1]), length) {
                // RFC 7873 section 5.2.2: a client's cookie alone, or with a server's of 8 to 32 octets.
                (option::COOKIE, 8 | 16..=40) => {}
                (option::COOKIE, _) => return Err(Unreadable::Cookie),
                // RFC 7828 section 3.2.1: no timeout from a client; section 3.2.2: ignored on UDP.
                (option::KEEPALIVE, _) if transport == Transport::Udp => {}
                (option::KEEPALIVE, 0) => self.keepalive = true,
                (option::KEEPALIVE, _) => return Err(Unreadable::Keepalive),
                _ => {}
            }
            rest = next;
        }
        if rest.is_empty() { Ok(()) } else { Err(Unreadable::Options) }
    }
}

/// What is wrong with an OPT record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unreadable {
    /// A COOKIE of impossible length.
    Cookie,
    /// A tcp-keepalive with a timeout.
    Keepalive,
    /// Options that do not fill RDATA exactly, or too many of them.
    Options,
    /// A version other than 0.
    Version,
}

/// The OPT record of a reply or of a query, in wire form; no octets where there is none to be sent.
pub(super) struct Opt {
    octets: [u8; OPT_MAX],
    length: usize,
}

impl Opt {
    /// No OPT record: RFC 6891 section 7 forbids one in a reply to a query without.
    pub(super) const NONE: Self = Self { octets: [0; OPT_MAX], length: 0 };

    /// The OPT record that answers `client`'s.
    #[inline]
    pub(super) fn reply(client: Option<Edns>, rcode: Rcode, ede: Option<Ede>) -> Self {
        let Some(client) = client else { return Self::NONE };
        let mut opt = Self::plain(rcode, client.dnssec_ok);
        if let Some(ede) = ede {
            opt.push(option::EDE, ede.0);
        }
        if client.keepalive {
            opt.push(option::KEEPALIVE, KEEPALIVE);
        }
        opt
    }

    /// An OPT record without options: version 0, our payload size, all flags but DO zero.
    #[inline]
    pub(super) fn plain(rcode: Rcode, dnssec_ok: bool) -> Self {
        let mut octets = [0; OPT_MAX];
        // The owner, octet 0, is the root.
        octets[1..3].copy_from_slice(&Type::OPT.0.to_be_bytes());
        octets[3..5].copy_from_slice(&(UDP_MAX as u16).to_be_bytes());
        octets[5] = rcode.high();
        octets[7] = if dnssec_ok { DO } else { 0 };
        Self { octets, length: OPT_MIN }
    }

    /// Appends an option of two octets. There is room for two.
    fn push(&mut self, code: u16, value: u16) {
        let [c0, c1] = code.to_be_bytes();
        let [v0, v1] = value.to_be_bytes();
        self.octets[self.length..self.length + 6].copy_from_slice(&[c0, c1, 0, 2, v0, v1]);
        self.length += 6;
        // RDLENGTH, below 256.
        self.octets[OPT_MIN - 1] += 6;
    }

    /// The record's octets.
    #[inline]
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // MC36, E02
    #[test]
    fn fields_that_change_the_answer_are_read() {
        let (edns, result) = Edns::read(1232, [0, 0, 0x80, 0], &[], Transport::Udp);
        assert_eq!(result, Ok(()));
        assert_eq!(edns, Edns { payload_size: 1232, dnssec_ok: true, keepalive: false });
    }

    // MC34
    #[test]
    fn flags_but_do_are_ignored() {
        let (edns, result) = Edns::read(0, [0, 0, 0x7f, 0xff], &[], Transport::Udp);
        assert_eq!((edns.dnssec_ok, result), (false, Ok(())));
    }

    // MC31
    #[test]
    fn other_version_is_named_and_its_options_are_not_read() {
        let (edns, result) = Edns::read(1232, [0, 1, 0x80, 0], &[0xff], Transport::Udp);
        assert_eq!(result, Err(Unreadable::Version));
        assert!(edns.dnssec_ok);
    }

    // MC38, E11
    #[test]
    fn cookie_has_8_or_16_to_40_octets() {
        for length in 0..=64 {
            let legal = length == 8 || (16..=40).contains(&length);
            let mut option = vec![0, 10, 0, length];
            option.resize(4 + usize::from(length), 0x55);
            assert_eq!(
                judge(&option, Transport::Udp),
                if legal { Ok(()) } else { Err(Unreadable::Cookie) },
                "{length}"
            );
        }
    }

    // E17, MC42, MC43
    #[test]
    fn keepalive_counts_on_tcp_and_has_no_value() {
        let read = |option: &[u8], transport| {
            let (edns, result) = Edns::read(1232, [0; 4], option, transport);
            (edns.keepalive, result)
        };
        assert_eq!(read(&[0, 11, 0, 0], Transport::Tcp), (true, Ok(())));
        assert_eq!(read(&[0, 11, 0, 0], Transport::Udp), (false, Ok(())));
        assert_eq!(read(&[0, 11, 0, 2, 0, 100], Transport::Udp), (false, Ok(())));
        assert_eq!(read(&[0, 11, 0, 2, 0, 100], Transport::Tcp), (false, Err(Unreadable::Keepalive)));
    }

    // MC30, MC33, MC40, MC41
    #[test]
    fn options_fill_the_record_and_unknown_ones_pass() {
        assert_eq!(judge(&[0, 100, 0, 1, 7], Transport::Udp), Ok(()));
        assert_eq!(judge(&[0, 8, 0, 4, 0, 3, 33, 0], Transport::Udp), Ok(()), "client subnets are not looked at");
        assert_eq!(judge(&[0, 100, 0, 2, 7], Transport::Udp), Err(Unreadable::Options));
        assert_eq!(judge(&[0, 100, 0], Transport::Udp), Err(Unreadable::Options));
    }

    // MC39
    #[test]
    fn options_are_counted() {
        assert_eq!(judge(&[0, 100, 0, 0].repeat(OPTIONS_MAX), Transport::Udp), Ok(()));
        assert_eq!(judge(&[0, 100, 0, 0].repeat(OPTIONS_MAX + 1), Transport::Udp), Err(Unreadable::Options));
    }

    // E02, E14, E17
    #[test]
    fn reply_holds_what_the_client_may_see() {
        let client = Edns { payload_size: 4096, dnssec_ok: true, keepalive: true };
        let opt = Opt::reply(Some(client), Rcode::BADVERS, Some(Ede::STALE_ANSWER));
        assert_eq!(opt.octets(), [0, 0, 41, 0x04, 0xd0, 1, 0, 0x80, 0, 0, 12, 0, 15, 0, 2, 0, 3, 0, 11, 0, 2, 0, 100],);
        assert!(Opt::reply(None, Rcode::SERVFAIL, Some(Ede::NETWORK_ERROR)).octets().is_empty());
        let client = Edns { payload_size: 0, dnssec_ok: false, keepalive: false };
        assert_eq!(Opt::reply(Some(client), Rcode::NOERROR, None).octets(), [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    }

    fn judge(options: &[u8], transport: Transport) -> Result<(), Unreadable> {
        Edns::read(1232, [0; 4], options, transport).1
    }
}
