//! `htop` shows ghosts as what they are.

use std::time::Duration;

use acceptance::shown::Shown;
use acceptance::{Cluster, Ended, Terminal, User, eventually};
use ghost_sys::pidfd::kill;

const LONG: Duration = Duration::from_secs(30);
const STOP: i32 = 19;
const CONT: i32 = 18;

/// What a terminal shows, as lines of words: a cursor that is moved to a place begins a line, one that is moved along a line
/// begins a word, and colours are nothing.
fn lines(screen: &str) -> Vec<Vec<String>> {
    // A shift of the character set is nothing, either.
    let screen = screen.replace(['\x0e', '\x0f'], "");
    let (mut text, mut rest) = (String::new(), screen.as_str());
    while let Some((before, escape)) = rest.split_once('\x1b') {
        text.push_str(before);
        let Some(parameters) = escape.strip_prefix('[') else {
            // Of two characters: a change of the character set has three.
            rest = escape.get(if escape.starts_with(['(', ')']) { 2 } else { 1 }..).unwrap_or_default();
            continue;
        };
        let end = parameters.find(|c: char| c.is_ascii_alphabetic() || c == '@').unwrap_or(parameters.len());
        match parameters.as_bytes().get(end) {
            Some(b'H' | b'f' | b'd' | b'B' | b'J') => text.push('\n'),
            Some(b'm' | b'h' | b'l' | b'r') | None => {}
            Some(_) => text.push(' '),
        }
        rest = parameters.get(end + 1..).unwrap_or_default();
    }
    text.push_str(rest);
    text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// PID, user, state and command of a line: PID USER PRI NI VIRT RES SHR S CPU% MEM% TIME+ Command.
fn process(words: &[String]) -> Option<(u32, &str, &str, String)> {
    let [pid, user, _, _, _, _, _, state, _, _, _, command @ ..] = words else { return None };
    Some((pid.parse().ok()?, user, state, command.join(" ")))
}

#[test]
fn htop_shows_number_user_state_and_command() {
    let cluster = Cluster::attach();
    let user = User::ordinary();
    let asleep = Shown::start(&cluster, user.clone(), 0, &["probe", "wait"]);
    let stopped = Shown::start(&cluster, user.clone(), 1, &["probe", "family", "0"]);
    let busy = Shown::start(&cluster, user.clone(), 2, &["probe", "hog"]);
    let wanted = [(&asleep, "S", "probe wait"), (&stopped, "T", "probe family 0"), (&busy, "R", "probe hog")];
    let process_of_stopped = stopped.process(&cluster).pid;
    kill(process_of_stopped.cast_signed(), STOP).expect("kill");
    // Long names are cut.
    let named = cluster.command("id").args(["-un", "1000"]).run();
    let named = if named.ended == Ended::Exited(0) { named.text().trim().to_owned() } else { "1000".to_owned() };
    let numbers = wanted.map(|(shown, ..)| shown.ghost.to_string()).join(",");
    let htop = cluster.command("htop").args(["-C", "-d", "10", "-p", &numbers]).user(user).limit(LONG * 4);
    let mut terminal = Terminal::start(htop.env("TERM", "vt100").env("HOME", "/nonexistent").env("LC_ALL", "C"));
    eventually("htop shows all three", LONG * 2, || {
        let screen = lines(&terminal.screen());
        let is_shown = |(shown, state, command): &(&Shown, &str, &str)| {
            screen.iter().filter_map(|words| process(words)).any(|(pid, user, is, what)| {
                (pid, is, what.as_str()) == (shown.ghost, *state, *command) && named.starts_with(user)
            })
        };
        let all = wanted.iter().all(is_shown);
        if !all {
            std::thread::sleep(Duration::from_millis(200));
            // The whole screen anew: else only what changes is drawn.
            terminal.keys("\x0c");
        }
        all.then_some(())
    });
    terminal.keys("q");
    assert_eq!(terminal.ended_within(LONG), Some(Ended::Exited(0)));
    kill(process_of_stopped.cast_signed(), CONT).expect("kill");
    let mut running = busy.running;
    running.kill();
    asleep.end();
    stopped.end();
}

#[test]
fn what_a_terminal_shows_is_read() {
    let screen = "\x1b[?1049h\x1b[1;24r\x1b(B\x1b[m\x1b[4l\x1b[H\x1b[2J\x1b[9d  77 1000\x1b[7C20 \x1b[7m 0\x1b[m\x0f 1 2 3 S\x1b[5X0.0 0.1  0:00.01 a b\x1b[1B\x1b[10D78";
    let lines = lines(screen);
    let found: Vec<_> = lines.iter().filter_map(|words| process(words)).collect();
    assert_eq!(found, [(77, "1000", "S", "a b".to_owned())]);
}
