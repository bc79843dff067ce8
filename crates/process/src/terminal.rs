//! A terminal for a command: made, sized, and set as the client's own is.

use std::io;

use rustix::fd::{AsFd, OwnedFd};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios,
    Winsize, tcgetattr, tcsetattr, tcsetwinsize,
};
use wharf_server::process::TerminalSize;

use super::wire::TerminalOrder;

/// Both sides of a terminal.
pub(super) struct Pair {
    /// Ours.
    pub(super) controller: OwnedFd,
    /// The command's.
    pub(super) terminal: OwnedFd,
    /// Where the command's is.
    pub(super) path: String,
}

/// Makes a terminal as `order` says.
pub(super) fn make(order: &TerminalOrder) -> io::Result<Pair> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let controller = openpt(flags)?;
    unlockpt(&controller)?;
    let path = ptsname(&controller, Vec::new())?;
    let path = path.into_string().map_err(io::Error::other)?;
    let terminal = ioctl_tiocgptpeer(&controller, flags)?;
    let mut settings = tcgetattr(&terminal)?;
    apply(&mut settings, &order.modes);
    tcsetattr(&terminal, OptionalActions::Now, &settings)?;
    let [ws_col, ws_row, ws_xpixel, ws_ypixel] = order.size;
    let size = Winsize {
        ws_col,
        ws_row,
        ws_xpixel,
        ws_ypixel,
    };
    tcsetwinsize(&terminal, size)?;
    Ok(Pair {
        controller,
        terminal,
        path,
    })
}

/// Columns, rows, width and height, as the system has them.
pub(super) fn size_of(size: TerminalSize) -> [u16; 4] {
    let small = |number| u16::try_from(number).unwrap_or(u16::MAX);
    [size.columns, size.rows, size.width, size.height].map(small)
}

/// Tells a terminal its size, and so all that is in its foreground.
pub(super) fn resize(controller: impl AsFd, size: TerminalSize) {
    let [ws_col, ws_row, ws_xpixel, ws_ypixel] = size_of(size);
    let size = Winsize {
        ws_col,
        ws_row,
        ws_xpixel,
        ws_ypixel,
    };
    if let Err(error) = tcsetwinsize(controller, size) {
        tracing::debug!(%error, "a terminal could not be resized");
    }
}

/// What an opcode of RFC 4254 §8 stands for.
enum Mode {
    Character(SpecialCodeIndex),
    Input(InputModes),
    Output(OutputModes),
    Control(ControlModes),
    Local(LocalModes),
}

/// The modes of RFC 4254 §8 and RFC 8160 (IUTF8) that Linux has.
const MODES: [(u8, Mode); 50] = [
    (1, Mode::Character(SpecialCodeIndex::VINTR)),
    (2, Mode::Character(SpecialCodeIndex::VQUIT)),
    (3, Mode::Character(SpecialCodeIndex::VERASE)),
    (4, Mode::Character(SpecialCodeIndex::VKILL)),
    (5, Mode::Character(SpecialCodeIndex::VEOF)),
    (6, Mode::Character(SpecialCodeIndex::VEOL)),
    (7, Mode::Character(SpecialCodeIndex::VEOL2)),
    (8, Mode::Character(SpecialCodeIndex::VSTART)),
    (9, Mode::Character(SpecialCodeIndex::VSTOP)),
    (10, Mode::Character(SpecialCodeIndex::VSUSP)),
    (12, Mode::Character(SpecialCodeIndex::VREPRINT)),
    (13, Mode::Character(SpecialCodeIndex::VWERASE)),
    (14, Mode::Character(SpecialCodeIndex::VLNEXT)),
    (18, Mode::Character(SpecialCodeIndex::VDISCARD)),
    (30, Mode::Input(InputModes::IGNPAR)),
    (31, Mode::Input(InputModes::PARMRK)),
    (32, Mode::Input(InputModes::INPCK)),
    (33, Mode::Input(InputModes::ISTRIP)),
    (34, Mode::Input(InputModes::INLCR)),
    (35, Mode::Input(InputModes::IGNCR)),
    (36, Mode::Input(InputModes::ICRNL)),
    (37, Mode::Input(InputModes::IUCLC)),
    (38, Mode::Input(InputModes::IXON)),
    (39, Mode::Input(InputModes::IXANY)),
    (40, Mode::Input(InputModes::IXOFF)),
    (41, Mode::Input(InputModes::IMAXBEL)),
    (42, Mode::Input(InputModes::IUTF8)),
    (50, Mode::Local(LocalModes::ISIG)),
    (51, Mode::Local(LocalModes::ICANON)),
    (52, Mode::Local(LocalModes::XCASE)),
    (53, Mode::Local(LocalModes::ECHO)),
    (54, Mode::Local(LocalModes::ECHOE)),
    (55, Mode::Local(LocalModes::ECHOK)),
    (56, Mode::Local(LocalModes::ECHONL)),
    (57, Mode::Local(LocalModes::NOFLSH)),
    (58, Mode::Local(LocalModes::TOSTOP)),
    (59, Mode::Local(LocalModes::IEXTEN)),
    (60, Mode::Local(LocalModes::ECHOCTL)),
    (61, Mode::Local(LocalModes::ECHOKE)),
    (62, Mode::Local(LocalModes::PENDIN)),
    (70, Mode::Output(OutputModes::OPOST)),
    (71, Mode::Output(OutputModes::OLCUC)),
    (72, Mode::Output(OutputModes::ONLCR)),
    (73, Mode::Output(OutputModes::OCRNL)),
    (74, Mode::Output(OutputModes::ONOCR)),
    (75, Mode::Output(OutputModes::ONLRET)),
    (90, Mode::Control(ControlModes::CS7)),
    (91, Mode::Control(ControlModes::CS8)),
    (92, Mode::Control(ControlModes::PARENB)),
    (93, Mode::Control(ControlModes::PARODD)),
];

