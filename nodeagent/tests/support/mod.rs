//! A real holder in namespaces of its own, and the master's side of its socket.
#![allow(dead_code, reason = "each test program uses its part of it")]

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ghost_proto::Control;
use ghost_proto::frame::{Data, Decoder, Frame, MAX_CONTROL, Offer, Placed};
use ghost_proto::instance::Instance;
use ghost_proto::launch::{Credentials, ProgramSpec, Stdio as StreamKind};
use ghost_proto::node::*;
use ghost_sys::namespace::{Place, spawn};
use ghost_sys::ring::{RingReader, RingWriter};
use nix::sched::CloneFlags;

/// Generous: a machine under load.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const WINDOW: u32 = 256 * 1024;

/// Whether this test can run; says so when it cannot.
pub fn root() -> bool {
    let root = nix::unistd::getuid().is_root();
    if !root {
        println!("Skipped(needs root): a holder makes namespaces and becomes other users");
    }
    root
}

pub struct Holder {
    pub child: Child,
    pub instance: Instance,
}

impl Holder {
    pub fn start() -> Holder {
        Holder::start_by(Command::new(env!("CARGO_BIN_EXE_ghost-holder")))
    }

    /// With at most this many open files.
    pub fn start_with_files(most: u32) -> Holder {
        let mut command = Command::new("prlimit");
        command.args([&format!("--nofile={most}:{most}"), env!("CARGO_BIN_EXE_ghost-holder")]);
        Holder::start_by(command)
    }

    fn start_by(mut command: Command) -> Holder {
        let instance = own_instance();
        command.args(["--instance", instance.as_str()]).stdin(Stdio::null());
        let place = Place::new(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS).new_session().die_with_parent();
        let child = spawn(command, place).expect("a holder");
        Holder { child, instance }
    }

    pub fn socket(&self) -> PathBuf {
        self.instance.holder_socket()
    }

    pub fn connect(&self) -> Link {
        let begin = Instant::now();
        loop {
            match UnixStream::connect(self.socket()) {
                Ok(stream) => return Link::over(stream),
                Err(why) => assert!(begin.elapsed() < PATIENCE, "no holder: {why}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Connected, and welcomed for an epoch with a lease of 40 s.
    pub fn welcomed(&self, epoch: u64) -> Link {
        let mut link = self.connect();
        link.hello();
        link.welcome(epoch, 40_000);
        link
    }

    pub fn cgroups(&self) -> PathBuf {
        cgroups_of(&self.instance)
    }

    /// PIDs, as this process sees them, of all in the holder's PID namespace but the holder.
    pub fn processes(&self) -> Vec<u32> {
        let own = fs::read_link(format!("/proc/{}/ns/pid", self.child.id())).ok();
        let all = fs::read_dir("/proc").expect("proc").flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| *pid != self.child.id())
            .filter(|pid| own.is_some() && fs::read_link(format!("/proc/{pid}/ns/pid")).ok() == own)
            .collect()
    }

    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("fd").count()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(self.instance.run());
        remove_cgroups(&self.cgroups());
    }
}

/// An instance that no other test has.
pub fn own_instance() -> Instance {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    name.parse().expect("a name")
}

/// Directory of a holder's cgroups, if it was started in this process's cgroup.
pub fn cgroups_of(instance: &Instance) -> PathBuf {
    let top = ghost_sys::mount::cgroup2().expect("cgroup2");
    let own = fs::read_to_string("/proc/self/cgroup").expect("cgroup");
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("cgroup2").to_owned();
    top.join(own).join(format!("{instance}-holder"))
}

/// Removes what a dead holder has left.
pub fn remove_cgroups(top: &Path) {
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        let _ = fs::remove_dir(entry.path());
    }
    let _ = fs::remove_dir(top);
}

/// The master's end.
pub struct Link {
    pub stream: UnixStream,
    decoder: Decoder,
    input: BytesMut,
    /// Frames that came while another was waited for.
    held: Vec<Got>,
    seq: u64,
    descriptors: Vec<OwnedFd>,
    rings: HashMap<(u64, u8), RingReader>,
    inputs: HashMap<u64, RingWriter>,
    /// Rings that came, frames that referred to one, and rings that were given up.
    pub ringed: [usize; 3],
}

#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    Message(NodeToMaster),
    Data(Data),
}

/// How a process ran.
#[derive(Debug, Default)]
pub struct Ran {
    pub pid: u32,
    pub cwd_errno: u32,
    pub failed: Option<StartFailed>,
    pub status: i32,
    pub out: HashMap<u8, Vec<u8>>,
    pub order: Vec<&'static str>,
}

impl Ran {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(self.out.get(&1).map_or(&[], Vec::as_slice)).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(self.out.get(&2).map_or(&[], Vec::as_slice)).into_owned()
    }
}

impl Link {
    pub fn over(stream: UnixStream) -> Link {
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Link {
            stream,
            decoder: Decoder::new(MAX_CONTROL),
            input: BytesMut::new(),
            held: Vec::new(),
            seq: 0,
            descriptors: Vec::new(),
            rings: HashMap::new(),
            inputs: HashMap::new(),
            ringed: [0; 3],
        }
    }

