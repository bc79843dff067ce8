//! OpenSSH's own clients.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::stdio::{client, said, stand_in};

/// A file of `bytes` bytes that looks like none before it at any distance.
fn write_file(path: &Path, bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let content: Vec<u8> = (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        })
        .collect();
    put(path, &content);
    content
}

#[expect(clippy::disallowed_methods, reason = "the test's own folder")]
fn put(path: &Path, content: &[u8]) {
    std::fs::write(path, content).expect("written");
}

#[expect(clippy::disallowed_methods, reason = "the test's own folder")]
fn content(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("reads")
}

#[expect(clippy::disallowed_methods, reason = "the test's own folder")]
fn facts(path: &Path) -> std::fs::Metadata {
    std::fs::symlink_metadata(path).expect("there")
}

#[expect(clippy::disallowed_methods, reason = "the test's own folder")]
fn make_directory(path: &Path) {
    std::fs::create_dir(path).expect("made");
}

#[expect(clippy::disallowed_methods, reason = "the test's own folder")]
fn set_facts(path: &Path, mode: u32, seconds: u64) {
    let file = std::fs::File::open(path).expect("opens");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    file.set_permissions(mode).expect("set");
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    file.set_modified(time).expect("set");
}

/// Two folders: the client's, and the server's home.
struct Ends {
    local: tempfile::TempDir,
    home: tempfile::TempDir,
}

impl Ends {
    fn new(program: &str) -> Option<Self> {
        wharf_testkit::has_program(program).then(|| Self {
            local: tempfile::tempdir().expect("a directory"),
            home: tempfile::tempdir().expect("a directory"),
        })
    }

    fn local(&self, name: &str) -> std::path::PathBuf {
        self.local.path().join(name)
    }

    fn home(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    /// Runs a batch of `sftp`.
    fn sftp(&self, batch: &str, quota: Option<u64>) -> Output {
        let mut command = client("sftp", self.local.path(), self.home.path(), quota);
        command.arg("-D").arg(stand_in()).args(["-b", "-"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(batch.as_bytes()).expect("written");
        drop(input);
        child.wait_with_output().expect("ends")
    }

    /// The same, which must go well.
    fn sftp_done(&self, batch: &str) -> String {
        let output = self.sftp(batch, None);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[test]
fn sftp_puts_and_gets_what_it_is_given() {
    let Some(ends) = Ends::new("sftp") else {
        return;
    };
    let sent = write_file(&ends.local("big"), 20_000_001);
    put(&ends.local("empty"), b"");
    ends.sftp_done(
        "put big\nput empty 'a name with spaces'\nget big back\nget 'a name with spaces' none\n",
    );
    assert!(content(&ends.home("big")) == sent);
    assert!(content(&ends.local("back")) == sent);
    assert!(content(&ends.local("none")).is_empty());
}

#[test]
fn sftp_copies_trees_with_modes_and_times() {
    let Some(ends) = Ends::new("sftp") else {
        return;
    };
    make_directory(&ends.local("tree"));
    make_directory(&ends.local("tree/below"));
    put(&ends.local("tree/a"), b"a");
    put(&ends.local("tree/below/b"), b"b");
    set_facts(&ends.local("tree/below/b"), 0o640, 1_234_567_890);
    set_facts(&ends.local("tree/below"), 0o750, 1_234_567_891);
    ends.sftp_done("put -pr tree\nget -pr tree back\n");
    for path in [ends.home("tree/below/b"), ends.local("back/below/b")] {
        assert_eq!(content(&path), b"b");
        let facts = facts(&path);
        assert_eq!(
            (facts.mode() & 0o777, facts.mtime()),
            (0o640, 1_234_567_890)
        );
    }
    for path in [ends.home("tree/below"), ends.local("back/below")] {
        let facts = facts(&path);
        assert_eq!(
            (facts.mode() & 0o777, facts.mtime()),
            (0o750, 1_234_567_891)
        );
    }
}

#[test]
fn sftp_resumes_both_ways() {
    let Some(ends) = Ends::new("sftp") else {
        return;
    };
    let whole = write_file(&ends.local("up"), 3_000_000);
    put(&ends.home("up"), &whole[..1_000_000]);
    put(&ends.home("down"), &whole);
    put(&ends.local("down"), &whole[..1_234_567]);
    ends.sftp_done("reput up\nreget down\n");
    assert!(content(&ends.home("up")) == whole);
    assert!(content(&ends.local("down")) == whole);
}

#[test]
fn sftp_changes_names_and_facts() {
    let Some(ends) = Ends::new("sftp") else {
        return;
    };
    put(&ends.home("a"), b"content of a");
    put(&ends.home("b"), b"b");
    make_directory(&ends.home("d"));
    make_directory(&ends.home("gone"));
    // `cp` goes by copy-data, `ln` by hardlink@, `rename` by posix-rename@.
    let said = ends.sftp_done(
        "cp a copy\nln a link\nrename a b\nchmod 600 b\nmkdir d/e\nrmdir gone\nrm copy\n\
         cp b d/second\nls -1\ncd d\npwd\nls -ln\n",
    );
    assert_eq!(content(&ends.home("b")), b"content of a");
    assert_eq!(content(&ends.home("d/second")), b"content of a");
    assert_eq!(facts(&ends.home("b")).mode() & 0o777, 0o600);
    assert_eq!(facts(&ends.home("link")).nlink(), 2);
    assert!(said.contains("Remote working directory: /d\n"), "{said}");
    assert!(
        said.contains("\nb\nd\nlink\n") || said.contains("\nb \nd \nlink "),
        "{said}"
    );
    assert!(facts(&ends.home("d/e")).is_dir());
    assert!(!ends.home("gone").exists() && !ends.home("copy").exists() && !ends.home("a").exists());
}

#[test]
fn sftp_is_told_what_is_refused() {
    let Some(ends) = Ends::new("sftp") else {
        return;
    };
    put(&ends.local("f"), &[1; 50_000]);
    for (batch, expected) in [
        ("get nothing\n", "not found"),
        ("ln -s /etc/passwd mine\n", "Operation unsupported"),
        ("put f\n", "Failure"),
        ("get /etc/passwd stolen\n", "not found"),
        ("chown 4711 .\n", "Permission denied"),
    ] {
        let output = ends.sftp(batch, Some(20_000));
        assert!(!output.status.success(), "{batch}");
        assert!(
            said(&output).contains(expected),
            "{batch}: {}",
            said(&output)
        );
    }
    assert!(!ends.local("stolen").exists());
    let told = ends.sftp("df\n", Some(20_480));
    // In KiB; what was cut is kept for who resumes, and counts.
    assert!(said(&told).contains("20"), "{}", said(&told));
}
