//! `wharf user` as an operator and a script use it.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own the directories that they make"
)]

use wharf_testkit::Wharf;

fn wharf() -> Wharf {
    Wharf::new(env!("CARGO_BIN_EXE_wharf"))
}

/// Runs a command that must succeed; its output.
fn said(wharf: &Wharf, arguments: &[&str], input: &str) -> String {
    let (success, output, errors) = wharf.run(arguments, input);
    assert!(success, "{arguments:?}: {errors}");
    output
}

/// Runs a command that must fail; the one line that it says.
fn refused(wharf: &Wharf, arguments: &[&str], input: &str) -> String {
    let (success, output, errors) = wharf.run(arguments, input);
    assert!(!success, "{arguments:?}: {output}");
    errors
}

#[test]
fn an_account_is_added_changed_and_removed() {
    let wharf = wharf();
    let add = [
        "user",
        "add",
        "alice",
        "--password-stdin",
        "--quota",
        "500MB",
        "--max-files",
        "7",
        "--permissions",
        "read,list",
        "--rule",
        "/in=all",
        "--expires",
        "2031-02-03",
        "--json",
    ];
    let shown: serde_json::Value =
        serde_json::from_str(&said(&wharf, &add, "secret\n")).expect("JSON");
    let home = wharf.home("alice");
    for (key, expected) in [
        ("account", serde_json::json!("alice")),
        ("bytes_quota", serde_json::json!(500_000_000)),
        ("files_quota", serde_json::json!(7)),
        ("permissions", serde_json::json!("read,list")),
        (
            "rules",
            serde_json::json!([{"path": "/in", "permissions": "all"}]),
        ),
        ("expires", serde_json::json!("2031-02-03")),
        ("disabled", serde_json::json!(false)),
        (
            "home",
            serde_json::json!(home.canonicalize().expect("is there")),
        ),
    ] {
        assert_eq!(shown.get(key), Some(&expected), "{key}");
    }
    let usage = said(&wharf, &["user", "usage", "alice", "--json"], "");
    assert_eq!(
        usage.trim(),
        r#"{"account":"alice","bytes_quota":500000000,"bytes_used":0,"files_quota":7,"files_used":0}"#
    );
    said(
        &wharf,
        &["user", "set", "alice", "--quota", "none", "--disabled"],
        "",
    );
    assert!(said(&wharf, &["user", "list"], "").contains("disabled"));
    let set = [
        "user",
        "set",
        "alice",
        "--enabled",
        "--rule",
        "/in=none",
        "--expires",
        "none",
    ];
    let text = said(&wharf, &set, "");
    for line in [
        "state:        active",
        "quota:        none",
        "  below /in: none",
        "expires:      never",
    ] {
        assert!(text.contains(line), "{line:?} is missing in {text}");
    }
    said(&wharf, &["user", "remove", "alice"], "");
    assert!(home.is_dir(), "the files stay");
    assert_eq!(said(&wharf, &["user", "list", "--json"], ""), "");
}

#[test]
fn usage_counts_the_disk_while_the_stored_number_is_unsure() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    std::fs::write(wharf.home("alice").join("by-hand"), b"12345").expect("written");
    std::fs::create_dir(wharf.home("alice").join("folder")).expect("made");
    assert_eq!(wharf.usage("alice"), (5, 2));
}

#[test]
fn a_changed_password_holds_from_the_next_login_on() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    let server = wharf.serve(&[]);
    let _session = server.login("alice");
    said(
        &wharf,
        &["user", "passwd", "alice", "--password-stdin"],
        "another\n",
    );
    let mut ftp = wharf_testkit::Ftp::connect(server.v4());
    assert_eq!(ftp.command("USER alice").0, 331);
    assert_eq!(ftp.command("PASS secret").0, 530);
    assert_eq!(ftp.command("USER alice").0, 331);
    assert_eq!(ftp.command("PASS another").0, 230);
}

#[test]
fn mistakes_are_one_line_that_says_what_to_do() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    for (arguments, input, expected) in [
        (
            &["user", "add", "alice", "--password-stdin"][..],
            "x\n",
            "change it with: wharf user set alice",
        ),
        (
            &["user", "add", "bob", "--password-stdin"],
            "\n",
            "the password is empty",
        ),
        (
            &[
                "user",
                "add",
                "bob",
                "--password-stdin",
                "--home",
                "relative",
            ],
            "x\n",
            "the path must be absolute",
        ),
        (
            &[
                "user",
                "add",
                "bob",
                "--password-stdin",
                "--home",
                "/etc/bob",
            ],
            "x\n",
            "home_roots = [\"/etc\"]",
        ),
        (
            &["user", "add", "bob", "--password-stdin", "--home", "/zz"],
            "x\n",
            "home_roots = [\"/zz\"]",
        ),
        (
            &["user", "add", "bob", "--password-stdin", "--home", "/"],
            "x\n",
            "the whole file system cannot be a home",
        ),
        (
            &["user", "show", "nobody"],
            "",
            "see them with: wharf user list",
        ),
        (
            &["user", "set", "alice", "--quota", "lots"],
            "",
            "such as 500MB or 10GiB",
        ),
        (
            &["user", "set", "alice", "--permissions", "fly"],
            "",
            "known are all, none, read",
        ),
        (
            &["user", "add", "../evil", "--password-stdin"],
            "x\n",
            "an account name is",
        ),
        (&["serve", "--ftp", "nowhere"], "", "expected ADDRESS:PORT"),
        (
            &["serve", "--config", "/nonexistent/wharf.toml"],
            "",
            "cannot read /nonexistent/wharf.toml",
        ),
    ] {
        let errors = refused(&wharf, arguments, input);
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
    // What was asked for is enough.
    let root = wharf.scratch().join("zz");
    let config = wharf.configure(&format!("home_roots = [{root:?}]\n"));
    let root = root.to_str().expect("text");
    wharf.add_user("carol", &["--home", root, "--config", &config]);
    let nested = wharf.home("alice").join("inside");
    let nested = nested.to_str().expect("text");
    let errors = refused(
        &wharf,
        &["user", "add", "bob", "--password-stdin", "--home", nested],
        "x\n",
    );
    assert!(errors.contains("lie inside each other"), "{errors}");
}

