//! The real binary over real sockets: what only the whole can show.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own the directories that they make"
)]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use wharf_testkit::{Ftp, Server, Wharf, count, noise};

fn wharf() -> Wharf {
    Wharf::new(env!("CARGO_BIN_EXE_wharf"))
}

fn served(options: &[&str]) -> (Wharf, Server) {
    let wharf = wharf();
    wharf.add_user("alice", options);
    let server = wharf.serve(&[]);
    (wharf, server)
}

#[test]
fn quota_is_exact_after_kill() {
    let (wharf, server) = served(&["--quota", "20MB"]);
    let mut sessions: Vec<(Ftp, TcpStream)> = (0..20)
        .map(|number| {
            let mut ftp = server.login("alice");
            let data = ftp.passive();
            assert_eq!(ftp.command(&format!("STOR file{number}")).0, 150);
            (ftp, data)
        })
        .collect();
    let piece = noise(300_000, 1);
    for (_, data) in &mut sessions {
        data.write_all(&piece).expect("writes");
    }
    // A finished upload among the unfinished ones.
    assert_eq!(
        server
            .login("alice")
            .upload("STOR whole", &noise(1_000_000, 2))
            .0,
        226
    );
    server.kill();
    drop(sessions);

    let server = wharf.serve(&[]);
    let mut ftp = server.login("alice");
    let on_disk = count(&wharf.home("alice"));
    assert_eq!(wharf.usage("alice"), on_disk);
    assert!(
        on_disk.0 >= 1_000_000 && on_disk.0 <= 20_000_000,
        "{on_disk:?}"
    );
    let left = ftp.command("AVBL").1;
    assert_eq!(left.trim(), format!("213 {}", 20_000_000 - on_disk.0));
    assert_eq!(ftp.download("RETR whole").0, noise(1_000_000, 2));
}

#[test]
fn parallel_uploads_together_stop_at_the_quota() {
    let (wharf, server) = served(&["--quota", "1MB"]);
    let codes: Vec<u16> = std::thread::scope(|scope| {
        let uploads: Vec<_> = (0..8)
            .map(|number| {
                let server = &server;
                scope.spawn(move || {
                    server
                        .login("alice")
                        .upload(&format!("STOR f{number}"), &noise(300_000, number))
                        .0
                })
            })
            .collect();
        uploads
            .into_iter()
            .map(|upload| upload.join().expect("no panic"))
            .collect()
    });
    let complete = codes.iter().filter(|code| **code == 226).count();
    assert!(complete <= 3, "{codes:?}");
    assert!(
        codes.iter().all(|code| matches!(code, 226 | 552)),
        "{codes:?}"
    );
    let complete = u64::try_from(complete).expect("small");
    assert_eq!(count(&wharf.home("alice")), (complete * 300_000, complete));
    assert_eq!(wharf.usage("alice"), (complete * 300_000, complete));
    // What the others took for a while is free again.
    let mut ftp = server.login("alice");
    for number in complete..3 {
        assert_eq!(
            ftp.upload(&format!("STOR g{number}"), &noise(300_000, number))
                .0,
            226
        );
    }
    assert_eq!(ftp.upload("STOR h", &noise(100_001, 9)).0, 552);
    assert_eq!(ftp.upload("STOR h", &noise(100_000, 9)).0, 226);
}

#[test]
fn cut_upload_resumes_and_matches() {
    let (wharf, server) = served(&[]);
    let content = noise(3_000_000, 3);
    let mut ftp = server.login("alice");
    let mut data = ftp.passive();
    assert_eq!(ftp.command("STOR big").0, 150);
    data.write_all(&content[..1_234_567]).expect("writes");
    await_progress(&mut ftp);
    // Aborted, as by a user; what arrived stays.
    ftp.send(b"\xff\xf4\xff\xf2ABOR\r\n");
    assert_eq!((ftp.reply().0, ftp.reply().0), (426, 226));
    drop(data);
    assert!(ftp.command("MLST big").1.contains("X.incomplete=1;"));
    let size: usize = ftp.command("SIZE big").1.trim()[4..]
        .parse()
        .expect("a size");
    assert!(size <= 1_234_567);
    assert_eq!(ftp.command(&format!("REST {size}")).0, 350);
    assert_eq!(ftp.upload("STOR big", &content[size..]).0, 226);
    assert!(!ftp.command("MLST big").1.contains("X.incomplete"));
    assert_eq!(
        std::fs::read(wharf.home("alice").join("big")).expect("is there"),
        content
    );
}

