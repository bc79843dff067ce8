//! Remote commands against GNU coreutils, findutils and bash, each on its own copy of one
//! tree; and what only the virtual file system has.

use std::io;
use std::os::unix::fs::symlink;
use std::pin::Pin;
use std::task::{Context, Poll};

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf, duplex};
use wharf_model::{EntryKind, PermissionRules, Permissions, QuotaLimits, VirtualPath};
use wharf_proto::exec::MAX_LINE_BYTES;
use wharf_server::exec::{ExitStatus, Streams, run, run_shell};

use crate::room::{Room, ran_by_bash, run_on};

/// Commands whose output, errors and exit status are those of the real tools.
const SAME: &[&str] = &[
    // Words and lists.
    "echo a  'b  c' \"d\"; echo -n x; echo; echo -e 'a\\tb'",
    "echo ${ShellId}%ComSpec%",
    "false || echo no; false && echo no; true && echo yes; echo $?",
    "cd sub && pwd_is_not_compared=1 && cat inner",
    "cd sub; cat ../a.txt; cd - >/dev/null; cat a.txt",
    "cat nope; echo $?",
    "cat nope 2>/dev/null; echo $?",
    "cat nope 2>&1",
    "echo to-file >made; echo more >>made; cat made; cat <made",
    "LC_ALL=C cat a.txt",
    "echo *.txt sub/* n?pe [ab].txt '*'",
    "echo */inner .* 2>/dev/null >/dev/null; echo done",
    "test -f a.txt && echo file; test -d sub && echo directory; [ -e nope ] || echo none; [ x = x ]",
    "command -v nothing-called-so; echo $?",
    // cat, head, tail, wc.
    "cat a.txt sub/inner",
    "cat -n lines",
    "cat < a.txt",
    "cat sub",
    "head lines",
    "head -n 3 lines",
    "head -3 lines",
    "head -c 5 lines a.txt",
    "head -q -n1 lines a.txt nope",
    "head -n x lines; echo $?",
    "tail lines",
    "tail -n 3 lines a.txt",
    "tail -n -3 lines; tail -c -3 lines",
    "tail -n +28 lines",
    "tail -c 5 lines",
    "tail -c +80 lines",
    "tail -n 2 no-line-end",
    "tail -n 0 lines; tail -n 100 lines",
    "wc lines a.txt",
    "wc -l lines",
    "wc -c < lines",
    "wc -lw lines a.txt nope",
    "wc empty",
    // ls.
    "ls",
    "ls -1a sub",
    "ls -A",
    "ls -r",
    "ls -t",
    "ls -S a.txt big lines empty",
    "ls -lnd --time-style=full-iso a.txt lines",
    "ls -ln --full-time a.txt",
    "ls -lnh big a.txt",
    "ls -p",
    "ls -F a.txt sub",
    "ls -d sub nope",
    "ls sub a.txt",
    "ls -R",
    "ls --nope; echo $?",
    "ls 'a name with spaces' \"it's\"",
    // Facts.
    "stat -c '%n %s %F %a %A %h %Y' a.txt empty",
    "stat -c '%n %F %a %A %Y' sub",
    "stat -c %y a.txt",
    "stat -c '%05s|%-8s|%8s|%%' a.txt",
    "stat --printf '%n\\t%s\\n' a.txt lines",
    "stat nope; echo $?",
    "du -b a.txt lines",
    "du --apparent-size -k big",
    // find.
    "find sub -type f",
    "find sub -name 'in*'",
    "find . -name '*.TXT' -o -iname A.TXT",
    "find . -maxdepth 1 -type d",
    "find sub -mindepth 1 -maxdepth 1 -type f -print0",
    "find . -size +1k -type f",
    "find . -type f -size 0",
    "find . -empty -type f",
    "find . ! -type d -name 'a*' -newer lines",
    "find . -path './sub/deep/*'",
    "find . -name sub -prune -o -name lines -print",
    "find . -mtime +10000",
    "find nope; echo $?",
    "find sub/deep -depth",
    // Digests.
    "md5sum a.txt lines",
    "md5sum",
    "sha1sum a.txt; sha256sum a.txt; sha512sum a.txt",
    "sha256sum < a.txt",
    "sha256sum --tag a.txt; sha256sum -b a.txt; sha256sum -z a.txt",
    "md5sum nope sub; echo $?",
    "md5sum a.txt lines >sums; md5sum -c sums; echo $?",
    "md5sum a.txt lines >sums; echo changed >>lines; md5sum -c sums; echo $?",
    "md5sum a.txt >sums; echo rubbish >>sums; md5sum -c --strict sums; echo $?",
    "md5sum a.txt >sums; rm a.txt; md5sum -c sums; md5sum --ignore-missing -c sums; echo $?",
    "md5sum a.txt >sums; md5sum --status -c sums && md5sum --quiet -c sums; md5sum -c a.txt; echo $?",
    // Changes, and the tree that they leave.
    "mkdir d; mkdir d; echo $?; ls",
    "mkdir x/y; mkdir -p x/y/z x/y; mkdir -pv x/q; ls -R x",
    "mkdir -p a.txt; echo $?",
    "rmdir sub; rmdir sub/deep/leaf; echo $?; ls sub/deep",
    "rm a.txt nope; echo $?; ls",
    "rm -f a.txt nope; echo $?; ls",
    "rm sub; echo $?",
    "rm -r sub; echo $?; ls",
    "rm -rf sub nope; echo $?; ls",
    "rm -d sub/deep/leaf; rm -v a.txt; rm; echo $?",
    "rm -r .; rm -rf ..; echo $?",
    "mv a.txt b.txt; ls; cat b.txt",
    "mv a.txt lines sub; ls . sub",
    "mv -n a.txt lines; cat lines a.txt",
    "mv -v a.txt c.txt; mv nope x; echo $?",
    "mv a.txt lines nowhere; mv a.txt lines utf8; echo $?",
    "mv a.txt; mv; echo $?",
    "cp a.txt b.txt; cat b.txt; cp a.txt sub; ls sub",
    "cp sub x; echo $?",
    "cp -r sub copy; ls -R copy; cp -r sub copy; ls -R copy",
    "cp -r sub sub/again; echo $?",
    "cp nope x; cp a.txt nowhere/x; echo $?",
    "cp a.txt a.txt; echo $?",
    "cp -rp sub kept; stat -c '%n %Y %a' kept kept/inner sub/inner",
    "cp -n a.txt lines; cat lines; cp -t sub a.txt; ls sub; cp -T a.txt t; cat t",
    "touch new; stat -c %s new; touch -c other; ls",
    "touch -d '2001-02-03 04:05:06 UTC' a.txt; stat -c %Y a.txt",
    "touch -d @1234567890 a.txt; stat -c %Y a.txt",
    "touch -t 200102030405.06 fresh; stat -c %Y fresh; touch -r fresh a.txt; stat -c %Y a.txt",
    "touch -d rubbish a.txt; echo $?",
    "chmod 640 a.txt; stat -c %a a.txt; chmod 700 nope; echo $?",
    "chmod -R 750 sub; stat -c '%n %a' sub sub/inner sub/deep",
];

