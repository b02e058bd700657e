//! The repository's own rules.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

use crate::world::repository;

/// Which of our crates each may use; what isn't named here is `gateway` or a test, and may use all.
const DEPENDENCIES: [(&str, &[&str]); 13] = [
    ("core", &[]),
    ("entra", &["core"]),
    ("sql", &["core"]),
    ("ledger", &["core"]),
    ("sinks", &["core", "ledger"]),
    ("store", &["core", "ledger"]),
    ("stack", &["core", "ledger"]),
    ("wire", &["core"]),
    ("postgres", &["core", "sql", "wire"]),
    ("mysql", &["core", "sql", "wire"]),
    ("redis", &["core", "wire"]),
    ("http", &["core", "wire"]),
    ("testkit", &["core", "wire"]),
];

fn manifest(path: &Path) -> Table {
    fs::read_to_string(path).unwrap().parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Folder and manifest of every crate.
fn crates() -> BTreeMap<String, Table> {
    let folders = fs::read_dir(repository().join("crates")).unwrap();
    let folders = folders.map(|entry| entry.unwrap().path());
    folders
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), manifest(&path.join("Cargo.toml")))
        })
        .collect()
}

/// Every file with one of these endings that is the repository's own.
fn sources(endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![repository()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !matches!(name, "target" | ".git" | "node_modules" | "corpus" | "artifacts") {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn packages_are_named_after_their_folders_and_inherit() {
    for (folder, manifest) in crates() {
        let package = manifest["package"].as_table().unwrap();
        assert_eq!(package["name"].as_str(), Some(format!("verbatim-{folder}").as_str()));
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            assert_eq!(package[key]["workspace"].as_bool(), Some(true), "{folder}: {key}");
        }
        assert!(package["description"].as_str().is_some_and(|text| text.len() > 10), "{folder}");
        assert_eq!(manifest["lints"]["workspace"].as_bool(), Some(true), "{folder}");
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, wanted) in
                manifest.get(section).and_then(|table| table.as_table()).into_iter().flatten()
            {
                assert_eq!(
                    wanted.get("workspace").and_then(|it| it.as_bool()),
                    Some(true),
                    "{folder}: {name} states its own version"
                );
            }
        }
    }
}

#[test]
fn dependencies_point_one_way() {
    let crates = crates();
    for (folder, allowed) in DEPENDENCIES {
        let manifest = &crates[folder];
        let ours = manifest.get("dependencies").and_then(|table| table.as_table()).into_iter().flatten();
        for name in ours.filter_map(|(name, _)| name.strip_prefix("verbatim-")) {
            assert!(allowed.contains(&name), "{folder} may not use {name}");
        }
    }
    for (folder, manifest) in &crates {
        let known = folder == "gateway" || DEPENDENCIES.iter().any(|(name, _)| name == folder);
        assert!(known, "{folder}: say in tests/it/tidy.rs what it may use");
        let ships = manifest.get("dependencies").and_then(|table| table.as_table()).unwrap();
        assert!(!ships.contains_key("verbatim-testkit"), "{folder} ships testkit");
    }
}

#[test]
fn every_module_says_what_it_is() {
    for path in sources(&[".rs"]) {
        let text = fs::read_to_string(&path).unwrap();
        let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
        let says = first.is_some_and(|line| line.starts_with("//!"));
        let private_tests =
            path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests");
        assert!(says || private_tests, "{} begins without a //! line", path.display());
    }
}

#[test]
fn crates_introduce_themselves() {
    let mut silent = Vec::new();
    for folder in crates().keys() {
        let root = repository().join("crates").join(folder).join("src");
        let root = if root.join("lib.rs").exists() { root.join("lib.rs") } else { root.join("main.rs") };
        let text = fs::read_to_string(&root).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("//!")).count();
        if lines < 3 {
            silent.push(format!("{folder}: {lines} lines"));
        }
    }
    assert!(
        silent.is_empty(),
        "crate documentation says what a crate does, does not do, and how: {silent:?}"
    );
}

#[test]
fn nothing_is_unfinished_or_switched_off() {
    // Put together here, so that this file doesn't find itself.
    let words = [
        ["to", "do!("],
        ["unimple", "mented!("],
        ["#[ig", "nore"],
        ["FIX", "ME"],
        ["X", "XX"],
        ["TO", "DO"],
        ["db", "g!("],
    ];
    let words = words.map(|halves| halves.concat());
    for path in sources(&[".rs", ".toml", ".sh", ".py", ".md", "justfile"]) {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            for word in &words {
                assert!(!line.contains(word.as_str()), "{}:{}: {word}", path.display(), number + 1);
            }
        }
    }
}

#[test]
fn modules_are_of_a_readable_size() {
    /// Lines above which a module needs a reason to stay whole.
    const LINES_MAX: usize = 800;
    for path in sources(&[".rs"]) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{}: {lines} lines", path.display());
    }
}

#[test]
fn every_test_binary_lifts_clippys_rules_for_helpers_too() {
    for path in sources(&["main.rs"]).into_iter().filter(|path| path.ends_with("it/main.rs")) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("\n#![cfg(test)]\n") || text.starts_with("#![cfg(test)]\n"),
            "{}",
            path.display()
        );
    }
}
