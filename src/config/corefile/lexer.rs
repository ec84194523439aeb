//! A Corefile's text as tokens that know their place.
//!
//! The rules are Caddy's: white space parts tokens, `"` begins a quoted one in which only `\"` is an escape, `#` begins a
//! comment wherever it stands outside quotes. Unlike there, a quote that is never closed is a mistake, and a quoted brace
//! is text. `{$NAME}` and `{%NAME%}` are replaced behind the lexer, in one token at a time: what the environment says can
//! fill a token and can never become structure.

use std::rc::Rc;

use super::super::mistake::Spot;

/// A word of a Corefile.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// Where it stands in the file that was named; of an imported one, where the import stands.
    pub spot: Spot,
    pub text: String,
    /// Written in quotes: never a brace, never a name of a snippet.
    pub quoted: bool,
    /// The first of its line.
    pub first: bool,
    /// `FILE:LINE` of what was imported.
    pub origin: Option<Rc<str>>,
    /// The node-cache variable its text came from.
    pub variable: Option<&'static str>,
}

impl Token {
    pub(super) fn is(&self, text: &str) -> bool {
        !self.quoted && self.text == text
    }
}

/// A quote that is never closed.
pub(super) struct Unclosed(pub Spot);

/// The tokens of `text`, and the quote that is left open, if one is. Columns count characters, as messages do.
pub(super) fn tokens(text: &str) -> (Vec<Token>, Option<Unclosed>) {
    let mut lexer = Lexer { tokens: Vec::new(), line: 1, column: 0, fresh_line: true };
    let mut unclosed = None;
    let mut characters = text.chars().peekable();
    while let Some(&character) = characters.peek() {
        match character {
            '#' => {
                while let Some(character) = characters.next_if(|&it| it != '\n') {
                    lexer.pass(character);
                }
            }
            _ if character.is_whitespace() => {
                characters.next();
                lexer.pass(character);
            }
            '"' => {
                characters.next();
                let start = lexer.place();
                lexer.pass('"');
                let mut value = String::new();
                let mut closed = false;
                while let Some(character) = characters.next() {
                    lexer.pass(character);
                    match character {
                        '"' => {
                            closed = true;
                            break;
                        }
                        '\\' if characters.next_if_eq(&'"').is_some() => {
                            lexer.pass('"');
                            value.push('"');
                        }
                        _ => value.push(character),
                    }
                }
                lexer.push(start, value, true);
                if !closed {
                    unclosed = Some(Unclosed(Spot { width: 1, ..start.spot }));
                }
            }
            _ => {
                let start = lexer.place();
                let mut value = String::new();
                while let Some(character) = characters.next_if(|&it| !it.is_whitespace() && it != '#') {
                    lexer.pass(character);
                    value.push(character);
                }
                lexer.push(start, value, false);
            }
        }
    }
    (lexer.tokens, unclosed)
}

struct Lexer {
    tokens: Vec<Token>,
    line: usize,
    column: usize,
    /// No token yet on this line.
    fresh_line: bool,
}

#[derive(Clone, Copy)]
struct Start {
    spot: Spot,
    first: bool,
}

impl Lexer {
    fn place(&mut self) -> Start {
        Start { spot: Spot { line: self.line, column: self.column, width: 1 }, first: self.fresh_line }
    }

    fn pass(&mut self, character: char) {
        if character == '\n' {
            self.line += 1;
            self.column = 0;
            self.fresh_line = true;
        } else {
            self.column += 1;
        }
    }

    fn push(&mut self, start: Start, text: String, quoted: bool) {
        let width = if start.spot.line == self.line { self.column - start.spot.column } else { 1 };
        let spot = Spot { width, ..start.spot };
        // What follows a quoted token that spans lines is on its last line.
        self.fresh_line = false;
        self.tokens.push(Token { spot, text, quoted, first: start.first, origin: None, variable: None });
    }
}

/// Replaces `{$NAME}` and `{%NAME%}`; a variable that is not set is empty, as it is to CoreDNS. Gives the names of those.
pub(super) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> (String, Vec<String>) {
    let mut out = String::with_capacity(text.len());
    let mut unset = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        let inside = &rest[at + 1..];
        let reference = [("$", "}"), ("%", "%}")].into_iter().find_map(|(open, close)| {
            let behind = inside.strip_prefix(open)?;
            let end = behind.find(close)?;
            (end > 0).then(|| (&behind[..end], &behind[end + close.len()..]))
        });
        let Some((name, behind)) = reference else {
            out.push('{');
            rest = inside;
            continue;
        };
        match env(name) {
            Some(value) => out.push_str(&value),
            None => unset.push(name.to_owned()),
        }
        rest = behind;
    }
    out.push_str(rest);
    (out, unset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        tokens(text).0.into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn white_space_parts_and_comments_end_with_the_line() {
        assert_eq!(texts("a\tb # c { d\r\ne#f g\nh"), ["a", "b", "e", "h"]);
    }

    #[test]
    fn quotes_keep_everything_but_their_own_escape() {
        assert_eq!(texts(r#""a b" "c \"d\" \.e" "f # g" """#), ["a b", r#"c "d" \.e"#, "f # g", ""]);
        assert_eq!(texts("\"two\nlines\" x"), ["two\nlines", "x"]);
        assert!(tokens("a \"b").1.is_some());
    }

    #[test]
    fn tokens_know_line_column_and_which_is_first() {
        let (found, _) = tokens("  é x\n\"q\ny\" z\n  w");
        let places: Vec<_> = found.iter().map(|it| (it.spot.line, it.spot.column, it.spot.width, it.first)).collect();
        assert_eq!(places, [(1, 2, 1, true), (1, 4, 1, false), (2, 0, 1, true), (3, 3, 1, false), (4, 2, 1, true)]);
    }

    #[test]
    fn the_environment_fills_tokens() {
        let env = |name: &str| (name == "A").then(|| "1".to_owned());
        assert_eq!(expand("x{$A}:{%A%}", &env), ("x1:1".to_owned(), vec![]));
        assert_eq!(expand("{$B}", &env), (String::new(), vec!["B".to_owned()]));
        for text in ["{$}", "{$A", "{}", "{{ .Name }}", "{%A}", "{A}"] {
            assert_eq!(expand(text, &env).0, text);
        }
    }
}
