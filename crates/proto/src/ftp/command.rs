//! Commands: one line from a client, parsed into a type whose arguments are valid.

use std::net::SocketAddr;
use std::time::SystemTime;

use wharf_model::{ByteRange, DigestAlgorithm, Secret};

use crate::ftp::address::{EprtError, parse_eprt, parse_port};
use crate::ftp::verb::{Argument, Verb, VerbInfo};
use crate::time::parse_time;

/// A path as the client wrote it: any bytes; relative to its current directory.
pub type PathBytes = Vec<u8>;

/// A command with its parsed argument. An optional path that is missing is empty:
/// the current directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each is described by its row in the verb table"
)]
pub enum Command {
    Abor,
    Acct,
    Allo(u64),
    Appe(PathBytes),
    /// With TLS, which is the only mechanism.
    Auth,
    Avbl(PathBytes),
    Ccc,
    Cdup,
    Clnt(Vec<u8>),
    Cwd(PathBytes),
    Dele(PathBytes),
    Eprt(SocketAddr),
    Epsv(EpsvArgument),
    Feat,
    Hash(PathBytes),
    Help(Vec<u8>),
    List(PathBytes),
    /// `as_path` is the whole argument; `set` is there when it may also mean
    /// "set this time on that path". The session tries the first reading first.
    Mdtm {
        as_path: PathBytes,
        set: Option<(SystemTime, PathBytes)>,
    },
    Mff(FactChange, PathBytes),
    Mfmt(SystemTime, PathBytes),
    Mkd(PathBytes),
    Mlsd(PathBytes),
    Mlst(PathBytes),
    Mode,
    Nlst(PathBytes),
    Noop,
    Opts(OptsArgument),
    Pass(Secret<Vec<u8>>),
    Pasv,
    /// The size is of no meaning under TLS (RFC 4217 §8).
    Pbsz,
    Port(SocketAddr),
    Prot(ProtectionLevel),
    Pwd,
    Quit,
    /// `None` takes the range back.
    Rang(Option<ByteRange>),
    Rein,
    Rest(u64),
    Retr(PathBytes),
    Rmd(PathBytes),
    Rnfr(PathBytes),
    Rnto(PathBytes),
    Site(SiteCommand),
    Size(PathBytes),
    /// `None` asks for the session's own state.
    Stat(Option<PathBytes>),
    Stor(PathBytes),
    Stou(PathBytes),
    Stru,
    Syst,
    Type(TransferType),
    User(Vec<u8>),
    /// XCRC, XMD5 and their like.
    Digest {
        verb: Verb,
        algorithm: DigestAlgorithm,
        path: PathBytes,
        range: (u64, Option<u64>),
    },
}

/// How content is represented on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferType {
    /// TYPE A: text, lines end in CRLF.
    Ascii,
    /// TYPE I and L 8: bytes as they are.
    Image,
}

/// How data connections are protected (RFC 2228 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtectionLevel {
    /// C: not at all.
    Clear,
    /// S: against changes; no mechanism here has it.
    Safe,
    /// E: against readers; no mechanism here has it.
    Confidential,
    /// P: against both, with TLS.
    Private,
}

/// What EPSV asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpsvArgument {
    /// The family of the control connection.
    Any,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// From now on only EPSV will be used.
    All,
}

/// What OPTS sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptsArgument {
    /// `UTF8 ON` or `UTF8 OFF`.
    Utf8(bool),
    /// The facts that MLSx shall show, as written.
    Mlst(Vec<u8>),
    /// The algorithm of HASH; `None` asks which it is.
    Hash(Option<DigestAlgorithm>),
}

/// A command behind SITE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SiteCommand {
    /// List the commands.
    Help,
    /// Set permission bits.
    Chmod(u32, PathBytes),
    /// Copy a file.
    Copy(PathBytes, PathBytes),
    /// Describe a cut upload.
    Partial(PathBytes),
    /// Show the quota.
    Quota,
    /// Set the modification time.
    Utime(SystemTime, PathBytes),
}

/// Facts that MFF changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FactChange {
    /// Modification time.
    pub modify: Option<SystemTime>,
    /// Permission bits, at most 0o7777.
    pub mode: Option<u32>,
}

