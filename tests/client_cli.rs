//! The client's commands, run as people and scripts run them, against a running server.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own the directories that they make"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use wharf_testkit::{Server, Wharf, has_program, noise};

struct Setting {
    wharf: Wharf,
    server: Server,
    scratch: PathBuf,
}

fn setting() -> Setting {
    setting_with(&[])
}

/// A server with the account `alice`.
fn setting_with(options: &[&str]) -> Setting {
    let wharf = Wharf::new(env!("CARGO_BIN_EXE_wharf"));
    wharf.add_user("alice", options);
    let server = wharf.serve(&[]);
    let scratch = wharf.scratch();
    Setting {
        wharf,
        server,
        scratch,
    }
}

impl Setting {
    fn url(&self, path: &str) -> String {
        format!("ftp://alice@{}/{path}", self.server.v4())
    }

    /// The client in the scratch folder, with the password in its environment.
    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = self.wharf.command(arguments);
        command
            .current_dir(&self.scratch)
            .env("WHARF_PASSWORD", "secret")
            .env("HOME", &self.scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.client(arguments).output().expect("starts")
    }

    /// Runs a command that must succeed; its standard output.
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command that must end with `code`; its standard error.
    fn fail(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        errors
    }

    /// The objects that a command prints with `--json`.
    fn objects(&self, arguments: &[&str]) -> Vec<Value> {
        objects(self.succeed(arguments).as_bytes())
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.scratch.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, content).expect("written");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.scratch.join(name)).expect(name)
    }

    fn stored(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.wharf.home("alice").join(name)).expect(name)
    }

    /// Starts a transfer with `--json` and a low rate, and ends it with
    /// `signal` once it has told progress.
    fn cut(&self, arguments: &[&str], signal: &str) -> Output {
        let slow = [arguments, &["--json", "--limit-rate", "4MiB"]].concat();
        let mut child = self.client(&slow).spawn().expect("starts");
        let mut told = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("\"progress\"") {
            line.clear();
            let length = told.read_line(&mut line).expect("reads");
            assert!(length > 0, "it ended before it could be cut");
        }
        let status = Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status()
            .expect("kill(1) runs");
        assert!(status.success());
        child.wait_with_output().expect("ends")
    }
}

fn objects(output: &[u8]) -> Vec<Value> {
    output
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("one object a line"))
        .collect()
}

fn of_event<'v>(objects: &'v [Value], event: &str) -> &'v Value {
    objects
        .iter()
        .find(|object| object["event"] == event)
        .expect(event)
}

#[test]
fn files_go_up_and_down_verified_and_keep_their_times() {
    let setting = setting();
    let content = noise(3_000_000, 1);
    setting.write("a b", &content);
    let moment = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let file = std::fs::File::options()
        .write(true)
        .open(setting.scratch.join("a b"))
        .expect("opens");
    file.set_modified(moment).expect("is set");

    let told = setting.succeed(&["put", "a b", &setting.url("")]);
    assert!(told.contains("verified by BLAKE3"), "{told}");
    assert_eq!(setting.stored("a b"), content);
    setting.succeed(&["get", &setting.url("a%20b"), "copy"]);
    assert_eq!(setting.read("copy"), content);
    let copy = std::fs::metadata(setting.scratch.join("copy")).expect("is there");
    assert_eq!(copy.modified().expect("a time"), moment);

    let told = setting.succeed(&["get", &setting.url("a%20b"), "copy"]);
    assert!(told.contains("unchanged"), "{told}");
    assert_eq!(setting.run(&["cat", &setting.url("a%20b")]).stdout, content);
}

#[test]
fn a_cut_download_resumes_with_its_begin_proven() {
    let setting = setting();
    let content = noise(16 << 20, 2);
    std::fs::write(setting.wharf.home("alice").join("big"), &content).expect("written");
    setting.cut(&["get", &setting.url("big")], "KILL");
    assert!(!setting.scratch.join("big").exists());

    let told = setting.objects(&["get", "--json", &setting.url("big")]);
    let file = of_event(&told, "transferred");
    assert!(file["resumed_at"].as_u64().expect("resumed") > 0, "{file}");
    assert_eq!(file["evidence"], "begin proven by BLAKE3");
    assert_eq!(file["verified"], "BLAKE3");
    assert!(file["bytes"].as_u64() < file["size"].as_u64(), "{file}");
    assert_eq!(setting.read("big"), content);
}