/// Waits until the server has taken something of the running upload.
fn await_progress(ftp: &mut Ftp) {
    while ftp.command("STAT").1.starts_with("213 Status: 0 ") {
        std::thread::yield_now();
    }
}

#[test]
fn a_cut_overwrite_leaves_the_old_file_and_can_be_resumed() {
    let (_wharf, server) = served(&[]);
    let mut ftp = server.login("alice");
    assert_eq!(ftp.upload("STOR f", b"the old content").0, 226);
    let content = noise(500_000, 4);
    let mut data = ftp.passive();
    assert_eq!(ftp.command("STOR f").0, 150);
    data.write_all(&content[..200_000]).expect("writes");
    await_progress(&mut ftp);
    ftp.send(b"ABOR\r\n");
    assert_eq!((ftp.reply().0, ftp.reply().0), (426, 226));
    assert_eq!(ftp.download("RETR f").0, b"the old content");
    let partial = ftp.command("SITE PARTIAL f").1;
    let size = partial
        .split(' ')
        .nth(1)
        .and_then(|size| size.parse::<usize>().ok());
    let size = size.expect("a size");
    assert_eq!(ftp.command(&format!("REST {size}")).0, 350);
    assert_eq!(ftp.upload("STOR f", &content[size..]).0, 226);
    assert_eq!(ftp.download("RETR f").0, content);
}

#[test]
fn stat_and_pipelined_commands_are_answered_in_order_during_a_transfer() {
    let (_wharf, server) = served(&[]);
    let mut ftp = server.login("alice");
    let mut data = ftp.passive();
    assert_eq!(ftp.command("STOR f").0, 150);
    data.write_all(b"x").expect("writes");
    let status = ftp.command("STAT");
    assert_eq!(status.0, 213);
    assert!(status.1.starts_with("213 Status: "), "{status:?}");
    ftp.send(b"PWD\r\nSYST\r\nSTAT\r\nSIZE f\r\nQUIT\r\n");
    data.shutdown(Shutdown::Write).expect("open");
    let codes: Vec<u16> = (0..6).map(|_| ftp.reply().0).collect();
    assert_eq!(codes, [226, 257, 215, 211, 213, 221]);
    assert!(ftp.is_closed());
}

#[test]
fn both_families_and_both_modes_carry_the_same_bytes() {
    let (_wharf, server) = served(&[]);
    let content = noise(2_000_000, 5);
    for address in [server.v4(), server.v6()] {
        let mut ftp = Ftp::connect(address);
        ftp.log_in("alice");
        assert_eq!(ftp.upload("STOR f", &content).0, 226);
        assert_eq!(ftp.download("RETR f").0, content);
        let (mut data, reply) = ftp.active("RETR f");
        assert_eq!(reply.0, 150);
        let mut received = Vec::new();
        data.read_to_end(&mut received).expect("reads");
        assert_eq!(received, content);
        assert_eq!(ftp.reply().0, 226);
    }
}

#[test]
fn text_mode_translates_line_ends_on_the_wire_only() {
    let (wharf, server) = served(&[]);
    let mut ftp = server.login("alice");
    assert_eq!(ftp.command("TYPE A").0, 200);
    assert_eq!(ftp.upload("STOR t", b"one\r\ntwo\r\n").0, 226);
    let stored = std::fs::read(wharf.home("alice").join("t")).expect("is there");
    assert_eq!(stored, b"one\ntwo\n");
    assert_eq!(ftp.download("RETR t").0, b"one\r\ntwo\r\n");
    assert_eq!(ftp.command("SIZE t").0, 550);
    assert_eq!(ftp.command("REST 3").0, 501);
    assert_eq!(ftp.command("TYPE I").0, 200);
    assert_eq!(ftp.command("SIZE t").1, "213 8\r\n");
}

