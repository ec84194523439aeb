//! The floors of `src/lib.rs`, checked: who may import whom, and what a floor never touches.
//!
//! The table in the doc comment of `src/lib.rs` is read, not repeated. Every path that starts at the crate's root, in an
//! import or in the middle of a line, must lead to a floor the table allows; what the table forbids beyond imports is
//! searched for by name. Code under `#[cfg(test)]` is free: tests may reach up.

#[path = "floors/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The highest floor that takes time and dice as arguments.
const PURE: usize = 3;
/// The highest floor that knows nothing of configuration files.
const WITHOUT_SERDE: usize = 4;

/// What the pure floors never name: the clock, chance, sockets, tasks.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    ".elapsed()",
    "rand::rng",
    "rand::random",
    "thread_rng",
    "from_os_rng",
    "from_entropy",
    "SysRng",
    "OsRng",
    "tokio::",
    "async ",
    ".await",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "UnixListener",
    "socket2::",
    "nix::",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
];
/// What floor 0 never names: it promises not to panic, whatever the octets say. `expect` states an invariant.
const PANICS: &[&str] = &["panic!(", ".unwrap()", "unreachable!(", "todo!(", "unimplemented!("];
const SERDE: &[&str] = &["serde::", "serde_json", "serde_saphyr", "Serialize", "Deserialize"];

#[test]
fn imports_go_strictly_downwards() {
    let floors = Floors::of_this_crate();
    let found: Vec<String> = sources().iter().flat_map(|file| floors.foreign_imports(file)).collect();
    assert!(found.is_empty(), "not allowed by the table in src/lib.rs:\n{}", found.join("\n"));
}

#[test]
fn pure_floors_take_time_and_dice_as_arguments() {
    assert_named_nowhere(IMPURE, |floor| floor <= PURE);
}

#[test]
fn wire_has_no_panic() {
    assert_named_nowhere(PANICS, |floor| floor == 0);
}

#[test]
fn data_plane_knows_nothing_of_serde() {
    assert_named_nowhere(SERDE, |floor| floor <= WITHOUT_SERDE);
}

#[test]
fn no_code_is_unsafe() {
    let words = ["unsafe", "unsafe_code"];
    for file in rust_files(Path::new("src")).into_iter().chain(rust_files(Path::new("tests"))) {
        let code = source::code_only(&read(&file));
        let found = code.split(|it: char| !it.is_alphanumeric() && it != '_').find(|word| words.contains(word));
        assert_eq!(found, None, "{}", file.display());
    }
}

