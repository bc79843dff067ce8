//! The old protocol of scp, byte by byte: what no client of good will sends.

use std::time::{Duration, UNIX_EPOCH};

use wharf_model::{PermissionRules, Permissions, QuotaLimits, VirtualPath};
use wharf_vfs::Vfs;

use crate::room::{in_memory, in_memory_with, run_on};

/// What `scp` answers to all of `input`, and how it ends.
async fn scp(vfs: &Vfs, command: &str, input: &[u8]) -> (Vec<u8>, u8) {
    let ran = run_on(vfs, command.as_bytes(), input).await;
    assert!(ran.errors.is_empty(), "{ran:?}");
    (ran.output, ran.status)
}

async fn content(vfs: &Vfs, path: &str) -> Option<Vec<u8>> {
    let ran = run_on(vfs, format!("cat {path}").as_bytes(), b"").await;
    (ran.status == 0).then_some(ran.output)
}

#[tokio::test]
async fn what_is_taken_is_answered_step_by_step() {
    let vfs = in_memory().await;
    let sent = b"T1234567890 0 1 0\nC0640 5 f\nhello\0";
    // One NUL to begin, and one for the times, the line, the content.
    assert_eq!(scp(&vfs, "scp -p -t .", sent).await, (vec![0; 4], 0));
    assert_eq!(content(&vfs, "f").await.as_deref(), Some(&b"hello"[..]));
    let entry = vfs
        .metadata(&VirtualPath::parse(b"/f").expect("a path"))
        .await;
    let entry = entry.expect("there");
    assert_eq!(entry.mode, 0o640);
    assert_eq!(
        entry.modified,
        UNIX_EPOCH + Duration::from_secs(1_234_567_890)
    );
}

#[tokio::test]
async fn lines_that_are_none_end_the_transfer_with_a_reason() {
    for (command, sent, why) in [
        ("scp -t .", &b"X\n"[..], "protocol error: not a line of scp"),
        ("scp -t .", b"C0644 5 ../f\nhello\0", "unexpected filename"),
        ("scp -t .", b"C0644 5 a/f\nhello\0", "unexpected filename"),
        ("scp -rt .", b"D0755 0 ..\n", "unexpected filename"),
        (
            "scp -t .",
            b"D0755 0 d\n",
            "received a directory without -r",
        ),
        ("scp -rt .", b"E\n", "no directory is open"),
        (
            "scp -t .",
            b"C0644 18446744073709551616 f\n",
            "size not delimited",
        ),
        ("scp -t .", &[b'C'; 20_000], "a line is too long"),
    ] {
        let vfs = in_memory().await;
        let (output, status) = scp(&vfs, command, sent).await;
        assert_eq!(status, 1, "{why}");
        assert_eq!(output.get(..2), Some(&b"\0\x02"[..]), "{why}");
        let said = String::from_utf8_lossy(&output);
        assert!(said.contains(why), "{said}");
        assert_eq!(run_on(&vfs, b"ls -A", b"").await.text(), "");
    }
}

#[tokio::test]
async fn a_file_that_ends_early_or_is_taken_back_is_no_whole_file() {
    let vfs = in_memory().await;
    assert_eq!(scp(&vfs, "scp -t f", b"C0644 3 f\nold\0").await.1, 0);
    // The connection ends within the content, or the sender says that it could not read.
    for sent in [
        &b"C0644 9 f\nnew"[..],
        b"C0644 3 f\nnew",
        b"C0644 3 f\nnew\x01cannot read\n",
    ] {
        assert_eq!(scp(&vfs, "scp -t f", sent).await.1, 1);
        assert_eq!(content(&vfs, "f").await.as_deref(), Some(&b"old"[..]));
    }
}

#[tokio::test]
async fn a_file_over_the_quota_is_refused_before_its_content() {
    let limits = QuotaLimits {
        bytes: Some(10),
        files: None,
    };
    let vfs = in_memory_with(PermissionRules::default(), limits).await;
    let sent = b"C0644 11 f\nC0644 10 g\n0123456789\0";
    let (output, status) = scp(&vfs, "scp -t .", sent).await;
    let expected = b"\0\x01scp: f: Disk quota exceeded\n\0\0";
    assert_eq!((output.as_slice(), status), (&expected[..], 1));
    assert_eq!(
        content(&vfs, "g").await.as_deref(),
        Some(&b"0123456789"[..])
    );
}

#[tokio::test]
async fn permissions_are_those_of_the_account() {
    let rules = PermissionRules::new(Permissions::LIST | Permissions::WRITE, Vec::new());
    let vfs = in_memory_with(rules, QuotaLimits::default()).await;
    assert_eq!(
        scp(&vfs, "scp -t .", b"C0644 1 f\nx\0").await,
        (vec![0; 3], 0)
    );
    for (command, sent) in [
        ("scp -f f", &b"\0"[..]),
        ("scp -t .", b"C0644 1 f\nx\0"),
        ("scp -rt .", b"D0755 0 d\n"),
        // Mode and times cannot be set; the file is there all the same.
        ("scp -pt .", b"T1 0 1 0\nC0644 1 g\nx\0"),
    ] {
        let (output, status) = scp(&vfs, command, sent).await;
        let said = String::from_utf8_lossy(&output);
        assert!(
            status == 1 && said.contains("Permission denied"),
            "{command}: {said:?}"
        );
    }
    assert!(run_on(&vfs, b"test -f g", b"").await.status == 0);
}

#[tokio::test]
async fn what_is_sent_waits_for_its_answers_and_goes_around_refusals() {
    let vfs = in_memory().await;
    let made = "mkdir -p t/d; echo 1 >t/a; echo 2 >t/d/b; touch -d @7 t/a t/d/b; touch -d @8 t/d; touch -d @9 t";
    assert_eq!(run_on(&vfs, made.as_bytes(), b"").await.status, 0);
    let (output, status) = scp(&vfs, "scp -rpf t", &[0; 20]).await;
    let expected = "T9 0 9 0\nD0755 0 t\nT7 0 7 0\nC0644 2 a\n1\n\0\
                    T8 0 8 0\nD0755 0 d\nT7 0 7 0\nC0644 2 b\n2\n\0E\nE\n";
    assert_eq!(
        (String::from_utf8_lossy(&output).as_ref(), status),
        (expected, 0)
    );
    // The directory is refused, the rest is not; then the other end gives up.
    let answers = b"\0\0\0\0\x01no\n\0";
    let (output, status) = scp(&vfs, "scp -rf t", answers).await;
    let expected = "D0755 0 t\nC0644 2 a\n1\n\0D0755 0 d\nE\n";
    assert_eq!(
        (String::from_utf8_lossy(&output).as_ref(), status),
        (expected, 1)
    );
    let (output, status) = scp(&vfs, "scp -rf t", b"\0\0\x02no\n").await;
    let expected = "D0755 0 t\nC0644 2 a\n";
    assert_eq!(
        (String::from_utf8_lossy(&output).as_ref(), status),
        (expected, 1)
    );
}
