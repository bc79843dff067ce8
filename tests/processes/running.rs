//! What a command reads, writes, knows and ends with.

use std::process::Command;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use wharf_accounts::ExecPolicy;
use wharf_model::PermissionRules;
use wharf_process::Processes;
use wharf_server::process::{
    Exit, Invocation, MAX_COMMAND_BYTES, ProcessError, ProcessRunner as _, TerminalRequest,
    TerminalSize,
};
use wharf_testkit::noise;

use crate::fixture::{Fixture, Kernel, Silence, attend, client, launcher, limits, line, places};

#[tokio::test]
async fn outputs_stay_apart_and_the_status_is_told() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let ran = fixture
        .run("echo out; echo err >&2; exit 3")
        .await
        .expect("runs");
    assert_eq!(
        (ran.text().as_str(), ran.errors().as_str()),
        ("out\n", "err\n")
    );
    assert_eq!(ran.exit, Exit::Status(3));
    // Bytes that are no text, in a command that begins like an option.
    let invocation = Invocation {
        command: Some(b"-x 2>/dev/null; printf '\xff'".to_vec()),
        ..Invocation::default()
    };
    let process = fixture.start(invocation).await.expect("starts");
    let (stdout, _, _) = attend(process, client(&[][..], Vec::new()).0).await;
    assert_eq!(stdout, b"\xff");
}

#[tokio::test]
async fn a_signal_that_ends_a_command_is_told_and_one_from_the_client_arrives() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let ran = fixture.run("kill -TERM $$").await.expect("runs");
    assert_eq!(ran.exit, Exit::Signal("TERM"));
    let waits = "trap 'echo caught; exit 7' USR1; echo ready; while :; do sleep 0.1; done";
    let process = fixture.start(line(waits)).await.expect("starts");
    let (stdout, seen) = tokio::io::duplex(1024);
    let (attended, remote) = client(Silence, stdout);
    let talking = async {
        let mut lines = BufReader::new(seen).lines();
        assert_eq!(
            lines.next_line().await.expect("reads").as_deref(),
            Some("ready")
        );
        // Not one, and passed over.
        remote
            .signals
            .send("NONSENSE".into())
            .await
            .expect("attended");
        remote.signals.send("USR1".into()).await.expect("attended");
        assert_eq!(
            lines.next_line().await.expect("reads").as_deref(),
            Some("caught")
        );
    };
    let (ending, ()) = tokio::join!(process.attend(attended), talking);
    assert_eq!(ending.exit, Exit::Status(7));
}

#[tokio::test]
async fn input_passes_whole_and_its_end_is_seen() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let content = noise(20_000_000, 5);
    let ran = fixture
        .run_with("cat; echo end >&2", &*content)
        .await
        .expect("runs");
    assert!(
        ran.stdout == content,
        "{} bytes came back",
        ran.stdout.len()
    );
    assert_eq!(ran.errors(), "end\n");
    // One that does not read it ends all the same.
    let ran = fixture
        .run_with("exec <&-; echo deaf", &*content)
        .await
        .expect("runs");
    assert_eq!(ran.text(), "deaf\n");
}

#[test]
fn five_gigabytes_pass_in_constant_memory() {
    // In a process of its own: the other tests take memory of this one.
    let program = std::env::current_exe().expect("runs");
    let alone = Command::new(program)
        .args(["running::five_gigabytes_pass", "--exact", "--ignored"])
        .output()
        .expect("starts");
    let told = String::from_utf8_lossy(&alone.stdout);
    assert!(told.contains("1 passed"), "{told}");
}

