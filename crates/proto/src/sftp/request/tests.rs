use proptest::prelude::*;

use super::*;
use crate::sftp::attributes::{Owner, Times};

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn handle_of(text: &'static str) -> Handle {
    Handle(bytes(text))
}

/// Packets without their length field, put together by hand from the drafts and PROTOCOL.
/// Every request has the id 9.
fn table() -> Vec<(&'static [u8], Request)> {
    vec![
        (
            b"\x03\0\0\0\x09\0\0\0\x02/f\0\0\0\x1a\0\0\0\x04\0\0\x01\xa4",
            Request::Open {
                path: bytes("/f"),
                flags: OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE,
                attributes: Attributes {
                    permissions: Some(0o644),
                    ..Attributes::default()
                },
            },
        ),
        (
            b"\x04\0\0\0\x09\0\0\0\x01h",
            Request::Close {
                handle: handle_of("h"),
            },
        ),
        (
            b"\x05\0\0\0\x09\0\0\0\x01h\0\0\0\x01\0\0\0\x02\0\0\x80\0",
            Request::Read {
                handle: handle_of("h"),
                offset: (1 << 32) + 2,
                length: 32_768,
            },
        ),
        (
            b"\x06\0\0\0\x09\0\0\0\x01h\0\0\0\0\0\0\0\x05\0\0\0\x03abc",
            Request::Write {
                handle: handle_of("h"),
                offset: 5,
                data: bytes("abc"),
            },
        ),
        (
            b"\x07\0\0\0\x09\0\0\0\x01l",
            Request::Lstat { path: bytes("l") },
        ),
        (
            b"\x08\0\0\0\x09\0\0\0\x01h",
            Request::Fstat {
                handle: handle_of("h"),
            },
        ),
        (
            // Owner and times.
            b"\x09\0\0\0\x09\0\0\0\x01f\0\0\0\x0a\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04",
            Request::SetStat {
                path: bytes("f"),
                attributes: Attributes {
                    owner: Some(Owner { user: 1, group: 2 }),
                    times: Some(Times {
                        accessed: 3,
                        modified: 4,
                    }),
                    ..Attributes::default()
                },
            },
        ),
        (
            // A size, and one extended pair.
            b"\x0a\0\0\0\x09\0\0\0\x01h\x80\0\0\x01\0\0\0\0\0\0\x10\0\0\0\0\x01\0\0\0\x01n\0\0\0\x02vv",
            Request::FsetStat {
                handle: handle_of("h"),
                attributes: Attributes {
                    size: Some(4096),
                    extended: vec![(bytes("n"), bytes("vv"))],
                    ..Attributes::default()
                },
            },
        ),
        (
            b"\x0b\0\0\0\x09\0\0\0\x01/",
            Request::OpenDirectory { path: bytes("/") },
        ),
        (
            b"\x0c\0\0\0\x09\0\0\0\x01h",
            Request::ReadDirectory {
                handle: handle_of("h"),
            },
        ),
        (
            b"\x0d\0\0\0\x09\0\0\0\x01f",
            Request::Remove { path: bytes("f") },
        ),
        (
            b"\x0e\0\0\0\x09\0\0\0\x01d\0\0\0\0",
            Request::MakeDirectory {
                path: bytes("d"),
                attributes: Attributes::default(),
            },
        ),
        (
            b"\x0f\0\0\0\x09\0\0\0\x01d",
            Request::RemoveDirectory { path: bytes("d") },
        ),
        (
            b"\x10\0\0\0\x09\0\0\0\x01.",
            Request::RealPath { path: bytes(".") },
        ),
        (
            b"\x11\0\0\0\x09\0\0\0\0",
            Request::Stat { path: bytes("") },
        ),
        (
            b"\x12\0\0\0\x09\0\0\0\x01a\0\0\0\x01b",
            Request::Rename {
                from: bytes("a"),
                to: bytes("b"),
            },
        ),
        (
            b"\x13\0\0\0\x09\0\0\0\x01l",
            Request::ReadLink { path: bytes("l") },
        ),
        (
            // What the link says comes first (PROTOCOL §4.1).
            b"\x14\0\0\0\x09\0\0\0\x06target\0\0\0\x04link",
            Request::Symlink {
                target: bytes("target"),
                link: bytes("link"),
            },
        ),
        (
            b"\xc8\0\0\0\x09\0\0\0\x18posix-rename@openssh.com\0\0\0\x01a\0\0\0\x01b",
            Request::PosixRename {
                from: bytes("a"),
                to: bytes("b"),
            },
        ),
        (
            b"\xc8\0\0\0\x09\0\0\0\x14hardlink@openssh.com\0\0\0\x01a\0\0\0\x01b",
            Request::HardLink {
                existing: bytes("a"),
                link: bytes("b"),
            },
        ),
        (
            b"\xc8\0\0\0\x09\0\0\0\x11fsync@openssh.com\0\0\0\x01h",
            Request::Fsync {
                handle: handle_of("h"),
            },
        ),
        (
            b"\xc8\0\0\0\x09\0\0\0\x13statvfs@openssh.com\0\0\0\x01/",
            Request::StatVfs { path: bytes("/") },
        ),
        (
            b"\xc8\0\0\0\x09\0\0\0\x14fstatvfs@openssh.com\0\0\0\x01h",
            Request::FstatVfs {
                handle: handle_of("h"),
            },
        ),
        (
            b"\xc8\0\0\0\x09\0\0\0\x14lsetstat@openssh.com\0\0\0\x01l\0\0\0\x04\0\0\x01\xff",
            Request::LsetStat {
                path: bytes("l"),
                attributes: Attributes {
                    permissions: Some(0o777),
                    ..Attributes::default()
                },
            },
        ),
        (
            b"\xc8\0\0\0\x09\0\0\0\x12limits@openssh.com",
            Request::Limits,
        ),
        (
            b"\xc8\0\0\0\x09\0\0\0\x17expand-path@openssh.com\0\0\0\x03~/x",
            Request::ExpandPath { path: bytes("~/x") },
        ),
        (
            b"\xc8\0\0\0\x09\0\0\0\x09copy-data\0\0\0\x01a\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\
              \0\0\0\x01b\0\0\0\0\0\0\0\x03",
            Request::CopyData {
                from: handle_of("a"),
                from_offset: 1,
                length: 2,
                to: handle_of("b"),
                to_offset: 3,
            },
        ),
        (
            b"\xc8\0\0\0\x09\0\0\0\x0ehome-directory\0\0\0\x05alice",
            Request::HomeDirectory {
                account: bytes("alice"),
            },
        ),
        (
            b"\xc8\0\0\0\x09\0\0\0\x1eusers-groups-by-id@openssh.com\
              \0\0\0\x08\0\0\0\0\0\0\x03\xe8\0\0\0\x04\0\0\0\x64",
            Request::UsersGroupsById {
                users: vec![0, 1000],
                groups: vec![100],
            },
        ),
        (
            b"\xc8\0\0\0\x09\0\0\0\x0fcheck-file-name\0\0\0\x01f\0\0\0\x08sha1,md5\
              \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x09\0\0\x01\0",
            Request::CheckFile {
                subject: CheckSubject::Path(bytes("f")),
                algorithms: bytes("sha1,md5"),
                offset: 0,
                length: 9,
                block_bytes: 256,
            },
        ),
        (
            b"\xc8\0\0\0\x09\0\0\0\x11check-file-handle\0\0\0\x01h\0\0\0\x03md5\
              \0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0",
            Request::CheckFile {
                subject: CheckSubject::Handle(handle_of("h")),
                algorithms: bytes("md5"),
                offset: 1,
                length: 0,
                block_bytes: 0,
            },
        ),
        (
            b"\xc8\0\0\0\x09\0\0\0\x0acheck-file\0\0\0\x01h\0\0\0\x03md5\
              \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            Request::CheckFile {
                subject: CheckSubject::EchoedHandle(handle_of("h")),
                algorithms: bytes("md5"),
                offset: 0,
                length: 0,
                block_bytes: 0,
            },
        ),
    ]
}

