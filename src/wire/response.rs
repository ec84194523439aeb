//! A server's response: judged, cleaned and made ready to be stored, once, on the way in.
//!
//! A [`Response`] exists only for octets that answer the question we asked, hold together to the last record that
//! counts, and carry nothing that was not asked for. Whatever else arrives is [`Unfit`]: the caller counts it and goes
//! on waiting. Nothing here is validated in the sense of DNSSEC.
//!
//! ```text
//! octets ─► header, question ─► records::walk ─► clean ─► TTLs ─► copied as they are          (nearly always)
//!              │ not ours          │ flaw           │             └► rebuild: something had to go
//!              └───────────────────┴────► Unfit ◄───┘
//! ```
//!
//! Read first: RFC 1035 section 4.1, RFC 2308 sections 2 to 5, RFC 5452 section 9, RFC 6604 section 3.

use super::clean::{self, Findings};
use super::header::{AD, Header, QR, RA, RCODE, TC};
use super::rebuild::Writer;
use super::records::{self, QNAME_POINTER, Record, Section, Walk};
use super::{HEADER, MESSAGE_MAX, Opcode, Rcode, Transport, Type, name, svcb};

/// The largest TTL (RFC 2181 section 8). RFC 8767 section 4: what is above it counts as it, not as zero.
const TTL_MAX: u32 = 0x7fff_ffff;

/// The server speaks for the zone. Nobody else looks at it: what is sent on is not its word any more.
const AA: u16 = 0x0400;

/// A server's answer to one question, cleaned: fit to be stored and sent on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Response {
    octets: Box<[u8]>,
    ttl_offsets: Box<[u16]>,
    kind: Kind,
    rcode: Rcode,
    min_ttl: Option<u32>,
    truncated: bool,
    contains_aaaa: bool,
    signed: bool,
    edns_seen: bool,
}

/// What a response says about the question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Records of the type asked for, CNAMEs before them or not.
    Answer,
    /// No answer, and the server says it could not: any rcode but NOERROR and NXDOMAIN. Holds no records.
    Failure(Rcode),
    /// The name exists without records of the type, or a chain of CNAMEs ends nowhere (RFC 2308 section 2.2).
    NoData {
        /// Seconds it may be believed: the lower of the SOA's TTL and MINIMUM. `None` without SOA: not at all
        /// (RFC 2308 section 5).
        negative_ttl: Option<u32>,
    },
    /// The last name of the chain does not exist (RFC 6604 section 3).
    NxDomain {
        /// As for [`NoData`](Self::NoData).
        negative_ttl: Option<u32>,
    },
    /// The server names others to ask, so it does not recurse for us.
    Referral,
}

/// What a response must answer to.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The query as we sent it, one question, its OPT right behind it.
    pub query: &'a [u8],
    /// What the response came by.
    pub transport: Transport,
    /// The letters of the question must come back as we sent them (draft-vixie-dnsext-dns0x20).
    pub exact_case: bool,
}

