//! The terminal that bpsh is used at, while a terminal on a node is behind it: every key goes there as it is.
//!
//! ```text
//!          enter(), in its foreground            leave(): before bpsh stops, ends, or panics
//!  as it was ----------------------------> raw ----------------------------------------------> as it was
//! ```
//! Invariant: what was found is put back once, and not by who has come to the background: the terminal is somebody else's then.

use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;

use ghost_proto::terminal::{Modes, Size, Terminal};
use ghost_sys::terminal;

/// As it was, while it is raw.
static FOUND: Mutex<Option<terminal::Modes>> = Mutex::new(None);

/// Size when there is no window whose size could be known.
const NO_WINDOW: Size = Size { rows: 24, columns: 80, width: 0, height: 0 };

/// Makes standard input raw if it is a terminal in whose foreground this process is; whether it is raw now. To be called with SIGTTOU
/// ignored.
pub fn enter() -> bool {
    let mut found = lock();
    if found.is_some() {
        return true;
    }
    let input = io::stdin();
    if !in_foreground() {
        return false;
    }
    let Ok(modes) = terminal::modes(input.as_fd()) else { return false };
    if terminal::set_modes(input.as_fd(), &modes.raw()).is_ok() {
        *found = Some(modes);
    }
    found.is_some()
}

/// Somebody has perhaps changed it since: it is made raw anew.
pub fn enter_again() {
    let found = *lock();
    let Some(modes) = found else { return };
    if in_foreground() {
        // Hung up: nothing is to be done about it.
        let _ = terminal::set_modes(io::stdin().as_fd(), &modes.raw());
    } else {
        *lock() = None;
    }
}

/// Puts back what was found.
pub fn leave() {
    if let Some(modes) = lock().take()
        && in_foreground()
    {
        // As above.
        let _ = terminal::set_modes(io::stdin().as_fd(), &modes);
    }
}

/// Whether it is raw: a line that is printed on it needs a carriage return.
pub fn is_raw() -> bool {
    lock().is_some()
}

/// Puts back what was found also when this program fails.
pub fn leave_in_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |what| {
        leave();
        before(what);
    }));
}

/// What a terminal on a node is to be like, to be like the one here.
pub fn like_this() -> Terminal {
    let modes = terminal::modes(io::stdin().as_fd()).ok().map(|modes| {
        let terminal::Modes { input, output, control, local, characters } = modes;
        Modes { input, output, control, local, characters: characters.to_vec().into() }
    });
    Terminal { size: Some(size().unwrap_or(NO_WINDOW)), modes }
}

/// The size of the window here.
pub fn size() -> Option<Size> {
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let size = [input.as_fd(), output.as_fd(), error.as_fd()].into_iter().find_map(|fd| terminal::size(fd).ok())?;
    let terminal::Size { rows, columns, width, height } = size;
    let [rows, columns, width, height] = [rows, columns, width, height].map(u32::from);
    (rows > 0 && columns > 0).then_some(Size { rows, columns, width, height })
}

fn in_foreground() -> bool {
    nix::unistd::tcgetpgrp(io::stdin().as_fd()).is_ok_and(|group| group == nix::unistd::getpgrp())
}

fn lock() -> std::sync::MutexGuard<'static, Option<terminal::Modes>> {
    FOUND.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
