//! What an examination found, told step by step.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use wharf_client::{ClientError, ErrorKind, Scheme};

use super::advice::advice;
use crate::cli::output::Output;

/// What one step found.
pub(super) enum Finding {
    /// All is well.
    Ok(String),
    /// It works, and could be better.
    Warn {
        /// What was seen.
        detail: String,
        /// What to do.
        advice: String,
    },
    /// There was nothing to look at.
    Skip(String),
}

/// The steps so far.
pub(super) struct Report {
    output: Arc<Output>,
    /// What is spoken with the server: advice differs.
    scheme: Scheme,
    first_failure: Option<ErrorKind>,
}

impl Report {
    pub(super) fn new(output: Arc<Output>, scheme: Scheme) -> Self {
        Self {
            output,
            scheme,
            first_failure: None,
        }
    }

    /// What failed first, if anything did.
    pub(super) fn first_failure(&self) -> Option<ErrorKind> {
        self.first_failure
    }

    /// Tells what `step`, which began at `started`, has found.
    pub(super) fn tell(&self, step: &str, started: Instant, finding: Finding) {
        match finding {
            Finding::Ok(detail) => self.line(step, started, "ok", &detail, ""),
            Finding::Warn { detail, advice } => self.line(step, started, "warn", &detail, &advice),
            Finding::Skip(detail) => self.line(step, started, "skip", &detail, ""),
        }
    }

    /// Tells that `step` has failed.
    pub(super) fn fail(&mut self, step: &str, started: Instant, error: &ClientError) {
        self.fail_as(
            step,
            started,
            error.kind(),
            &error.chain(),
            &advice(error, self.scheme),
        );
    }

    /// As [`Self::fail`], in words of the step's own.
    pub(super) fn fail_as(
        &mut self,
        step: &str,
        started: Instant,
        kind: ErrorKind,
        detail: &str,
        advice: &str,
    ) {
        self.first_failure.get_or_insert(kind);
        self.line(step, started, "fail", detail, advice);
    }

    fn line(&self, step: &str, started: Instant, result: &str, detail: &str, advice: &str) {
        let mut line = format!("{result:<4}  {step:<10}  {detail}");
        if !advice.is_empty() {
            line.push_str(&format!("\n{:18}→ {advice}", ""));
        }
        let seconds = started.elapsed().as_secs_f64();
        let value = || json!({"step": step, "result": result, "detail": detail, "advice": advice, "seconds": seconds});
        match result {
            "ok" | "skip" => self.output.note(&line, value),
            _ => self.output.result(&line, value),
        }
    }
}

/// A finding in one line.
#[cfg(test)]
pub(super) fn words(finding: Finding) -> String {
    match finding {
        Finding::Ok(detail) => format!("ok {detail}"),
        Finding::Warn { detail, advice } => format!("warn {detail} {advice}"),
        Finding::Skip(detail) => format!("skip {detail}"),
    }
}
