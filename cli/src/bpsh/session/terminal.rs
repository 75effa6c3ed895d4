//! A rank in a terminal on its node (`--tty`): the window's size goes there, the keys are not for bpsh, and its own end hangs up.

use ghost_proto::client::ClientToMaster;
use ghost_proto::terminal::{ResizeRank, Size};
use ghost_sys::quiet::{self, Inherited, bit};
use nix::libc;

use super::super::raw;
use super::{ENDS_ALL, Session};

/// The window here.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// As it was told last.
    told: Option<Size>,
    raw: bool,
}

impl Session {
    /// Takes the terminal here as soon as it is in whose foreground we are, and tells what has changed of its window.
    pub(super) fn attend_terminal(&mut self) {
        let Some(window) = &mut self.window else { return };
        if !window.raw && raw::enter() {
            window.raw = true;
            self.tell_size();
        }
    }

    /// Tells the size of the window, if it is another one.
    pub(super) fn tell_size(&mut self) {
        let away = self.is_away();
        let Some(window) = &mut self.window else { return };
        let size = raw::size();
        if size.is_some() && size != window.told && !away {
            window.told = size;
            self.connection.queue(ClientToMaster::Resize(ResizeRank { rank: 0, size }));
        }
    }

    /// To a ghostd that may not have heard it.
    pub(in crate::bpsh) fn tell_size_anew(&mut self) {
        if let Some(window) = &mut self.window {
            window.told = None;
            self.tell_size();
        }
    }

    /// Gives the terminal back; it is taken again when bpsh goes on.
    pub(super) fn leave_terminal(&mut self) {
        if let Some(window) = &mut self.window {
            window.raw = false;
            raw::leave();
        }
    }

    /// What a signal means while a terminal on a node is the programs'. Keys send none, so it is meant for bpsh. `true`: it has been dealt
    /// with.
    pub(super) fn terminal_signal(&mut self, signal: i32, inherited: Inherited) -> bool {
        if self.window.is_none() {
            return false;
        }
        let refused = (inherited.ignored | inherited.blocked) & bit(signal) != 0;
        match signal {
            libc::SIGWINCH => self.tell_size(),
            libc::SIGCONT => {
                // After SIGSTOP nobody has given the terminal back.
                raw::enter_again();
                if let Some(window) = &mut self.window {
                    window.raw = raw::is_raw();
                }
                self.tell_size();
                return false;
            }
            _ if refused => return false,
            libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => {
                self.leave_terminal();
                quiet::stop_by(signal, || true);
            }
            _ if ENDS_ALL.contains(&signal) => {
                // With the connection the terminal there is hung up.
                self.leave_terminal();
                quiet::die_by(signal);
            }
            _ => return false,
        }
        true
    }
}