#[test]
fn the_data_directory_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    for path in [
        wharf.data(),
        wharf.data().join("homes"),
        wharf.home("alice"),
    ] {
        let mode = std::fs::metadata(&path)
            .expect("is there")
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(mode, 0o700, "{}", path.display());
    }
}

// Made with ssh-keygen, which shows this fingerprint of the first.
const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKo+B9p/HZQEmcoYKJ5rV6elqn0xPUYwxe2HjsA6QtkN alice at work";
const ED25519_FINGERPRINT: &str = "SHA256:a54pzR2z23pB1pgSGTkbr96nkTUwPsDg507b41WCOuA";
const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEUFr+w01JDY6gseacNFs6yQhSBTLRCNDOJevoGMp6zQEWjiu+/FMiOVVcUzQ224kit3fPbjN+MZ2nckjasaAgw= alice at work";

#[test]
fn keys_are_added_from_files_lines_and_standard_input_and_removed_by_either_name() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    let file = wharf.scratch().join("key.pub");
    std::fs::write(&file, format!("# work\n{ED25519}\n")).expect("written");
    let file = file.to_str().expect("text");
    let add = |source: &str, input: &str| {
        said(
            &wharf,
            &["user", "key", "add", "alice", source, "--json"],
            input,
        )
    };
    let shown: serde_json::Value = serde_json::from_str(&add(file, "")).expect("JSON");
    assert_eq!(
        shown,
        serde_json::json!({
            "account": "alice",
            "fingerprint": ED25519_FINGERPRINT,
            "algorithm": "ssh-ed25519",
            "comment": "alice at work",
            "options": "",
        })
    );
    add(&format!("from=\"10.0.0.0/8\",restrict {ED25519}"), "");
    add("-", &format!("{ECDSA} laptop\n"));
    let list = ["user", "key", "list", "alice"];
    let listed = said(&wharf, &list, "");
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let line =
        format!("{ED25519_FINGERPRINT}  ssh-ed25519  alice at work  from=\"10.0.0.0/8\",restrict");
    assert!(listed.lines().any(|shown| shown == line), "{listed}");
    for which in [ED25519_FINGERPRINT, "alice at work laptop"] {
        said(&wharf, &["user", "key", "remove", "alice", which], "");
    }
    assert_eq!(
        said(&wharf, &list, "").trim(),
        "alice has no keys; add one with: wharf user key add alice FILE"
    );
}

#[test]
fn keys_that_cannot_be_kept_as_they_are_change_nothing() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    let both = format!("{ED25519}\ncommand=\"ls\" {ECDSA}\n");
    for (arguments, input, said) in [
        (
            vec!["user", "key", "add", "alice", "-"],
            &*both,
            "line 2 of the keys: the option command is not kept here",
        ),
        (
            vec!["user", "key", "add", "alice", "-"],
            "",
            "there is no key in it",
        ),
        (
            vec!["user", "key", "add", "alice", "missing.pub"],
            "",
            "cannot read keys from missing.pub",
        ),
        (
            vec!["user", "key", "add", "bob", ED25519],
            "",
            "no account is named bob",
        ),
        (
            vec!["user", "key", "remove", "alice", "alice at work"],
            "",
            "alice has no key \"alice at work\"",
        ),
    ] {
        let errors = refused(&wharf, &arguments, input);
        assert!(errors.contains(said), "{errors}");
        assert_eq!(errors.trim().lines().count(), 1, "{errors}");
    }
    assert_eq!(
        said(&wharf, &["user", "key", "list", "alice", "--json"], ""),
        ""
    );
}

#[test]
fn a_command_whose_output_nobody_reads_ends_quietly() {
    let wharf = wharf();
    said(
        &wharf,
        &["user", "add", "alice", "--password-stdin"],
        "secret\n",
    );
    for arguments in [&["user", "show", "alice"][..], &["user", "list"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ended = wharf.command(arguments).stdout(writer).output();
        let ended = ended.expect("starts");
        assert_eq!(ended.status.code(), Some(141), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    }
}
