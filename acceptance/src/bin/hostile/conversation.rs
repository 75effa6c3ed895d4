//! What is said: valid conversations, and what a seed makes of them.

use acceptance::random::Random;
use bytes::{Bytes, BytesMut};
use ghost_proto::Control;
use ghost_proto::client::{
    Ack, Admin, AdminRequest, ClientToMaster, CloseStream, GhostDied, Hello, Launch, NoGhost, NodeRequest,
    NodesRequest, ProcessesRequest, TokenRequest,
};
use ghost_proto::frame::{ALL_RANKS, Data};
use ghost_proto::launch::{Limit, ProgramSpec, Stdio};

/// A program that does no harm wherever it runs.
pub fn program(argv: &[&str]) -> ProgramSpec {
    ProgramSpec {
        argv: argv.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect(),
        env: vec![Bytes::from_static(b"PATH=/usr/bin:/bin")],
        cwd: Bytes::from_static(b"/"),
        umask: 0o022,
        stdio: vec![Stdio::Stream as i32; 3],
        ..ProgramSpec::default()
    }
}

pub fn hello() -> ClientToMaster {
    ClientToMaster::Hello(Hello { version: 1, features: Vec::new(), program: "hostile".to_owned() })
}

pub fn launch(nodes: &str, program: ProgramSpec) -> ClientToMaster {
    ClientToMaster::Launch(Launch { nodes: nodes.to_owned(), program: Some(program), plain: false })
}

/// What goes over the socket in one connection, frame by frame.
pub fn generate(random: &mut Random) -> Vec<Vec<u8>> {
    match random.below(6) {
        0 => vec![random.bytes(1 + random.clone().below(60_000) as usize)],
        1 => headers(random),
        2 => {
            let mut frames = valid(random);
            mutate(random, &mut frames);
            frames
        }
        3 => {
            let mut frames = vec![hello().to_frame().to_vec()];
            frames.extend((0..1 + random.below(20)).map(|_| extreme(random)));
            frames
        }
        4 => {
            // In a wrong order, or twice.
            let mut frames = valid(random);
            let again = frames.clone();
            frames.extend(again);
            random.shuffle(&mut frames);
            frames
        }
        _ => {
            let mut frames = valid(random);
            frames.extend((0..1 + random.below(10)).map(|_| extreme(random)));
            frames
        }
    }
}

/// Headers that promise anything.
fn headers(random: &mut Random) -> Vec<Vec<u8>> {
    let lengths = [0, 1, 7, 23, 24, 25, 0xffff, 131_096, 131_097, 8 << 20, (8 << 20) + 1, 0x7fff_ffff, u32::MAX];
    let mut frames = Vec::new();
    for _ in 0..1 + random.below(8) {
        let length: u32 = *random.choose(&lengths);
        let mut frame = length.to_le_bytes().to_vec();
        frame.push(*random.choose(&[0, 0, 1, 1, 2, 77, 255]));
        frame.extend(random.bytes(3));
        let body = random.below(200).min(u64::from(length)) as usize;
        frame.extend(random.bytes(body));
        frames.push(frame);
    }
    frames
}

fn valid(random: &mut Random) -> Vec<Vec<u8>> {
    let nodes = *random.choose(&["0", "0-3", "1,1,1", "up", "-1", "99"]);
    let mut said = vec![hello(), launch(nodes, program(&["/bin/true"]))];
    said.push(ClientToMaster::Ack(Ack { rank: 0, fd: 1, offset: 0 }));
    said.push(ClientToMaster::CloseStream(CloseStream { rank: 0, fd: 1 }));
    said.push(ClientToMaster::NoGhost(NoGhost { rank: 0, errno: 11 }));
    said.push(ClientToMaster::Nodes(NodesRequest { nodes: "0-3".to_owned(), ..NodesRequest::default() }));
    said.push(ClientToMaster::Processes(ProcessesRequest {}));
    let mut frames: Vec<Vec<u8>> = said.into_iter().map(|message| message.to_frame().to_vec()).collect();
    let mut data = BytesMut::new();
    Data { id: ALL_RANKS, offset: 0, fd: 0, eof: true, bytes: Bytes::from(random.bytes(100)) }.encode(&mut data);
    frames.insert(2, data.to_vec());
    frames
}