#[test]
fn a_cut_upload_resumes_with_its_begin_proven() {
    let setting = setting();
    let content = noise(16 << 20, 3);
    setting.write("big", &content);
    setting.cut(&["put", "big", &setting.url("")], "KILL");

    let told = setting.objects(&["put", "--json", "big", &setting.url("")]);
    let file = of_event(&told, "transferred");
    assert!(file["resumed_at"].as_u64().expect("resumed") > 0, "{file}");
    assert_eq!(file["evidence"], "begin proven by BLAKE3");
    assert_eq!(setting.stored("big"), content);
}

#[test]
fn an_interrupted_upload_says_so_and_resumes() {
    let setting = setting();
    let content = noise(16 << 20, 10);
    setting.write("big", &content);
    let cut = setting.cut(&["put", "big", &setting.url("")], "INT");
    assert_eq!(cut.status.code(), Some(130));
    let told = setting.objects(&["put", "--json", "big", &setting.url("")]);
    let resumed_at = of_event(&told, "transferred")["resumed_at"].as_u64();
    assert!(resumed_at.is_some_and(|offset| offset > 0), "{told:?}");
    assert_eq!(setting.stored("big"), content);
}

#[test]
fn a_begin_that_is_not_the_files_is_not_resumed() {
    let setting = setting();
    let home = setting.wharf.home("alice");
    std::fs::write(home.join("big"), noise(16 << 20, 4)).expect("written");
    setting.cut(&["get", &setting.url("big")], "KILL");
    let other = noise(16 << 20, 5);
    std::fs::write(home.join("big"), &other).expect("written");

    let told = setting.objects(&["get", "--json", &setting.url("big")]);
    assert_eq!(of_event(&told, "transferred")["resumed_at"], Value::Null);
    assert_eq!(setting.read("big"), other);
}

#[test]
fn trees_go_up_and_down_and_mirrors_remove_only_when_told() {
    let setting = setting();
    for index in 0..20 {
        setting.write(
            &format!("tree/d{}/f{index}", index % 3),
            &noise(1000, index),
        );
    }
    setting.succeed(&["put", "-r", "-j", "4", "tree", &setting.url("new/")]);
    setting.succeed(&["get", "-r", &setting.url("new/tree"), "back"]);
    for index in 0..20 {
        let name = format!("d{}/f{index}", index % 3);
        assert_eq!(
            setting.read(&format!("back/{name}")),
            noise(1000, index),
            "{name}"
        );
    }

    std::fs::remove_dir_all(setting.scratch.join("tree/d0")).expect("removed");
    let target = setting.url("new/tree");
    let told = setting.succeed(&["mirror", "-n", "--delete", "tree", &target]);
    assert!(told.contains("would remove remote d0/f0"), "{told}");
    assert_eq!(setting.stored("new/tree/d0/f0"), noise(1000, 0));
    setting.succeed(&["mirror", "tree", &target]);
    assert_eq!(setting.stored("new/tree/d0/f0"), noise(1000, 0));
    setting.succeed(&["mirror", "--delete", "tree", &target]);
    assert!(!setting.wharf.home("alice").join("new/tree/d0").exists());
    assert_eq!(setting.stored("new/tree/d1/f1"), noise(1000, 1));

    setting.succeed(&["mirror", "--delete", &target, "back"]);
    assert!(!setting.scratch.join("back/d0").exists());
}

#[test]
fn a_mirror_takes_what_its_patterns_say() {
    let setting = setting();
    for name in ["src/a.rs", "src/a.tmp", ".git/config", "b.rs"] {
        setting.write(&format!("work/{name}"), name.as_bytes());
    }
    let arguments = ["mirror", "-x", "*.tmp", "-x", ".git/", "work"];
    setting.succeed(&[&arguments[..], &[&setting.url("w")]].concat());
    let home = setting.wharf.home("alice");
    assert_eq!(setting.stored("w/src/a.rs"), b"src/a.rs");
    assert!(!home.join("w/src/a.tmp").exists());
    assert!(!home.join("w/.git").exists());
}

