//! Messages that the micro-benchmarks read and write.

use nodens::wire::response::Asked;
use nodens::wire::{Key, Name, Response, Transport, Type, compose};

/// A client's query for the A records of name number `number`, with EDNS.
pub fn query(number: u32) -> Vec<u8> {
    let mut octets = vec![0x47, 0x11, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 1];
    octets.extend_from_slice(name(number).as_wire());
    octets.extend_from_slice(&[0, 1, 0, 1]);
    octets.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    octets
}

/// What a server answers to our query for that name, and that query.
///
/// Three records, as a Service behind a CDN has them: a CNAME and two addresses.
pub fn answer(number: u32) -> (Vec<u8>, Vec<u8>) {
    let mut asked = vec![0; compose::QUERY_MAX];
    let length = compose::upstream_query(&key(number), 0x1234, None, true, &mut asked).expect("there is room");
    asked.truncate(length);
    let question_end = length - 11;
    let mut octets = asked[..question_end].to_vec();
    octets[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 3, 0, 0, 0, 1]);
    let target = (question_end + 12) as u8;
    octets.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0x01, 0x2c, 0, 7, 4, b'e', b'd', b'g', b'e', 0xc0, 12]);
    for last in [1, 2] {
        octets.extend_from_slice(&[0xc0, target, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]);
    }
    octets.extend_from_slice(&asked[question_end..]);
    (octets, asked)
}

/// The same, examined.
pub fn response(number: u32) -> Response {
    let (octets, query) = answer(number);
    let asked = Asked { query: &query, transport: Transport::Udp, exact_case: false };
    Response::parse_for(&octets, &asked).expect("a legal answer")
}

pub fn key(number: u32) -> Key {
    Key::new(name(number).as_wire(), Type::A, false, false).expect("a legal name")
}

fn name(number: u32) -> Name {
    format!("api-{number:06}.production.svc.cluster.local").parse().expect("a legal name")
}
