//! Which system calls a command is refused: those that Landlock does not judge and that
//! reach out of it, or that have a record of holes and that ordinary programs do without.

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Refused whatever their arguments.
const DENIED: &[c_long] = &[
    // Other processes of the server's user.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // File systems, namespaces, the machine.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    OPEN_TREE_ATTR,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    // Where holes in the kernel have been.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Memory that no limit counts, or that outlives its processes.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // The network, and services of the machine behind named sockets, which Landlock
    // leaves alone up to its eighth version.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
];

/// The same on this architecture alone.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[c_long] = &[libc::SYS_modify_ldt, libc::SYS_iopl, libc::SYS_ioperm];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[c_long] = &[];

/// What changes the attributes of something by its name, which Landlock does not judge:
/// refused where names lead to what is not the command's.
const ATTRIBUTES: &[c_long] = &[
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    SETXATTRAT,
    REMOVEXATTRAT,
    FILE_SETATTR,
];

#[cfg(target_arch = "x86_64")]
const ATTRIBUTES_HERE: &[c_long] = &[
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const ATTRIBUTES_HERE: &[c_long] = &[];

// The same number on every architecture (Linux, scripts/syscall.tbl).
const SETXATTRAT: c_long = 463;
const REMOVEXATTRAT: c_long = 466;
const OPEN_TREE_ATTR: c_long = 467;
const FILE_SETATTR: c_long = 469;

/// What makes a namespace with clone(2), where CLONE_NEWTIME has no place.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// The bits of a socket's type that are not flags (socket(2)).
const SOCKET_TYPE: u64 = 0xf;

/// What the rules are made of, by system call. No rule for one: whatever its arguments.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Refuses this thread, and all that it starts, what is not for them. `namespaces` says
/// whether it has a file system of its own.
pub(super) fn apply(namespaces: bool) -> io::Result<()> {
    let refused = program(rules(namespaces)?, libc::EPERM)?;
    // Its arguments cannot be judged. Whoever misses it takes clone(2).
    let missing = program([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS)?;
    for program in [refused, missing] {
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

fn program(mut rules: Rules, errno: i32) -> io::Result<BpfProgram> {
    also_as_x32(&mut rules);
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let errno = u32::try_from(errno).map_err(io::Error::other)?;
    let (otherwise, matched) = (SeccompAction::Allow, SeccompAction::Errno(errno));
    let filter = SeccompFilter::new(rules, otherwise, matched, architecture);
    filter
        .and_then(BpfProgram::try_from)
        .map_err(io::Error::other)
}

fn rules(namespaces: bool) -> io::Result<Rules> {
    let mut rules: Rules = DENIED
        .iter()
        .chain(DENIED_HERE)
        .map(|call| (*call, Vec::new()))
        .collect();
    let new_namespaces: io::Result<_> = NAMESPACES
        .iter()
        .map(|flag| {
            let flag = u64::try_from(*flag).map_err(io::Error::other)?;
            rule(&[(0, SeccompCmpOp::MaskedEq(flag), flag)])
        })
        .collect();
    rules.insert(libc::SYS_clone, new_namespaces?);
    // A pair that can be connected to a name once more.
    let datagrams = [libc::SOCK_DGRAM, libc::SOCK_RAW];
    let pairs: io::Result<_> = datagrams
        .into_iter()
        .map(|kind| {
            let kind = u64::try_from(kind).map_err(io::Error::other)?;
            rule(&[(1, SeccompCmpOp::MaskedEq(SOCKET_TYPE), kind)])
        })
        .collect();
    rules.insert(libc::SYS_socketpair, pairs?);
    // What the kernel allows among processes of one user: the command has itself only, as 0.
    for call in [
        libc::SYS_prlimit64,
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_setattr,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setscheduler,
    ] {
        rules.insert(call, vec![rule(&[(0, SeccompCmpOp::Ne, 0)])?]);
    }
    // Of the kinds of whom, 0 and 1 are processes and groups for one; users for the other.
    let priority = vec![
        rule(&[(0, SeccompCmpOp::Eq, 2)])?,
        rule(&[(1, SeccompCmpOp::Ne, 0)])?,
    ];
    rules.insert(libc::SYS_setpriority, priority);
    let io_priority = vec![
        rule(&[(0, SeccompCmpOp::Eq, 3)])?,
        rule(&[(1, SeccompCmpOp::Ne, 0)])?,
    ];
    rules.insert(libc::SYS_ioprio_set, io_priority);
    if !namespaces {
        let calls = ATTRIBUTES.iter().chain(ATTRIBUTES_HERE);
        rules.extend(calls.map(|call| (*call, Vec::new())));
        // Without a name it is about a file that is open.
        let named = vec![rule_wide(1, SeccompCmpOp::Ne, 0)?];
        rules.insert(libc::SYS_utimensat, named);
    }
    Ok(rules)
}

/// Argument, comparison and value, all of which must hold; of 32 bits.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> io::Result<SeccompRule> {
    let conditions: Result<Vec<_>, _> = conditions
        .iter()
        .map(|(argument, compare, value)| {
            let length = SeccompCmpArgLen::Dword;
            SeccompCondition::new(*argument, length, compare.clone(), *value)
        })
        .collect();
    conditions
        .and_then(SeccompRule::new)
        .map_err(io::Error::other)
}

/// The same for an argument that is an address.
fn rule_wide(argument: u8, compare: SeccompCmpOp, value: u64) -> io::Result<SeccompRule> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, compare, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(io::Error::other)
}

/// The same calls have another number too, in programs for x32, and some a third one: of
/// those, all are refused.
#[cfg(target_arch = "x86_64")]
fn also_as_x32(rules: &mut Rules) {
    const X32: i64 = 0x4000_0000;
    let again: Vec<_> = rules
        .iter()
        .map(|(call, rules)| (call | X32, rules.clone()))
        .collect();
    rules.extend(again);
    rules.extend((512..=547).map(|call| (call | X32, Vec::new())));
}

#[cfg(not(target_arch = "x86_64"))]
fn also_as_x32(_rules: &mut Rules) {}