#[test]
fn a_second_passive_command_closes_the_first_port() {
    let (_wharf, server) = served(&[]);
    let mut ftp = server.login("alice");
    let port = |text: String| -> u16 {
        text.split('|')
            .nth(3)
            .and_then(|port| port.parse().ok())
            .expect("a port")
    };
    for _ in 0..200 {
        assert_eq!(ftp.command("EPSV").0, 229);
    }
    let first = port(ftp.command("EPSV").1);
    let second = port(ftp.command("EPSV").1);
    assert!(TcpStream::connect(("127.0.0.1", second)).is_ok());
    while TcpStream::connect(("127.0.0.1", first)).is_ok() {
        std::thread::yield_now();
    }
}

#[test]
fn bad_input_has_the_codes_of_the_standard_and_the_session_goes_on() {
    let (_wharf, server) = served(&["--permissions", "read,list,write,mkdir"]);
    let mut stranger = Ftp::connect(server.v4());
    for (line, code) in [
        ("LIST", 530),
        ("RETR x", 530),
        ("PASS x", 503),
        ("FROB", 500),
        ("NOOP", 200),
        ("FEAT", 211),
    ] {
        assert_eq!(stranger.command(line).0, code, "{line}");
    }
    let mut ftp = server.login("alice");
    assert_eq!(ftp.upload("STOR f", b"x").0, 226);
    for (line, code) in [
        ("FROB", 500),
        ("RETR", 501),
        ("REST 99999999999999999999999", 501),
        ("REST -1", 501),
        ("TYPE X", 501),
        ("TYPE E", 504),
        ("MODE B", 504),
        ("STRU R", 504),
        ("RNTO x", 503),
        ("RETR f", 425),
        ("PORT 127,0,0,2,200,1", 504),
        ("PORT 127,0,0,1,0,80", 504),
        ("PORT 1,2,3", 501),
        ("EPRT |3|x|1|", 522),
        ("EPSV 2", 522),
        ("CWD /etc", 550),
        ("CWD ../../..", 250),
        ("SIZE ../../etc/passwd", 550),
        ("DELE f", 550),
        ("RNFR f", 550),
        ("MKD a\rb", 553),
        ("MKD ok", 257),
        ("SITE FROB", 504),
        ("OPTS FROB", 501),
        ("ACCT x", 202),
        ("ALLO 5", 200),
        ("NOOP", 200),
    ] {
        assert_eq!(ftp.command(line).0, code, "{line}");
    }
    let long = format!("RETR {}", "x".repeat(100_000));
    assert_eq!(ftp.command(&long).0, 500);
    assert_eq!(ftp.command("NOOP").0, 200);
    assert_eq!(ftp.upload("STOR f", b"y").0, 550);
}

#[test]
fn a_name_on_the_disk_cannot_forge_a_line_of_a_listing() {
    let (wharf, server) = served(&[]);
    let name = "a\r\n-rw-r--r-- 1 0 0 0 Jan 1 2000 forged";
    std::fs::write(wharf.home("alice").join(name), "x").expect("written");
    let mut ftp = server.login("alice");
    for command in ["LIST", "NLST", "MLSD"] {
        let (listing, _) = ftp.download(command);
        let lines = listing
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        assert_eq!(lines.count(), 1, "{command}");
    }
}

#[test]
fn wrong_passwords_close_the_session_and_disabled_accounts_stay_out() {
    let (wharf, server) = served(&[]);
    let incorrect = (
        530,
        "530 Login incorrect; if the account needs TLS, send AUTH TLS first.\r\n".to_owned(),
    );
    let mut ftp = Ftp::connect(server.v4());
    for user in ["alice", "nobody", "alice"] {
        assert_eq!(ftp.command(&format!("USER {user}")).0, 331);
        assert_eq!(ftp.command("PASS wrong"), incorrect);
    }
    assert!(ftp.is_closed());
    assert!(wharf.run(&["user", "set", "alice", "--disabled"], "").0);
    let mut ftp = Ftp::connect(server.v4());
    assert_eq!(ftp.command("USER alice").0, 331);
    assert_eq!(ftp.command("PASS secret"), incorrect);
}