/// Why a line is no command. Each answers with the reply that its text names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// 500: no row of the verb table.
    #[error("unknown command")]
    UnknownVerb,
    /// A request of HTTP: a browser was led here, and what follows would be
    /// taken for commands. The connection is closed without a reply.
    #[error("this is no HTTP server")]
    Http,
    /// 501: the argument is missing.
    #[error("{}: an argument is missing; the form is {} {}", .0.name(), .0.name(), .0.syntax)]
    MissingArgument(&'static VerbInfo),
    /// 501: an argument where none belongs.
    #[error("{} takes no argument", .0.name())]
    UnexpectedArgument(&'static VerbInfo),
    /// 501: the argument is not of the form.
    #[error("{}: the argument is not of the form {} {}", .0.name(), .0.name(), .0.syntax)]
    InvalidArgument(&'static VerbInfo),
    /// 504: a parameter that the standard knows and this server does not.
    #[error("{}: not implemented for that parameter", .0.name())]
    ParameterNotImplemented(&'static VerbInfo),
    /// 522: a network family that is not served (RFC 2428 §2).
    #[error("network protocol not supported, use (1,2)")]
    Family,
}

impl PartialEq for VerbInfo {
    fn eq(&self, other: &Self) -> bool {
        self.verb == other.verb
    }
}

impl Eq for VerbInfo {}

impl Command {
    /// Parses one line, without its line end.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let (name, argument) = match line.iter().position(|byte| *byte == b' ') {
            Some(space) => (
                line.get(..space).unwrap_or_default(),
                line.get(space + 1..).unwrap_or_default(),
            ),
            None => (line, &[][..]),
        };
        let info = find_verb(name).ok_or_else(|| unknown(name, argument))?;
        match info.argument {
            Argument::None if !argument.trim_ascii().is_empty() => {
                Err(CommandError::UnexpectedArgument(info))
            }
            Argument::Required if argument.is_empty() => Err(CommandError::MissingArgument(info)),
            _ if argument.contains(&0) => Err(CommandError::InvalidArgument(info)),
            _ => parse_argument(info, argument),
        }
    }

    /// Which verb it is.
    #[rustfmt::skip]
    pub fn verb(&self) -> Verb {
        match self {
            Self::Abor => Verb::Abor, Self::Acct => Verb::Acct, Self::Allo(_) => Verb::Allo,
            Self::Appe(_) => Verb::Appe, Self::Auth => Verb::Auth, Self::Avbl(_) => Verb::Avbl,
            Self::Ccc => Verb::Ccc, Self::Cdup => Verb::Cdup,
            Self::Clnt(_) => Verb::Clnt, Self::Cwd(_) => Verb::Cwd, Self::Dele(_) => Verb::Dele,
            Self::Eprt(_) => Verb::Eprt, Self::Epsv(_) => Verb::Epsv, Self::Feat => Verb::Feat,
            Self::Hash(_) => Verb::Hash, Self::Help(_) => Verb::Help, Self::List(_) => Verb::List,
            Self::Mdtm { .. } => Verb::Mdtm, Self::Mff(..) => Verb::Mff, Self::Mfmt(..) => Verb::Mfmt,
            Self::Mkd(_) => Verb::Mkd, Self::Mlsd(_) => Verb::Mlsd, Self::Mlst(_) => Verb::Mlst,
            Self::Mode => Verb::Mode, Self::Nlst(_) => Verb::Nlst, Self::Noop => Verb::Noop,
            Self::Opts(_) => Verb::Opts, Self::Pass(_) => Verb::Pass, Self::Pasv => Verb::Pasv,
            Self::Pbsz => Verb::Pbsz, Self::Port(_) => Verb::Port, Self::Prot(_) => Verb::Prot,
            Self::Pwd => Verb::Pwd, Self::Quit => Verb::Quit,
            Self::Rang(_) => Verb::Rang, Self::Rein => Verb::Rein, Self::Rest(_) => Verb::Rest,
            Self::Retr(_) => Verb::Retr, Self::Rmd(_) => Verb::Rmd, Self::Rnfr(_) => Verb::Rnfr,
            Self::Rnto(_) => Verb::Rnto, Self::Site(_) => Verb::Site, Self::Size(_) => Verb::Size,
            Self::Stat(_) => Verb::Stat, Self::Stor(_) => Verb::Stor, Self::Stou(_) => Verb::Stou,
            Self::Stru => Verb::Stru, Self::Syst => Verb::Syst, Self::Type(_) => Verb::Type,
            Self::User(_) => Verb::User, Self::Digest { verb, .. } => *verb,
        }
    }
}

/// How a byte 0xFF in an argument is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Iac {
    /// Twice, as in Telnet (RFC 854): to a server that halves it.
    Doubled,
    /// As it is. Most servers take a name's bytes as they come, whatever RFC 959 §2.3 says.
    #[default]
    AsIs,
}

