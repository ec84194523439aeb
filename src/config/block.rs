//! One block of keys, read key by key.
//!
//! A reader asks for the keys it knows; what it never asked for is unknown, and the keys it did ask for are what a mistyped
//! one is compared with. So the keys of a block are written down in one place only: where they are read.

use super::mistake::{Notes, Spot};
use super::suggest::nearest;
use super::tree::{Key, Node, Value};
use super::values::{Wrong, either, is_off};

/// A block, and which of its keys were asked for.
pub(super) struct Block<'n> {
    /// What the block is called in messages: `zones.corp.lan`; empty for the whole file.
    name: String,
    /// Where a missing key is reported.
    pub spot: Spot,
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
}

/// What a key that can be switched off says.
pub(super) enum Switch<T> {
    LeftOut,
    Off,
    On(T),
}

impl<'n> Block<'n> {
    /// Opens `node` as a block. Nothing at all counts as a block without keys; `None` and a note if it is anything else.
    pub(super) fn open(name: impl Into<String>, spot: Spot, node: &'n Node, notes: &mut Notes<'_>) -> Option<Self> {
        let name = name.into();
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            Value::Broken => return None,
            Value::List(_) | Value::Text(_) => {
                let what = format!("`{name}` must be a block of keys; found {}", node.kind());
                notes.add(node.spot, what, "write `key: value` lines below it, indented");
                return None;
            }
        };
        Some(Self { name, spot, entries, known: Vec::new() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What `key` says, if it is written.
    pub(super) fn find(&mut self, key: &'static str) -> Option<&'n (Key, Node)> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.entries.iter().find(|(written, _)| written.text == key)
    }

    /// The entry that was probably meant to be `key`, if `key` itself is not written.
    ///
    /// It is reported as unknown when the block is closed; what its absence would bring is no mistake of its own.
    pub(super) fn misspelt(&self, key: &'static str) -> Option<&'n (Key, Node)> {
        if self.entries.iter().any(|(written, _)| written.text == key) {
            return None;
        }
        let unknown = |written: &str| !self.known.contains(&written);
        self.entries.iter().find(|(written, _)| unknown(&written.text) && nearest(&written.text, [key]).is_some())
    }

    /// Opens the block `key`, if it is written; one whose key is misspelt is read all the same.
    pub(super) fn block(&mut self, key: &'static str, notes: &mut Notes<'_>) -> Option<Block<'n>> {
        let meant = self.misspelt(key).filter(|(_, node)| matches!(node.value, Value::Map(_)));
        let (key, node) = self.find(key).or(meant)?;
        Self::open(self.path(&key.text), key.spot, node, notes)
    }

    /// Opens the block `key`, which may also be `off`.
    pub(super) fn switch_block(&mut self, key: &'static str, notes: &mut Notes<'_>) -> Switch<Block<'n>> {
        let Some((key, node)) = self.find(key) else { return Switch::LeftOut };
        match &node.value {
            Value::Text(text) if is_off(text) => Switch::Off,
            Value::Null => {
                let what = format!("`{}` says nothing", self.path(&key.text));
                notes.add(key.spot, what, "write its keys below it, `{}` for what holds by itself, or `off`");
                Switch::LeftOut
            }
            _ => Self::open(self.path(&key.text), key.spot, node, notes).map_or(Switch::LeftOut, Switch::On),
        }
    }

    /// The value of `key`, if it is written and right.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        notes: &mut Notes<'_>,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let (key, node) = self.find(key)?;
        scalar(&self.path(&key.text), key, node, notes, read)
    }

