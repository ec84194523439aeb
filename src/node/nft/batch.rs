//! A batch: messages that the kernel carries out together or not at all.
//!
//! Read first: Linux `include/uapi/linux/netfilter/nfnetlink.h`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST};

use super::Family;
use super::attributes::Attributes;
use super::expression::{Anonymous, Datatype};
use super::table::{Chain, Rule, Set};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// `NFT_MSG_*`.
pub(crate) mod message {
    pub(crate) const NEW_TABLE: u16 = 0;
    pub(crate) const GET_TABLE: u16 = 1;
    pub(crate) const DELETE_TABLE: u16 = 2;
    pub(crate) const NEW_CHAIN: u16 = 3;
    pub(crate) const GET_CHAIN: u16 = 4;
    pub(crate) const DELETE_CHAIN: u16 = 5;
    pub(crate) const NEW_RULE: u16 = 6;
    pub(crate) const GET_RULE: u16 = 7;
    pub(crate) const DELETE_RULE: u16 = 8;
    pub(crate) const NEW_SET: u16 = 9;
    pub(crate) const GET_SET: u16 = 10;
    pub(crate) const DELETE_SET: u16 = 11;
    pub(crate) const NEW_ELEMENT: u16 = 12;
    pub(crate) const GET_ELEMENT: u16 = 13;
    pub(crate) const DELETE_ELEMENT: u16 = 14;
    pub(crate) const NEW_GENERATION: u16 = 15;
}

const TABLE_OWNER: u32 = 0x2;

const SET_ANONYMOUS: u32 = 0x1;
const SET_CONSTANT: u32 = 0x2;
const SET_MAP: u32 = 0x8;
pub(crate) const SET_TIMEOUT: u32 = 0x10;
/// `NFT_SET_EVAL`: packets change it.
pub(crate) const SET_DYNAMIC: u32 = 0x20;

/// One message of a batch, and in words what it does.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Message {
    step: String,
    kind: u16,
    flags: u16,
    family: Family,
    attributes: Attributes,
}

/// Steps for one transaction, in order. Nothing happens before [`Nft::commit`](super::Nft::commit).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Batch {
    messages: Vec<Message>,
}

/// The kernel finds a set made in the same batch by its number; one count for all batches, so that any two can be joined.
static SETS: AtomicU32 = AtomicU32::new(1);

impl Batch {
    /// An empty batch; committing it does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// These steps and then those of `next`, in one transaction.
    #[must_use]
    pub fn then(mut self, next: Batch) -> Self {
        self.messages.extend(next.messages);
        self
    }

    /// What step `index` does, in words.
    pub(crate) fn step(&self, index: usize) -> &str {
        &self.messages[index].step
    }

    fn push(&mut self, step: String, kind: u16, flags: u16, family: Family, attributes: Attributes) {
        self.messages.push(Message { step, kind, flags, family, attributes });
    }

    /// Creates a table, or takes the one there is. With `owner` the kernel removes it when our socket closes, and nobody
    /// else may change it (Linux 5.12).
    pub fn table(&mut self, family: Family, name: &str, owner: bool) {
        let mut attributes = Attributes::new().text(1, name);
        if owner {
            attributes = attributes.u32(2, TABLE_OWNER);
        }
        self.push(format!("add table {family} {name}"), message::NEW_TABLE, NLM_F_CREATE, family, attributes);
    }

    /// Deletes a table with all that is in it; no error if there is none.
    ///
    /// Made first if it is not there: the kernel's own "destroy" is as young as Linux 6.3.
    pub fn delete_table(&mut self, family: Family, name: &str) {
        let attributes = Attributes::new().text(1, name);
        let step = format!("delete table {family} {name}");
        self.push(step.clone(), message::NEW_TABLE, NLM_F_CREATE, family, attributes.clone());
        self.push(step, message::DELETE_TABLE, 0, family, attributes);
    }

    /// Creates a chain without its rules.
    pub(crate) fn chain(&mut self, family: Family, table: &str, chain: &Chain) {
        let mut attributes = Attributes::new().text(1, table).text(3, &chain.name);
        if let Some(base) = &chain.base {
            let hook = Attributes::new().u32(1, base.hook.number(family)).bytes(2, &base.priority.to_be_bytes());
            attributes = attributes.nest(4, &hook).text(7, base.kind.word());
        }
        let step = format!("add chain {family} {table} {}", chain.name);
        self.push(step, message::NEW_CHAIN, NLM_F_CREATE, family, attributes);
    }

