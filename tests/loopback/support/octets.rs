//! DNS messages as octets: a writer that can say anything and a reader that hides nothing.
//!
//! Independent of the agent's own code and of hickory-proto: tests need TTLs, orders, lengths and mistakes exactly as
//! they are on the wire.
//!
//! Read first: RFC 1035 section 4, RFC 6891 section 6.1.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

pub const A: u16 = 1;
pub const NS: u16 = 2;
pub const CNAME: u16 = 5;
pub const SOA: u16 = 6;
pub const PTR: u16 = 12;
pub const MX: u16 = 15;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;
pub const DNAME: u16 = 39;
pub const OPT: u16 = 41;
pub const RRSIG: u16 = 46;
pub const NSEC: u16 = 47;
pub const DNSKEY: u16 = 48;
pub const NSEC3: u16 = 50;
pub const SVCB: u16 = 64;
pub const HTTPS: u16 = 65;
pub const ANY: u16 = 255;

pub const IN: u16 = 1;
pub const CH: u16 = 3;

pub const NOERROR: u16 = 0;
pub const FORMERR: u16 = 1;
pub const SERVFAIL: u16 = 2;
pub const NXDOMAIN: u16 = 3;
pub const NOTIMP: u16 = 4;
pub const REFUSED: u16 = 5;
pub const BADVERS: u16 = 16;

/// The bits of the header's second word.
pub const QR: u16 = 0x8000;
pub const AA: u16 = 0x0400;
pub const TC: u16 = 0x0200;
pub const RD: u16 = 0x0100;
pub const RA: u16 = 0x0080;
pub const Z: u16 = 0x0040;
pub const AD: u16 = 0x0020;
pub const CD: u16 = 0x0010;

/// EDNS option codes.
pub const NSID: u16 = 3;
pub const CLIENT_SUBNET: u16 = 8;
pub const COOKIE: u16 = 10;
pub const KEEPALIVE: u16 = 11;
pub const PADDING: u16 = 12;
pub const EXTENDED_ERROR: u16 = 15;

/// EDE codes.
pub const STALE_ANSWER: u16 = 3;
pub const CACHED_ERROR: u16 = 13;
pub const STALE_NXDOMAIN: u16 = 19;
pub const NOT_AUTHORITATIVE: u16 = 20;
pub const NO_REACHABLE_AUTHORITY: u16 = 22;

/// One resource record. Names in `rdata` of the RFC 1035 types and SRV are written out.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Rr {
    /// Uncompressed wire form, letters as found.
    pub owner: Vec<u8>,
    pub rtype: u16,
    pub class: u16,
    pub ttl: u32,
    pub rdata: Vec<u8>,
}

/// An OPT record.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Opt {
    pub payload_size: u16,
    pub extended_rcode: u8,
    pub version: u8,
    /// DO is 0x8000; the rest is Z.
    pub flags: u16,
    pub options: Vec<(u16, Vec<u8>)>,
}

/// A message, taken apart. Records keep their order; OPT is not among `additional`.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub id: u16,
    pub flags: u16,
    /// QNAME, QTYPE and QCLASS of every question, as on the wire.
    pub question: Vec<u8>,
    /// Counts of the header, which the reader has found to be true.
    pub counts: [u16; 4],
    pub answers: Vec<Rr>,
    pub authorities: Vec<Rr>,
    pub additionals: Vec<Rr>,
    pub opts: Vec<Opt>,
    /// First octet of the first answer's owner as on the wire: 0xc0 where it is a pointer.
    pub first_owner: Option<[u8; 2]>,
    /// Octets behind the last record.
    pub trailing: usize,
}

// === impl Message ===

impl Message {
    /// Takes `octets` apart.
    ///
    /// # Errors
    /// Where the octets stop making sense.
    pub fn read(octets: &[u8]) -> Result<Self, String> {
        let mut message = Self { id: word(octets, 0)?, flags: word(octets, 2)?, ..Self::default() };
        for (section, count) in message.counts.iter_mut().enumerate() {
            *count = word(octets, 4 + 2 * section)?;
        }
        let mut at = 12;
        for _ in 0..message.counts[0] {
            let (_, next) = read_name(octets, at)?;
            let end = next + 4;
            message.question.extend(octets.get(at..end).ok_or("question runs out")?);
            at = end;
        }
        for section in 1..4 {
            for number in 0..message.counts[section] {
                if section == 1 && number == 0 {
                    message.first_owner = octets.get(at..at + 2).and_then(|two| two.try_into().ok());
                }
                let (record, next) =
                    read_record(octets, at).map_err(|e| format!("{e} (section {section}, {number})"))?;
                at = next;
                match (section, record.rtype) {
                    (1, _) => message.answers.push(record),
                    (2, _) => message.authorities.push(record),
                    (_, OPT) => message.opts.push(read_opt(&record)?),
                    _ => message.additionals.push(record),
                }
            }
        }
        message.trailing = octets.len() - at;
        Ok(message)
    }