    /// Tells the holder that data may come in shared memory; it is found in [`Got::Data`] all the same.
    pub fn offer(&mut self) {
        self.stream.write_all(&Offer { placed: true, fills: false }.to_frame()).expect("send");
    }

    /// Tells it that input may go there, too; see [`Link::fill_stdin`].
    pub fn offer_to_fill(&mut self) {
        self.stream.write_all(&Offer { placed: true, fills: true }.to_frame()).expect("send");
    }

    fn placed(&mut self, placed: Placed) -> Option<Got> {
        let stream = (placed.id, placed.fd);
        if placed.fd == 0 {
            if placed.new_ring {
                self.ringed[0] += 1;
                let ring = RingWriter::open(&self.descriptors.remove(0)).expect("a ring");
                self.inputs.insert(placed.id, ring);
            }
            if placed.last_of_ring {
                self.ringed[2] += 1;
                self.inputs.remove(&placed.id);
            }
            return None;
        }
        if placed.new_ring {
            self.ringed[0] += 1;
            let ring = RingReader::open(&self.descriptors.remove(0)).expect("a ring");
            self.rings.insert(stream, ring);
        }
        let mut bytes = Vec::new();
        self.rings[&stream].copy_out(placed.offset, placed.length as usize, &mut bytes);
        if placed.last_of_ring {
            self.ringed[2] += 1;
            self.rings.remove(&stream);
            return None;
        }
        self.ringed[1] += 1;
        let Placed { id, offset, fd, eof, .. } = placed;
        Some(Got::Data(Data { id, offset, fd, eof, bytes: bytes.into() }))
    }

    pub fn send(&mut self, message: MasterToNode) {
        self.stream.write_all(&message.to_frame()).expect("send");
    }

    pub fn send_stdin(&mut self, id: u64, offset: u64, bytes: &[u8], eof: bool) {
        let mut out = BytesMut::new();
        Data { id, offset, fd: 0, eof, bytes: Bytes::copy_from_slice(bytes) }.encode(&mut out);
        self.stream.write_all(&out).expect("send");
    }

    /// The same through shared memory, where there is some.
    pub fn fill_stdin(&mut self, id: u64, offset: u64, bytes: &[u8], eof: bool) {
        let Some(ring) = self.inputs.get(&id).filter(|_| !bytes.is_empty()) else {
            return self.send_stdin(id, offset, bytes, eof);
        };
        ring.put(offset, bytes);
        self.ringed[1] += 1;
        self.refer(&Placed { id, offset, length: bytes.len() as u32, eof, ..Placed::default() });
    }

    /// Writes what nobody is to read into the rings of inputs, as an agent might that was stopped and goes on.
    pub fn spoil_inputs(&self) {
        for ring in self.inputs.values() {
            ring.put(0, &vec![b'?'; ring.size()]);
        }
    }

    /// Says that bytes lie in shared memory.
    pub fn refer(&mut self, placed: &Placed) {
        let mut out = BytesMut::new();
        placed.encode(&mut out);
        self.stream.write_all(&out).expect("send");
    }