    /// Deletes the rules of a chain; no error if there are none, one if there is no chain.
    pub fn flush_chain(&mut self, family: Family, table: &str, chain: &str) {
        let attributes = Attributes::new().text(1, table).text(2, chain);
        self.push(format!("flush chain {family} {table} {chain}"), message::DELETE_RULE, 0, family, attributes);
    }

    /// Deletes the rules of all chains of a table; no error if there are none.
    pub(crate) fn flush_table(&mut self, family: Family, table: &str) {
        let attributes = Attributes::new().text(1, table);
        self.push(format!("flush table {family} {table}"), message::DELETE_RULE, 0, family, attributes);
    }

    /// Deletes a chain without rules, which no rule and no element leads to.
    pub(crate) fn delete_chain(&mut self, family: Family, table: &str, chain: &str) {
        let attributes = Attributes::new().text(1, table).text(3, chain);
        self.push(format!("delete chain {family} {table} {chain}"), message::DELETE_CHAIN, 0, family, attributes);
    }

    /// Deletes a set with a name, which no rule uses, and its elements.
    pub(crate) fn delete_set(&mut self, family: Family, table: &str, set: &str) {
        let attributes = Attributes::new().text(1, table).text(2, set);
        self.push(format!("delete set {family} {table} {set}"), message::DELETE_SET, 0, family, attributes);
    }

    /// Adds a rule at the end of a chain, and the nameless sets it uses before it.
    pub(crate) fn rule(&mut self, family: Family, table: &str, chain: &str, rule: &Rule) {
        self.place_rule(family, table, chain, rule, NLM_F_APPEND);
    }

    /// Adds a rule at the head of a chain.
    pub(crate) fn rule_at_head(&mut self, family: Family, table: &str, chain: &str, rule: &Rule) {
        self.place_rule(family, table, chain, rule, 0);
    }

    fn place_rule(&mut self, family: Family, table: &str, chain: &str, rule: &Rule, place: u16) {
        let comment = rule.comment();
        let step = format!("add rule {family} {table} {chain} \"{comment}\"");
        let mut list = Attributes::new();
        for expression in &rule.expressions {
            let mut data = expression.data.clone();
            if let Some(set) = &expression.set {
                let (name, number) = self.anonymous(family, table, set, &step);
                data = data.text(1, name).u32(4, number);
            }
            list = list.nest(1, &Attributes::new().text(1, expression.name).nest(2, &data));
        }
        let attributes =
            Attributes::new().text(1, table).text(2, chain).nest(4, &list).bytes(7, &comment_userdata(&comment));
        self.push(step, message::NEW_RULE, NLM_F_CREATE | place, family, attributes);
    }

    /// Deletes one rule by its handle.
    pub(crate) fn delete_rule(&mut self, family: Family, table: &str, chain: &str, handle: u64) {
        let attributes = Attributes::new().text(1, table).text(2, chain).u64(3, handle);
        self.push(
            format!("delete rule {family} {table} {chain} handle {handle}"),
            message::DELETE_RULE,
            0,
            family,
            attributes,
        );
    }

    /// Creates a set with a name.
    pub(crate) fn set(&mut self, family: Family, table: &str, set: &Set) {
        let (key, length) = set.key.number_and_length();
        let mut attributes = Attributes::new()
            .text(1, table)
            .text(2, set.name)
            .u32(3, set.flags())
            .u32(4, key)
            .u32(5, length)
            .u32(10, SETS.fetch_add(1, Ordering::Relaxed));
        if let Some(filled) = &set.filled {
            let timeout = milliseconds(filled.timeout);
            attributes = attributes.nest(9, &Attributes::new().u32(1, filled.size)).u64(11, timeout);
        }
        self.push(format!("add set {family} {table} {}", set.name), message::NEW_SET, NLM_F_CREATE, family, attributes);
    }