    /// All records but OPT.
    pub fn records(&self) -> impl Iterator<Item = &Rr> {
        self.answers.iter().chain(&self.authorities).chain(&self.additionals)
    }

    pub fn opt(&self) -> Option<&Opt> {
        self.opts.first()
    }

    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Twelve bits: the header's four and OPT's eight.
    pub fn rcode(&self) -> u16 {
        self.flags & 15 | self.opt().map_or(0, |opt| u16::from(opt.extended_rcode) << 4)
    }
}

// === impl Opt ===

impl Opt {
    pub fn dnssec_ok(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    pub fn option(&self, code: u16) -> Option<&[u8]> {
        self.options.iter().find(|(it, _)| *it == code).map(|(_, data)| &data[..])
    }

    /// The record's octets.
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![0];
        out.extend(OPT.to_be_bytes());
        out.extend(self.payload_size.to_be_bytes());
        out.extend([self.extended_rcode, self.version]);
        out.extend(self.flags.to_be_bytes());
        let data: Vec<u8> = self
            .options
            .iter()
            .flat_map(|(code, data)| [&code.to_be_bytes()[..], &length(data).to_be_bytes(), data].concat())
            .collect();
        out.extend(length(&data).to_be_bytes());
        out.extend(data);
        out
    }
}

// === impl Rr ===

impl Rr {
    pub fn new(owner: &str, rtype: u16, ttl: u32, rdata: Vec<u8>) -> Self {
        Self { owner: name(owner), rtype, class: IN, ttl, rdata }
    }

    /// The record's octets, the owner as `c00c` where it equals `qname`.
    pub fn write(&self, qname: &[u8]) -> Vec<u8> {
        let mut out = if self.owner.eq_ignore_ascii_case(qname) { vec![0xc0, 12] } else { self.owner.clone() };
        out.extend(self.rtype.to_be_bytes());
        out.extend(self.class.to_be_bytes());
        out.extend(self.ttl.to_be_bytes());
        out.extend(length(&self.rdata).to_be_bytes());
        out.extend(&self.rdata);
        out
    }

    /// The owner in text, lower case, no final dot.
    pub fn owner_text(&self) -> String {
        text(&self.owner)
    }

    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.rdata[..].try_into().ok()?;
        (self.rtype == A).then(|| octets.into())
    }

    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        let octets: [u8; 16] = self.rdata[..].try_into().ok()?;
        (self.rtype == AAAA).then(|| octets.into())
    }
}

/// Records as an upstream's script writes them.
pub fn a(owner: &str, ttl: u32, address: impl Into<Ipv4Addr>) -> Rr {
    Rr::new(owner, A, ttl, address.into().octets().to_vec())
}

pub fn aaaa(owner: &str, ttl: u32, address: impl Into<Ipv6Addr>) -> Rr {
    Rr::new(owner, AAAA, ttl, address.into().octets().to_vec())
}

pub fn cname(owner: &str, ttl: u32, target: &str) -> Rr {
    Rr::new(owner, CNAME, ttl, name(target))
}

pub fn ns(owner: &str, ttl: u32, host: &str) -> Rr {
    Rr::new(owner, NS, ttl, name(host))
}

pub fn mx(owner: &str, ttl: u32, host: &str) -> Rr {
    Rr::new(owner, MX, ttl, [&[0, 10], &name(host)[..]].concat())
}

pub fn srv(owner: &str, ttl: u32, port: u16, host: &str) -> Rr {
    Rr::new(owner, SRV, ttl, [&[0, 0, 0, 0], &port.to_be_bytes()[..], &name(host)].concat())
}

pub fn soa(owner: &str, ttl: u32, minimum: u32) -> Rr {
    let mut rdata = [name("ns.test"), name("admin.test")].concat();
    for field in [1, 7200, 3600, 86_400, minimum] {
        rdata.extend(u32::to_be_bytes(field));
    }
    Rr::new(owner, SOA, ttl, rdata)
}

/// A signature over `covered` by the zone `signer`. Its bits are nonsense, which nobody but a validator minds.
pub fn rrsig(owner: &str, ttl: u32, covered: u16, signer: &str) -> Rr {
    let mut rdata = covered.to_be_bytes().to_vec();
    rdata.extend([13, 2]);
    rdata.extend(ttl.to_be_bytes());
    rdata.extend(2_000_000_000_u32.to_be_bytes());
    rdata.extend(1_700_000_000_u32.to_be_bytes());
    rdata.extend(4711_u16.to_be_bytes());
    rdata.extend(name(signer));
    rdata.extend([0x5a; 64]);
    Rr::new(owner, RRSIG, ttl, rdata)
}

/// An NSEC record that says `owner` has A, RRSIG and NSEC.
pub fn nsec(owner: &str, ttl: u32, next: &str) -> Rr {
    Rr::new(owner, NSEC, ttl, [&name(next)[..], &[0, 6, 0x40, 0, 0, 0, 0, 3]].concat())
}

