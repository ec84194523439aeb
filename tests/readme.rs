//! README.md, held to its word.

use std::fs;
use std::path::Path;

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("the README of this crate")
}

#[test]
fn configurations_in_the_readme_are_legal() {
    let readme = readme();
    let blocks: Vec<_> = readme.split("```yaml\n").skip(1).filter_map(|it| it.split_once("```")).collect();
    assert!(!blocks.is_empty());
    for (yaml, _) in blocks {
        if let Err(errors) = nodens::config::parse(yaml, "README.md", &|_| None) {
            panic!("{errors}");
        }
    }
}

#[test]
fn files_that_the_readme_links_to_exist() {
    let readme = readme();
    let targets = readme.split("](").skip(1).filter_map(|it| it.split_once(')')).map(|(target, _)| target);
    let files: Vec<_> = targets.filter(|it| !it.starts_with('#') && !it.contains("://")).collect();
    assert!(files.len() > 3);
    for file in files {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists(), "{file}");
    }
}
