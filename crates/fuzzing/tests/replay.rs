//! Runs every target on its committed corpus, and holds `fuzz/` to the list of targets.

#![expect(
    clippy::disallowed_methods,
    reason = "the corpora are files of the repository"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use std::{panic, thread};

use wharf_fuzzing::TARGETS;

/// Longest time for one input, which takes milliseconds: what is beyond it never ends.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn every_input_that_the_fuzzer_kept_still_holds() {
    let (tell, told) = mpsc::channel();
    let replay = thread::spawn(move || {
        for (name, target) in TARGETS {
            let inputs = files(&format!("corpus/{name}"));
            assert!(!inputs.is_empty(), "{name} has no inputs");
            for file in inputs {
                let input = fs::read(&file).expect("readable");
                let shown = format!("{name} on {}", file.display());
                tell.send(shown.clone()).expect("the test waits");
                if panic::catch_unwind(|| target(&input)).is_err() {
                    panic!("{shown} fails");
                }
            }
        }
    });
    let mut begun = String::new();
    loop {
        match told.recv_timeout(PATIENCE) {
            Ok(next) => begun = next,
            Err(RecvTimeoutError::Timeout) => panic!("{begun} does not end"),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    replay.join().expect("as the panic above says");
}

#[test]
fn every_target_has_a_program_for_the_fuzzer_and_a_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let stem = |file: &PathBuf| {
        file.file_stem()
            .and_then(|stem| stem.to_str())
            .map(str::to_owned)
    };
    let named = |folder: &str| {
        files(folder)
            .iter()
            .filter_map(stem)
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(named("fuzz_targets"), targets);
    assert_eq!(named("corpus"), targets);
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).expect("readable");
    for name in &targets {
        let program = format!("[[bin]]\nname = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n");
        assert!(manifest.contains(&program), "fuzz/Cargo.toml lacks {name}");
        let source = fs::read_to_string(folder().join(format!("fuzz_targets/{name}.rs")));
        let call = format!("run(\"{name}\", input)");
        assert!(
            source.expect("readable").contains(&call),
            "{name} runs another"
        );
    }
}

/// What is in a folder of `fuzz/`, in a fixed order.
fn files(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join(name)).expect("a folder");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}
