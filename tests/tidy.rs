//! Keeps the house as `docs/architecture.md` draws it: who may import whom, how large a room may
//! be, what every file starts with, and which words are not used.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Past this a file is two things.
const FILE_LINES_MAX: usize = 800;
/// The aim for files; a bounded share may be longer.
const FILE_LINES_AIM: usize = 400;
/// The aim for functions; a bounded share may be longer.
const FUNCTION_LINES_AIM: usize = 70;
/// No function may be longer than this, whatever its reasons.
const FUNCTION_LINES_MAX: usize = 150;

/// What a crate may never import, with the reason shown on failure.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    (
        "scheduler/core",
        &[
            "tokio",
            "tonic",
            "prost",
            "serde",
            "sled",
            "std::fs",
            "std::net",
            "std::thread",
            "rand",
            "HashMap",
            "HashSet",
            "SystemTime",
            "Instant",
        ],
        "the core decides and touches nothing",
    ),
    (
        "scheduler/model",
        &["muster_core", "muster_proto", "tokio", "tonic", "prost", "serde", "std::fs"],
        "the model imports nothing of ours and does no I/O",
    ),
    (
        "scheduler/store",
        &["muster_model", "muster_core", "muster_proto"],
        "the store does not know what a job is",
    ),
    (
        "scheduler/config",
        &["muster_core", "muster_proto", "tokio"],
        "the config file is read by commands that know no core",
    ),
    ("cli", &["muster_core"], "commands speak to the controller over the wire alone"),
    ("nodeagent/src", &["muster_core", "muster_controller"], "agents know no decisions"),
    (
        "nodeagent/shim",
        &["tokio", "tonic", "muster_core", "muster_controller"],
        "the shim is small, single-threaded and has no runtime",
    ),
    (
        "nodeagent/pmix",
        &["tokio", "tonic", "muster_core", "muster_controller", "muster_shim", "muster_agent"],
        "the PMIx host is the user's, and knows its step alone",
    ),
    (
        "nodeagent/cgroup",
        &["muster_proto", "muster_model", "tokio"],
        "cgroups are files and numbers",
    ),
    ("proto", &["muster_core", "sled", "std::fs"], "the wire knows messages and the model alone"),
];

/// Who may import the controller: everybody else goes through the wire.
const CONTROLLER_USERS: &[&str] =
    &["scheduler/controller", "scheduler/sim", "cli/main.rs", "tests"];

/// Words that say nothing about what a thing is, as file or type names.
const EMPTY_NAMES: &[&str] = &[
    "worker", "server", "manager", "handler", "context", "util", "utils", "helper", "helpers",
    "common", "entity",
];

struct Source {
    path: PathBuf,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for top in ["proto", "scheduler", "nodeagent", "cli", "tests"] {
        walk(&root().join(top), &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 20, "the walk found the sources");
    found
}

fn walk(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a source folder is readable") {
        let path = entry.expect("a folder entry is readable").path();
        if path.is_dir() && path.file_name().is_some_and(|n| n != "target") {
            walk(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("a source file is UTF-8");
            let path = path.strip_prefix(root()).expect("sources lie under the root").to_owned();
            found.push(Source { path, text });
        }
    }
}

/// Code without comments and without what follows the test module.
fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(source.text.lines())
        .take_while(|(_, line)| !line.starts_with("mod tests"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn fail_if_any(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} fault(s):\n  {}", faults.len(), faults.join("\n  "));
}

/// Whether `word` stands in `line` with no identifier character beside it.
fn names(line: &str, word: &str) -> bool {
    let ident = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(ident) && !line[at + word.len()..].starts_with(ident))
}

#[test]
fn crates_import_only_what_the_architecture_allows() {
    let mut faults = Vec::new();
    for source in sources() {
        let test_file = source.path.components().any(|c| c.as_os_str() == "tests")
            || source.path.ends_with("tests.rs");
        for (folder, words, why) in FORBIDDEN {
            if !source.path.starts_with(folder)
                || test_file
                || source.path.ends_with("main.rs")
                || source.path.ends_with("build.rs")
            {
                continue;
            }
            for (number, line) in code(&source) {
                for word in words.iter().filter(|w| names(line, w)) {
                    faults.push(format!("{}:{number}: {word}: {why}", source.path.display()));
                }
            }
        }
        let may = CONTROLLER_USERS.iter().any(|u| source.path.starts_with(u));
        for (number, line) in code(&source) {
            if !may && names(line, "muster_controller") {
                faults.push(format!(
                    "{}:{number}: only sim, tests and main import the controller",
                    source.path.display()
                ));
            }
        }
    }
    fail_if_any(faults);
}

#[test]
fn manifests_depend_only_on_what_the_architecture_allows() {
    let mut faults = Vec::new();
    for (folder, words, why) in FORBIDDEN {
        let manifest = root().join(folder.trim_end_matches("/src")).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).expect("every crate has a manifest");
        let table: toml::Table = text.parse().expect("a manifest is TOML");
        let Some(dependencies) = table.get("dependencies").and_then(|d| d.as_table()) else {
            continue;
        };
        for word in *words {
            if dependencies.contains_key(&word.replace('_', "-")) {
                faults.push(format!("{}: depends on {word}: {why}", manifest.display()));
            }
        }
    }
    fail_if_any(faults);
}

