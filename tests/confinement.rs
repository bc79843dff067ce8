//! What a running server can still do: as whom it runs, and what it reaches.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own the directories that they make"
)]

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use nix::unistd::{User, geteuid};
use wharf_testkit::{Ftp, Server, Wharf, noise};

fn wharf() -> Wharf {
    Wharf::new(env!("CARGO_BIN_EXE_wharf"))
}

/// Everything that a field of the status of each thread says, each once.
fn field(server: &Server, name: &str) -> Vec<String> {
    let mut values: Vec<String> = server
        .threads()
        .iter()
        .map(|status| {
            let line = status.lines().find(|line| line.starts_with(name));
            let value = line.expect("a field").split_once(':').expect("a value").1;
            value.split_whitespace().collect::<Vec<_>>().join(" ")
        })
        .collect();
    values.sort();
    values.dedup();
    values
}

/// The user without privileges that every system has; none, loudly, where the test cannot become it.
fn nobody() -> Option<User> {
    if geteuid().is_root() {
        return Some(User::from_name("nobody").expect("asked").expect("is there"));
    }
    eprintln!("SKIPPED: needs root");
    None
}

/// A data directory of `user`, in a place that they can reach.
fn data_of(wharf: &Wharf, user: &User) {
    let data = wharf.data();
    std::fs::create_dir(&data).expect("made");
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    chown(&data, Some(uid), Some(gid)).expect("root may");
    open_to_all(data.parent().expect("a parent"));
}

fn open_to_all(directory: &Path) {
    let everyone = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory, everyone).expect("ours");
}

/// A port that only root can open.
fn low_port() -> String {
    let free = (512..1024).find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    free.expect("a free port")
        .local_addr()
        .expect("bound")
        .to_string()
}

#[test]
fn every_thread_has_given_up_root_and_the_server_works_on() {
    let Some(nobody) = nobody() else { return };
    let wharf = wharf();
    data_of(&wharf, &nobody);
    wharf.add_user("alice", &[]);
    let config = wharf.configure("[ftp]\ngreeting = \"One.\"\n");
    open_to_all(&wharf.scratch());
    let server = wharf.serve(&[
        "--user",
        "nobody",
        "--ftps",
        &low_port(),
        "--config",
        &config,
    ]);
    assert!(server.ftps().port() < 1024);

    let content = noise(300_000, 3);
    let work = |user: &str| {
        let mut ftp = server.login(user);
        for command in ["MKD in", "MKD out"] {
            assert_eq!(ftp.command(command).0, 257);
        }
        assert_eq!(ftp.upload("STOR in/file", &content).0, 226);
        for (command, code) in [
            ("RNFR in/file", 350),
            ("RNTO out/file", 250),
            ("SITE CHMOD 640 out/file", 200),
            ("MFMT 20200101000000 out/file", 213),
            ("HASH out/file", 213),
            ("RMD in", 250),
        ] {
            let reply = ftp.command(command);
            assert_eq!(reply.0, code, "{command}: {}", reply.1);
        }
        let stored = wharf.home(user).join("out/file");
        assert_eq!(std::fs::read(&stored).expect("is there"), content);
        let owner = std::fs::metadata(&stored).expect("is there").uid();
        assert_eq!(owner, nobody.uid.as_raw());
        // Writes to the database through the journal that a root's command may have made.
        assert_eq!(ftp.command("DELE out/file").0, 250);
    };
    work("alice");
    // Root's command makes a home that the server can use.
    wharf.add_user("bob", &[]);
    work("bob");

    let four = |id: u32| vec![[id; 4].map(|id| id.to_string()).join(" ")];
    assert!(server.threads().len() > 2);
    assert_eq!(field(&server, "Uid"), four(nobody.uid.as_raw()));
    assert_eq!(field(&server, "Gid"), four(nobody.gid.as_raw()));
    assert_eq!(field(&server, "Groups"), [""]);
    assert_eq!(field(&server, "NoNewPrivs"), ["1"]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(&server, set), ["0".repeat(16)], "{set}");
    }

    wharf.configure("[ftp]\ngreeting = \"Two.\"\n");
    server.signal("HUP");
    server.await_log(&["configuration read again"]);
    let (greeting, _) = Ftp::greeted(server.v4());
    assert_eq!(greeting.1, "220 Two.\r\n");
}

#[test]
fn who_runs_as_root_is_told_and_no_thread_gets_more() {
    let wharf = wharf();
    let server = wharf.serve(&[]);
    assert_eq!(field(&server, "NoNewPrivs"), ["1"]);
    if geteuid().is_root() {
        server.await_log(&["runs as root", "--user"]);
    }
}

