//! What somebody who mistyped a word probably meant.

/// Characters of the longest word worth a comparison: no key or choice is longer.
const LONGEST: usize = 64;

/// The one of `words` that is nearest to `typed`; `None` if none is near.
///
/// Near is one slip for every three letters, and one in any case: letters left out, added, changed, or two swapped.
pub(super) fn nearest<'w>(typed: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let typed: Vec<char> = typed.to_lowercase().replace(['_', ' '], "-").chars().take(LONGEST + 1).collect();
    if typed.is_empty() || typed.len() > LONGEST {
        return None;
    }
    words
        .into_iter()
        .map(|word| {
            let letters: Vec<char> = word.to_lowercase().replace('_', "-").chars().take(LONGEST).collect();
            (slips(&typed, &letters), letters.len(), word)
        })
        .filter(|&(slips, length, _)| slips <= (length.min(typed.len()) / 3).max(1) && slips < typed.len())
        .min_by_key(|&(slips, _, _)| slips)
        .map(|(_, _, word)| word)
}

/// Optimal string alignment distance between two words.
fn slips(one: &[char], other: &[char]) -> usize {
    let mut before_last = vec![0; other.len() + 1];
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, &letter) in one.iter().enumerate() {
        let mut this = vec![row + 1; other.len() + 1];
        for (column, &counterpart) in other.iter().enumerate() {
            let changed = last[column] + usize::from(letter != counterpart);
            this[column + 1] = changed.min(last[column + 1] + 1).min(this[column] + 1);
            let swapped = row > 0 && column > 0 && letter == other[column - 1] && one[row - 1] == counterpart;
            if swapped {
                this[column + 1] = this[column + 1].min(before_last[column - 1] + 1);
            }
        }
        before_last = last;
        last = this;
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised() {
        let words = ["upstream", "upstreams", "zones", "max_ttl", "min_ttl", "tcp", "tls"];
        for (typed, meant) in [
            ("upstrem", "upstream"),
            ("Upstreams", "upstreams"),
            ("zoens", "zones"),
            ("max-ttl", "max_ttl"),
            ("maxttl", "max_ttl"),
            ("tsl", "tls"),
        ] {
            assert_eq!(nearest(typed, words), Some(meant));
        }
    }

    #[test]
    fn what_resembles_nothing_gets_no_suggestion() {
        for typed in ["", "x", "forward", "cache", &"upstream".repeat(500)] {
            assert_eq!(nearest(typed, ["upstream", "zones", "on"]), None, "{typed}");
        }
    }
}
