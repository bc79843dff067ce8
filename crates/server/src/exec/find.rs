//! `find`: a walk, and an expression that chooses what is printed.

use std::io;
use std::time::{Duration, SystemTime};

use wharf_model::{Entry, EntryKind, Refusal, VirtualPath};
use wharf_proto::exec::pattern::Pattern;

use super::ExitStatus;
use super::files::below;
use super::interpreter::Interpreter;
use super::quote::{quoted, quoted_if_needed};
use super::table::{Context, Outcome, Spec, Syntax, log};
use super::walk::{Step, Walk};

/// Deepest nesting of parentheses and negations.
const MAX_NESTING: usize = 64;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);

pub(super) static FIND: Spec = Spec {
    name: "find",
    operands: "[PATH]... [EXPRESSION]",
    about: "Print what is below directories: -name -iname -path -type f|d|l -size [+-]N[ckMG] \
            -mtime [+-]DAYS -mmin [+-]MINUTES -newer FILE -empty -maxdepth N -mindepth N -prune \
            -print -print0 -delete ( ) ! -a -o",
    syntax: Syntax::Raw,
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(find(context, arguments.operands)),
};

/// What is asked of each entry, and done with it.
#[derive(Debug, Clone)]
enum Expression {
    Name(Pattern),
    NameIgnoringCase(Pattern),
    Path(Pattern),
    Kind(Vec<EntryKind>),
    Size { amount: Comparison, unit_bytes: u64 },
    Age { amount: Comparison, unit: Duration },
    NewerThan(SystemTime),
    Empty,
    Constant(bool),
    Prune,
    Print { line_end: u8 },
    Delete,
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
}

/// `+N`, `-N` or `N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    More(u64),
    Less(u64),
    Exactly(u64),
}

impl Comparison {
    fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| {
            (digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
        };
        match text.split_at_checked(1)? {
            ("+", digits) => number(digits).map(Self::More),
            ("-", digits) => number(digits).map(Self::Less),
            _ => number(text).map(Self::Exactly),
        }
    }

    fn holds(self, value: u64) -> bool {
        match self {
            Self::More(than) => value > than,
            Self::Less(than) => value < than,
            Self::Exactly(number) => value == number,
        }
    }
}

/// The command after its arguments were read.
struct Search {
    expression: Expression,
    min_depth: usize,
    max_depth: usize,
    /// What is in a directory comes before it, as `-delete` needs.
    contents_first: bool,
    now: SystemTime,
}

/// What is looked at.
struct Candidate<'a> {
    /// As it is printed.
    name: &'a [u8],
    path: &'a VirtualPath,
    entry: &'a Entry,
}

/// What came of one entry.
#[derive(Debug, Default)]
struct Verdict {
    prune: bool,
    failed: bool,
}

async fn find(mut context: Context<'_>, words: Vec<Vec<u8>>) -> Outcome {
    if words
        .iter()
        .any(|word| matches!(word.as_slice(), b"--help" | b"-help"))
    {
        let help = context.spec.help();
        context.print(help.as_bytes()).await?;
        return Ok(ExitStatus::SUCCESS);
    }
    let is_expression = |word: &Vec<u8>| {
        matches!(word.first(), Some(b'-')) || matches!(word.as_slice(), b"(" | b"!" | b")")
    };
    // `-H`, `-L` and `-P` come before the paths; links are never followed here.
    let leading = words
        .iter()
        .take_while(|word| matches!(word.as_slice(), b"-H" | b"-L" | b"-P"))
        .count();
    let words = words.get(leading..).unwrap_or_default();
    let at = words.iter().position(is_expression).unwrap_or(words.len());
    let (paths, expression) = words.split_at_checked(at).unwrap_or_default();
    let mut parser = match Parser::new(context.shell, expression).await {
        Ok(parser) => parser,
        Err(why) => return context.misused(&why).await,
    };
    let search = match parser.search() {
        Ok(search) => search,
        Err(why) => return context.misused(&why).await,
    };
    let mut success = true;
    let usual = [b".".to_vec()];
    for start in if paths.is_empty() { &usual } else { paths } {
        success &= search.below(&mut context, start).await?;
    }
    Ok(ExitStatus::of(success))
}

