//! The plugin `cache`: how long answers live.
//!
//! Read first: <https://coredns.io/plugins/cache/>.

use std::time::Duration;

use super::super::units::percent;
use super::keys;
use super::lexer::Token;
use super::reader::Reader;
use super::tree::Line;
use crate::plan::{Lifetimes, Prefetch};
use crate::wire::Name;

/// CoreDNS's own bounds on what lives in its cache, in seconds.
const SUCCESS: u32 = 3_600;
const DENIAL: u32 = 1_800;
/// Longest time a failure is kept, to CoreDNS and to RFC 9520 section 3.2.
const LONGEST_FAILURE: Duration = Duration::from_secs(300);
const WEEK: u32 = 7 * 86_400;
const OPTIONS: [&str; 8] =
    ["success", "denial", "prefetch", "serve_stale", "servfail", "disable", "keepttl", "serve_stale_policy"];

/// What a `cache` says.
pub(super) struct Cache<'l> {
    pub at: &'l Token,
    /// The parts it is for; empty: the whole block.
    pub zones: Vec<Name>,
    lifetimes: Lifetimes,
    /// Where nothing is kept: of answers, of denials.
    disabled: [Vec<Name>; 2],
    pub prefetch: Option<Prefetch>,
}

impl Cache<'_> {
    /// Whether this cache keeps answers for `name`.
    pub(super) fn covers(&self, name: &Name) -> bool {
        self.zones.is_empty() || self.zones.iter().any(|zone| name.is_under(zone))
    }

    /// How long answers for `name` live.
    pub(super) fn lifetimes(&self, name: &Name) -> Lifetimes {
        let mut lifetimes = self.lifetimes;
        let [answers, denials] = &self.disabled;
        if answers.iter().any(|zone| name.is_under(zone)) {
            (lifetimes.max_ttl, lifetimes.min_ttl) = (1, 0);
        }
        if denials.iter().any(|zone| name.is_under(zone)) {
            lifetimes.max_negative_ttl = 0;
        }
        lifetimes
    }

    /// The parts of a block this plugin speaks of.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Name> {
        self.zones.iter().chain(self.disabled.iter().flatten())
    }
}

/// Lifetimes where there is no `cache`: the owner's.
pub(super) fn uncached() -> Lifetimes {
    Lifetimes { max_stale: 0, ..Lifetimes::default() }
}

pub(super) fn read<'l>(line: &'l Line, reader: &mut Reader<'_>) -> Cache<'l> {
    let mut cache = Cache {
        at: line.name(),
        zones: Vec::new(),
        lifetimes: Lifetimes { max_ttl: SUCCESS, max_negative_ttl: DENIAL, ..uncached() },
        disabled: [Vec::new(), Vec::new()],
        prefetch: None,
    };
    let mut zones = line.arguments();
    if let Some((ttl, rest)) = zones.split_first()
        && ttl.text.bytes().all(|it| it.is_ascii_digit() || it == b'-')
    {
        zones = rest;
        if let Some(ttl) = reader.number(ttl, 1) {
            (cache.lifetimes.max_ttl, cache.lifetimes.max_negative_ttl) = (ttl, ttl);
        }
    }
    cache.zones = names(zones, reader);
    for option in line.lines() {
        cache.option(option, reader);
    }
    let lifetimes = &mut cache.lifetimes;
    // CoreDNS lets the upper bound win; the plan wants them in order.
    lifetimes.min_ttl = lifetimes.min_ttl.min(lifetimes.max_ttl);
    for (bound, longest) in [(&mut lifetimes.max_ttl, WEEK), (&mut lifetimes.max_negative_ttl, 86_400)] {
        if *bound > longest {
            *bound = longest;
            reader.remark(line.name(), "a lifetime is cut: to a week for answers, to a day for denials");
        }
    }
    if lifetimes.max_stale == 0 {
        let what =
            "no `serve_stale`: in an outage answers end with their TTL, as they did; `serve_stale 1h` keeps them";
        reader.remark(line.name(), what);
    }
    cache
}

/// Zones as arguments.
pub(super) fn names(tokens: &[Token], reader: &mut Reader<'_>) -> Vec<Name> {
    let mut names = Vec::new();
    for token in tokens {
        match keys::key(&token.text) {
            Ok(key) => names.extend(key.zones),
            Err(wrong) => reader.wrong(token, wrong.what, wrong.remedy),
        }
    }
    names
}