    /// Adds elements that live for `timeout`, or renews those that are there (in place only from Linux 6.12 on).
    ///
    /// The expiration is sent as well: with the timeout alone a renewal does nothing.
    pub(crate) fn elements(
        &mut self,
        (family, table): (Family, &str),
        set: &str,
        keys: &[Vec<u8>],
        timeout: Option<Duration>,
    ) {
        let mut list = Attributes::new();
        for key in keys {
            let mut element = Attributes::new().nest(1, &Attributes::new().bytes(1, key));
            if let Some(timeout) = timeout {
                let timeout = milliseconds(timeout);
                element = element.u64(4, timeout).u64(5, timeout);
            }
            list = list.nest(1, &element);
        }
        let attributes = Attributes::new().text(1, table).text(2, set).nest(3, &list);
        self.push(
            format!("add element {family} {table} {set}"),
            message::NEW_ELEMENT,
            NLM_F_CREATE,
            family,
            attributes,
        );
    }

    /// Deletes every element of a set; no error if there are none.
    pub(crate) fn flush_set(&mut self, family: Family, table: &str, set: &str) {
        let attributes = Attributes::new().text(1, table).text(2, set);
        self.push(format!("flush set {family} {table} {set}"), message::DELETE_ELEMENT, 0, family, attributes);
    }

    /// A nameless set with its elements; gives the name to refer to it by and its number in this batch.
    fn anonymous(&mut self, family: Family, table: &str, set: &Anonymous, step: &str) -> (&'static str, u32) {
        let number = SETS.fetch_add(1, Ordering::Relaxed);
        let name = if set.data.is_some() { "__map%d" } else { "__set%d" };
        let (key, length) = set.key.number_and_length();
        let size = u32::try_from(set.elements.len()).expect("our sets are small");
        let mut attributes = Attributes::new().text(1, table).text(2, name).u32(4, key).u32(5, length).u32(10, number);
        let mut flags = SET_ANONYMOUS | SET_CONSTANT;
        if let Some(data) = set.data {
            let (data, length) = data.number_and_length();
            flags |= SET_MAP;
            attributes = attributes.u32(6, data).u32(7, length);
        }
        if matches!(set.key, Datatype::Integer | Datatype::Interface) {
            attributes = attributes.bytes(13, &HOST_ORDER_KEYS);
        }
        attributes = attributes.u32(3, flags).nest(9, &Attributes::new().u32(1, size));
        self.push(step.to_owned(), message::NEW_SET, NLM_F_CREATE, family, attributes);
        let mut list = Attributes::new();
        for (key, data) in &set.elements {
            let mut element = Attributes::new().nest(1, &Attributes::new().bytes(1, key));
            if let Some(data) = data {
                element = element.nest(2, &Attributes::new().bytes(1, data));
            }
            list = list.nest(1, &element);
        }
        let attributes = Attributes::new().text(1, table).text(2, name).u32(4, number).nest(3, &list);
        self.push(step.to_owned(), message::NEW_ELEMENT, NLM_F_CREATE, family, attributes);
        (name, number)
    }

    /// The octets to send: begin, every message with an acknowledgement wanted, end. Message `n` has the sequence number
    /// `first + 1 + n`. Without `end` the kernel checks the batch and carries nothing out.
    pub(crate) fn encode(&self, first: u32, end: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 * (self.messages.len() + 2));
        let none = Attributes::new();
        write(&mut out, BATCH_BEGIN, NLM_F_REQUEST, first, (0, SUBSYSTEM), &none);
        let mut sequence = first;
        for message in &self.messages {
            sequence = sequence.wrapping_add(1);
            let kind = SUBSYSTEM << 8 | message.kind;
            let flags = NLM_F_REQUEST | NLM_F_ACK | message.flags;
            write(&mut out, kind, flags, sequence, (message.family.number(), 0), &message.attributes);
        }
        if end {
            write(&mut out, BATCH_END, NLM_F_REQUEST, sequence.wrapping_add(1), (0, SUBSYSTEM), &none);
        }
        out
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What nft keeps beside a set to print it: keys (type 0) are in the host's byte order (1), data (type 1) is of none (0).
const HOST_ORDER_KEYS: [u8; 12] = {
    let host = 1_u32.to_ne_bytes();
    [0, 4, host[0], host[1], host[2], host[3], 1, 4, 0, 0, 0, 0]
};

/// A comment as nft and iptables-nft keep it: type 0, length, text with a NUL.
fn comment_userdata(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).expect("comments are at most 128 octets");
    [&[0, length], comment.as_bytes(), &[0]].concat()
}