impl Response {
    /// Examines `octets` as the response to `asked`.
    ///
    /// Octets behind the last record are dropped. A response with TC set over UDP keeps no records.
    ///
    /// # Errors
    /// [`Unfit`]: not the response. The one awaited may still come.
    pub fn parse_for(octets: &[u8], asked: &Asked<'_>) -> Result<Self, Unfit> {
        let question = Question::of(asked.query).ok_or(Unfit::WrongQuestion)?;
        let header = check_header(octets, asked)?;
        let question_end = question.check(octets, asked.exact_case, &header)?;
        let truncated = header.has(TC);
        if truncated && asked.transport == Transport::Tcp {
            return Err(Unfit::TruncatedOverTcp);
        }
        let walk = match records::walk(octets, question_end) {
            // Cut where the datagram ended, as some servers do. TC is all that counts.
            Err(_) if truncated => Walk { records: Vec::new(), opt: None, pointers_lead_to_names: true },
            walk => walk?,
        };
        let extended = walk.opt.as_ref().map_or(0, |opt| u16::from(opt.extended_rcode) << 4);
        let rcode = Rcode(extended | header.flags & RCODE);
        let failed = !matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN);
        // A server that did not get as far as the question need not repeat it, but then it has nothing else to say.
        if question_end == HEADER && !((failed || truncated) && walk.records.is_empty()) {
            return Err(Unfit::NoQuestion);
        }
        let edns_seen = walk.opt.is_some();
        if failed || truncated {
            let kind = Kind::of(rcode, &Findings::default(), None, &header);
            let octets = [&cleaned(header).octets(), question.octets].concat();
            return Ok(Self { truncated, edns_seen, ..Self::bare(octets, kind, rcode) });
        }
        let mut walk = walk;
        let findings = clean::keep_relevant(octets, &mut walk.records, question.qtype, question.dnssec_ok)?;
        let negative_ttl = findings.soa.and_then(|soa| lower_soa_ttl(octets, &mut walk.records[soa], &findings));
        level_ttls(octets, &mut walk.records);
        let kind = Kind::of(rcode, &findings, negative_ttl, &header);
        let kept = || walk.records.iter().filter(|record| record.kept);
        let (mut message, ttl_offsets) = assemble(octets, question_end, &walk)?;
        // Behind the flags stand the counts of what was assembled.
        message[..4].copy_from_slice(&cleaned(header).octets()[..4]);
        Ok(Self {
            ttl_offsets: ttl_offsets.into(),
            min_ttl: kept().map(|record| record.ttl).min(),
            contains_aaaa: kept().any(|record| leads_to_ipv6(octets, record)),
            signed: kept().any(|record| record.section == Section::Answer && record.rtype == Type::RRSIG),
            edns_seen,
            ..Self::bare(message, kind, rcode)
        })
    }

    /// A response without records.
    fn bare(octets: Vec<u8>, kind: Kind, rcode: Rcode) -> Self {
        Self {
            octets: octets.into(),
            ttl_offsets: Box::default(),
            kind,
            rcode,
            min_ttl: None,
            truncated: false,
            contains_aaaa: false,
            signed: false,
            edns_seen: false,
        }
    }

    /// The message: ID 0, QR, RA and the rcode's lower bits set, AA clear, AD as it came; the question; the records
    /// kept, without OPT. The question's name as an owner is always the pointer `c00c`.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Offsets in [`octets`](Self::octets) of the TTL of every record, ascending.
    pub fn ttl_offsets(&self) -> &[u16] {
        &self.ttl_offsets
    }

    /// The response in the form that composing and editing take.
    pub fn stored(&self) -> Stored<'_> {
        Stored::new(&self.octets, &self.ttl_offsets)
    }

    /// The octets and the TTL offsets, to be stored.
    pub fn into_parts(self) -> (Box<[u8]>, Box<[u16]>) {
        (self.octets, self.ttl_offsets)
    }

    /// What the response says about the question. Says nothing if it is [truncated](Self::truncated).
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The rcode, the bits in OPT included.
    pub fn rcode(&self) -> Rcode {
        self.rcode
    }

    /// TC was set over UDP: ask again over TCP (RFC 1035 section 4.2.1). There are no records here.
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// The server vouches for the data (RFC 4035 section 3.2.3).
    pub fn authentic_data(&self) -> bool {
        Header::read(&self.octets).is_some_and(|header| header.has(AD))
    }

    /// There is an AAAA record or a readable `ipv6hint` somewhere.
    pub fn contains_aaaa(&self) -> bool {
        self.contains_aaaa
    }

    /// There is an RRSIG record in the answer section.
    pub fn is_signed(&self) -> bool {
        self.signed
    }

    /// The server sent an OPT record.
    pub fn edns_seen(&self) -> bool {
        self.edns_seen
    }

    /// The lowest TTL of all records kept; `None` if there are none.
    pub fn min_ttl(&self) -> Option<u32> {
        self.min_ttl
    }
}

impl Kind {
    fn of(rcode: Rcode, findings: &Findings, negative_ttl: Option<u32>, header: &Header) -> Self {
        match rcode {
            Rcode::NOERROR if findings.answered => Self::Answer,
            Rcode::NOERROR if is_referral(findings, header) => Self::Referral,
            // With CNAMEs and without SOA it is a chain cut short: relayed, but without a lifetime (section 2.2).
            Rcode::NOERROR => Self::NoData { negative_ttl },
            Rcode::NXDOMAIN => Self::NxDomain { negative_ttl },
            rcode => Self::Failure(rcode),
        }
    }
}

/// RFC 2308 section 2.2: NS in the authority section and nothing else. What means NODATA has an SOA or sets AA.
fn is_referral(findings: &Findings, header: &Header) -> bool {
    findings.delegated && !findings.redirected && findings.soa.is_none() && !header.has(AA)
}

/// A message that was a [`Response`]: what is stored, and what answers are made of. Its rcode is the header's.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    pub(super) octets: &'a [u8],
    pub(super) ttl_offsets: &'a [u16],
}

impl<'a> Stored<'a> {
    /// Puts together again what [`Response::into_parts`] or [`Edited`](super::edit::Edited) took apart.
    pub fn new(octets: &'a [u8], ttl_offsets: &'a [u16]) -> Self {
        Self { octets, ttl_offsets }
    }

    /// The message, as [`Response::octets`] has it.
    pub fn octets(self) -> &'a [u8] {
        self.octets
    }

    /// Offsets of the TTLs, as [`Response::ttl_offsets`] has them.
    pub fn ttl_offsets(self) -> &'a [u16] {
        self.ttl_offsets
    }
}

