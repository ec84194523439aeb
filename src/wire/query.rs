//! A client's query: one that can be answered, or the reason why it is refused.
//!
//! Reading is one pass over the octets, without allocation. A [`Query`] exists only for a well-formed standard query
//! with one question of class IN whose type records can have; everything else is a [`Refusal`], which knows the response
//! code it deserves or that it deserves none.
//!
//! ```text
//! header ─► QR, opcode ─► question ─► class, type ─► counts ─► additional: OPT, TSIG ─► end of message
//!    └ drop, NOTIMP    └ FORMERR   └ REFUSED      └ FORMERR  └ FORMERR, BADVERS       └ FORMERR
//! ```
//!
//! Read first: RFC 1035 section 4.1, RFC 9619, RFC 6895 section 3.1, RFC 6891 section 6.1, RFC 8906 section 3.

use super::header::{AD, CD, Header, QR, RD};
use super::{Class, Edns, HEADER, Key, MESSAGE_MAX, Opcode, Refusal, Transport, Type, UDP_MAX, UDP_MIN, name};

/// A client's query that can be answered.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    asker: Asker<'a>,
    key: Key,
    length: usize,
}

impl<'a> Query<'a> {
    /// Reads the message a client sent; for TCP, the octets behind the length.
    ///
    /// # Errors
    /// Why there is no answer to it; [`refuse`](super::compose::refuse) writes the reply.
    #[inline]
    pub fn parse(octets: &'a [u8], transport: Transport) -> Result<Self, Refusal> {
        let header = Header::read(octets).ok_or(Refusal::Short)?;
        if header.has(QR) {
            return Err(Refusal::Response);
        }
        if header.opcode() != Opcode::QUERY {
            return Err(Refusal::Opcode);
        }
        if header.questions != 1 {
            return Err(Refusal::QuestionCount);
        }
        let (question, rest) = split_question(&octets[HEADER..]).ok_or(Refusal::Question)?;
        let (qname, qtype, qclass) = question.parts();
        judge_class(qclass)?;
        judge_type(qtype)?;
        if header.answers != 0 || header.authorities != 0 {
            return Err(Refusal::ForeignSection);
        }
        let (edns, result) = read_additional(rest, header.additionals, transport);
        result?;
        let asker = Asker::new(&header, question.0, edns, transport);
        let key = Key::copy(qname, qtype, asker.dnssec_ok(), asker.checking_disabled);
        Ok(Self { asker, key, length: octets.len() })
    }

    /// Octets of the whole message.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The message's ID.
    pub fn id(&self) -> u16 {
        self.asker.id
    }

    /// QNAME in the letters the client sent, uncompressed.
    pub fn qname(&self) -> &'a [u8] {
        let question = self.asker.question;
        &question[..question.len() - 4]
    }

    /// QNAME, QTYPE and QCLASS as the client sent them.
    pub fn question(&self) -> &'a [u8] {
        self.asker.question
    }

    /// The type asked for.
    pub fn qtype(&self) -> Type {
        self.key.qtype()
    }

    /// RD: the client wants us to ask others (RFC 1035 section 4.1.1).
    pub fn recursion_desired(&self) -> bool {
        self.asker.recursion_desired
    }

    /// CD: the client checks signatures itself (RFC 4035 section 3.2.2).
    pub fn checking_disabled(&self) -> bool {
        self.asker.checking_disabled
    }

    /// AD: the client understands the AD bit of the answer (RFC 6840 section 5.7).
    pub fn authentic_data(&self) -> bool {
        self.asker.authentic_data
    }

    /// The client's EDNS, if it speaks it.
    pub fn edns(&self) -> Option<Edns> {
        self.asker.edns
    }

    /// What answers to this query are stored under.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// All that is needed to reply.
    pub fn asker(&self) -> Asker<'a> {
        self.asker
    }
}

// === impl Asker ===

