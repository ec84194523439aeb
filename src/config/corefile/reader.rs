//! What the readers of a Corefile share: where mistakes and remarks go, what is around the file, and small values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::super::mistake::{Notes, Place, Spot, printable};
use super::super::suggest::nearest;
use super::super::values::either;
use super::lexer::Token;
use super::tree::Line;
use super::{Remark, Settings, Surroundings};

/// A file being read.
pub(super) struct Reader<'a> {
    notes: Notes<'a>,
    /// Mistakes that snippets repeat are told once.
    told: Vec<(Spot, String)>,
    pub remarks: Vec<Remark>,
    pub around: &'a Surroundings<'a>,
    pub settings: &'a Settings,
    /// Every file that was read, the first one left out.
    pub files: Vec<PathBuf>,
    /// Directories searched by a pattern.
    pub folders: Vec<PathBuf>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, around: &'a Surroundings<'a>, settings: &'a Settings) -> Self {
        Self {
            notes: Notes::new(text),
            told: Vec::new(),
            remarks: Vec::new(),
            around,
            settings,
            files: Vec::new(),
            folders: Vec::new(),
        }
    }

    pub(super) fn wrong(&mut self, at: &Token, what: impl Into<String>, remedy: impl Into<String>) {
        self.wrong_at(at.spot, at.origin.as_ref(), what, remedy);
    }

    /// Notes a mistake; `origin` says where in an imported file it is.
    pub(super) fn wrong_at(
        &mut self,
        spot: Spot,
        origin: Option<&Rc<str>>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let what = match origin {
            None => what.into(),
            Some(origin) => format!("{origin}: {}", what.into()),
        };
        let known = self.told.iter().any(|(other, told)| *other == spot && *told == what);
        if !known {
            self.notes.add(spot, &what, remedy);
            if !self.notes.is_full() {
                self.told.push((spot, what));
            }
        }
    }

    /// Whether a mistake is known at this very place.
    pub(super) fn is_wrong(&self, spot: Spot) -> bool {
        self.notes.has(spot)
    }

    /// Notes a difference between what CoreDNS does and what happens here.
    pub(super) fn remark(&mut self, at: &Token, what: impl AsRef<str>) {
        let place = Place { line: at.spot.line, column: at.spot.column + 1 };
        self.add_remark(Some(place), what.as_ref());
    }

    /// The same, about the file as a whole.
    pub(super) fn remark_generally(&mut self, what: impl AsRef<str>) {
        self.add_remark(None, what.as_ref());
    }

    fn add_remark(&mut self, place: Option<Place>, what: &str) {
        /// What a file with the same plugin in every block says of it is worth one line.
        const MOST: usize = 200;
        let what = printable(what);
        let known = self.remarks.iter().any(|other| other.what == what);
        if !known && self.remarks.len() < MOST {
            self.remarks.push(Remark { place, what });
        }
    }

    pub(super) fn into_notes(self) -> Notes<'a> {
        self.notes
    }

    // Arguments of a line.

    /// The one argument of `line`; `None` and a note if there is another number of them.
    pub(super) fn only<'l>(&mut self, line: &'l Line, form: &str) -> Option<&'l Token> {
        self.no_block(line);
        let [only] = line.arguments() else {
            let what = format!("`{}` takes one argument", line.name().text);
            self.wrong(line.name(), what, format!("write `{form}`"));
            return None;
        };
        Some(only)
    }

    /// Notes arguments behind a word that takes none.
    pub(super) fn bare(&mut self, line: &Line) {
        self.no_block(line);
        if let Some(first) = line.arguments().first() {
            self.wrong(first, format!("`{}` takes no argument", line.name().text), "take it out");
        }
    }

    pub(super) fn no_block(&mut self, line: &Line) {
        if let Some(inner) = line.lines().first() {
            let what = format!("`{}` has no block", line.name().text);
            self.wrong(inner.name(), what, "take the braces and what is in them out");
        }
    }

    /// Notes a word no reader knows; `known` are those it could have been.
    pub(super) fn unknown(&mut self, line: &Line, plugin: &str, known: &[&str]) {
        let name = line.name();
        let remedy = match nearest(&name.text, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known here: {}", either(known.iter().copied())),
        };
        self.wrong(name, format!("`{}` is no option of `{plugin}`", name.text), remedy);
    }

    /// A whole number from `least` on.
    pub(super) fn number(&mut self, token: &Token, least: u32) -> Option<u32> {
        let read = token.text.parse::<u32>().ok().filter(|number| *number >= least);
        if read.is_none() {
            let what = format!("`{}` is no whole number from {least} on", token.text);
            self.wrong(token, what, format!("write one, such as {}", least.max(30)));
        }
        read
    }

    /// A duration as Go writes it, in whole milliseconds.
    pub(super) fn duration(&mut self, token: &Token) -> Option<Duration> {
        let read = go_duration(&token.text);
        if read.is_none() {
            let remedy = "write a number and its unit: 500ms, 30s, 5m, 1h";
            self.wrong(token, format!("`{}` is no duration", token.text), remedy);
        }
        // What is shorter than a millisecond no timer of ours keeps.
        read.map(|it| Duration::from_millis(u64::try_from(it.as_millis()).unwrap_or(u64::MAX)))
    }

    /// `10.0.0.1:9253`, `[::1]:9253`, or `:9253` for every address of the host.
    pub(super) fn endpoint(&mut self, token: &Token) -> Option<SocketAddr> {
        let read = endpoint(&token.text, &self.settings.local);
        if read.is_none() {
            let remedy = "write ADDRESS:PORT, or :PORT for every address";
            self.wrong(token, format!("`{}` is no place to listen at", token.text), remedy);
        }
        read
    }
}

