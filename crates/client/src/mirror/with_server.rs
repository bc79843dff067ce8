//! Whole trees between a folder and a scripted server.

use std::sync::Arc;

use wharf_model::VirtualPath;

use super::*;
use crate::error::ErrorKind;
use crate::fake::{Act, EVERYTHING, FakeServer, Folder, NEW_YEAR_2020, OLD, Recorder, path};
use crate::transfer::TransferOptions;

fn ends(direction: Direction, folder: &Folder, remote: &str) -> MirrorEnds {
    MirrorEnds {
        direction,
        remote: path(remote),
        tree: folder.tree.clone(),
        local: VirtualPath::root(),
    }
}

fn options(delete: bool) -> MirrorOptions {
    MirrorOptions {
        parallel: 2,
        delete,
        ..MirrorOptions::default()
    }
}

fn transfers(server: &FakeServer) -> (Transfers, Arc<Recorder>) {
    server.transfers(TransferOptions {
        retries: 0,
        ..TransferOptions::default()
    })
}

/// The events that tell of steps and not of single files, in order.
fn steps(recorder: &Recorder) -> Vec<String> {
    let mut steps = recorder.events();
    steps.retain(|event| !event.starts_with("started"));
    steps.sort();
    steps
}

fn put_source(server: &FakeServer) {
    server.put("/s/a", b"new", NEW_YEAR_2020);
    server.put("/s/d/e/b", b"deep", NEW_YEAR_2020);
    server.make_directory("/s/empty");
}

#[tokio::test]
async fn a_download_makes_the_folder_like_the_server() {
    for features in [EVERYTHING, OLD] {
        let server = FakeServer::start(features).await;
        put_source(&server);
        let folder = Folder::new();
        folder.put("a", b"old content", 1);
        folder.put("gone/x", b"x", 1);
        let (transfers, recorder) = transfers(&server);
        let ends = ends(Direction::Download, &folder, "/s");
        let summary = mirror(&transfers, &ends, &options(true))
            .await
            .expect("works");
        assert!(summary.is_complete(), "{summary:?} {:?}", recorder.events());
        assert_eq!((summary.transferred, summary.removed), (2, 2));
        assert_eq!(folder.names(), ["a", "d", "d/e", "d/e/b", "empty"]);
        assert_eq!(folder.content("a").expect("is there"), b"new");
        assert_eq!(
            steps(&recorder),
            [
                "made d",
                "made d/e",
                "made empty",
                "removed gone",
                "removed gone/x"
            ]
        );
        // Nothing is left to do.
        let again = mirror(&transfers, &ends, &options(true))
            .await
            .expect("works");
        assert_eq!((again.transferred, again.skipped, again.removed), (0, 2, 0));
    }
}

#[tokio::test]
async fn an_upload_makes_the_server_like_the_folder_even_where_nothing_is_yet() {
    for features in [EVERYTHING, OLD] {
        let server = FakeServer::start(features).await;
        let folder = Folder::new();
        folder.put("a", b"new", NEW_YEAR_2020);
        folder.put("d/e/b", b"deep", NEW_YEAR_2020);
        let (transfers, recorder) = transfers(&server);
        let ends = ends(Direction::Upload, &folder, "/not/yet");
        let summary = mirror(&transfers, &ends, &options(true))
            .await
            .expect("works");
        assert!(summary.is_complete(), "{summary:?} {:?}", recorder.events());
        assert_eq!((summary.transferred, summary.directories_made), (2, 2));
        let tree = [
            "/not",
            "/not/yet",
            "/not/yet/a",
            "/not/yet/d",
            "/not/yet/d/e",
        ];
        assert_eq!(server.tree()[..5], tree);
        assert_eq!(server.content("/not/yet/d/e/b").expect("is there"), b"deep");
        server.put("/not/yet/gone/x", b"x", 1);
        let summary = mirror(&transfers, &ends, &options(false))
            .await
            .expect("works");
        assert_eq!(summary.removed, 0, "nothing is removed unasked");
        let summary = mirror(&transfers, &ends, &options(true))
            .await
            .expect("works");
        assert_eq!((summary.removed, summary.failed), (2, 0));
        assert_eq!(server.tree().len(), 6);
    }
}