/// All that is needed to reply to a query. Borrows the question from the octets received.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Asker<'a> {
    /// The query's ID.
    pub id: u16,
    /// QNAME, QTYPE and QCLASS as sent; empty only while a query with an unreadable question is refused.
    pub question: &'a [u8],
    /// RD.
    pub recursion_desired: bool,
    /// CD.
    pub checking_disabled: bool,
    /// AD.
    pub authentic_data: bool,
    /// The client's EDNS, if it speaks it.
    pub edns: Option<Edns>,
    /// How the query came, and how the reply goes.
    pub transport: Transport,
}

impl<'a> Asker<'a> {
    #[inline]
    fn new(header: &Header, question: &'a [u8], edns: Option<Edns>, transport: Transport) -> Self {
        Self {
            id: header.id,
            question,
            recursion_desired: header.has(RD),
            checking_disabled: header.has(CD),
            authentic_data: header.has(AD),
            edns,
            transport,
        }
    }

    /// Octets the reply may have.
    #[inline]
    pub fn limit(&self) -> usize {
        match (self.transport, self.edns) {
            (Transport::Tcp, _) => MESSAGE_MAX,
            (Transport::Udp, None) => UDP_MIN,
            (Transport::Udp, Some(edns)) => usize::from(edns.payload_size).clamp(UDP_MIN, UDP_MAX),
        }
    }

    /// The type asked for; 0, which no query has, if there is no question.
    pub fn qtype(&self) -> Type {
        match *self.question {
            [.., high, low, _, _] => Type(u16::from_be_bytes([high, low])),
            _ => Type(0),
        }
    }

    /// DO of the client's EDNS.
    #[inline]
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Reads what a reply to a refused query needs, as far as it can be read.
    ///
    /// `None` if not even the header can. The question is left empty unless it is one and legal, EDNS unless the OPT
    /// record was found where it belongs.
    pub(super) fn of_refused(octets: &'a [u8], transport: Transport) -> Option<Self> {
        let header = Header::read(octets)?;
        let split = if header.questions == 1 { split_question(&octets[HEADER..]) } else { None };
        let Some((question, rest)) = split else { return Some(Asker::new(&header, &[], None, transport)) };
        let edns = if header.answers == 0 && header.authorities == 0 {
            read_additional(rest, header.additionals, transport).0
        } else {
            None
        };
        Some(Asker::new(&header, question.0, edns, transport))
    }
}

// === the parts of a query ===

/// The octets of a question that can be read: a legal uncompressed name and four octets.
struct Question<'a>(&'a [u8]);

impl<'a> Question<'a> {
    #[inline]
    fn parts(&self) -> (&'a [u8], Type, Class) {
        let (qname, &[t0, t1, c0, c1]) = self.0.split_last_chunk().expect("a question ends in QTYPE and QCLASS");
        (qname, Type(u16::from_be_bytes([t0, t1])), Class(u16::from_be_bytes([c0, c1])))
    }
}

/// Splits the question off the octets behind a header. A pointer has nothing to point to there, so it is no name.
#[inline]
fn split_question(body: &[u8]) -> Option<(Question<'_>, &[u8])> {
    let (question, rest) = body.split_at_checked(name::uncompressed_length(body)? + 4)?;
    Some((Question(question), rest))
}

fn judge_class(qclass: Class) -> Result<(), Refusal> {
    match qclass {
        Class::IN => Ok(()),
        Class::NONE => Err(Refusal::ClassNone),
        _ => Err(Refusal::Class),
    }
}

fn judge_type(qtype: Type) -> Result<(), Refusal> {
    match qtype {
        Type(0) | Type::NXNAME => Err(Refusal::TypeInvalid),
        Type::ANY => Ok(()),
        meta if meta.is_meta() => Err(Refusal::TypeMeta),
        _ => Ok(()),
    }
}

