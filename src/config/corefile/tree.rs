//! The shape of a Corefile: lines of words, each with a block of lines or without.
//!
//! ```text
//! file  = { line }
//! line  = word { word } [ "{" { line } "}" ]          at the top the brace may stand on the next line, and a word that
//!                                                     ends in a comma is followed by another, wherever it stands
//! ```
//! What is shaped otherwise is noted and left out. Imports are resolved one level up, in [`super::imports`].

use super::super::mistake::Spot;
use super::lexer::Token;

/// Blocks within each other; a Corefile needs three.
const MAX_DEPTH: usize = 8;

/// A line and the block behind it.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// At least one.
    pub words: Vec<Token>,
    pub block: Option<Vec<Line>>,
}

impl Line {
    pub(super) fn name(&self) -> &Token {
        &self.words[0]
    }

    pub(super) fn arguments(&self) -> &[Token] {
        &self.words[1..]
    }

    /// The lines of the block; none if there is no block.
    pub(super) fn lines(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// A break of the rules above.
pub(super) struct Misshapen {
    pub spot: Spot,
    pub what: String,
    pub remedy: &'static str,
}

/// Gives `tokens` their shape.
pub(super) fn lines(tokens: Vec<Token>) -> (Vec<Line>, Vec<Misshapen>) {
    let mut builder = Builder { tokens: tokens.into_iter().peekable(), wrong: Vec::new() };
    let lines = builder.lines(0, None);
    (lines, builder.wrong)
}

struct Builder {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    wrong: Vec<Misshapen>,
}

impl Builder {
    fn note(&mut self, spot: Spot, what: impl Into<String>, remedy: &'static str) {
        self.wrong.push(Misshapen { spot, what: what.into(), remedy });
    }

    /// The lines up to the brace that closes the block `opened` at, or to the end.
    fn lines(&mut self, depth: usize, opened: Option<Spot>) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        while let Some(token) = self.tokens.next() {
            if token.is("}") {
                if opened.is_some() {
                    return lines;
                }
                self.note(token.spot, "this `}` closes nothing", "take it out, or write the `{` it belongs to");
                continue;
            }
            if token.is("{") {
                let block = self.block(depth, token.spot);
                match lines.last_mut() {
                    // A server block's brace may stand below its zones.
                    Some(line) if depth == 0 && line.block.is_none() => line.block = Some(block),
                    Some(_) => self.note(
                        token.spot,
                        "a `{` on a line of its own",
                        "put it at the end of the line it belongs to",
                    ),
                    None => self.note(token.spot, "a block without a name", "write the zones in front of the `{`"),
                }
                continue;
            }
            let line = self.line(token, depth);
            lines.push(line);
        }
        if let Some(spot) = opened {
            self.note(spot, "this `{` is never closed", "write a `}` where the block ends");
        }
        lines
    }

    fn line(&mut self, first: Token, depth: usize) -> Line {
        let mut words = vec![first];
        let mut block = None;
        while let Some(next) = self.tokens.peek() {
            let continued = depth == 0 && words.last().is_some_and(|word| !word.quoted && word.text.ends_with(','));
            if (next.first && !continued) || next.is("}") {
                break;
            }
            let token = self.tokens.next().expect("it was peeked at");
            if token.is("{") {
                block = Some(self.block(depth, token.spot));
                break;
            }
            // `forward{` reads like a block and is a word.
            if !token.quoted && token.text.ends_with('{') && !token.text.contains("{{") {
                self.note(token.spot, "a brace that belongs to a word", "write a space in front of the `{`");
            }
            words.push(token);
        }
        if depth > 0 && words[0].text.ends_with('{') && !words[0].quoted && !words[0].text.contains("{{") {
            self.note(words[0].spot, "a brace that belongs to a word", "write a space in front of the `{`");
        }
        Line { words, block }
    }

    fn block(&mut self, depth: usize, spot: Spot) -> Vec<Line> {
        if depth < MAX_DEPTH {
            return self.lines(depth + 1, Some(spot));
        }
        self.note(spot, format!("blocks within blocks, more than {MAX_DEPTH} deep"), "no plugin has so many");
        // Passed over, braces counted, so that what follows keeps its place.
        let mut open = 1;
        while open > 0 {
            match self.tokens.next() {
                None => break,
                Some(token) if token.is("{") => open += 1,
                Some(token) if token.is("}") => open -= 1,
                Some(_) => {}
            }
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexer;
    use super::*;

    fn shape(text: &str) -> String {
        fn show(lines: &[Line]) -> String {
            let shown = lines.iter().map(|line| {
                let words: Vec<_> = line.words.iter().map(|word| word.text.as_str()).collect();
                let block = line.block.as_ref().map_or_else(String::new, |block| format!(" [{}]", show(block)));
                format!("{}{block}", words.join(" "))
            });
            shown.collect::<Vec<_>>().join("; ")
        }
        show(&lines(lexer::tokens(text).0).0)
    }

    fn complaints(text: &str) -> Vec<String> {
        lines(lexer::tokens(text).0).1.into_iter().map(|it| it.what).collect()
    }

    #[test]
    fn blocks_hold_lines_and_lines_hold_words() {
        assert_eq!(
            shape(".:53 {\n errors\n cache 30 {\n  denial 1 2\n }\n}\n"),
            ".:53 [errors; cache 30 [denial 1 2]]"
        );
        assert_eq!(shape("a { b { c } }"), "a [b [c]]");
        assert_eq!(shape("a {}"), "a {}");
        assert_eq!(shape("a { }"), "a []");
    }

    #[test]
    fn zones_go_on_behind_a_comma_and_their_brace_may_stand_below() {
        assert_eq!(shape("a,\nb c\n{\n x\n}\nd {\n}"), "a, b c [x]; d []");
    }

    #[test]
    fn a_quoted_brace_is_text() {
        assert_eq!(shape("a {\n b \"}\" \"{\"\n}"), "a [b } {]");
    }

    #[test]
    fn every_brace_out_of_place_is_told() {
        assert_eq!(complaints("a {\n b\n"), ["this `{` is never closed"]);
        assert_eq!(complaints("a {\n}\n}"), ["this `}` closes nothing"]);
        assert_eq!(complaints("{\n}"), ["a block without a name"]);
        assert_eq!(complaints("a {\n b\n {\n }\n}"), ["a `{` on a line of its own"]);
        assert_eq!(complaints("a {\n forward . x{\n}"), ["a brace that belongs to a word"]);
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "a { ".repeat(100_000);
        assert!(complaints(&deep).iter().any(|it| it.contains("deep")));
    }
}