#[tokio::test]
async fn commands_do_and_say_what_the_real_tools_do() {
    let mut different = Vec::new();
    for line in SAME {
        let room = Room::furnished().await;
        let ours = room.run(line, b"").await;
        let theirs = ran_by_bash(line, b"");
        if ours != theirs {
            different.push(format!("{line}\n  ours   {ours:?}\n  theirs {theirs:?}"));
        }
    }
    assert!(different.is_empty(), "\n{}", different.join("\n"));
}

#[tokio::test]
async fn what_head_and_tail_do_not_offer_they_say() {
    let room = Room::furnished().await;
    for line in [
        "head -n -3 lines",
        "head -c-5 lines",
        "head --lines=-1 lines",
    ] {
        let ran = room.run(line, b"").await;
        assert_eq!((ran.status, ran.text()), (1, String::new()), "{line}");
        let expected = "head: all but the last of a file (-N) is not offered";
        assert!(ran.error_text().starts_with(expected), "{line}: {ran:?}");
    }
    for line in [
        "tail -f lines",
        "tail -n 3 -F lines",
        "tail --follow=name lines",
    ] {
        let ran = room.run(line, b"").await;
        assert_eq!((ran.status, ran.text()), (1, String::new()), "{line}");
        let expected = "tail: following a file is not offered";
        assert!(ran.error_text().starts_with(expected), "{line}: {ran:?}");
    }
}

