//! The server's end of the old protocol of `scp`, which `scp -O` speaks: `-t` takes files,
//! `-f` sends them. Started by the client of another machine, never by a person.
//!
//! What is taken is an upload as any other: staged, counted, and whole under its name or not there.
//! A transfer that breaks is cut; one whose sender says that its content is wrong is dropped.

mod sink;
mod source;

use std::io;

use wharf_model::Refusal;
use wharf_proto::scp::{FAILURE, GO_ON, MAX_LINE_BYTES, WARNING, complaint};

use super::streams::InputLine;
use super::table::{Arguments, Context, Outcome, Spec, Syntax, flag, log};
use super::{ExitStatus, refusal};

pub(super) static SCP: Spec = Spec {
    name: "scp",
    operands: "-t|-f FILE...",
    about: "The server's end of 'scp -O': -t takes files, -f sends them.",
    syntax: Syntax::Options(&[
        flag("t", "", "take files from the other end"),
        flag("f", "", "send files to the other end"),
        flag("r", "", "directories with all that is in them"),
        flag("p", "", "with times and modes"),
        flag("d", "", "with -t, FILE must be a directory"),
        flag("v", "", "accepted"),
        flag("q", "", "accepted"),
    ]),
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(scp(context, arguments)),
};

async fn scp(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    let options = Options {
        recursive: arguments.has("r"),
        preserve: arguments.has("p"),
        into_directory: arguments.has("d"),
    };
    let takes = arguments.has("t");
    if takes == arguments.has("f") {
        return context.misused("one of -t and -f is needed").await;
    }
    let success = match arguments.operands.as_slice() {
        [] => return context.misused("a file is needed").await,
        [target] if takes => sink::take(&mut context, target, &options).await?,
        _ if takes => return context.misused("-t takes one target").await,
        sources => source::send(&mut context, sources, &options).await?,
    };
    Ok(ExitStatus::of(success))
}

/// How files are moved.
struct Options {
    recursive: bool,
    /// With times and modes.
    preserve: bool,
    into_directory: bool,
}

/// What the other end says to what it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    GoOn,
    /// It did not take this, but goes on.
    Complaint,
    /// It ends, or has gone.
    End,
}

/// Reads an answer. What a complaint says is for the log only: the other end shows its own.
async fn answer(context: &mut Context<'_>) -> io::Result<Answer> {
    let Some(first) = context.streams.input.piece(1).await? else {
        return Ok(Answer::End);
    };
    let answer = match first.first() {
        Some(&GO_ON) => return Ok(Answer::GoOn),
        Some(&WARNING) => Answer::Complaint,
        // Whatever else it is, it is not understood.
        _ => Answer::End,
    };
    read_complaint(context).await?;
    Ok(answer)
}

/// Reads the rest of a complaint.
async fn read_complaint(context: &mut Context<'_>) -> io::Result<()> {
    if let InputLine::Whole(line) = context.streams.input.line(MAX_LINE_BYTES).await? {
        let complaint = wharf_model::cut_for_display(&line);
        tracing::debug!(complaint, "the other end of scp complains");
    }
    Ok(())
}

async fn go_on(context: &mut Context<'_>) -> io::Result<()> {
    context.print(&[GO_ON]).await?;
    context.streams.flush().await
}

/// Tells the other end why `name` failed.
async fn refuse(context: &mut Context<'_>, name: &[u8], refusal: &Refusal) -> io::Result<()> {
    log(context.spec.name, name, refusal);
    complain(context, WARNING, name, refusal::text(refusal)).await
}

/// The same, of what makes no sense to go on after.
async fn give_up(context: &mut Context<'_>, name: &[u8], why: &str) -> io::Result<()> {
    complain(context, FAILURE, name, why).await
}

async fn complain(context: &mut Context<'_>, kind: u8, name: &[u8], why: &str) -> io::Result<()> {
    context.print(&complaint(kind, name, why)).await?;
    context.streams.flush().await
}
