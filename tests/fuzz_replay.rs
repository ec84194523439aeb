//! What the fuzzer kept, replayed: every file in `fuzz/corpus/` through the property it was found for.
//!
//! The properties are those of the fuzz targets themselves (`fuzz/src/`), so stable Rust and `cargo test` are enough. An
//! input that broke one is committed there together with its mending.

#[path = "../fuzz/src/lib.rs"]
mod properties;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, panic};

#[test]
fn properties_hold_for_everything_the_fuzzer_kept() {
    for (target, check) in properties::ALL {
        let files = files(&Path::new("fuzz/corpus").join(target));
        assert!(!files.is_empty(), "no corpus for {target}");
        for file in files {
            let data = fs::read(&file).expect("a file that was just listed");
            panic::catch_unwind(|| check(&data)).unwrap_or_else(|_| panic!("{} breaks {target}", file.display()));
        }
    }
}

#[test]
fn every_target_is_a_property_with_a_corpus() {
    let known: BTreeSet<String> = properties::ALL.iter().map(|(target, _)| (*target).to_owned()).collect();
    let names = |folder: &str| -> BTreeSet<String> {
        files(Path::new(folder)).iter().filter_map(|it| Some(it.file_stem()?.to_str()?.to_owned())).collect()
    };
    assert_eq!(names("fuzz/fuzz_targets"), known);
    assert_eq!(names("fuzz/corpus"), known);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("a folder that can be listed").path()).collect()
}