#[test]
fn requests_have_the_bytes_of_the_drafts() {
    for (packet, request) in table() {
        let expected = ClientPacket::Request(RequestId(9), request);
        let decoded = ClientPacket::decode(Bytes::from_static(packet));
        assert_eq!(decoded.as_ref(), Ok(&expected));
        let mut encoded = BytesMut::new();
        expected.encode(&mut encoded);
        let length = u32::try_from(packet.len()).expect("short");
        assert_eq!(encoded, [&length.to_be_bytes(), packet].concat());
    }
}

#[test]
fn the_first_packet_has_a_version_and_extensions() {
    let packet = b"\x01\0\0\0\x03\0\0\0\x01n\0\0\0\x01v";
    let expected = ClientPacket::Init {
        version: 3,
        extensions: vec![(bytes("n"), bytes("v"))],
    };
    assert_eq!(
        ClientPacket::decode(Bytes::from_static(packet)).as_ref(),
        Ok(&expected)
    );
    let mut encoded = BytesMut::new();
    expected.encode(&mut encoded);
    assert_eq!(&encoded[4..], packet);
}

#[test]
fn a_request_that_is_cut_anywhere_has_an_answer_to_its_id() {
    for (packet, request) in table() {
        for length in 5..packet.len() {
            let cut = Bytes::copy_from_slice(&packet[..length]);
            let undecodable = ClientPacket::decode(cut).expect_err("cut");
            assert_eq!(undecodable.id, Some(RequestId(9)), "{request:?}");
        }
    }
}