impl Search {
    /// Searches one tree; whether all of it could be seen.
    async fn below(&self, context: &mut Context<'_>, operand: &[u8]) -> io::Result<bool> {
        let vfs = context.shell.vfs().clone();
        let found = match context.path(operand) {
            Ok(path) => vfs.link_metadata(&path).await.map(|entry| (path, entry)),
            Err(refusal) => Err(refusal),
        };
        let (start, start_entry) = match found {
            Ok(found) => found,
            Err(refusal) => {
                refuse(context, operand, &refusal).await?;
                return Ok(false);
            }
        };
        let mut success = true;
        let at_start = Candidate {
            name: operand,
            path: &start,
            entry: &start_entry,
        };
        if !self.contents_first {
            let verdict = self.judge(context, &at_start, 0).await?;
            success &= !verdict.failed;
            if verdict.prune {
                return Ok(success);
            }
        }
        let is_directory = start_entry.kind == EntryKind::Directory;
        let max_depth = if is_directory { self.max_depth } else { 0 };
        let mut walk = Walk::new(&vfs, start.clone(), max_depth);
        while let Some(step) = walk.next().await {
            match step {
                Step::Found { entry, .. }
                    if self.contents_first && entry.kind == EntryKind::Directory => {}
                Step::Found { path, depth, entry } => {
                    let name = below(operand, &start, &path);
                    let candidate = Candidate {
                        name: &name,
                        path: &path,
                        entry: &entry,
                    };
                    let verdict = self.judge(context, &candidate, depth).await?;
                    success &= !verdict.failed;
                    if verdict.prune && entry.kind == EntryKind::Directory && depth < max_depth {
                        walk.prune();
                    }
                }
                Step::Left { path, depth } if self.contents_first && depth > 0 => {
                    if let Ok(entry) = vfs.link_metadata(&path).await {
                        let name = below(operand, &start, &path);
                        let candidate = Candidate {
                            name: &name,
                            path: &path,
                            entry: &entry,
                        };
                        success &= !self.judge(context, &candidate, depth).await?.failed;
                    }
                }
                Step::Left { .. } => {}
                Step::Refused { path, refusal } => {
                    success = false;
                    refuse(context, &below(operand, &start, &path), &refusal).await?;
                }
            }
        }
        if self.contents_first {
            success &= !self.judge(context, &at_start, 0).await?.failed;
        }
        Ok(success)
    }

    async fn judge(
        &self,
        context: &mut Context<'_>,
        candidate: &Candidate<'_>,
        depth: usize,
    ) -> io::Result<Verdict> {
        let mut verdict = Verdict::default();
        if depth >= self.min_depth {
            self.holds(context, &self.expression, candidate, &mut verdict)
                .await?;
        }
        Ok(verdict)
    }

    /// Boxed, since expressions nest; [`MAX_NESTING`] bounds it.
    fn holds<'a>(
        &'a self,
        context: &'a mut Context<'_>,
        expression: &'a Expression,
        candidate: &'a Candidate<'_>,
        verdict: &'a mut Verdict,
    ) -> futures_util::future::BoxFuture<'a, io::Result<bool>> {
        let entry = candidate.entry;
        Box::pin(async move {
            Ok(match expression {
                Expression::Name(pattern) => pattern.matches(last_name(candidate)),
                Expression::NameIgnoringCase(pattern) => {
                    pattern.matches_ignoring_case(last_name(candidate))
                }
                Expression::Path(pattern) => pattern.matches(candidate.name),
                Expression::Kind(kinds) => kinds.contains(&entry.kind),
                Expression::Size { amount, unit_bytes } => {
                    amount.holds(entry.size.div_ceil(*unit_bytes))
                }
                Expression::Age { amount, unit } => {
                    let age = self.now.duration_since(entry.modified).unwrap_or_default();
                    amount.holds(age.as_secs() / unit.as_secs().max(1))
                }
                Expression::NewerThan(time) => entry.modified > *time,
                Expression::Empty => is_empty(context.shell, candidate).await,
                Expression::Constant(value) => *value,
                Expression::Prune => {
                    verdict.prune = true;
                    true
                }
                Expression::Print { line_end } => {
                    self.print(context, candidate, *line_end).await?;
                    true
                }
                Expression::Delete => {
                    let deleted = delete(context, candidate).await?;
                    verdict.failed |= !deleted;
                    deleted
                }
                Expression::Not(inner) => !self.holds(context, inner, candidate, verdict).await?,
                Expression::And(all) => {
                    for inner in all {
                        if !self.holds(context, inner, candidate, verdict).await? {
                            return Ok(false);
                        }
                    }
                    true
                }
                Expression::Or(any) => {
                    for inner in any {
                        if self.holds(context, inner, candidate, verdict).await? {
                            return Ok(true);
                        }
                    }
                    false
                }
            })
        })
    }

    async fn print(
        &self,
        context: &mut Context<'_>,
        candidate: &Candidate<'_>,
        line_end: u8,
    ) -> io::Result<()> {
        let mut line = if line_end != 0 && context.streams.shows_to_person() {
            quoted_if_needed(candidate.name).into_bytes()
        } else {
            candidate.name.to_vec()
        };
        line.push(line_end);
        context.print(&line).await
    }
}

