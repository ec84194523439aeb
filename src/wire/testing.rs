//! The hostile messages of tests/data/malformed.json, for the tests of this floor.

use std::sync::LazyLock;

use serde_json::Value;

static CASES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../tests/data/malformed.json")).expect("the file is an array of cases")
});

/// The IDs of the cases of a side, `client` or `upstream`.
pub(super) fn malformed_cases(side: &str) -> Vec<String> {
    CASES.iter().filter(|case| case["side"] == side).map(|case| text(case, "id").to_owned()).collect()
}

/// The octets of one case; where the file has them as a TCP stream, those behind the length.
pub(super) fn malformed(id: &str) -> Vec<u8> {
    let case = CASES.iter().find(|case| case["id"] == id).unwrap_or_else(|| panic!("no case {id}"));
    let hex = text(case, "hex").as_bytes();
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("hexadecimal") as u8;
    let octets: Vec<u8> = hex.chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
    if text(case, "what").starts_with("TCP:") { octets.get(2..).unwrap_or_default().to_vec() } else { octets }
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().expect("fields are text")
}
