//! What the client's commands show: results on standard output, progress bars
//! and troubles on standard error; with `--json` one object a line instead.

use std::collections::HashMap;
use std::fmt::Write;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use wharf_client::{
    Direction, Done, DryStep, Event, Evidence, LeftOut, Observer, Outcome, Side, SkipReason,
    Summary, TransferId, Verified,
};
use wharf_model::escape_for_display;

use crate::cli::text;

/// How much is shown, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// For a person: lines, and bars where standard error is a terminal.
    Text,
    /// For a person who wants to hear of troubles only.
    Quiet,
    /// For a program.
    Json,
}

/// Where everything that a command shows goes through, so that bars and lines
/// do not run into each other.
pub(super) struct Output {
    style: Style,
    bars: MultiProgress,
    /// What is under way. A lock because transfers report from many tasks;
    /// never held across an await.
    state: Mutex<State>,
    /// Whoever read standard output has gone.
    unread: CancellationToken,
}

#[derive(Default)]
struct State {
    files: HashMap<TransferId, FileState>,
    total: Option<ProgressBar>,
    planned_files: u64,
    planned_bytes: u64,
    /// Entries that no transfer is made of.
    left_out: u64,
}

struct FileState {
    name: String,
    size: Option<u64>,
    /// Bytes that the target holds, as far as was told.
    bytes: u64,
    bar: ProgressBar,
    told: Instant,
}