#[test]
fn what_is_unknown_is_told_apart_from_what_is_broken() {
    let reason = |packet: &'static [u8]| {
        let undecodable = ClientPacket::decode(Bytes::from_static(packet)).expect_err("unknown");
        undecodable.reason
    };
    assert_eq!(
        reason(b"\x15\0\0\0\x01\0\0\0\x01f"),
        DecodeError::UnknownType(21)
    );
    assert_eq!(
        reason(b"\xc8\0\0\0\x01\0\0\0\x06statfs"),
        DecodeError::UnknownExtension
    );
    // A string of 4 GiB less a byte.
    assert_eq!(
        reason(b"\x11\0\0\0\x01\xff\xff\xff\xfff"),
        DecodeError::Truncated
    );
    assert_eq!(
        reason(b"\xc8\0\0\0\x01\0\0\0\x1eusers-groups-by-id@openssh.com\0\0\0\x03\0\0\0\0\0\0\0"),
        DecodeError::BrokenList
    );
}

#[test]
fn fields_of_later_versions_behind_the_last_one_are_passed_over() {
    let packet = Bytes::from_static(b"\x11\0\0\0\x01\0\0\0\x01f\0\0\0\x7f");
    assert_eq!(
        ClientPacket::decode(packet),
        Ok(ClientPacket::Request(
            RequestId(1),
            Request::Stat { path: bytes("f") }
        ))
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic_and_what_it_reads_it_writes(
        packet in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        if let Ok(decoded) = ClientPacket::decode(Bytes::from(packet)) {
            let mut encoded = BytesMut::new();
            decoded.encode(&mut encoded);
            let again = ClientPacket::decode(encoded.freeze().slice(4..));
            prop_assert_eq!(again, Ok(decoded));
        }
    }

    #[test]
    fn no_damage_to_a_request_makes_the_decoder_panic(
        which in any::<proptest::sample::Index>(), at in any::<proptest::sample::Index>(), byte in any::<u8>(),
    ) {
        let table = table();
        let mut packet = which.get(&table).0.to_vec();
        let at = at.index(packet.len());
        packet[at] = byte;
        if let Ok(decoded) = ClientPacket::decode(Bytes::from(packet)) {
            let mut encoded = BytesMut::new();
            decoded.encode(&mut encoded);
            let again = ClientPacket::decode(encoded.freeze().slice(4..));
            prop_assert_eq!(again, Ok(decoded));
        }
    }
}
