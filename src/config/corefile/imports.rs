//! Lines with everything in its place: variables filled in, snippets and files put where they are imported.
//!
//! An import stands for the lines of a snippet `(name) { … }` defined above it, or of a file, or of all files a pattern
//! with one `*` matches. Bounds: so many files, so deep, so many words in all; Caddy follows a snippet that imports itself
//! for ever.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::super::MAX_FILE;
use super::lexer::{self, Token};
use super::reader::Reader;
use super::tree::{self, Line};

/// Imports within imports.
const MAX_DEPTH: usize = 16;
/// Files that all imports may read.
const MAX_FILES: usize = 256;
/// Words of a Corefile, everything imported included: ten thousand zones take a fifth of that.
pub(super) const MAX_WORDS: usize = 50_000;

/// The server blocks of `text`, imports resolved; `file` is where it was read.
pub(super) fn document(text: &str, file: &Path, reader: &mut Reader<'_>) -> Vec<Line> {
    let lines = shaped(text, None, reader);
    let mut imports = Imports { snippets: Vec::new(), words: MAX_WORDS, depth: 0, exhausted: false };
    let place = Place { directory: file.parent().unwrap_or(Path::new("")).into(), top: true };
    imports.resolve(lines, &place, reader)
}

/// Where lines stand: relative paths begin in `directory`; snippets are defined at the top.
#[derive(Clone)]
struct Place {
    directory: PathBuf,
    top: bool,
}

/// Where the text of an imported file comes in.
struct Origin<'a> {
    file: &'a Path,
    import: &'a Token,
}

fn shaped(text: &str, origin: Option<&Origin<'_>>, reader: &mut Reader<'_>) -> Vec<Line> {
    let (mut tokens, unclosed) = lexer::tokens(text);
    let placed = |spot, line: usize| match origin {
        None => (spot, None),
        Some(Origin { file, import }) => {
            let here = import.origin.as_ref().map_or_else(String::new, |outer| format!("{outer}, "));
            (import.spot, Some(Rc::from(format!("{here}{}:{line}", file.display()))))
        }
    };
    if let Some(lexer::Unclosed(spot)) = unclosed {
        let (at, within) = placed(spot, spot.line);
        reader.wrong_at(at, within.as_ref(), "this quote is never closed", "write a second `\"` behind its text");
    }
    for token in &mut tokens {
        let line = token.spot.line;
        (token.spot, token.origin) = placed(token.spot, line);
    }
    let tokens = tokens.into_iter().flat_map(|token| filled(token, reader)).collect();
    let (lines, misshapen) = tree::lines(tokens);
    for it in misshapen {
        let within = origin.map(|it| Rc::from(it.file.display().to_string()));
        reader.wrong_at(it.spot, within.as_ref(), it.what, it.remedy);
    }
    lines
}

/// The token with its variables replaced; a node-cache variable may become several, or none.
fn filled(mut token: Token, reader: &mut Reader<'_>) -> Vec<Token> {
    let (text, unset) = lexer::expand(&token.text, reader.around.env);
    token.text = text;
    for name in unset {
        reader.remark(&token, format!("the environment has no `{name}`: it is empty here"));
    }
    let settings = reader.settings;
    let Some((variable, value)) = settings.variables.iter().find(|(name, _)| token.text.contains(name)) else {
        return vec![token];
    };
    token.variable = Some(variable);
    let whole = token.text == *variable;
    // As part of a word, such as `IP:8080`, only one address makes sense.
    let value = if whole { value.as_str() } else { value.split_whitespace().next().unwrap_or_default() };
    let text = token.text.replace(variable, value);
    if token.quoted && !whole {
        return vec![Token { text, ..token }];
    }
    let first = token.first;
    let parts = text.split_whitespace().enumerate();
    parts.map(|(index, part)| Token { text: part.to_owned(), first: first && index == 0, ..token.clone() }).collect()
}

struct Imports {
    snippets: Vec<(String, Vec<Line>)>,
    /// How many more there may be.
    words: usize,
    depth: usize,
    exhausted: bool,
}

impl Imports {
    fn resolve(&mut self, lines: Vec<Line>, place: &Place, reader: &mut Reader<'_>) -> Vec<Line> {
        let mut resolved = Vec::new();
        for mut line in lines {
            if self.exhausted {
                break;
            }
            if line.name().is("import") {
                resolved.extend(self.import(&line, place, reader));
            } else if let Some(name) = snippet_name(&line).filter(|_| place.top) {
                self.define(&name, line, reader);
            } else {
                self.spend(line.words.len(), line.name(), reader);
                let inner = Place { top: false, ..place.clone() };
                line.block = line.block.map(|block| self.resolve(block, &inner, reader));
                resolved.push(line);
            }
        }
        resolved
    }

