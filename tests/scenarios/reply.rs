//! Replies, as clients see them: what must hold for every one, and what a scenario says of this one.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{Record, RecordType};

use nodens::wire::Transport;

use crate::client::{Heard, Outcome};
use crate::message;
use crate::script::{Says, Section};

/// EXTENDED-DNS-ERROR (RFC 8914 section 2).
const EDE: u16 = 15;

/// Compares a reply with what is expected of it and of every reply.
///
/// # Errors
/// What was expected.
pub fn check(heard: &Heard, says: &Says) -> Result<(), String> {
    let Outcome::Reply(octets) = &heard.what else { return Err(format!("reply {}", says.rcode)) };
    let message = Message::from_vec(octets).map_err(|error| format!("a reply hickory can read: {error}"))?;
    let asked = Message::from_vec(&heard.inquiry.octets).map_err(|error| error.to_string())?;
    check_always(&heard.inquiry.octets, &asked, heard.inquiry.transport, octets, &message)?;
    if message.metadata.response_code != message::rcode(&says.rcode)? {
        return Err(format!("reply {}", says.rcode));
    }
    for (key, value) in &says.words.0 {
        if !holds(key, value, octets, &asked, &message)? {
            return Err(if value.is_empty() { key.clone() } else { format!("{key}={value}") });
        }
    }
    if says.records.is_empty() { Ok(()) } else { check_records(says, &asked, &message) }
}

/// E01, E02, E03, E13, C13, C15, C42: the same for every reply.
fn check_always(
    query: &[u8],
    asked: &Message,
    transport: Transport,
    octets: &[u8],
    message: &Message,
) -> Result<(), String> {
    let (theirs, ours) = (&asked.metadata, &message.metadata);
    let question = query.len().min(octets.len()).min(12 + asked.queries[0].name().len() + 4);
    let opt = asked.edns.as_ref();
    let limit = match (transport, opt) {
        (Transport::Tcp, _) => 65_535,
        (Transport::Udp, None) => 512,
        (Transport::Udp, Some(edns)) => usize::from(edns.max_payload()).clamp(512, 1232),
    };
    let reply_opt = message.edns.as_ref();
    let always = [
        ("the ID of the query", ours.id == theirs.id),
        ("QR=1, opcode QUERY", ours.message_type == MessageType::Response && ours.op_code == OpCode::Query),
        ("the question, letter by letter", octets[12..question] == query[12..question]),
        ("RD as in the query", ours.recursion_desired == theirs.recursion_desired),
        ("CD as in the query", ours.checking_disabled == theirs.checking_disabled),
        ("RA=1, AA=0, Z=0", ours.recursion_available && !ours.authoritative && octets[3] & 0x40 == 0),
        ("AD=0 with TC=1", !(ours.truncation && ours.authentic_data)),
        ("AD=0 for who set neither AD nor DO", {
            !ours.authentic_data || theirs.authentic_data || opt.is_some_and(|edns| edns.flags().dnssec_ok)
        }),
        ("an OPT record if and only if asked with one", reply_opt.is_some() == opt.is_some()),
        ("OPT of version 0, for 1232 octets, DO as asked", {
            reply_opt.zip(opt).is_none_or(|(ours, theirs)| {
                ours.version() == 0 && ours.max_payload() == 1232 && ours.flags().dnssec_ok == theirs.flags().dnssec_ok
            })
        }),
        ("no more octets than the client takes", octets.len() <= limit),
    ];
    match always.iter().find(|(_, holds)| !holds) {
        Some((what, _)) => Err((*what).to_owned()),
        None => Ok(()),
    }
}

