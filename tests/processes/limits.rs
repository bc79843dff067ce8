//! What a command may use: time, memory, processes, room.

use std::time::Duration;

use wharf_model::QuotaLimits;
use wharf_process::Limits;
use wharf_server::process::{Exit, ProcessError};

use crate::fixture::{Fixture, Kernel, attend, client, limits, line, marked};

/// How `command` ends under `limits`: exit and what is said about it.
async fn ending(fixture: &Fixture, command: &str) -> (Exit, String) {
    let process = fixture.start(line(command)).await.expect("starts");
    let (_, _, ending) = attend(process, client(&[][..], Vec::new()).0).await;
    (ending.exit, ending.notice.unwrap_or_default())
}

#[tokio::test]
async fn a_command_ends_at_the_wall_clock_limit() {
    let limits = Limits {
        wall_clock: Duration::from_secs(1),
        ..limits()
    };
    let Some(fixture) = Fixture::with(Kernel::Whole, limits).await else {
        return;
    };
    let (exit, notice) = ending(&fixture, "trap '' HUP TERM; while :; do sleep 1; done").await;
    assert_eq!(exit, Exit::Signal("KILL"));
    assert_eq!(notice, "ended: it has run for too long");
}

#[tokio::test]
async fn processor_time_counts_for_all_processes_together() {
    let limits = Limits {
        processor_time: Duration::from_secs(2),
        ..limits()
    };
    let Some(fixture) = Fixture::with(Kernel::Whole, limits).await else {
        return;
    };
    // None of them takes as much alone.
    let command = "trap '' HUP TERM; while :; do sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done'; done";
    let (_, notice) = ending(&fixture, command).await;
    assert_eq!(notice, "ended: it has used too much processor time");
    let (exit, _) = ending(&fixture, "while :; do :; done").await;
    assert!(
        matches!(exit, Exit::Signal(_) | Exit::Status(152)),
        "{exit:?}"
    );
}

#[tokio::test]
async fn memory_is_refused_beyond_the_limit_and_counts_for_all_processes_together() {
    let limits = Limits {
        memory_bytes: 64 << 20,
        ..limits()
    };
    let Some(fixture) = Fixture::with(Kernel::Whole, limits).await else {
        return;
    };
    // Keeps all that it reads, since it has no line.
    let ran = fixture
        .run("head -c 200M /dev/zero | tail -n 1")
        .await
        .expect("runs");
    assert!(ran.errors().contains("memory"), "{}", ran.errors());
    let hoard = "(head -c 15M /dev/zero; sleep 1000) | tail -n 1";
    let command = format!("for i in 1 2 3 4 5 6 7 8; do {hoard} & done; wait");
    let (_, notice) = ending(&fixture, &command).await;
    assert_eq!(notice, "ended: it uses too much memory");
}

#[tokio::test]
async fn a_fork_bomb_fills_its_own_limit_and_ends() {
    for kernel in [Kernel::Whole, Kernel::WithoutNamespaces] {
        let limits = Limits {
            processes: 30,
            wall_clock: Duration::from_secs(3),
            ..limits()
        };
        let Some(fixture) = Fixture::with(kernel, limits).await else {
            return;
        };
        let mark = format!("bomb-{kernel:?}-{}", std::process::id());
        let bomb = format!("exec perl -e 'while (1) {{ fork }}' {mark}");
        let mut most = 0;
        let process = fixture.start(line(&bomb)).await.expect("starts");
        let (attended, _remote) = client(&[][..], Vec::new());
        let attending = attend(process, attended);
        tokio::pin!(attending);
        let (_, _, ending) = loop {
            tokio::select! {
                ended = &mut attending => break ended,
                () = tokio::time::sleep(Duration::from_millis(20)) => most = most.max(marked(&mark).len()),
            }
        };
        // Without namespaces the kernel counts others of the same user too.
        let told = [
            "ended: it has run for too long",
            "ended: it has too many processes",
        ];
        assert!(told.contains(&&*ending.notice.expect("said")));
        // It did fork; how often within its time is the machine's business.
        assert!(most >= 2, "{most}");
        assert!(most <= 30 || !has_namespaces(&fixture).await, "{most}");
        assert_eq!(marked(&mark), [0; 0]);
    }
}