#[test]
fn stopping_finishes_the_running_transfer_and_says_goodbye_to_the_others() {
    let (wharf, server) = served(&[]);
    let mut ftp = server.login("alice");
    let mut idle = server.login("alice");
    let mut data = ftp.passive();
    assert_eq!(ftp.command("STOR f").0, 150);
    data.write_all(b"before ").expect("writes");
    server.signal("TERM");
    assert_eq!(idle.reply().0, 421);
    data.write_all(b"and after").expect("writes");
    drop(data);
    assert_eq!((ftp.reply().0, ftp.reply().0), (226, 421));
    assert!(server.wait());
    let stored = std::fs::read(wharf.home("alice").join("f")).expect("is there");
    assert_eq!(stored, b"before and after");
    assert_eq!(wharf.usage("alice"), (16, 1));
}

#[test]
fn a_second_server_on_one_data_directory_is_refused() {
    let (wharf, _server) = served(&[]);
    let (success, _, errors) = wharf.run(&["serve", "--ftp", "127.0.0.1:0"], "");
    assert!(!success);
    assert!(errors.contains("another wharf serve is using"), "{errors}");
}

#[test]
fn a_thousand_sessions_are_held_while_others_transfer() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    let config = wharf.configure("[limits]\nbefore_login_per_address = 600\n");
    let server = wharf.serve(&["--config", &config]);
    let content = noise(20_000_000, 6);
    let mut first = server.login("alice");
    assert_eq!(first.command("NOOP").0, 200);
    let before = server.resident_bytes();
    // One account may have 500 sessions by default; those who have not logged in fill the rest.
    let mut sessions: Vec<Ftp> = (0..490).map(|_| server.login("alice")).collect();
    sessions.extend((0..500).map(|_| Ftp::connect(server.v4())));
    let memory = server.resident_bytes().saturating_sub(before) / 990;
    eprintln!("memory of an idle session: {memory} bytes");
    std::thread::scope(|scope| {
        let upload = scope.spawn(|| server.login("alice").upload("STOR up", &content).0);
        assert_eq!(first.upload("STOR down", &content).0, 226);
        assert_eq!(first.download("RETR down").0, content);
        assert_eq!(upload.join().expect("no panic"), 226);
    });
    for ftp in &mut sessions {
        assert_eq!(ftp.command("NOOP").0, 200);
    }
    // A bound that only a buffer for each session would pass.
    assert!(memory < 64 * 1024, "{memory}");
}

#[test]
fn an_abort_with_urgent_data_is_heard_during_a_download() {
    let (_wharf, server) = served(&[]);
    let mut ftp = server.login("alice");
    assert_eq!(ftp.upload("STOR big", &noise(8_000_000, 9)).0, 226);
    // RFC 959 §4.1.3: IP and Synch, whose data mark is the urgent byte. BSD's
    // ftp and lftp send IAC IP IAC as urgent data and the data mark after it.
    let ways: [[&[u8]; 3]; 2] = [
        [b"\xff\xf4", b"\xff\xf2", b"ABOR\r\n"],
        [b"", b"\xff\xf4\xff", b"\xf2ABOR\r\n"],
    ];
    for round in 0..20 {
        for [before, urgent, after] in ways {
            let data = ftp.passive();
            assert_eq!(ftp.command("RETR big").0, 150);
            ftp.send(before);
            ftp.send_urgent(urgent);
            ftp.send(after);
            // Nothing is read, so that the transfer cannot end by itself.
            assert_eq!(ftp.reply().0, 426, "round {round}");
            assert_eq!(ftp.reply().0, 226, "round {round}");
            drop(data);
        }
    }
    assert_eq!(ftp.command("NOOP").0, 200);
}