/// Reads the additional section, which must end the message. What EDNS was read stands beside the flaw.
///
/// Records that are neither OPT nor TSIG are checked for shape and ignored. So are signatures in the last place, TSIG and
/// SIG(0): they are for servers that share a secret with the client.
#[inline]
fn read_additional(mut rest: &[u8], count: u16, transport: Transport) -> (Option<Edns>, Result<(), Refusal>) {
    let mut edns = None;
    for behind in (0..count).rev() {
        let Some((record, next)) = Additional::split(rest) else { return (edns, Err(Refusal::Additional)) };
        match record.r#type {
            Type::OPT if edns.is_some() || !record.at_root => return (edns, Err(Refusal::Opt)),
            Type::OPT => {
                let (read, result) = Edns::read(record.class, record.ttl, record.rdata, transport);
                edns = Some(read);
                if let Err(flaw) = result {
                    return (edns, Err(flaw.into()));
                }
            }
            Type::TSIG if behind != 0 => return (edns, Err(Refusal::Tsig)),
            _ => {}
        }
        rest = next;
    }
    (edns, if rest.is_empty() { Ok(()) } else { Err(Refusal::LeftOver) })
}

/// A record of the additional section.
struct Additional<'a> {
    at_root: bool,
    r#type: Type,
    class: u16,
    ttl: [u8; 4],
    rdata: &'a [u8],
}