// === header and question ===

/// The header of what may be the response to `asked`.
fn check_header(octets: &[u8], asked: &Asked<'_>) -> Result<Header, Unfit> {
    let header = Header::read(octets).ok_or(Unfit::Short)?;
    if octets.len() > MESSAGE_MAX {
        return Err(Unfit::TooLong);
    }
    if !header.has(QR) {
        return Err(Unfit::NotAResponse);
    }
    if !asked.query.starts_with(&header.id.to_be_bytes()) {
        return Err(Unfit::WrongId);
    }
    if header.opcode() != Opcode::QUERY {
        return Err(Unfit::WrongOpcode);
    }
    Ok(header)
}

/// The header to store, before its records are counted. The answer to a client sets ID, RD and CD.
fn cleaned(header: Header) -> Header {
    let flags = QR | RA | header.flags & (TC | AD | RCODE);
    Header { id: 0, flags, questions: 1, answers: 0, authorities: 0, additionals: 0 }
}

/// The question we asked.
struct Question<'a> {
    /// QNAME, QTYPE, QCLASS.
    octets: &'a [u8],
    qtype: Type,
    dnssec_ok: bool,
}

impl<'a> Question<'a> {
    fn of(query: &'a [u8]) -> Option<Self> {
        let behind_header = query.get(HEADER..)?;
        let (octets, rest) = behind_header.split_at_checked(name::uncompressed_length(behind_header)? + 4)?;
        let &[type_high, type_low, _, _] = octets.last_chunk()?;
        // RFC 3225 section 3: DO is the highest of the flags in OPT's TTL. The OPT of our queries comes first.
        let dnssec_ok = matches!(rest, &[0, 0, 41, _, _, _, _, flags, ..] if flags & 0x80 != 0);
        Some(Self { octets, qtype: Type(u16::from_be_bytes([type_high, type_low])), dnssec_ok })
    }

    /// Compares the question of a response; returns where it ends: right behind the header if there is none.
    fn check(&self, octets: &[u8], exact_case: bool, header: &Header) -> Result<usize, Unfit> {
        match header.questions {
            0 => return Ok(HEADER),
            1 => {}
            _ => return Err(Unfit::ManyQuestions),
        }
        let end = HEADER + self.octets.len();
        let theirs = octets.get(HEADER..end).unwrap_or_default();
        if theirs == self.octets {
            return Ok(end);
        }
        let qname = self.octets.len() - 4;
        if theirs.eq_ignore_ascii_case(self.octets) && theirs[qname..] == self.octets[qname..] {
            return if exact_case { Err(Unfit::WrongCase) } else { Ok(end) };
        }
        let whole = name::skip(octets, HEADER).is_some_and(|end| end + 4 <= octets.len());
        Err(if whole { Unfit::WrongQuestion } else { Unfit::Overrun })
    }
}

// === TTLs ===

/// Writes what a negative answer may live into its SOA (RFC 2308 section 3) and returns it; `None` for others.
fn lower_soa_ttl(octets: &[u8], soa: &mut Record, findings: &Findings) -> Option<u32> {
    if findings.answered {
        return None;
    }
    let minimum = soa.rdata(octets).last_chunk().copied().map(u32::from_be_bytes)?;
    soa.ttl = soa.ttl.min(minimum).min(TTL_MAX);
    Some(soa.ttl)
}

/// Gives the records of one `RRset` one TTL, the lowest (RFC 2181 section 5.2), and none more than [`TTL_MAX`].
fn level_ttls(octets: &[u8], records: &mut [Record]) {
    let mut kept: Vec<&mut Record> = records.iter_mut().filter(|record| record.kept).collect();
    for record in &mut kept {
        record.ttl = record.ttl.min(TTL_MAX);
    }
    if kept.windows(2).all(|pair| pair[0].ttl == pair[1].ttl) {
        return;
    }
    // Two names of one hash would share a TTL: the lower one, so no harm.
    // Signatures belong to what they cover, not to each other (RFC 4034 section 3).
    let rrset = |record: &Record| (record.owner_hash, record.rtype, record.type_covered(octets));
    kept.sort_by_cached_key(|record| (rrset(record), record.ttl));
    for next in 1..kept.len() {
        if rrset(kept[next]) == rrset(kept[next - 1]) {
            kept[next].ttl = kept[next - 1].ttl;
        }
    }
}

// === the message to store ===

