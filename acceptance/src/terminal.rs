//! A program of the master in a terminal of its own, with a user (the test) at the keyboard.
//!
//! ```text
//!   test ── master side ──(kernel's line discipline)── slave side ── bash, its jobs
//! ```
//! Invariants:
//! - Nothing waits without a limit, and a wait that fails shows the whole screen.
//! - What is expected is looked for only behind what was found before.
//! - When a [`Terminal`] is dropped no process of its session is left.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};

use crate::command::Collected;
use crate::process::{Process, all_pids};
use crate::{Cluster, Cmd, Ended, Running, User, eventually};

/// How long the screen may take to show what it must: generous, the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// A terminal lives as long as its test.
const LIFETIME: Duration = Duration::from_secs(1200);

/// What bash shows when it waits for a command: `$?` in a form that nothing else prints.
const PROMPT: &str = "<<$?>>";
const PROMPT_BEGIN: &str = "<<";
const PROMPT_END: &str = ">>";

pub struct Terminal {
    /// None after hanging up.
    keyboard: Option<File>,
    hung_up: Arc<AtomicBool>,
    screen: Collected,
    reader: Option<std::thread::JoinHandle<()>>,
    running: Running,
    /// What was expected successfully lies before this.
    seen: usize,
}

impl Terminal {
    /// Starts a program as leader of a new session on a new terminal of 24 lines and 200 columns.
    #[track_caller]
    pub fn start(command: Cmd) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).expect("a pseudo terminal");
        // openpty(3) cannot be told: a copy of the keyboard's side in any program would keep the line from being hung up.
        for side in [&pair.master, &pair.slave] {
            fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("descriptor flags");
        }
        let running = command.in_terminal(&pair.slave).expect("descriptors of the terminal").start();
        drop(pair.slave);
        let keyboard = File::from(pair.master);
        let screen = Collected::default();
        let hung_up = Arc::new(AtomicBool::new(false));
        let reader = {
            let own = keyboard.try_clone().expect("a descriptor of the terminal");
            let (screen, hung_up) = (screen.clone(), Arc::clone(&hung_up));
            std::thread::spawn(move || watch(own, &screen, &hung_up))
        };
        Self { keyboard: Some(keyboard), hung_up, screen, reader: Some(reader), running, seen: 0 }
    }

    /// An interactive bash of this user that has shown its first prompt. It edits no lines and the terminal does not echo,
    /// so that the screen shows what programs print.
    #[track_caller]
    pub fn bash(cluster: &Cluster, user: User) -> Self {
        let bash = cluster.command("bash").args(["--norc", "--noprofile", "--noediting", "-i"]);
        let mut terminal = Self::start(bash.env("PS1", PROMPT).env("PS2", "").user(user).limit(LIFETIME));
        terminal.prompt();
        terminal.run("stty -echo");
        terminal
    }

    /// The session's leader, in the host's numbers.
    pub fn leader(&self) -> u32 {
        self.running.pid()
    }

    /// `"\x03"` (Ctrl-C), `"\x1a"` (Ctrl-Z), `"\x1c"` (Ctrl-\), `"\x04"` (Ctrl-D), or any text.
    #[track_caller]
    pub fn keys(&mut self, keys: &str) {
        let keyboard = self.keyboard.as_mut().expect("not hung up");
        keyboard.write_all(keys.as_bytes()).expect("keys");
    }

    /// Types a line.
    #[track_caller]
    pub fn line(&mut self, text: &str) {
        self.keys(&format!("{text}\n"));
    }

    /// Types a line and waits for the prompt after it; gives `$?` and what was shown between.
    #[track_caller]
    pub fn run(&mut self, line: &str) -> (i32, String) {
        self.line(line);
        self.prompt()
    }

    /// Gives the window another size; the foreground hears of it.
    #[track_caller]
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = ghost_sys::terminal::Size { rows, columns, width: 0, height: 0 };
        ghost_sys::terminal::set_size(self.keyboard.as_ref().expect("not hung up"), size).expect("a size");
    }

    /// Its settings now, as `stty -g` would show them.
    #[track_caller]
    pub fn modes(&self) -> ghost_sys::terminal::Modes {
        ghost_sys::terminal::modes(self.keyboard.as_ref().expect("not hung up")).expect("modes")
    }

    /// Types `fg` and waits until the job has the keyboard: bash names it before it gives it the terminal.
    #[track_caller]
    pub fn foreground(&mut self) {
        self.line("fg");
        eventually("a job is in the foreground", PATIENCE, || {
            let group = nix::unistd::tcgetpgrp(self.keyboard.as_ref()?).ok()?;
            (group.as_raw().cast_unsigned() != self.leader()).then_some(())
        });
    }

    /// Waits for bash's next prompt; gives `$?` and what was shown before it.
    #[track_caller]
    pub fn prompt(&mut self) -> (i32, String) {
        let before = self.expect(PROMPT_BEGIN, PATIENCE);
        let status = self.expect(PROMPT_END, PATIENCE);
        match status.parse() {
            Ok(status) => (status, before.replace('\r', "")),
            Err(why) => panic!("{status:?} in a prompt: {why}"),
        }
    }

    /// Waits until `text` appears behind what was expected before; returns what stands before it.
    #[track_caller]
    pub fn expect(&mut self, text: &str, within: Duration) -> String {
        let seen = self.seen;
        let found = self.screen.wait_for(within, |collection| {
            let new = &collection.bytes[seen..];
            let at = new.windows(text.len()).position(|window| window == text.as_bytes())?;
            Some((String::from_utf8_lossy(&new[..at]).into_owned(), seen + at + text.len()))
        });
        let Some((before, seen)) = found else {
            panic!("{text:?} did not appear within {} ms", within.as_millis());
        };
        self.seen = seen;
        before
    }

    /// All that was printed since the start.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.bytes()).replace('\r', "")
    }

    /// Closes the terminal's window: the kernel hangs the line up.
    pub fn hang_up(&mut self) {
        self.hung_up.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // It ends within its poll's timeout, and with it its descriptor.
            let _ = reader.join();
        }
        self.keyboard = None;
    }

    /// How the session's leader has ended.
    pub fn ended_within(&mut self, within: Duration) -> Option<Ended> {
        self.running.ended_within(within)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the screen\n{}\n---- end of the screen", self.screen());
        }
        for process in session(self.leader()) {
            // Gone already, or with the others.
            let _ = ghost_sys::pidfd::kill(process.pid.cast_signed(), 9);
        }
        self.hang_up();
    }
}

