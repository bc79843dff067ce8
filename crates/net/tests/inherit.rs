//! Sockets passed as a service manager passes them: Python binds them, puts
//! them where sd_listen_fds(3) says, and becomes this test's program.

use std::process::{Command, Output};

use wharf_net::{Endpoint, EndpointOptions, inherited};

/// Moves sockets to descriptor 3 and up, sets the environment, and executes the rest of its arguments.
const MANAGER: &str = r#"
import os, socket, sys
names, pid, program = sys.argv[1], sys.argv[2], sys.argv[3:]
made = []
for name in names.split(':'):
    if name == 'file':
        made.append(os.open('/dev/null', os.O_RDONLY))
        continue
    family = socket.AF_UNIX if name.startswith('unix') else socket.AF_INET
    kind = socket.SOCK_DGRAM if name in ('udp', 'unixgram') else socket.SOCK_STREAM
    s = socket.socket(family, kind)
    if name == 'connected':
        pass
    elif family == socket.AF_UNIX:
        s.bind('\0wharf-net-inherit-%d-%s' % (os.getpid(), name))
    else:
        s.bind(('127.0.0.1', 0))
    if kind == socket.SOCK_STREAM and name != 'connected':
        s.listen()
    made.append(os.dup(s.fileno()))
high = [os.dup2(fd, 100 + i) for i, fd in enumerate(made)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i, inheritable=True)
os.environ['LISTEN_FDS'] = str(len(high))
os.environ['LISTEN_PID'] = str(os.getpid()) if pid == 'own' else pid
os.environ['LISTEN_FDNAMES'] = names
os.execv(program[0], program)
"#;

/// Runs `child_that_inherits` as the program that gets the sockets.
fn pass(names: &str, pid: &str) -> Output {
    let program = std::env::current_exe().expect("this test");
    Command::new("python3")
        .args(["-c", MANAGER, names, pid])
        .arg(program)
        .args(["--exact", "child_that_inherits", "--ignored", "--nocapture"])
        .output()
        .expect("python3")
}

fn shown(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the child prints about what it got.
#[test]
#[ignore = "the other tests run it with sockets passed to it"]
fn child_that_inherits() {
    match inherited(EndpointOptions::default()) {
        Ok(passed) => {
            let count = passed.len();
            println!("count {count}");
            for socket in passed {
                let flags = rustix::io::fcntl_getfd(&socket.endpoint).expect("open");
                let closed_on_exec = flags.contains(rustix::io::FdFlags::CLOEXEC);
                let kind = match socket.endpoint.endpoint() {
                    Endpoint::Tcp(address) => {
                        assert_ne!(address.port(), 0);
                        "tcp"
                    }
                    Endpoint::Udp(_) => "udp",
                    Endpoint::Unix(_) => "unix",
                    Endpoint::UnixDatagram(_) => "unixgram",
                };
                println!("{} is {kind}, cloexec {closed_on_exec}", socket.name);
            }
            let again = inherited(EndpointOptions::default()).expect("none");
            println!("again {}", again.len());
        }
        Err(error) => println!("error {error}"),
    }
}

#[test]
fn sockets_of_all_kinds_are_taken_once_with_their_names() {
    let shown = shown(&pass("tcp:udp:unix:unixgram", "own"));
    for line in [
        "count 4",
        "tcp is tcp, cloexec true",
        "udp is udp, cloexec true",
        "unix is unix, cloexec true",
        "unixgram is unixgram, cloexec true",
        "again 0",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    assert!(shown(&pass("tcp", "1")).contains("count 0"));
}

#[test]
fn what_cannot_be_served_is_named() {
    for (names, hint) in [
        ("tcp:file", "descriptor 4 (\"file\")"),
        ("connected", "descriptor 3 (\"connected\")"),
    ] {
        let shown = shown(&pass(names, "own"));
        assert!(shown.contains("error descriptor"), "{shown}");
        assert!(shown.contains(hint), "{shown}");
    }
    assert!(shown(&pass("tcp", "no number")).contains("must be numbers"));
}