fn mutate(random: &mut Random, frames: &mut Vec<Vec<u8>>) {
    for _ in 0..1 + random.below(12) {
        let at = random.below(frames.len() as u64) as usize;
        let frame = &mut frames[at];
        if frame.is_empty() {
            continue;
        }
        let position = random.below(frame.len() as u64) as usize;
        match random.below(5) {
            0 => frame[position] ^= 1 << random.below(8),
            1 => frame[position] = random.next() as u8,
            2 => frame.truncate(position),
            3 => {
                let count = 1 + random.below(40) as usize;
                let inserted = random.bytes(count);
                frame.splice(position..position, inserted);
            }
            _ => {
                let copy = frame.clone();
                frames.insert(at, copy);
            }
        }
    }
}

/// A message that is well formed and asks for what nobody should ask for.
fn extreme(random: &mut Random) -> Vec<u8> {
    let rank = *random.choose(&[0, 1, 3, 4, 0x7fff_ffff, u32::MAX]);
    let fd = *random.choose(&[0, 1, 2, 3, 77, u32::MAX]);
    let offset = *random.choose(&[0, 1, 1 << 20, 1 << 40, i64::MAX as u64, u64::MAX]);
    let message = match random.below(9) {
        0 => ClientToMaster::Ack(Ack { rank, fd, offset }),
        1 => ClientToMaster::CloseStream(CloseStream { rank, fd }),
        2 => ClientToMaster::NoGhost(NoGhost { rank, errno: random.next() as u32 }),
        3 => ClientToMaster::GhostDied(GhostDied { rank, status: random.next() as i32 }),
        4 => launch(&nodes(random), hostile_program(random)),
        5 => ClientToMaster::Launch(Launch { nodes: nodes(random), program: None, plain: random.below(2) == 0 }),
        6 => ClientToMaster::Nodes(NodesRequest { nodes: nodes(random), perhaps_none: random.next() & 1 == 1 }),
        7 => ClientToMaster::Admin(AdminRequest { admin: admin(random) }),
        _ => {
            let id = *random.choose(&[0, 1, 5, u64::MAX - 1, ALL_RANKS]);
            let count = random.below(4000) as usize;
            let bytes = Bytes::from(random.bytes(count));
            let mut frame = BytesMut::new();
            let fd = *random.choose(&[0, 1, 2, 3, 255]);
            Data { id, offset, fd, eof: random.below(2) == 0, bytes }.encode(&mut frame);
            return frame.to_vec();
        }
    };
    message.to_frame().to_vec()
}

/// None of these is for an ordinary user.
fn admin(random: &mut Random) -> Option<Admin> {
    let request = NodeRequest { nodes: nodes(random) };
    match random.below(6) {
        0 => Some(Admin::Token(TokenRequest { nodes: nodes(random), uses: u32::MAX, expires_s: u64::MAX })),
        1 => Some(Admin::AddNodes(request)),
        2 => Some(Admin::RemoveNodes(request)),
        3 => Some(Admin::RevokeNodes(request)),
        4 => Some(Admin::ReplaceNodes(request)),
        _ => None,
    }
}

fn nodes(random: &mut Random) -> String {
    match random.below(8) {
        0 => String::new(),
        1 => "0-2147483647".to_owned(),
        2 => "0,".repeat(50_000),
        3 => "0-3,".repeat(3_000) + "0",
        4 => "-9223372036854775808".to_owned(),
        5 => "\u{1F47B},\0,../../etc".to_owned(),
        6 => "3-0".to_owned(),
        _ => "0".to_owned(),
    }
}

fn hostile_program(random: &mut Random) -> ProgramSpec {
    let mut program = program(&["/bin/true"]);
    match random.below(10) {
        0 => program.argv.clear(),
        1 => program.argv = vec![Bytes::from_static(b"/bin/true\0/bin/false")],
        2 => program.argv = (0..100_000).map(|_| Bytes::from_static(b"x")).collect(),
        3 => program.env = vec![Bytes::from(vec![b'='; 3_000_000])],
        4 => program.cwd = Bytes::from(random.bytes(5_000)),
        5 => program.umask = u32::MAX,
        6 => {
            let limit = |resource| Limit { resource, soft: u64::MAX, hard: 0 };
            program.limits = (0..random.clone().below(1_000) as u32).map(limit).collect();
        }
        7 => (program.nice, program.sched_policy, program.sched_priority) = (i32::MIN, 1, 99),
        8 => program.stdio = vec![i32::MAX; 10_000],
        _ => (program.ignored, program.blocked) = (u64::MAX, u64::MAX),
    }
    program
}
