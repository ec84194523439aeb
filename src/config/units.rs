//! Numbers with units: durations, sizes, shares.
//!
//! A unit is always written, so that no reader has to guess it; `30` is refused with `30s` as the remedy.

use std::time::Duration;

use super::values::Wrong;

/// Milliseconds of each unit, the longest name that begins a rest first.
const TIME: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
/// A century, beyond every bound of the plan.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Reads `250ms`, `1.8s`, `5m`, `1h30m`, `7d`; at most a century, in whole milliseconds.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    read_duration(text).map_err(|wrong| {
        let squeezed = text.replace(' ', "").to_ascii_lowercase();
        if squeezed != text && read_duration(&squeezed).is_ok() {
            Wrong::new(wrong.what, format!("write {squeezed}"))
        } else {
            wrong
        }
    })
}

/// Reads a duration of which people think in milliseconds: what has no unit and would be minutes is taken for them.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn patience(text: &str) -> Result<Duration, Wrong> {
    duration(text).map_err(|wrong| match text.parse::<u32>() {
        Ok(100..) => Wrong::new(wrong.what, format!("write {text}ms, or s, m, h, d")),
        _ => wrong,
    })
}

fn read_duration(text: &str) -> Result<Duration, Wrong> {
    let wrong =
        || Wrong::new(format!("`{text}` is no duration"), "write a number and its unit: 250ms, 3s, 5m, 24h, 7d");
    if text.is_empty() || text.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.') {
        let example = if text.is_empty() { "3" } else { text };
        return Err(Wrong::new(format!("`{text}` has no unit"), format!("write {example}s, or ms, m, h, d")));
    }
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(rest.len());
        let letters = rest[digits..].find(|it: char| !it.is_ascii_alphabetic()).map_or(rest.len(), |at| digits + at);
        let (number, unit) = (&rest[..digits], &rest[digits..letters]);
        let (_, millis) = TIME.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        total = times(number, millis).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[letters..];
    }
    let duration = Duration::from_millis(total);
    if duration > LONGEST {
        return Err(Wrong::new(format!("`{text}` is too long"), "write less than a century"));
    }
    Ok(duration)
}

/// Reads a duration that is a whole number of seconds, as lifetimes are.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn seconds(text: &str) -> Result<u32, Wrong> {
    let duration = duration(text)?;
    if duration.subsec_nanos() != 0 {
        return Err(Wrong::new(
            format!("`{text}` is not a whole number of seconds"),
            "lifetimes in DNS are seconds: write 1s, 30s",
        ));
    }
    Ok(u32::try_from(duration.as_secs()).expect("a century has less than 2^32 seconds"))
}

/// Reads `512KiB`, `64MiB`, `1GiB`, `1000B` as bytes.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn bytes(text: &str) -> Result<usize, Wrong> {
    let digits = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let sample = || Wrong::new(format!("`{text}` is no size"), "write a number and its unit: 512KiB, 64MiB, 1GiB");
    if number.is_empty() {
        return Err(sample());
    }
    let Some((_, factor)) = SIZE.into_iter().find(|(name, _)| *name == unit) else {
        let meant = match unit.to_ascii_lowercase().as_str() {
            "" => return Err(Wrong::new(format!("`{text}` has no unit"), format!("write {number}MiB, or KiB, GiB"))),
            "k" | "ki" | "kb" | "kib" => "KiB",
            "m" | "mi" | "mb" | "mib" => "MiB",
            "g" | "gi" | "gb" | "gib" => "GiB",
            _ => return Err(sample()),
        };
        return Err(Wrong::new(format!("`{text}` is no size"), format!("did you mean {number}{meant}?")));
    };
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    size.and_then(|size| usize::try_from(size).ok())
        .ok_or_else(|| Wrong::new(format!("`{text}` is more than this machine can count"), "write a smaller size"))
}

/// Reads `10%`.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn percent(text: &str) -> Result<u8, Wrong> {
    text.strip_suffix('%')
        .and_then(|number| number.trim_end().parse().ok())
        .filter(|&number| number <= 100)
        .ok_or_else(|| Wrong::new(format!("`{text}` is no share"), "write a whole number of percent, such as 10%"))
}

/// `number` (digits, at most one point) times `factor`, if that is a whole number.
fn times(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let point = number.contains('.');
    if whole.is_empty() || (point && fraction.is_empty()) || fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    let part = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()?.checked_mul(factor)? };
    if part % scale != 0 {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(factor)?.checked_add(part / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("3s", 3_000),
            ("1.8s", 1_800),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("0.5h", 1_800_000),
        ] {
            assert_eq!(duration(text).ok(), Some(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        let many = "9".repeat(40) + "s";
        for text in [
            "",
            "3",
            "1.5",
            "s",
            "-3s",
            "3 s",
            "3w",
            "3S",
            "1.s",
            ".5s",
            "1..5s",
            "0.0001s",
            "9999999999d",
            "3s4",
            &many,
            "٣s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(seconds("250ms").is_err());
    }

    #[test]
    fn a_number_without_a_unit_is_answered_with_one() {
        assert_eq!(duration("30").expect_err("no unit").remedy, "write 30s, or ms, m, h, d");
        assert_eq!(patience("1800").expect_err("no unit").remedy, "write 1800ms, or s, m, h, d");
        assert_eq!(patience("3").expect_err("no unit").remedy, "write 3s, or ms, m, h, d");
        for (text, meant) in [("30 s", "write 30s"), ("5S", "write 5s")] {
            assert_eq!(duration(text).expect_err("not as we write it").remedy, meant);
        }
        assert_eq!(bytes("64Mi").expect_err("not our unit").remedy, "did you mean 64MiB?");
    }

    #[test]
    fn sizes_are_read_in_powers_of_two() {
        for (text, size) in [("512KiB", 512 << 10), ("64MiB", 64 << 20), ("1GiB", 1 << 30), ("1000B", 1000)] {
            assert_eq!(bytes(text).ok(), Some(size), "{text}");
        }
        for text in ["", "64", "64MB", "MiB", "6.4MiB", "-1MiB", "99999999999999999999MiB", "18014398509481984KiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_percent() {
        assert_eq!(percent("10%").ok(), Some(10));
        for text in ["10", "%", "101%", "-1%", "1.5%"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }
}
