//! What the documents claim about this repository is true of it.

#![expect(
    clippy::disallowed_methods,
    reason = "the repository's own files are read by path"
)]

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Where the repository is.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn every_test_that_a_document_names_exists() {
    let functions = functions();
    for document in ["ARCHITECTURE.md", "SECURITY.md"] {
        let text = read(&Path::new(ROOT).join(document));
        let named: Vec<&str> = text.lines().flat_map(tests_of_row).collect();
        assert!(named.len() >= 10, "{document}: {named:?}");
        for name in named {
            assert!(
                functions.contains(name),
                "{document} names {name}, which is no test"
            );
        }
    }
    let contributing = read(&Path::new(ROOT).join("CONTRIBUTING.md"));
    let example = contributing
        .split_once("**Tests** are claims (`")
        .and_then(|(_, rest)| rest.split_once('`'));
    let (example, _) = example.expect("the rule gives an example");
    assert!(functions.contains(example), "{example}");
}

/// The tests in the last column of a table's row: names in backticks of small
/// letters and underscores.
fn tests_of_row(line: &str) -> impl Iterator<Item = &str> {
    let row = line.strip_prefix('|').and_then(|row| row.strip_suffix('|'));
    let last = row.and_then(|row| row.rsplit('|').next()).unwrap_or("");
    let quoted = last.split('`').skip(1).step_by(2);
    quoted.filter(|word| {
        word.contains('_')
            && word
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    })
}

/// The names of all functions of the repository.
fn functions() -> HashSet<String> {
    let mut names = HashSet::new();
    for folder in ["crates", "src", "tests"] {
        for file in sources(&Path::new(ROOT).join(folder)) {
            for line in read(&file).lines() {
                let after = line.split_once("fn ").map_or("", |(_, after)| after);
                let end = after.find(|character: char| !is_of_a_name(character));
                let name = after.get(..end.unwrap_or(0)).unwrap_or("");
                names.insert(name.to_owned());
            }
        }
    }
    names
}

fn is_of_a_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