#[test]
fn an_abort_with_urgent_data_is_heard_long_after_the_last_command() {
    let (_wharf, server) = served(&[]);
    let mut ftp = server.login("alice");
    let mut other = server.login("alice");
    assert_eq!(ftp.upload("STOR big", &noise(8_000_000, 9)).0, 226);
    // The last one is what Python's ftplib sends: everything urgent, so that the mark is its end.
    let ways: [[&[u8]; 3]; 2] = [
        [b"\xff\xf4\xff", b"\xf2", b"ABOR\r\n"],
        [b"", b"ABOR\r\n", b""],
    ];
    for [before, urgent, after] in ways {
        let data = ftp.passive();
        assert_eq!(ftp.command("RETR big").0, 150);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(100) {
            assert_eq!(other.command("NOOP").0, 200);
        }
        ftp.send(before);
        ftp.send_urgent(urgent);
        ftp.send(after);
        // Nothing is read, so that the transfer cannot end by itself.
        // Unheard, it would end as well: when nothing has moved for a minute.
        let (code, text) = ftp.reply();
        assert_eq!(code, 426, "{urgent:?}");
        assert!(text.contains("at your request"), "{urgent:?}: {text}");
        assert_eq!(ftp.reply().0, 226, "{urgent:?}");
        drop(data);
    }
}

#[test]
fn the_perm_fact_follows_the_rules_of_each_directory() {
    let (wharf, server) = served(&[
        "--permissions",
        "read,list",
        "--rule",
        "/in=list,write,mkdir",
    ]);
    for folder in ["in", "out"] {
        std::fs::create_dir(wharf.home("alice").join(folder)).expect("made");
    }
    let mut ftp = server.login("alice");
    assert_eq!(ftp.command("OPTS MLST perm;").0, 200);
    let (listing, _) = ftp.download("MLSD");
    let listing = String::from_utf8(listing).expect("text");
    let mut lines: Vec<&str> = listing.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["perm=celm; in", "perm=el; out"]);
}

#[test]
fn an_upload_refused_midway_is_told_so_and_not_reset() {
    let (wharf, server) = served(&["--quota", "1MB"]);
    let mut ftp = server.login("alice");
    let mut data = ftp.passive();
    assert_eq!(ftp.command("STOR f").0, 150);
    // Far more than the quota, sent by one that looks for the reply only then.
    data.write_all(&noise(5_000_000, 7)).expect("no reset");
    data.shutdown(Shutdown::Write).expect("no reset");
    assert_eq!(data.read(&mut [0]).expect("no reset"), 0);
    assert_eq!(ftp.reply().0, 552);
    assert_eq!(wharf.usage("alice"), (0, 0));

    // What never ends is cut in the end.
    let mut data = ftp.passive();
    assert_eq!(ftp.command("STOR f").0, 150);
    let piece = noise(1_000_000, 8);
    let sent = (0..1000)
        .take_while(|_| data.write_all(&piece).is_ok())
        .count();
    assert!(sent < 1000, "{sent}");
    assert_eq!(ftp.reply().0, 552);

    // So is one that holds the connection and sends nothing more.
    let mut data = ftp.passive();
    assert_eq!(ftp.command("STOR f").0, 150);
    data.write_all(&noise(1_000_001, 9)).expect("writes");
    assert_eq!(ftp.reply().0, 552);
    drop(data);
}

#[test]
fn patterns_and_huge_offsets_cost_nothing() {
    let (_wharf, server) = served(&[]);
    let mut ftp = server.login("alice");
    for number in 0..50 {
        assert_eq!(
            ftp.upload(&format!("STOR {}", "a".repeat(number + 1)), b"x")
                .0,
            226
        );
    }
    // A star is a character like any other: the server matches no patterns.
    for pattern in [
        "*",
        "*a*a*a*a*a*a*a*a*a*a*b",
        &"*/".repeat(1000),
        "{a,b}{a,b}{a,b}",
        "~",
        "[a-",
    ] {
        for verb in ["NLST", "LIST"] {
            let (listing, reply) = ftp.download(&format!("{verb} {pattern}"));
            assert_eq!((listing, reply.0), (Vec::new(), 226), "{verb} {pattern}");
        }
    }
    for (offset, code) in [
        ("2", 554),
        ("9223372036854775807", 554),
        ("18446744073709551615", 554),
    ] {
        for verb in ["RETR", "STOR"] {
            let _data = ftp.passive();
            assert_eq!(ftp.command(&format!("REST {offset}")).0, 350);
            assert_eq!(
                ftp.command(&format!("{verb} a")).0,
                code,
                "{verb} at {offset}"
            );
        }
    }
    assert_eq!(ftp.download("RETR a").0, b"x");
}

