//! What an administrative command says on standard output.

use std::fmt;
use std::io::{self, Write as _};

use super::exit::UNREAD;

/// As `println!`, and ends the process quietly where nobody reads any more: what was asked for
/// has been done by then.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::say::write_line(format_args!($($text)*))
    };
}
pub(crate) use say;

/// The work of [`say!`].
pub(crate) fn write_line(line: fmt::Arguments<'_>) {
    if let Err(error) = writeln!(io::stdout(), "{line}") {
        if error.kind() != io::ErrorKind::BrokenPipe {
            eprintln!("wharf: standard output: {error}");
            std::process::exit(1);
        }
        std::process::exit(UNREAD.into());
    }
}