/// Whether commands have a user namespace of their own.
async fn has_namespaces(fixture: &Fixture) -> bool {
    let ours = std::fs::read_link("/proc/self/ns/user").expect("is there");
    let theirs = fixture.output("readlink /proc/self/ns/user").await;
    // An outer one that the test has made gives none to its commands.
    let limit = fixture
        .output("cat /proc/sys/user/max_user_namespaces")
        .await;
    ours.to_str() != Some(theirs.trim()) && limit.trim() != "0"
}

#[tokio::test]
async fn a_home_over_quota_is_counted_told_and_blocked_until_there_is_room() {
    let Some(mut fixture) = Fixture::new().await else {
        return;
    };
    fixture.account.quota = QuotaLimits {
        bytes: Some(100_000),
        files: Some(10),
    };
    let (exit, notice) = ending(&fixture, "head -c 60000 /dev/zero >a").await;
    assert_eq!((exit, notice.as_str()), (Exit::Status(0), ""));
    assert_eq!(fixture.home.ledger().usage().bytes, 60_000);
    // Each file is below the limit.
    let (exit, notice) = ending(&fixture, "head -c 60000 /dev/zero >b").await;
    assert_eq!(exit, Exit::Status(0));
    assert_eq!(
        notice,
        "over quota; nothing can be written until files are removed"
    );
    assert_eq!(fixture.home.ledger().usage().bytes, 120_000);

    let process = fixture
        .start(line("echo >>a; echo >c; rm b"))
        .await
        .expect("starts");
    let notice = process.notice.clone().expect("said");
    assert!(notice.contains("quota of bytes is used up"), "{notice}");
    let (_, stderr, ending_) = attend(process, client(&[][..], Vec::new()).0).await;
    let errors = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(
        errors.matches("Permission denied").count() + errors.matches("Read-only").count(),
        2,
        "{errors}"
    );
    assert_eq!((ending_.exit, ending_.notice), (Exit::Status(0), None));
    assert_eq!(fixture.home.ledger().usage().bytes, 60_000);
    let (_, notice) = ending(&fixture, "for i in 1 2 3 4 5 6 7 8 9 10; do : >n$i; done").await;
    assert!(notice.contains("over quota"), "{notice}");
    for (command, files) in [("rm n*", 1), ("echo again >n", 2)] {
        let (exit, notice) = ending(&fixture, command).await;
        assert_eq!((exit, notice.as_str()), (Exit::Status(0), ""));
        assert_eq!(fixture.home.ledger().usage().files, files);
    }
}

#[tokio::test]
async fn a_command_that_passes_the_quota_is_ended_while_it_runs() {
    let limits = Limits {
        count_interval: Duration::from_millis(10),
        ..limits()
    };
    let Some(mut fixture) = Fixture::with(Kernel::Whole, limits).await else {
        return;
    };
    fixture.account.quota.files = Some(5);
    let command = "i=0; while sleep 0.01; do i=$((i + 1)); : >n$i; done";
    let (exit, notice) = ending(&fixture, command).await;
    assert!(matches!(exit, Exit::Signal("HUP" | "TERM")), "{exit:?}");
    assert!(notice.starts_with("ended: over quota"), "{notice}");
    assert!(fixture.home.ledger().usage().files > 5);
}

#[tokio::test]
async fn an_account_has_so_many_commands_at_once_and_no_more() {
    let limits = Limits {
        commands: 2,
        ..limits()
    };
    let Some(mut fixture) = Fixture::with(Kernel::Whole, limits).await else {
        return;
    };
    let first = fixture.start(line("exec cat")).await.expect("starts");
    let _second = fixture.start(line("exec cat")).await.expect("starts");
    let refused = fixture.run("true").await.expect_err("refused");
    assert!(matches!(refused, ProcessError::TooMany), "{refused}");
    // What ends makes room, and so does what never began.
    attend(first, client(&[][..], Vec::new()).0).await;
    let home = std::mem::replace(&mut fixture.account.home, "/missing".into());
    let refused = fixture.run("true").await.expect_err("refused");
    assert!(matches!(refused, ProcessError::System(_)), "{refused}");
    fixture.account.home = home;
    assert_eq!(fixture.output("echo on").await, "on\n");
}

#[tokio::test]
async fn one_file_cannot_pass_the_quota() {
    let Some(mut fixture) = Fixture::new().await else {
        return;
    };
    fixture.account.quota.bytes = Some(100_000);
    let (exit, _) = ending(&fixture, "exec head -c 1000000 /dev/zero >a").await;
    // SIGXFSZ.
    assert_eq!(exit, Exit::Status(153));
    assert_eq!(fixture.home.ledger().usage().bytes, 100_000);
}
