//! Digests by commands of the server's, where SFTP has none: `sha256sum` and its like.
//!
//! Tried once for all sessions with a server, and believed only where they are made right of
//! a known word, and where the shell stands in the directory where SFTP does: the shell
//! of a jailed account may see other files under the same names.

use std::sync::Arc;

use futures_util::FutureExt as _;
use russh::ChannelMsg;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use wharf_model::{ByteRange, Digest, DigestAlgorithm, Hasher, VirtualPath};

use super::command::granted;
use super::connection::Connection;
use crate::error::{ClientError, Said, Waiting};
use crate::remote::Answer;
use crate::sftp::{Digester, LONGEST_DIGEST};

/// What commands a server has, once somebody has tried.
pub(super) type Learnt = Arc<OnceCell<Vec<Tool>>>;

/// A command that makes digests of its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tool {
    algorithm: DigestAlgorithm,
    command: &'static str,
}

/// In the order of preference; the best that works is used.
const TOOLS: [Tool; 4] = [
    Tool {
        algorithm: DigestAlgorithm::Sha256,
        command: "sha256sum",
    },
    // Perl's, on macOS and the BSDs.
    Tool {
        algorithm: DigestAlgorithm::Sha256,
        command: "shasum -a 256",
    },
    Tool {
        algorithm: DigestAlgorithm::Sha1,
        command: "sha1sum",
    },
    Tool {
        algorithm: DigestAlgorithm::Md5,
        command: "md5sum",
    },
];

/// Makes digests by commands, over the connection of an SFTP session. Keeps it open, too.
#[derive(Debug)]
pub(super) struct CommandDigester {
    connection: Connection,
    learnt: Learnt,
    /// Longest silence before an answer.
    deadline: std::time::Duration,
}

impl CommandDigester {
    pub(super) fn new(
        connection: Connection,
        learnt: Learnt,
        deadline: std::time::Duration,
    ) -> Self {
        Self {
            connection,
            learnt,
            deadline,
        }
    }

