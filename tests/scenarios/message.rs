//! Messages of clients and servers, written and read by hickory-proto: a second opinion on everything we say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NULL, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use crate::script::{Says, Section, Words};

/// TTL of records whose line says none.
const TTL: u32 = 300;

/// The octets of a client's query.
pub fn query(name: &str, rtype: &str, id: u16, words: &Words) -> Result<Vec<u8>, String> {
    let mut message = Message::new(words.get("id").map_or(Ok(id), number)?, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = words.get("rd") != Some("0");
    message.metadata.checking_disabled = words.has("cd");
    message.metadata.authentic_data = words.has("ad");
    let mut question = Query::query(self::name(name)?, record_type(rtype)?);
    if let Some(class) = words.get("class") {
        question.set_query_class(DNSClass::from_str(class).map_err(|error| error.to_string())?);
    }
    message.add_query(question);
    if words.has("edns") || words.has("do") || words.has("option") {
        let mut edns = Edns::new();
        edns.set_max_payload(match words.get("edns") {
            None | Some("") => 1232,
            Some(size) => number(size)?,
        });
        edns.set_dnssec_ok(words.has("do"));
        for (_, option) in words.0.iter().filter(|(key, _)| key == "option") {
            edns.options_mut().insert(self::option(option)?);
        }
        message.set_edns(edns);
    }
    message.to_vec().map_err(|error| error.to_string())
}

/// The octets of a server's response to `query`, the `serial`th of this server.
pub fn response(says: &Says, query: &[u8], serial: u32) -> Result<Vec<u8>, String> {
    let query = Message::from_vec(query).map_err(|error| format!("hickory cannot read the query: {error}"))?;
    let question = query.queries.first().ok_or("the query has no question")?;
    let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    let words = &says.words;
    let flag = |key: &str, usual: bool| words.get(key).map_or(usual, |value| value != "0");
    message.metadata.recursion_desired = flag("rd", query.metadata.recursion_desired);
    message.metadata.recursion_available = flag("ra", true);
    message.metadata.authoritative = flag("aa", false);
    message.metadata.authentic_data = flag("ad", false);
    message.metadata.truncation = flag("tc", false);
    message.metadata.checking_disabled = query.metadata.checking_disabled;
    message.metadata.response_code = rcode(&says.rcode)?;
    message.add_query(question.clone());
    let ttl: u32 = words.get("ttl").map_or(Ok(TTL), number)?;
    let mut owner = question.name().clone();
    if let Some(target) = words.get("cname") {
        let target = name(target)?;
        message.add_answer(Record::from_rdata(owner, ttl, RData::CNAME(CNAME(target.clone()))));
        owner = target;
    }
    for key in ["a", "aaaa"] {
        for address in words.get(key).map_or(Ok(Vec::new()), |text| addresses(text, question.name(), serial))? {
            let rdata = match address {
                IpAddr::V4(address) => RData::A(A(address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(address)),
            };
            message.add_answer(Record::from_rdata(owner.clone(), ttl, rdata));
        }
    }
    for target in 0..words.get("srv").map_or(Ok(0), number)? {
        let host = name(&format!("pod-{target}.{}", question.name()))?;
        message.add_answer(Record::from_rdata(owner.clone(), ttl, RData::SRV(SRV::new(0, 1, 53, host.clone()))));
        let address = Ipv4Addr::from(0x0a00_0000 + target);
        message.add_additional(Record::from_rdata(host, ttl, RData::A(A(address))));
    }
    if let Some(zone) = words.get("soa") {
        let minimum = words.get("minimum").map_or(Ok(ttl), number)?;
        let (mname, rname) = (name("ns.invalid.")?, name("host.invalid.")?);
        let soa = SOA::new(mname, rname, 1, 3600, 600, 86_400, minimum);
        message.add_authority(Record::from_rdata(name(zone)?, ttl, RData::SOA(soa)));
    }
    for (section, text) in &says.records {
        let record = record(text, question.name())?;
        match section {
            Section::Answer => message.add_answer(record),
            Section::Authority => message.add_authority(record),
            Section::Additional => message.add_additional(record),
        };
    }
    if query.edns.is_some() && !words.has("no-edns") {
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        for (_, option) in words.0.iter().filter(|(key, _)| key == "option") {
            edns.options_mut().insert(self::option(option)?);
        }
        message.set_edns(edns);
    }
    message.to_vec().map_err(|error| error.to_string())
}

/// The addresses that `text` means: some with commas between, `FIRST+COUNT`, `serial`, or `name`, a hash of the name.
pub fn addresses(text: &str, qname: &Name, serial: u32) -> Result<Vec<IpAddr>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let wrong = || format!("`{text}` is no list of addresses");
    match text {
        "serial" => return Ok(vec![Ipv4Addr::from(0xc633_6400 + serial).into()]),
        "name" => {
            let octets = qname.to_lowercase().to_ascii();
            let hash =
                octets.bytes().fold(0x811c_9dc5_u32, |hash, it| (hash ^ u32::from(it)).wrapping_mul(0x0100_0193));
            return Ok(vec![Ipv4Addr::from(0x0a00_0000 | hash >> 8).into()]);
        }
        _ => {}
    }
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, more) = part.split_once('+').unwrap_or((part, "1"));
        let more: u32 = number(more)?;
        match first.parse().map_err(|_| wrong())? {
            IpAddr::V4(first) => all.extend((0..more).map(|it| IpAddr::V4(Ipv4Addr::from(first.to_bits() + it)))),
            IpAddr::V6(first) => {
                all.extend((0..more).map(|it| IpAddr::V6(Ipv6Addr::from(first.to_bits() + u128::from(it)))));
            }
        }
    }
    Ok(all)
}

