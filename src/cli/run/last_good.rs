//! The configuration that was last in force, kept so that a restart with a bad file does not end the DNS of a node.
//!
//! It lies beside the cache's snapshot (`cache.snapshot: /run/nodens/cache` ─► `/run/nodens/cache.good.yaml`), the text as
//! it was behind a line of comment that says whose it is. Without a snapshot none is kept.
//!
//! A bad file need not say where that is. It is looked for where the file has `snapshot:`, however broken the rest may
//! be, then beside /run/nodens/cache: whoever wants the last good one even if the file is empty, or gone, keeps the
//! snapshot there. What is found counts only if it is whole and belongs to the same file.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::cache::snapshot::sum;
use crate::config::{self, MAX_FILE};
use crate::plan::Plan;
use crate::run::file;

/// Where a snapshot is if nobody says otherwise.
const USUAL: &str = "/run/nodens/cache";
/// The first words of the file; the number is that of this format.
const TITLE: &str = "# nodens last good 1";

/// A configuration found again.
pub(super) struct LastGood {
    pub(super) plan: Plan,
    pub(super) text: Vec<u8>,
    pub(super) place: PathBuf,
}

/// Keeps `text`, the content of `config`, beside `snapshot`.
pub(super) fn keep(snapshot: &Path, config: &Path, text: &[u8]) {
    let place = file::beside(snapshot, ".good.yaml");
    let (title, now) = (title(config, text), [title(config, text).as_bytes(), text].concat());
    if read(&place).is_some_and(|before| before == now) {
        return;
    }
    let written = file::replace(&place, |out| out.write_all(title.as_bytes()).and_then(|()| out.write_all(text)));
    if let Err(error) = written {
        let place = place.display();
        tracing::warn!("the configuration is not kept for a restart with a bad one: {place}: {error}");
    }
}

/// The last good configuration of the file `config`, whose content is `bad` now, if it has any.
pub(super) fn find(config: &Path, bad: &[u8]) -> Option<LastGood> {
    let mut places = hints(bad).chain([PathBuf::from(USUAL)]).map(|snapshot| file::beside(&snapshot, ".good.yaml"));
    places.find_map(|place| open(place, config))
}

fn open(place: PathBuf, config: &Path) -> Option<LastGood> {
    let octets = read(&place)?;
    let at = octets.iter().position(|&octet| octet == b'\n')? + 1;
    let (head, text) = octets.split_at(at);
    if head != title(config, text).as_bytes() {
        return None;
    }
    // What has become illegal, as by another environment, is no help.
    let plan = config::read(text, &place.display().to_string(), &|name| std::env::var(name).ok()).ok()?;
    Some(LastGood { plan, text: text.to_vec(), place })
}

fn title(config: &Path, text: &[u8]) -> String {
    // An agent is told of one file in more than one way; a path that cannot be made absolute is as good as any.
    let config = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
    let sum = sum(0, &[config.as_os_str().as_encoded_bytes(), b"\n", text].concat());
    format!("{TITLE}, {sum:016x}, of {}\n", config.display().to_string().escape_debug())
}

/// The paths that stand behind `snapshot:`.
fn hints(bad: &[u8]) -> impl Iterator<Item = PathBuf> {
    let text = String::from_utf8_lossy(bad);
    let paths: Vec<PathBuf> = text
        .split("snapshot:")
        .skip(1)
        .filter_map(|rest| {
            rest.trim_start().trim_start_matches(['"', '\'']).split([',', '}', '"', '\'', '#', ' ', '\n', '\r']).next()
        })
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .collect();
    paths.into_iter()
}

/// The octets of a file, if it is one and not too large.
fn read(place: &Path) -> Option<Vec<u8>> {
    let file = File::open(place).ok().filter(|file| file.metadata().is_ok_and(|it| it.is_file()))?;
    let mut octets = Vec::new();
    file.take(2 * MAX_FILE as u64).read_to_end(&mut octets).ok()?;
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "upstreams: { u: { servers: [192.0.2.1] } }\nzones: { \".\": { upstream: u } }\n";

    #[test]
    fn what_was_kept_is_found_by_what_the_bad_file_still_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let (snapshot, config) = (folder.path().join("cache"), folder.path().join("nodens.yaml"));
        keep(&snapshot, &config, GOOD.as_bytes());
        let at = snapshot.display();
        for bad in [
            format!("cache:\n  snapshot: {at}\nzones: ["),
            format!("cache: {{ memory: 1PiB, snapshot: \"{at}\" }}"),
            format!("cache: {{snapshot:{at}}}"),
            format!("\u{0}snapshot: '{at}' # here"),
        ] {
            let found = find(&config, bad.as_bytes()).expect("it is there");
            assert_eq!(found.text, GOOD.as_bytes());
        }
        assert!(find(&config, b"snapshot: cache").is_none(), "not absolute");
    }

    #[test]
    fn what_is_torn_or_belongs_to_another_file_is_not_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let (snapshot, config) = (folder.path().join("cache"), folder.path().join("nodens.yaml"));
        keep(&snapshot, &config, GOOD.as_bytes());
        let hint = format!("snapshot: {}\n", snapshot.display());
        assert!(find(&folder.path().join("other.yaml"), hint.as_bytes()).is_none());
        let place = folder.path().join("cache.good.yaml");
        let whole = std::fs::read(&place).expect("it was kept");
        for cut in 0..whole.len() {
            std::fs::write(&place, &whole[..cut]).expect("the folder is ours");
            assert!(find(&config, hint.as_bytes()).is_none(), "cut at {cut}");
        }
    }
}