/// Reads an address with a port; without the address it means all of them, of the family `local` has; of IPv4 if it has both.
pub(in crate::config) fn endpoint(text: &str, local: &[IpAddr]) -> Option<SocketAddr> {
    let everywhere: IpAddr = if !local.is_empty() && local.iter().all(IpAddr::is_ipv6) {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|&port| port > 0)?;
    let ip = match host {
        "" => everywhere,
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        _ if host.starts_with('[') => return text.parse().ok(),
        // An IPv6 address without brackets is what a template makes of `__PILLAR__LOCAL__DNS__:8080`.
        _ => host.parse().ok()?,
    };
    Some(SocketAddr::new(ip, port))
}

/// Reads a duration as Go's `time.ParseDuration` does; negative ones are none.
pub(in crate::config) fn go_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() || text.len() > 64 {
        return None;
    }
    let mut total = 0.0_f64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(rest.len());
        let behind = &rest[digits..];
        let letters = behind.find(|it: char| it.is_ascii_digit() || it == '.').unwrap_or(behind.len());
        let (_, nanos) = UNITS.into_iter().find(|(unit, _)| *unit == &behind[..letters])?;
        let number: f64 = rest[..digits].parse().ok()?;
        total += number * nanos as f64;
        rest = &behind[letters..];
    }
    Duration::try_from_secs_f64(total / 1e9).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_s() {
        for (text, millis) in [
            ("0", 0),
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("500ms", 500),
            ("1000us", 1),
            ("+1s", 1_000),
        ] {
            assert_eq!(go_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1d", "1s ", "1e3s", "١s", &"9".repeat(400)] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn an_endpoint_without_an_address_is_everywhere() {
        let (v4, v6): (IpAddr, IpAddr) = ("10.0.0.1".parse().expect("legal"), "fd00::1".parse().expect("legal"));
        for (text, local, read) in [
            (":9253", v4, Some("0.0.0.0:9253")),
            (":9253", v6, Some("[::]:9253")),
            ("localhost:1", v4, Some("127.0.0.1:1")),
            ("[fd00::1]:80", v4, Some("[fd00::1]:80")),
            ("fd00::1:80", v4, Some("[fd00::1]:80")),
            ("10.0.0.1", v4, None),
            (":0", v4, None),
        ] {
            assert_eq!(endpoint(text, &[local]), read.map(|it| it.parse().expect("legal")), "{text}");
        }
    }
}
