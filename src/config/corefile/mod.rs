//! A Corefile as a draft of the plan: what node-local-dns runs on today.
//!
//! What the plan can say is said with CoreDNS's meaning. Where Nodens means something else on purpose, a [`Remark`] says
//! so; what it cannot do is a mistake, by plugin, file and line, with what to do: nothing is promised that does not happen.
//!
//! ```text
//! text ─► lexer ─► tree ─► imports (snippets, files, variables) ─► server (a reader a plugin) ─► draft ─► Draft ─► Plan::new
//!                                        └──── Reader: Notes, Remarks ────┘
//! ```
//!
//! A zone of a server block is a zone of the plan. Plugins may name parts of it (`cache 30 a.example`,
//! `forward b.example …`, `except c.example`): each part becomes a zone of its own, for which every plugin is asked again.
//!
//! Read first: <https://coredns.io/manual/configuration/>; the README of each plugin; `incumbent.md` sections 1 and 2.

mod as_yaml;
mod cache;
mod draft;
mod endpoints;
mod forward;
mod hosts;
mod imports;
mod keys;
mod lexer;
mod reader;
mod server;
mod template;
mod tree;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::mistake::{ConfigErrors, Place};
use crate::plan::{Draft, Flaw, Interception, Plan};

pub use as_yaml::yaml;
pub(in crate::config) use reader::{endpoint, go_duration};
pub use server::PLUGINS;

/// What a Corefile refers to, as functions: so that a test needs none of it.
pub struct Surroundings<'a> {
    /// The value of an environment variable, if it is set.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The content of a file.
    pub read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    /// The names in a directory.
    pub list: &'a dyn Fn(&Path) -> io::Result<Vec<String>>,
    /// The addresses of an interface, or of all of them; empty: there are none.
    pub addresses: &'a dyn Fn(Option<&str>) -> Vec<IpAddr>,
}

/// What is said about a Corefile outside of it, such as by flags.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients find us; `bind` may say otherwise.
    pub local: Vec<IpAddr>,
    /// Of zones without one.
    pub port: u16,
    /// Name and value of what a template leaves open; white space parts words.
    pub variables: Vec<(&'static str, String)>,
    /// More server blocks, and where they come from. One whose zone is taken is left out.
    pub more: Option<(String, &'static str)>,
    /// The plain servers among the variables were chosen by somebody: `force_tcp` was not meant for them.
    pub chosen_upstreams: bool,
    /// What we may do to the host.
    pub node: Option<NodeSettings>,
    /// Where metrics are if no `prometheus` says it.
    pub metrics: Option<SocketAddr>,
}

/// The same as [`crate::plan::Node`], as far as it is known before the upstreams are.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Name of the link.
    pub interface: String,
    /// Whether traffic is intercepted.
    pub interception: Interception,
}

impl Default for Settings {
    /// What holds of a Corefile by itself.
    fn default() -> Self {
        Self {
            local: Vec::new(),
            port: 53,
            variables: Vec::new(),
            more: None,
            chosen_upstreams: false,
            node: None,
            metrics: None,
        }
    }
}

/// The variable that stands for the cluster's own DNS.
pub const CLUSTER_DNS: &str = "__PILLAR__CLUSTER__DNS__";
/// The variable that stands for the servers of everything else.
pub const UPSTREAM_SERVERS: &str = "__PILLAR__UPSTREAM__SERVERS__";

/// A Corefile, read.
pub struct Reading {
    /// What it says; what it says wrongly is left out.
    pub draft: Draft,
    /// What is wrong in it.
    pub errors: Option<ConfigErrors>,
    /// Where Nodens differs, in the order of the file.
    pub remarks: Vec<Remark>,
    /// What it imports: files, and directories in which a pattern looks.
    pub imports: Vec<PathBuf>,
}

/// A difference between what CoreDNS does and what happens here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remark {
    /// `None`: it concerns the file as a whole.
    pub place: Option<Place>,
    /// In a sentence or two.
    pub what: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(Place { line, .. }) => write!(f, "line {line}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl Reading {
    /// The plan.
    ///
    /// # Errors
    /// Every mistake.
    pub fn plan(self) -> Result<Plan, ConfigErrors> {
        match self.errors {
            Some(errors) => Err(errors),
            None => Ok(Plan::new(self.draft).expect("every flaw of the draft is among the errors")),
        }
    }
}

/// Reads the text of a Corefile that stands at `file`.
pub fn read(text: &str, file: &Path, around: &Surroundings<'_>, settings: &Settings) -> Reading {
    let file_name = file.display().to_string();
    let whole = |what: &str, remedy: &str| Reading {
        draft: Draft::new(Vec::new(), Vec::new()),
        errors: Some(ConfigErrors::whole(&file_name, what, remedy)),
        remarks: Vec::new(),
        imports: Vec::new(),
    };
    if text.len() > super::MAX_FILE {
        return whole("this file is larger than 1MiB", "is it the right file?");
    }
    if text.contains('\0') {
        return whole("this file is no text: it contains NUL octets", "is it the right file?");
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = reader::Reader::new(text, around, settings);
    let lines = imports::document(text, file, &mut reader);
    let more = settings.more.as_ref().map_or_else(Vec::new, |(text, origin)| server::extra(text, origin));
    let (servers, common) = server::read(&lines, &more, &mut reader);
    if servers.is_empty() {
        let (imports, remarks) = (std::mem::take(&mut reader.files), std::mem::take(&mut reader.remarks));
        let errors = reader.into_notes().finish(&file_name).err();
        let remedy = "begin with a server block, such as `.:53 { forward . /etc/resolv.conf }`";
        let errors = errors.unwrap_or_else(|| ConfigErrors::whole(&file_name, "this file has no server block", remedy));
        return Reading { draft: Draft::new(Vec::new(), Vec::new()), errors: Some(errors), remarks, imports };
    }
    let (draft, places) = draft::of(&servers, &common, &mut reader);
    if let Err(flaws) = Plan::new(draft.clone()) {
        for Flaw { path, what, remedy } in flaws {
            let (spot, origin) = places.find(&path);
            // It may be the consequence of what is known there.
            if !reader.is_wrong(spot) {
                reader.wrong_at(spot, origin.as_ref(), what, remedy);
            }
        }
    }
    let mut remarks = std::mem::take(&mut reader.remarks);
    remarks.sort_by_key(|remark| remark.place.map(|place| (place.line, place.column)));
    let mut imports = std::mem::take(&mut reader.files);
    imports.append(&mut reader.folders);
    Reading { draft, errors: reader.into_notes().finish(&file_name).err(), remarks, imports }
}

#[cfg(test)]
mod tests;