    async fn tools(&self, home: &VirtualPath) -> Result<&[Tool], ClientError> {
        let tried = self.learnt.get_or_try_init(|| async {
            match self.output_of(&probe(), self.deadline).await {
                Ok(output) => Ok(working_tools(&output, home)),
                // An account that runs no commands, or another one instead; a server with
                // one channel a connection.
                Err(
                    ClientError::Refused(_)
                    | ClientError::Timeout { .. }
                    | ClientError::Protocol(_)
                    | ClientError::TooManyConnections(_),
                ) => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        });
        match tried.await {
            Ok(tools) => Ok(tools),
            Err(error) => {
                // A server that ends the connection over a command is not asked to run one again.
                let _ = self.learnt.set(Vec::new());
                Err(error)
            }
        }
    }

    /// What a command writes; it must end with success.
    async fn output_of(
        &self,
        line: &[u8],
        deadline: std::time::Duration,
    ) -> Result<Vec<u8>, ClientError> {
        let mut channel = self.connection.channel(self.deadline).await?;
        channel.exec(true, line).await?;
        granted(&mut channel, self.deadline, "it runs no commands").await?;
        channel.eof().await?;
        let collected = async {
            let mut output = Vec::new();
            let mut status = None;
            loop {
                match channel.wait().await {
                    Some(ChannelMsg::Data { data }) => output.extend_from_slice(&data),
                    Some(ChannelMsg::ExitStatus { exit_status }) => status = Some(exit_status),
                    Some(ChannelMsg::Close) | None => break,
                    Some(_) => {}
                }
                if output.len() > MAX_OUTPUT_BYTES {
                    return Err(ClientError::Protocol("a command says too much".to_owned()));
                }
            }
            match status {
                Some(0) => Ok(output),
                _ => Err(ClientError::Refused(Said::words(
                    b"its command for digests failed",
                ))),
            }
        };
        timeout(deadline, collected).await.unwrap_or_else(|_| {
            Err(ClientError::Timeout {
                waiting: Waiting::Digest,
                after: deadline,
            })
        })
    }

    async fn digest(
        &self,
        path: &VirtualPath,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> Result<Digest, ClientError> {
        let tools = self.learnt.get().map(Vec::as_slice).unwrap_or_default();
        let tool = tools
            .iter()
            .find(|tool| tool.algorithm == algorithm)
            .ok_or(NO_DIGEST)?;
        let line = command_line(path, tool, range);
        let output = self.output_of(&line, LONGEST_DIGEST).await?;
        first_digest(&output, algorithm)
            .ok_or_else(|| ClientError::Protocol(format!("{} printed no digest", tool.command)))
    }
}

impl Digester for CommandDigester {
    fn learn<'a>(&'a mut self, home: &'a VirtualPath) -> Answer<'a, (Vec<DigestAlgorithm>, bool)> {
        async move {
            let tools = self.tools(home).await?;
            let algorithms = tools.iter().map(|tool| tool.algorithm).collect();
            Ok((algorithms, true))
        }
        .boxed()
    }

    fn digest<'a>(
        &'a mut self,
        path: &'a VirtualPath,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> Answer<'a, Digest> {
        let digester: &CommandDigester = self;
        CommandDigester::digest(digester, path, algorithm, range).boxed()
    }
}

/// Says where the shell stands, and then for each tool what it makes of a word that `head` has
/// cut, and the tool's name.
fn probe() -> Vec<u8> {
    // As SFTP has it: without symbolic links.
    let mut line = "pwd -P".to_owned();
    for tool in TOOLS {
        let command = tool.command;
        line.push_str(&format!(
            "; printf {WORD}{WORD} | head -c {} | {command} 2>/dev/null; echo {command}",
            WORD.len()
        ));
    }
    line.into_bytes()
}

/// The tools that work, at most one of each algorithm, if the shell stands at `home`.
fn working_tools(output: &[u8], home: &VirtualPath) -> Vec<Tool> {
    let mut lines = output.split(|byte| *byte == b'\n');
    if lines.next() != Some(home.as_bytes()) {
        return Vec::new();
    }
    let lines: Vec<&[u8]> = lines.collect();
    let mut working: Vec<Tool> = Vec::new();
    for tool in TOOLS {
        let mut hasher = Hasher::new(tool.algorithm);
        hasher.update(WORD.as_bytes());
        let expected = hasher.finish();
        let is_right = lines.windows(2).any(|pair| match pair {
            [said, name] => {
                *name == tool.command.as_bytes()
                    && first_digest(said, tool.algorithm).is_some_and(|digest| digest == expected)
            }
            _ => false,
        });
        if is_right
            && working
                .iter()
                .all(|other| other.algorithm != tool.algorithm)
        {
            working.push(tool);
        }
    }
    working
}

/// The line that makes a digest. The path is absolute, so that no tool takes it for an option.
fn command_line(path: &VirtualPath, tool: &Tool, range: Option<ByteRange>) -> Vec<u8> {
    let path = quoted(path.as_bytes());
    let command = tool.command;
    let parts: Vec<Vec<u8>> = match range {
        None => vec![format!("{command} < ").into_bytes(), path],
        Some(ByteRange { start: 0, end }) => vec![
            b"test -r ".to_vec(),
            path.clone(),
            format!(" && head -c {end} ").into_bytes(),
            path,
            format!(" | {command}").into_bytes(),
        ],
        Some(ByteRange { start, end }) => vec![
            b"test -r ".to_vec(),
            path.clone(),
            format!(" && tail -c +{} ", start + 1).into_bytes(),
            path,
            format!(" | head -c {} | {command}", end - start).into_bytes(),
        ],
    };
    parts.concat()
}

/// One word of a POSIX shell, whatever the bytes are.
fn quoted(bytes: &[u8]) -> Vec<u8> {
    let mut word = vec![b'\''];
    for byte in bytes {
        match byte {
            b'\'' => word.extend_from_slice(b"'\\''"),
            byte => word.push(*byte),
        }
    }
    word.push(b'\'');
    word
}

fn first_digest(line: &[u8], algorithm: DigestAlgorithm) -> Option<Digest> {
    let word = line.split(u8::is_ascii_whitespace).next()?;
    Digest::parse_hex(algorithm, std::str::from_utf8(word).ok()?)
}

const NO_DIGEST: ClientError = ClientError::Unsupported("make this digest");

/// What a tool must get right before it is believed.
const WORD: &str = "wharf";

/// A digest and a name take less.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &[u8]) -> VirtualPath {
        VirtualPath::parse(text).expect("a path")
    }

    // `printf wharf | sha256sum`, of GNU coreutils.
    const RIGHT: &str = "3982ea295917ab203aa0fa8d63ce9397e4a467ffabb5dc0fd2d448b0b8a2636f";

    #[test]
    fn only_tools_that_are_right_are_believed_and_only_at_home() {
        let said = format!("/home/a\n{RIGHT}  -\nsha256sum\nshasum -a 256\nxyz\nsha1sum\nmd5sum\n");
        let tools = working_tools(said.as_bytes(), &path(b"/home/a"));
        assert_eq!(tools, [TOOLS[0]]);
        assert_eq!(working_tools(said.as_bytes(), &path(b"/")), []);
        let wrong = said.replace(&RIGHT[..4], "0000");
        assert_eq!(working_tools(wrong.as_bytes(), &path(b"/home/a")), []);
        assert_eq!(working_tools(b"", &path(b"/")), []);
    }

    #[test]
    fn names_are_quoted_so_that_a_shell_takes_them_for_nothing_else() {
        let line = |range| {
            let line = command_line(&path(b"/it's; rm -rf $HOME"), &TOOLS[0], range);
            String::from_utf8(line).expect("text")
        };
        let name = "'/it'\\''s; rm -rf $HOME'";
        assert_eq!(line(None), format!("sha256sum < {name}"));
        assert_eq!(
            line(ByteRange::new(0, 10)),
            format!("test -r {name} && head -c 10 {name} | sha256sum")
        );
        assert_eq!(
            line(ByteRange::new(5, 10)),
            format!("test -r {name} && tail -c +6 {name} | head -c 5 | sha256sum")
        );
    }
}