#[test]
fn no_name_forges_a_line_of_the_log() {
    let (_wharf, server) = served(&[]);
    let evil = "x\u{1b}[2J\u{7f}\u{9b}0m\u{202e}";
    let mut ftp = Ftp::connect(server.v4());
    assert_eq!(ftp.command(&format!("CLNT {evil}")).0, 200);
    assert_eq!(ftp.command(&format!("USER {evil}")).0, 331);
    assert_eq!(ftp.command("PASS wrong").0, 530);
    ftp.log_in("alice");
    assert_eq!(ftp.upload(&format!("STOR {evil}"), b"x").0, 226);
    assert_eq!(ftp.command("QUIT").0, 221);
    server.await_log(&["client named itself"]);
    server.await_log(&["login refused"]);
    server.await_log(&["transfer complete"]);
    for line in server.log() {
        let event: serde_json::Value = serde_json::from_str(&line).expect("one event a line");
        let fields = event.as_object().expect("an object").values();
        for text in fields.filter_map(serde_json::Value::as_str) {
            assert!(
                !text.contains(|character: char| character.is_control() || character == '\u{202e}'),
                "{line}"
            );
        }
    }
}

/// A line of a client has 8 KiB at most.
#[test]
fn long_names_are_cut_in_the_log() {
    let (_wharf, server) = served(&[]);
    let long = "\u{1}".repeat(8000);
    let mut ftp = Ftp::connect(server.v4());
    assert_eq!(ftp.command(&format!("CLNT {long}")).0, 200);
    assert_eq!(ftp.command(&format!("USER {long}")).0, 331);
    assert_eq!(ftp.command("PASS wrong").0, 530);
    for (event, field) in [("client named itself", "client"), ("login refused", "user")] {
        let line = server.await_log(&[event]);
        let event: serde_json::Value = serde_json::from_str(&line).expect("one event a line");
        let expected = "\\x01".repeat(1024) + "\\…(6976 bytes cut)";
        assert_eq!(event[field], expected);
    }
}

