//! The clients that people use, against a running server. A program that is
//! not installed is skipped, loudly; in CI it must be there.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own the directories that they make"
)]

use std::path::PathBuf;
use std::process::{Command, Output};

use wharf_testkit::{Server, Wharf, has_program, noise};

struct Setting {
    wharf: Wharf,
    server: Server,
    scratch: PathBuf,
    content: Vec<u8>,
}

/// A server with the account `alice`, and a file `big` to work with.
fn setting() -> Setting {
    let wharf = Wharf::new(env!("CARGO_BIN_EXE_wharf"));
    wharf.add_user("alice", &[]);
    let server = wharf.serve(&[]);
    let scratch = wharf.scratch();
    let content = noise(3_000_000, 7);
    std::fs::write(scratch.join("big"), &content).expect("written");
    Setting {
        wharf,
        server,
        scratch,
        content,
    }
}

impl Setting {
    /// Runs a program in the scratch folder; it must succeed.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.start(program, arguments);
        let shown = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{program} {arguments:?}: {shown}");
        shown
    }

    fn start(&self, program: &str, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .current_dir(&self.scratch)
            .env("HOME", &self.scratch)
            .output()
            .expect("starts")
    }

    fn url(&self, path: &str) -> String {
        format!("ftp://alice:secret@{}/{path}", self.server.v4())
    }

    fn stored(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.wharf.home("alice").join(name)).expect("is there")
    }

    fn fetched(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.scratch.join(name)).expect("is there")
    }
}

#[test]
fn curl_uploads_downloads_resumes_and_lists() {
    if !has_program("curl") {
        return;
    }
    let setting = setting();
    setting.run("curl", &["-sS", "-T", "big", &setting.url("")]);
    assert_eq!(setting.stored("big"), setting.content);
    setting.run("curl", &["-sS", "-o", "copy", &setting.url("big")]);
    assert_eq!(setting.fetched("copy"), setting.content);
    // Downloads and uploads go on where they stopped, passive and active.
    std::fs::write(setting.scratch.join("copy"), &setting.content[..1_000_000]).expect("written");
    setting.run(
        "curl",
        &[
            "-sS",
            "-C",
            "-",
            "-P",
            "-",
            "-o",
            "copy",
            &setting.url("big"),
        ],
    );
    assert_eq!(setting.fetched("copy"), setting.content);
    std::fs::write(setting.scratch.join("part"), &setting.content[..1_000_000]).expect("written");
    setting.run("curl", &["-sS", "-T", "part", &setting.url("resumed")]);
    setting.run(
        "curl",
        &["-sS", "-C", "-", "-T", "big", &setting.url("resumed")],
    );
    assert_eq!(setting.stored("resumed"), setting.content);
    assert!(
        setting
            .run("curl", &["-sS", &setting.url("")])
            .contains(" resumed")
    );
    let ipv6 = format!("ftp://alice:secret@{}/big", setting.server.v6());
    setting.run("curl", &["-sS", "-g", "-o", "copy6", &ipv6]);
    assert_eq!(setting.fetched("copy6"), setting.content);
    let refused = setting.start("curl", &["-sS", &setting.url("nothing")]);
    assert_eq!(
        refused.status.code(),
        Some(78),
        "CURLE_REMOTE_FILE_NOT_FOUND"
    );
}

#[test]
fn lftp_mirrors_both_ways_and_downloads_in_segments() {
    if !has_program("lftp") {
        return;
    }
    let setting = setting();
    let tree = setting.scratch.join("tree/a b/c");
    std::fs::create_dir_all(&tree).expect("made");
    for number in 0..20 {
        std::fs::write(tree.join(format!("file {number}")), noise(number * 997, 8))
            .expect("written");
    }
    let script = format!(
        "set ftp:ssl-allow no; set net:max-retries 2; set cmd:fail-exit yes; open -u alice,secret {}; \
         put big; get big -o got; pget -n 4 big -o segments; mirror -R tree up; mirror up down; \
         mkdir d; mv big d/moved; cls d; rm d/moved; rmdir d; rm -r up/a\\ b/c",
        setting.server.v4().to_string().replace(':', " -p ")
    );
    setting.run("lftp", &["-c", &script]);
    assert_eq!(setting.fetched("got"), setting.content);
    assert_eq!(setting.fetched("segments"), setting.content);
    for number in 0..20 {
        let name = format!("down/a b/c/file {number}");
        assert_eq!(setting.fetched(&name), noise(number * 997, 8), "{name}");
    }
    assert_eq!(setting.wharf.usage("alice"), (0, 2));
}

#[test]
fn tnftp_uploads_and_downloads() {
    if !has_program("tnftp") {
        return;
    }
    let setting = setting();
    setting.run("tnftp", &["-V", "-u", &setting.url("up"), "big"]);
    assert_eq!(setting.stored("up"), setting.content);
    setting.run("tnftp", &["-V", "-o", "down", &setting.url("up")]);
    assert_eq!(setting.fetched("down"), setting.content);
}

#[test]
fn pythons_ftplib_does_everything_that_it_can() {
    if !has_program("python3") {
        return;
    }
    let setting = setting();
    let script = r#"
import ftplib, io, sys
big = open("big", "rb").read()
ftp = ftplib.FTP(timeout=60)
ftp.connect(sys.argv[1], int(sys.argv[2]))
ftp.login("alice", "secret")
for passive in (True, False):
    ftp.set_pasv(passive)
    ftp.storbinary("STOR file", io.BytesIO(big))
    assert ftp.size("file") == len(big)
    got = io.BytesIO()
    ftp.retrbinary("RETR file", got.write, rest=1000)
    assert got.getvalue() == big[1000:]
ftp.storlines("STOR text", io.BytesIO(b"one\ntwo\n"))
lines = []
ftp.retrlines("RETR text", lines.append)
assert lines == ["one", "two"], lines
assert sorted(name for name, _ in ftp.mlsd()) == ["file", "text"]
assert sorted(ftp.nlst()) == ["file", "text"]
facts = dict(ftp.mlsd(facts=["size", "type"]))
assert facts["file"] == {"size": str(len(big)), "type": "file"}, facts
assert ftp.mkd('a "b"') == '/a "b"'
ftp.cwd('a "b"')
assert ftp.pwd() == '/a "b"'
ftp.cwd("..")
ftp.rename("text", 'a "b"/moved')
ftp.delete('a "b"/moved')
ftp.rmd('a "b"')
try:
    ftp.cwd("/etc")
    sys.exit("left the home")
except ftplib.error_perm as error:
    assert str(error).startswith("550"), error
ftp.quit()
"#;
    let address = setting.server.v4();
    setting.run(
        "python3",
        &[
            "-c",
            script,
            &address.ip().to_string(),
            &address.port().to_string(),
        ],
    );
}
