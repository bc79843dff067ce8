//! Single files between a folder and a scripted server.

use tokio::time::Instant;
use wharf_model::DigestAlgorithm;

use super::*;
use crate::batch::{Work, run_batch};
use crate::error::ErrorKind;
use crate::fake::{
    Act, After, EVERYTHING, FakeServer, Folder, NEW_YEAR_2020, OLD, Recorder, at, path,
};
use crate::plan::Overwrite;

const CONTENT: &[u8] = b"0123456789";
const SHA256: Verified = Verified::Digest(DigestAlgorithm::Sha256);
const PROVEN: Evidence = Evidence::Digest(DigestAlgorithm::Sha256);

fn download(folder: &Folder) -> Download {
    Download {
        remote: path("/a"),
        listed: None,
        tree: folder.tree.clone(),
        local: path("/a"),
    }
}

fn upload(folder: &Folder) -> Upload {
    Upload {
        tree: folder.tree.clone(),
        local: path("/a"),
        remote: path("/a"),
        listed: Listed::Unknown,
    }
}

fn tries(retries: u32) -> TransferOptions {
    TransferOptions {
        retries,
        ..TransferOptions::default()
    }
}

fn overwriting(overwrite: Overwrite) -> TransferOptions {
    let resume = Resume::default();
    TransferOptions {
        policy: Policy { overwrite, resume },
        ..TransferOptions::default()
    }
}

