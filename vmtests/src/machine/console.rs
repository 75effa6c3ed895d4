//! A machine's serial console: its last lines, and whether the kernel has cried out on it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

/// Lines that are shown.
const SHOWN: usize = 60;

/// What a line means for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Nothing,
    /// A machine that is starved of processor time says this, too.
    Warning,
    /// The kernel is broken.
    End,
}

fn meaning(line: &str) -> Meaning {
    const WARNINGS: [&str; 3] = ["BUG: workqueue lockup", "detected stalls", "WARNING: CPU:"];
    const ENDS: [&str; 8] = [
        "Kernel panic",
        "BUG:",
        "kernel BUG at",
        "Oops:",
        "general protection fault",
        "soft lockup",
        "hung_task",
        "blocked for more than",
    ];
    let has = |markers: &[&str]| markers.iter().any(|marker| line.contains(marker));
    if has(&WARNINGS) {
        Meaning::Warning
    } else if has(&ENDS) {
        Meaning::End
    } else {
        Meaning::Nothing
    }
}

/// What is read of a console; the reader ends with the process.
#[derive(Debug, Clone, Default)]
pub struct Console {
    path: PathBuf,
    alarm: Arc<Mutex<Option<String>>>,
}

impl Console {
    /// Follows the file into which QEMU writes the console.
    pub fn follow(name: &str, path: &Path) -> Result<Self> {
        let console = Self { path: path.to_owned(), ..Self::default() };
        let mut file = File::options().create(true).append(true).read(true).open(path)?;
        let (state, name) = (console.clone(), name.to_owned());
        std::thread::spawn(move || {
            let mut rest = String::new();
            let mut buffer = vec![0; 64 << 10];
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => std::thread::sleep(Duration::from_millis(100)),
                    Ok(count) => rest += &String::from_utf8_lossy(&buffer[..count]),
                    Err(_) => return,
                }
                while let Some((line, after)) = rest.split_once('\n') {
                    state.add(&name, line.trim_end());
                    rest = after.to_owned();
                }
            }
        });
        Ok(console)
    }

    fn add(&self, name: &str, line: &str) {
        match meaning(line) {
            Meaning::Nothing => {}
            Meaning::Warning => println!("{name}: {line}"),
            Meaning::End => {
                let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
                alarm.get_or_insert_with(|| line.to_owned());
            }
        }
    }

    /// The first line that ends the run, if there was one.
    pub fn alarm(&self) -> Option<String> {
        self.alarm.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn last_lines(&self) -> String {
        last_lines(&self.path)
    }
}

/// What QEMU has written last of a console.
pub fn last_lines(path: &Path) -> String {
    let said = std::fs::read(path).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].iter().map(|line| format!("  | {}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_cries_out_ends_the_run() {
        for line in [
            "[    3.1] Oops: double fault: 0000 [#1] PREEMPT SMP NOPTI",
            "[    3.1] Kernel panic - not syncing: Fatal exception in interrupt",
            "[    1.7] kernel BUG at lib/list_debug.c:29!",
            "[  130.0] INFO: task ps:512 blocked for more than 120 seconds.",
            "[  130.0] watchdog: BUG: soft lockup - CPU#0 stuck for 52s!",
        ] {
            assert_eq!(meaning(line), Meaning::End, "{line}");
        }
        assert_eq!(meaning("[   9.0] BUG: workqueue lockup - pool cpus=0"), Meaning::Warning);
        assert_eq!(meaning("[   9.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"), Meaning::Warning);
        assert_eq!(meaning("[  OK  ] Started vmtests-agent.service"), Meaning::Nothing);
    }

    #[test]
    fn the_alarm_is_the_first_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("console");
        std::fs::write(&path, "Oops: 1\r\nKernel panic - not syncing\r\n").expect("written");
        let console = Console { path, ..Console::default() };
        console.add("n0", "Oops: 1");
        console.add("n0", "Kernel panic - not syncing");
        assert_eq!(console.alarm().as_deref(), Some("Oops: 1"));
        assert!(console.last_lines().contains("panic"));
    }
}