#[test]
fn a_data_directory_is_made_for_the_user_and_one_of_somebody_else_is_refused() {
    let Some(nobody) = nobody() else { return };
    let wharf = wharf();
    open_to_all(wharf.scratch().parent().expect("a parent"));
    let server = wharf.serve(&["--user", "nobody"]);
    drop(server);
    let owner = |path: &str| {
        std::fs::metadata(wharf.data().join(path))
            .expect("is there")
            .uid()
    };
    for path in ["", "wharf.db", "homes", "tls/private_key.pem"] {
        assert_eq!(owner(path), nobody.uid.as_raw(), "{path}");
    }

    chown(wharf.data().join("homes"), Some(0), Some(0)).expect("root may");
    let refused = |user: &str, expected: &str| {
        let arguments = ["serve", "--ftp", "127.0.0.1:0", "--user", user];
        let (success, _, errors) = wharf.run(&arguments, "");
        assert!(!success);
        assert!(
            errors.lines().last().expect("a line").contains(expected),
            "{errors}"
        );
    };
    refused("nobody", "give it to them with: chown -R nobody: ");
    refused("root", "choose a user without privileges");
    refused("no-such-user", "no such user");
}

#[test]
fn accounts_are_for_the_owner_alone_and_a_database_that_is_open_is_warned_of() {
    let wharf = wharf();
    let data = wharf.data();
    std::fs::create_dir(&data).expect("made");
    open_to_all(&data);
    wharf.add_user("alice", &[]);
    let server = wharf.serve(&[]);
    let path = |name: &str| data.join(name);
    for name in ["wharf.db", "wharf.db-wal", "wharf.db-shm", "lock"] {
        let mode = std::fs::metadata(path(name)).expect("is there").mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let warning = "everybody on this machine can read the accounts";
    // What comes later in the log.
    server.await_log(&["sandbox: "]);
    assert!(!server.log().iter().any(|line| line.contains(warning)));
    drop(server);
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(path("wharf.db"), open).expect("ours");
    wharf.serve(&[]).await_log(&[warning, "wharf.db"]);
    // Nobody else gets there.
    let closed = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&data, closed).expect("ours");
    let server = wharf.serve(&[]);
    server.await_log(&["sandbox: "]);
    assert!(!server.log().iter().any(|line| line.contains(warning)));
}

/// Whether the sandbox stands; says so loudly where it does not.
fn is_fenced(server: &Server) -> bool {
    let line = server.await_log(&["sandbox: "]);
    eprintln!("{line}");
    let fenced = line.contains("only these are reached");
    if !fenced {
        eprintln!("SKIPPED: the kernel has no Landlock that is new enough");
    }
    fenced
}

/// USER and PASS; the last reply.
fn try_login(server: &Server, user: &str) -> (Ftp, u16) {
    let mut ftp = Ftp::connect(server.v4());
    assert_eq!(ftp.command(&format!("USER {user}")).0, 331);
    let code = ftp.command("PASS secret").0;
    if code == 230 {
        assert_eq!(ftp.command("TYPE I").0, 200);
    }
    (ftp, code)
}

#[test]
fn a_home_planted_outside_is_out_of_reach_though_the_database_names_it() {
    let wharf = wharf();
    let outside = wharf.scratch().join("outside");
    std::fs::create_dir(&outside).expect("made");
    let own = |name: &str, text: String| {
        let folder = wharf.scratch().join(name);
        std::fs::create_dir(&folder).expect("made");
        let path = folder.join("wharf.toml");
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let none = own("none", String::new());
    let beside = wharf.scratch().join("none");
    let roots = own("roots", format!("home_roots = [{outside:?}, {beside:?}]\n"));
    let off = own("off", "sandbox = \"off\"\n".to_owned());
    // Somebody who can write to the database could do the same.
    let home = outside.join("mallory");
    let home = home.to_str().expect("text");
    let planted = ["--home", home, "--config", &roots];
    wharf.add_user("mallory", &planted);
    wharf.add_user("alice", &[]);
    let beside = beside.join("home");
    let beside = beside.to_str().expect("text");
    wharf.add_user("trudy", &["--home", beside, "--config", &roots]);
    std::fs::write(outside.join("mallory/file"), "outside").expect("written");

    // Nothing else keeps it out.
    let server = wharf.serve(&["--config", &off]);
    let (mut ftp, code) = try_login(&server, "mallory");
    assert_eq!(code, 230);
    assert_eq!(ftp.command("SIZE file").0, 213);
    drop(server);

    let server = wharf.serve(&["--config", &none]);
    if !is_fenced(&server) {
        return;
    }
    let (_, code) = try_login(&server, "mallory");
    assert_eq!(code, 421);
    server.await_log(&["Permission denied", "mallory"]);
    // Files may be read beside the configuration, and there is still no home there.
    let (_, code) = try_login(&server, "trudy");
    assert_eq!(code, 421);
    server.await_log(&[
        "homes are out of reach",
        &format!("home_roots = [\\\"{}", outside.display()),
    ]);
    server.login("alice");
    drop(server);

    // The line that the log has asked for.
    let server = wharf.serve(&["--config", &roots]);
    let (mut ftp, code) = try_login(&server, "mallory");
    assert_eq!((code, ftp.command("SIZE file").0), (230, 213));
}

#[test]
fn accounts_and_configurations_that_come_later_work_inside_the_fence() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    let config = wharf.configure("[ftp]\ngreeting = \"One.\"\n");
    let server = wharf.serve(&["--config", &config]);
    if !is_fenced(&server) {
        return;
    }
    wharf.add_user("bob", &[]);
    for user in ["alice", "bob"] {
        let mut ftp = server.login(user);
        assert_eq!(ftp.command("MKD in").0, 257);
        assert_eq!(ftp.upload("STOR file", &noise(100_000, 4)).0, 226);
        for (command, code) in [
            ("RNFR file", 350),
            ("RNTO in/file", 250),
            ("SITE CHMOD 600 in/file", 200),
            ("MFMT 20200101000000 in/file", 213),
            ("HASH in/file", 213),
            ("RNFR in", 350),
            ("RNTO out", 250),
        ] {
            let reply = ftp.command(command);
            assert_eq!(reply.0, code, "{command}: {}", reply.1);
        }
    }
    // As editors do: another file takes the name.
    let new = wharf.scratch().join("new.toml");
    std::fs::write(
        &new,
        "home_roots = [\"/srv\"]\n[ftp]\ngreeting = \"Two.\"\n",
    )
    .expect("written");
    std::fs::rename(&new, &config).expect("renamed");
    server.signal("HUP");
    server.await_log(&["configuration read again"]);
    server.await_log(&["hold from the next start on", "home_roots"]);
    assert_eq!(Ftp::greeted(server.v4()).0.1, "220 Two.\r\n");
}

