//! An answer fits its client: never too long, cut between records with TC, otherwise the stored answer to the letter.
//!
//! Shape: six octets of choices (see [`Client`]), the message of a server.

use hickory_proto::op::Message;
use nodens::wire::compose::{self, TtlRule};
use nodens::wire::{Asker, Ede, Edns, HEADER, MESSAGE_MAX, Response, Transport};

use super::support::{Line, accept, chosen, lines, question_of, read_reply, split};

/// Octets of the largest OPT record we write: payload size and flags, EDE, keepalive.
const OPT_LARGEST: usize = 11 + 6 + 6;

pub fn check(data: &[u8]) {
    let Some((choices, message)) = split::<6>(data) else { return };
    let client = Client::choose(choices);
    let Some(response) = accept(message, client.dnssec_ok) else { return };
    let question = question_of(response.octets()).expect("every response has its question");
    let asker = client.asker(question);
    let room = if client.small_buffer { usize::from(client.payload_size) } else { MESSAGE_MAX };
    let mut out = vec![0xaa; room];
    let Some(length) = compose::patch(response.stored(), &asker, client.ttl, client.ede, &mut out) else {
        assert!(room < HEADER + question.len() + OPT_LARGEST, "{room} octets are enough for a header and a question");
        return;
    };
    assert!(length <= asker.limit().min(room));
    fits(&out[..length], &asker, &response, client.ttl);
}

fn fits(reply: &[u8], asker: &Asker<'_>, response: &Response, ttl: TtlRule) {
    let Some(stored) = lines(response.octets()) else { return };
    let theirs: Message = read_reply(reply, true).expect("read or panicked");
    assert_eq!(theirs.metadata.id, asker.id);
    assert_eq!(theirs.metadata.recursion_desired, asker.recursion_desired);
    assert_eq!(theirs.metadata.checking_disabled, asker.checking_disabled);
    assert!(theirs.metadata.recursion_available && !theirs.metadata.authoritative);
    assert_eq!(theirs.edns.is_some(), asker.edns.is_some());
    assert!(reply[HEADER..].starts_with(asker.question));

    let sent = lines(reply).expect("it was read above");
    assert!(sent.len() <= stored.len());
    if !response.truncated() {
        assert_eq!(theirs.metadata.truncation, sent.len() < stored.len());
    }
    for (sent, stored) in sent.iter().zip(&stored) {
        assert_eq!(sent.ttl, aged(stored, ttl));
        assert!(sent.is_like(stored), "{sent:?} was stored as {stored:?}");
    }
    if theirs.metadata.authentic_data {
        assert!(response.authentic_data() && !theirs.metadata.truncation);
    }
}

fn aged(stored: &Line, rule: TtlRule) -> u32 {
    match rule {
        TtlRule::AsStored => stored.ttl,
        TtlRule::Age(seconds) if stored.ttl > seconds => stored.ttl - seconds,
        TtlRule::Age(_) => stored.ttl.min(1),
        TtlRule::Stale { cap } => stored.ttl.min(cap).max(1),
    }
}

/// Who asks, and how old the answer is.
struct Client {
    bits: u8,
    dnssec_ok: bool,
    small_buffer: bool,
    payload_size: u16,
    ttl: TtlRule,
    ede: Option<Ede>,
}

impl Client {
    /// Octet 0: bits EDNS, DO, keepalive, TCP, RD, CD, AD, small buffer. 1-2: payload size. 3-4: age. 5: rule and EDE.
    fn choose([bits, size_high, size_low, age_high, age_low, rule]: [u8; 6]) -> Self {
        let seconds = u32::from(u16::from_be_bytes([age_high, age_low]));
        Self {
            bits,
            dnssec_ok: chosen(bits, 0) && chosen(bits, 1),
            small_buffer: chosen(bits, 7),
            payload_size: u16::from_be_bytes([size_high, size_low]),
            ttl: match rule & 3 {
                0 => TtlRule::AsStored,
                1 => TtlRule::Stale { cap: seconds },
                _ => TtlRule::Age(seconds),
            },
            ede: chosen(rule, 7).then_some(Ede::STALE_ANSWER),
        }
    }

    fn asker<'a>(&self, question: &'a [u8]) -> Asker<'a> {
        let edns = Edns { payload_size: self.payload_size, dnssec_ok: self.dnssec_ok, keepalive: chosen(self.bits, 2) };
        Asker {
            id: 0x4711,
            question,
            recursion_desired: chosen(self.bits, 4),
            checking_disabled: chosen(self.bits, 5),
            authentic_data: chosen(self.bits, 6),
            edns: chosen(self.bits, 0).then_some(edns),
            transport: if chosen(self.bits, 3) { Transport::Tcp } else { Transport::Udp },
        }
    }
}