/// `find` quotes every name.
async fn refuse(context: &mut Context<'_>, name: &[u8], refusal: &Refusal) -> io::Result<()> {
    log(context.spec.name, name, refusal);
    let line = format!("{}: {}", quoted(name), super::refusal::text(refusal));
    context.complain(&line).await
}

fn last_name<'a>(candidate: &Candidate<'a>) -> &'a [u8] {
    let name = candidate.name;
    let mut components = name.rsplit(|byte| *byte == b'/');
    components
        .find(|component| !component.is_empty())
        .unwrap_or(b"/")
}

async fn is_empty(shell: &Interpreter, candidate: &Candidate<'_>) -> bool {
    match candidate.entry.kind {
        EntryKind::File => candidate.entry.size == 0,
        EntryKind::Directory => {
            let vfs = shell.vfs();
            match vfs.list_links(candidate.path).await {
                Ok(mut listing) => loop {
                    match listing.next_batch().await {
                        Ok(Some(batch)) if batch.is_empty() => {}
                        Ok(None) => return true,
                        Ok(Some(_)) | Err(_) => return false,
                    }
                },
                Err(_) => false,
            }
        }
        EntryKind::Symlink | EntryKind::Other => false,
    }
}

async fn delete(context: &mut Context<'_>, candidate: &Candidate<'_>) -> io::Result<bool> {
    if candidate.path.is_root() {
        return Ok(true);
    }
    let vfs = context.shell.vfs();
    let deleted = if candidate.entry.kind == EntryKind::Directory {
        vfs.remove_directory(candidate.path).await
    } else {
        vfs.remove_file(candidate.path).await
    };
    match deleted {
        Ok(()) => Ok(true),
        Err(refusal) => {
            context
                .refuse("cannot delete", candidate.name, &refusal)
                .await?;
            Ok(false)
        }
    }
}

/// Reads an expression off its words.
struct Parser<'a> {
    words: &'a [Vec<u8>],
    at: usize,
    /// The times of the files behind `-newer`, in their order.
    references: std::vec::IntoIter<SystemTime>,
    min_depth: usize,
    max_depth: usize,
    acts: bool,
    contents_first: bool,
}

impl<'a> Parser<'a> {
    async fn new(shell: &Interpreter, words: &'a [Vec<u8>]) -> Result<Self, String> {
        let mut references = Vec::new();
        for pair in words.windows(2) {
            if let [option, name] = pair
                && option == b"-newer"
            {
                let found = match shell.path(name) {
                    Ok(path) => shell.vfs().metadata(&path).await,
                    Err(refusal) => Err(refusal),
                };
                let entry = found.map_err(|refusal| {
                    format!("{}: {}", quoted(name), super::refusal::text(&refusal))
                })?;
                references.push(entry.modified);
            }
        }
        Ok(Self {
            words,
            at: 0,
            references: references.into_iter(),
            min_depth: 0,
            max_depth: usize::MAX,
            acts: false,
            contents_first: false,
        })
    }

    fn search(&mut self) -> Result<Search, String> {
        let mut expression = if self.words.is_empty() {
            Expression::Constant(true)
        } else {
            self.alternatives(0)?
        };
        if let Some(word) = self.words.get(self.at) {
            return Err(format!("{} is not expected here", quoted(word)));
        }
        if !self.acts {
            let print = Expression::Print { line_end: b'\n' };
            expression = Expression::And(vec![expression, print]);
        }
        Ok(Search {
            expression,
            min_depth: self.min_depth,
            max_depth: self.max_depth,
            contents_first: self.contents_first,
            now: SystemTime::now(),
        })
    }

    fn alternatives(&mut self, nesting: usize) -> Result<Expression, String> {
        let mut any = vec![self.conjunction(nesting)?];
        while matches!(self.peek(), Some(b"-o" | b"-or")) {
            self.at += 1;
            any.push(self.conjunction(nesting)?);
        }
        Ok(match any.pop() {
            Some(only) if any.is_empty() => only,
            last => {
                any.extend(last);
                Expression::Or(any)
            }
        })
    }

    fn conjunction(&mut self, nesting: usize) -> Result<Expression, String> {
        let mut all = vec![self.term(nesting)?];
        loop {
            match self.peek() {
                None | Some(b"-o" | b"-or" | b")") => break,
                Some(b"-a" | b"-and") => self.at += 1,
                Some(_) => {}
            }
            all.push(self.term(nesting)?);
        }
        Ok(Expression::And(all))
    }