#[tokio::test]
async fn without_files_commands_read_standard_input() {
    let mut different = Vec::new();
    for line in [
        "cat",
        "md5sum",
        "sha1sum -",
        "wc",
        "wc -l",
        "head -n 2",
        "tail -n 2",
        "tail -n +3",
        "tail -c 4",
        "cat - a.txt",
    ] {
        let input = b"one\ntwo\nthree\nfour";
        let room = Room::furnished().await;
        let ours = room.run(line, input).await;
        let theirs = ran_by_bash(line, input);
        if ours != theirs {
            different.push(format!("{line}\n  ours   {ours:?}\n  theirs {theirs:?}"));
        }
    }
    assert!(different.is_empty(), "\n{}", different.join("\n"));
}

/// BLAKE3 by the test vectors of its authors, the others by coreutils and RFC 3720's CRC of zlib.
#[tokio::test]
async fn digests_that_coreutils_lacks_have_the_same_form() {
    let room = Room::empty().await;
    let of_nothing = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262  -\n";
    assert_eq!(room.run("b3sum", b"").await.text(), of_nothing);
    let check = room.run("crc32", b"123456789").await;
    assert_eq!(check.text(), "cbf43926  -\n");
    assert_eq!(check.status, 0);
}

#[tokio::test]
async fn a_link_out_of_the_home_is_seen_and_not_followed() {
    let room = Room::furnished().await;
    let root = room.directory.path();
    symlink("/etc", root.join("out")).expect("made");
    symlink("/etc/passwd", root.join("sub/passwd")).expect("made");
    for line in [
        "cat out/passwd",
        "cat sub/passwd",
        "cat <sub/passwd",
        "cat ../../../../etc/passwd",
        "cat /etc/passwd",
        "cd out",
        "md5sum sub/passwd",
        "cp sub/passwd here",
        "echo x >out/wharf-was-here",
        "mv a.txt out/a.txt",
        "mkdir out/made",
    ] {
        let ran = room.run(line, b"").await;
        assert_ne!(ran.status, 0, "{line}: {ran:?}");
        assert!(!ran.text().contains("root"), "{line}: {ran:?}");
        assert!(!ran.error_text().contains("root:"), "{line}: {ran:?}");
    }
    assert_eq!(room.run("find out/ -name passwd", b"").await.text(), "");
    assert_eq!(room.run("ls out/", b"").await.text(), "out/\n");
    assert_eq!(
        room.run("find . -type l", b"").await.text(),
        "./out\n./sub/passwd\n"
    );
    // A copy leaves it out and says so; a removal removes the link and nothing behind it.
    assert_eq!(room.run("cp -r sub copy", b"").await.status, 1);
    assert_eq!(room.run("test -e copy/passwd", b"").await.status, 1);
    let removed = room.run("rm -r sub out && ls", b"").await;
    assert_eq!(removed.status, 0, "{removed:?}");
    assert!(std::path::Path::new("/etc/passwd").is_file());
}

#[tokio::test]
async fn what_the_account_may_not_do_is_refused_in_the_words_of_the_system() {
    let rules = PermissionRules::new(Permissions::READ | Permissions::LIST, Vec::new());
    let room = Room::furnished_with(rules, QuotaLimits::default()).await;
    for (line, expected) in [
        ("rm a.txt", "rm: cannot remove 'a.txt': Permission denied\n"),
        (
            "mkdir d",
            "mkdir: cannot create directory 'd': Permission denied\n",
        ),
        (
            "touch a.txt",
            "touch: cannot touch 'a.txt': Permission denied\n",
        ),
        (
            "mv a.txt b",
            "mv: cannot move 'a.txt' to 'b': Permission denied\n",
        ),
        ("echo x >f", "wharf: f: Permission denied\n"),
        ("echo x >>a.txt", "wharf: a.txt: Permission denied\n"),
    ] {
        let ran = room.run(line, b"").await;
        assert_eq!(
            (ran.status, ran.error_text()),
            (1, expected.to_owned()),
            "{line}"
        );
    }
    assert_eq!(room.run("cat a.txt", b"").await.text(), "alpha beta\n");
}