#[test]
fn a_ban_outlives_the_server_and_ends_when_an_operator_lifts_it() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    let config = wharf.configure("[login]\nmax_failures = 4\ndelay = \"0s\"\n");
    let server = wharf.serve(&["--config", &config]);
    let mut inside = server.login("alice");
    let mut trying = Ftp::connect(server.v4());
    for number in 0..4 {
        if number == 2 {
            trying = Ftp::connect(server.v4());
        }
        assert_eq!(trying.command(&format!("USER {number}")).0, 331);
        assert_eq!(
            trying.command("PASS wrong").1,
            "530 Login incorrect; if the account needs TLS, send AUTH TLS first.\r\n"
        );
    }
    let banned = "421 Too many failed logins from your address; try again later.\r\n";
    // Who is connected already gets no further, even with the right password.
    assert_eq!(trying.command("USER alice").0, 331);
    assert_eq!(trying.command("PASS secret").1, banned);
    assert!(trying.is_closed());
    let line = server.await_log(&["login refused", "banned for failed logins"]);
    assert!(!line.contains("reason"), "{line}");
    let (greeting, mut refused) = Ftp::greeted(server.v4());
    assert_eq!(greeting.1, banned);
    assert!(refused.is_closed());
    // Sessions stay, and so do others.
    assert_eq!(inside.command("NOOP").0, 200);
    Ftp::connect(server.v6()).log_in("alice");

    let listed = || wharf.run(&["ban", "list", "--json"], "").1;
    while listed().is_empty() {
        std::thread::yield_now();
    }
    let ban: serde_json::Value = serde_json::from_str(&listed()).expect("JSON");
    assert_eq!(ban["address"], "127.0.0.1");
    assert_eq!(ban["times"], 1);
    server.kill();

    let server = wharf.serve(&["--config", &config]);
    assert_eq!(Ftp::greeted(server.v4()).0.1, banned);
    let (success, output, errors) = wharf.run(&["ban", "remove", "127.0.0.1", "--json"], "");
    assert!(success, "{errors}");
    assert_eq!(output.trim(), r#"{"address":"127.0.0.1","removed":true}"#);
    let (success, _, errors) = wharf.run(&["ban", "remove", "127.0.0.1"], "");
    assert!(!success);
    assert!(
        errors.contains("see who is with: wharf ban list"),
        "{errors}"
    );
    assert_eq!(wharf.run(&["ban", "list"], "").1, "no address is banned\n");
    let started = Instant::now();
    while Ftp::greeted(server.v4()).0.0 != 220 {
        assert!(started.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
    server.login("alice");
}

#[test]
fn wrong_passwords_are_answered_later_and_later_and_nobody_else_waits() {
    let (_wharf, server) = served(&[]);
    let started = Instant::now();
    let mut ftp = Ftp::connect(server.v4());
    for _ in 0..3 {
        assert_eq!(ftp.command("USER alice").0, 331);
        assert_eq!(ftp.command("PASS wrong").0, 530);
    }
    assert!(started.elapsed() >= Duration::from_secs(1));

    // Failures four to nine, the last of which waits 16 s for its answer.
    let mut waiting: Vec<Ftp> = (0..6).map(|_| Ftp::connect(server.v4())).collect();
    for ftp in &mut waiting {
        assert_eq!(ftp.command("USER alice").0, 331);
        ftp.send(b"PASS wrong\r\n");
    }
    while server
        .log()
        .iter()
        .filter(|line| line.contains("wrong password"))
        .count()
        < 9
    {
        std::thread::yield_now();
    }
    let started = Instant::now();
    server.login("alice");
    assert!(started.elapsed() < Duration::from_secs(8), "{started:?}");
    // Nor does a server that stops.
    server.signal("TERM");
    assert!(server.wait());
    assert!(started.elapsed() < Duration::from_secs(12), "{started:?}");
}

#[test]
fn networks_are_judged_before_the_login_and_read_again_at_a_hangup() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    let config = wharf.configure("[access]\ndeny = [\"127.0.0.0/8\"]\n");
    let server = wharf.serve(&["--config", &config]);
    let refused = "421 Connections from your address are not served.\r\n";
    let (greeting, mut ftp) = Ftp::greeted(server.v4());
    assert_eq!(greeting.1, refused);
    assert!(ftp.is_closed());
    Ftp::connect(server.v6()).log_in("alice");

    wharf.configure(
        "[access]\nallow = [\"127.0.0.1\", \"::1\"]\n[ftp]\nallow = [\"127.0.0.0/8\"]\n",
    );
    server.signal("HUP");
    server.await_log(&["configuration read again"]);
    server.login("alice");
    assert_eq!(Ftp::greeted(server.v6()).0.1, refused);

    wharf.configure("[access]\nallow = [\"127.0.0.1/33\"]\n");
    server.signal("HUP");
    server.await_log(&["the configuration stays as it was", "invalid network"]);
    server.login("alice");
}

#[test]
fn an_account_is_refused_from_other_networks_as_with_a_wrong_password() {
    let (wharf, server) = served(&["--allow-from", "192.0.2.0/24,2001:db8::/32"]);
    let log_in = || {
        let mut ftp = Ftp::connect(server.v4());
        assert_eq!(ftp.command("USER alice").0, 331);
        ftp.command("PASS secret")
    };
    assert_eq!(
        log_in(),
        (
            530,
            "530 Login incorrect; if the account needs TLS, send AUTH TLS first.\r\n".to_owned()
        )
    );
    server.await_log(&[
        "login refused",
        "the account or the key may not be used from this address",
    ]);
    let set = |networks| wharf.run(&["user", "set", "alice", "--allow-from", networks], "");
    assert!(set("127.0.0.1").1.contains("allow from:   127.0.0.1/32"));
    assert_eq!(log_in().0, 230);
    assert!(!set("").0);
    assert!(!set("10.0.0.0/33").0);
    assert!(set("10.0.0.0/8").0);
    assert_eq!(log_in().0, 530);
    assert!(set("none").0);
    assert_eq!(log_in().0, 230);
    let deny = |networks| wharf.run(&["user", "set", "alice", "--deny-from", networks], "");
    assert!(deny("127.0.0.0/8").1.contains("deny from:    127.0.0.0/8"));
    assert_eq!(log_in().0, 530);
    assert!(!deny("").0);
    assert!(deny("none").0);
    assert_eq!(log_in().0, 230);
}

#[test]
fn connections_that_do_not_log_in_have_a_cap_and_those_that_do_leave_it() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    let config = wharf.configure("[limits]\nbefore_login_per_address = 3\n");
    let server = wharf.serve(&["--config", &config]);
    let mut idle: Vec<Ftp> = (0..3).map(|_| Ftp::connect(server.v4())).collect();
    let (greeting, mut refused) = Ftp::greeted(server.v4());
    assert_eq!(
        greeting.1,
        "421 Too many connections from your address that have not logged in; try again later.\r\n"
    );
    assert!(refused.is_closed());
    idle[0].log_in("alice");
    let _third = Ftp::connect(server.v4());
    assert_eq!(Ftp::greeted(server.v4()).0.0, 421);
    assert_eq!(idle[1].command("NOOP").0, 200);
}

