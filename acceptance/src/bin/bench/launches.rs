//! How many commands a second.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::commands::timed;
use crate::measure::Table;

pub fn measure(table: &mut Table) -> Result<()> {
    for (clients, each, promise) in [(1, 400, ""), (16, 50, "at least 300")] {
        let remote = rate(clients, each, || timed(Command::new("bpsh").args(["0", "/bin/true"])).map(drop))?;
        let local = rate(clients, each, || timed(&mut Command::new("/bin/true")).map(drop))?;
        table.row(
            &format!("launches a second, {clients} client{}", if clients == 1 { "" } else { "s" }),
            format!("{remote:.0}"),
            format!("{local:.0} local"),
            format!("{:.2}", remote / local),
            promise,
        );
    }
    Ok(())
}

fn rate(clients: usize, each: usize, once: impl Fn() -> Result<()> + Sync) -> Result<f64> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..each {
                        once()?;
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("a client panicked")),
        })
    })?;
    Ok((clients * each) as f64 / start.elapsed().as_secs_f64())
}