#[tokio::test]
async fn the_quota_holds_for_commands_and_nothing_is_left_of_what_passed_it() {
    // The furnished home has 5178 bytes.
    let limits = QuotaLimits {
        bytes: Some(8000),
        files: None,
    };
    let room = Room::furnished_with(PermissionRules::default(), limits).await;
    let copied = room.run("cp big again", b"").await;
    assert_eq!(
        copied.error_text(),
        "cp: cannot copy 'big' to 'again': Disk quota exceeded\n"
    );
    assert_eq!(copied.status, 1);
    let written = room.run("cat >a.txt", &[b'y'; 9000]).await;
    assert_eq!(
        (written.status, written.error_text().as_str()),
        (1, "wharf: Disk quota exceeded\n")
    );
    let kept = room.run("cat a.txt; test -e again || echo none", b"").await;
    assert_eq!(kept.text(), "alpha beta\nnone\n");
}

/// rclone takes the second, third and fourth number of the last line for total, used and free KiB
/// (backend/sftp, `About`).
#[tokio::test]
async fn df_tells_the_quota_where_rclone_looks_for_it() {
    let limits = QuotaLimits {
        bytes: Some(1024 * 1024),
        files: Some(100),
    };
    let room = Room::furnished_with(PermissionRules::default(), limits).await;
    let told = room.run("df -k /", b"").await.text();
    let numbers: Vec<&str> = told
        .lines()
        .last()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    // 5178 bytes are 6 KiB begun; 1018 whole ones are left.
    assert_eq!(numbers, ["wharf", "1024", "6", "1019", "1%", "/"]);
    let files = room.run("df -i", b"").await.text();
    assert!(files.contains("100"), "{files}");
}

#[tokio::test]
async fn unknown_commands_and_what_only_a_real_shell_has_are_named() {
    let room = Room::furnished().await;
    let ran = room.run("rsync --server .", b"").await;
    assert_eq!(ran.status, 127);
    assert!(ran.error_text().starts_with("rsync: command not found\n"));
    for line in [
        "cat a.txt | wc",
        "echo $(ls)",
        "echo `ls`",
        "sleep 1 &",
        "if true; then ls; fi",
    ] {
        let ran = room.run(line, b"").await;
        assert_ne!(ran.status, 0, "{line}");
        assert!(!ran.errors.is_empty(), "{line}");
        assert!(ran.output.is_empty(), "{line}");
    }
    // As far as it was understood nothing of a line was run.
    assert_eq!(room.run("rm a.txt; cat a.txt | wc", b"").await.status, 2);
    assert_eq!(room.run("test -f a.txt", b"").await.status, 0);
}

#[tokio::test]
async fn a_shell_keeps_its_state_from_line_to_line_and_ends_with_a_status() {
    let room = Room::furnished().await;
    let lines = b"cd sub\nNAME=inner\ncat $NAME\nfalse\necho $?\npwd\nexit 7\necho never\n";
    let (output, mut output_end) = duplex(4096);
    let (errors, mut errors_end) = duplex(4096);
    let streams = Streams::new(&lines[..], output, errors);
    let status = run_shell(&room.vfs, &VirtualPath::root(), streams).await;
    let (mut output, mut errors) = (String::new(), String::new());
    output_end.read_to_string(&mut output).await.expect("text");
    errors_end.read_to_string(&mut errors).await.expect("text");
    assert_eq!((output.as_str(), errors.as_str()), ("inner\n1\n/sub\n", ""));
    assert_eq!(status.code(), 7);
}

#[tokio::test]
async fn a_terminal_gets_a_prompt_and_no_name_that_acts_on_it() {
    let room = Room::empty().await;
    symlink("nowhere", room.directory.path().join("a\u{1b}[2Jb")).expect("made");
    let (output, mut output_end) = duplex(4096);
    let streams = Streams::new(&b"ls\n"[..], output, tokio::io::sink()).with_terminal();
    run_shell(&room.vfs, &VirtualPath::root(), streams).await;
    let mut output = String::new();
    output_end.read_to_string(&mut output).await.expect("text");
    assert_eq!(output, "/$ 'a'$'\\033''[2Jb'\n/$ ");
}

