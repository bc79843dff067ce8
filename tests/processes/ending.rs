//! What is left of a command once its client, its server or its supervisor is gone: nothing.

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, DuplexStream, Lines};
use wharf_server::process::{Ending, Exit, Invocation, Process, TerminalRequest};

use crate::fixture::{Fixture, Kernel, PATIENCE, Silence, client, limits, line, marked, until};

/// Starts what does all it can to stay: `mark` is among the arguments of each of its processes.
/// The number of its supervisor comes out first, and "ready" once all of it is there.
pub(crate) fn stayers(mark: &str) -> String {
    let stay = format!("exec sh -c 'trap \"\" HUP TERM INT; while :; do sleep 0.1; done' {mark}");
    let quoted = stay.replace('"', "\\\"");
    format!(
        "echo $PPID; trap '' HUP TERM INT
         ({stay}) &
         setsid sh -c \"{quoted}\" >/dev/null 2>&1 </dev/null &
         (setsid sh -c \"({quoted}) & exit\" &) >/dev/null 2>&1 </dev/null
         echo ready; {stay}"
    )
}

/// The least number of marked processes that the above has.
pub(crate) const STAYERS: usize = 4;

/// Reads until the command is ready; its supervisor.
async fn ready(lines: &mut Lines<BufReader<DuplexStream>>) -> Pid {
    let supervisor = lines.next_line().await.expect("reads").expect("a line");
    let supervisor: i32 = supervisor.trim().parse().expect("a number");
    let ready = lines.next_line().await.expect("reads").expect("a line");
    assert_eq!(ready.trim(), "ready");
    Pid::from_raw(supervisor).expect("a process")
}

/// Attends to a process while `interfering` does something to it, until it has ended.
async fn attend_while(
    process: Process,
    interfering: impl AsyncFnOnce(Pid, crate::fixture::Remote),
) -> Ending {
    let (stdout, seen) = tokio::io::duplex(1024);
    let (attended, remote) = client(Silence, stdout);
    let interfering = async {
        let mut lines = BufReader::new(seen).lines();
        let supervisor = ready(&mut lines).await;
        interfering(supervisor, remote).await;
        while let Ok(Some(_)) = lines.next_line().await {}
    };
    let both = async { tokio::join!(process.attend(attended), interfering).0 };
    tokio::time::timeout(PATIENCE, both)
        .await
        .expect("ends in time")
}

#[tokio::test]
async fn a_client_that_is_gone_leaves_no_process_whatever_they_have_done_to_stay() {
    for kernel in [Kernel::Whole, Kernel::WithoutNamespaces] {
        let Some(fixture) = Fixture::with(kernel, limits()).await else {
            return;
        };
        for terminal in [None, Some(TerminalRequest::default())] {
            let mark = format!(
                "gone-{kernel:?}-{}-{}",
                terminal.is_some(),
                std::process::id()
            );
            let invocation = Invocation {
                terminal,
                ..line(&stayers(&mark))
            };
            let process = fixture.start(invocation).await.expect("starts");
            let ending = attend_while(process, async |_, remote| {
                until("all are there", || marked(&mark).len() >= STAYERS).await;
                remote.closed.cancel();
            });
            assert_eq!(ending.await.exit, Exit::Signal("KILL"));
            assert_eq!(marked(&mark), [0; 0]);
        }
    }
}

#[tokio::test]
async fn what_a_command_leaves_in_the_background_ends_with_it() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let mark = format!("background-{}", std::process::id());
    let daemon =
        format!("(setsid sh -c 'sleep 1000; :' {mark} >/dev/null 2>&1 &) ; sleep 0.2; echo left");
    assert_eq!(fixture.output(&daemon).await, "left\n");
    assert_eq!(marked(&mark), [0; 0]);
    // One that holds the output does not keep the session.
    let daemon = format!("sh -c 'sleep 1000; :' {mark} & echo left");
    assert_eq!(fixture.output(&daemon).await, "left\n");
    assert_eq!(marked(&mark), [0; 0]);
}

#[tokio::test]
async fn a_dropped_process_ends() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let mark = format!("dropped-{}", std::process::id());
    let process = fixture.start(line(&stayers(&mark))).await.expect("starts");
    until("all are there", || marked(&mark).len() >= STAYERS).await;
    drop(process);
    until("none is left", || marked(&mark).is_empty()).await;
}

#[tokio::test]
async fn a_server_that_is_gone_leaves_no_process() {
    let Some(fixture) = Fixture::new().await else {
        return;
    };
    let mark = format!("server-{}", std::process::id());
    let process = fixture.start(line(&stayers(&mark))).await.expect("starts");
    until("all are there", || marked(&mark).len() >= STAYERS).await;
    // All that the server has of it, as when the server is killed.
    drop((process, fixture));
    until("none is left", || marked(&mark).is_empty()).await;
}

#[tokio::test]
async fn a_killed_supervisor_leaves_no_process_and_the_client_is_told() {
    for kernel in [Kernel::Whole, Kernel::WithoutNamespaces] {
        let Some(fixture) = Fixture::with(kernel, limits()).await else {
            return;
        };
        let mark = format!("supervisor-{kernel:?}-{}", std::process::id());
        let process = fixture.start(line(&stayers(&mark))).await.expect("starts");
        let ending = attend_while(process, async |supervisor, _remote| {
            until("all are there", || marked(&mark).len() >= STAYERS).await;
            kill_process(supervisor, Signal::KILL).expect("is there");
            until("none is left", || marked(&mark).is_empty()).await;
        });
        let ending = ending.await;
        assert_eq!(ending.exit, Exit::Signal("KILL"));
        assert!(ending.notice.expect("said").contains("supervisor"));
        // The next one is none the worse.
        assert_eq!(fixture.output("echo on").await, "on\n");
    }
}
