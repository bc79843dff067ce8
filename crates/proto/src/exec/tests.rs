use proptest::prelude::*;

use super::*;

/// More than any word of these tests stands for.
const MOST: usize = 4096;

/// The words of each command, expanded with HOME and two other variables.
fn words(line: &str) -> Vec<Vec<String>> {
    let script = Script::parse(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
    script
        .steps
        .iter()
        .map(|step| {
            let words = step.command.words.iter();
            let expanded = words.filter_map(|word| word.expand(&value, MOST).expect("short"));
            expanded
                .map(|word| String::from_utf8(word.into_bytes()).expect("text"))
                .collect()
        })
        .collect()
}

fn value(name: &[u8]) -> Vec<u8> {
    match name {
        b"HOME" => b"/".to_vec(),
        b"PWD" => b"/a b*".to_vec(),
        b"?" => b"3".to_vec(),
        _ => Vec::new(),
    }
}

#[test]
fn words_are_those_of_a_posix_shell() {
    let cases: [(&str, &[&str]); 18] = [
        ("ls -la /x", &["ls", "-la", "/x"]),
        (r#"a 'b c' "d 'e" f\ g"#, &["a", "b c", "d 'e", "f g"]),
        (
            r#"a 'b\c' "b\c" "\$x\"\\\`" b\c"#,
            &["a", r"b\c", r"b\c", r#"$x"\`"#, "bc"],
        ),
        (r"md5sum it\'s", &["md5sum", "it's"]),
        ("md5sum 'it'\\''s'", &["md5sum", "it's"]),
        ("x '' \"\"", &["x", "", ""]),
        ("x a'b'\"c\"d", &["x", "abcd"]),
        ("x # comment", &["x"]),
        ("x a#b", &["x", "a#b"]),
        ("echo ${ShellId}%ComSpec%", &["echo", "%ComSpec%"]),
        ("echo $unset \"$unset\" '$unset'", &["echo", "", "$unset"]),
        ("echo end:$? \"$?\"", &["echo", "end:3", "3"]),
        ("ls $PWD/c", &["ls", "/a b*/c"]),
        (
            "ls $HOME ~ ~/x ~user a~ '~'",
            &["ls", "/", "/", "//x", "~user", "a~", "~"],
        ),
        ("echo $ a$ \"$\" $%", &["echo", "$", "a$", "$", "$%"]),
        ("a \\\n b", &["a", "b"]),
        ("a\tb\r", &["a", "b"]),
        ("echo a=b", &["echo", "a=b"]),
    ];
    for (line, expected) in cases {
        assert_eq!(words(line), [expected], "{line}");
    }
}

#[test]
fn commands_are_joined_as_in_a_posix_shell() {
    let whens = |line: &str| {
        let script = Script::parse(line.as_bytes()).expect("a script");
        script
            .steps
            .iter()
            .map(|step| step.when)
            .collect::<Vec<_>>()
    };
    use When::{AfterFailure, AfterSuccess, Always};
    assert_eq!(
        whens("cd 'x' && md5sum y || true; pwd\nls"),
        [Always, AfterSuccess, AfterFailure, Always, Always]
    );
    assert_eq!(whens("a &&\n\n b"), [Always, AfterSuccess]);
    assert_eq!(whens("a;"), [Always]);
    assert_eq!(whens(""), []);
    assert_eq!(words("echo 'a;b' c\\;d"), [["echo", "a;b", "c;d"]]);
    for line in [";", "a ; ; b", "&& a", "a &&", "a && ; b", "|| a"] {
        let parsed = Script::parse(line.as_bytes());
        assert_eq!(parsed, Err(SyntaxError::MissingCommand), "{line}");
    }
}

#[test]
fn redirections_and_assignments_stand_apart_from_words() {
    let script = Script::parse(b"LC_ALL=C x='a b' md5sum f 2>/dev/null </dev/null >>out 2>&1 1>&2")
        .expect("a script");
    let command = &script.steps[0].command;
    let names: Vec<&[u8]> = command.assignments.iter().map(|set| &*set.name).collect();
    assert_eq!(names, [&b"LC_ALL"[..], b"x"]);
    let second = command.assignments[1]
        .value
        .expand(&value, MOST)
        .expect("short")
        .expect("a value");
    assert_eq!(second.into_bytes(), b"a b");
    assert_eq!(command.words.len(), 2);
    let word = |text: &str| {
        let script = Script::parse(text.as_bytes()).expect("a script");
        script.steps[0].command.words[0].clone()
    };
    use OutputStream::{Errors, Output};
    assert_eq!(
        command.redirections,
        [
            Redirection::Output {
                stream: Errors,
                target: word("/dev/null"),
                append: false
            },
            Redirection::Input(word("/dev/null")),
            Redirection::Output {
                stream: Output,
                target: word("out"),
                append: true
            },
            Redirection::Same {
                stream: Errors,
                as_stream: Output
            },
            Redirection::Same {
                stream: Output,
                as_stream: Errors
            },
        ]
    );
    // A digit that is a word of its own is no descriptor.
    assert_eq!(words("echo 2 >x a2>x"), [["echo", "2", "a2"]]);
}

#[test]
fn what_needs_a_shell_is_refused_by_name() {
    for (line, what) in [
        ("yes | head", "pipe"),
        ("sleep 1 &", "background"),
        ("echo $(id)", "$("),
        ("echo `id`", "$("),
        ("echo \"`id`\"", "$("),
        ("(cd x)", "subshell"),
        ("cat <<EOF", "here-document"),
        ("echo ${x:-y}", "${"),
        ("echo 3>x", "descriptor"),
    ] {
        let error = Script::parse(line.as_bytes()).expect_err(line).to_string();
        assert!(error.contains(what), "{line}: {error}");
    }
    for (line, error) in [
        ("echo 'a", SyntaxError::UnclosedQuote('\'')),
        ("echo \"a", SyntaxError::UnclosedQuote('"')),
        ("echo a)", SyntaxError::Unexpected(')')),
        ("a ;; b", SyntaxError::Unexpected(';')),
        ("a >", SyntaxError::MissingTarget),
        ("a\0b", SyntaxError::Nul),
    ] {
        assert_eq!(Script::parse(line.as_bytes()), Err(error), "{line}");
    }
}

#[test]
fn quoted_wildcards_are_letters() {
    let pattern = |line: &str| {
        let script = Script::parse(line.as_bytes()).expect("a script");
        let word = &script.steps[0].command.words[0];
        let word = word.expand(&value, MOST).expect("short")?;
        word.as_pattern().map(<[u8]>::to_vec)
    };
    assert_eq!(pattern("*.txt"), Some(b"*.txt".to_vec()));
    assert_eq!(pattern("'a*'*"), Some(b"a\\**".to_vec()));
    assert_eq!(pattern("'*'"), None);
    assert_eq!(pattern("\\*"), None);
    assert_eq!(pattern("$PWD"), None);
}

#[test]
fn what_a_word_stands_for_is_bounded() {
    let script = Script::parse(b"x$PWD$PWD").expect("a script");
    let word = &script.steps[0].command.words[0];
    // `x` and twice `/a b*`.
    assert!(word.expand(&value, 11).is_ok());
    assert_eq!(word.expand(&value, 10).err(), Some(ExpansionTooLong));
}

#[test]
fn a_line_is_bounded() {
    assert!(Script::parse(&vec![b'a'; MAX_LINE_BYTES]).is_ok());
    let parsed = Script::parse(&vec![b'a'; MAX_LINE_BYTES + 1]);
    assert_eq!(parsed, Err(SyntaxError::TooLong));
}

proptest! {
    /// The two ways in which clients quote: in single quotes, and with a backslash before each letter.
    #[test]
    fn every_quoted_word_is_read_back(word in proptest::collection::vec(1_u8.., 0..40)) {
        let text = |line: Vec<u8>| {
            let script = Script::parse(&line).expect("a script");
            let word = &script.steps[0].command.words[1];
            let word = word.expand(&value, MOST).expect("short").expect("a word");
            assert!(word.as_pattern().is_none());
            word.into_bytes()
        };
        let mut single = b"x '".to_vec();
        for byte in &word {
            match byte {
                b'\'' => single.extend_from_slice(b"'\\''"),
                other => single.push(*other),
            }
        }
        single.push(b'\'');
        prop_assert_eq!(text(single), &word[..]);
        prop_assume!(!word.is_empty() && !word.contains(&b'\n'));
        let backslashes = word.iter().flat_map(|byte| [b'\\', *byte]);
        prop_assert_eq!(text(b"x ".iter().copied().chain(backslashes).collect()), &word[..]);
    }

    #[test]
    fn no_line_panics(line in proptest::collection::vec(prop_oneof![
        proptest::sample::select(b" \n'\"\\$`{}()<>|&;~#*?[]=12".to_vec()), any::<u8>(),
    ], 0..80)) {
        if let Ok(script) = Script::parse(&line) {
            for step in &script.steps {
                for word in &step.command.words {
                    let _ = word.expand(&value, MOST);
                }
            }
        }
    }
}
