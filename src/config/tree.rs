//! A YAML text as a tree whose every node knows its place.
//!
//! serde stops at the first error; readers of this tree go on to the last. The text's syntax is the parser's affair
//! (`granit-parser`, by way of serde-saphyr); what is added here: one document only, keys once in a block, `${NAME}` in
//! values, and bounds, so that no file however made costs more than time in proportion to its length.
//!
//! Read first: YAML 1.2.2 chapters 3 and 6.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, options};

use super::env::{self, Reason};
use super::mistake::{Notes, Spot};

/// Blocks and lists within each other; our own keys need five.
const MAX_DEPTH: usize = 32;
/// Nodes that aliases may add, so that a few lines cannot grow into gigabytes.
const MAX_ALIASED: usize = 10_000;
const TEMPLATE: &str = "fill in the template first: {{ }} stands for something that is not here";

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub spot: Spot,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Something that was reported already; readers pass over it.
    Broken,
    List(Vec<Node>),
    /// In the order of the file; each key once.
    Map(Vec<(Key, Node)>),
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar's text, references expanded.
    Text(String),
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub spot: Spot,
    pub text: String,
}

impl Node {
    /// What this is, in a word that fits behind "found".
    pub(super) fn kind(&self) -> String {
        /// Characters of a value worth repeating: its line is shown too.
        const MOST: usize = 40;
        match &self.value {
            Value::Text(text) if text.chars().count() <= MOST => format!("the value `{text}`"),
            Value::Broken | Value::Text(_) => "a value".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a block of keys".to_owned(),
            Value::Null => "nothing".to_owned(),
        }
    }

    /// The place of what `path` names, or of the deepest part of it that is written.
    ///
    /// List items go by their index.
    pub(super) fn locate(&self, path: &[String]) -> Located {
        let Some((part, rest)) = path.split_first() else { return Located::Whole(self.spot) };
        let inner = match &self.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| key.text == *part).map(|(key, node)| {
                // A block is underlined at its key, a value at itself.
                let whole = if matches!(node.value, Value::Text(_)) { node.spot } else { key.spot };
                (node, whole, key.spot)
            }),
            Value::List(items) => {
                part.parse().ok().and_then(|index: usize| items.get(index)).map(|node| (node, node.spot, node.spot))
            }
            Value::Broken | Value::Null | Value::Text(_) => None,
        };
        match inner {
            None => Located::Nearest(None),
            Some((_, whole, _)) if rest.is_empty() => Located::Whole(whole),
            Some((node, _, key)) => match node.locate(rest) {
                Located::Nearest(None) => Located::Nearest(Some(key)),
                found => found,
            },
        }
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Self::count).sum(),
            Value::Map(entries) => entries.iter().map(|(_, node)| node.count()).sum(),
            Value::Broken | Value::Null | Value::Text(_) => 0,
        }
    }
}

/// Where a path leads in a tree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Located {
    /// Part of it is not written; the key of the deepest block that is, if any.
    Nearest(Option<Spot>),
    Whole(Spot),
}

/// Reads `text`; what cannot be read is noted.
///
/// `None` if there is no tree at all: a text without a value, or one that breaks YAML's rules.
pub(super) fn read(text: &str, env: &dyn Fn(&str) -> Option<String>, notes: &mut Notes<'_>) -> Option<Node> {
    let options = options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder { text, env, notes, parser, anchors: HashMap::new(), aliased: 0 };
    match builder.document() {
        Ok(root) => root,
        Err(error) => {
            builder.note_syntax(&error);
            None
        }
    }
}

struct Builder<'t, 'n, 'l> {
    text: &'t str,
    env: &'n dyn Fn(&str) -> Option<String>,
    notes: &'n mut Notes<'l>,
    parser: Parser<'t, StrInput<'t>>,
    /// What `&name` marked, by the parser's number for it; `None` while it is still being read.
    anchors: HashMap<usize, Option<Node>>,
    /// Nodes that aliases have added.
    aliased: usize,
}