#[test]
fn wildcards_stand_for_what_matches_on_the_server() {
    let setting = setting();
    let home = setting.wharf.home("alice");
    for name in ["a.txt", "b.txt", "c.dat", "x*y.txt", ".hidden.txt"] {
        std::fs::write(home.join(name), name).expect("written");
    }
    let listed = setting.succeed(&["ls", "-1", &setting.url("?.txt")]);
    assert_eq!(listed, "/a.txt\n/b.txt\n");
    let listed = setting.succeed(&["ls", "-1", &setting.url("x%2Ay.txt")]);
    assert_eq!(listed, "/x*y.txt\n");
    setting.succeed(&["get", &setting.url("[ab].txt"), "into/"]);
    assert_eq!(setting.read("into/a.txt"), b"a.txt");
    setting.succeed(&["rm", &setting.url("*.txt")]);
    let listed = setting.succeed(&["ls", "-1", &setting.url("")]);
    assert_eq!(listed, ".hidden.txt\nc.dat\n");
}

#[test]
fn entries_are_made_renamed_hashed_and_removed() {
    let setting = setting();
    setting.write("f", b"abc");
    setting.succeed(&["mkdir", "-p", &setting.url("x/y/z")]);
    setting.succeed(&["put", "f", &setting.url("x/f")]);
    // FIPS 180-4, example of SHA-256.
    let told = setting.succeed(&["hash", "-a", "sha256", &setting.url("x/f")]);
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  /x/f";
    assert!(told.starts_with(expected), "{told}");
    setting.succeed(&["mv", &setting.url("x/f"), &setting.url("x/y")]);
    assert_eq!(setting.stored("x/y/f"), b"abc");
    setting.fail(&["rm", &setting.url("x")], 2);
    setting.succeed(&["rm", "-r", &setting.url("x")]);
    assert_eq!(setting.succeed(&["ls", &setting.url("")]), "");
    setting.succeed(&["rm", "-f", &setting.url("x")]);
}

#[test]
fn exit_codes_tell_what_kind_of_thing_went_wrong() {
    let setting = setting_with(&["--quota", "1MiB", "--rule", "/ro=read,list"]);
    setting.write("big", &noise(2 << 20, 6));
    setting.write("small", b"small");
    std::fs::create_dir(setting.wharf.home("alice").join("ro")).expect("made");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let closed_address = closed.local_addr().expect("an address");
    drop(closed);

    setting.fail(&["get", "http://host/x"], 2);
    let errors = setting.fail(&["get", &setting.url("missing")], 3);
    assert!(errors.contains("missing"), "{errors}");
    let mut wrong = setting.client(&["ls", &setting.url("")]);
    let wrong = wrong.env("WHARF_PASSWORD", "wrong").output().expect("runs");
    assert_eq!(wrong.status.code(), Some(4));
    setting.fail(&["put", "small", &setting.url("ro/small")], 5);
    setting.fail(&["put", "big", &setting.url("")], 6);
    let nowhere = format!("ftp://alice@{closed_address}/x");
    setting.fail(&["get", "--retries", "0", &nowhere], 8);
    setting.fail(&["put", "absent", &setting.url("")], 11);
    setting.succeed(&["put", "small", &setting.url("")]);
    let errors = setting.fail(&["get", &setting.url("small"), "no/such/folder"], 11);
    assert!(errors.contains("no/such"), "{errors}");
}

#[test]
fn one_failure_among_many_files_is_told_and_the_others_arrive() {
    let setting = setting();
    let home = setting.wharf.home("alice");
    for name in ["a", "b", "c"] {
        std::fs::write(home.join(name), name).expect("written");
    }
    std::fs::create_dir_all(setting.scratch.join("into/b")).expect("made");
    let output = setting.run(&["get", "--json", &setting.url("*"), "into"]);
    assert!(!output.status.success());
    let told = objects(&output.stdout);
    assert_eq!(of_event(&told, "failed")["name"], "b");
    assert_eq!(of_event(&told, "summary")["transferred"], 2);
    assert_eq!(of_event(&told, "summary")["failed"], 1);
    assert_eq!(setting.read("into/c"), b"c");
}

