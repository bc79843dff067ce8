//! Commands of the shell itself: cd, pwd, echo, variables, help.

use wharf_model::{EntryKind, Refusal};

use super::ExitStatus;
use super::interpreter::Interpreter;
use super::quote::{quoted, quoted_if_needed};
use super::table::{Arguments, Context, Outcome, Spec, Syntax, TABLE, find_command, flag};

pub(super) static PWD: Spec = Spec {
    name: "pwd",
    operands: "",
    about: "Print the current directory.",
    syntax: Syntax::Options(&[
        flag("L", "logical", "accepted; the directory has one name here"),
        flag("P", "physical", "accepted; the directory has one name here"),
    ]),
    misuse: ExitStatus::FAILURE,
    run: |mut context, _| {
        Box::pin(async move {
            let line = [context.shell.directory().as_bytes(), b"\n"].concat();
            context.print(&line).await?;
            Ok(ExitStatus::SUCCESS)
        })
    },
};

pub(super) static CD: Spec = Spec {
    name: "cd",
    operands: "[DIRECTORY]",
    about: "Change the current directory: to the home without an argument, back with '-'.",
    syntax: Syntax::Options(&[flag("L", "", "accepted"), flag("P", "", "accepted")]),
    misuse: ExitStatus::USAGE,
    run: |context, arguments| Box::pin(cd(context, arguments)),
};

async fn cd(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    let argument = match arguments.operands.as_slice() {
        [] => b"/".to_vec(),
        [one] => one.clone(),
        _ => {
            context.complain("too many arguments").await?;
            return Ok(ExitStatus::FAILURE);
        }
    };
    let back = argument == b"-";
    let target = if back {
        Ok(context.shell.previous().clone())
    } else {
        context.path(&argument)
    };
    let entered = match target {
        Ok(target) => context.shell.vfs().enter(&target).await.map(|()| target),
        Err(refusal) => Err(refusal),
    };
    match entered {
        Ok(target) => {
            if back {
                context.print(&[target.as_bytes(), b"\n"].concat()).await?;
            }
            context.shell.change_directory(target);
            Ok(ExitStatus::SUCCESS)
        }
        Err(refusal) => {
            context.refuse("", &argument, &refusal).await?;
            Ok(ExitStatus::FAILURE)
        }
    }
}

pub(super) static ECHO: Spec = Spec {
    name: "echo",
    operands: "[-neE] [WORD]...",
    about: "Print words; -n without a line end, -e with escapes such as \\n and \\t.",
    syntax: Syntax::Raw,
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(echo(context, arguments)),
};

async fn echo(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    let mut words = arguments.operands.as_slice();
    let (mut line_end, mut escapes) = (true, false);
    while let Some((first, rest)) = words.split_first() {
        let letters = match first.as_slice() {
            [b'-', letters @ ..]
                if !letters.is_empty()
                    && letters
                        .iter()
                        .all(|letter| matches!(letter, b'n' | b'e' | b'E')) =>
            {
                letters
            }
            _ => break,
        };
        for letter in letters {
            match letter {
                b'n' => line_end = false,
                other => escapes = *other == b'e',
            }
        }
        words = rest;
    }
    let mut text = words.join(&b' ');
    if escapes {
        text = unescape(&text);
    }
    if line_end {
        text.push(b'\n');
    }
    context.print(&text).await?;
    Ok(ExitStatus::SUCCESS)
}

/// The escapes of `echo -e` (POSIX.1-2024 echo, XSI).
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        let (b'\\', [letter, behind @ ..]) = (byte, after) else {
            out.push(*byte);
            continue;
        };
        rest = behind;
        match letter {
            b'a' => out.push(0x07),
            b'b' => out.push(0x08),
            b'c' => return out,
            b'e' => out.push(0x1b),
            b'f' => out.push(0x0c),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(0x0b),
            b'\\' => out.push(b'\\'),
            b'0' => rest = push_number(behind, 3, 8, &mut out),
            b'x' => rest = push_number(behind, 2, 16, &mut out),
            other => out.extend_from_slice(&[b'\\', *other]),
        }
    }
    out
}

/// Appends the byte that at most `most` digits stand for, and returns what is behind them.
fn push_number<'a>(text: &'a [u8], most: usize, radix: u32, out: &mut Vec<u8>) -> &'a [u8] {
    let digits = text
        .iter()
        .take(most)
        .map_while(|byte| char::from(*byte).to_digit(radix));
    let (length, value) = digits.fold((0, 0), |(length, value), digit| {
        (length + 1, value * radix + digit)
    });
    // More than a byte, as `\0777`, is cut to one, as by GNU.
    out.push(value.to_le_bytes()[0]);
    text.get(length..).unwrap_or_default()
}