/// The message of the kept records and the offsets of their TTLs, its first four octets still to be written.
fn assemble(octets: &[u8], question_end: usize, walk: &Walk) -> Result<(Vec<u8>, Vec<u16>), Unfit> {
    let kept = walk.records.iter().filter(|record| record.kept);
    let count = kept.clone().count();
    let end = copyable_end(octets, question_end, walk, count);
    let Some(end) = end else {
        return rebuild(octets, question_end, kept, count);
    };
    let mut message = octets[..end].to_vec();
    let mut counts = [0u16; 3];
    let mut ttl_offsets = Vec::with_capacity(count);
    for record in kept {
        counts[record.section as usize] += 1;
        ttl_offsets.push(record.ttl_offset());
        let at = usize::from(record.ttl_offset());
        message[at..at + 4].copy_from_slice(&record.ttl.to_be_bytes());
    }
    for (count, field) in counts.into_iter().zip([6, 8, 10]) {
        message[field..field + 2].copy_from_slice(&count.to_be_bytes());
    }
    Ok((message, ttl_offsets))
}

/// The end of the first `count` records if these are the ones kept and can stay as they are.
fn copyable_end(octets: &[u8], question_end: usize, walk: &Walk, count: usize) -> Option<usize> {
    let mut end = question_end;
    for record in &walk.records[..count] {
        let range = record.range();
        let as_pointer = octets[range.start..].starts_with(&QNAME_POINTER);
        // What does not follow the record before it follows an OPT, which goes.
        if !record.kept || range.start != end || !as_pointer && records::same_name(octets, range.start, HEADER) {
            return None;
        }
        end = range.end;
    }
    walk.pointers_lead_to_names.then_some(end)
}

fn rebuild<'a>(
    octets: &[u8],
    question_end: usize,
    kept: impl Iterator<Item = &'a Record>,
    count: usize,
) -> Result<(Vec<u8>, Vec<u16>), Unfit> {
    let mut writer = Writer::new(octets, question_end, count);
    for record in kept {
        match writer.copy(record) {
            Ok(()) => {}
            // The additional section is a courtesy (RFC 2181 section 9): what does not fit is left out.
            Err(_) if record.section == Section::Additional => break,
            Err(_) => return Err(Unfit::TooLong),
        }
    }
    Ok(writer.finish())
}

fn leads_to_ipv6(octets: &[u8], record: &Record) -> bool {
    match record.rtype {
        Type::AAAA => true,
        Type::SVCB | Type::HTTPS => svcb::parameters(octets, record).is_some_and(svcb::has_ipv6hint),
        _ => false,
    }
}

// === what is no response ===

/// Why octets are not the response to our query. The caller goes on waiting: the true one may still come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unfit {
    /// A pointer that leads nowhere, a label of unknown type, or a name of more than 255 octets.
    BadName,
    /// Two OPT records, or one that is not the root's or not in the additional section (RFC 6891 section 6.1.1).
    BadOpt,
    /// RDATA that its type does not allow: an A record of five octets, a name that does not end where RDATA does.
    BadRdata,
    /// More than 16 CNAMEs in a row.
    ChainTooLong,
    /// More than one question.
    ManyQuestions,
    /// No question, and nothing that explains why.
    NoQuestion,
    /// QR clear: a query.
    NotAResponse,
    /// A record that does not end within the message, or fewer records than counted.
    Overrun,
    /// Less than a header.
    Short,
    /// A TSIG record, though we asked for none.
    Signed,
    /// More than 65,535 octets, or as many once cleaned.
    TooLong,
    /// TC over TCP, where nothing needs to be cut.
    TruncatedOverTcp,
    /// The letters of the question came back otherwise.
    WrongCase,
    /// Another ID.
    WrongId,
    /// An opcode other than QUERY.
    WrongOpcode,
    /// A question for another name, type or class.
    WrongQuestion,
}

impl Unfit {
    /// The reason in one word, for metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::BadName => "bad_name",
            Self::BadOpt => "bad_opt",
            Self::BadRdata => "bad_rdata",
            Self::ChainTooLong => "chain_too_long",
            Self::ManyQuestions => "many_questions",
            Self::NoQuestion => "no_question",
            Self::NotAResponse => "not_a_response",
            Self::Overrun => "overrun",
            Self::Short => "short",
            Self::Signed => "signed",
            Self::TooLong => "too_long",
            Self::TruncatedOverTcp => "truncated_over_tcp",
            Self::WrongCase => "wrong_case",
            Self::WrongId => "wrong_id",
            Self::WrongOpcode => "wrong_opcode",
            Self::WrongQuestion => "wrong_question",
        }
    }

    /// Whether somebody may be guessing our query (RFC 5452 section 9): well-formed, but ID, question or case differ.
    pub const fn is_near_miss(self) -> bool {
        matches!(self, Self::WrongCase | Self::WrongId | Self::WrongQuestion)
    }
}

#[cfg(test)]
pub(super) mod fixture;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