#[test]
fn two_copies_under_one_name_are_refused_before_anything_is_moved() {
    let setting = setting();
    setting.write("one/x", b"one");
    setting.write("two/x", b"two");
    let errors = setting.fail(&["put", "one/x", "two/x", &setting.url("d/")], 2);
    assert!(errors.contains("two copies"), "{errors}");
    setting.succeed(&["put", "-r", "one", "two", &setting.url("")]);
    let urls = [setting.url("one/x"), setting.url("two/x")];
    setting.fail(&["get", &urls[0], &urls[1], "into/"], 2);
    assert!(!setting.scratch.join("into").exists());
}

#[test]
fn no_error_repeats_the_password_of_a_url() {
    let setting = setting();
    let url = "ftp://alice:topsecret@localhost:99999/x";
    for arguments in [
        &["ls", url][..],
        &["get", url],
        &["mirror", url, "here"],
        &["put", "Cargo.toml", url],
        &["shell", url],
    ] {
        let errors = setting.fail(arguments, 2);
        assert!(!errors.contains("topsecret"), "{errors}");
        assert!(errors.contains("99999"), "{errors}");
    }
}

#[test]
fn what_fails_does_not_keep_the_rest_from_being_done() {
    let setting = setting();
    let home = setting.wharf.home("alice");
    std::fs::create_dir(home.join("d")).expect("made");
    std::fs::write(home.join("a"), "abc").expect("written");
    std::fs::write(home.join("e"), "abc").expect("written");
    let output = setting.run(&["hash", &setting.url("*")]);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(told.lines().count(), 2, "{told}");
    let (missing, a) = (setting.url("missing"), setting.url("a"));
    setting.fail(&["rm", &missing, &a], 3);
    assert!(!home.join("a").exists());
}

#[test]
fn a_mirror_of_nothing_leaves_no_target_and_a_dry_run_makes_none() {
    let setting = setting();
    setting.fail(&["mirror", &setting.url("missing"), "target"], 3);
    assert!(!setting.scratch.join("target").exists());
    std::fs::write(setting.wharf.home("alice").join("f"), "x").expect("written");
    let told = setting.succeed(&["mirror", "-n", &setting.url(""), "target"]);
    assert!(told.contains("would download f"), "{told}");
    assert!(!setting.scratch.join("target").exists());
}

