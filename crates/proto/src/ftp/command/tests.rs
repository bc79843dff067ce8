use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn parse(line: &str) -> Result<Command, CommandError> {
    Command::parse(line.as_bytes())
}

#[test]
fn paths_keep_every_byte_behind_the_one_space() {
    assert_eq!(parse("RETR  a "), Ok(Command::Retr(b" a ".to_vec())));
    assert_eq!(
        Command::parse(b"stor \xff\xfe"),
        Ok(Command::Stor(b"\xff\xfe".to_vec()))
    );
    assert_eq!(parse("CWD"), Ok(Command::Cwd(Vec::new())));
}

#[test]
fn missing_stray_and_malformed_arguments_are_told_apart() {
    let info = |verb: Verb| verb.info();
    assert_eq!(
        parse("RETR"),
        Err(CommandError::MissingArgument(info(Verb::Retr)))
    );
    assert_eq!(
        parse("PWD x"),
        Err(CommandError::UnexpectedArgument(info(Verb::Pwd)))
    );
    assert_eq!(parse("FROB x"), Err(CommandError::UnknownVerb));
    assert_eq!(parse(""), Err(CommandError::UnknownVerb));
    assert_eq!(
        parse("REST -1"),
        Err(CommandError::InvalidArgument(info(Verb::Rest)))
    );
    assert_eq!(
        parse("REST 18446744073709551615"),
        Ok(Command::Rest(u64::MAX))
    );
    assert_eq!(
        parse("REST 18446744073709551616"),
        Err(CommandError::InvalidArgument(info(Verb::Rest)))
    );
    assert_eq!(
        parse("DELE a\0b"),
        Err(CommandError::InvalidArgument(info(Verb::Dele)))
    );
}

#[test]
fn parameters_that_the_standard_knows_and_we_do_not_answer_504() {
    for (line, verb) in [
        ("TYPE E", Verb::Type),
        ("TYPE L 7", Verb::Type),
        ("MODE B", Verb::Mode),
        ("STRU R", Verb::Stru),
        ("AUTH TLS-P", Verb::Auth),
        ("AUTH GSSAPI", Verb::Auth),
        ("PROT X", Verb::Prot),
    ] {
        assert_eq!(
            parse(line),
            Err(CommandError::ParameterNotImplemented(verb.info())),
            "{line}"
        );
    }
    assert_eq!(parse("type a n"), Ok(Command::Type(TransferType::Ascii)));
    assert_eq!(parse("TYPE L 8"), Ok(Command::Type(TransferType::Image)));
    assert_eq!(
        parse("TYPE X"),
        Err(CommandError::InvalidArgument(Verb::Type.info()))
    );
}

#[test]
fn tls_has_three_names_and_protection_four_levels() {
    for line in ["AUTH TLS", "auth tls", "AUTH TLS-C", "AUTH SSL"] {
        assert_eq!(parse(line), Ok(Command::Auth), "{line}");
    }
    for (line, level) in [
        ("PROT C", ProtectionLevel::Clear),
        ("PROT s", ProtectionLevel::Safe),
        ("PROT E", ProtectionLevel::Confidential),
        ("PROT p", ProtectionLevel::Private),
    ] {
        assert_eq!(parse(line), Ok(Command::Prot(level)), "{line}");
    }
    assert_eq!(parse("PBSZ 0"), Ok(Command::Pbsz));
    assert_eq!(
        parse("PBSZ none"),
        Err(CommandError::InvalidArgument(Verb::Pbsz.info()))
    );
}

#[test]
fn requests_of_http_are_told_from_unknown_verbs() {
    for line in [
        "GET / HTTP/1.1",
        "POST /x HTTP/1.0",
        "PUT",
        "OPTIONS * HTTP/1.1",
        "get / http/1.1",
        "PRI * HTTP/2.0",
    ] {
        assert_eq!(parse(line), Err(CommandError::Http), "{line}");
    }
    for line in ["get file", "GETX", "get http", "Host: example.org"] {
        assert_eq!(parse(line), Err(CommandError::UnknownVerb), "{line}");
    }
}

#[test]
fn listing_flags_are_dropped_and_never_taken_for_a_path() {
    for (line, path) in [
        ("LIST", ""),
        ("LIST -al", ""),
        ("LIST -a -l dir", "dir"),
        ("LIST -la a b", "a b"),
        ("LIST a -b", "a -b"),
    ] {
        assert_eq!(parse(line), Ok(Command::List(path.into())), "{line}");
    }
}

#[test]
fn mdtm_reads_both_ways_and_mff_sets_only_what_it_knows() {
    let epoch = SystemTime::UNIX_EPOCH;
    assert_eq!(
        parse("MDTM 19700101000001 a b"),
        Ok(Command::Mdtm {
            as_path: b"19700101000001 a b".to_vec(),
            set: Some((epoch + Duration::from_secs(1), b"a b".to_vec())),
        })
    );
    assert_eq!(
        parse("MDTM plain"),
        Ok(Command::Mdtm {
            as_path: b"plain".to_vec(),
            set: None
        })
    );
    let change = FactChange {
        modify: Some(epoch),
        mode: Some(0o640),
    };
    assert_eq!(
        parse("MFF Modify=19700101000000;unix.MODE=0640; x"),
        Ok(Command::Mff(change, b"x".to_vec()))
    );
    assert!(parse("MFF perm=r; x").is_err());
}