/// The processes of a session that have not ended.
fn session(leader: u32) -> Vec<Process> {
    let all = all_pids().into_iter().filter_map(Process::read);
    all.filter(|process| process.session == leader && !matches!(process.state, 'Z' | 'X')).collect()
}

/// Reads what is printed until all programs have left the terminal (EIO) or it is hung up.
fn watch(mut terminal: File, screen: &Collected, hung_up: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !hung_up.load(Ordering::Relaxed) {
        let ready = poll(&mut [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)], PollTimeout::from(20u8));
        if ready == Ok(0) {
            continue;
        }
        match terminal.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => screen.add(&buffer[..n]),
            Err(why) if why.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    drop(terminal);
    screen.close();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(cluster: &Cluster, terminal: &Terminal, name: &str) {
        eventually("it runs", PATIENCE, || {
            cluster.snapshot().children(terminal.leader()).any(|process| process.name == name).then_some(())
        });
    }

    #[test]
    fn an_interactive_bash_has_job_control() {
        let cluster = Cluster::attach();
        let mut terminal = Terminal::bash(&cluster, User::ordinary());
        assert_eq!(terminal.run("echo one; (exit 7)"), (7, "one\n".to_owned()));
        terminal.line("sleep 100; echo after");
        runs(&cluster, &terminal, "sleep");
        terminal.keys("\x1a");
        assert!(terminal.prompt().1.contains("Stopped"));
        terminal.foreground();
        terminal.keys("\x03");
        assert_eq!(terminal.prompt().0, 130);
        terminal.line("exit 5");
        assert_eq!(terminal.ended_within(PATIENCE), Some(Ended::Exited(5)));
    }

    #[test]
    fn planted_nothing_of_a_dropped_session_is_left() {
        let cluster = Cluster::attach();
        let mut terminal = Terminal::bash(&cluster, User::ordinary());
        terminal.run("trap '' HUP; sleep 100 & (trap '' TERM; exec sleep 101) & :");
        let leader = terminal.leader();
        assert!(session(leader).len() >= 3);
        drop(terminal);
        eventually("the session is gone", PATIENCE, || session(leader).is_empty().then_some(()));
    }

    #[test]
    fn hanging_up_ends_what_runs_in_it() {
        let cluster = Cluster::attach();
        let mut terminal = Terminal::start(cluster.command("sleep").arg("100"));
        eventually("sleep runs", PATIENCE, || {
            (cluster.snapshot().get(terminal.leader())?.name == "sleep").then_some(())
        });
        terminal.hang_up();
        assert_eq!(terminal.ended_within(PATIENCE), Some(Ended::Signaled(1)));
    }
}
