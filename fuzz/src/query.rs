//! A client's octets are a query that means what hickory reads in it, or get a refusal that is itself sound.
//!
//! Shape: the message. Both transports are tried.

use hickory_proto::op::{Message, MessageType};
use nodens::wire::{HEADER, Key, Query, Rcode, Refusal, Transport, UDP_MIN, compose, name};

use super::support::read_reply;

pub fn check(data: &[u8]) {
    for transport in [Transport::Udp, Transport::Tcp] {
        match Query::parse(data, transport) {
            Ok(query) => accepted(data, &query),
            Err(refusal) => refused(data, refusal, transport),
        }
    }
}

fn accepted(data: &[u8], query: &Query<'_>) {
    assert_eq!(query.question(), &data[HEADER..HEADER + query.question().len()]);
    let key = query.key();
    assert!(name::equal(query.qname(), key.qname()));
    assert!(!key.qname().iter().any(u8::is_ascii_uppercase));
    assert_eq!(Key::from_octets(key.as_octets()).as_ref(), Some(key));
    assert_eq!(Key::new(query.qname(), query.qtype(), key.dnssec_ok(), key.checking_disabled()).as_ref(), Some(key));

    if let Ok(theirs) = Message::from_vec(data) {
        assert_eq!(theirs.queries.len(), 1);
        assert_eq!(theirs.metadata.id, query.id());
        assert_eq!(theirs.metadata.recursion_desired, query.recursion_desired());
        assert_eq!(theirs.metadata.checking_disabled, query.checking_disabled());
        assert_eq!(theirs.queries[0].query_type(), query.qtype().0.into());
        assert_eq!(theirs.edns.is_some(), query.edns().is_some());
    }

    // What we would ask for it is a query again, with the same key.
    let mut out = [0; compose::QUERY_MAX];
    let length = compose::upstream_query(key, query.id(), Some([u64::MAX; 4]), true, &mut out).expect("there is room");
    let asked = Query::parse(&out[..length], Transport::Udp).expect("we ask only legal questions");
    assert_eq!(asked.key(), key);

    let mut out = [0; UDP_MIN];
    let asker = query.asker();
    let length = compose::failure(&asker, Rcode::SERVFAIL, None, &mut out).expect("512 octets are enough");
    assert!(length <= asker.limit());
    let reply = read_reply(&out[..length], true).expect("read or panicked");
    assert_eq!(reply.metadata.id, query.id());
    assert_eq!(reply.edns.is_some(), query.edns().is_some());
}

fn refused(data: &[u8], refusal: Refusal, transport: Transport) {
    let mut out = [0; UDP_MIN];
    let reply = compose::refuse(data, &refusal, transport, &mut out).map(|length| &out[..length]);
    assert_eq!(reply.is_some(), refusal.rcode().is_some(), "{refusal:?}");
    let Some(reply) = reply else { return };
    // Nobody gains by sending us rubbish in another's name, and no answer to an answer ever leaves. Over TCP the name is
    // the sender's own, and a keepalive may come back that is two octets longer (RFC 7828 section 3.1).
    let longest = data.len() + if transport == Transport::Tcp { 2 } else { 0 };
    assert!(reply.len() <= longest, "{refusal:?}: {} octets for {}", reply.len(), data.len());
    assert_eq!(data[2] & 0x80, 0, "{refusal:?}");
    assert_eq!(reply[..2], data[..2]);
    let message = read_reply(reply, false);
    assert!(message.is_none_or(|it| it.metadata.message_type == MessageType::Response && it.answers.is_empty()));
}