#[test]
fn a_sandbox_that_is_required_is_there_or_nothing_starts() {
    let wharf = wharf();
    let missing = wharf.scratch().join("missing");
    let config = wharf.configure(&format!(
        "sandbox = \"required\"\nhome_roots = [{missing:?}]\n"
    ));
    let arguments = ["serve", "--ftp", "127.0.0.1:0", "--config", &config];
    let (success, _, errors) = wharf.run(&arguments, "");
    assert!(!success);
    let expected = "in home_roots is not there; make it or leave it out";
    assert!(errors.contains(expected), "{errors}");
    std::fs::create_dir(&missing).expect("made");
    let probe = wharf.serve(&[]);
    let fenced = is_fenced(&probe);
    drop(probe);
    if fenced {
        assert!(is_fenced(&wharf.serve(&["--config", &config])));
    } else {
        let (success, _, errors) = wharf.run(&arguments, "");
        assert!(!success);
        assert!(errors.contains("the kernel does not offer it"), "{errors}");
    }
}

/// A server that may run processes, as who does not need root; its data is theirs.
fn with_processes(wharf: &Wharf) -> Server {
    let config = wharf.configure("[processes]\nenabled = true\n");
    let mut options = vec!["--config", &*config];
    if let Some(nobody) = nobody() {
        data_of(wharf, &nobody);
        open_to_all(&wharf.scratch());
        options.extend(["--user", "nobody"]);
    }
    wharf.serve(&options)
}

#[test]
fn what_starts_processes_is_outside_of_the_fence_and_ends_with_the_server() {
    let wharf = wharf();
    let server = with_processes(&wharf);
    let said = server.await_log(&["processes: "]);
    if said.contains("processes: none") {
        eprintln!("SKIPPED: {said}");
        return;
    }
    assert!(said.contains("processes: confined by"), "{said}");
    is_fenced(&server);
    let [launcher] = *server.children() else {
        panic!("one launcher, and no other");
    };
    let status = std::fs::read_to_string(format!("/proc/{launcher}/status")).expect("runs");
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.expect("a line").trim().to_owned()
    };
    assert_eq!(line("NoNewPrivs:"), "1");
    assert_eq!(line("CapEff:"), "0".repeat(16));
    // A Ctrl-C for all in the terminal is the server's to judge.
    for signal in ["INT", "HUP", "TERM"] {
        let killed = std::process::Command::new("kill")
            .args(["-s", signal, &launcher.to_string()])
            .status();
        assert!(killed.expect("runs").success());
    }
    server.signal("HUP");
    server.await_log(&["configuration read again"]);
    assert_eq!(server.children(), [launcher]);
    server.kill();
    let gone = || !Path::new("/proc").join(launcher.to_string()).exists();
    let started = std::time::Instant::now();
    while !gone() {
        assert!(started.elapsed().as_secs() < 60, "the launcher is left");
        std::thread::yield_now();
    }
}

#[test]
fn a_server_that_is_root_runs_no_processes_and_says_why() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let wharf = wharf();
    let config = wharf.configure("[processes]\nenabled = true\n");
    let server = wharf.serve(&["--config", &config]);
    server.await_log(&["processes: none", "root", "--user"]);
    let server = wharf_without(server, &wharf);
    server.await_log(&["processes: off"]);
    assert_eq!(server.children(), [0; 0]);
}

/// The same server without its configuration, once the first one is gone.
fn wharf_without(server: Server, wharf: &Wharf) -> Server {
    server.kill();
    wharf.serve(&[])
}