#[test]
fn rooms_stay_small() {
    let (mut faults, mut long, mut all) = (Vec::new(), 0usize, 0usize);
    for source in sources() {
        let lines = source.text.lines().count();
        all += 1;
        long += usize::from(lines > FILE_LINES_AIM);
        if lines > FILE_LINES_MAX {
            faults.push(format!(
                "{}: {lines} lines: split it by what it does",
                source.path.display()
            ));
        }
    }
    // A third of the files may pass the aim before the house as a whole has grown too coarse.
    if long * 3 > all {
        faults.push(format!("{long} of {all} files are longer than {FILE_LINES_AIM} lines"));
    }
    fail_if_any(faults);
}

#[test]
fn functions_stay_short() {
    let (mut faults, mut long, mut all) = (Vec::new(), 0usize, 0usize);
    for source in sources() {
        for (name, at, lines) in functions(&source.text) {
            all += 1;
            long += usize::from(lines > FUNCTION_LINES_AIM);
            if lines > FUNCTION_LINES_MAX {
                faults.push(format!("{}:{at}: {name} has {lines} lines", source.path.display()));
            }
        }
    }
    // 3 %: tables and exhaustive matches read better whole than in pieces.
    if long * 100 > all * 3 {
        faults
            .push(format!("{long} of {all} functions are longer than {FUNCTION_LINES_AIM} lines"));
    }
    fail_if_any(faults);
}

/// Functions as (name, first line, lines), by rustfmt's layout: a function ends at the first `}`
/// that stands at its own indentation.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let (mut out, mut open): (Vec<_>, Vec<(String, usize, usize)>) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let head =
            ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe ", "extern \"C\" "]
                .iter()
                .fold(trimmed, |t, p| t.strip_prefix(p).unwrap_or(t));
        if let Some(rest) = head.strip_prefix("fn ") {
            let name = rest.split(['(', '<']).next().unwrap_or_default().to_owned();
            if !trimmed.ends_with('}') && !trimmed.ends_with(';') {
                open.push((name, number, indent));
            }
        } else if trimmed == "}" && open.last().is_some_and(|(_, _, i)| *i == indent) {
            let (name, at, _) = open.pop().expect("a function is open");
            out.push((name, at, number - at + 1));
        }
    }
    out
}

#[test]
fn every_file_says_what_it_is() {
    let silent = |s: &Source| !s.text.trim_start().starts_with("//!");
    fail_if_any(
        sources()
            .iter()
            .filter(|s| silent(s))
            .map(|s| format!("{}: no //! head", s.path.display()))
            .collect(),
    );
}

#[test]
fn nothing_promises_less_than_it_says() {
    let soft = ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!(", "for now"];
    let mut faults = Vec::new();
    for source in sources().iter().filter(|s| !s.path.ends_with("tidy.rs")) {
        for (number, line) in (1..).zip(source.text.lines()) {
            for word in soft.iter().filter(|w| line.contains(**w)) {
                faults.push(format!("{}:{number}: {word}", source.path.display()));
            }
            if line.ends_with(' ') || line.contains('\t') && !line.contains('"') {
                faults.push(format!("{}:{number}: trailing space or tab", source.path.display()));
            }
        }
    }
    fail_if_any(faults);
}

#[test]
fn names_say_what_a_thing_is() {
    let mut faults = Vec::new();
    for source in sources() {
        let stem = source.path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        if EMPTY_NAMES.contains(&stem) {
            faults.push(format!("{}: name it by what it does", source.path.display()));
        }
        for (number, line) in code(&source) {
            let Some(name) = ["struct ", "enum ", "trait "].iter().find_map(|k| {
                line.trim_start()
                    .trim_start_matches("pub ")
                    .trim_start_matches("pub(crate) ")
                    .strip_prefix(k)
            }) else {
                continue;
            };
            let name = name
                .split(|c: char| !c.is_alphanumeric())
                .next()
                .unwrap_or_default()
                .to_lowercase();
            if EMPTY_NAMES.iter().any(|w| name.ends_with(w)) {
                faults.push(format!("{}:{number}: type {name}", source.path.display()));
            }
        }
    }
    fail_if_any(faults);
}

#[test]
fn the_root_holds_only_what_belongs_there() {
    let expected = [
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "cli",
        "clippy.toml",
        "deny.toml",
        "docs",
        "nodeagent",
        "packaging",
        "proto",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "scheduler",
        "target",
        "tests",
    ];
    let mut faults = Vec::new();
    for entry in fs::read_dir(root()).expect("the root is readable") {
        let name = entry.expect("an entry is readable").file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !expected.contains(&name.as_str()) {
            faults.push(format!("{name} does not belong at the root"));
        }
    }
    fail_if_any(faults);
}

#[test]
fn every_crate_is_on_the_map() {
    let map = fs::read_to_string(root().join("docs/architecture.md")).expect("the map exists");
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest exists");
    let table: toml::Table = manifest.parse().expect("the manifest is TOML");
    let members = table["workspace"]["members"].as_array().expect("members are listed");
    let folders: BTreeMap<&str, bool> = members
        .iter()
        .filter_map(|m| m.as_str())
        .filter(|m| *m != ".")
        .map(|m| (m, map.contains(m)))
        .collect();
    fail_if_any(
        folders
            .iter()
            .filter(|(_, there)| !**there)
            .map(|(f, _)| format!("{f} is not on docs/architecture.md"))
            .collect(),
    );
}
