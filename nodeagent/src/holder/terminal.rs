//! The terminal of a program: made here, kept as long as the program, and hung up like a modem's line.
//!
//! ```text
//!  keyboard ── stdin ──> master ┊ slave <── descriptors 0, 1, 2 of the program, which leads the foreground group
//!  screen <── stdout ─── master ┊       <── controlling terminal of a session that a keeper leads
//! ```
//! The keeper is a stand-in and the program's parent. So the program's group is never orphaned, and a stop signal stops it as it does in a shell's
//! terminal; and its end is not the session's, which would throw away what nobody has read yet of its output (drivers/tty/tty_ldisc.c
//! `tty_ldisc_hangup()`). The session ends with the keeper, after the last byte: then the kernel tells the foreground group by SIGHUP.

use std::os::fd::{AsFd, OwnedFd};

use ghost_proto::ids::LaunchId;
use ghost_proto::terminal;
use ghost_sys::terminal::{CHARACTERS, Modes, Pair, Size, modes, open, set_modes, set_size};

/// What is remembered of a program's terminal.
#[derive(Debug)]
pub struct Line {
    pub launch: LaunchId,
    /// Names the stand-in that leads its session.
    pub keeper: u64,
    /// No part of a line has been typed.
    at_beginning: bool,
}

impl Line {
    pub const fn new(launch: LaunchId, keeper: u64) -> Line {
        Line { launch, keeper, at_beginning: true }
    }

    /// Takes note of the last byte that was typed.
    pub fn typed(&mut self, last: u8) {
        self.at_beginning = matches!(last, b'\n' | b'\r');
    }

    /// The input is over: types what says so. A first one ends the part of a line, if there is one, the next one the input.
    pub fn end_input(&self, master: impl AsFd) {
        let end = modes(&master).map_or(4, |modes| modes.end_of_file());
        let keys = [end; 2];
        // No room: then nobody reads.
        let _ = nix::unistd::write(master.as_fd(), if self.at_beginning { &keys[..1] } else { &keys });
    }
}

/// Makes one that is as the client asks for.
///
/// # Errors
/// Those of [`open`].
pub fn make(wanted: &terminal::Terminal, uid: u32) -> std::io::Result<Pair> {
    let pair = open(uid)?;
    if let Some(size) = &wanted.size {
        resize(&pair.master, size);
    }
    if let Some(wanted) = &wanted.modes {
        let mut characters = [0; CHARACTERS];
        for (character, wanted) in characters.iter_mut().zip(&wanted.characters) {
            *character = *wanted;
        }
        let terminal::Modes { input, output, control, local, .. } = *wanted;
        set_modes(&pair.slave, &Modes { input, output, control, local, characters })?;
    }
    Ok(pair)
}

/// Gives the window another size; who is in the foreground hears of it.
pub fn resize(master: &OwnedFd, size: &terminal::Size) {
    let short = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    let terminal::Size { rows, columns, width, height } = *size;
    let size = Size { rows: short(rows), columns: short(columns), width: short(width), height: short(height) };
    // Fails for one that has been hung up.
    let _ = set_size(master, size);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_input_is_typed() {
        for (typed, expected) in [("", &b""[..]), ("a\n", b"a\n"), ("a\nb", b"a\nb")] {
            let pair = make(&terminal::Terminal::default(), nix::unistd::getuid().as_raw()).expect("a terminal");
            let mut line = Line::new(LaunchId(1), 1);
            if let Some(last) = typed.bytes().last() {
                nix::unistd::write(&pair.master, typed.as_bytes()).expect("keys");
                line.typed(last);
            }
            line.end_input(&pair.master);
            let (mut read, mut buffer) = (Vec::new(), [0; 64]);
            loop {
                match nix::unistd::read(&pair.slave, &mut buffer).expect("read") {
                    0 => break,
                    n => read.extend_from_slice(&buffer[..n]),
                }
            }
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn a_size_beyond_all_sizes_is_the_largest() {
        let size = terminal::Size { rows: 50, columns: 70_000, width: 0, height: 0 };
        let pair = make(&terminal::Terminal { size: Some(size), modes: None }, nix::unistd::getuid().as_raw());
        let size = ghost_sys::terminal::size(&pair.expect("a terminal").slave).expect("size");
        assert_eq!((size.rows, size.columns), (50, 65_535));
    }
}