/// A server with `/a`, and an empty folder.
async fn setting(features: &[&'static str]) -> (FakeServer, Folder) {
    let server = FakeServer::start(features).await;
    server.put("/a", CONTENT, NEW_YEAR_2020);
    (server, Folder::new())
}

fn resumed(offset: u64, evidence: Evidence) -> Done {
    Done::Resumed { offset, evidence }
}

#[tokio::test]
async fn a_download_is_verified_and_keeps_its_time() {
    let (server, folder) = setting(EVERYTHING).await;
    let (transfers, events) = server.transfers(tries(0));
    let outcome = transfers.download(&download(&folder)).await.expect("works");
    assert_eq!((outcome.done, outcome.verified), (Done::Whole, SHA256));
    assert_eq!(
        (outcome.size, outcome.moved_bytes, outcome.attempts),
        (10, 10, 1)
    );
    assert_eq!(folder.content("a").expect("is there"), CONTENT);
    let entry = folder
        .tree
        .stat(&path("/a"))
        .expect("stats")
        .expect("is there");
    assert_eq!(entry.modified, Some(at(NEW_YEAR_2020)));
    assert_eq!(events.events(), ["started at 0 None"]);
    assert_eq!(folder.names(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_download_goes_on_where_its_begin_is_proven() {
    let (server, folder) = setting(EVERYTHING).await;
    server.once("RETR", Act::Cut(4, After::Say("426 Cut.")));
    let (transfers, events) = server.transfers(tries(1));
    let outcome = transfers.download(&download(&folder)).await.expect("works");
    assert_eq!(
        (outcome.done, outcome.verified),
        (resumed(4, PROVEN), SHA256)
    );
    assert_eq!((outcome.moved_bytes, outcome.attempts), (10, 2));
    assert_eq!(folder.content("a").expect("is there"), CONTENT);
    assert_eq!(
        events.events(),
        [
            "started at 0 None",
            "retrying 2",
            "started at 4 Some(Digest(Sha256))"
        ]
    );
    assert_eq!(server.commands("REST"), ["REST 4"]);
}

#[tokio::test]
async fn a_later_command_goes_on_with_what_an_earlier_one_left() {
    for (features, evidence) in [(EVERYTHING, PROVEN), (OLD, Evidence::SizeAndTime)] {
        let (server, folder) = setting(features).await;
        server.once("RETR", Act::Cut(4, After::Reset));
        let (first, _) = server.transfers(tries(0));
        // A reset may overtake the bytes before it.
        let error = first.download(&download(&folder)).await.expect_err("cut");
        assert_eq!(error.kind(), ErrorKind::Network);
        folder.put(".a.wharf-part", &CONTENT[..4], NEW_YEAR_2020);
        assert_eq!(folder.content("a"), None);
        let (second, _) = server.transfers(tries(0));
        let outcome = second.download(&download(&folder)).await.expect("works");
        assert_eq!(outcome.done, resumed(4, evidence));
        assert_eq!(outcome.moved_bytes, 6);
        assert_eq!(folder.content("a").expect("is there"), CONTENT);
        assert_eq!(folder.names(), ["a"]);
    }
}

#[tokio::test]
async fn a_partial_of_something_else_is_started_over() {
    let (server, folder) = setting(EVERYTHING).await;
    folder.put(".a.wharf-part", b"01XX", NEW_YEAR_2020 + 60);
    let (transfers, _) = server.transfers(tries(0));
    let outcome = transfers.download(&download(&folder)).await.expect("works");
    assert_eq!((outcome.done, outcome.moved_bytes), (Done::Whole, 10));
    assert_eq!(folder.content("a").expect("is there"), CONTENT);
    assert_eq!(server.commands("REST").len(), 0);
}

#[tokio::test]
async fn a_partial_older_than_its_source_needs_a_proof() {
    let (server, folder) = setting(OLD).await;
    folder.put(".a.wharf-part", &CONTENT[..4], NEW_YEAR_2020 - 60);
    let (transfers, _) = server.transfers(tries(0));
    let outcome = transfers.download(&download(&folder)).await.expect("works");
    assert_eq!(outcome.done, Done::Whole);
    assert_eq!(server.commands("REST").len(), 0);
}

#[tokio::test]
async fn a_partial_that_is_whole_already_is_only_verified() {
    let (server, folder) = setting(EVERYTHING).await;
    folder.put(".a.wharf-part", CONTENT, NEW_YEAR_2020);
    let (transfers, _) = server.transfers(tries(0));
    let outcome = transfers.download(&download(&folder)).await.expect("works");
    assert_eq!((outcome.moved_bytes, outcome.verified), (0, SHA256));
    assert_eq!(folder.content("a").expect("is there"), CONTENT);
    assert_eq!(server.commands("RETR").len(), 0);
}

const WRONG: Act = Act::Say(
    "213 SHA-256 0-10 0000000000000000000000000000000000000000000000000000000000000000 /a",
);

#[tokio::test]
async fn a_resumed_file_that_proves_wrong_is_fetched_once_more_from_its_begin() {
    let (server, folder) = setting(EVERYTHING).await;
    folder.put(".a.wharf-part", &CONTENT[..4], NEW_YEAR_2020);
    server.once("HASH", Act::Behave);
    server.once("HASH", WRONG);
    let (transfers, events) = server.transfers(tries(5));
    let outcome = transfers.download(&download(&folder)).await.expect("works");
    assert_eq!((outcome.done, outcome.verified), (Done::Whole, SHA256));
    assert_eq!(folder.content("a").expect("is there"), CONTENT);
    assert_eq!(
        events.events(),
        [
            "started at 4 Some(Digest(Sha256))",
            "retrying 2",
            "started at 0 None"
        ]
    );
}

#[tokio::test]
async fn a_whole_file_that_proves_wrong_is_an_error_and_the_old_one_stays() {
    let (server, folder) = setting(EVERYTHING).await;
    folder.put("a", b"old", 1);
    server.always("HASH", WRONG);
    let (transfers, _) = server.transfers(tries(5));
    let error = transfers.download(&download(&folder)).await;
    assert!(
        matches!(error, Err(ClientError::DigestMismatch { .. })),
        "{error:?}"
    );
    assert_eq!(folder.content("a").expect("is there"), b"old");
    assert_eq!(folder.names(), ["a"], "what is proven wrong is not kept");
    assert_eq!(server.commands("RETR").len(), 1);
}

#[tokio::test]
async fn a_server_that_refuses_its_digest_is_believed_by_size() {
    let (server, folder) = setting(EVERYTHING).await;
    server.always("HASH", Act::Say("550 Not for you."));
    let (transfers, _) = server.transfers(tries(0));
    let outcome = transfers.download(&download(&folder)).await.expect("works");
    assert_eq!(outcome.verified, Verified::Size);
}

#[tokio::test(start_paused = true)]
async fn a_download_that_ends_early_without_a_word_goes_on() {
    for features in [EVERYTHING, OLD] {
        let (server, folder) = setting(features).await;
        server.once("RETR", Act::Cut(6, After::Say("226 Done.")));
        let (transfers, _) = server.transfers(tries(1));
        let outcome = transfers.download(&download(&folder)).await.expect("works");
        assert!(matches!(outcome.done, Done::Resumed { offset: 6, .. }));
        assert_eq!(folder.content("a").expect("is there"), CONTENT);
    }
}

#[tokio::test]
async fn a_server_that_announces_rest_and_refuses_it_sends_the_whole() {
    let (server, folder) = setting(EVERYTHING).await;
    folder.put(".a.wharf-part", &CONTENT[..4], NEW_YEAR_2020);
    server.always("REST", Act::Say("502 Not implemented."));
    let (transfers, _) = server.transfers(tries(1));
    let outcome = transfers.download(&download(&folder)).await.expect("works");
    assert_eq!(outcome.done, Done::Whole);
    assert_eq!(folder.content("a").expect("is there"), CONTENT);
    server.put_incomplete("/a", &CONTENT[..4], NEW_YEAR_2020);
    let outcome = transfers.upload(&upload(&folder)).await.expect("works");
    assert_eq!(outcome.done, Done::Whole);
    assert_eq!(server.content("/a").expect("is there"), CONTENT);
}

#[tokio::test(start_paused = true)]
async fn passing_failures_are_retried_after_growing_waits() {
    let (server, folder) = setting(EVERYTHING).await;
    server.once("RETR", Act::Say("421 Restarting."));
    server.once("RETR", Act::Say("426 Cut."));
    server.once("RETR", Act::Cut(0, After::Reset));
    server.once("RETR", Act::HangUp);
    let (transfers, _) = server.transfers(tries(4));
    let started = Instant::now();
    let outcome = transfers.download(&download(&folder)).await.expect("works");
    assert_eq!(outcome.attempts, 5);
    assert_eq!(folder.content("a").expect("is there"), CONTENT);
    // 0.5, 1, 2 and 4 seconds, of which a random half is taken away.
    let waited = started.elapsed().as_millis();
    assert!((3750..8500).contains(&waited), "{waited} ms");
}

#[tokio::test(start_paused = true)]
async fn retries_end_and_lasting_refusals_are_not_retried() {
    for (reply, attempts) in [
        ("426 Cut.", 3),
        ("450 Busy.", 3),
        ("550 Permission denied.", 1),
        ("550 No such file.", 1),
    ] {
        let (server, folder) = setting(EVERYTHING).await;
        server.always("RETR", Act::Say(reply));
        let (transfers, _) = server.transfers(tries(2));
        transfers
            .download(&download(&folder))
            .await
            .expect_err(reply);
        assert_eq!(server.commands("RETR").len(), attempts, "{reply}");
        assert_eq!(folder.names(), [""; 0], "{reply}");
    }
    for (reply, kind) in [
        ("552 Over quota.", ErrorKind::Quota),
        ("452 Disk full.", ErrorKind::ServerDiskFull),
    ] {
        let (server, folder) = setting(EVERYTHING).await;
        folder.put("a", b"new", 1);
        server.always("STOR", Act::Cut(1, After::Say(reply)));
        let (transfers, _) = server.transfers(tries(2));
        let error = transfers.upload(&upload(&folder)).await.expect_err(reply);
        assert_eq!(error.kind(), kind, "{reply}");
        assert_eq!(server.commands("STOR").len(), 1, "{reply}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_keeps_to_its_size_is_given_up() {
    // Each attempt moves megabytes and gets no further than the one before.
    for bytes in [1_500_000, 3_000_000] {
        let (server, folder) = setting(&["MLST type*;size*;modify*;"]).await;
        server.put("/a", &vec![b'x'; bytes], NEW_YEAR_2020);
        server.always(
            "MLST",
            Act::Say("250-Facts\r\n type=file;size=2000000;modify=20200101000000; /a\r\n250 End"),
        );
        let (transfers, _) = server.transfers(tries(2));
        let error = transfers.download(&download(&folder)).await;
        assert!(
            matches!(error, Err(ClientError::SizeMismatch { .. })),
            "{error:?}"
        );
        // The first one got far, so that two more follow it in full.
        assert_eq!(server.commands("RETR").len(), 3, "{bytes}");
        let kept = folder.content(".a.wharf-part").expect("is kept").len();
        assert!(kept < 2_500_000, "{kept}");
    }
}

#[tokio::test]
async fn a_download_without_end_is_cut_where_it_should_have_ended() {
    let (server, folder) = setting(EVERYTHING).await;
    server.always("RETR", Act::EndlessData(&[b'x'; 1000]));
    let (transfers, _) = server.transfers(tries(0));
    let error = transfers.download(&download(&folder)).await;
    assert!(
        matches!(error, Err(ClientError::SizeMismatch { .. })),
        "{error:?}"
    );
    assert_eq!(folder.names(), [".a.wharf-part"]);
    let kept = folder.content(".a.wharf-part").expect("is kept").len();
    assert!((11..1_000_000).contains(&kept), "{kept}");
}

#[tokio::test]
async fn an_interrupted_download_keeps_what_it_has() {
    let (server, folder) = setting(EVERYTHING).await;
    folder.put("a", b"old", 1);
    server.once("RETR", Act::Cut(4, After::Stall));
    let (transfers, events) = server.transfers(tries(5));
    events.cancel_at_progress();
    let error = transfers.download(&download(&folder)).await;
    assert!(matches!(error, Err(ClientError::Interrupted)), "{error:?}");
    assert_eq!(folder.content("a").expect("is there"), b"old");
    let kept = folder.content(".a.wharf-part").expect("is kept");
    assert_eq!(kept, CONTENT[..kept.len()]);
    assert!(!kept.is_empty());
}

#[tokio::test]
async fn an_interrupted_upload_ends_at_once() {
    let (server, folder) = setting(EVERYTHING).await;
    folder.put("a", &[b'x'; 30_000_000], 1);
    server.always("STOR", Act::Cut(1000, After::Stall));
    let (transfers, events) = server.transfers(tries(5));
    events.cancel_at_progress();
    let error = transfers.upload(&upload(&folder)).await;
    assert!(matches!(error, Err(ClientError::Interrupted)), "{error:?}");
    assert_eq!(server.commands("STOR").len(), 1);
}

#[tokio::test]
async fn an_upload_is_verified_and_keeps_its_time() {
    for (features, verified) in [(EVERYTHING, SHA256), (OLD, Verified::Size)] {
        let server = FakeServer::start(features).await;
        let folder = Folder::new();
        folder.put("a", CONTENT, NEW_YEAR_2020);
        let (transfers, _) = server.transfers(tries(0));
        let outcome = transfers.upload(&upload(&folder)).await.expect("works");
        assert_eq!((outcome.done, outcome.verified), (Done::Whole, verified));
        assert_eq!(server.content("/a").expect("is there"), CONTENT);
    }
}

#[tokio::test]
async fn an_upload_goes_on_where_the_server_proves_what_it_has() {
    let server = FakeServer::start(EVERYTHING).await;
    let folder = Folder::new();
    folder.put("a", CONTENT, NEW_YEAR_2020);
    server.put_incomplete("/a", &CONTENT[..4], NEW_YEAR_2020 + 60);
    let (transfers, _) = server.transfers(tries(0));
    let outcome = transfers.upload(&upload(&folder)).await.expect("works");
    assert_eq!(
        (outcome.done, outcome.verified),
        (resumed(4, PROVEN), SHA256)
    );
    assert_eq!(outcome.moved_bytes, 6);
    assert_eq!(server.content("/a").expect("is there"), CONTENT);
    assert_eq!(server.commands("SITE"), ["SITE PARTIAL /a"]);
    assert_eq!(server.modified("/a"), at(NEW_YEAR_2020));
}

#[tokio::test]
async fn an_upload_starts_over_where_the_server_has_something_else() {
    let server = FakeServer::start(EVERYTHING).await;
    let folder = Folder::new();
    folder.put("a", CONTENT, NEW_YEAR_2020);
    server.put_incomplete("/a", b"01XX", NEW_YEAR_2020 + 60);
    let (transfers, _) = server.transfers(tries(0));
    let outcome = transfers.upload(&upload(&folder)).await.expect("works");
    assert_eq!((outcome.done, outcome.moved_bytes), (Done::Whole, 10));
    assert_eq!(server.content("/a").expect("is there"), CONTENT);
}

#[tokio::test(start_paused = true)]
async fn a_cut_upload_goes_on_by_itself() {
    for (features, evidence) in [(EVERYTHING, PROVEN), (OLD, Evidence::SameTransfer)] {
        let server = FakeServer::start(features).await;
        let folder = Folder::new();
        folder.put("a", CONTENT, NEW_YEAR_2020);
        server.once("STOR", Act::Cut(4, After::Say("426 Cut.")));
        let (transfers, _) = server.transfers(tries(1));
        let outcome = transfers.upload(&upload(&folder)).await.expect("works");
        assert_eq!(outcome.done, resumed(4, evidence));
        assert_eq!(server.content("/a").expect("is there"), CONTENT);
        assert_eq!(server.commands("REST"), ["REST 4"]);
    }
}

#[tokio::test]
async fn a_complete_file_is_not_taken_for_a_begin_unless_someone_says_so() {
    let bytewise = Policy {
        resume: Resume::BySize,
        ..Policy::default()
    };
    for (policy, done, content) in [
        (Policy::default(), Done::Whole, CONTENT),
        (bytewise, resumed(4, Evidence::Size), b"AAAA456789"),
    ] {
        let server = FakeServer::start(OLD).await;
        server.put("/a", b"AAAA", NEW_YEAR_2020 + 100);
        let folder = Folder::new();
        folder.put("a", CONTENT, NEW_YEAR_2020);
        let (transfers, _) = server.transfers(TransferOptions { policy, ..tries(0) });
        let outcome = transfers.upload(&upload(&folder)).await.expect("works");
        assert_eq!(outcome.done, done);
        assert_eq!(server.content("/a").expect("is there"), content);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_while_it_is_uploaded_is_uploaded_again() {
    let other = b"abcdefghij";
    for features in [EVERYTHING, OLD] {
        for retries in [0, 1] {
            let server = FakeServer::start(features).await;
            let folder = Folder::new();
            folder.put("a", CONTENT, NEW_YEAR_2020);
            let (transfers, events) = server.transfers(tries(retries));
            let dir = folder.dir.try_clone().expect("a handle");
            events.at_progress(move || dir.write("a", other).expect("writes"));
            let result = transfers.upload(&upload(&folder)).await;
            if retries == 0 {
                assert!(matches!(result, Err(ClientError::SourceChanged)));
                assert_ne!(server.content("/a").as_deref(), Some(CONTENT));
            } else {
                assert_eq!(result.expect("works").attempts, 2);
                assert_eq!(server.content("/a").expect("is there"), other);
            }
        }
    }
}

/// Does `work` in the wait before the second attempt.
async fn before_the_second_attempt(events: &Recorder, work: impl FnOnce()) {
    while !events.events().iter().any(|event| event == "retrying 2") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    work();
}

#[tokio::test(start_paused = true)]
async fn a_source_that_changes_between_two_attempts_is_moved_whole() {
    let other = b"abcdefghij";
    for resume in [Resume::WhenLikely, Resume::BySize] {
        let options = TransferOptions {
            policy: Policy {
                resume,
                ..Policy::default()
            },
            ..tries(1)
        };
        for time in [NEW_YEAR_2020 - 50, NEW_YEAR_2020 + 50] {
            let server = FakeServer::start(OLD).await;
            let folder = Folder::new();
            folder.put("a", CONTENT, NEW_YEAR_2020);
            server.once("STOR", Act::Cut(4, After::Say("426 Cut.")));
            let (transfers, events) = server.transfers(options);
            let upload = upload(&folder);
            let (outcome, ()) = tokio::join!(
                transfers.upload(&upload),
                before_the_second_attempt(&events, || folder.put("a", other, time)),
            );
            assert_eq!(outcome.expect("works").done, Done::Whole);
            assert_eq!(server.content("/a").expect("is there"), other);

            let (server, folder) = setting(OLD).await;
            server.once("RETR", Act::Cut(4, After::Say("426 Cut.")));
            let (transfers, events) = server.transfers(options);
            let download = download(&folder);
            let (outcome, ()) = tokio::join!(
                transfers.download(&download),
                before_the_second_attempt(&events, || server.put("/a", other, time)),
            );
            assert_eq!(outcome.expect("works").done, Done::Whole);
            assert_eq!(folder.content("a").expect("is there"), other);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_the_first_attempt_never_touched_is_not_its_work() {
    let server = FakeServer::start(OLD).await;
    let put_old = || server.put("/a", b"AAAA", NEW_YEAR_2020 + 100);
    put_old();
    let folder = Folder::new();
    folder.put("a", CONTENT, NEW_YEAR_2020);
    server.once("STOR", Act::Cut(7, After::Say("426 Cut.")));
    let (transfers, events) = server.transfers(tries(1));
    let upload = upload(&folder);
    let (outcome, ()) = tokio::join!(
        transfers.upload(&upload),
        // As a server does that writes to a file of its own first.
        before_the_second_attempt(&events, put_old),
    );
    assert_eq!(outcome.expect("works").done, Done::Whole);
    assert_eq!(server.content("/a").expect("is there"), CONTENT);
}

#[tokio::test(start_paused = true)]
async fn a_cut_upload_goes_on_even_where_nothing_may_be_replaced() {
    for features in [EVERYTHING, OLD] {
        let server = FakeServer::start(features).await;
        let folder = Folder::new();
        folder.put("a", CONTENT, NEW_YEAR_2020);
        server.once("STOR", Act::Cut(4, After::Say("426 Cut.")));
        let options = TransferOptions {
            retries: 1,
            ..overwriting(Overwrite::Never)
        };
        let (transfers, _) = server.transfers(options);
        let outcome = transfers.upload(&upload(&folder)).await.expect("works");
        assert!(matches!(outcome.done, Done::Resumed { offset: 4, .. }));
        assert_eq!(server.content("/a").expect("is there"), CONTENT);
    }
}

#[tokio::test]
async fn a_partial_of_a_newer_source_needs_a_proof() {
    let (server, folder) = setting(OLD).await;
    folder.put(".a.wharf-part", b"XXXX", NEW_YEAR_2020 + 60);
    let (transfers, _) = server.transfers(tries(0));
    let outcome = transfers.download(&download(&folder)).await.expect("works");
    assert_eq!(outcome.done, Done::Whole);
    assert_eq!(folder.content("a").expect("is there"), CONTENT);
}

#[tokio::test]
async fn existing_files_are_treated_as_the_policy_says() {
    use Overwrite::{Always, IfDifferent, IfDigestDiffers, IfNewer, IfSizeDiffers, Never};
    let older = NEW_YEAR_2020 - 100;
    let newer = NEW_YEAR_2020 + 100;
    let same = b"0123456789";
    let other = b"9876543210";
    for (policy, standing, time, moves) in [
        (IfDifferent, other, NEW_YEAR_2020, false),
        (IfDifferent, same, older, true),
        (IfNewer, other, newer, false),
        (IfNewer, other, older, true),
        (IfSizeDiffers, other, older, false),
        (IfDigestDiffers, same, older, false),
        (IfDigestDiffers, other, NEW_YEAR_2020, true),
        (Never, other, older, false),
        (Always, same, NEW_YEAR_2020, true),
    ] {
        let (server, folder) = setting(EVERYTHING).await;
        folder.put("a", standing, time);
        let (transfers, _) = server.transfers(overwriting(policy));
        let outcome = transfers.download(&download(&folder)).await.expect("works");
        let shown = format!("{policy:?} {time}: {:?}", outcome.done);
        assert_eq!(!matches!(outcome.done, Done::Skipped(_)), moves, "{shown}");
        let expected: &[u8] = if moves { CONTENT } else { standing };
        assert_eq!(folder.content("a").expect("is there"), expected, "{shown}");

        let (server, folder) = setting(EVERYTHING).await;
        server.put("/a", standing, time);
        folder.put("a", CONTENT, NEW_YEAR_2020);
        let (transfers, _) = server.transfers(overwriting(policy));
        let outcome = transfers.upload(&upload(&folder)).await.expect("works");
        let shown = format!("{policy:?} {time}: {:?}", outcome.done);
        assert_eq!(!matches!(outcome.done, Done::Skipped(_)), moves, "{shown}");
        let expected: &[u8] = if moves { CONTENT } else { standing };
        assert_eq!(server.content("/a").expect("is there"), expected, "{shown}");
        assert_eq!(folder.names(), ["a"], "{shown}");
    }
}

#[tokio::test]
async fn a_digest_that_nobody_makes_cannot_be_compared() {
    let (server, folder) = setting(OLD).await;
    folder.put("a", CONTENT, 1);
    let (transfers, events) = server.transfers(overwriting(Overwrite::IfDigestDiffers));
    let error = transfers.download(&download(&folder)).await;
    assert!(
        matches!(error, Err(ClientError::Unsupported(_))),
        "{error:?}"
    );
    assert_eq!(events.events().len(), 1, "it is not tried again");
}

#[tokio::test]
async fn directories_are_no_files() {
    let server = FakeServer::start(OLD).await;
    server.make_directory("/a");
    let folder = Folder::new();
    let (transfers, _) = server.transfers(tries(0));
    let error = transfers.download(&download(&folder)).await;
    assert!(matches!(error, Err(ClientError::IsADirectory)), "{error:?}");
    folder.put("a", CONTENT, 1);
    let error = transfers.upload(&upload(&folder)).await;
    assert!(matches!(error, Err(ClientError::IsADirectory)), "{error:?}");
}

#[tokio::test]
async fn a_server_that_takes_one_connection_gets_one() {
    let (server, folder) = setting(EVERYTHING).await;
    server.put("/b", b"b", NEW_YEAR_2020);
    server.once("CONNECT", Act::Behave);
    server.always("CONNECT", Act::Say("421 Too many connections."));
    let (transfers, _) = server.transfers(tries(0));
    let other = Download {
        remote: path("/b"),
        local: path("/b"),
        ..download(&folder)
    };
    let work = vec![Work::Download(download(&folder)), Work::Download(other)];
    let summary = run_batch(&transfers, work, 2).await;
    assert_eq!((summary.transferred, summary.failed), (2, 0), "{summary:?}");
    assert_eq!(folder.names(), ["a", "b"]);
}

#[tokio::test]
async fn what_meets_every_file_ends_a_batch() {
    let server = FakeServer::start(EVERYTHING).await;
    let folder = Folder::new();
    let work = (0..20)
        .map(|number| {
            folder.put(&number.to_string(), b"x", 1);
            Work::Upload(Upload {
                local: path(&format!("/{number}")),
                remote: path(&format!("/{number}")),
                ..upload(&folder)
            })
        })
        .collect();
    server.always("STOR", Act::Say("552 Over quota."));
    let (transfers, _) = server.transfers(tries(0));
    let summary = run_batch(&transfers, work, 1).await;
    assert_eq!((summary.failed, summary.not_tried), (1, 19));
    assert_eq!(summary.first_failure, Some(ErrorKind::Quota));
}