    /// The value of `key`, which may also be `off`.
    pub(super) fn switch<T>(
        &mut self,
        key: &'static str,
        notes: &mut Notes<'_>,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Switch<T> {
        let read = |text: &str| match text {
            _ if is_off(text) => Ok(None),
            // YAML has other words for nothing, and people have more.
            "none" | "None" | "never" | "disabled" => {
                Err(Wrong::new(format!("`{text}` is no value here"), "write `off`, or take the key out"))
            }
            _ => read(text).map(Some),
        };
        match self.value(key, notes, read) {
            None => Switch::LeftOut,
            Some(None) => Switch::Off,
            Some(Some(value)) => Switch::On(value),
        }
    }

    /// The values of the list `key`, if it is written.
    ///
    /// Where one is wrong, `filler` takes its place, so that those behind it keep their index.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        notes: &mut Notes<'_>,
        read: impl Fn(&str) -> Result<T, Wrong>,
        filler: impl Fn(u32) -> T,
    ) -> Option<Vec<T>> {
        let (key, node) = self.find(key)?;
        let path = self.path(&key.text);
        list(&path, key, node, notes, read, filler)
    }

    /// All keys with their values, for blocks whose keys are names.
    pub(super) fn entries(&self) -> &'n [(Key, Node)] {
        self.entries
    }

    /// Reports the keys nobody asked for.
    pub(super) fn close(self, notes: &mut Notes<'_>) {
        for (key, _) in self.entries {
            if self.known.contains(&key.text.as_str()) {
                continue;
            }
            let what = if self.name.is_empty() {
                format!("`{}` is no key of the configuration", key.text)
            } else {
                format!("`{}` is no key of `{}`", key.text, self.name)
            };
            // The comparison is the dear part, and a full notebook shows no more of them.
            let meant = if notes.is_full() { None } else { nearest(&key.text, self.known.iter().copied()) };
            let remedy = match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known here: {}", either(self.known.iter().copied())),
            };
            notes.add(key.spot, what, remedy);
        }
    }

    pub(super) fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

/// Reads a node as one value.
pub(super) fn scalar<T>(
    path: &str,
    key: &Key,
    node: &Node,
    notes: &mut Notes<'_>,
    read: impl Fn(&str) -> Result<T, Wrong>,
) -> Option<T> {
    match &node.value {
        Value::Text(text) => match read(text) {
            Ok(value) => return Some(value),
            Err(wrong) => notes.add(node.spot, format!("`{path}`: {}", wrong.what), wrong.remedy),
        },
        Value::Null => notes.add(key.spot, format!("`{path}` says nothing"), "write a value, or take the key out"),
        Value::Map(_) | Value::List(_) => {
            let what = format!("`{path}` must be a single value; found {}", node.kind());
            notes.add(node.spot, what, "write the value behind the colon; IPv6 addresses go into quotes");
        }
        Value::Broken => {}
    }
    None
}

/// Reads a node as a list of values; see [`Block::list`].
pub(super) fn list<T>(
    path: &str,
    key: &Key,
    node: &Node,
    notes: &mut Notes<'_>,
    read: impl Fn(&str) -> Result<T, Wrong>,
    filler: impl Fn(u32) -> T,
) -> Option<Vec<T>> {
    let items = match &node.value {
        Value::List(items) => items,
        Value::Null => {
            notes.add(
                key.spot,
                format!("`{path}` says nothing"),
                "write a list, [] for an empty one, or take the key out",
            );
            return None;
        }
        Value::Text(text) => {
            let what = format!("`{path}` must be a list; found {}", node.kind());
            notes.add(node.spot, what, format!("put it into brackets: [{text}]"));
            return None;
        }
        Value::Map(_) => {
            let what = format!("`{path}` must be a list; found {}", node.kind());
            notes.add(node.spot, what, "write [one, two], or a line `- one` for each; IPv6 addresses go into quotes");
            return None;
        }
        Value::Broken => return None,
    };
    let read_item = |(index, item): (u32, &Node)| {
        scalar(path, &Key { spot: item.spot, text: String::new() }, item, notes, &read).unwrap_or_else(|| filler(index))
    };
    Some((0..).zip(items).map(read_item).collect())
}
