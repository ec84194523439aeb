//! The plugins that say where something listens: `bind`, `health`, `prometheus`, `pprof`.

use std::net::{IpAddr, SocketAddr};

use super::lexer::Token;
use super::reader::Reader;
use super::tree::Line;

/// One place for all blocks, and where it is written.
pub(super) type Place<'l> = Option<(SocketAddr, &'l Token)>;

/// The addresses a `bind` names, interfaces by their addresses at this moment.
///
/// An unspecified address stays: whoever has the whole picture says what it stands for.
pub(super) fn bind(line: &Line, reader: &mut Reader<'_>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for token in line.arguments() {
        if let Ok(address) = token.text.parse::<IpAddr>() {
            addresses.push(address);
            continue;
        }
        let found = (reader.around.addresses)(Some(&token.text));
        if found.is_empty() {
            let what = format!("`{}` is neither an IP address nor an interface with one", token.text);
            reader.wrong(token, what, "write the address to listen on");
        } else {
            reader.remark(token, format!("`{}` stands for the addresses it has at the start", token.text));
        }
        addresses.extend(found);
    }
    for option in line.lines() {
        if option.name().text != "except" {
            reader.unknown(option, "bind", &["except"]);
            continue;
        }
        for token in option.arguments() {
            let left_out = match token.text.parse::<IpAddr>() {
                Ok(address) => vec![address],
                Err(_) => (reader.around.addresses)(Some(&token.text)),
            };
            addresses.retain(|address| !left_out.contains(address));
        }
    }
    if line.arguments().is_empty() {
        reader.wrong(line.name(), "`bind` to nothing", "write the addresses to listen on");
    }
    addresses
}

/// `health [ADDRESS] { lameduck DURATION }`.
pub(super) fn health<'l>(line: &'l Line, place: &mut Place<'l>, reader: &mut Reader<'_>) {
    for option in line.lines() {
        if option.name().text != "lameduck" {
            reader.unknown(option, "health", &["lameduck"]);
        } else if reader.only(option, "lameduck 5s").and_then(|it| reader.duration(it)).is_some() {
            let what = "the traffic is handed over first and what waits is answered: `lameduck` has no effect";
            reader.remark(option.name(), what);
        }
    }
    set(line, ":8080", place, reader);
}

/// `prometheus [ADDRESS]`, `pprof [ADDRESS]`: a place that is `standard` if none is written.
pub(super) fn plain<'l>(line: &'l Line, standard: &str, place: &mut Place<'l>, reader: &mut Reader<'_>) {
    set(line, standard, place, reader);
}

fn set<'l>(line: &'l Line, standard: &str, place: &mut Place<'l>, reader: &mut Reader<'_>) {
    let name = line.name();
    let address = match line.arguments() {
        [] => super::reader::endpoint(standard, &reader.settings.local),
        [address] => reader.endpoint(address),
        [_, more, ..] => {
            reader.wrong(more, format!("`{}` takes one address", name.text), "take the rest out");
            None
        }
    };
    let Some(address) = address else { return };
    match place {
        None => *place = Some((address, name)),
        Some((known, _)) if *known == address => {}
        Some((known, at)) => {
            let what = format!("`{}` is at {known} already (line {})", name.text, at.spot.line);
            reader.wrong(name, what, "Nodens has it once for all zones: write the same address, or take one out");
        }
    }
}