/// A command that only has a status.
const fn constant(name: &'static str, about: &'static str, run: super::table::Run) -> Spec {
    Spec {
        name,
        operands: "",
        about,
        syntax: Syntax::Raw,
        misuse: ExitStatus::FAILURE,
        run,
    }
}

pub(super) static TRUE: Spec = constant("true", "Do nothing, successfully.", |_, _| {
    Box::pin(async { Ok(ExitStatus::SUCCESS) })
});
pub(super) static COLON: Spec = constant(":", "Do nothing, successfully.", |_, _| {
    Box::pin(async { Ok(ExitStatus::SUCCESS) })
});
pub(super) static FALSE: Spec = constant("false", "Do nothing, unsuccessfully.", |_, _| {
    Box::pin(async { Ok(ExitStatus::FAILURE) })
});

pub(super) static TEST: Spec = Spec {
    name: "test",
    operands: "[!] [-e|-f|-d|-L|-s|-n|-z WORD | WORD =|!= WORD]",
    about: "Say by the exit status what a path is or whether words are alike.",
    syntax: Syntax::Raw,
    misuse: ExitStatus::USAGE,
    run: |context, arguments| Box::pin(test(context, arguments.operands)),
};

pub(super) static BRACKET: Spec = Spec {
    name: "[",
    operands: "EXPRESSION ]",
    about: "The same as test.",
    syntax: Syntax::Raw,
    misuse: ExitStatus::USAGE,
    run: |mut context, arguments| {
        Box::pin(async move {
            let mut words = arguments.operands;
            if words.pop().as_deref() != Some(b"]") {
                return context.misused("missing ']'").await;
            }
            test(context, words).await
        })
    },
};

async fn test(mut context: Context<'_>, words: Vec<Vec<u8>>) -> Outcome {
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let (negated, words) = match words.as_slice() {
        [b"!", rest @ ..] => (true, rest),
        all => (false, all),
    };
    let holds = match words {
        [] => false,
        [word] => !word.is_empty(),
        [b"-n", word] => !word.is_empty(),
        [b"-z", word] => word.is_empty(),
        [
            [
                b'-',
                kind @ (b'e' | b'f' | b'd' | b's' | b'L' | b'h' | b'r' | b'w' | b'x'),
            ],
            path,
        ] => is_of_kind(context.shell, *kind, path).await,
        [left, b"=" | b"==", right] => left == right,
        [left, b"!=", right] => left != right,
        _ => {
            return context
                .misused("this expression is not understood here")
                .await;
        }
    };
    Ok(ExitStatus::of(holds != negated))
}

async fn is_of_kind(shell: &Interpreter, kind: u8, path: &[u8]) -> bool {
    let Ok(path) = shell.path(path) else {
        return false;
    };
    let vfs = shell.vfs();
    let found: Result<_, Refusal> = match kind {
        b'L' | b'h' => vfs.link_metadata(&path).await,
        _ => vfs.metadata(&path).await,
    };
    found.is_ok_and(|entry| match kind {
        b'f' => entry.kind == EntryKind::File,
        b'd' => entry.kind == EntryKind::Directory,
        b'L' | b'h' => entry.kind == EntryKind::Symlink,
        b's' => entry.size > 0 || entry.kind == EntryKind::Directory,
        // Of the bits of the owner, as whom everybody acts here.
        b'r' => entry.mode & 0o400 != 0,
        b'w' => entry.mode & 0o200 != 0,
        b'x' => entry.mode & 0o100 != 0,
        // What is there and no link that leads nowhere.
        _ => entry.kind != EntryKind::Symlink,
    })
}

pub(super) static TYPE: Spec = Spec {
    name: "type",
    operands: "NAME...",
    about: "Say whether there is a command with this name.",
    syntax: Syntax::Raw,
    misuse: ExitStatus::FAILURE,
    run: |mut context, arguments| {
        Box::pin(async move {
            let mut all = true;
            for name in &arguments.operands {
                let shown = quoted_if_needed(name);
                if find_command(name).is_some() {
                    let line = format!("{shown} is a shell builtin\n");
                    context.print(line.as_bytes()).await?;
                } else {
                    all = false;
                    context.complain(&format!("{shown}: not found")).await?;
                }
            }
            Ok(ExitStatus::of(all))
        })
    },
};