#[test]
fn a_reader_that_has_enough_ends_cat_quietly() {
    let setting = setting();
    std::fs::write(setting.wharf.home("alice").join("big"), noise(8 << 20, 11)).expect("written");
    let mut child = setting
        .client(&["cat", &setting.url("big")])
        .spawn()
        .expect("starts");
    let mut some = [0; 10];
    let mut out = child.stdout.take().expect("piped");
    std::io::Read::read_exact(&mut out, &mut some).expect("reads");
    drop(out);
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_program_that_stops_listening_ends_the_transfer_quietly() {
    let setting = setting();
    std::fs::write(setting.wharf.home("alice").join("big"), noise(8 << 20, 11)).expect("written");
    let arguments = ["get", "--json", "--limit-rate", "1MiB", &setting.url("big")];
    let mut child = setting.client(&arguments).spawn().expect("starts");
    let mut told = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    told.read_line(&mut line).expect("reads");
    assert!(line.contains("\"progress\""), "{line}");
    drop(told);
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(!setting.scratch.join("big").exists());
    // What had come is taken up again.
    let objects = setting.objects(&["get", "--json", &setting.url("big")]);
    let offset = of_event(&objects, "transferred")["resumed_at"].as_u64();
    assert!(offset.is_some_and(|offset| offset < 8 << 20), "{offset:?}");
}

#[test]
fn standard_input_is_uploaded_as_it_comes_and_verified() {
    let setting = setting();
    let content = noise(3_000_000, 12);
    setting.write("piped", &content);
    let put = |options: &[&str], path: &str| {
        let url = setting.url(path);
        let file = std::fs::File::open(setting.scratch.join("piped")).expect("opens");
        let arguments = [&["put", "--json"], options, &["-", &url]].concat();
        let output = setting.client(&arguments).stdin(file).output();
        let output = output.expect("starts");
        (output.status.code(), objects(&output.stdout))
    };
    // Slow enough that progress is told.
    let (code, told) = put(&["--limit-rate", "2MiB"], "new");
    assert_eq!(code, Some(0), "{told:?}");
    assert!(of_event(&told, "progress")["size"].is_null(), "{told:?}");
    let file = of_event(&told, "transferred");
    assert_eq!(file["verified"], "BLAKE3", "{file}");
    assert_eq!(file["size"], 3_000_000, "{file}");
    assert!(setting.stored("new") == content);

    setting.write("piped", b"shorter");
    let (code, told) = put(&["--overwrite", "never"], "new");
    assert_eq!(code, Some(0), "{told:?}");
    of_event(&told, "skipped");
    assert!(setting.stored("new") == content);
    assert_eq!(put(&[], "new").0, Some(0));
    assert_eq!(setting.stored("new"), b"shorter");
}

#[test]
fn standard_input_needs_a_name_and_goes_alone() {
    let setting = setting();
    std::fs::create_dir(setting.wharf.home("alice").join("in")).expect("made");
    for path in ["", "new/", "in"] {
        let error = setting.fail(&["put", "-", &setting.url(path)], 2);
        assert!(error.contains("standard input has no name"), "{error}");
    }
    assert!(!setting.wharf.home("alice").join("new").exists());
    setting.write("file", b"");
    let error = setting.fail(&["put", "file", "-", &setting.url("in/")], 2);
    assert!(error.contains("goes alone"), "{error}");
    // A file of that name.
    setting.write("-", b"dash");
    setting.succeed(&["put", "./-", &setting.url("in/")]);
    assert_eq!(setting.stored("in/-"), b"dash");
}

#[test]
fn standard_input_that_is_interrupted_leaves_no_whole_file() {
    let setting = setting();
    let url = setting.url("cut");
    let arguments = ["put", "--json", "--limit-rate", "4MiB", "-", &url];
    let mut child = setting
        .client(&arguments)
        .stdin(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut input = child.stdin.take().expect("piped");
    // Without an end, until nobody reads it.
    let feed = std::thread::spawn(move || while input.write_all(&[7; 65_536]).is_ok() {});
    let mut told = BufReader::new(child.stdout.take().expect("piped")).lines();
    let progress = told.next().expect("a line").expect("text");
    assert!(progress.contains("\"progress\""), "{progress}");
    let status = Command::new("kill")
        .args(["-s", "INT", &child.id().to_string()])
        .status()
        .expect("kill(1) runs");
    assert!(status.success());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    feed.join().expect("no panic");
    let mark = || {
        let file = setting.wharf.home("alice").join("cut");
        rustix::fs::getxattr(file, "user.wharf.incomplete", &mut [0u8; 64][..])
    };
    // The server may hear of it a little later.
    while mark() == Err(rustix::io::Errno::NOENT) {
        std::thread::yield_now();
    }
    assert!(mark().is_ok(), "{:?}", mark());
}

#[test]
fn entries_that_are_left_out_are_counted() {
    let setting = setting();
    setting.write("tree/file", b"x");
    std::os::unix::fs::symlink("file", setting.scratch.join("tree/link")).expect("linked");
    let output = setting.run(&["put", "-r", "--json", "tree", &setting.url("")]);
    let told = objects(&output.stdout);
    assert_eq!(of_event(&told, "left_out")["name"], "link");
    assert_eq!(of_event(&told, "summary")["left_out"], 1);
}

#[test]
fn no_name_from_a_server_reaches_the_terminal_raw() {
    use std::os::unix::ffi::OsStrExt as _;
    let setting = setting();
    let name = std::ffi::OsStr::from_bytes(b"\x1b]0;owned\x07\xff");
    std::fs::write(setting.wharf.home("alice").join(name), b"x").expect("written");
    let listed = setting.succeed(&["ls", "-1", &setting.url("")]);
    assert_eq!(listed, "\\x1b]0;owned\\x07\\xff\n");
    let told = setting.objects(&["ls", "--json", &setting.url("")]);
    assert_eq!(told[0]["name_hex"], "1b5d303b6f776e656407ff");
    let told = setting.succeed(&["get", &setting.url("*"), "in/"]);
    assert!(told.starts_with("\\x1b]0;owned\\x07\\xff: "), "{told:?}");
    assert!(setting.scratch.join("in").join(name).exists());
}

#[test]
fn a_name_may_hold_every_byte() {
    use std::os::unix::ffi::OsStrExt as _;
    let setting = setting();
    for name in [&b"a\xffb"[..], b"\xff\xff", b"\xff\xf4\xff\xf2x", b"x\xff"] {
        let name = std::ffi::OsStr::from_bytes(name);
        std::fs::write(setting.scratch.join(name), b"x").expect("written");
        let mut put = setting.client(&["put"]);
        let put = put.arg(name).arg(setting.url("")).output().expect("starts");
        assert!(put.status.success(), "{put:?}");
        assert!(setting.wharf.home("alice").join(name).exists());
        setting.succeed(&["get", &setting.url("*"), "back/"]);
        assert!(setting.scratch.join("back").join(name).exists());
        setting.succeed(&["rm", &setting.url("*")]);
    }
}

#[test]
fn passwords_come_from_netrc_or_the_command_says_how_to_give_one() {
    let setting = setting();
    let mut command = setting.client(&["ls", &setting.url("")]);
    let output = command.env_remove("WHARF_PASSWORD").output().expect("runs");
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("WHARF_PASSWORD"), "{errors}");

    setting.write(".netrc", b"machine 127.0.0.1 login alice password secret\n");
    let mut command = setting.client(&["ls", &setting.url("")]);
    let output = command.env_remove("WHARF_PASSWORD").output().expect("runs");
    assert!(output.status.success());
}

#[test]
fn active_mode_works_where_it_is_asked_for() {
    let setting = setting();
    setting.write("f", &noise(100_000, 8));
    setting.succeed(&["put", "--active", "f", &setting.url("")]);
    assert_eq!(setting.stored("f"), noise(100_000, 8));
}

/// Feeds lines to `wharf shell`; exit code, standard output, standard error.
fn shell(setting: &Setting, path: &str, lines: &str) -> (Option<i32>, String, String) {
    let mut child = setting
        .client(&["shell", &setting.url(path)])
        .stdin(Stdio::piped())
        .spawn()
        .expect("starts");
    // One that ended at an error reads no more.
    let _ = child
        .stdin
        .take()
        .expect("piped")
        .write_all(lines.as_bytes());
    let output = child.wait_with_output().expect("ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn the_shell_does_what_its_lines_say() {
    let setting = setting();
    setting.write("one.txt", b"one");
    setting.write("two.txt", b"two");
    setting.write("sub/three", b"three");
    let lines = "\
        # a comment\n\
        mkdir 'a b'\n\
        cd a\\ b\n\
        pwd\n\
        mput *.txt\n\
        put -r sub\n\
        ls -1\n\
        find -t f\n\
        du\n\
        hash -a md5 one.txt\n\
        mv one.txt sub/renamed\n\
        cat sub/renamed\n\
        cd\n\
        lcd sub\n\
        get 'a b/two.txt'\n\
        mirror 'a b' mirrored\n\
        mirror -R mirrored /m\n\
        rm -r 'a b'\n\
        mkdir empty\n\
        rmdir empty\n\
        !echo here\n\
        help\n\
        quit\n\
        never reached\n";
    let (code, output, errors) = shell(&setting, "", lines);
    assert_eq!(code, Some(0), "{output}\n{errors}");
    for expected in [
        "/a b\n",
        "one.txt\nsub/\ntwo.txt\n",
        "/a b/sub/three\n",
        // RFC 1321 gives no MD5 of "one"; md5sum(1) does.
        "f97c5d29941bfb1b2fdab0874906ab82  /a b/one.txt",
        "here\n",
        "mget",
    ] {
        assert!(output.contains(expected), "{expected:?} in {output}");
    }
    assert_eq!(setting.read("sub/two.txt"), b"two");
    assert_eq!(setting.read("sub/mirrored/sub/renamed"), b"one");
    assert_eq!(setting.stored("m/sub/three"), b"three");
    assert!(!setting.wharf.home("alice").join("a b").exists());
}

#[test]
fn a_script_ends_at_its_first_failure_with_its_code() {
    let setting = setting();
    setting.write("precious", b"x");
    setting.succeed(&["put", "precious", &setting.url("")]);
    let (code, _, errors) = shell(&setting, "", "cd missing\nrm *\n");
    assert_eq!(code, Some(3));
    assert!(errors.contains("line 1: cd missing"), "{errors}");
    assert_eq!(setting.stored("precious"), b"x");
    let (code, _, errors) = shell(&setting, "", "frobnicate\n");
    assert_eq!(code, Some(2));
    assert!(errors.contains("frobnicate"), "{errors}");
    let (code, ..) = shell(&setting, "missing", "pwd\n");
    assert_eq!(code, Some(3));
    let output = setting.run(&["shell", "--json", &setting.url("missing")]);
    assert_eq!(
        of_event(&objects(&output.stdout), "error")["kind"],
        "not_found"
    );
}

#[test]
fn at_a_terminal_the_shell_completes_and_ctrl_c_stops_only_the_transfer() {
    if !has_program("python3") {
        return;
    }
    let setting = setting();
    let home = setting.wharf.home("alice");
    std::fs::create_dir(home.join("some folder")).expect("made");
    std::fs::write(home.join("some folder/large.bin"), noise(32 << 20, 9)).expect("written");
    let script = r#"
import os, pty, select, sys, time
def fail(what): sys.exit(what + ": " + repr(seen))
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen = b""
def expect(text):
    global seen
    deadline = time.monotonic() + 60
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        if not ready: fail("waited for " + repr(text))
        try: piece = os.read(terminal, 65536)
        except OSError: fail("ended before " + repr(text))
        if not piece: fail("ended before " + repr(text))
        seen += piece
    seen = seen[seen.index(text) + len(text):]
def send(text): os.write(terminal, text)
expect(b"/> ")
send(b"cd so\t")
expect(b"some\\ folder/")
send(b"\r")
expect(b"/some folder> ")
send(b"get --limit-rate 1MiB la\t")
expect(b"large.bin")
send(b"\r")
expect(b"MiB/s")       # the progress bar
send(b"\x03")
expect(b"interrupted")
expect(b"/some folder> ")
send(b"pwd\r")
expect(b"/some folder\r\n")
expect(b"> ")
send(b"typed but not wanted\x03")
expect(b"> ")
send(b"\x1b[A\x1b[A")  # the history: pwd, then get
expect(b"large.bin")
send(b"\x15\x04")
_, status = os.waitpid(pid, 0)
if os.waitstatus_to_exitcode(status) != 0: fail("exit " + str(status))
"#;
    let mut command = Command::new("python3");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_wharf"), "shell"])
        .arg(setting.url(""))
        .current_dir(&setting.scratch)
        .env("HOME", &setting.scratch)
        .env_remove("XDG_STATE_HOME")
        .env("WHARF_PASSWORD", "secret")
        .env("TERM", "xterm")
        .env("COLUMNS", "100");
    let output = command.output().expect("starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let history = std::fs::read_to_string(setting.scratch.join(".local/state/wharf/history"));
    assert!(history.expect("a history").contains("pwd"));
}

#[test]
fn the_demo_shows_everything_and_succeeds() {
    let output = Command::new(env!("CARGO_BIN_EXE_wharf"))
        .arg("demo")
        .output()
        .expect("starts");
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{errors}");
    for expected in ["begin proven by BLAKE3", "over quota: 552", "all refused"] {
        assert!(told.contains(expected), "{expected:?} in {told}");
    }
}

#[test]
fn the_demo_stays_up_when_it_is_told_to() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wharf"))
        .args(["demo", "--keep"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let mut told = BufReader::new(child.stdout.take().expect("piped")).lines();
    let url = loop {
        let line = told.next().expect("it goes on").expect("reads");
        if let Some(url) = line.trim().strip_prefix("curl ") {
            break url.to_owned();
        }
    };
    let listed = Command::new(env!("CARGO_BIN_EXE_wharf"))
        .args(["ls", "-1", &url])
        .output()
        .expect("starts");
    let status = Command::new("kill")
        .args(["-s", "INT", &child.id().to_string()])
        .status()
        .expect("kill(1) runs");
    assert!(status.success());
    assert!(child.wait().expect("ends").success());
    let listed = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.contains("file.bin\n"), "{listed}");
}