impl Cache<'_> {
    fn option(&mut self, line: &Line, reader: &mut Reader<'_>) {
        reader.no_block(line);
        let arguments = line.arguments();
        match line.name().text.as_str() {
            "success" => {
                if let Some([_, ttl, min]) = capacity(line, reader) {
                    self.lifetimes.max_ttl = ttl.unwrap_or(self.lifetimes.max_ttl);
                    self.lifetimes.min_ttl = min.unwrap_or(0).min(3_600);
                }
            }
            "denial" => {
                if let Some([_, ttl, min]) = capacity(line, reader) {
                    self.lifetimes.max_negative_ttl = ttl.unwrap_or(self.lifetimes.max_negative_ttl);
                    if min.is_some_and(|min| min > 0) {
                        reader.remark(line.name(), "a denial lives no longer than its SOA says: MINTTL has no effect");
                    }
                }
            }
            "prefetch" => self.prefetch(line, reader),
            "serve_stale" => self.serve_stale(line, reader),
            "serve_stale_policy" => {
                let what = "a good stale answer always goes before a fresh failure: `serve_stale_policy` has no effect";
                reader.remark(line.name(), what);
            }
            "servfail" => {
                let Some(duration) = reader.only(line, "servfail 5s").and_then(|it| reader.duration(it)) else {
                    return;
                };
                if duration > LONGEST_FAILURE {
                    reader.wrong(&arguments[0], "failures are kept for at most 5m", "write 5m or less");
                    return;
                }
                let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
                if duration < Duration::from_secs(1) {
                    let what = "a failure is kept for 1s at least (RFC 9520 section 3.2), so that a dead upstream is not \
                                asked by every client again";
                    reader.remark(line.name(), what);
                }
                self.lifetimes.failure_ttl = seconds.clamp(1, 300) as u32;
            }
            "disable" => {
                let Some((which, zones)) = arguments.split_first() else {
                    reader.wrong(line.name(), "`disable` of nothing", "write `disable success` or `disable denial`");
                    return;
                };
                let index = match which.text.as_str() {
                    "success" => 0,
                    "denial" => 1,
                    _ => {
                        reader.wrong(
                            which,
                            format!("`{}` cannot be disabled", which.text),
                            "write `success` or `denial`",
                        );
                        return;
                    }
                };
                if index == 0 {
                    let what =
                        "answers live 1s instead of not at all, so that many askers at once are one question upstream";
                    reader.remark(line.name(), what);
                }
                let names = names(zones, reader);
                self.disabled[index].extend(if zones.is_empty() { vec![Name::root()] } else { names });
            }
            "keepttl" => {
                reader.bare(line);
                reader.remark(
                    line.name(),
                    "TTLs count down, so that no cache behind keeps an answer too long: `keepttl` has no effect",
                );
            }
            _ => reader.unknown(line, "cache", &OPTIONS),
        }
    }

    fn prefetch(&mut self, line: &Line, reader: &mut Reader<'_>) {
        let (amount, rest) = match line.arguments() {
            [amount, rest @ ..] if rest.len() <= 2 => (amount, rest),
            _ => {
                reader.wrong(
                    line.name(),
                    "`prefetch` takes one to three arguments",
                    "write such as `prefetch 5 1m 10%`",
                );
                return;
            }
        };
        let Some(hits) = reader.number(amount, 0) else { return };
        if let Some(pause) = rest.first()
            && reader.duration(pause).is_some()
        {
            let what =
                "a name is refreshed if it was asked so often in its whole life: the pause in `prefetch` has no effect";
            reader.remark(pause, what);
        }
        let mut at_percent = 10;
        if let Some(share) = rest.get(1) {
            match percent(&share.text) {
                Ok(share) => at_percent = share.clamp(1, 90),
                Err(wrong) => reader.wrong(share, wrong.what, wrong.remedy),
            }
        }
        self.prefetch = (hits > 0).then(|| Prefetch { hits: hits.min(u8::MAX.into()) as u8, at_percent });
    }

    fn serve_stale(&mut self, line: &Line, reader: &mut Reader<'_>) {
        let mut words = line.arguments().iter().peekable();
        self.lifetimes.max_stale = 3_600;
        self.lifetimes.client_timeout = Duration::ZERO;
        if let Some(token) = words.next_if(|token| !matches!(token.text.as_str(), "immediate" | "verify"))
            && let Some(duration) = reader.duration(token)
        {
            let seconds = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
            // To CoreDNS 0 means for ever.
            if seconds == 0 || seconds > WEEK {
                reader.remark(token, "stale answers are used for a week at most (RFC 8767 section 4)");
            }
            self.lifetimes.max_stale = if seconds == 0 { WEEK } else { seconds.min(WEEK) };
        }
        match words.next() {
            None => {}
            Some(mode) if mode.text == "immediate" => {}
            Some(_) => {
                self.lifetimes.client_timeout = Lifetimes::default().client_timeout;
                if let Some(token) = words.next()
                    && let Some(patience) = reader.duration(token)
                {
                    self.lifetimes.client_timeout = patience.min(Duration::from_millis(3_999));
                }
            }
        }
        if let Some(more) = words.next() {
            reader.wrong(
                more,
                format!("`{}` is one word too many", more.text),
                "write such as `serve_stale 1h verify`",
            );
        }
        let what = "a stale answer has a TTL of 30s instead of 0 (RFC 8767 section 4), and says so (EDE 3)";
        reader.remark(line.name(), what);
    }
}

/// `CAPACITY [TTL [MINTTL]]`.
fn capacity(line: &Line, reader: &mut Reader<'_>) -> Option<[Option<u32>; 3]> {
    let arguments = line.arguments();
    if !(1..=3).contains(&arguments.len()) {
        let what = format!("`{}` takes one to three arguments", line.name().text);
        reader.wrong(line.name(), what, format!("write such as `{} 9984 30`: CAPACITY TTL MINTTL", line.name().text));
        return None;
    }
    let mut read = [None; 3];
    for ((place, token), least) in read.iter_mut().zip(arguments).zip([0, 1, 0]) {
        *place = Some(reader.number(token, least)?);
    }
    reader.remark(
        line.name(),
        "one cache for all zones, bounded in bytes (`cache.memory`, 64MiB): the capacity has no effect",
    );
    Some(read)
}