/// A character that is switched off (RFC 4254 §8).
const NO_CHARACTER: u32 = 255;

fn apply(settings: &mut Termios, modes: &[(u8, u32)]) {
    for (opcode, value) in modes {
        let Some((_, mode)) = MODES.iter().find(|(known, _)| known == opcode) else {
            continue;
        };
        let on = *value != 0;
        match mode {
            Mode::Character(index) => {
                let code = if *value == NO_CHARACTER { 0 } else { *value };
                if let Ok(code) = u8::try_from(code) {
                    settings.special_codes[*index] = code;
                }
            }
            Mode::Input(bits) => settings.input_modes.set(*bits, on),
            Mode::Output(bits) => settings.output_modes.set(*bits, on),
            Mode::Control(bits) => set_control(&mut settings.control_modes, *bits, on),
            Mode::Local(bits) => settings.local_modes.set(*bits, on),
        }
    }
}

/// The sizes of a byte share bits: one is chosen, never taken away.
fn set_control(modes: &mut ControlModes, bits: ControlModes, on: bool) {
    if !ControlModes::CSIZE.contains(bits) {
        modes.set(bits, on);
    } else if on {
        modes.remove(ControlModes::CSIZE);
        modes.insert(bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_the_size_and_the_modes_that_the_client_has() {
        let order = TerminalOrder {
            kind: "xterm".to_owned(),
            size: [132, 43, 0, 0],
            // VINTR is ^B, VQUIT off, no ECHO, no ICRNL, bytes of seven bits, speeds, unknown ones.
            modes: vec![
                (1, 2),
                (2, 255),
                (53, 0),
                (36, 0),
                (90, 1),
                (128, 38400),
                (200, 1),
                (3, 70_000),
            ],
            path: None,
        };
        let pair = make(&order).expect("a terminal");
        assert!(pair.path.starts_with("/dev/pts/"), "{}", pair.path);
        let size = rustix::termios::tcgetwinsize(&pair.terminal).expect("has one");
        assert_eq!((size.ws_col, size.ws_row), (132, 43));
        let settings = tcgetattr(&pair.terminal).expect("has some");
        assert_eq!(settings.special_codes[SpecialCodeIndex::VINTR], 2);
        assert_eq!(settings.special_codes[SpecialCodeIndex::VQUIT], 0);
        assert_eq!(settings.special_codes[SpecialCodeIndex::VERASE], 0x7f);
        assert!(!settings.local_modes.contains(LocalModes::ECHO));
        assert!(settings.local_modes.contains(LocalModes::ICANON));
        assert!(!settings.input_modes.contains(InputModes::ICRNL));
        let larger = TerminalSize {
            columns: 200,
            rows: 70_000,
            ..TerminalSize::default()
        };
        resize(&pair.controller, larger);
        let size = rustix::termios::tcgetwinsize(&pair.terminal).expect("has one");
        assert_eq!((size.ws_col, size.ws_row), (200, u16::MAX));
    }
}
