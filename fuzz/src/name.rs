//! Names survive the way into text and back, and two ways of reading them in a message agree.
//!
//! Shape: one octet (where in the message), the octets: a message, a name, or text.

use std::str::FromStr;

use nodens::wire::{NAME_MAX, Name, name};

use super::support::split;

pub fn check(data: &[u8]) {
    let Some(([at], octets)) = split(data) else { return };
    in_message(octets, at.into());
    if let Some(length) = name::uncompressed_length(octets) {
        in_wire_form(&octets[..length]);
    }
    if let Ok(text) = std::str::from_utf8(octets) {
        in_text(text);
    }
    // Octets that are no name must still be printable.
    let shown = name::escape(octets).to_string();
    assert!(shown.bytes().all(|octet| octet.is_ascii_graphic()), "{shown:?}");
}

fn in_message(message: &[u8], at: usize) {
    let mut out = [0; NAME_MAX];
    let Some((length, next)) = name::expand(message, at, &mut out) else { return };
    assert_eq!(name::skip(message, at), Some(next));
    assert_eq!(name::uncompressed_length(&out[..length]), Some(length));
    in_wire_form(&out[..length]);
}

fn in_wire_form(wire: &[u8]) {
    let name = Name::from_wire(wire).expect("its length could be told");
    assert!(name::equal(name.as_wire(), wire));
    assert_eq!(name.labels(), name::label_count(wire));
    assert_eq!(Name::from_str(&name.to_string()), Ok(name.clone()));
    assert_eq!(name::suffixes(wire).count(), name.labels() + 1);
    for suffix in name::suffixes(wire) {
        assert!(name::is_under(wire, suffix));
        assert!(name.is_under(&Name::from_wire(suffix).expect("the end of a name is one")));
    }
    let theirs = hickory_proto::rr::Name::from_ascii(name.to_string());
    if let Ok(theirs) = theirs {
        assert_eq!(usize::from(theirs.num_labels()), name.labels() - usize::from(wire.starts_with(b"\x01*")));
    }
}

fn in_text(text: &str) {
    match Name::from_str(text) {
        Ok(name) => in_wire_form(name.as_wire()),
        Err(error) => assert!(!error.label().is_empty()),
    }
}