/// A request outside of any batch: a dump or one object.
pub(crate) fn request(kind: u16, flags: u16, sequence: u32, family: u8, attributes: &Attributes) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, SUBSYSTEM << 8 | kind, NLM_F_REQUEST | flags, sequence, (family, 0), attributes);
    out
}

/// A dump of everything of another subsystem: `kind` has both numbers.
pub(crate) fn dump(kind: u16, sequence: u32) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, (0, 0), &Attributes::new());
    out
}

/// `struct nlmsghdr`, `struct nfgenmsg` (family, version 0, resource in network byte order), attributes.
fn write(
    out: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    (family, resource): (u8, u16),
    attributes: &Attributes,
) {
    let length = u32::try_from(20 + attributes.as_slice().len()).expect("a message is far below 4 GiB");
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&0_u32.to_ne_bytes());
    out.extend_from_slice(&[family, 0]);
    out.extend_from_slice(&resource.to_be_bytes());
    out.extend_from_slice(attributes.as_slice());
}

#[cfg(test)]
mod tests {
    use super::super::attributes::{find, long_number};
    use super::super::expression;
    use super::*;

    /// The messages of an encoded batch as (type, flags, sequence number, body behind both headers).
    fn messages(mut octets: &[u8]) -> Vec<(u16, u16, u32, Vec<u8>)> {
        let mut all = Vec::new();
        while !octets.is_empty() {
            let word = |at: usize| u32::from_ne_bytes(octets[at..at + 4].try_into().expect("four octets"));
            let half = |at: usize| u16::from_ne_bytes(octets[at..at + 2].try_into().expect("two octets"));
            let length = word(0) as usize;
            all.push((half(4), half(6), word(8), octets[20..length].to_vec()));
            octets = &octets[length..];
        }
        all
    }

    #[test]
    fn every_message_between_begin_and_end_wants_an_acknowledgement() {
        let mut batch = Batch::new();
        batch.delete_table(Family::Inet, "nodens");
        batch.table(Family::Inet, "nodens", true);
        let sent = messages(&batch.encode(7, true));
        assert_eq!(sent.iter().map(|message| message.2).collect::<Vec<_>>(), [7, 8, 9, 10, 11]);
        assert_eq!((sent[0].0, sent[4].0), (BATCH_BEGIN, BATCH_END));
        assert!(sent[1..4].iter().all(|message| message.1 & NLM_F_ACK != 0));
        assert_eq!(find(&sent[3].3, 2), Some([0, 0, 0, 2].as_slice()), "the owner flag");
    }

    #[test]
    fn batch_without_an_end_is_only_a_check() {
        let mut batch = Batch::new();
        batch.table(Family::Inet, "nodens", false);
        assert!(messages(&batch.encode(1, false)).iter().all(|message| message.0 != BATCH_END));
    }

    #[test]
    fn elements_carry_timeout_and_expiration_in_milliseconds() {
        let mut batch = Batch::new();
        let key = vec![169, 254, 20, 10];
        batch.elements(
            (Family::Inet, "nodens"),
            "leased4",
            std::slice::from_ref(&key),
            Some(Duration::from_millis(2500)),
        );
        let sent = messages(&batch.encode(1, true));
        let list = find(&sent[1].3, 3).expect("a list of elements");
        let element = find(list, 1).expect("one element");
        assert_eq!(find(find(element, 1).expect("a key"), 1), Some(key.as_slice()));
        assert_eq!(find(element, 4).and_then(long_number), Some(2500));
        assert_eq!(find(element, 5).and_then(long_number), Some(2500));
    }

    #[test]
    fn nameless_sets_come_before_their_rule_and_have_numbers_of_their_own() {
        let addresses = [[169, 254, 20, 10].into(), [10, 96, 0, 10].into()];
        let rule = Rule::new("replies", expression::address_one_of(expression::End::Source, &addresses));
        let mut batch = Batch::new();
        batch.rule(Family::Inet, "nodens", "output", &rule);
        batch.rule(Family::Inet, "nodens", "output", &rule);
        let sent = messages(&batch.encode(1, true));
        let kinds: Vec<u16> = sent.iter().map(|message| message.0 & 0xFF).collect();
        assert_eq!(kinds[1..7], [9, 12, 6, 9, 12, 6]);
        let numbers: Vec<_> = [1, 4].iter().map(|at| find(&sent[*at].3, 10).map(<[u8]>::to_vec)).collect();
        assert_ne!(numbers[0], numbers[1]);
    }
}