/// Appends one command line for a server: the verb, a space and `argument`
/// unless it is empty, CRLF.
///
/// # Errors
/// [`LineEndInArgument`] when the argument could end the line and start another command.
pub fn encode_command(
    verb: &str,
    argument: &[u8],
    iac: Iac,
    out: &mut Vec<u8>,
) -> Result<(), LineEndInArgument> {
    if argument
        .iter()
        .any(|byte| matches!(byte, b'\r' | b'\n' | 0))
    {
        return Err(LineEndInArgument);
    }
    out.extend_from_slice(verb.as_bytes());
    if !argument.is_empty() {
        out.push(b' ');
    }
    for byte in argument {
        out.push(*byte);
        if *byte == 0xff && iac == Iac::Doubled {
            out.push(0xff);
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// A name with CR, LF or NUL cannot be sent over FTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name contains a line end or NUL, which FTP cannot carry")]
pub struct LineEndInArgument;

/// Remnants of Telnet signals may stand before these three, where a network
/// stack has mixed urgent data into the line (lavv17/lftp#550).
fn find_verb(name: &[u8]) -> Option<&'static VerbInfo> {
    VerbInfo::find(name).or_else(|| {
        let at = name.len().checked_sub(4)?;
        let (remnant, tail) = name.split_at_checked(at)?;
        let signals = remnant.iter().all(|byte| *byte >= 0xf0);
        let row = VerbInfo::find(tail)?;
        (signals && matches!(row.verb, Verb::Abor | Verb::Stat | Verb::Quit)).then_some(row)
    })
}

/// What a line is that no row of the table has.
fn unknown(name: &[u8], argument: &[u8]) -> CommandError {
    let last = argument.rsplit(|byte| *byte == b' ').next();
    let version = last.and_then(|last| last.get(..HTTP_VERSION.len()));
    let is_request = version.is_some_and(|begin| begin.eq_ignore_ascii_case(HTTP_VERSION));
    if is_request || HTTP_METHODS.contains(&name) {
        CommandError::Http
    } else {
        CommandError::UnknownVerb
    }
}

/// What the version begins with that ends a request's first line, whatever its method (RFC 9112 §3,
/// `PRI` of RFC 9113 §3.4).
const HTTP_VERSION: &[u8] = b"HTTP/";

/// RFC 9110 §9.3 and RFC 5789; methods are case-sensitive.
const HTTP_METHODS: [&[u8]; 9] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
];

fn parse_argument(info: &'static VerbInfo, argument: &[u8]) -> Result<Command, CommandError> {
    let invalid = CommandError::InvalidArgument(info);
    let path = || argument.to_vec();
    Ok(match info.verb {
        Verb::Abor => Command::Abor,
        Verb::Acct => Command::Acct,
        Verb::Allo => Command::Allo(parse_allo(argument).ok_or(invalid)?),
        Verb::Appe => Command::Appe(path()),
        Verb::Auth => parse_auth(argument, info)?,
        Verb::Avbl => Command::Avbl(path()),
        Verb::Ccc => Command::Ccc,
        Verb::Cdup => Command::Cdup,
        Verb::Clnt => Command::Clnt(path()),
        Verb::Cwd => Command::Cwd(path()),
        Verb::Dele => Command::Dele(path()),
        Verb::Eprt => Command::Eprt(parse_eprt(argument).map_err(|error| match error {
            EprtError::Syntax => invalid,
            EprtError::Family => CommandError::Family,
        })?),
        Verb::Epsv => Command::Epsv(parse_epsv_argument(argument)?.ok_or(invalid)?),
        Verb::Feat => Command::Feat,
        Verb::Hash => Command::Hash(path()),
        Verb::Help => Command::Help(path()),
        Verb::List => Command::List(without_flags(argument)),
        Verb::Mdtm => parse_mdtm(argument),
        Verb::Mff => parse_mff(argument)
            .map(|(change, path)| Command::Mff(change, path))
            .ok_or(invalid)?,
        Verb::Mfmt => split_word(argument)
            .and_then(|(time, path)| Some(Command::Mfmt(parse_time(time)?, path.to_vec())))
            .ok_or(invalid)?,
        Verb::Mkd => Command::Mkd(path()),
        Verb::Mlsd => Command::Mlsd(path()),
        Verb::Mlst => Command::Mlst(path()),
        Verb::Mode => only(argument, b"S", b"BCZ", Command::Mode, info)?,
        Verb::Nlst => Command::Nlst(without_flags(argument)),
        Verb::Noop => Command::Noop,
        Verb::Opts => Command::Opts(parse_opts(argument).ok_or(invalid)?),
        Verb::Pass => Command::Pass(Secret::new(path())),
        Verb::Pasv => Command::Pasv,
        Verb::Pbsz => number(argument.trim_ascii())
            .map(|_| Command::Pbsz)
            .ok_or(invalid)?,
        Verb::Port => Command::Port(parse_port(argument).ok_or(invalid)?),
        Verb::Prot => Command::Prot(parse_protection(argument, info)?),
        Verb::Pwd => Command::Pwd,
        Verb::Quit => Command::Quit,
        Verb::Rang => Command::Rang(parse_rang(argument).ok_or(invalid)?),
        Verb::Rein => Command::Rein,
        Verb::Rest => Command::Rest(number(argument.trim_ascii()).ok_or(invalid)?),
        Verb::Retr => Command::Retr(path()),
        Verb::Rmd => Command::Rmd(path()),
        Verb::Rnfr => Command::Rnfr(path()),
        Verb::Rnto => Command::Rnto(path()),
        Verb::Site => Command::Site(parse_site(argument, info)?),
        Verb::Size => Command::Size(path()),
        Verb::Stat => Command::Stat((!argument.is_empty()).then(|| without_flags(argument))),
        Verb::Stor => Command::Stor(path()),
        Verb::Stou => Command::Stou(path()),
        Verb::Stru => only(argument, b"F", b"RP", Command::Stru, info)?,
        Verb::Syst => Command::Syst,
        Verb::Type => Command::Type(parse_type(argument, info)?),
        Verb::User => Command::User(path()),
        Verb::Xcrc => parse_digest(info.verb, DigestAlgorithm::Crc32, argument).ok_or(invalid)?,
        Verb::Xmd5 => parse_digest(info.verb, DigestAlgorithm::Md5, argument).ok_or(invalid)?,
        Verb::Xsha1 => parse_digest(info.verb, DigestAlgorithm::Sha1, argument).ok_or(invalid)?,
        Verb::Xsha256 => {
            parse_digest(info.verb, DigestAlgorithm::Sha256, argument).ok_or(invalid)?
        }
        Verb::Xsha512 => {
            parse_digest(info.verb, DigestAlgorithm::Sha512, argument).ok_or(invalid)?
        }
    })
}

/// TLS under each of its names but TLS-P, which would change PROT as well
/// (draft-murray-auth-ftp-ssl; RFC 4217 §17 leaves only TLS).
fn parse_auth(argument: &[u8], info: &'static VerbInfo) -> Result<Command, CommandError> {
    let upper = argument.trim_ascii().to_ascii_uppercase();
    match upper.as_slice() {
        b"TLS" | b"TLS-C" | b"SSL" => Ok(Command::Auth),
        _ => Err(CommandError::ParameterNotImplemented(info)),
    }
}

fn parse_protection(
    argument: &[u8],
    info: &'static VerbInfo,
) -> Result<ProtectionLevel, CommandError> {
    let upper = argument.trim_ascii().to_ascii_uppercase();
    match upper.as_slice() {
        b"C" => Ok(ProtectionLevel::Clear),
        b"S" => Ok(ProtectionLevel::Safe),
        b"E" => Ok(ProtectionLevel::Confidential),
        b"P" => Ok(ProtectionLevel::Private),
        _ => Err(CommandError::ParameterNotImplemented(info)),
    }
}

/// `ALLO n` or `ALLO n R m`; the record size does not matter here.
fn parse_allo(argument: &[u8]) -> Option<u64> {
    let mut words = words(argument);
    let size = number(words.next()?)?;
    match (words.next(), words.next(), words.next()) {
        (None, None, None) => Some(size),
        (Some(b"R" | b"r"), Some(record), None) => number(record).map(|_| size),
        _ => None,
    }
}

fn parse_epsv_argument(argument: &[u8]) -> Result<Option<EpsvArgument>, CommandError> {
    let argument = argument.trim_ascii();
    Ok(match argument {
        b"" => Some(EpsvArgument::Any),
        b"1" => Some(EpsvArgument::V4),
        b"2" => Some(EpsvArgument::V6),
        all if all.eq_ignore_ascii_case(b"ALL") => Some(EpsvArgument::All),
        other if number(other).is_some() => return Err(CommandError::Family),
        _ => None,
    })
}

fn parse_mdtm(argument: &[u8]) -> Command {
    let set = split_word(argument)
        .and_then(|(time, path)| Some((parse_time(time)?, path.to_vec())))
        .filter(|(_, path)| !path.is_empty());
    Command::Mdtm {
        as_path: argument.to_vec(),
        set,
    }
}

/// `fact=value;fact=value; path`; an unknown fact refuses the whole.
fn parse_mff(argument: &[u8]) -> Option<(FactChange, PathBytes)> {
    let (facts, path) = split_word(argument)?;
    let facts = facts.strip_suffix(b";")?;
    let mut change = FactChange::default();
    for fact in facts.split(|byte| *byte == b';') {
        let equals = fact.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (fact.get(..equals)?, fact.get(equals + 1..)?);
        if name.eq_ignore_ascii_case(b"modify") {
            change.modify = Some(parse_time(value)?);
        } else if name.eq_ignore_ascii_case(b"UNIX.mode") {
            change.mode = Some(octal_mode(value)?);
        } else {
            return None;
        }
    }
    (!path.is_empty()).then(|| (change, path.to_vec()))
}

fn parse_opts(argument: &[u8]) -> Option<OptsArgument> {
    let (name, value) = split_word(argument).unwrap_or((argument, &[]));
    let value = value.trim_ascii();
    // Windows writes "utf8 on", others "UTF-8" or "UTF8" alone.
    if name.eq_ignore_ascii_case(b"UTF8") || name.eq_ignore_ascii_case(b"UTF-8") {
        let off = value.eq_ignore_ascii_case(b"OFF");
        let known = off
            || value.is_empty()
            || value.eq_ignore_ascii_case(b"ON")
            || value.eq_ignore_ascii_case(b"NLST");
        return known.then_some(OptsArgument::Utf8(!off));
    }
    if name.eq_ignore_ascii_case(b"MLST") {
        return Some(OptsArgument::Mlst(value.to_vec()));
    }
    if name.eq_ignore_ascii_case(b"HASH") {
        if value.is_empty() {
            return Some(OptsArgument::Hash(None));
        }
        let algorithm = std::str::from_utf8(value).ok()?.parse().ok()?;
        return Some(OptsArgument::Hash(Some(algorithm)));
    }
    None
}

/// `first last`, both included; `1 0` takes a range back (draft-bryan-ftp-range §3).
fn parse_rang(argument: &[u8]) -> Option<Option<ByteRange>> {
    let mut words = words(argument);
    let (first, last) = (number(words.next()?)?, number(words.next()?)?);
    if words.next().is_some() {
        return None;
    }
    if (first, last) == (1, 0) {
        return Some(None);
    }
    ByteRange::new(first, last.checked_add(1)?)
        .filter(|range| range.length() > 0)
        .map(Some)
}

fn parse_type(argument: &[u8], info: &'static VerbInfo) -> Result<TransferType, CommandError> {
    let upper = argument.trim_ascii().to_ascii_uppercase();
    match upper.as_slice() {
        b"A" | b"A N" => Ok(TransferType::Ascii),
        b"I" | b"L 8" | b"L8" => Ok(TransferType::Image),
        [b'A' | b'E' | b'L', rest @ ..] if rest.is_empty() || rest.first() == Some(&b' ') => {
            Err(CommandError::ParameterNotImplemented(info))
        }
        _ => Err(CommandError::InvalidArgument(info)),
    }
}

/// A one-letter parameter of which only one value is implemented.
fn only(
    argument: &[u8],
    implemented: &[u8],
    known: &[u8],
    command: Command,
    info: &'static VerbInfo,
) -> Result<Command, CommandError> {
    let upper = argument.trim_ascii().to_ascii_uppercase();
    match upper.as_slice() {
        value if value == implemented => Ok(command),
        [letter] if known.contains(letter) => Err(CommandError::ParameterNotImplemented(info)),
        _ => Err(CommandError::InvalidArgument(info)),
    }
}

fn parse_site(argument: &[u8], info: &'static VerbInfo) -> Result<SiteCommand, CommandError> {
    let (name, rest) = split_word(argument).unwrap_or((argument, &[]));
    let parsed = match name.to_ascii_uppercase().as_slice() {
        b"HELP" => Some(SiteCommand::Help),
        b"QUOTA" => Some(SiteCommand::Quota),
        b"CHMOD" => split_word(rest)
            .and_then(|(mode, path)| Some(SiteCommand::Chmod(octal_mode(mode)?, path.to_vec()))),
        b"COPY" => two_paths(rest).map(|(from, to)| SiteCommand::Copy(from, to)),
        b"PARTIAL" => (!rest.is_empty()).then(|| SiteCommand::Partial(rest.to_vec())),
        b"UTIME" => parse_utime(rest),
        _ => return Err(CommandError::ParameterNotImplemented(info)),
    };
    parsed.ok_or(CommandError::InvalidArgument(info))
}

/// `YYYYMMDDHHMM[SS] path`, or `path atime mtime ctime UTC` as older clients write it.
fn parse_utime(argument: &[u8]) -> Option<SiteCommand> {
    let time = |digits: &[u8]| match digits.len() {
        12 => parse_time(&[digits, b"00"].concat()),
        _ => parse_time(digits),
    };
    if let Some(head) = argument.strip_suffix(b" UTC") {
        let mut fields = head.rsplitn(4, |byte| *byte == b' ');
        let (_changed, modified, _accessed, path) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        return Some(SiteCommand::Utime(time(modified)?, path.to_vec()));
    }
    let (when, path) = split_word(argument)?;
    (!path.is_empty()).then_some(SiteCommand::Utime(time(when)?, path.to_vec()))
}

/// Two paths with a space between; a path in double quotes may hold spaces,
/// and `""` in it is one quote.
fn two_paths(argument: &[u8]) -> Option<(PathBytes, PathBytes)> {
    let (first, rest) = take_path(argument)?;
    let (second, rest) = take_path(rest.strip_prefix(b" ")?)?;
    (rest.is_empty() && !first.is_empty() && !second.is_empty()).then_some((first, second))
}

fn take_path(text: &[u8]) -> Option<(PathBytes, &[u8])> {
    let Some(mut rest) = text.strip_prefix(b"\"") else {
        let end = text
            .iter()
            .position(|byte| *byte == b' ')
            .unwrap_or(text.len());
        let (path, rest) = text.split_at_checked(end)?;
        return Some((path.to_vec(), rest));
    };
    let mut path = Vec::new();
    loop {
        let quote = rest.iter().position(|byte| *byte == b'"')?;
        path.extend_from_slice(rest.get(..quote)?);
        rest = rest.get(quote + 1..)?;
        match rest.strip_prefix(b"\"") {
            Some(after) => {
                path.push(b'"');
                rest = after;
            }
            None => return Some((path, rest)),
        }
    }
}

/// `path`, `"path" start` or `path start end`: up to two numbers at the end
/// are a range when the path is quoted; without quotes the whole is a path.
fn parse_digest(verb: Verb, algorithm: DigestAlgorithm, argument: &[u8]) -> Option<Command> {
    let (path, range) = if argument.starts_with(b"\"") {
        let (path, rest) = take_path(argument)?;
        let mut numbers = words(rest);
        let start = numbers.next().map_or(Some(0), number)?;
        let end = numbers
            .next()
            .map(|word| number(word).ok_or(()))
            .transpose()
            .ok()?;
        if numbers.next().is_some() || path.is_empty() {
            return None;
        }
        (path, (start, end))
    } else {
        (argument.to_vec(), (0, None))
    };
    Some(Command::Digest {
        verb,
        algorithm,
        path,
        range,
    })
}

/// Takes ls-style flags off the front: `-la`, `-l -a path`. What starts with a
/// dash is never a path here, as with every server that clients were made for.
fn without_flags(argument: &[u8]) -> PathBytes {
    let mut rest = argument;
    while rest.first() == Some(&b'-') {
        rest = split_word(rest).map_or(&[], |(_, after)| after);
    }
    rest.to_vec()
}

/// The part before the first space, and all behind that one space.
fn split_word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = text.iter().position(|byte| *byte == b' ')?;
    Some((text.get(..space)?, text.get(space + 1..)?))
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty())
}

/// Decimal digits only, within `u64`.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

fn octal_mode(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 5 {
        return None;
    }
    let mode = digits.iter().try_fold(0_u32, |value, byte| {
        matches!(byte, b'0'..=b'7').then(|| value * 8 + u32::from(byte - b'0'))
    })?;
    (mode <= 0o7777).then_some(mode)
}

#[cfg(test)]
mod tests;
