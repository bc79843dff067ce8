use proptest::prelude::*;
use std::time::{Duration, SystemTime};
use wharf_model::{Entry, EntryKind};

use super::*;

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn entry() -> Entry {
    Entry {
        name: b"f".to_vec(),
        kind: EntryKind::File,
        size: 5,
        modified: SystemTime::UNIX_EPOCH + Duration::from_secs(897_904_845),
        mode: 0o644,
        owner: 1000,
        group: 100,
        links: 1,
        unique: None,
        incomplete: false,
    }
}

/// Packets without their length field, put together by hand from the drafts and PROTOCOL.
/// Every response has the id 9.
fn table() -> Vec<(&'static [u8], Response)> {
    vec![
        (
            b"\x65\0\0\0\x09\0\0\0\x02\0\0\0\x04none\0\0\0\x02en",
            Response::status(StatusCode::NoSuchFile, "none"),
        ),
        (
            b"\x66\0\0\0\x09\0\0\0\x01h",
            Response::Handle(Handle(bytes("h"))),
        ),
        (
            b"\x67\0\0\0\x09\0\0\0\x03abc",
            Response::Data(bytes("abc")),
        ),
        (
            b"\x68\0\0\0\x09\0\0\0\x01\0\0\0\x01.\0\0\0\x04line\0\0\0\0",
            Response::Names(vec![Name {
                name: bytes("."),
                long_name: bytes("line"),
                attributes: Attributes::default(),
            }]),
        ),
        (
            // Size, owner, -rw-r--r-- of a regular file (0o100644), times (897904845 = 0x3584f0cd, twice).
            b"\x69\0\0\0\x09\0\0\0\x0f\0\0\0\0\0\0\0\x05\0\0\x03\xe8\0\0\0\x64\0\0\x81\xa4\
              \x35\x84\xf0\xcd\x35\x84\xf0\xcd",
            Response::Attributes(Attributes::of(&entry())),
        ),
        (
            b"\xc9\0\0\0\x09\0\0\0\0\0\x04\x04\0\0\0\0\0\0\x03\xfc\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\0\x01\0",
            Limits {
                packet_bytes: 263_168,
                read_bytes: 261_120,
                write_bytes: 262_144,
                open_handles: 256,
            }
            .to_response(),
        ),
        (
            b"\xc9\0\0\0\x09\0\0\0\x03md5\x01\x02",
            CheckedFile {
                algorithm: bytes("md5"),
                digests: bytes("\x01\x02"),
                echoed: false,
            }
            .to_response(),
        ),
        (
            b"\xc9\0\0\0\x09\0\0\0\x0acheck-file\0\0\0\x03md5\x01\x02",
            CheckedFile {
                algorithm: bytes("md5"),
                digests: bytes("\x01\x02"),
                echoed: true,
            }
            .to_response(),
        ),
        (
            b"\xc9\0\0\0\x09\0\0\0\x0d\0\0\0\x05alice\0\0\0\0\0\0\0\x05\0\0\0\x01g",
            UserGroupNames {
                users: vec![bytes("alice"), bytes("")],
                groups: vec![bytes("g")],
            }
            .to_response(),
        ),
    ]
}

#[test]
fn responses_have_the_bytes_of_the_drafts() {
    for (packet, response) in table() {
        let expected = ServerPacket::Response(RequestId(9), response);
        let mut encoded = BytesMut::new();
        expected.encode(&mut encoded);
        let length = u32::try_from(packet.len()).expect("short");
        assert_eq!(encoded, [&length.to_be_bytes(), packet].concat());
        assert_eq!(
            ServerPacket::decode(Bytes::from_static(packet)),
            Ok(expected)
        );
    }
}

#[test]
fn the_first_packet_has_a_version_and_extensions() {
    let packet = b"\x02\0\0\0\x03\0\0\0\x09copy-data\0\0\0\x011";
    let expected = ServerPacket::Version {
        version: 3,
        extensions: vec![(bytes("copy-data"), bytes("1"))],
    };
    let mut encoded = BytesMut::new();
    expected.encode(&mut encoded);
    assert_eq!(&encoded[4..], packet);
    assert_eq!(
        ServerPacket::decode(Bytes::from_static(packet)),
        Ok(expected)
    );
}

#[test]
fn extended_replies_are_read_back() {
    let space = StatVfs {
        block_bytes: 4096,
        blocks_available: 7,
        name_bytes: 255,
        ..StatVfs::default()
    };
    let Response::Extended(reply) = space.to_response() else {
        panic!("an extended reply");
    };
    assert_eq!((reply.len(), StatVfs::decode(reply)), (88, Ok(space)));
    let names = Bytes::from_static(b"\0\0\0\x05\0\0\0\x01a\0\0\0\0");
    let read = UserGroupNames::decode(names).expect("whole");
    assert_eq!((read.users, read.groups), (vec![bytes("a")], vec![]));
    for (reply, echoed) in [
        (&b"\0\0\0\x03md5xx"[..], false),
        (b"\0\0\0\x0acheck-file\0\0\0\x03md5xx", true),
    ] {
        let checked = CheckedFile::decode(Bytes::from_static(reply)).expect("whole");
        assert_eq!(checked.digests, "xx");
        assert_eq!((checked.algorithm, checked.echoed), (bytes("md5"), echoed));
    }
}

#[test]
fn a_status_without_words_is_read() {
    assert_eq!(
        ServerPacket::decode(Bytes::from_static(b"\x65\0\0\0\x09\0\0\0\x01")),
        Ok(ServerPacket::Response(
            RequestId(9),
            Response::status(StatusCode::Eof, "")
        ))
    );
}

#[test]
fn a_count_that_is_not_there_costs_nothing() {
    let packet = Bytes::from_static(b"\x68\0\0\0\x09\xff\xff\xff\xff");
    assert!(ServerPacket::decode(packet).is_err());
}

#[test]
fn kinds_and_times_survive_attributes() {
    for kind in [
        EntryKind::File,
        EntryKind::Directory,
        EntryKind::Symlink,
        EntryKind::Other,
    ] {
        let attributes = Attributes::of(&Entry { kind, ..entry() });
        assert_eq!(attributes.kind(), Some(kind));
        assert_eq!(
            attributes.times.map(|times| times.modified()),
            Some(entry().modified)
        );
    }
    let before = Entry {
        modified: SystemTime::UNIX_EPOCH - Duration::from_secs(1),
        ..entry()
    };
    assert_eq!(
        Attributes::of(&before).times.map(|times| times.modified),
        Some(0)
    );
    assert_eq!(Attributes::default().kind(), None);
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic_and_what_it_reads_it_writes(
        kind in prop_oneof![Just(2_u8), Just(101), Just(102), Just(103), Just(104), Just(105), Just(201), any::<u8>()],
        fields in proptest::collection::vec(prop_oneof![2 => Just(0_u8), 1 => any::<u8>()], 0..80),
    ) {
        let packet = [&[kind][..], &fields].concat();
        if let Ok(decoded) = ServerPacket::decode(Bytes::from(packet)) {
            let mut encoded = BytesMut::new();
            decoded.encode(&mut encoded);
            let again = ServerPacket::decode(encoded.freeze().slice(4..));
            prop_assert_eq!(again, Ok(decoded));
        }
        let reply = Bytes::from(fields);
        let _ = (StatVfs::decode(reply.clone()), Limits::decode(reply.clone()));
        let _ = (CheckedFile::decode(reply.clone()), UserGroupNames::decode(reply));
    }
}