#[test]
fn no_more_files_of_a_home_are_open_than_the_configuration_allows() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    let config = wharf.configure("[limits]\nopen_files_per_home = 3\n");
    let server = wharf.serve(&["--config", &config]);
    let (mut first, mut second) = (server.login("alice"), server.login("alice"));
    let mut data = first.passive();
    assert_eq!(first.command("STOR f").0, 150);
    data.write_all(b"half").expect("sent");
    // An upload holds its directory, too.
    assert_eq!(second.upload("STOR g", b"x").0, 450);
    assert_eq!(second.download("LIST").1.0, 226);
    drop(data);
    assert_eq!(first.reply().0, 226);
    assert_eq!(second.upload("STOR g", b"x").0, 226);
}

#[test]
fn a_client_that_is_killed_while_it_replaces_a_file_leaves_the_old_one() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    let server = wharf.serve(&[]);
    assert_eq!(server.login("alice").upload("STOR f", b"whole").0, 226);
    for round in 0..20 {
        let mut killed = server.login("alice");
        let mut data = killed.passive();
        assert_eq!(killed.command("STOR f").0, 150);
        data.write_all(b"half").expect("sent");
        await_progress(&mut killed);
        // As the system closes what a process had.
        drop(killed);
        drop(data);
        let mut other = server.login("alice");
        while other.download("RETR f").0 == b"whole" && other.command("SITE PARTIAL f").0 != 213 {}
        assert_eq!(other.download("RETR f").0, b"whole", "round {round}");
    }
}

#[test]
fn five_hundred_idle_strangers_do_not_shut_out_a_user() {
    let wharf = wharf();
    wharf.add_user("alice", &[]);
    let config = wharf.configure("[limits]\nconnections = 100\nbefore_login_per_address = 1000\n");
    let server = wharf.serve(&["--config", &config]);
    let mut early = server.login("alice");
    let mut strangers: Vec<Ftp> = (0..500).map(|_| Ftp::connect(server.v4())).collect();
    let mut late = server.login("alice");
    assert_eq!(late.upload("STOR f", b"x").0, 226);
    assert_eq!(early.command("NOOP").0, 200);
    assert!(strangers[0].is_closed());
    assert_eq!(strangers[499].command("NOOP").0, 200);
}