pub(super) static COMMAND: Spec = Spec {
    name: "command",
    operands: "[-v|-V] NAME [ARGUMENT]...",
    about: "Run a command; with -v print its name if there is one.",
    syntax: Syntax::Raw,
    misuse: ExitStatus::USAGE,
    run: |mut context, arguments| {
        Box::pin(async move {
            let mut words = arguments.operands;
            let asks = matches!(words.first().map(Vec::as_slice), Some(b"-v" | b"-V"));
            if !asks {
                return context.shell.run_other(words, context.streams).await;
            }
            let mut all = words.len() > 1;
            for name in words.drain(1..) {
                match find_command(&name) {
                    Some(spec) => context.print(format!("{}\n", spec.name).as_bytes()).await?,
                    None => all = false,
                }
            }
            Ok(ExitStatus::of(all))
        })
    },
};

pub(super) static EXPORT: Spec = Spec {
    name: "export",
    operands: "[NAME[=VALUE]]...",
    about: "Set variables; there is no environment to export them to.",
    syntax: Syntax::Raw,
    misuse: ExitStatus::USAGE,
    run: |mut context, arguments| {
        Box::pin(async move {
            for word in &arguments.operands {
                let mut parts = word.splitn(2, |byte| *byte == b'=');
                let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
                    continue;
                };
                if !context.shell.set_variable(name, value.to_vec()) {
                    context.complain("no room for more variables").await?;
                    return Ok(ExitStatus::FAILURE);
                }
            }
            Ok(ExitStatus::SUCCESS)
        })
    },
};

pub(super) static UNSET: Spec = Spec {
    name: "unset",
    operands: "[NAME]...",
    about: "Forget variables.",
    syntax: Syntax::Raw,
    misuse: ExitStatus::USAGE,
    run: |context, arguments| {
        Box::pin(async move {
            for name in &arguments.operands {
                context.shell.unset_variable(name);
            }
            Ok(ExitStatus::SUCCESS)
        })
    },
};

/// There are no aliases; WinSCP removes them before it trusts `ls`.
pub(super) static UNALIAS: Spec =
    constant("unalias", "Do nothing: there are no aliases.", |_, _| {
        Box::pin(async { Ok(ExitStatus::SUCCESS) })
    });

pub(super) static EXIT: Spec = Spec {
    name: "exit",
    operands: "[STATUS]",
    about: "End the shell.",
    syntax: Syntax::Raw,
    misuse: ExitStatus::USAGE,
    run: |mut context, arguments| {
        Box::pin(async move {
            let status = match arguments.operands.first() {
                None => context.shell.status(),
                Some(text) => {
                    let number = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
                    let Some(number) = number else {
                        let text = format!("{}: a number from 0 to 255 is needed", quoted(text));
                        return context.misused(&text).await;
                    };
                    ExitStatus::new(number)
                }
            };
            context.shell.end();
            Ok(status)
        })
    },
};

pub(super) static HELP: Spec = Spec {
    name: "help",
    operands: "[COMMAND]",
    about: "List the commands, or say how one is used.",
    syntax: Syntax::Raw,
    misuse: ExitStatus::FAILURE,
    run: |mut context, arguments| {
        Box::pin(async move {
            let text = match arguments.operands.first() {
                None => overview(),
                Some(name) => {
                    let Some(spec) = find_command(name) else {
                        let shown = quoted_if_needed(name);
                        context
                            .complain(&format!("no command is called {shown}"))
                            .await?;
                        return Ok(ExitStatus::FAILURE);
                    };
                    spec.help()
                }
            };
            context.print(text.as_bytes()).await?;
            Ok(ExitStatus::SUCCESS)
        })
    },
};

fn overview() -> String {
    let mut text = String::from("Commands (COMMAND --help says more):\n");
    for spec in TABLE {
        text.push_str(&format!("  {:<10} {}\n", spec.name, spec.about));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_echo_are_those_of_bash() {
        // By `echo -ne` of bash 5.2.
        let cases: [(&[u8], &[u8]); 6] = [
            (br"a\tb\n", b"a\tb\n"),
            (br"\0101\x41\\", b"AA\\"),
            (br"a\cb", b"a"),
            (br"\q\", b"\\q\\"),
            (br"\0777", b"\xff"),
            (br"\0", b"\0"),
        ];
        for (text, expected) in cases {
            assert_eq!(unescape(text), expected);
        }
    }
}