#[test]
fn table_and_modules_are_the_same() {
    let declared = source::code_only(&read(Path::new("src/lib.rs")));
    let declared: BTreeSet<&str> =
        declared.lines().filter_map(|line| line.trim().strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let floors = Floors::of_this_crate();
    assert_eq!(floors.floor_of.keys().map(String::as_str).collect::<BTreeSet<_>>(), declared);
    let with_files: BTreeSet<String> =
        sources().into_iter().filter_map(|file| file.module.into_iter().next()).collect();
    assert_eq!(with_files, declared.into_iter().map(str::to_owned).collect());
}

#[test]
fn no_row_of_the_table_looks_up() {
    for (floor, allowed) in &Floors::of_this_crate().may_import {
        assert!(allowed.iter().all(|it| it <= floor), "floor {floor} may import {allowed:?}");
    }
}

fn assert_named_nowhere(names: &[&str], concerns: impl Fn(usize) -> bool) {
    let floors = Floors::of_this_crate();
    let files: Vec<Source> = sources();
    let concerned = files.iter().filter(|file| file.floor(&floors).is_some_and(&concerns));
    let found: Vec<String> = concerned.flat_map(|file| file.mentions(names)).collect();
    assert!(found.is_empty(), "not on this floor:\n{}", found.join("\n"));
}

// === impl Floors ===

/// The table of `src/lib.rs`.
struct Floors {
    /// Top-level module to floor.
    floor_of: BTreeMap<String, usize>,
    /// Floor to the floors it may import.
    may_import: BTreeMap<usize, BTreeSet<usize>>,
}

impl Floors {
    fn of_this_crate() -> Self {
        let floors = Self::read(&read(Path::new("src/lib.rs")));
        assert!(floors.may_import.len() > 1, "src/lib.rs has lost its table of floors");
        floors
    }

    /// Reads the rows `//! | floor | modules in backticks | floors it may import | never |`.
    fn read(lib: &str) -> Self {
        let mut floors = Self { floor_of: BTreeMap::new(), may_import: BTreeMap::new() };
        for row in lib.lines().filter_map(|line| line.strip_prefix("//! |")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let Ok(floor) = cells[0].parse() else { continue };
            for module in cells[1].split('`').skip(1).step_by(2) {
                let twice = floors.floor_of.insert(module.to_owned(), floor);
                assert_eq!(twice, None, "{module} stands on two floors");
            }
            let twice = floors.may_import.insert(floor, ranges(cells[2]));
            assert_eq!(twice, None, "two rows for floor {floor}");
        }
        floors
    }

    /// Says what `file` imports although the table does not allow it.
    fn foreign_imports(&self, file: &Source) -> Vec<String> {
        let Some(own) = file.module.first() else { return Vec::new() };
        let place = |line: usize| format!("{}:{line}", file.path.display());
        let Some(floor) = self.floor_of.get(own) else { return vec![format!("{}: has no floor", place(1))] };
        let mut found = Vec::new();
        for (line, target) in file.root_paths() {
            match self.floor_of.get(&target) {
                _ if target == *own => {}
                None => found.push(format!("{}: crate::{target} has no floor", place(line))),
                Some(below) if self.may_import[floor].contains(below) => {}
                Some(other) => {
                    found.push(format!("{}: floor {floor} imports crate::{target} of floor {other}", place(line)));
                }
            }
        }
        found
    }
}

/// `0-1, 5` as a set; `-` is the empty one.
fn ranges(text: &str) -> BTreeSet<usize> {
    let number = |text: &str| -> usize { text.trim().parse().unwrap_or_else(|_| panic!("no floor: {text:?}")) };
    let mut floors = BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|part| *part != "-") {
        match part.split_once('-') {
            Some((low, high)) => floors.extend(number(low)..=number(high)),
            None => floors.extend([number(part)]),
        }
    }
    floors
}

// === impl Source ===

/// One file of `src`, its code only.
struct Source {
    path: PathBuf,
    /// Its place in the crate: `["wire", "name"]`; empty for `lib.rs`.
    module: Vec<String>,
    code: String,
}

impl Source {
    fn floor(&self, floors: &Floors) -> Option<usize> {
        floors.floor_of.get(self.module.first()?).copied()
    }

    /// The modules that paths from the crate's root lead to, with their lines: `crate::x`, `crate::{x, y::z}` and
    /// `super::x` with enough `super`s.
    fn root_paths(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            let line = line_of(&self.code, at);
            found.extend(first_segments(&self.code[at + "crate::".len()..]).into_iter().map(|name| (line, name)));
        }
        let to_root = "super::".repeat(self.module.len());
        for (at, _) in self.code.match_indices(&to_root).filter(|_| !self.module.is_empty()) {
            // In a longer chain this is not the start; in a nested module it does not reach the root, but a module's name.
            if !self.code[..at].ends_with("super::") {
                let names = first_segments(&self.code[at + to_root.len()..]);
                let modules = names.into_iter().filter(|name| name.starts_with(char::is_lowercase) && name != "super");
                found.extend(modules.map(|name| (line_of(&self.code, at), name)));
            }
        }
        found
    }

    fn mentions(&self, names: &[&str]) -> Vec<String> {
        let hits = |name: &&str| {
            let lines: Vec<usize> = self.code.match_indices(*name).map(|(at, _)| line_of(&self.code, at)).collect();
            let name = (*name).to_owned();
            lines.into_iter().map(move |line| format!("{}:{line}: {name}", self.path.display()))
        };
        names.iter().flat_map(hits).collect()
    }
}

