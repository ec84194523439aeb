//! The plan's values in the words of the configuration: what `nodens check` and the log print.
//!
//! Each closed choice has its words once, in `WORDS`; front ends read by the same table, so that what is printed can be
//! written back.

use std::fmt;
use std::time::Duration;

use super::{Aaaa, Choice, Interception, LogFormat, Members, NonRecursive, Prefix, Protocol, QueryLog, Server};

/// Gives a choice its words: the table to read by, and `Display`.
macro_rules! words {
    ($($type:ident { $($word:literal => $variant:ident),+ $(,)? })+) => { $(
        impl $type {
            /// Every word a configuration can say here, with its meaning.
            pub const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $word),+ })
            }
        }
    )+ };
}

words! {
    Aaaa { "keep" => Keep, "strip" => Strip, "strip-if-a" => StripIfA }
    Choice {
        "least-outstanding" => LeastOutstanding,
        "random" => Random,
        "round-robin" => RoundRobin,
        "sequential" => Sequential,
    }
    Interception { "auto" => Auto, "iptables" => Iptables, "nftables" => Nftables, "off" => Off }
    LogFormat { "json" => Json, "text" => Text }
    NonRecursive { "forward" => Forward, "refuse" => Refuse }
    Protocol { "udp" => Udp, "tcp" => Tcp, "tls" => Tls }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Display for QueryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::OneIn(1) => f.write_str("all"),
            Self::OneIn(many) => write!(f, "1/{many}"),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ResolvConf(path) => write!(f, "the servers in {}, followed live", path.display()),
            Self::Servers(servers) => {
                for (index, server) in servers.iter().enumerate() {
                    write!(f, "{}{server}", if index == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Service { namespace, name } => {
                write!(f, "the endpoints of Service {namespace}/{name}, followed by name")
            }
        }
    }
}

/// A duration as a configuration writes it: `0s`, `250ms`, `1.8s`, `5m`, `24h`, `7d`.
pub fn human_duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    match (seconds, millis) {
        (0, 1..) => format!("{millis}ms"),
        (_, 1..) => format!("{seconds}.{}s", format!("{millis:03}").trim_end_matches('0')),
        // A day is still spoken of in hours.
        (172_800.., 0) if seconds % 86_400 == 0 => format!("{}d", seconds / 86_400),
        (1.., 0) if seconds % 3_600 == 0 => format!("{}h", seconds / 3_600),
        (1.., 0) if seconds % 60 == 0 => format!("{}m", seconds / 60),
        (_, 0) => format!("{seconds}s"),
    }
}

/// A size as a configuration writes it: `1000B`, `512KiB`, `64MiB`, `1GiB`; the largest unit that divides it.
pub fn human_bytes(bytes: usize) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_in_their_largest_whole_unit() {
        for (millis, printed) in
            [(0, "0s"), (250, "250ms"), (1800, "1.8s"), (1005, "1.005s"), (90_000, "90s"), (300_000, "5m")]
        {
            assert_eq!(human_duration(Duration::from_millis(millis)), printed);
        }
        assert_eq!(human_duration(Duration::from_secs(86_400)), "24h");
        assert_eq!(human_duration(Duration::from_secs(7 * 86_400)), "7d");
    }

    #[test]
    fn sizes_print_in_their_largest_whole_unit() {
        for (bytes, printed) in
            [(0, "0B"), (1000, "1000B"), (512 << 10, "512KiB"), (64 << 20, "64MiB"), (1 << 30, "1GiB")]
        {
            assert_eq!(human_bytes(bytes), printed);
        }
    }
}