impl<'t> Builder<'t, '_, '_> {
    fn document(&mut self) -> Result<Option<Node>, ScanError> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(..) if root.is_some() => {
                    self.notes.add(spot(&span), "a second document begins here", "keep one document in a file");
                    break;
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => root = Some(self.node(event, &span)?),
            }
        }
        Ok(root)
    }

    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, ScanError> {
        self.parser.next_event().transpose()
    }

    /// Builds the node that begins with `event`. The parser bounds the depth.
    fn node(&mut self, event: Event<'t>, span: &Span) -> Result<Node, ScanError> {
        if let Some(tag) = event.tag().filter(|tag| !tag.is_yaml_core_schema()) {
            let remedy = "take the tag out: the key alone says what a value means";
            self.notes.add(spot(span), format!("the tag `{}` has no meaning here", tag.original()), remedy);
        }
        let anchor = event.anchor_id().filter(|&id| id != 0);
        if let Some(id) = anchor {
            self.anchors.insert(id, None);
        }
        let value = match event {
            Event::Scalar(text, style, ..) => self.scalar(&text, style, span),
            Event::SequenceStart(..) => self.list()?,
            Event::MappingStart(..) => self.map()?,
            Event::Alias(id) => return Ok(self.alias(id, span)),
            Event::UnresolvedAlias(name) => {
                let remedy = format!("mark a value above with `&{name}`, or put the value itself in quotes");
                self.notes.add(spot(span), format!("`*{name}` stands for nothing"), remedy);
                Value::Broken
            }
            // Everything else is no node; the parser hands it out between documents only.
            _ => Value::Broken,
        };
        let node = Node { spot: spot(span), value };
        if let Some(id) = anchor {
            self.anchors.insert(id, Some(node.clone()));
        }
        Ok(node)
    }

    fn list(&mut self) -> Result<Value, ScanError> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::SequenceEnd {
                break;
            }
            items.push(self.node(event, &span)?);
        }
        Ok(Value::List(items))
    }

    fn map(&mut self) -> Result<Value, ScanError> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::MappingEnd {
                break;
            }
            let key = self.key(event, &span)?;
            let Some((event, span)) = self.next()? else { break };
            let node = self.node(event, &span)?;
            let Some(key) = key else { continue };
            if key.text == "<<" {
                let remedy = "write the keys out; `&name` and `*name` work for whole values";
                self.notes.add(key.spot, "merge keys are no part of YAML 1.2", remedy);
                continue;
            }
            if let Some(line) = lines.get(&key.text) {
                let what = format!("`{}` is here twice: it stands at line {line} already", key.text);
                self.notes.add(key.spot, what, "keep one of them");
            } else {
                lines.insert(key.text.clone(), key.spot.line);
                entries.push((key, node));
            }
        }
        Ok(Value::Map(entries))
    }

    /// A key is text and nothing else; references are not expanded in it.
    fn key(&mut self, event: Event<'t>, span: &Span) -> Result<Option<Key>, ScanError> {
        if let Event::Scalar(text, ..) = event {
            return Ok(Some(Key { spot: spot(span), text: text.into_owned() }));
        }
        let at = spot(span);
        let remedy = if self.notes.line(at).contains("{{") {
            TEMPLATE
        } else {
            "write a plain word before the colon; what begins with [, { or * goes into quotes"
        };
        self.notes.add(at, "a key must be a word", remedy);
        self.node(event, span)?;
        Ok(None)
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, span: &Span) -> Value {
        if style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
            return Value::Null;
        }
        match env::expand(text, self.env) {
            Ok(expanded) => Value::Text(expanded),
            Err(failed) => {
                let at = self.spot_of(&failed.reference, span);
                let reference = &failed.reference;
                let (what, remedy) = match failed.reason {
                    Reason::Unset(name) => (
                        format!("the environment variable {name} is not set"),
                        format!("set it, or give a default: ${{{name}:-value}}"),
                    ),
                    Reason::Unclosed => (
                        format!("`{reference}` has no closing brace"),
                        "close it with }, or write $$ for a dollar sign".to_owned(),
                    ),
                    Reason::BadName => (
                        format!("`{reference}` names no environment variable"),
                        "write ${NAME} or ${NAME:-default} with letters, digits and _, or $$ for a dollar sign"
                            .to_owned(),
                    ),
                };
                self.notes.add(at, what, remedy);
                Value::Broken
            }
        }
    }

    /// Where `part` stands within a scalar, if it stands there as it is.
    fn spot_of(&self, part: &str, span: &Span) -> Spot {
        let whole = spot(span);
        let source = span.slice(self.text).unwrap_or_default();
        let Some(at) = source.find(part) else { return whole };
        let before = &source[..at];
        let width = part.chars().count();
        match before.rsplit_once('\n') {
            None => Spot { column: whole.column + before.chars().count(), width, ..whole },
            Some((above, indent)) => {
                Spot { line: whole.line + above.matches('\n').count() + 1, column: indent.chars().count(), width }
            }
        }
    }

    fn alias(&mut self, id: usize, span: &Span) -> Node {
        let spot = spot(span);
        let Some(Some(node)) = self.anchors.get(&id) else {
            self.notes.add(spot, "this alias stands within the value it stands for", "write the value out");
            return Node { spot, value: Value::Broken };
        };
        self.aliased += node.count();
        if self.aliased > MAX_ALIASED {
            if !self.notes.has(spot) {
                let what = format!("aliases stand for more than {MAX_ALIASED} values");
                self.notes.add(spot, what, "write the values out");
            }
            return Node { spot, value: Value::Broken };
        }
        node.clone()
    }

    fn note_syntax(&mut self, error: &ScanError) {
        let at = spot_at(error.marker(), 1);
        let line = self.notes.line(at);
        let remedy = match error.kind() {
            ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabAtBlockScalarStart
            | ErrorKind::TabInPlainScalar => "indent with spaces; YAML knows no tabs there",
            _ if line.trim_start().starts_with('\t') || line.starts_with('\t') => {
                "indent with spaces; YAML knows no tabs there"
            }
            _ if line.contains("${") => {
                "put the reference into quotes, \"${NAME}\": a brace ends a bare value between [ ] and { }"
            }
            _ if line.contains("{{") => TEMPLATE,
            ErrorKind::UnclosedFlowCollection { .. }
            | ErrorKind::UnexpectedEofFlowSequence
            | ErrorKind::UnexpectedEofFlowMapping
            | ErrorKind::UnexpectedEofImplicitFlowMapping
            | ErrorKind::ExpectedFlowMappingSeparator
            | ErrorKind::ExpectedFlowSequenceSeparator
            | ErrorKind::MismatchedFlowCollectionEnd { .. }
            | ErrorKind::MisplacedFlowCollectionEnd => {
                "close every [ with ] and every { with }, put commas between; IPv6 addresses go into quotes"
            }
            ErrorKind::UnclosedQuotedScalar => "close the quotation mark",
            ErrorKind::RecursionLimitExceeded => "no key needs blocks this deep",
            ErrorKind::UnexpectedEof | ErrorKind::UnexpectedEofBlockMapping | ErrorKind::UnexpectedEofBlockSequence => {
                "the file ends too early: is it complete?"
            }
            ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
                "write `key: value`, with a space behind the colon"
            }
            ErrorKind::UnexpectedCharacter { .. } => "put the value into quotes",
            _ => "line keys of one block up below each other, and put a value that holds `: ` or ` #` into quotes",
        };
        self.notes.add(at, format!("this is not YAML: {}", error.info()), remedy);
    }
}

fn spot(span: &Span) -> Spot {
    spot_at(&span.start, span.end.index().saturating_sub(span.start.index()))
}

fn spot_at(marker: &Marker, width: usize) -> Spot {
    Spot { line: marker.line(), column: marker.col(), width }
}
