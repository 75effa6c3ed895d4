//! A PID namespace whose processes are followed from outside.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use ghost_host::programs::tree::{Changed, Event, Exit, Process, Record, TreePrograms};
use ghost_sys::namespace::{self, Place};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;

use super::actor;

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A namespace with its init, which is followed from before the init does anything.
pub struct Space {
    init: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub programs: TreePrograms,
    /// All that was read so far.
    pub events: Vec<Event>,
}

impl Space {
    /// The init plays `scenario` when it is told to go on. Its end ends the namespace.
    pub fn new(scenario: &str) -> Self {
        Self::of(actor::playing(scenario))
    }

    /// The init is a shell, which runs `script` when it is told to go on.
    pub fn shell(script: &str) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("read line\n{script}")]);
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut init = namespace::spawn(command, Place::new(CloneFlags::CLONE_NEWPID)).expect("a namespace");
        let input = init.stdin.take();
        let output = BufReader::new(init.stdout.take().expect("piped"));
        let namespace = File::open(format!("/proc/{}/ns/pid", init.id())).expect("the namespace");
        let mut programs = TreePrograms::load_namespace(namespace).expect("load");
        // From now on the end of init is awaited too.
        let list = programs.list().expect("list");
        assert_eq!(list.iter().map(|process| process.pid).collect::<Vec<i32>>(), [1]);
        Self { init, input, output, programs, events: Vec::new() }
    }

    /// The line that the init waits for.
    pub fn go(&mut self) {
        writeln!(self.input.as_mut().expect("open"), "go").expect("the init lives");
    }

    /// Waits until the init says that the test is to look.
    pub fn here(&mut self) {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("output of the init");
        assert_eq!(line, "here\n");
    }

    /// The namespace.
    pub fn namespace(&self) -> File {
        File::open(format!("/proc/{}/ns/pid", self.init.id())).expect("the namespace")
    }

    /// Kills the init.
    pub fn kill(&mut self) {
        self.init.kill().expect("kill the init");
    }

    /// Has the init go on, and waits for the end of the namespace and of all its processes. Gives what became of each but
    /// init, in the order of their forks, and checks the statuses with those that were waited for. Nothing may be dropped.
    pub fn run(mut self) -> Vec<Life> {
        self.go();
        let waited = self.end();
        assert_eq!(self.programs.dropped(), 0);
        let lives = lives(&self.records());
        for (pid, status) in waited {
            // 0x7f: a stop, 0xffff: a continuation (wait(2)).
            if status & 0xff != 0x7f && status != 0xffff {
                let told: Vec<u32> = lives.iter().filter(|life| life.fork.pid == pid).map(Life::status).collect();
                assert!(told.contains(&status), "{pid} ended with {status:#x}, and {told:x?} was told");
            }
        }
        assert!(lives.iter().all(|life| life.reaped));
        lives
    }

    /// Waits for the end of the namespace, until all its processes are reaped. Gives what the init still said of those that
    /// it waited for.
    pub fn end(&mut self) -> Vec<(i32, u32)> {
        self.input = None;
        let mut text = String::new();
        self.output.read_to_string(&mut text).expect("output of the init");
        self.init.wait().expect("wait for the init");
        self.until(|events| {
            let count = |wanted: fn(&Record) -> bool| {
                events.iter().filter(|event| matches!(event, Event::Record(record) if wanted(record))).count()
            };
            // Init was not seen to be forked, but to end.
            count(|record| matches!(record, Record::Fork(_))) < count(|record| matches!(record, Record::Reaped(_)))
        });
        let words = text.lines().filter_map(|line| line.split_once(' '));
        words.map(|(pid, status)| (pid.parse().expect("a PID"), status.parse().expect("a status"))).collect()
    }

    /// Reads until `enough` of the events.
    pub fn until(&mut self, enough: impl Fn(&[Event]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut looked = Instant::now();
        loop {
            while let Some(event) = self.programs.next_event() {
                self.events.push(event);
            }
            if looked.elapsed() > Duration::from_millis(500) {
                looked = Instant::now();
                let overdue = self.programs.overdue().expect("list");
                self.events.extend(overdue.into_iter().map(|reaped| Event::Record(Record::Reaped(reaped))));
            }
            if enough(&self.events) {
                return;
            }
            let last = self.events.len().saturating_sub(20);
            assert!(
                Instant::now() < deadline,
                "{} came, {} were dropped, the last are {:?}",
                self.events.len(),
                self.programs.dropped(),
                &self.events[last..]
            );
            let mut ready = [PollFd::new(self.programs.event_fd(), PollFlags::POLLIN)];
            poll(&mut ready, PollTimeout::from(200u16)).expect("poll");
        }
    }

    /// The records without those of init.
    pub fn records(&self) -> Vec<Record> {
        let records = self.events.iter().map(|event| match event {
            Event::Record(record) => *record,
            Event::Dropped => panic!("records were dropped"),
        });
        records.filter(|record| record.pid() != 1).collect()
    }
}

/// The life of each process in `records`, in the order of their forks.
pub fn lives(records: &[Record]) -> Vec<Life> {
    let mut lives: Vec<Life> = Vec::new();
    for record in records {
        if let Record::Fork(fork) = record {
            assert!(lives.iter().all(|life| life.fork.key != fork.key), "forked twice: {fork:?}");
            lives.push(Life { fork: *fork, execs: Vec::new(), changes: Vec::new(), exit: None, reaped: false });
            continue;
        }
        let life = lives.iter_mut().find(|life| life.fork.key == record.key()).expect("a record before the fork's");
        assert_eq!(life.fork.pid, record.pid());
        assert!(!life.reaped, "{record:?} after its process was reaped");
        match record {
            Record::Fork(_) => {}
            Record::Exec(exec) => life.execs.push(*exec),
            Record::Changed(changed) => life.changes.push(*changed),
            Record::Exit(exit) => assert!(life.exit.replace(*exit).is_none(), "ended twice: {exit:?}"),
            Record::Reaped(_) => {
                assert!(life.exit.is_some(), "reaped before it ended: {record:?}");
                life.reaped = true;
            }
        }
    }
    lives
}

/// What was told of a process.
#[derive(Debug)]
pub struct Life {
    pub fork: Process,
    pub execs: Vec<Process>,
    pub changes: Vec<Changed>,
    pub exit: Option<Exit>,
    pub reaped: bool,
}

impl Life {
    /// The wait status.
    pub fn status(&self) -> u32 {
        self.exit.expect("it has ended").status
    }

    /// The name of the program that it executed last.
    pub fn program(&self) -> String {
        let last = self.execs.last().expect("it has executed a program");
        String::from_utf8_lossy(last.name()).into_owned()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // With it the namespace ends, also where a test has failed.
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}
