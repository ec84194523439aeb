//! Every octet of a stored answer can be shown on a terminal.
//!
//! Shape: a message, which need not be one.

use nodens::dump;

use super::support::accept;

pub fn check(data: &[u8]) {
    for line in dump::records(data) {
        assert!(line.bytes().all(|octet| octet == b' ' || octet.is_ascii_graphic()), "{line:?}");
    }
    if let Some(response) = accept(data, true) {
        assert_eq!(dump::records(response.octets()).len(), response.ttl_offsets().len());
    }
}