/// Reads `owner ttl TYPE rdata`; `@` is the question's name, `RRSIG type` and `\# length hex` are understood.
pub fn record(text: &str, qname: &Name) -> Result<Record, String> {
    let mut words = text.splitn(4, ' ');
    let (Some(owner), Some(ttl), Some(rtype)) = (words.next(), words.next(), words.next()) else {
        return Err(format!("`{text}` is no record; write `owner ttl TYPE rdata`"));
    };
    let rdata = words.next().unwrap_or_default();
    let owner = if owner == "@" { qname.clone() } else { name(owner)? };
    let code = record_type(rtype)?;
    let rdata = if let Some(hex) = rdata.strip_prefix("\\# ") {
        let (length, hex) = hex.split_once(' ').ok_or_else(|| format!("`{rdata}` has no octets"))?;
        let octets = if hex == "zeros" { vec![0; number(length)?] } else { octets(hex)? };
        if octets.len() != number::<usize>(length)? {
            return Err(format!("`{rdata}` are {} octets", octets.len()));
        }
        RData::Unknown { code, rdata: NULL::with(octets) }
    } else if code == RecordType::RRSIG {
        // Algorithm 13, 2 labels, TTL 300, valid for ever, key 7 of the root, a signature of zeros.
        let covered = u16::from(record_type(rdata)?).to_be_bytes();
        let rest = octets("0d020000012c7fffffff000000000007").expect("hexadecimal");
        RData::Unknown { code, rdata: NULL::with([&covered[..], &rest, &[0; 65]].concat()) }
    } else {
        RData::try_from_str(code, rdata).map_err(|error| format!("`{rdata}`: {error}"))?
    };
    Ok(Record::from_rdata(owner, number(ttl)?, rdata))
}

/// The record in presentation form, as the lines of scenarios have it.
pub fn show(record: &Record) -> String {
    let mut rdata = Vec::new();
    let _ = record.data.emit(&mut BinEncoder::new(&mut rdata));
    let shown = match record.record_type() {
        RecordType::RRSIG => {
            let covered = rdata.first_chunk().map_or(0, |octets| u16::from_be_bytes(*octets));
            RecordType::from(covered).to_string()
        }
        _ if matches!(record.data, RData::Unknown { .. }) => {
            let digit = |nibble: u8| char::from_digit(nibble.into(), 16).expect("four bits");
            let hex: String = rdata.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 15)]).collect();
            let hex = if rdata.iter().all(|octet| *octet == 0) { "zeros" } else { hex.as_str() };
            format!("\\# {} {hex}", rdata.len())
        }
        _ => record.data.to_string(),
    };
    format!("{} {} {} {shown}", record.name, record.ttl, type_name(record.record_type()))
}

/// `TYPE65280`, not hickory's own word for it.
pub fn type_name(rtype: RecordType) -> String {
    match rtype {
        RecordType::Unknown(code) => format!("TYPE{code}"),
        known => known.to_string(),
    }
}

pub fn record_type(text: &str) -> Result<RecordType, String> {
    if let Some(code) = text.strip_prefix("TYPE").and_then(|code| code.parse::<u16>().ok()) {
        return Ok(RecordType::from(code));
    }
    RecordType::from_str(text).map_err(|_| format!("`{text}` is no type"))
}

/// The name, fully qualified, letters as they are.
pub fn name(text: &str) -> Result<Name, String> {
    let mut name = Name::from_ascii(text).map_err(|error| format!("`{text}`: {error}"))?;
    name.set_fqdn(true);
    Ok(name)
}

pub fn rcode(text: &str) -> Result<ResponseCode, String> {
    Ok(match text {
        "NOERROR" => ResponseCode::NoError,
        "FORMERR" => ResponseCode::FormErr,
        "SERVFAIL" => ResponseCode::ServFail,
        "NXDOMAIN" => ResponseCode::NXDomain,
        "NOTIMP" => ResponseCode::NotImp,
        "REFUSED" => ResponseCode::Refused,
        "BADVERS" => ResponseCode::BADVERS,
        _ => return Err(format!("`{text}` is no rcode a scenario knows")),
    })
}

/// `CODE:hex`
fn option(text: &str) -> Result<EdnsOption, String> {
    let (code, hex) = text.split_once(':').unwrap_or((text, ""));
    let code: u16 = number(code)?;
    Ok(EdnsOption::Unknown(code, octets(hex)?))
}

fn octets(hex: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> = hex.chars().map(|it| it.to_digit(16).map(|it| it as u8)).collect();
    let digits = digits.filter(|it| it.len() % 2 == 0).ok_or_else(|| format!("`{hex}` is not hexadecimal"))?;
    Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

pub fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.replace('_', "").parse().map_err(|_| format!("`{text}` is no number for this"))
}