#[tokio::test]
async fn a_dry_run_tells_everything_and_does_nothing() {
    let server = FakeServer::start(EVERYTHING).await;
    put_source(&server);
    let folder = Folder::new();
    folder.put("a", b"new", NEW_YEAR_2020);
    folder.put("gone", b"x", 1);
    let dry = MirrorOptions {
        dry_run: true,
        ..options(true)
    };
    let (transfers, recorder) = transfers(&server);
    let down = ends(Direction::Download, &folder, "/s");
    let summary = mirror(&transfers, &down, &dry).await.expect("works");
    assert_eq!(summary, Summary::default());
    assert_eq!(
        steps(&recorder),
        [
            "would MakeDirectory(Local) d",
            "would MakeDirectory(Local) d/e",
            "would MakeDirectory(Local) empty",
            "would Remove(Local) gone",
            "would Transfer(Download) d/e/b",
        ]
    );
    assert_eq!(folder.names(), ["a", "gone"]);
    let before = server.tree();
    let up = ends(Direction::Upload, &folder, "/s");
    mirror(&transfers, &up, &dry).await.expect("works");
    assert_eq!(server.tree(), before);
    for verb in ["STOR", "DELE", "RMD", "MKD"] {
        assert_eq!(server.commands(verb).len(), 0, "{verb}");
    }
}

#[tokio::test]
async fn nothing_is_removed_after_a_failure() {
    let server = FakeServer::start(EVERYTHING).await;
    put_source(&server);
    server.always("RETR /s/a", Act::Say("550 Permission denied."));
    let folder = Folder::new();
    folder.put("gone", b"x", 1);
    let (transfers, _) = transfers(&server);
    let down = ends(Direction::Download, &folder, "/s");
    let summary = mirror(&transfers, &down, &options(true))
        .await
        .expect("works");
    assert_eq!((summary.failed, summary.removed), (1, 0));
    assert_eq!(folder.content("gone").expect("stays"), b"x");
}

#[tokio::test]
async fn half_a_source_is_no_source() {
    let server = FakeServer::start(EVERYTHING).await;
    put_source(&server);
    server.always("MLSD /s/d/e", Act::Say("550 Permission denied."));
    let folder = Folder::new();
    folder.put("gone", b"x", 1);
    let (transfers, _) = transfers(&server);
    let down = ends(Direction::Download, &folder, "/s");
    let error = mirror(&transfers, &down, &options(true)).await;
    assert_eq!(error.expect_err("unseen").kind(), ErrorKind::Refused);
    assert_eq!(folder.names(), ["gone"]);
    let down = ends(Direction::Download, &folder, "/none");
    let error = mirror(&transfers, &down, &options(true)).await;
    assert_eq!(error.expect_err("missing").kind(), ErrorKind::NotFound);
    assert_eq!(folder.names(), ["gone"]);
}

#[tokio::test]
async fn hostile_names_never_leave_the_folder() {
    let facts = Act::Data(
        b"type=file;size=4;modify=20200101000000; ../x\r\n\
          type=file;size=4;modify=20200101000000; a/b\r\n\
          type=file;size=4;modify=20200101000000; /etc/x\r\n\
          type=file;size=4;modify=20200101000000; ..\r\n\
          type=dir; ..\r\ntype=dir; ../y\r\ntype=dir; .\r\ntype=dir; out\r\n\
          type=file;size=4;modify=20200101000000; x\0y\r\n\
          type=file;size=4;modify=20200101000000; e\x1b[2Jvil\r\n",
    );
    let list = Act::Data(
        b"-rw-r--r-- 1 0 0 4 Jan 01  2020 ../x\r\n\
          -rw-r--r-- 1 0 0 4 Jan 01  2020 a/b\r\n\
          -rw-r--r-- 1 0 0 4 Jan 01  2020 /etc/x\r\n\
          -rw-r--r-- 1 0 0 4 Jan 01  2020 ..\r\n\
          drwxr-xr-x 1 0 0 4 Jan 01  2020 ../y\r\n\
          drwxr-xr-x 1 0 0 4 Jan 01  2020 out\r\n\
          -rw-r--r-- 1 0 0 4 Jan 01  2020 x\0y\r\n\
          -rw-r--r-- 1 0 0 4 Jan 01  2020 e\x1b[2Jvil\r\n",
    );
    for (features, verb, listing) in [(EVERYTHING, "MLSD", facts), (OLD, "LIST -a", list)] {
        let server = FakeServer::start(features).await;
        // Whatever is asked for is there.
        server.put("/s/e\x1b[2Jvil", b"evil", NEW_YEAR_2020);
        server.put("/s/out/x", b"evil", NEW_YEAR_2020);
        for path in ["/x", "/s/a/b", "/etc/x", "/s/../x", "/s//etc/x"] {
            server.put(path, b"evil", NEW_YEAR_2020);
        }
        server.once(verb, listing);
        let folder = Folder::new();
        // The server's directory "out" meets a link that leads out.
        folder
            .dir
            .symlink_contents(folder.temp.path(), "out")
            .expect("a link");
        let (transfers, recorder) = transfers(&server);
        let down = ends(Direction::Download, &folder, "/s");
        mirror(&transfers, &down, &options(false))
            .await
            .expect("ends");
        assert_eq!(folder.names(), ["e\x1b[2Jvil", "out"], "{verb}");
        let events = recorder.events();
        for left_out in [
            "left out ../x UnsafeName",
            "left out a/b UnsafeName",
            "left out out KindDiffers",
        ] {
            assert!(events.iter().any(|event| event == left_out), "{events:?}");
        }
    }
}

