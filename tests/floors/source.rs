//! Rust source reduced to what the compiler makes a release from: no comments, no literals, no test code.
//!
//! Not a parser: it knows just enough of the language to blank out what must not be searched. Line breaks stay, so that
//! a finding has its line.

/// Blanks out comments and the insides of literals.
pub fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let (kept, skipped) = match first {
            '/' if rest.starts_with("//") => (0, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => (0, block_comment(rest)),
            '"' => (0, quoted(rest, 0)),
            'r' | 'b' | 'c' if starts_word(&code) => match prefixed_literal(rest) {
                Some(length) => (0, length),
                None => (1, 0),
            },
            '\'' => (0, character(rest).unwrap_or(1)),
            _ => (first.len_utf8(), 0),
        };
        code.push_str(&rest[..kept]);
        code.extend(rest[kept..kept + skipped].chars().filter(|it| *it == '\n'));
        if skipped > 0 {
            code.push(' ');
        }
        rest = &rest[kept + skipped..];
    }
    code
}

/// Blanks out every item under `#[cfg(test)]`, and names the modules among them that have a file of their own.
///
/// Takes the result of [`code_only`].
pub fn without_tests(code: &str) -> (String, Vec<String>) {
    const MARK: &str = "#[cfg(test)]";
    let (mut kept, mut files, mut rest) = (String::new(), Vec::new(), code);
    while let Some(at) = rest.find(MARK) {
        kept.push_str(&rest[..at]);
        let item = &rest[at + MARK.len()..];
        let end = item_end(item);
        if let Some(name) = item[..end].strip_suffix(';').and_then(module_name) {
            files.push(name.to_owned());
        }
        kept.extend(item[..end].chars().filter(|it| *it == '\n'));
        rest = &item[end..];
    }
    kept.push_str(rest);
    (kept, files)
}

/// Where the item ends that `code` begins with: behind its semicolon or its closing brace.
fn item_end(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, octet) in code.bytes().enumerate() {
        match octet {
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && octet == b'}' && !is_use(&code[..at]) {
                    return at + 1;
                }
            }
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// An import ends with its semicolon, whatever braces it has.
fn is_use(item: &str) -> bool {
    item.split_whitespace().any(|word| word == "use")
}

/// `name` of `pub(crate) mod name`.
fn module_name(item: &str) -> Option<&str> {
    let mut words = item.split_whitespace().rev();
    let name = words.next()?;
    (words.next()? == "mod").then_some(name)
}

fn starts_word(before: &str) -> bool {
    !before.ends_with(|it: char| it.is_alphanumeric() || it == '_')
}

fn block_comment(source: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < source.len() {
        if source[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if source[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += source[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// The length of `"…"` behind `prefix` octets, escapes observed.
fn quoted(source: &str, prefix: usize) -> usize {
    let mut escaped = false;
    for (at, octet) in source.bytes().enumerate().skip(prefix + 1) {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    source.len()
}

/// The length of a literal like `b"…"`, `r"…"`, `br#"…"#`, `b'x'`.
fn prefixed_literal(source: &str) -> Option<usize> {
    let prefix = source.find(|it| !matches!(it, 'r' | 'b' | 'c'))?;
    let raw = source[..prefix].contains('r');
    let hashes = source[prefix..].bytes().take_while(|it| *it == b'#').count();
    let open = prefix + hashes;
    match source.as_bytes().get(open)? {
        b'"' if raw => {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = open + 1;
            Some(source[body..].find(&close).map_or(source.len(), |at| body + at + close.len()))
        }
        b'"' if hashes == 0 => Some(quoted(source, prefix)),
        b'\'' if hashes == 0 && &source[..prefix] == "b" => character(&source[prefix..]).map(|length| prefix + length),
        _ => None,
    }
}

/// The length of `'x'`; `None` if the quote opens a lifetime.
fn character(source: &str) -> Option<usize> {
    let mut characters = source.char_indices().skip(1);
    let (_, first) = characters.next()?;
    if first == '\\' {
        characters.next()?;
        return characters.find(|(_, it)| *it == '\'').map(|(at, _)| at + 1);
    }
    characters.next().and_then(|(at, it)| (it == '\'').then_some(at + 1))
}

#[test]
fn comments_and_literals_are_blanked() {
    let source = "a // crate::x\n/* crate::y /* nested */ */ b \"crate::z \\\" \" c r#\"crate::\" \"# d 'e' '\\'' '\\u{1f}' b'\"' f";
    let words: Vec<String> = code_only(source).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["a", "b", "c", "d", "f"]);
}

#[test]
fn lifetimes_and_words_are_no_literals() {
    let source = "fn f<'a, 'b>(x: &'a str, bar: &'b r#type) -> Br";
    assert_eq!(code_only(source).replace(' ', ""), source.replace([' ', '\''], ""));
}

#[test]
fn line_numbers_survive() {
    let code = code_only("/* one\ntwo */\n\"three\nfour\"\nhere");
    assert_eq!(code.lines().position(|line| line.contains("here")), Some(4));
    let (kept, _) = without_tests("#[cfg(test)]\nmod tests {\n fn f() {}\n}\nhere");
    assert_eq!(kept.lines().position(|line| line.contains("here")), Some(4));
}

#[test]
fn test_code_is_blanked_and_test_files_are_named() {
    let code = "a #[cfg(test)] use x::{y, z}; b #[cfg(test)] #[rustfmt::skip] mod t { fn f() { } } c
        #[cfg(test)] pub(crate) mod fixture; d #[cfg(test)] fn g(a: [u8; 2]) -> u8 { 7 } e";
    let (kept, files) = without_tests(code);
    assert_eq!(kept.split_whitespace().collect::<Vec<_>>(), ["a", "b", "c", "d", "e"]);
    assert_eq!(files, ["fixture"]);
}
