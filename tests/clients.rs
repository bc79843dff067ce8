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
    setting_with(&[], &[])
}

/// The same with options for the account and for the server.
fn setting_with(account: &[&str], options: &[&str]) -> Setting {
    let wharf = Wharf::new(env!("CARGO_BIN_EXE_wharf"));
    wharf.add_user("alice", account);
    let server = wharf.serve(options);
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

/// Paths that copying has to get right: folders, an empty file, one of many packets, and names
/// that a shell would take apart, since rclone asks for digests by command lines.
const TREE: [(&str, usize); 5] = [
    ("plain", 100_000),
    ("empty", 0),
    ("below/deeper/large", 5_000_000),
    ("it's $HOME; a \"name\"", 10),
    ("Grüße/ b", 65_536),
];

/// One checker: rclone 1.60 finds out once which digests there are, and whoever asks meanwhile
/// hears that there are none.
const RCLONE_OPTIONS: &[&str] = &["--config", "", "--retries", "1", "--checkers", "1", "-v"];

/// What rclone calls a server, for `wharf serve` over each protocol.
fn rclone_remotes(server: &Server) -> [(&'static str, String); 2] {
    let obscured = rclone_obscured("secret");
    let remote = |kind: &str, port: u16, more: &str| {
        format!(":{kind},host=127.0.0.1,port={port},user=alice,pass={obscured}{more}:")
    };
    [
        ("sftp", remote("sftp", server.ssh().port(), "")),
        ("ftp", remote("ftp", server.v4().port(), "")),
    ]
}

/// A password as rclone wants to be given it.
fn rclone_obscured(password: &str) -> String {
    let output = Command::new("rclone").args(["obscure", password]).output();
    let obscured = String::from_utf8(output.expect("starts").stdout).expect("text");
    obscured.trim().to_owned()
}

fn rclone_setting() -> Option<Setting> {
    if !has_program("rclone") {
        return None;
    }
    let setting = setting_with(&["--exec", "builtin"], &["--ssh", "127.0.0.1:0"]);
    for (seed, (name, length)) in (0..).zip(TREE) {
        let path = setting.scratch.join("tree").join(name);
        std::fs::create_dir_all(path.parent().expect("has one")).expect("made");
        std::fs::write(&path, noise(length, seed)).expect("written");
    }
    Some(setting)
}

impl Setting {
    /// As [`Setting::run`], with what it says about its work; nothing must have been tried twice.
    fn rclone(&self, arguments: &[&str]) -> String {
        self.run("rclone", &[arguments, RCLONE_OPTIONS].concat())
    }
}

#[test]
fn rclone_syncs_both_ways_and_checks_over_sftp_and_ftp() {
    let Some(setting) = rclone_setting() else {
        return;
    };
    for (kind, remote) in rclone_remotes(&setting.server) {
        let there = format!("{remote}{kind}");
        setting.rclone(&["sync", "tree", &there]);
        for (name, _) in TREE {
            let sent = setting.fetched(&format!("tree/{name}"));
            assert!(setting.stored(&format!("{kind}/{name}")) == sent, "{name}");
        }
        let back = format!("back-{kind}");
        setting.rclone(&["sync", &there, &back]);
        for (name, _) in TREE {
            let sent = setting.fetched(&format!("tree/{name}"));
            assert!(setting.fetched(&format!("{back}/{name}")) == sent, "{name}");
        }
        let checked = setting.rclone(&["check", "tree", &there, "--download"]);
        assert!(checked.contains("0 differences found"), "{checked}");
        // What has gone here goes there, and only what has changed is sent again.
        std::fs::remove_file(setting.scratch.join(&back).join("plain")).expect("there");
        let said = setting.rclone(&["sync", &back, &there]);
        assert!(said.contains("plain: Deleted"), "{said}");
        assert!(!said.contains("Copied"), "{said}");
        assert!(
            !setting
                .wharf
                .home("alice")
                .join(kind)
                .join("plain")
                .exists()
        );
    }
}

#[test]
fn rclone_compares_by_digests_over_sftp() {
    let Some(setting) = rclone_setting() else {
        return;
    };
    let [(_, remote), _] = rclone_remotes(&setting.server);
    let there = format!("{remote}tree");
    setting.rclone(&["sync", "--checksum", "tree", &there]);
    // rclone makes those of its own files itself.
    for kind in ["md5", "sha1"] {
        // It asks for all files at once: see RCLONE_OPTIONS.
        let (option, command) = (format!("--sftp-{kind}sum-command"), format!("{kind}sum"));
        let ours = setting.rclone(&["hashsum", kind, &there, &option, &command]);
        let theirs = setting.rclone(&["hashsum", kind, "tree"]);
        let sorted = |text: &str| {
            let lines = text.lines().filter(|line| !line.contains(" INFO "));
            let mut lines: Vec<String> = lines.map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&ours).len(), TREE.len(), "{ours}");
        assert_eq!(sorted(&ours), sorted(&theirs), "{kind}");
    }
    let checked = setting.rclone(&["check", "tree", &there]);
    assert!(checked.contains("0 differences found"), "{checked}");
    // Without a digest in common, rclone would say so and compare sizes.
    assert!(
        !checked.contains("hashes could not be checked"),
        "{checked}"
    );
    // One byte changed under the same size and time is found by its digest, and mended.
    let large = "below/deeper/large";
    let local = setting.scratch.join("tree").join(large);
    let modified = std::fs::metadata(&local).and_then(|local| local.modified());
    let mut content = std::fs::read(&local).expect("there");
    content[4_000_000] ^= 1;
    std::fs::write(&local, content).expect("written");
    let file = std::fs::File::options().write(true).open(&local);
    let modified = modified.expect("has one");
    file.and_then(|file| file.set_modified(modified))
        .expect("set");
    let missed = setting.rclone(&["sync", "tree", &there]);
    assert!(!missed.contains("Copied"), "{missed}");
    let check = [&["check", "tree", &there], RCLONE_OPTIONS].concat();
    let found = setting.start("rclone", &check);
    let said = String::from_utf8_lossy(&found.stderr);
    assert!(
        !found.status.success() && said.contains("1 differences found"),
        "{said}"
    );
    let mended = setting.rclone(&["sync", "--checksum", "tree", &there]);
    assert_eq!(mended.matches("Copied").count(), 1, "{mended}");
    assert!(setting.stored(&format!("tree/{large}")) == setting.fetched(&format!("tree/{large}")));
    let back = ["sync", "--checksum", &there, "back"];
    setting.rclone(&back);
    let again = setting.rclone(&back);
    assert!(!again.contains("Copied"), "{again}");
}