/// The first names of a path or of every path in a group.
fn first_segments(path: &str) -> Vec<String> {
    let identifier =
        |text: &str| -> String { text.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect() };
    let Some(group) = path.strip_prefix('{') else { return vec![identifier(path)] };
    let (mut names, mut depth, mut fresh) = (Vec::new(), 0_usize, true);
    for (at, octet) in group.bytes().enumerate() {
        match octet {
            b'{' => depth += 1,
            b'}' if depth == 0 => break,
            b'}' => depth -= 1,
            b',' => fresh |= depth == 0,
            _ if octet.is_ascii_whitespace() => {}
            _ if fresh => {
                names.push(identifier(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Every file of the library but those that are compiled for tests only.
fn sources() -> Vec<Source> {
    let root = Path::new("src");
    let (mut files, mut test_only) = (Vec::new(), Vec::new());
    for path in rust_files(root) {
        if path == root.join("main.rs") {
            continue;
        }
        let module = module_of(path.strip_prefix(root).expect("it was found there"));
        let (code, tests) = source::without_tests(&source::code_only(&read(&path)));
        test_only.extend(tests.into_iter().map(|name| [&module[..], &[name]].concat()));
        files.push(Source { path, module, code });
    }
    files.retain(|file| !test_only.iter().any(|module| file.module.starts_with(module)));
    files
}

/// `wire/name.rs` and `wire/name/mod.rs` are `["wire", "name"]`.
fn module_of(path: &Path) -> Vec<String> {
    let parts = path.with_extension("");
    let parts = parts.iter().map(|part| part.to_str().expect("our file names are ASCII").to_owned());
    parts.filter(|part| part != "mod" && part != "lib").collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("tests run in the package's folder") {
        let path = entry.expect("a folder that can be listed").path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

// === the checker, checked ===

const TABLE: &str = "\
    //! | floor | modules | may import | never |\n\
    //! |---|---|---|---|\n\
    //! | 0 | `low` | - | - |\n\
    //! | 1 | `left` `right` | 0 | - |\n\
    //! | 2 | `high` `wide` | 0, 2 | - |\n";

/// What is wrong with `code` as the module `module`.
fn wrong(module: &[&str], code: &str) -> Vec<String> {
    let (code, _) = source::without_tests(&source::code_only(code));
    let module: Vec<String> = module.iter().map(|it| (*it).to_owned()).collect();
    Floors::read(TABLE).foreign_imports(&Source { path: "x.rs".into(), module, code })
}

#[test]
fn checker_lets_pass_what_is_allowed() {
    assert_eq!(wrong(&["left"], "use crate::low::A; use crate::left::B;"), [""; 0]);
    assert_eq!(wrong(&["left", "part"], "use super::A; use super::super::low; use crate::left::part;"), [""; 0]);
    assert_eq!(wrong(&["high"], "use crate::{low::{A, B}, wide::C};"), [""; 0]);
    assert_eq!(wrong(&["low"], "// use crate::high;\n#[cfg(test)] mod tests { use crate::high; }"), [""; 0]);
}

#[test]
fn checker_sees_an_import_upwards() {
    assert_eq!(wrong(&["low"], "\nuse crate::left::A;"), ["x.rs:2: floor 0 imports crate::left of floor 1"]);
    assert_eq!(wrong(&["low"], "fn f() { crate::high::g() }").len(), 1);
    assert_eq!(wrong(&["low", "part"], "use super::super::left;").len(), 1);
    assert_eq!(wrong(&["low"], "use super::left;").len(), 1);
}

#[test]
fn checker_sees_equals_meet() {
    assert_eq!(wrong(&["left"], "use crate::{low, right::A};").len(), 1);
    assert_eq!(wrong(&["left"], "use crate::{\n    low::{A, B},\n    right,\n};").len(), 1);
}

#[test]
fn checker_sees_a_floor_left_out() {
    assert_eq!(wrong(&["high"], "use crate::left;").len(), 1);
}

#[test]
fn checker_sees_modules_without_a_floor() {
    assert_eq!(wrong(&["attic"], ""), ["x.rs:1: has no floor"]);
    assert_eq!(wrong(&["high"], "use crate::attic;"), ["x.rs:1: crate::attic has no floor"]);
}

#[test]
fn checker_sees_forbidden_names() {
    let code = source::code_only("let a = \"Instant::now\"; // Instant::now\nlet b = Instant::now();");
    let file = Source { path: "x.rs".into(), module: vec!["low".to_owned()], code };
    assert_eq!(file.mentions(&["Instant::now"]), ["x.rs:2: Instant::now"]);
}
