//! Configuration files: from text to a [`Plan`], or to every mistake in it. A Corefile is one of them: [`corefile`].
//!
//! The promise: any text gives a plan or a list of mistakes, never a panic, and each mistake says where it is, what is
//! wrong and what would be right.
//!
//! ```text
//! text ─► tree (YAML with places, ${NAME} replaced) ─► yaml (one reader a block) ─► Draft ─► Plan::new ─► Plan
//!           └───────────── Notes ◄───────────────────────┘                             └► Flaw, its path located in the tree
//! ```
//!
//! Read first: `config.md` of the design; YAML 1.2.2.

mod block;
pub mod corefile;
mod env;
mod mistake;
pub mod node_cache;
mod suggest;
mod tree;
mod units;
mod upstreams;
mod values;
mod yaml;
mod zones;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::plan::{Action, Choice, Draft, Http, Members, Plan, Upstream, Zone};
use crate::wire::Name;

pub use mistake::{ConfigErrors, Mistake, Place};

/// Bytes of the largest file read: what a `ConfigMap` can hold.
pub const MAX_FILE: usize = 1 << 20;

/// Reads the file at `path`. `env` gives the value of an environment variable, if it is set.
///
/// # Errors
/// Every mistake in it, or why it cannot be read.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Plan, ConfigErrors> {
    parse(&text(path)?, &path.display().to_string(), env)
}

/// Reads the file at `path` as text.
///
/// # Errors
/// Why it cannot be read.
pub fn text(path: &Path) -> Result<String, ConfigErrors> {
    let file_name = path.display().to_string();
    let file = File::open(path).map_err(|error| unreadable(&file_name, &error))?;
    all_text(file, &file_name)
}

/// Reads `source`, such as standard input, to its end; messages call it `file_name`.
///
/// # Errors
/// Every mistake in it, or why it cannot be read.
pub fn read(source: impl Read, file_name: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Plan, ConfigErrors> {
    parse(&all_text(source, file_name)?, file_name, env)
}

fn all_text(source: impl Read, file_name: &str) -> Result<String, ConfigErrors> {
    let mut octets = Vec::new();
    let read = source.take(MAX_FILE as u64 + 1).read_to_end(&mut octets);
    read.map_err(|error| unreadable(file_name, &error))?;
    match String::from_utf8(octets) {
        Ok(text) => Ok(text),
        // A text cut at the bound may end within a character; its size is what matters then.
        Err(error) if error.as_bytes().len() > MAX_FILE => Err(too_large(file_name)),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..valid].split(|&octet| octet == b'\n').count();
            let what = format!("this file is no text in UTF-8: octet {valid} (line {line}) belongs to no character");
            Err(ConfigErrors::whole(
                file_name,
                what,
                "is it the right file? A configuration is YAML, such as those in manifests/examples",
            ))
        }
    }
}

/// Reads `text`; messages call it `file_name`. `env` gives the value of an environment variable, if it is set.
///
/// # Errors
/// Every mistake in it.
pub fn parse(text: &str, file_name: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Plan, ConfigErrors> {
    if text.len() > MAX_FILE {
        return Err(too_large(file_name));
    }
    if text.contains('\0') {
        let remedy = "is it the right file, and was it written to the end? A configuration is YAML";
        return Err(ConfigErrors::whole(file_name, "this file is no text: it contains NUL octets", remedy));
    }
    // A byte order mark is no part of the text (YAML 1.2.2 section 5.2).
    yaml::read(text.strip_prefix('\u{feff}').unwrap_or(text), file_name, env)
}

fn unreadable(file_name: &str, error: &std::io::Error) -> ConfigErrors {
    let remedy = match error.kind() {
        std::io::ErrorKind::NotFound => "is the path right? A relative one begins where the command runs",
        std::io::ErrorKind::PermissionDenied => "let this user read it, or run as one who may",
        _ => "is it a file, and the right one?",
    };
    ConfigErrors::whole(file_name, format!("this file cannot be read: {error}"), remedy)
}

fn too_large(file_name: &str) -> ConfigErrors {
    let remedy = "is it the right file? Ten thousand zones fit into a fifth of that";
    ConfigErrors::whole(file_name, "this file is larger than 1MiB", remedy)
}

/// The plan that needs no file and no right: 127.0.0.1, port 1053, to the servers in `resolv_conf`, nothing else.
pub fn without_a_file(resolv_conf: &Path) -> Plan {
    let upstream = Upstream {
        // What the order of the lines means (resolv.conf(5)).
        choice: Choice::Sequential,
        ..Upstream::new("system", Members::ResolvConf(PathBuf::from(resolv_conf)))
    };
    let draft = Draft {
        http: Http { metrics: None, health: None, debug: None, control: None },
        ..Draft::new(vec![upstream], vec![Zone::new(Name::root(), Action::Route(0))])
    };
    Plan::new(draft).expect("defaults are legal, and the one route leads to the one upstream")
}