/// Whether the condition `key`, `key=value` holds.
fn holds(key: &str, value: &str, octets: &[u8], asked: &Message, message: &Message) -> Result<bool, String> {
    let flag = value != "0";
    let number = || message::number::<u32>(value);
    let answers = |wanted: RecordType| message.answers.iter().filter(move |it| it.record_type() == wanted);
    let addresses = |wanted| {
        let mut all: Vec<IpAddr> = answers(wanted).filter_map(|it| it.data.ip_addr()).collect();
        all.sort();
        all
    };
    Ok(match key {
        "aa" => message.metadata.authoritative == flag,
        "ad" => message.metadata.authentic_data == flag,
        "tc" => message.metadata.truncation == flag,
        "ttl" => {
            let ttl = number()?;
            message.all_sections().count() > 0 && message.all_sections().all(|it| it.ttl == ttl)
        }
        "soa-ttl" => {
            let ttl = number()?;
            let soa = |it: &&Record| it.record_type() == RecordType::SOA;
            message.authorities.iter().filter(soa).map(|it| it.ttl).collect::<Vec<_>>() == [ttl]
        }
        "ede" if value == "none" => ede(message).is_empty(),
        "ede" => ede(message) == [message::number::<u16>(value)?],
        "a" | "aaaa" => {
            let rtype = if key == "a" { RecordType::A } else { RecordType::AAAA };
            let mut wanted = message::addresses(value, asked.queries[0].name(), 0)?;
            wanted.sort();
            addresses(rtype) == wanted
        }
        "answers" => message.answers.len() == number()? as usize,
        "authorities" => message.authorities.len() == number()? as usize,
        "additionals" => message.additionals.len() == number()? as usize,
        "size" => octets.len() == number()? as usize,
        "size-at-most" => octets.len() <= number()? as usize,
        "option" => has_option(message, message::number(value)?),
        "no-option" if value.is_empty() => message.edns.as_ref().is_none_or(|edns| edns.options().as_ref().is_empty()),
        "no-option" => !has_option(message, message::number(value)?),
        _ => return Err(format!("`{key}` is no condition")),
    })
}

fn has_option(message: &Message, code: u16) -> bool {
    message.edns.as_ref().is_some_and(|edns| edns.option(EdnsCode::from(code)).is_some())
}

/// The info-codes of all Extended DNS Errors.
fn ede(message: &Message) -> Vec<u16> {
    let options = message.edns.as_ref().map(|edns| edns.options().get_all(EdnsCode::from(EDE))).unwrap_or_default();
    let codes = options.into_iter().filter_map(|option| match option {
        EdnsOption::Unknown(EDE, octets) => octets.first_chunk().map(|code| u16::from_be_bytes(*code)),
        _ => None,
    });
    codes.collect()
}

/// The three sections are these records and no others; their order within a section is free.
fn check_records(says: &Says, asked: &Message, message: &Message) -> Result<(), String> {
    let qname = asked.queries[0].name();
    for (section, records) in [
        (Section::Answer, &message.answers),
        (Section::Authority, &message.authorities),
        (Section::Additional, &message.additionals),
    ] {
        let mut got: Vec<String> = records.iter().map(message::show).collect();
        for (_, wanted) in says.records.iter().filter(|(of, _)| *of == section) {
            let matches: Box<dyn Fn(&String) -> bool> = if let Some(head) = wanted.strip_suffix(" *") {
                let head = head.replacen('@', &qname.to_string(), 1) + " ";
                Box::new(move |it| it.starts_with(&head))
            } else {
                let wanted = message::show(&message::record(wanted, qname)?);
                Box::new(move |it| *it == wanted)
            };
            let found = got.iter().position(&*matches).ok_or_else(|| format!("{section:?} with {wanted}"))?;
            got.swap_remove(found);
        }
        if let Some(more) = got.first() {
            return Err(format!("{section:?} without {more}"));
        }
    }
    Ok(())
}

/// A reply in words.
pub fn show(octets: &[u8]) -> String {
    let message = match Message::from_vec(octets) {
        Ok(message) => message,
        Err(error) => return format!("unreadable ({error}): {octets:02x?}"),
    };
    let header = &message.metadata;
    let mut text = header.response_code.to_str().to_owned();
    text = format!("{text} ({}) {} octets", u16::from(header.response_code), octets.len());
    let flags = [
        ("aa", header.authoritative),
        ("tc", header.truncation),
        ("rd", header.recursion_desired),
        ("ra", header.recursion_available),
        ("ad", header.authentic_data),
        ("cd", header.checking_disabled),
    ];
    for (name, _) in flags.iter().filter(|(_, set)| *set) {
        text = format!("{text} {name}");
    }
    for code in ede(&message) {
        text = format!("{text} ede={code}");
    }
    if let Some(edns) = &message.edns {
        text = format!("{text} edns={}", edns.max_payload());
    }
    for (section, records) in
        [("answer", &message.answers), ("authority", &message.authorities), ("additional", &message.additionals)]
    {
        for record in records.iter().take(8) {
            text = format!("{text}\n            {section} {}", message::show(record));
        }
        if records.len() > 8 {
            text = format!("{text}\n            … {} in all", records.len());
        }
    }
    text
}