/// `yes | head -c 5G`, and the most that the supervisor and this process held meanwhile.
#[tokio::test]
#[ignore = "measures its process, in which no other test may run"]
async fn five_gigabytes_pass() {
    const ALL: u64 = 5 << 30;
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    // The supervisor is the parent of the shell.
    let command = format!("echo $PPID; yes | head -c {ALL}");
    let process = fixture.start(line(&command)).await.expect("starts");
    let (stdout, seen) = tokio::io::duplex(64 * 1024);
    let (attended, _remote) = client(&[][..], stdout);
    let counting = async {
        let mut seen = BufReader::new(seen);
        let mut first = String::new();
        seen.read_line(&mut first).await.expect("reads");
        let supervisor = first.trim();
        let (mut count, mut piece) = (0_u64, vec![0; 1 << 20]);
        let (mut look, mut most) = (0, 0);
        let before = resident_bytes("self");
        loop {
            let length = seen.read(&mut piece).await.expect("reads");
            if length == 0 {
                return (count, before, most, supervisor.to_owned());
            }
            count += u64::try_from(length).expect("a length");
            if count >= look {
                look += 256 << 20;
                let growth = resident_bytes("self").saturating_sub(before);
                most = most.max(growth).max(resident_bytes(supervisor));
            }
        }
    };
    let (ending, (count, _, most, _)) = tokio::join!(process.attend(attended), counting);
    assert_eq!((ending.exit, count), (Exit::Status(0), ALL));
    assert!(most > 0 && most < 64 << 20, "{most} bytes");
}

fn resident_bytes(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

#[tokio::test]
async fn a_terminal_has_a_size_that_changes_and_knows_its_name() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo $TERM; tty | cut -c1-9; stty size; \
                  trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.1; done";
    let size = |columns, rows| TerminalSize {
        columns,
        rows,
        ..TerminalSize::default()
    };
    let invocation = Invocation {
        terminal: Some(TerminalRequest {
            kind: "xterm-256color".to_owned(),
            size: size(80, 24),
            modes: Vec::new(),
        }),
        ..line(script)
    };
    let process = fixture.start(invocation).await.expect("starts");
    assert!(process.stderr.is_none());
    let (stdout, seen) = tokio::io::duplex(1024);
    let (attended, remote) = client(Silence, stdout);
    let talking = async {
        let mut lines = BufReader::new(seen).lines();
        let mut next = async || lines.next_line().await.expect("reads").expect("a line");
        for expected in ["xterm-256color", "/dev/pts/", "24 80", "ready"] {
            assert_eq!(next().await, expected);
        }
        remote.size.send(size(132, 43)).expect("attended");
        assert_eq!(next().await, "43 132");
    };
    let (ending, ()) = tokio::join!(process.attend(attended), talking);
    assert_eq!(ending.exit, Exit::Status(5));
}

#[tokio::test]
async fn a_login_shell_in_a_terminal_takes_lines_and_an_interrupt() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let invocation = Invocation {
        terminal: Some(TerminalRequest::default()),
        ..Invocation::default()
    };
    let process = fixture.start(invocation).await.expect("starts");
    let (stdout, mut seen) = tokio::io::duplex(64 * 1024);
    let (mut keys, stdin) = tokio::io::duplex(1024);
    let (attended, _remote) = client(stdin, stdout);
    let typing = async {
        let mut shown = String::new();
        let mut expect = async |text: &str| {
            while !shown.contains(text) {
                let mut piece = [0; 1024];
                let length = seen.read(&mut piece).await.expect("reads");
                assert!(length > 0, "{shown}");
                shown.push_str(&String::from_utf8_lossy(&piece[..length]));
            }
            let end = shown.find(text).map_or(0, |start| start + text.len());
            shown.drain(..end);
        };
        // What is typed is echoed, so that it must not be what is looked for.
        keys.write_all(b"echo $0; sh -c 'echo $((20 + 3)); exec sleep 1000'\n")
            .await
            .expect("takes");
        expect("-sh\r\n").await;
        expect("23").await;
        // ^C, and then ^D for the end.
        keys.write_all(b"\x03").await.expect("takes");
        keys.write_all(b"echo $((20 + 4))\n").await.expect("takes");
        expect("24").await;
        keys.write_all(b"\x04").await.expect("takes");
        while seen.read(&mut [0; 1024]).await.expect("reads") > 0 {}
    };
    let (ending, ()) = tokio::join!(process.attend(attended), typing);
    assert_eq!(ending.exit, Exit::Status(0));
}

