//! A hostile program: says to ghostd, as an ordinary user, whatever a program can say.
//!
//! ```text
//! hostile socket SEED ROUNDS        malformed and mutated conversations on ghostd's Unix socket
//! hostile port ADDRESS SEED ROUNDS  the same on the nodes' port; a join token on standard input
//! hostile pin                       reads a pin as processes that are no ghosts
//! hostile deaf SECONDS              launches what prints for ever and takes nothing of it
//! hostile idle COUNT [ADDRESS]      makes so many connections to the socket (the port) and leaves them alone, until it is killed
//! hostile trace PID DEED SEED       traces a ghost of the same user: detach, kill, hold, answer, registers, call
//! ```
//! The same seed says the same things in the same order. It ends with 0 when all was said; what ghostd answers is not its
//! concern, except for `pin`, which says on standard output how each read ended.

mod conversation;
mod deaf;
mod idle;
mod pin;
mod port;
mod socket;
mod trace;

use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How long one answer, or one write, is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["socket", seed, rounds] => socket::run(number(seed)?, number(rounds)?),
        ["port", address, seed, rounds] => port::run(address.parse()?, number(seed)?, number(rounds)?),
        ["pin"] => pin::run(),
        ["sleep-on-pin", rank] => pin::sleep_on_standard_input(number(rank)?),
        ["deaf", seconds] => deaf::run(Duration::from_secs(number(seconds)?)),
        ["idle", count] => idle::on_socket(number(count)?),
        ["idle", count, address] => idle::on_port(address.parse()?, number(count)?),
        ["trace", pid, deed, seed] => trace::run(pid.parse()?, deed, number(seed)?),
        _ => bail!("hostile socket SEED ROUNDS | port ADDRESS SEED ROUNDS | pin | deaf SECONDS | idle … | trace …"),
    }
}

fn number(text: &str) -> Result<u64> {
    text.parse().with_context(|| format!("{text}: no number"))
}