#[test]
fn ranges_include_their_last_byte_and_one_zero_takes_them_back() {
    assert_eq!(parse("RANG 0 9"), Ok(Command::Rang(ByteRange::new(0, 10))));
    assert_eq!(parse("RANG 5 5"), Ok(Command::Rang(ByteRange::new(5, 6))));
    assert_eq!(parse("RANG 1 0"), Ok(Command::Rang(None)));
    for bad in [
        "RANG 9 1",
        "RANG 0",
        "RANG 0 18446744073709551615",
        "RANG 0 1 2",
        "RANG a b",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn telnet_remnants_before_abor_are_passed_over() {
    assert_eq!(Command::parse(b"\xf2ABOR"), Ok(Command::Abor));
    assert_eq!(Command::parse(b"\xf4\xf2STAT"), Ok(Command::Stat(None)));
    assert_eq!(Command::parse(b"XABOR"), Err(CommandError::UnknownVerb));
    assert_eq!(
        Command::parse(b"\xf2DELE x"),
        Err(CommandError::UnknownVerb)
    );
}

#[test]
fn site_and_opts_commands_parse_in_their_dialects() {
    assert_eq!(
        parse("SITE chmod 644 a b"),
        Ok(Command::Site(SiteCommand::Chmod(0o644, b"a b".to_vec())))
    );
    assert!(parse("SITE CHMOD 888 a").is_err());
    assert_eq!(
        parse("SITE COPY \"a \"\"b\" c"),
        Ok(Command::Site(SiteCommand::Copy(
            b"a \"b".to_vec(),
            b"c".to_vec()
        )))
    );
    let minute = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
    let utime = |path: &[u8]| Ok(Command::Site(SiteCommand::Utime(minute, path.to_vec())));
    assert_eq!(parse("SITE UTIME 197001010001 a b"), utime(b"a b"));
    assert_eq!(
        parse("SITE UTIME a b 19700101000000 19700101000100 19700101000000 UTC"),
        utime(b"a b")
    );
    for line in ["OPTS UTF8 ON", "opts utf8 on", "OPTS UTF-8", "OPTS UTF8"] {
        assert_eq!(
            parse(line),
            Ok(Command::Opts(OptsArgument::Utf8(true))),
            "{line}"
        );
    }
    assert_eq!(
        parse("OPTS HASH sha256"),
        Ok(Command::Opts(OptsArgument::Hash(Some(
            DigestAlgorithm::Sha256
        ))))
    );
    assert!(parse("OPTS HASH rot13").is_err());
}

#[test]
fn a_password_is_not_shown_by_debug() {
    let command = parse("PASS hunter2").expect("parses");
    assert!(!format!("{command:?}").contains("hunter2"));
}

#[test]
fn digest_verbs_take_a_range_behind_a_quoted_path_only() {
    let digest = |path: &str, range| {
        Ok(Command::Digest {
            verb: Verb::Xcrc,
            algorithm: DigestAlgorithm::Crc32,
            path: path.into(),
            range,
        })
    };
    assert_eq!(parse("XCRC a 1 2"), digest("a 1 2", (0, None)));
    assert_eq!(parse("XCRC \"a b\""), digest("a b", (0, None)));
    assert_eq!(parse("XCRC \"a b\" 5"), digest("a b", (5, None)));
    assert_eq!(parse("XCRC \"a b\" 5 9"), digest("a b", (5, Some(9))));
    assert!(parse("XCRC \"a b\" x").is_err());
}

#[test]
fn an_argument_can_never_start_another_command() {
    let mut out = Vec::new();
    assert_eq!(
        encode_command("RETR", b"a\r\nDELE b", Iac::AsIs, &mut out),
        Err(LineEndInArgument)
    );
    assert!(out.is_empty());
    for iac in [Iac::Doubled, Iac::AsIs] {
        assert_eq!(encode_command("RETR", b"a\xffb", iac, &mut out), Ok(()));
    }
    assert_eq!(encode_command("PWD", b"", Iac::AsIs, &mut out), Ok(()));
    assert_eq!(out, b"RETR a\xff\xffb\r\nRETR a\xffb\r\nPWD\r\n");
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..96)) {
        let _ = Command::parse(&line);
    }

    #[test]
    fn no_argument_makes_the_parser_panic(
        row in 0..crate::ftp::verb::VERBS.len(),
        argument in "[0-9A-Za-z |,;=\".-]{0,40}",
    ) {
        let name = crate::ftp::verb::VERBS[row].name();
        let _ = parse(&format!("{name} {argument}"));
    }
}
