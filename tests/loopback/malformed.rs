//! The collection of malformed messages in `tests/data/malformed.json`, sent by clients and by upstreams.
//!
//! The rules for all: no crash, no hang, no reply larger than the request unless it is an answer, and nothing of the
//! bad part is cached or forwarded. What is expected of each input is a row of the tables in `client` and `upstream`;
//! an input without a row fails.

mod client;
mod upstream;

use serde_json::Value;

/// One malformed (or odd but legal) message.
#[derive(Clone, Debug)]
struct Input {
    /// `MC…` comes from a client, `MU…` from an upstream.
    id: String,
    what: String,
    octets: Vec<u8>,
}

/// All inputs whose id starts with these letters.
fn inputs(letters: &str) -> Vec<Input> {
    let all: Value = serde_json::from_str(include_str!("../data/malformed.json")).expect("the collection is JSON");
    let all = all.as_array().expect("the collection is a list");
    let field = |entry: &Value, name: &str| {
        entry[name].as_str().unwrap_or_else(|| panic!("an input without {name}: {entry}")).to_owned()
    };
    let read = |entry: &Value| {
        let octets = from_hexadecimal(&field(entry, "hex"));
        assert_eq!(entry["len"].as_u64(), Some(octets.len() as u64), "{entry}");
        Input { id: field(entry, "id"), what: field(entry, "what"), octets }
    };
    let chosen: Vec<Input> = all.iter().map(read).filter(|input| input.id.starts_with(letters)).collect();
    assert!(!chosen.is_empty(), "no input begins with {letters}");
    chosen
}

fn from_hexadecimal(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2), "an odd number of digits");
    let octet = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(octet).collect()
}