impl Output {
    /// An output of this style.
    pub(super) fn new(style: Style) -> Self {
        // Hides itself where standard error is no terminal.
        let bars = MultiProgress::new();
        if style != Style::Text || !std::io::stderr().is_terminal() {
            bars.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        Self {
            style,
            bars,
            state: Mutex::default(),
            unread: CancellationToken::new(),
        }
    }

    /// Cancelled once whoever read standard output has gone.
    pub(super) fn unread(&self) -> &CancellationToken {
        &self.unread
    }

    /// Whether lines are for programs.
    pub(super) fn is_json(&self) -> bool {
        self.style == Style::Json
    }

    /// Shows a result: `line` to a person, `value` to a program. Quiet or not, results are shown.
    pub(super) fn result(&self, line: &str, value: impl FnOnce() -> Value) {
        if self.is_json() {
            self.print(&json_line(&value()));
        } else {
            self.print(line);
        }
    }

    /// Tells what was done, unless only troubles are wanted.
    pub(super) fn note(&self, line: &str, value: impl FnOnce() -> Value) {
        if self.style != Style::Quiet {
            self.result(line, value);
        }
    }

    /// Tells of a trouble that does not end the command.
    pub(super) fn trouble(&self, line: &str, value: impl FnOnce() -> Value) {
        if self.is_json() {
            self.print(&json_line(&value()));
        } else {
            self.bars.suspend(|| eprintln!("wharf: {line}"));
        }
    }

    /// Tells a person, and no program: standard output carries something else.
    pub(super) fn aside(&self, line: &str) {
        self.bars.suspend(|| eprintln!("wharf: {line}"));
    }

    /// Tells what became of several files.
    pub(super) fn summary(&self, summary: &Summary) {
        let files = summary.transferred + summary.skipped + summary.failed + summary.not_tried;
        let left_out = self.state().left_out;
        self.end_bars();
        if files + left_out < 2
            && summary.removed + summary.directories_made == 0
            && !self.is_json()
        {
            return;
        }
        self.note(&summary_line(summary, left_out), || {
            json!({
                "event": "summary",
                "transferred": summary.transferred,
                "skipped": summary.skipped,
                "failed": summary.failed,
                "not_tried": summary.not_tried,
                "left_out": left_out,
                "verified": summary.verified,
                "removed": summary.removed,
                "directories_made": summary.directories_made,
                "bytes": summary.moved_bytes,
                "seconds": summary.elapsed.as_secs_f64(),
            })
        });
    }

    /// Takes the bars away and forgets what was planned.
    pub(super) fn end_bars(&self) {
        let mut state = self.state();
        for file in state.files.values() {
            file.bar.finish_and_clear();
        }
        if let Some(total) = &state.total {
            total.finish_and_clear();
        }
        *state = State::default();
    }

    fn print(&self, line: &str) {
        self.bars.suspend(|| {
            if writeln!(std::io::stdout(), "{line}").is_err() {
                self.unread.cancel();
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn planned(&self, files: u64, bytes: u64) {
        let mut state = self.state();
        state.planned_files += files;
        state.planned_bytes += bytes;
        if state.planned_files < 2 {
            return;
        }
        let length = state.planned_bytes;
        let total = state.total.get_or_insert_with(|| {
            let bar = ProgressBar::new(0).with_style(bar_style(0));
            bar.set_message("total");
            self.bars.add(bar)
        });
        total.set_length(length);
    }

    fn started(&self, id: TransferId, name: &[u8], size: Option<u64>, offset: u64) {
        let mut state = self.state();
        if let Some(old) = state.files.remove(&id) {
            // Another attempt: what was counted is counted again.
            take_back(state.total.as_ref(), old.bytes);
            old.bar.finish_and_clear();
        }
        let name = escape_for_display(name);
        let bar = match size {
            Some(size) => ProgressBar::new(size).with_style(bar_style(offset)),
            None => ProgressBar::no_length().with_style(spinner_style(offset)),
        };
        bar.set_message(last_columns(&name, NAME_COLUMNS));
        bar.set_position(offset);
        let bar = match &state.total {
            Some(total) => self.bars.insert_before(total, bar),
            None => self.bars.add(bar),
        };
        if let Some(total) = &state.total {
            total.inc(offset);
        }
        let file = FileState {
            name,
            size,
            bytes: offset,
            bar,
            told: Instant::now(),
        };
        state.files.insert(id, file);
    }

    fn advanced(&self, id: TransferId, bytes: u64) {
        let mut state = self.state();
        if let Some(total) = &state.total {
            total.inc(bytes);
        }
        let Some(file) = state.files.get_mut(&id) else {
            return;
        };
        file.bytes += bytes;
        file.bar.set_position(file.bytes);
        if self.is_json() && file.told.elapsed() >= JSON_PROGRESS {
            file.told = Instant::now();
            let line = json!({
                "event": "progress",
                "name": file.name,
                "bytes": file.bytes,
                "size": file.size,
            });
            drop(state);
            self.print(&json_line(&line));
        }
    }

    /// Takes the transfer's bar away; `size` is how long the file is, if it is done.
    fn ended(&self, id: TransferId, size: Option<u64>) {
        let mut state = self.state();
        let file = state.files.remove(&id);
        let counted = file.as_ref().map_or(0, |file| file.bytes);
        match (&state.total, size) {
            (Some(total), Some(size)) => total.inc(size.saturating_sub(counted)),
            (total, None) => take_back(total.as_ref(), counted),
            (None, Some(_)) => {}
        }
        if let Some(file) = file {
            file.bar.finish_and_clear();
            self.bars.remove(&file.bar);
        }
    }

    fn finished(&self, direction: Direction, name: &[u8], outcome: &Outcome) {
        let line = format!("{}: {}", escape_for_display(name), outcome_text(outcome));
        self.note(&line, || {
            outcome_json(direction, &text::json_name(name), outcome)
        });
    }
}

impl Observer for Output {
    fn observe(&self, event: Event<'_>) {
        match event {
            Event::Planned { files, bytes } => self.planned(files, bytes),
            Event::Started {
                id,
                name,
                size,
                offset,
                ..
            } => self.started(id, name, size, offset),
            Event::Advanced { id, bytes } => self.advanced(id, bytes),
            Event::Verifying { id, algorithm } => {
                if let Some(file) = self.state().files.get(&id) {
                    file.bar.set_message(format!("verifying {algorithm}"));
                }
            }
            Event::Retrying {
                name: raw,
                attempt,
                after,
                error,
                ..
            } => {
                let name = escape_for_display(raw);
                let error = error.chain();
                let seconds = after.as_secs_f64();
                self.trouble(
                    &format!("{name}: {error}; attempt {attempt} follows in {seconds:.1} s"),
                    || json!({"event": "retrying", "name": text::json_name(raw), "attempt": attempt, "after_seconds": seconds, "message": error}),
                );
            }
            Event::Finished {
                id,
                direction,
                name,
                outcome,
            } => {
                self.ended(id, Some(outcome.size));
                self.finished(direction, name, outcome);
            }
            Event::Failed {
                id, name, error, ..
            } => {
                self.ended(id, None);
                self.failed(name, error);
            }
            Event::StepFailed { name, error, .. } => self.failed(name, error),
            Event::DirectoryMade { side, name } => self.step("made", "made directory", side, name),
            Event::Removed { side, name } => self.step("removed", "removed", side, name),
            Event::WouldDo { step, name: raw } => {
                let name = escape_for_display(raw);
                let what = dry_step_text(step);
                self.result(
                    &format!("would {what} {name}"),
                    || json!({"event": "would", "step": what, "name": text::json_name(raw)}),
                );
            }
            Event::LeftOut { name: raw, reason } => {
                self.state().left_out += 1;
                let name = escape_for_display(raw);
                let why = left_out_text(reason);
                self.trouble(
                    &format!("{name}: left out: {why}"),
                    || json!({"event": "left_out", "name": text::json_name(raw), "reason": why}),
                );
            }
        }
    }
}

impl Output {
    fn failed(&self, raw: &[u8], error: &wharf_client::ClientError) {
        let name = escape_for_display(raw);
        let message = error.chain();
        self.trouble(
            &format!("{name}: {message}"),
            || json!({"event": "failed", "name": text::json_name(raw), "kind": error.kind().name(), "message": message}),
        );
    }

    fn step(&self, event: &str, what: &str, side: Side, raw: &[u8]) {
        let name = escape_for_display(raw);
        let side = match side {
            Side::Local => "local",
            Side::Remote => "remote",
        };
        self.note(
            &format!("{name}: {what}"),
            || json!({"event": event, "side": side, "name": text::json_name(raw)}),
        );
    }
}

/// An object as one line that a terminal can show: JSON leaves control
/// characters beyond ASCII as they are, and what hides or turns text.
fn json_line(value: &Value) -> String {
    let plain = value.to_string();
    let mut line = String::with_capacity(plain.len());
    for character in plain.chars() {
        let mut buffer = [0; 4];
        let written = character.encode_utf8(&mut buffer);
        if character.is_ascii() || escape_for_display(written.as_bytes()) == *written {
            line.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                line.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    line
}

fn take_back(total: Option<&ProgressBar>, bytes: u64) {
    if let Some(total) = total {
        total.set_position(total.position().saturating_sub(bytes));
    }
}

/// `64.0 MiB in 0.41 s (156.1 MiB/s), verified by BLAKE3`.
fn outcome_text(outcome: &Outcome) -> String {
    let begin = match outcome.done {
        Done::Skipped(reason) => return format!("unchanged, {}", skip_text(reason)),
        Done::Whole => String::new(),
        Done::Resumed { offset, evidence } => format!(
            "resumed at {} ({}), ",
            text::size(offset),
            evidence_text(evidence)
        ),
    };
    let verified = match outcome.verified {
        Verified::Digest(algorithm) => format!("verified by {algorithm}"),
        Verified::Size => "verified by size only".to_owned(),
        Verified::No => "not verified".to_owned(),
    };
    let moved = text::moved(outcome.moved_bytes, outcome.elapsed);
    format!("{begin}{moved}, {verified}")
}

fn outcome_json(direction: Direction, name: &str, outcome: &Outcome) -> Value {
    let direction = match direction {
        Direction::Download => "download",
        Direction::Upload => "upload",
    };
    let verified = match outcome.verified {
        Verified::Digest(algorithm) => json!(algorithm.to_string()),
        Verified::Size => json!("size"),
        Verified::No => Value::Null,
    };
    let (event, resumed_at, evidence, reason) = match outcome.done {
        Done::Skipped(reason) => ("skipped", None, None, Some(skip_text(reason))),
        Done::Whole => ("transferred", None, None, None),
        Done::Resumed { offset, evidence } => (
            "transferred",
            Some(offset),
            Some(evidence_text(evidence)),
            None,
        ),
    };
    json!({
        "event": event,
        "direction": direction,
        "name": name,
        "size": outcome.size,
        "bytes": outcome.moved_bytes,
        "resumed_at": resumed_at,
        "evidence": evidence,
        "verified": verified,
        "reason": reason,
        "attempts": outcome.attempts,
        "seconds": outcome.elapsed.as_secs_f64(),
    })
}

/// `7 files, 448.0 MiB in 2.10 s (213.3 MiB/s), 7 verified; 1 unchanged, 1 failed`.
fn summary_line(summary: &Summary, left_out: u64) -> String {
    let done = match summary.transferred {
        0 => "nothing was transferred".to_owned(),
        count => format!(
            "{count} {}, {}, {} verified",
            if count == 1 { "file" } else { "files" },
            text::moved(summary.moved_bytes, summary.elapsed),
            summary.verified
        ),
    };
    let rest: Vec<String> = [
        (summary.skipped, "unchanged"),
        (summary.directories_made, "directories made"),
        (summary.removed, "removed"),
        (left_out, "left out"),
        (summary.failed, "failed"),
        (summary.not_tried, "not tried"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    if rest.is_empty() {
        done
    } else {
        format!("{done}; {}", rest.join(", "))
    }
}

fn evidence_text(evidence: Evidence) -> String {
    match evidence {
        Evidence::Digest(algorithm) => format!("begin proven by {algorithm}"),
        Evidence::SameTransfer => "begin moved by this very transfer".to_owned(),
        Evidence::SizeAndTime => "begin taken on its size and time".to_owned(),
        Evidence::Size => "begin taken on its size".to_owned(),
    }
}

fn skip_text(reason: SkipReason) -> &'static str {
    match reason {
        SkipReason::SameSizeAndTime => "same size and time",
        SkipReason::SameSize => "same size",
        SkipReason::SameDigest => "same digest",
        SkipReason::TargetNotOlder => "the target is as new",
        SkipReason::TargetExists => "the target exists",
    }
}

fn dry_step_text(step: DryStep) -> &'static str {
    match step {
        DryStep::Transfer(Direction::Download) => "download",
        DryStep::Transfer(Direction::Upload) => "upload",
        DryStep::MakeDirectory(Side::Local) => "make local directory",
        DryStep::MakeDirectory(Side::Remote) => "make remote directory",
        DryStep::Remove(Side::Local) => "remove local",
        DryStep::Remove(Side::Remote) => "remove remote",
    }
}

fn left_out_text(reason: LeftOut) -> &'static str {
    match reason {
        LeftOut::Symlink => "a symbolic link; links are not followed",
        LeftOut::NotAFile => "neither a file nor a directory",
        LeftOut::UnsafeName => "its name cannot be used on the other side",
        LeftOut::KindDiffers => "a file stands where the other side has a directory",
        LeftOut::Partial => "a partial download",
        LeftOut::TooDeep => "too deep",
    }
}

fn bar_style(offset: u64) -> ProgressStyle {
    style(
        "{msg:28} {wide_bar} {binary_bytes:>10}/{binary_total_bytes:<10} {rate:>12} {left:>5}",
        offset,
    )
}

fn spinner_style(offset: u64) -> ProgressStyle {
    style("{msg:28} {spinner} {binary_bytes:>10} {rate:>12}", offset)
}

/// A style whose rate is the average of the bytes after `offset`: what the
/// bar's own estimate makes of the first bytes, which a buffer swallows at
/// once, is too much by far.
fn style(template: &str, offset: u64) -> ProgressStyle {
    let average = move |state: &ProgressState| {
        text::rate(state.pos().saturating_sub(offset), state.elapsed())
    };
    ProgressStyle::with_template(template)
        .expect("the templates of this file parse")
        .with_key("rate", move |state: &ProgressState, out: &mut dyn Write| {
            let _ = write!(out, "{}/s", text::size(average(state)));
        })
        .with_key("left", move |state: &ProgressState, out: &mut dyn Write| {
            let left = state.len().unwrap_or(0).saturating_sub(state.pos());
            let seconds = left.checked_div(average(state));
            let _ = match seconds {
                Some(seconds) => write!(out, "{}", text::seconds(seconds)),
                None => write!(out, "-"),
            };
        })
        .progress_chars("=> ")
}

/// The end of a name, which tells more than its begin.
fn last_columns(name: &str, columns: usize) -> String {
    let length = name.chars().count();
    if length <= columns {
        return name.to_owned();
    }
    let kept: String = name.chars().skip(length - columns + 1).collect();
    format!("…{kept}")
}

const NAME_COLUMNS: usize = 28;

/// How often a program hears of a transfer's progress.
const JSON_PROGRESS: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_model::DigestAlgorithm;

    fn outcome(done: Done) -> Outcome {
        Outcome {
            done,
            moved_bytes: 1 << 20,
            size: 2 << 20,
            verified: Verified::Digest(DigestAlgorithm::Blake3),
            elapsed: Duration::from_secs(2),
            attempts: 1,
        }
    }

    #[test]
    fn a_resumed_file_says_how_its_begin_was_proven() {
        let done = Done::Resumed {
            offset: 1 << 20,
            evidence: Evidence::Digest(DigestAlgorithm::Sha256),
        };
        assert_eq!(
            outcome_text(&outcome(done)),
            "resumed at 1.0 MiB (begin proven by SHA-256), 1.0 MiB in 2.00 s (512.0 KiB/s), \
             verified by BLAKE3"
        );
        let value = outcome_json(Direction::Download, "f", &outcome(done));
        assert_eq!(value["resumed_at"], 1 << 20);
        assert_eq!(value["evidence"], "begin proven by SHA-256");
    }

    #[test]
    fn every_template_parses() {
        bar_style(0);
        spinner_style(0);
    }

    #[test]
    fn a_summary_counts_what_happened_and_leaves_out_what_did_not() {
        let summary = Summary {
            transferred: 2,
            failed: 1,
            verified: 2,
            moved_bytes: 2048,
            elapsed: Duration::from_secs(1),
            ..Summary::default()
        };
        assert_eq!(
            summary_line(&summary, 0),
            "2 files, 2.0 KiB in 1.00 s (2.0 KiB/s), 2 verified; 1 failed"
        );
    }

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(last_columns("short", 8), "short");
        assert_eq!(last_columns("directory/file.txt", 8), "…ile.txt");
    }
}