#[tokio::test]
async fn the_environment_is_the_accounts_and_holds_nothing_of_the_servers() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let invocation = Invocation {
        environment: vec![set("LANG", "de_DE.UTF-8"), set("LD_PRELOAD", "/x.so")],
        ..line("pwd; umask; env | grep -v ^TMPDIR= | sort")
    };
    let process = fixture.start(invocation).await.expect("starts");
    let (stdout, _, _) = attend(process, client(&[][..], Vec::new()).0).await;
    let home = fixture.home_path().display();
    let expected = format!(
        "{home}\n0022\nHOME={home}\nLANG=de_DE.UTF-8\nLOGNAME=alice\n\
         PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games\n\
         PWD={home}\nSHELL=/bin/sh\nUSER=alice\n"
    );
    assert_eq!(String::from_utf8_lossy(&stdout), expected);
    // What ls itself has open of the folder that it lists is one more.
    assert_eq!(fixture.output("ls /proc/self/fd").await, "0\n1\n2\n3\n");
    let temporary = "echo kept >$TMPDIR/x && cat $TMPDIR/x; ls -A | wc -l";
    assert_eq!(fixture.output(temporary).await, "kept\n1\n");
    assert_eq!(
        fixture.output("ls -A").await.lines().count(),
        1,
        "gone with its command"
    );
}

#[tokio::test]
async fn who_may_run_nothing_is_told_why() {
    let Some(mut fixture) = Fixture::new().await else {
        return;
    };
    for exec in [ExecPolicy::None, ExecPolicy::Builtin] {
        fixture.account.exec = exec;
        let refused = fixture.run("true").await.expect_err("refused");
        assert!(matches!(refused, ProcessError::NotAllowed), "{refused}");
    }
    fixture.account.exec = ExecPolicy::Shell;
    for command in ["x".repeat(MAX_COMMAND_BYTES + 1), "a\0b".to_owned()] {
        let refused = fixture.run(&command).await.expect_err("refused");
        assert!(matches!(refused, ProcessError::Command), "{refused}");
    }
    let longest = format!(": {}", "x".repeat(MAX_COMMAND_BYTES - 2));
    assert_eq!(fixture.output(&longest).await, "");
    let rules = std::mem::replace(&mut fixture.account.permissions, read_only());
    let refused = fixture.run("true").await.expect_err("refused");
    assert!(
        matches!(refused, ProcessError::LimitedPermissions),
        "{refused}"
    );
    fixture.account.permissions = rules;

    let off = Processes::off(limits());
    let refused = off
        .start(&fixture.account, &fixture.home, line("true"))
        .await;
    assert!(matches!(refused.err(), Some(ProcessError::Off)));
    for home in [fixture.data(), "/".into(), "/usr/share".into()] {
        fixture.account.home = home;
        let refused = fixture.run("true").await.expect_err("refused");
        assert!(matches!(refused, ProcessError::Misplaced), "{refused}");
    }
}

#[tokio::test]
async fn a_server_that_is_root_runs_nothing_and_says_what_to_do() {
    if crate::fixture::user().is_none() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let executable = std::path::Path::new(env!("CARGO_BIN_EXE_wharf"));
    let as_root = wharf_process::launcher(executable);
    let processes = Processes::prepare(as_root, limits(), places(&fixture.data()));
    let refused = processes
        .start(&fixture.account, &fixture.home, line("true"))
        .await;
    let text = refused.err().expect("refused").to_string();
    assert!(text.contains("root") && text.contains("--user"), "{text}");
}

fn read_only() -> PermissionRules {
    PermissionRules::new("read".parse().expect("known"), Vec::new())
}

#[tokio::test]
async fn data_among_what_commands_read_stops_them_all() {
    let processes = Processes::prepare(
        launcher(Kernel::Whole),
        limits(),
        places(std::path::Path::new("/usr/share")),
    );
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let refused = processes
        .start(&fixture.account, &fixture.home, line("true"))
        .await;
    let text = refused.err().expect("refused").to_string();
    assert!(text.contains("/usr/share lies in /usr"), "{text}");
}