    fn term(&mut self, nesting: usize) -> Result<Expression, String> {
        if nesting > MAX_NESTING {
            return Err("the expression is nested too deeply".to_owned());
        }
        let word = self.next().ok_or("an expression is missing")?;
        Ok(match word {
            b"!" | b"-not" => Expression::Not(Box::new(self.term(nesting + 1)?)),
            b"(" => {
                let inner = self.alternatives(nesting + 1)?;
                if self.next() != Some(b")") {
                    return Err("a closing ')' is missing".to_owned());
                }
                inner
            }
            b"-name" => Expression::Name(Pattern::parse(self.value(word)?)),
            b"-iname" => {
                Expression::NameIgnoringCase(Pattern::parse_ignoring_case(self.value(word)?))
            }
            b"-path" | b"-wholename" => Expression::Path(Pattern::parse(self.value(word)?)),
            b"-type" => self.kinds(word)?,
            b"-size" => self.size(word)?,
            b"-mtime" | b"-ctime" | b"-atime" => self.age(word, DAY)?,
            b"-mmin" | b"-cmin" | b"-amin" => self.age(word, MINUTE)?,
            b"-newer" => {
                self.value(word)?;
                let time = self
                    .references
                    .next()
                    .ok_or("a file is missing behind -newer")?;
                Expression::NewerThan(time)
            }
            b"-empty" => Expression::Empty,
            b"-true" => Expression::Constant(true),
            b"-false" => Expression::Constant(false),
            b"-prune" => Expression::Prune,
            b"-maxdepth" => {
                self.max_depth = self.depth(word)?;
                Expression::Constant(true)
            }
            b"-mindepth" => {
                self.min_depth = self.depth(word)?;
                Expression::Constant(true)
            }
            b"-depth" => {
                self.contents_first = true;
                Expression::Constant(true)
            }
            b"-mount" | b"-xdev" => Expression::Constant(true),
            b"-print" => self.act(Expression::Print { line_end: b'\n' }),
            b"-print0" => self.act(Expression::Print { line_end: 0 }),
            b"-delete" => {
                self.contents_first = true;
                self.act(Expression::Delete)
            }
            other => return Err(format!("unknown predicate {}", quoted(other))),
        })
    }

    fn act(&mut self, action: Expression) -> Expression {
        self.acts = true;
        action
    }

    fn kinds(&mut self, option: &[u8]) -> Result<Expression, String> {
        let letters = self.value(option)?;
        let kinds = letters
            .split(|byte| *byte == b',')
            .map(|letter| match letter {
                b"f" => Some(EntryKind::File),
                b"d" => Some(EntryKind::Directory),
                b"l" => Some(EntryKind::Symlink),
                b"b" | b"c" | b"p" | b"s" => Some(EntryKind::Other),
                _ => None,
            });
        let kinds = kinds.collect::<Option<Vec<_>>>();
        kinds
            .map(Expression::Kind)
            .ok_or_else(|| format!("unknown argument to -type: {}", quoted(letters)))
    }

    fn size(&mut self, option: &[u8]) -> Result<Expression, String> {
        let text = self.text(option)?;
        let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
        let unit = text.get(digits.len()..).unwrap_or_default();
        let unit_bytes = match unit {
            "" | "b" => 512,
            "c" => 1,
            "w" => 2,
            "k" => 1 << 10,
            "M" => 1 << 20,
            "G" => 1 << 30,
            _ => return Err(format!("invalid argument '{text}' to '-size'")),
        };
        let amount = Comparison::parse(digits)
            .ok_or_else(|| format!("invalid argument '{text}' to '-size'"))?;
        Ok(Expression::Size { amount, unit_bytes })
    }

    fn age(&mut self, option: &[u8], unit: Duration) -> Result<Expression, String> {
        let text = self.text(option)?;
        let amount = Comparison::parse(&text)
            .ok_or_else(|| format!("invalid argument '{text}' to {}", quoted(option)))?;
        Ok(Expression::Age { amount, unit })
    }

    fn depth(&mut self, option: &[u8]) -> Result<usize, String> {
        let text = self.text(option)?;
        text.parse()
            .map_err(|_| format!("a number is needed behind {}, not '{text}'", quoted(option)))
    }

    /// A value that is shown as it is in a message, and so holds nothing but plain ASCII.
    fn text(&mut self, option: &[u8]) -> Result<String, String> {
        let value = self.value(option)?;
        str::from_utf8(value)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))
            .map(str::to_owned)
            .ok_or_else(|| format!("invalid argument {} to {}", quoted(value), quoted(option)))
    }

    fn value(&mut self, option: &[u8]) -> Result<&'a [u8], String> {
        self.next()
            .ok_or_else(|| format!("missing argument to {}", quoted(option)))
    }

    fn peek(&self) -> Option<&'a [u8]> {
        self.words.get(self.at).map(Vec::as_slice)
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        let word = self.peek()?;
        self.at += 1;
        Some(word)
    }
}