#[tokio::test]
async fn a_name_of_a_partials_form_never_becomes_another_files_content() {
    for features in [EVERYTHING, OLD] {
        let server = FakeServer::start(features).await;
        server.put("/s/foo", b"the content", NEW_YEAR_2020);
        server.put("/s/.foo.wharf-part", b"evil", NEW_YEAR_2020);
        server.put("/s/.d.wharf-part/x", b"evil", NEW_YEAR_2020);
        let folder = Folder::new();
        let (transfers, recorder) = transfers(&server);
        let down = ends(Direction::Download, &folder, "/s");
        mirror(&transfers, &down, &options(false))
            .await
            .expect("ends");
        assert_eq!(folder.names(), ["foo"]);
        assert_eq!(folder.content("foo").expect("is there"), b"the content");
        assert_eq!(
            steps(&recorder),
            [
                "left out .d.wharf-part UnsafeName",
                "left out .foo.wharf-part UnsafeName",
            ]
        );
    }
}

#[tokio::test]
async fn partial_downloads_are_not_uploaded_and_that_is_told() {
    let server = FakeServer::start(EVERYTHING).await;
    server.put("/s/.b.wharf-part", b"theirs", NEW_YEAR_2020);
    let folder = Folder::new();
    folder.put("a", b"a", NEW_YEAR_2020);
    folder.put(".a.wharf-part", b"mine", NEW_YEAR_2020);
    let (transfers, recorder) = transfers(&server);
    let up = ends(Direction::Upload, &folder, "/s");
    mirror(&transfers, &up, &options(true)).await.expect("ends");
    assert_eq!(server.tree(), ["/s", "/s/.b.wharf-part", "/s/a"]);
    assert_eq!(steps(&recorder), ["left out .a.wharf-part Partial"]);
    let down = ends(Direction::Download, &folder, "/s");
    mirror(&transfers, &down, &options(true))
        .await
        .expect("ends");
    assert_eq!(folder.names(), [".a.wharf-part", "a"]);
}

#[tokio::test]
async fn a_tree_without_end_is_cut_off() {
    let server = FakeServer::start(EVERYTHING).await;
    server.always("MLSD", Act::Data(b"type=dir; d\r\n"));
    let (transfers, recorder) = transfers(&server);
    let walk = WalkOptions {
        parallel: 1,
        retries: 0,
    };
    let found = walk_remote(
        transfers.pool(),
        &VirtualPath::root(),
        &Filter::default(),
        walk,
        transfers.observer(),
    )
    .await
    .expect("ends");
    assert_eq!(found.len(), 201);
    assert!(recorder.events()[0].ends_with("TooDeep"));
}

#[tokio::test]
async fn a_directory_that_exists_is_made_without_complaint() {
    // vsftpd refuses MKD of what exists with a bare 550.
    for features in [EVERYTHING, OLD] {
        let server = FakeServer::start(features).await;
        server.make_directory("/d");
        server.put("/file", b"x", 1);
        let (transfers, _) = transfers(&server);
        let made = make_directories(transfers.pool(), &path("/d/e/f")).await;
        assert_eq!(made.expect("works"), 2);
        let made = make_directories(transfers.pool(), &path("/d/e/f")).await;
        assert_eq!(made.expect("works"), 0);
        let made = make_directories(transfers.pool(), &path("/file/d")).await;
        assert!(made.is_err());
        // Someone else made it between the look and the command.
        let mut session = transfers.pool().lease().await.expect("a session");
        let made = make_or_find(&mut *session, &path("/d")).await;
        assert!(!made.expect("is found"));
    }
}