    /// The next frame; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<Got> {
        if !self.held.is_empty() {
            return Some(self.held.remove(0));
        }
        self.read()
    }

    fn read(&mut self) -> Option<Got> {
        loop {
            match self.decoder.next(&mut self.input).expect("frames") {
                Some(Frame::Control(body)) => {
                    let message = NodeToMaster::decode_body(body).expect("a message").expect("a known one");
                    return Some(Got::Message(message));
                }
                Some(Frame::Data(data)) => return Some(Got::Data(data)),
                Some(Frame::Agent(_)) => panic!("the holder says nothing for nodeagent"),
                Some(Frame::Placed(placed)) => match self.placed(placed) {
                    Some(got) => return Some(got),
                    None => continue,
                },
                Some(Frame::Offer(_) | Frame::Relay(_)) => panic!("the holder says nothing of the kind"),
                None => {}
            }
            let mut buffer = [0; 65536];
            match ghost_sys::fdpass::receive(&self.stream, &mut buffer, &mut self.descriptors) {
                Ok(0) => return None,
                Ok(n) => self.input.extend_from_slice(buffer.get(..n).expect("in range")),
                Err(why) if why.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(why) => panic!("nothing came: {why}"),
            }
        }
    }

    /// Waits for a frame of a kind; keeps the others for later.
    pub fn wait_for<T>(&mut self, mut wanted: impl FnMut(&Got) -> Option<T>) -> T {
        if let Some((at, found)) = self.held.iter().enumerate().find_map(|(at, got)| Some((at, wanted(got)?))) {
            self.held.remove(at);
            return found;
        }
        loop {
            let got = self.read().expect("the connection lives");
            if let Some(found) = wanted(&got) {
                return found;
            }
            self.held.push(got);
        }
    }

    pub fn hello(&mut self) -> NodeHello {
        match self.next() {
            Some(Got::Message(NodeToMaster::Hello(hello))) => hello,
            other => panic!("not a hello: {other:?}"),
        }
    }

    pub fn welcome(&mut self, epoch: u64, lease_ms: u32) {
        self.send(MasterToNode::Welcome(Welcome { version: 1, features: vec![], epoch, node: 3, lease_ms }));
    }

    pub fn spawn(&mut self, proc: u64, program: ProgramSpec, user: u32) {
        self.spawn_in(proc, proc, 0, program, user);
    }

    pub fn spawn_in(&mut self, proc: u64, launch: u64, pid: u32, program: ProgramSpec, user: u32) {
        let credentials = Some(Credentials { uid: user, gid: user, groups: vec![user] });
        let program = Some(program);
        let spawn = Spawn {
            proc,
            launch,
            rank: 5,
            ranks: 6,
            pid,
            credentials,
            program,
            window: WINDOW,
            origin: None,
            root: None,
        };
        self.send(MasterToNode::Spawn(spawn));
    }

    pub fn started(&mut self, proc: u64) -> Started {
        self.wait_for(|got| match got {
            Got::Message(NodeToMaster::Started(started)) if started.proc == proc => Some(started.clone()),
            Got::Message(NodeToMaster::StartFailed(failed)) if failed.proc == proc => panic!("{failed:?}"),
            _ => None,
        })
    }

    pub fn ended(&mut self, proc: u64) -> i32 {
        self.wait_for(|got| match got {
            Got::Message(NodeToMaster::Ended(ended)) if ended.proc == proc => Some(ended.status),
            _ => None,
        })
    }

    /// Waits until stdout has shown this text (from the beginning of what was not yet taken), acknowledging.
    pub fn wait_output(&mut self, proc: u64, text: &str) -> String {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            let data = self.wait_for(|got| match got {
                Got::Data(data) if data.id == proc && data.fd == 1 => Some(data.clone()),
                _ => None,
            });
            assert!(!data.eof, "stdout ended after {:?}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&data.bytes);
            let offset = data.offset + data.bytes.len() as u64;
            self.send(MasterToNode::Ack(Ack { proc, fd: 1, offset }));
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Sends a signal and waits until it is done; gives the errno.
    pub fn signal(&mut self, signal: Signal) -> u32 {
        self.seq += 1;
        let seq = self.seq;
        self.send(MasterToNode::Signal(Signal { seq, confirm: true, ..signal }));
        self.wait_for(|got| match got {
            Got::Message(NodeToMaster::SignalDone(done)) if done.seq == seq => Some(done.errno),
            _ => None,
        })
    }

    /// Starts it, and follows it until it has ended and both outputs have.
    pub fn run(&mut self, proc: u64, program: ProgramSpec, user: u32) -> Ran {
        self.spawn(proc, program, user);
        self.follow(proc)
    }

    pub fn follow(&mut self, proc: u64) -> Ran {
        let mut ran = Ran::default();
        let (mut ended, mut open) = (false, 2);
        while !ended || open > 0 {
            match self.next().expect("the connection lives") {
                Got::Message(NodeToMaster::Started(started)) if started.proc == proc => {
                    ran.pid = started.pid;
                    ran.cwd_errno = started.cwd_errno;
                    ran.order.push("started");
                }
                Got::Message(NodeToMaster::StartFailed(failed)) if failed.proc == proc => {
                    ran.failed = Some(failed);
                    break;
                }
                Got::Message(NodeToMaster::Ended(end)) if end.proc == proc => {
                    ran.status = end.status;
                    ran.order.push("ended");
                    ended = true;
                }
                Got::Data(data) if data.id == proc => {
                    let sink = ran.out.entry(data.fd).or_default();
                    assert_eq!(data.offset, sink.len() as u64, "bytes come in order, once");
                    sink.extend_from_slice(&data.bytes);
                    if data.eof {
                        open -= 1;
                        ran.order.push(if data.fd == 1 { "eof 1" } else { "eof 2" });
                    } else {
                        let ack = Ack { proc, fd: u32::from(data.fd), offset: sink.len() as u64 };
                        self.send(MasterToNode::Ack(ack));
                    }
                }
                _ => {}
            }
        }
        self.send(MasterToNode::Forget(Forget { proc }));
        ran
    }
}

/// A program with all three streams.
pub fn program(argv: &[&str]) -> ProgramSpec {
    ProgramSpec {
        argv: argv.iter().map(|s| Bytes::copy_from_slice(s.as_bytes())).collect(),
        env: vec![
            Bytes::from_static(b"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
            Bytes::from_static(b"A=b c"),
        ],
        cwd: Bytes::from_static(b"/"),
        umask: 0o022,
        stdio: vec![StreamKind::Stream.into(); 3],
        ..ProgramSpec::default()
    }
}

pub fn shell(script: &str) -> ProgramSpec {
    program(&["/bin/sh", "-c", script])
}

/// A signal of a sender with user 4321.
pub fn signal(proc: u64, signal: i32) -> Signal {
    Signal {
        proc,
        signal: signal.unsigned_abs(),
        scope: Scope::Process.into(),
        value: 0x1122_3344_5566_7788,
        sender_pid: 777,
        sender_uid: 4321,
        sender_euid: 4321,
        ..Signal::default()
    }
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "not so after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
