//! What an upstream can be told to do: answers put together record by record, and behaviours ready to use.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::super::octets::{self, Opt, Rr};
use super::{Act, Seen, Transport};

/// An answer in the making. Starts as NOERROR without records; has an OPT record if the query had one.
#[derive(Clone, Debug)]
pub struct Reply {
    pub id: u16,
    pub flags: u16,
    pub question: Vec<u8>,
    pub answers: Vec<Rr>,
    pub authorities: Vec<Rr>,
    pub additionals: Vec<Rr>,
    pub opt: Option<Opt>,
    /// Whether owners that equal QNAME are written as a pointer to it.
    pub compressed: bool,
}

// === impl Reply ===

impl Reply {
    pub fn to(seen: &Seen) -> Self {
        Self {
            id: seen.id,
            flags: octets::QR | octets::RA | seen.flags & (octets::RD | octets::CD),
            question: seen.message.question.clone(),
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            opt: seen.opt().map(|asked| Opt { payload_size: 1232, flags: asked.flags & 0x8000, ..Opt::default() }),
            compressed: true,
        }
    }

    pub fn rcode(mut self, rcode: u16) -> Self {
        self.flags = self.flags & !15 | rcode & 15;
        if let Some(opt) = &mut self.opt {
            opt.extended_rcode = (rcode >> 4) as u8;
        }
        self
    }

    pub fn flag(mut self, flag: u16) -> Self {
        self.flags |= flag;
        self
    }

    pub fn without(mut self, flag: u16) -> Self {
        self.flags &= !flag;
        self
    }

    pub fn answer(mut self, record: Rr) -> Self {
        self.answers.push(record);
        self
    }

    pub fn answers(mut self, records: impl IntoIterator<Item = Rr>) -> Self {
        self.answers.extend(records);
        self
    }

    pub fn authority(mut self, record: Rr) -> Self {
        self.authorities.push(record);
        self
    }

    pub fn additional(mut self, record: Rr) -> Self {
        self.additionals.push(record);
        self
    }

    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        self.opt.get_or_insert_default().options.push((code, data.to_vec()));
        self
    }

    pub fn no_opt(mut self) -> Self {
        self.opt = None;
        self
    }

    pub fn octets(&self) -> Vec<u8> {
        let count = |records: &[Rr]| u16::try_from(records.len()).expect("fewer than 65,536 records");
        let additionals = count(&self.additionals) + u16::from(self.opt.is_some());
        let questions = u16::from(!self.question.is_empty());
        let words = [self.id, self.flags, questions, count(&self.answers), count(&self.authorities), additionals];
        let mut out: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        out.extend(&self.question);
        let end = if self.compressed { self.question.len().saturating_sub(4) } else { 0 };
        let qname = &self.question[..end];
        for record in self.answers.iter().chain(&self.authorities).chain(&self.additionals) {
            out.extend(record.write(qname));
        }
        out.extend(self.opt.iter().flat_map(Opt::write));
        out
    }

    /// Sent at once.
    pub fn now(&self) -> Vec<Act> {
        self.after(Duration::ZERO)
    }

    /// Sent after a delay.
    pub fn after(&self, after: Duration) -> Vec<Act> {
        vec![Act::Reply { after, octets: self.octets() }]
    }
}

// === Ready-made behaviours ===

/// Answers with the records of `records` whose owner and type match the question; else NODATA with SOA.
pub fn records(records: Vec<Rr>) -> impl Fn(&Seen) -> Vec<Act> + Send + Sync {
    move |seen| {
        let fits = |record: &&Rr| record.owner_text() == seen.name && record.rtype == seen.rtype;
        let found: Vec<Rr> = records.iter().filter(fits).cloned().collect();
        if found.is_empty() { nodata(seen).now() } else { Reply::to(seen).answers(found).now() }
    }
}

/// Answers A and AAAA with [`address_of`] and [`address6_of`] the name; NODATA for other types.
pub fn encoded(ttl: u32) -> impl Fn(&Seen) -> Vec<Act> + Send + Sync {
    move |seen| encoded_reply(seen, ttl).now()
}

/// The answer that [`encoded`] gives.
pub fn encoded_reply(seen: &Seen, ttl: u32) -> Reply {
    match seen.rtype {
        octets::A => Reply::to(seen).answer(octets::a(&seen.name, ttl, address_of(&seen.name))),
        octets::AAAA => Reply::to(seen).answer(octets::aaaa(&seen.name, ttl, address6_of(&seen.name))),
        _ => nodata(seen),
    }
}

/// The address that stands for a name, in 10/8.
pub fn address_of(name: &str) -> Ipv4Addr {
    let [_, a, b, c] = (digest(name) as u32).to_be_bytes();
    Ipv4Addr::new(10, a, b, c)
}

/// The address that stands for a name, in `fd00::/16`.
pub fn address6_of(name: &str) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(digest(name)))
}

fn digest(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.trim_end_matches('.').to_ascii_lowercase().hash(&mut hasher);
    hasher.finish()
}

/// A records with a new address for each query, 192.0.2.1 first, in the order asked.
pub fn changing(ttl: u32) -> impl Fn(&Seen) -> Vec<Act> + Send + Sync {
    let count = AtomicU8::new(0);
    move |seen| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        Reply::to(seen).answer(octets::a(&seen.name, ttl, [192, 0, 2, number])).now()
    }
}

/// NOERROR without answer, SOA of `test` with TTL and MINIMUM 60.
pub fn nodata(seen: &Seen) -> Reply {
    Reply::to(seen).authority(octets::soa("test", 60, 60))
}

/// NXDOMAIN, SOA of `test` with TTL and MINIMUM 60.
pub fn nxdomain(seen: &Seen) -> Reply {
    nodata(seen).rcode(octets::NXDOMAIN)
}

/// Never says anything.
pub fn silent(_: &Seen) -> Vec<Act> {
    Vec::new()
}

/// Answers everything with `rcode` and nothing else.
pub fn failing(rcode: u16) -> impl Fn(&Seen) -> Vec<Act> + Send + Sync {
    move |seen| Reply::to(seen).rcode(rcode).now()
}

/// As `behaviour`, but everything happens `delay` later.
pub fn delayed<B: Fn(&Seen) -> Vec<Act> + Send + Sync>(
    delay: Duration,
    behaviour: B,
) -> impl Fn(&Seen) -> Vec<Act> + Send + Sync {
    move |seen| {
        let mut acts = behaviour(seen);
        for act in &mut acts {
            match act {
                Act::Close { after } | Act::Raw { after, .. } | Act::Reply { after, .. } | Act::Reset { after } => {
                    *after += delay;
                }
            }
        }
        acts
    }
}

/// As `behaviour` over TCP; over UDP an empty answer with TC.
pub fn truncating<B: Fn(&Seen) -> Vec<Act> + Send + Sync>(behaviour: B) -> impl Fn(&Seen) -> Vec<Act> + Send + Sync {
    move |seen| match seen.transport {
        Transport::Tcp => behaviour(seen),
        Transport::Udp => Reply::to(seen).flag(octets::TC).now(),
    }
}