/// A name in text to its uncompressed wire form. `\DDD` and `\X` as in RFC 1035 section 5.1; letters kept.
pub fn name(text: &str) -> Vec<u8> {
    let mut labels = vec![Vec::new()];
    let mut input = text.bytes();
    while let Some(octet) = input.next() {
        let label = labels.last_mut().expect("never empty");
        match octet {
            b'.' => labels.push(Vec::new()),
            b'\\' => {
                let next = input.next().expect("something follows a backslash");
                if next.is_ascii_digit() {
                    let digits = [next, input.next().expect("a digit"), input.next().expect("a digit")];
                    label.push(digits.iter().fold(0, |sum, digit| sum * 10 + (digit - b'0')));
                } else {
                    label.push(next);
                }
            }
            _ => label.push(octet),
        }
    }
    let mut wire = Vec::new();
    for label in labels.iter().filter(|label| !label.is_empty()) {
        wire.push(label.len() as u8);
        wire.extend(label);
    }
    wire.push(0);
    wire
}

/// An uncompressed wire name in text: lower case, no final dot, odd octets as `\DDD`.
pub fn text(wire: &[u8]) -> String {
    let mut out = String::new();
    let mut rest = wire;
    while let [length @ 1..=63, tail @ ..] = rest {
        let (label, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        if !out.is_empty() {
            out.push('.');
        }
        for octet in label {
            if octet.is_ascii_graphic() && !b".\\\"".contains(octet) {
                out.push(octet.to_ascii_lowercase().into());
            } else {
                write!(out, "\\{octet:03}").expect("strings take all");
            }
        }
        rest = tail;
    }
    out
}

fn length(data: &[u8]) -> u16 {
    data.len().try_into().expect("scripts stay below 65,536 octets")
}

fn word(octets: &[u8], at: usize) -> Result<u16, String> {
    let two = octets.get(at..at + 2).ok_or_else(|| format!("message ends before {at}"))?;
    Ok(u16::from_be_bytes(two.try_into().expect("two octets")))
}

/// The name at `at`, written out, and where it ends.
pub fn read_name(octets: &[u8], at: usize) -> Result<(Vec<u8>, usize), String> {
    let (mut out, mut here, mut end) = (Vec::new(), at, None);
    loop {
        let length = *octets.get(here).ok_or_else(|| format!("name at {at} runs out"))?;
        match length {
            0 => {
                out.push(0);
                return if out.len() > 255 {
                    Err(format!("name at {at} too long"))
                } else {
                    Ok((out, end.unwrap_or(here + 1)))
                };
            }
            1..=63 => {
                let next = here + 1 + usize::from(length);
                out.extend(octets.get(here..next).ok_or_else(|| format!("label at {here} runs out"))?);
                here = next;
            }
            0xc0.. => {
                let target = usize::from(word(octets, here)? & 0x3fff);
                if target >= here {
                    return Err(format!("pointer at {here} does not go back"));
                }
                end = end.or(Some(here + 2));
                here = target;
            }
            _ => return Err(format!("label type {length:#x} at {here}")),
        }
    }
}

fn read_record(octets: &[u8], at: usize) -> Result<(Rr, usize), String> {
    let (owner, at) = read_name(octets, at)?;
    let (rtype, class) = (word(octets, at)?, word(octets, at + 2)?);
    let ttl = u32::from(word(octets, at + 4)?) << 16 | u32::from(word(octets, at + 6)?);
    let (start, end) = (at + 10, at + 10 + usize::from(word(octets, at + 8)?));
    let raw = octets.get(start..end).ok_or_else(|| format!("RDATA at {start} runs out"))?;
    let fixed = match rtype {
        CNAME | NS | PTR | DNAME | SOA => Some(0),
        MX => Some(2),
        SRV => Some(6),
        _ => None,
    };
    let mut rdata = raw.to_vec();
    if let Some(fixed) = fixed {
        rdata.truncate(fixed);
        let (mut next, names) = (start + fixed, if rtype == SOA { 2 } else { 1 });
        for _ in 0..names {
            let (written_out, after) = read_name(octets, next)?;
            rdata.extend(written_out);
            next = after;
        }
        rdata.extend(octets.get(next..end).ok_or_else(|| format!("name leaves the RDATA at {start}"))?);
    }
    Ok((Rr { owner, rtype, class, ttl, rdata }, end))
}

fn read_opt(record: &Rr) -> Result<Opt, String> {
    let [extended_rcode, version, high, low] = record.ttl.to_be_bytes();
    let mut options = Vec::new();
    let mut at = 0;
    while at < record.rdata.len() {
        let (code, length) = (word(&record.rdata, at)?, usize::from(word(&record.rdata, at + 2)?));
        options.push((code, record.rdata.get(at + 4..at + 4 + length).ok_or("option runs out")?.to_vec()));
        at += 4 + length;
    }
    if record.owner != [0] {
        return Err("OPT owned by another name than the root".into());
    }
    Ok(Opt { payload_size: record.class, extended_rcode, version, flags: u16::from_be_bytes([high, low]), options })
}