impl<'a> Additional<'a> {
    #[inline]
    fn split(octets: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let owner = name::skip(octets, 0)?;
        let (&[t0, t1, c0, c1, x0, x1, x2, x3, l0, l1], behind) = octets.get(owner..)?.split_first_chunk()?;
        let (rdata, next) = behind.split_at_checked(u16::from_be_bytes([l0, l1]).into())?;
        let record = Self {
            at_root: owner == 1,
            r#type: Type(u16::from_be_bytes([t0, t1])),
            class: u16::from_be_bytes([c0, c1]),
            ttl: [x0, x1, x2, x3],
            rdata,
        };
        Some((record, next))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{malformed, malformed_cases};
    use super::super::{Rcode, edns};
    use super::*;

    /// What becomes of each input of the client's side in tests/data/malformed.json; `None`: a query like any other.
    #[rustfmt::skip]
    const JUDGED: &[(&str, Transport, Option<Refusal>)] = &[
        ("MC01",  Transport::Udp, Some(Refusal::Short)),
        ("MC02",  Transport::Udp, Some(Refusal::Short)),
        ("MC06",  Transport::Udp, Some(Refusal::QuestionCount)),
        ("MC07",  Transport::Udp, Some(Refusal::QuestionCount)),
        ("MC12",  Transport::Udp, Some(Refusal::Question)),
        ("MC14",  Transport::Udp, Some(Refusal::Question)),
        ("MC15",  Transport::Udp, Some(Refusal::Question)),
        ("MC16",  Transport::Udp, None),
        ("MC17",  Transport::Udp, Some(Refusal::Question)),
        ("MC18",  Transport::Udp, Some(Refusal::Question)),
        ("MC19",  Transport::Udp, Some(Refusal::Response)),
        ("MC21a", Transport::Udp, Some(Refusal::Opcode)),
        ("MC23",  Transport::Udp, None),
        ("MC25",  Transport::Udp, Some(Refusal::ForeignSection)),
        ("MC26",  Transport::Udp, Some(Refusal::Additional)),
        ("MC30",  Transport::Udp, Some(Refusal::Opt)),
        ("MC31",  Transport::Udp, Some(Refusal::Version)),
        ("MC33",  Transport::Udp, None),
        ("MC34",  Transport::Udp, None),
        ("MC35",  Transport::Udp, Some(Refusal::ForeignSection)),
        ("MC36",  Transport::Udp, None),
        ("MC38",  Transport::Udp, Some(Refusal::Cookie)),
        ("MC40",  Transport::Udp, None),
        ("MC41",  Transport::Udp, None),
        ("MC42",  Transport::Udp, None),
        ("MC43",  Transport::Tcp, Some(Refusal::Keepalive)),
        ("MC44",  Transport::Udp, Some(Refusal::TypeMeta)),
        ("MC45",  Transport::Tcp, Some(Refusal::TypeMeta)),
        ("MC47",  Transport::Udp, Some(Refusal::TypeMeta)),
        ("MC49a", Transport::Udp, Some(Refusal::Class)),
        ("MC49b", Transport::Udp, Some(Refusal::ClassNone)),
        ("MC49c", Transport::Udp, Some(Refusal::Class)),
        ("MC50",  Transport::Udp, Some(Refusal::Tsig)),
        ("MC52",  Transport::Udp, Some(Refusal::LeftOver)),
        ("MC53",  Transport::Udp, None),
        ("MC55",  Transport::Tcp, Some(Refusal::Short)),
        ("MC57",  Transport::Tcp, Some(Refusal::Short)),
        ("MC60",  Transport::Tcp, None),
    ];

    #[test]
    fn hostile_queries_are_judged_as_written_down() {
        for (id, transport, refusal) in JUDGED {
            assert_eq!(Query::parse(&malformed(id), *transport).err(), *refusal, "{id}");
        }
    }

    #[test]
    fn no_hostile_query_is_left_unjudged() {
        let judged: Vec<_> = JUDGED.iter().map(|(id, ..)| *id).collect();
        for case in malformed_cases("client") {
            assert!(judged.contains(&case.as_str()), "{case}");
        }
    }

    // MC53
    #[test]
    fn strange_octets_in_labels_are_kept() {
        let octets = malformed("MC53");
        let query = Query::parse(&octets, Transport::Udp).expect("odd but legal");
        assert_eq!(query.question(), &octets[HEADER..]);
        assert!(name::equal(query.qname(), query.key().qname()));
    }

    // MC36, E01, E03
    #[test]
    fn reply_is_bounded_by_transport_and_payload_size() {
        let limit = |payload_size: Option<u16>, transport| {
            let edns = payload_size.map(|payload_size| Edns { payload_size, dnssec_ok: false, keepalive: false });
            Query::parse(&message(&[], edns), transport).expect("legal").asker().limit()
        };
        assert_eq!(limit(None, Transport::Udp), 512);
        for (size, expected) in [(0, 512), (511, 512), (512, 512), (1000, 1000), (1232, 1232), (4096, 1232)] {
            assert_eq!(limit(Some(size), Transport::Udp), expected, "{size}");
        }
        assert_eq!(limit(None, Transport::Tcp), 65_535);
        assert_eq!(limit(Some(512), Transport::Tcp), 65_535);
    }

    // E13, C14
    #[test]
    fn query_tells_what_was_asked() {
        let edns = Edns { payload_size: 4096, dnssec_ok: true, keepalive: false };
        let mut octets = message(&[], Some(edns));
        octets[3] |= 0x30;
        let query = Query::parse(&octets, Transport::Udp).expect("legal");
        assert_eq!(query.id(), 0x1234);
        assert_eq!(query.qname(), b"\x01A\x04Test\0");
        assert_eq!(query.question(), b"\x01A\x04Test\0\0\x1c\0\x01");
        assert_eq!(query.qtype(), Type::AAAA);
        assert_eq!(query.asker().qtype(), Type::AAAA);
        assert!(query.recursion_desired() && query.checking_disabled() && query.authentic_data());
        assert_eq!(query.edns(), Some(edns));
        assert_eq!(query.key().as_octets(), b"\x01a\x04test\0\0\x1c\x03");
    }

    #[test]
    fn second_opt_is_a_format_error() {
        let mut octets = message(&[], Some(Edns { payload_size: 1232, dnssec_ok: false, keepalive: false }));
        octets.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
        octets[11] = 2;
        assert_eq!(Query::parse(&octets, Transport::Udp).err(), Some(Refusal::Opt));
    }

    #[test]
    fn opt_with_an_owner_is_a_format_error() {
        let mut octets = message(&[], None);
        octets.extend_from_slice(&[1, b'a', 0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
        octets[11] = 1;
        assert_eq!(Query::parse(&octets, Transport::Udp).err(), Some(Refusal::Opt));
    }

    #[test]
    fn signature_in_the_last_place_is_ignored() {
        for signature in [Type::TSIG, Type::SIG] {
            let mut octets = message(&[], Some(Edns { payload_size: 1232, dnssec_ok: false, keepalive: false }));
            let [high, low] = signature.0.to_be_bytes();
            octets.extend_from_slice(&[1, b'k', 0, high, low, 0, 255, 0, 0, 0, 0, 0, 2, 7, 7]);
            octets[11] = 2;
            assert!(Query::parse(&octets, Transport::Udp).is_ok(), "{signature}");
        }
    }

    #[test]
    fn types_nobody_may_ask_for_are_refused() {
        for (qtype, refusal) in [
            (Type(0), Refusal::TypeInvalid),
            (Type::NXNAME, Refusal::TypeInvalid),
            (Type::OPT, Refusal::TypeMeta),
            (Type::MAILA, Refusal::TypeMeta),
            (Type::MAILB, Refusal::TypeMeta),
            (Type(200), Refusal::TypeMeta),
        ] {
            assert_eq!(parse_type(qtype), Err(refusal), "{qtype}");
        }
        for qtype in [Type::ANY, Type::SIG, Type(65280)] {
            assert_eq!(parse_type(qtype), Ok(qtype), "{qtype}");
        }
    }

    #[test]
    fn hickory_and_we_read_the_same_query() {
        use hickory_proto::op::{Edns as TheirEdns, Message, MessageType, OpCode, Query as TheirQuery};
        use hickory_proto::rr::{Name, RecordType};

        let mut message = Message::new(0x4711, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.metadata.checking_disabled = true;
        message.add_query(TheirQuery::query(Name::from_ascii("Www.Example.").expect("legal"), RecordType::HTTPS));
        let mut edns = TheirEdns::new();
        edns.set_max_payload(1400).set_dnssec_ok(true);
        message.set_edns(edns);
        let octets = message.to_vec().expect("legal");

        let query = Query::parse(&octets, Transport::Udp).expect("hickory writes legal queries");
        assert_eq!((query.id(), query.qtype()), (0x4711, Type::HTTPS));
        assert_eq!(query.key(), &Key::new(b"\x03www\x07example\0", Type::HTTPS, true, true).expect("legal"));
        assert_eq!(query.edns(), Some(Edns { payload_size: 1400, dnssec_ok: true, keepalive: false }));
    }

    proptest! {
        #[test]
        fn no_octets_make_parse_panic(octets: Vec<u8>) {
            let _ = Query::parse(&octets, Transport::Udp);
        }

        // The header and question are legal, so that the additional section is reached.
        #[test]
        fn no_additional_section_makes_parse_panic(tail: Vec<u8>, count: u8) {
            let mut octets = message(&tail, None);
            octets[11] = count;
            if let Ok(query) = Query::parse(&octets, Transport::Tcp) {
                prop_assert_eq!(query.question(), &octets[HEADER..HEADER + 12]);
                prop_assert!(count > 0 || tail.is_empty());
            }
        }

        #[test]
        fn what_is_cut_off_anywhere_is_refused(cut in 0usize..35) {
            let octets = message(&[], Some(Edns { payload_size: 1232, dnssec_ok: true, keepalive: false }));
            prop_assert_eq!(octets.len(), 35);
            prop_assert!(Query::parse(&octets, Transport::Udp).is_ok());
            prop_assert!(Query::parse(&octets[..cut], Transport::Udp).is_err());
        }
    }

    fn parse_type(qtype: Type) -> Result<Type, Refusal> {
        let mut octets = message(&[], None);
        octets[20..22].copy_from_slice(&qtype.0.to_be_bytes());
        Query::parse(&octets, Transport::Udp).map(|query| query.qtype())
    }

    /// `A.Test AAAA` with RD, and octets behind.
    fn message(tail: &[u8], edns: Option<Edns>) -> Vec<u8> {
        let mut octets = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01A\x04Test\0\0\x1c\0\x01".to_vec();
        if let Some(Edns { payload_size, dnssec_ok, .. }) = edns {
            let mut opt = edns::Opt::plain(Rcode::NOERROR, dnssec_ok).octets().to_vec();
            opt[3..5].copy_from_slice(&payload_size.to_be_bytes());
            octets.extend_from_slice(&opt);
            octets[11] = 1;
        }
        octets.extend_from_slice(tail);
        octets
    }
}
