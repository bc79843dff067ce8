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

    /// Runs `scp` with the old protocol.
    fn scp(&self, arguments: &[&str], quota: Option<u64>) -> Output {
        let mut command = client("scp", self.local.path(), self.home.path(), quota);
        command.arg("-O").arg("-S").arg(stand_in()).args(arguments);
        command.stdin(Stdio::null()).output().expect("runs")
    }

    /// The same, which must go well.
    fn scp_done(&self, arguments: &[&str]) {
        let output = self.scp(arguments, None);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
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

#[test]
fn scp_takes_and_sends_files() {
    let Some(ends) = Ends::new("scp") else { return };
    let sent = write_file(&ends.local("big"), 20_000_001);
    put(&ends.local("empty"), b"");
    make_directory(&ends.home("d"));
    ends.scp_done(&["big", "host:"]);
    ends.scp_done(&["big", "host:/d/other"]);
    ends.scp_done(&["big", "empty", "host:d"]);
    ends.scp_done(&["empty", "host:'a name with spaces'"]);
    for path in ["big", "d/other", "d/big"] {
        assert!(content(&ends.home(path)) == sent, "{path}");
    }
    assert!(content(&ends.home("a name with spaces")).is_empty());
    ends.scp_done(&["host:big", "back"]);
    // The client itself compares the name with what it asked for, and knows backslashes only.
    ends.scp_done(&["host:a\\ name\\ with\\ spaces", "none"]);
    make_directory(&ends.local("all"));
    ends.scp_done(&["host:d/*", "all"]);
    for path in ["back", "all/other", "all/big"] {
        assert!(content(&ends.local(path)) == sent, "{path}");
    }
    assert!(content(&ends.local("none")).is_empty());
    assert!(content(&ends.local("all/empty")).is_empty());
}

#[test]
fn scp_copies_trees_with_modes_and_times() {
    let Some(ends) = Ends::new("scp") else { return };
    for path in ["tree", "tree/below", "tree/hollow", "tree/below/deep"] {
        make_directory(&ends.local(path));
    }
    put(&ends.local("tree/a"), b"a");
    put(&ends.local("tree/below/deep/b"), b"b");
    set_facts(&ends.local("tree/below/deep/b"), 0o640, 1_234_567_890);
    set_facts(&ends.local("tree/below"), 0o750, 1_234_567_891);
    ends.scp_done(&["-rp", "tree", "host:/"]);
    // Now that it is there, it goes into it.
    ends.scp_done(&["-r", "tree", "host:tree"]);
    ends.scp_done(&["-rp", "host:tree", "back"]);
    let homes = ["tree", "tree/tree"].map(|path| ends.home(path));
    for root in homes
        .iter()
        .chain(&[ends.local("back"), ends.local("back/tree")])
    {
        assert_eq!(content(&root.join("a")), b"a");
        assert_eq!(content(&root.join("below/deep/b")), b"b");
        assert!(facts(&root.join("hollow")).is_dir());
    }
    for root in [ends.home("tree"), ends.local("back")] {
        let file = facts(&root.join("below/deep/b"));
        assert_eq!((file.mode() & 0o777, file.mtime()), (0o640, 1_234_567_890));
        let directory = facts(&root.join("below"));
        assert_eq!(
            (directory.mode() & 0o777, directory.mtime()),
            (0o750, 1_234_567_891)
        );
    }
}

#[test]
fn scp_is_told_what_is_refused_and_the_rest_goes_on() {
    let Some(ends) = Ends::new("scp") else { return };
    put(&ends.local("large"), &[1; 50_000]);
    put(&ends.local("small"), b"small");
    make_directory(&ends.home("d"));
    put(&ends.home("f"), b"old");
    std::os::unix::fs::symlink("/etc", ends.home("out")).expect("made");
    std::os::unix::fs::symlink(".", ends.home("d/loop")).expect("made");
    put(&ends.home("d/g"), b"g");
    for (arguments, expected) in [
        (&["large", "small", "host:d"][..], "Disk quota exceeded"),
        (&["large", "host:f"], "Disk quota exceeded"),
        (&["small", "host:nowhere/f"], "No such file or directory"),
        (&["small", "small", "host:f"], "Not a directory"),
        (&["small", "host:out/stolen"], "No such file or directory"),
        (&["host:nothing", "x"], "No such file or directory"),
        (&["host:out/passwd", "x"], "No such file or directory"),
        (&["host:../../etc/passwd", "x"], "No such file or directory"),
        (&["host:d", "x"], "not a regular file"),
        (
            &["-r", "host:d", "back"],
            "a link to a directory is not followed",
        ),
    ] {
        let output = ends.scp(arguments, Some(20_000));
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(
            said(&output).contains(expected),
            "{arguments:?}: {}",
            said(&output)
        );
    }
    assert_eq!(content(&ends.home("d/small")), b"small");
    assert_eq!(content(&ends.home("f")), b"old");
    assert!(!ends.home("d/large").exists() && !ends.local("x").exists());
    assert_eq!(content(&ends.local("back/g")), b"g");
    assert!(!Path::new("/etc/stolen").exists());
}