#[tokio::test]
async fn a_line_at_the_bound_is_run_and_one_past_it_is_refused() {
    let room = Room::empty().await;
    let mut line = b"true ".to_vec();
    line.resize(MAX_LINE_BYTES, b'x');
    assert_eq!(run_on(&room.vfs, &line, b"").await.status, 0);
    line.push(b'x');
    let ran = run_on(&room.vfs, &line, b"").await;
    assert_eq!(ran.status, 2);
    assert!(ran.error_text().contains("longer than 262144 bytes"));
}

#[tokio::test]
async fn output_waits_for_its_reader_and_comes_whole() {
    let room = Room::empty().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    assert_eq!(room.run("cat >f", &content).await.status, 0);
    assert!(room.run("cat f", b"").await.output == content);
    assert!(room.run("tail -c 1000000 f", b"").await.output == content[2_000_000..]);
}

#[tokio::test]
async fn what_a_command_says_is_seen_while_the_next_one_waits_for_input() {
    let room = Room::empty().await;
    let (input, input_end) = duplex(64);
    let (output, mut output_end) = duplex(64);
    let streams = Streams::new(input, output, tokio::io::sink());
    let root = VirtualPath::root();
    let running = run(b"echo ready; cat", &room.vfs, &root, streams);
    let seen = async {
        let mut said = [0; 6];
        output_end.read_exact(&mut said).await.expect("said");
        drop(input_end);
        said
    };
    let (status, said) = tokio::join!(running, seen);
    assert_eq!((status, &said), (ExitStatus::SUCCESS, b"ready\n"));
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_the_command() {
    let room = Room::empty().await;
    assert_eq!(room.run("cat >f", &vec![b'x'; 1_000_000]).await.status, 0);
    let (output, output_end) = duplex(64);
    drop(output_end);
    let streams = Streams::new(tokio::io::empty(), output, tokio::io::sink());
    let status = run(b"cat f", &room.vfs, &VirtualPath::root(), streams).await;
    assert_eq!(status, ExitStatus::BROKEN_PIPE);
}

#[tokio::test]
async fn what_a_client_that_goes_away_was_writing_is_no_whole_file() {
    let room = Room::furnished().await;
    let (mut input_end, input) = duplex(64);
    let streams = Streams::new(input, tokio::io::sink(), tokio::io::sink());
    let root = VirtualPath::root();
    let running = run(b"cat >a.txt", &room.vfs, &root, streams);
    tokio::select! {
        _ = running => panic!("it reads until the end of its input"),
        written = input_end.write_all(&[b'n'; 10_000]) => written.expect("read"),
    }
    // The future is gone, and its upload with it.
    assert_eq!(room.run("cat a.txt", b"").await.text(), "alpha beta\n");
}

#[tokio::test]
async fn a_copy_and_a_removal_of_a_wide_tree_are_whole() {
    let room = Room::empty().await;
    let made = "mkdir -p t/a/b/c t/d; echo 1 >t/a/1; echo 2 >t/a/b/c/2; cp -r t u; rm -r t/a/b";
    assert_eq!(room.run(made, b"").await.status, 0);
    let found = room.run("find u t -type f", b"").await.text();
    let mut found: Vec<&str> = found.lines().collect();
    found.sort_unstable();
    assert_eq!(found, ["t/a/1", "u/a/1", "u/a/b/c/2"]);
    let entry = room
        .vfs
        .metadata(&VirtualPath::parse(b"/u/a/b/c").expect("a path"))
        .await;
    assert_eq!(entry.expect("there").kind, EntryKind::Directory);
}

#[tokio::test]
async fn expressions_nest_up_to_a_bound() {
    let room = Room::empty().await;
    let nested = |depth: usize| format!("find . {} -true", "! ".repeat(depth));
    assert_eq!(room.run(&nested(64), b"").await.status, 0);
    let ran = room.run(&nested(65), b"").await;
    assert_eq!(ran.status, 1);
    assert!(ran.error_text().contains("nested too deeply"));
}

/// Words that commands are made of here.
const WORDS: &[&str] = &[
    "ls",
    "cat",
    "pwd",
    "cd",
    "echo",
    "mkdir",
    "rm",
    "mv",
    "cp",
    "touch",
    "stat",
    "du",
    "df",
    "find",
    "head",
    "tail",
    "wc",
    "md5sum",
    "b3sum",
    "test",
    "[",
    "]",
    "-r",
    "-rf",
    "-l",
    "-la",
    "-n",
    "-c",
    "-p",
    "-R",
    "-d",
    "-name",
    "-type",
    "-delete",
    "-o",
    "!",
    "(",
    ")",
    "--",
    "-",
    "--help",
    "--format=%n%99999999999999999999s",
    "+5",
    "-5",
    "18446744073709551616",
    "a",
    "b",
    "a/b",
    ".",
    "..",
    "/",
    "*",
    "[a-",
    "'",
    "\"",
    ">",
    ">>",
    "<",
    "2>&1",
    "&&",
    "||",
    ";",
    "\n",
    "$?",
    "${X}",
    "X=1",
    "@-1",
    "2024-13-41",
    "%",
    "\\",
    "é",
    "\u{7f}",
];

#[tokio::test]
async fn what_a_line_stands_for_is_bounded_however_often_it_says_it() {
    let vfs = crate::room::in_memory().await;
    let name = "n".repeat(200);
    let made: String = (0..300).map(|number| format!("{name}{number} ")).collect();
    let made = run_on(&vfs, format!("touch {made}").as_bytes(), b"").await;
    assert_eq!(made.status, 0);
    let value = "x".repeat(60_000);
    for line in [
        format!("echo{}", " *".repeat(200)),
        format!("A={value}; echo{}", " $A".repeat(200)),
        format!("A={value}; echo {}", "$A".repeat(20_000)),
        format!("A={value}; B={}", "$A".repeat(20_000)),
    ] {
        let ran = run_on(&vfs, line.as_bytes(), b"").await;
        let said = String::from_utf8_lossy(&ran.errors).into_owned();
        let bounded = ["Argument list too long", "no room for more variables"];
        assert!(bounded.iter().any(|text| said.contains(text)), "{said}");
        assert!(ran.output.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_command_line_panics_or_hangs(
        words in proptest::collection::vec(proptest::sample::select(WORDS), 1..12),
        input in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let vfs = crate::room::in_memory().await;
            let line = words.join(" ");
            run_on(&vfs, b"mkdir -p a/b; echo x >b; echo y >a/b/c", b"").await;
            let ran = run_on(&vfs, line.as_bytes(), &input).await;
            // Whoever fails says why, but those whose status is what was asked for.
            let silent = ["test", "[", "false", "cd", "find", "command"];
            if ran.status > 1 && !silent.iter().any(|name| line.contains(name)) {
                assert!(!ran.errors.is_empty() || line.contains('>'), "{line}: {ran:?}");
            }
        });
    }
}

/// A client that goes away.
struct Gone;

impl AsyncRead for Gone {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
    }
}

#[tokio::test]
async fn what_a_client_that_goes_away_was_sending_is_kept_as_cut() {
    let room = Room::empty().await;
    let input = io::Cursor::new(b"half of it".to_vec()).chain(Gone);
    let streams = Streams::new(input, tokio::io::sink(), tokio::io::sink());
    let line = b"cat > file; echo on > other";
    let status = run(line, &room.vfs, &VirtualPath::root(), streams).await;
    assert_eq!(status, ExitStatus::BROKEN_PIPE);
    let file = VirtualPath::parse(b"/file").expect("a path");
    // A cut is tidied up behind whoever made it.
    let entry = loop {
        match room.vfs.metadata(&file).await {
            Ok(entry) => break entry,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!((entry.size, entry.incomplete), (10, true));
    let other = VirtualPath::parse(b"/other").expect("a path");
    assert!(room.vfs.metadata(&other).await.is_err());
}
