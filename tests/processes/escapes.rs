//! Ways out of the home that a command may try, each of them shut.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use wharf_server::process::Exit;

use crate::fixture::{Fixture, Kernel, allow, limits};

/// Runs `test` with each way to confine that this machine has.
async fn in_each(test: impl AsyncFn(&Fixture)) {
    for kernel in [Kernel::Whole, Kernel::WithoutNamespaces] {
        if let Some(fixture) = Fixture::with(kernel, limits()).await {
            test(&fixture).await;
        }
    }
}

/// `command` fails, and nothing comes of it.
async fn refused(fixture: &Fixture, command: &str) {
    let ran = fixture.run(command).await.expect("runs");
    assert_ne!(ran.exit, Exit::Status(0), "{command}: {}", ran.text());
    assert_eq!(ran.text(), "", "{command}");
}

#[tokio::test]
async fn what_is_outside_of_the_home_cannot_be_read() {
    in_each(async |fixture| {
        let data = fixture.data();
        let data = data.display();
        let outside = fixture.data().with_file_name("everyones");
        std::fs::write(&outside, "open to all").expect("written");
        allow(&outside, 0o644);
        for command in [
            "cat /etc/shadow".to_owned(),
            "ls /etc".to_owned(),
            "ls /root".to_owned(),
            format!("cat {data}/wharf.db"),
            "cat ../../wharf.db".to_owned(),
            "ln -s ../../wharf.db link && cat link".to_owned(),
            format!("ls {data}/homes"),
            format!("cat {data}/homes/bob/letter"),
            "cat ../bob/letter".to_owned(),
            format!("cat {}", outside.display()),
            format!("cp {} .", outside.display()),
            format!("ln {} hard && cat hard", outside.display()),
            "cat /proc/sys/kernel/core_pattern >/proc/sys/kernel/core_pattern".to_owned(),
        ] {
            refused(fixture, &command).await;
        }
        // The programs of the system are there.
        assert_eq!(
            fixture
                .output("ls /usr >/dev/null && id -u >/dev/null && echo on")
                .await,
            "on\n"
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_outside_of_the_home_cannot_be_changed() {
    in_each(async |fixture| {
        let data = fixture.data();
        let data = data.display();
        for command in [
            format!("echo x >{data}/wharf.db"),
            format!("echo x >>{data}/homes/bob/letter"),
            format!("rm {data}/homes/bob/letter"),
            format!("mv {data}/homes/bob/letter ."),
            format!("chmod 777 {data}/homes/bob/letter"),
            format!("touch -d 2000-01-01 {data}/homes/bob/letter"),
            format!("mkdir {data}/homes/carol"),
            format!("rmdir {data}/homes/alice"),
            "echo x >/etc/motd".to_owned(),
            "echo x >/usr/x".to_owned(),
            "echo x >/dev/x".to_owned(),
            "echo x >/var/tmp/x".to_owned(),
            "mknod device c 1 3".to_owned(),
        ] {
            refused(fixture, &command).await;
        }
        let letter = std::fs::metadata(fixture.data().join("homes/bob/letter")).expect("is there");
        assert_eq!(letter.len(), 6);
        let is_old = letter
            .modified()
            .expect("known")
            .elapsed()
            .expect("past")
            .as_secs()
            > 86_400;
        assert!(!is_old);
    })
    .await;
}

#[tokio::test]
async fn other_processes_cannot_be_looked_into_or_signalled() {
    in_each(async |fixture| {
        let server = std::process::id();
        // One of the same user, outside: its supervisor is such a one too.
        for command in [
            "cat /proc/$PPID/environ".to_owned(),
            "cat /proc/$PPID/maps".to_owned(),
            "ls /proc/$PPID/fd".to_owned(),
            "ls /proc/$PPID/root/".to_owned(),
            "ls /proc/$PPID/cwd/".to_owned(),
            "echo x >/proc/$PPID/comm".to_owned(),
            "echo 1000 >/proc/$PPID/oom_score_adj".to_owned(),
            "head -c 1 /proc/$PPID/mem".to_owned(),
            "kill -KILL $PPID".to_owned(),
            "kill -STOP $PPID".to_owned(),
            "kill -0 $PPID".to_owned(),
            format!("kill -0 {server}"),
            "cat /proc/1/environ".to_owned(),
            "ls /proc/1/root/".to_owned(),
            "renice -n 19 -p $PPID".to_owned(),
            "prlimit --nofile=1 --pid $PPID".to_owned(),
            "nsenter -t $PPID -m true".to_owned(),
        ] {
            refused(fixture, &command).await;
        }
    })
    .await;
}

#[tokio::test]
async fn ptrace_namespaces_mounts_and_the_network_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.set_nonblocking(true).expect("set");
    let port = listener.local_addr().expect("bound").port();
    in_each(async |fixture| {
        let socket = fixture.data().with_file_name("socket");
        let _ = std::fs::remove_file(&socket);
        let service = UnixListener::bind(&socket).expect("bound");
        allow(&socket, 0o777);
        let calls = [
            ("PTRACE_ATTACH to the supervisor", libc::SYS_ptrace, "16, getppid(), 0, 0"),
            ("unshare of a user namespace", libc::SYS_unshare, "0x10000000"),
            ("mount", libc::SYS_mount, "my $a = q(none), my $b = q(.), my $c = q(tmpfs), 0, 0"),
            ("bpf", libc::SYS_bpf, "0, 0, 0"),
            ("io_uring", libc::SYS_io_uring_setup, "1, my $a = q( ) x 120"),
            ("memory without a file", libc::SYS_memfd_create, "my $a = q(x), 0"),
            ("a socket", libc::SYS_socket, "2, 1, 0"),
            ("process_vm_readv", libc::SYS_process_vm_readv, "getppid(), 0, 0, 0, 0, 0"),
            ("a keyring", libc::SYS_keyctl, "0, 0, 0, 0, 0"),
        ];
        for (what, number, arguments) in calls {
            // What the call says is told by its error: EPERM is 1.
            let script = format!("syscall({number}, {arguments}) == -1 or exit 7; exit $! + 100");
            let ran = fixture.run(&format!("perl -e '{script}'")).await.expect("runs");
            assert_eq!(ran.exit, Exit::Status(101), "{what}: {}", ran.errors());
        }
        for command in [
            format!("bash -c ': >/dev/tcp/127.0.0.1/{port}'"),
            format!(
                "perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) && connect(S, sockaddr_un(\"{}\")) or exit 1'",
                socket.display()
            ),
            "unshare --user true".to_owned(),
        ] {
            refused(fixture, &command).await;
        }
        service.set_nonblocking(true).expect("set");
        assert!(service.accept().is_err(), "nobody has connected");
    })
    .await;
    assert!(listener.accept().is_err(), "nobody has connected");
}

#[tokio::test]
async fn nothing_gives_a_command_more_rights() {
    in_each(async |fixture| {
        let status = fixture.output("grep -E '^(NoNewPrivs|Seccomp|Cap(Inh|Prm|Eff|Amb)):' /proc/self/status").await;
        let none = "0".repeat(16);
        let expected = format!(
            "CapInh:\t{none}\nCapPrm:\t{none}\nCapEff:\t{none}\nCapAmb:\t{none}\nNoNewPrivs:\t1\nSeccomp:\t2\n"
        );
        let mut lines: Vec<&str> = status.lines().collect();
        let mut wanted: Vec<&str> = expected.lines().collect();
        lines.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(lines, wanted);
        // With bits that would make a program root's.
        refused(fixture, "cp /bin/cat cat && chmod 4755 cat && ./cat /etc/shadow").await;
        refused(fixture, "ulimit -n 100000").await;
    })
    .await;
}

#[tokio::test]
async fn a_signal_from_a_command_does_not_reach_the_servers_user() {
    let Some(user) = crate::fixture::user() else {
        eprintln!("SKIPPED: needs root");
        return;
    };
    use std::os::unix::process::CommandExt as _;
    in_each(async |fixture| {
        // As the server: of the same user, outside of every confinement.
        let mut victim = std::process::Command::new("sleep")
            .arg("1000")
            .uid(user.uid.as_raw())
            .gid(user.gid.as_raw())
            .spawn()
            .expect("starts");
        let pid = victim.id();
        for command in [
            format!("kill -KILL {pid}"),
            format!("kill -KILL -- -1; kill -KILL {pid}"),
            format!("cat /proc/{pid}/environ"),
        ] {
            let ran = fixture.run(&command).await.expect("runs");
            assert_ne!(ran.exit, Exit::Status(0), "{command}");
        }
        let lives = victim.try_wait().expect("ours").is_none();
        victim.kill().expect("ours");
        victim.wait().expect("ended");
        assert!(lives);
    })
    .await;
}