    fn spend(&mut self, words: usize, at: &Token, reader: &mut Reader<'_>) {
        match self.words.checked_sub(words) {
            Some(left) => self.words = left,
            None if self.exhausted => {}
            None => {
                self.exhausted = true;
                let what = format!("with its imports this file has more than {MAX_WORDS} words");
                reader.wrong(at, what, "does something import itself?");
            }
        }
    }

    fn define(&mut self, name: &str, line: Line, reader: &mut Reader<'_>) {
        if self.snippets.iter().any(|(known, _)| known == name) {
            reader.wrong(line.name(), format!("the snippet `({name})` is here twice"), "give one another name");
            return;
        }
        self.snippets.push((name.to_owned(), line.block.unwrap_or_default()));
    }

    fn import(&mut self, line: &Line, place: &Place, reader: &mut Reader<'_>) -> Vec<Line> {
        self.spend(2, line.name(), reader);
        let ([what], None) = (line.arguments(), &line.block) else {
            let remedy = "write `import NAME` for a snippet, `import FILE` for a file, or a path with one `*`";
            reader.wrong(line.name(), "`import` takes one argument", remedy);
            return Vec::new();
        };
        if what.text.is_empty() {
            reader.wrong(what, "`import` of nothing", "write the name of a snippet, or the path of a file");
            return Vec::new();
        }
        if self.depth == MAX_DEPTH {
            let remedy = "does something import itself?";
            reader.wrong(what, format!("imports within imports, more than {MAX_DEPTH} deep"), remedy);
            return Vec::new();
        }
        self.depth += 1;
        let snippet = self.snippets.iter().find(|(name, _)| *name == what.text).map(|(_, lines)| lines.clone());
        let lines = match snippet {
            Some(lines) => self.resolve(lines, place, reader),
            None => self.import_files(what, place, reader),
        };
        self.depth -= 1;
        lines
    }

    fn import_files(&mut self, pattern: &Token, place: &Place, reader: &mut Reader<'_>) -> Vec<Line> {
        let mut lines = Vec::new();
        for path in matches(pattern, place, reader) {
            if reader.files.len() == MAX_FILES {
                reader.wrong(pattern, format!("more than {MAX_FILES} files are imported"), "does one import itself?");
                break;
            }
            // Before it is read: of one that cannot be read, a change is worth knowing too.
            reader.files.push(path.clone());
            let octets = match (reader.around.read)(&path) {
                Ok(octets) => octets,
                Err(error) => {
                    let what = format!("`{}` cannot be read: {error}", path.display());
                    reader.wrong(pattern, what, "is the path right? A relative one begins where the importing file is");
                    continue;
                }
            };
            let Some(text) = String::from_utf8(octets).ok().filter(|text| text.len() <= MAX_FILE) else {
                let what = format!("`{}` is no text in UTF-8 of at most 1MiB", path.display());
                reader.wrong(pattern, what, "is it the right file?");
                continue;
            };
            let imported = shaped(&text, Some(&Origin { file: &path, import: pattern }), reader);
            let inside = Place { directory: path.parent().unwrap_or(Path::new("")).into(), top: place.top };
            lines.extend(self.resolve(imported, &inside, reader));
        }
        lines
    }
}

/// The files `pattern` stands for.
fn matches(pattern: &Token, place: &Place, reader: &mut Reader<'_>) -> Vec<PathBuf> {
    let path = place.directory.join(&pattern.text);
    let wildcards = pattern.text.matches(['*', '?', '[', ']']).count();
    if wildcards == 0 {
        return vec![path];
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let (Some((before, after)), 1) = (name.split_once('*'), wildcards) else {
        let remedy = "write one `*` in the name of the file, such as `import custom/*.override`";
        reader.wrong(pattern, format!("`{}` is no pattern of files", pattern.text), remedy);
        return Vec::new();
    };
    let directory = path.parent().unwrap_or(Path::new(""));
    let fits = |name: &str| {
        // Kubernetes mounts files beside `..data`; what begins with a dot is no configuration.
        !name.starts_with('.')
            && name.len() >= before.len() + after.len()
            && name.starts_with(before)
            && name.ends_with(after)
    };
    let mut found = (reader.around.list)(directory).unwrap_or_default();
    found.retain(|name| fits(name));
    found.sort();
    if found.is_empty() {
        reader.remark(pattern, format!("no file matches `{}`", pattern.text));
    }
    // A directory that gains a file has changed.
    reader.folders.push(directory.to_owned());
    found.into_iter().map(|name| directory.join(name)).collect()
}

/// `name` of a line `(name) { … }`.
fn snippet_name(line: &Line) -> Option<String> {
    let [only] = line.words.as_slice() else { return None };
    let name = only.text.strip_prefix('(')?.strip_suffix(')')?;
    (!only.quoted && line.block.is_some()).then(|| name.to_owned())
}
