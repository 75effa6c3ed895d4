//! A line at the bottom of the terminal that is standard error: drawn over and over in place, and taken away before anything else.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Goes to the line's beginning and empties it.
pub const ERASED: &str = "\r\x1b[K";

/// Columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;

/// Whether there is a terminal on which a line can be drawn over.
pub fn is_possible() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Whether the terminal is this program's: in its background nothing is drawn.
pub fn in_foreground() -> bool {
    nix::unistd::tcgetpgrp(io::stderr().as_fd()).is_ok_and(|group| group == nix::unistd::getpgrp())
}

/// Draws the line over the one that is there, or takes that away (`""`). `false`: not now, the terminal has no room (somebody
/// has stopped it); nobody waits for that.
pub fn draw(line: &str) -> bool {
    let mut stderr = io::stderr();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let has_room = poll(&mut ready, PollTimeout::ZERO).is_ok_and(|n| n == 1);
    let columns = ghost_sys::terminal::size(&stderr).map_or(0, |size| usize::from(size.columns));
    let drawn = format!("{ERASED}{}", cut(line, if columns == 0 { COLUMNS } else { columns }));
    has_room && stderr.write_all(drawn.as_bytes()).is_ok()
}

/// What fits; the last column stays empty, since a terminal may go on to the next line behind it.
fn cut(line: &str, columns: usize) -> String {
    let most = columns.saturating_sub(1);
    if line.chars().count() <= most {
        return line.to_owned();
    }
    let dots = if most >= 10 { "..." } else { "" };
    line.chars().take(most - dots.len()).chain(dots.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_never_reaches_the_last_column() {
        assert_eq!(cut("0123456789", 11), "0123456789");
        assert_eq!(cut("0123456789a", 11), "0123456...");
        assert_eq!(cut("0123456789", 5), "0123");
        assert_eq!(cut("äöü", 4), "äöü");
        for columns in 0..3 {
            assert_eq!(cut("0123456789", columns).len(), columns.saturating_sub(1));
        }
    }
}
