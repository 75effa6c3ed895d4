//! The holder on the real kernel: what goes into its processes and what comes out of them.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use ghost_proto::frame::{Data, Placed};
use ghost_proto::node::*;
use support::*;

#[test]
fn stdin_reaches_the_program_and_ends() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    link.spawn(1, program(&["cat"]), 4321);
    link.send_stdin(1, 0, b"one ", false);
    link.send_stdin(1, 2, b"e two", false);
    link.send_stdin(1, 7, b"", true);
    let ran = link.follow(1);
    assert_eq!((ran.stdout().as_str(), ran.status), ("one two", 0));
}

/// Bytes of which no two pieces are alike.
fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 13) as u8
}

/// Many windows through a program and back, with a receiver that acknowledges late: nothing lost, nothing doubled.
#[test]
fn megabytes_go_through_unharmed() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    link.spawn(1, program(&["cat"]), 4321);
    let total = 8 << 20;
    let (mut sent, mut taken, mut received, mut acked) = (0usize, 0usize, 0usize, 0usize);
    let mut ended = false;
    while !ended {
        while sent < total && sent - taken < WINDOW as usize {
            let n = (total - sent).min(30_000).min(WINDOW as usize - (sent - taken));
            let bytes: Vec<u8> = (sent..sent + n).map(pattern).collect();
            link.send_stdin(1, sent as u64, &bytes, sent + n == total);
            sent += n;
        }
        match link.next().expect("the connection lives") {
            Got::Data(data) if data.fd == 1 => {
                assert_eq!(data.offset as usize, received);
                assert!(data.bytes.iter().enumerate().all(|(at, byte)| *byte == pattern(received + at)));
                received += data.bytes.len();
                assert!(received - acked <= WINDOW as usize, "more than a window is under way");
                if received - acked > WINDOW as usize / 2 {
                    acked = received;
                    link.send(MasterToNode::Ack(Ack { proc: 1, fd: 1, offset: acked as u64 }));
                }
                ended = data.eof;
            }
            Got::Message(NodeToMaster::Ack(ack)) if ack.fd == 0 => taken = ack.offset as usize,
            _ => {}
        }
    }
    assert_eq!((received, taken), (total, total));
}

fn next_of_stdout(got: &Got) -> Option<Data> {
    match got {
        Got::Data(data) if data.fd == 1 => Some(data.clone()),
        _ => None,
    }
}

/// A long stream through rings, over three connections: one that breaks with much unacknowledged, one that gets the ring anew,
/// and one of an agent that takes none.
#[test]
fn a_ring_serves_one_connection_after_the_other() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let expected: String = (1..=700_000).map(|number| format!("{number}\n")).collect();
    let (mut got, mut acked) = (Vec::new(), 0);
    let mut ringed = Vec::new();
    for (part, offers) in [(1, true), (2, true), (3, false)] {
        let mut link = holder.connect();
        if offers {
            link.offer();
        }
        link.hello();
        link.welcome(7, 40_000);
        if part == 1 {
            link.spawn(1, program(&["seq", "1", "700000"]), 4321);
        } else {
            // As the master does: the last one may have been lost with the connection.
            link.send(MasterToNode::Ack(Ack { proc: 1, fd: 1, offset: acked as u64 }));
        }
        let goal = expected.len() * part / 3;
        let mut over = false;
        while got.len() < goal || (part == 3 && !over) {
            let data = link.wait_for(next_of_stdout);
            let old = got.len() - usize::try_from(data.offset).expect("an offset");
            got.extend_from_slice(data.bytes.get(old..).unwrap_or_default());
            over = data.eof;
            if got.len() - acked > WINDOW as usize / 2 {
                acked = got.len();
                link.send(MasterToNode::Ack(Ack { proc: 1, fd: 1, offset: acked as u64 }));
            }
        }
        if part == 3 {
            link.send(MasterToNode::Ack(Ack { proc: 1, fd: 1, offset: got.len() as u64 }));
            link.ended(1);
        }
        ringed.push(link.ringed);
    }
    assert!(got == expected.as_bytes(), "{} bytes of {}", got.len(), expected.len());
    let [[1, first, 0], [1, second, 0], [0, 0, 0]] = ringed[..] else { panic!("{ringed:?}") };
    assert!(first > 5 && second > 5, "{ringed:?}");
}

/// A long input through rings, over three connections: one that breaks with much unacknowledged, one that gets another ring while the
/// agent of the first still writes into its own, and one of an agent that fills none.
#[test]
fn the_ring_of_an_input_serves_one_connection_after_the_other() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let total = 6 << 20;
    let bytes: Vec<u8> = (0..total).map(pattern).collect();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("expected");
    std::fs::write(&file, &bytes).expect("a file");
    let script = format!("head -c {total} | cmp - {} && cat", file.display());
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("readable");
    let (mut taken, mut links) = (0usize, Vec::<Link>::new());
    for (part, fills) in [(1, true), (2, true), (3, false)] {
        let mut link = holder.connect();
        match fills {
            true => link.offer_to_fill(),
            false => link.offer(),
        }
        link.hello();
        link.welcome(7, 40_000);
        if part == 1 {
            link.spawn(1, shell(&script), 4321);
        }
        // As the master does: pieces of which not all was acknowledged go anew.
        let mut sent = taken / 30_000 * 30_000;
        while taken < total * part / 3 {
            while sent < total.min(taken + WINDOW as usize) {
                let n = (total - sent).min(30_000).min(taken + WINDOW as usize - sent);
                link.fill_stdin(1, sent as u64, &bytes[sent..sent + n], sent + n == total);
                sent += n;
            }
            links.iter().for_each(Link::spoil_inputs);
            taken = link.wait_for(|got| match got {
                Got::Message(NodeToMaster::Ack(ack)) if ack.fd == 0 => Some(ack.offset as usize),
                _ => None,
            });
        }
        if part == 3 {
            assert_eq!(link.ended(1), 0, "it has read what was sent");
        }
        links.push(link);
    }
    let ringed: Vec<_> = links.iter().map(|link| link.ringed).collect();
    let [[1, first, 0], [1, second, 0], [0, 0, 0]] = ringed[..] else { panic!("{ringed:?}") };
    assert!(first > 5 && second > 5, "{ringed:?}");
}

#[test]
fn the_ring_of_an_input_is_given_up_and_what_lies_nowhere_is_refused() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.connect();
    link.offer_to_fill();
    link.hello();
    link.welcome(7, 40_000);
    link.spawn(1, shell("head -c 600000 > /dev/null; exec <&-; sleep 1000"), 4321);
    link.spawn(2, program(&["sleep", "1000"]), 4321);
    link.started(2);
    let files = holder.open_files();
    let (mut sent, mut taken, mut gone) = (0, 0, false);
    while !gone {
        while sent - taken < u64::from(WINDOW) {
            let length = 30_000.min(u64::from(WINDOW) - (sent - taken));
            link.fill_stdin(1, sent, &vec![b'x'; length as usize], false);
            sent += length;
        }
        match link.next().expect("the connection lives") {
            Got::Message(NodeToMaster::Ack(ack)) if ack.fd == 0 => taken = ack.offset,
            Got::Message(NodeToMaster::StdinGone(_)) => gone = true,
            _ => {}
        }
    }
    assert_eq!(link.run(3, program(&["true"]), 4321).status, 0);
    assert_eq!((link.ringed[0], link.ringed[2]), (1, 1));
    // One that comes late is nobody's; but process 2 has no ring.
    link.refer(&Placed { id: 1, offset: sent, length: 30_000, ..Placed::default() });
    eventually("the ring is closed", || holder.open_files() < files + 2);
    assert_eq!(link.run(4, program(&["true"]), 4321).status, 0);
    link.refer(&Placed { id: 2, length: 10_000, ..Placed::default() });
    assert!(std::iter::from_fn(|| link.next()).count() < 1_000, "the connection is closed");
}

#[test]
fn input_beyond_the_window_ends_that_input_alone() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    link.spawn(1, shell("sleep 1; cat > /dev/null; sleep 1000"), 4321);
    for at in 0..40 {
        link.send_stdin(1, at * 60_000, &[b'x'; 60_000], false);
    }
    link.wait_for(|got| matches!(got, Got::Message(NodeToMaster::StdinGone(StdinGone { proc: 1 }))).then_some(()));
    link.send_stdin(1, 2_400_000, b"more", true);
    assert_eq!(link.run(2, shell("echo here"), 4321).stdout(), "here\n");
    assert_eq!(link.signal(signal(1, libc::SIGKILL)), 0);
    link.ended(1);
}

/// When the reader of a long stream goes, or all of it was taken, the agent is told that its ring is not needed any more.
#[test]
fn a_ring_is_given_up() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.connect();
    link.offer();
    link.hello();
    link.welcome(7, 40_000);
    link.spawn(1, program(&["yes"]), 4321);
    link.spawn(2, shell("yes | head -c 1000000"), 4321);
    let mut at = [0; 3];
    while at[1] < 1_000_000 || at[2] < 1_000_000 {
        let data = link.wait_for(next_of_stdout);
        let proc = data.id;
        at[proc as usize] = data.offset + data.bytes.len() as u64;
        link.send(MasterToNode::Ack(Ack { proc, fd: 1, offset: at[proc as usize] }));
    }
    let files = holder.open_files();
    assert_eq!((link.ringed[0], link.ringed[2]), (2, 0));
    link.send(MasterToNode::CloseStream(CloseStream { proc: 1, fd: 1 }));
    link.ended(2);
    link.ended(1);
    link.send(MasterToNode::Forget(Forget { proc: 2 }));
    // What comes meanwhile is looked at, too.
    let ran = link.run(3, program(&["true"]), 4321);
    assert_eq!((ran.status, link.ringed[2]), (0, 2));
    link.send(MasterToNode::Forget(Forget { proc: 1 }));
    eventually("its descriptors are closed", || holder.open_files() < files);
}

#[test]
fn a_window_that_is_full_stops_the_writer_and_nobody_else() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    link.spawn(1, program(&["yes"]), 4321);
    let mut received = 0;
    while received < WINDOW as usize {
        received += link.wait_for(|got| match got {
            Got::Data(data) if data.id == 1 => Some(data.bytes.len()),
            _ => None,
        });
    }
    let ran = link.run(2, shell("echo free"), 4321);
    assert_eq!(ran.stdout(), "free\n");
    // Its reader goes: the program dies of it.
    link.send(MasterToNode::CloseStream(CloseStream { proc: 1, fd: 1 }));
    assert_eq!(link.ended(1), libc::SIGPIPE);
}

/// The status comes at once, the output of the dead process whole, and that of its child which lives on not at all.
#[test]
fn a_surviving_child_holds_nothing_up() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    let script = "(sleep 1; echo late; sleep 100) & head -c 1000000 /dev/zero | tr '\\0' x; exit 3";
    let begin = Instant::now();
    let ran = link.run(1, shell(script), 4321);
    assert!(begin.elapsed() < PATIENCE);
    assert_eq!((ran.status, ran.stdout().len()), (3 << 8, 1_000_000));
    // The child finds out when it writes: sh dies of it, or says so on stderr, which is closed as well.
    eventually("the child's echo had nobody to read it", || {
        let names: Vec<String> = holder
            .processes()
            .into_iter()
            .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok())
            .collect();
        !names.iter().any(|name| name == "sh\n")
    });
}

#[test]
fn an_output_that_is_closed_early_ends_early() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    let ran = link.run(1, shell("echo out; exec >&-; sleep 0.2; echo err >&2"), 4321);
    assert_eq!((ran.stdout().as_str(), ran.stderr().as_str()), ("out\n", "err\n"));
    assert_eq!(ran.order[..2], ["started", "eof 1"], "before the end: {:?}", ran.order);
}

#[test]
fn a_program_that_does_not_read_is_told() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    link.spawn(1, shell("exec <&-; sleep 100"), 4321);
    link.wait_for(|got| matches!(got, Got::Message(NodeToMaster::StdinGone(gone)) if gone.proc == 1).then_some(()));
    link.send_stdin(1, 0, b"too late", true);
    assert_eq!(link.signal(signal(1, libc::SIGKILL)), 0);
    assert_eq!(link.ended(1), libc::SIGKILL);
}

#[test]
fn a_reconnect_loses_and_doubles_nothing() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; read x; echo \"got $x\"; exit 4";
    link.spawn(1, shell(script), 4321);
    let pid = link.started(1).pid;
    let expected: String = (0..2000).map(|i| format!("line {i}\n")).collect();
    let mut text = Vec::new();
    let mut acked = 0;
    let mut round = 0;
    while text.len() < expected.len() {
        round += 1;
        // Some frames, acknowledged up to somewhere in the middle, and the connection is gone.
        for _ in 0..2 {
            if text.len() >= expected.len() {
                break;
            }
            let data = link.wait_for(|got| match got {
                Got::Data(data) if data.fd == 1 => Some(data.clone()),
                _ => None,
            });
            let old = text.len() - data.offset as usize;
            text.extend_from_slice(data.bytes.get(old.min(data.bytes.len())..).expect("in range"));
        }
        acked += (text.len() - acked) / 2;
        link.send(MasterToNode::Ack(Ack { proc: 1, fd: 1, offset: acked as u64 }));
        drop(link);
        link = holder.connect();
        let hello = link.hello();
        assert_eq!(hello.epoch, 7);
        assert_eq!((hello.processes.len(), hello.processes[0].proc, hello.processes[0].pid), (1, 1, pid));
        link.welcome(7, 40_000);
        assert!(round < 10_000);
    }
    assert_eq!(String::from_utf8_lossy(&text), expected);
    link.send(MasterToNode::Ack(Ack { proc: 1, fd: 1, offset: text.len() as u64 }));
    link.send_stdin(1, 0, b"word\n", false);
    link.wait_for(|got| match got {
        Got::Data(data) if data.fd == 1 && data.offset as usize == text.len() => Some(()),
        _ => None,
    });
    assert_eq!(link.ended(1), 4 << 8);
}

#[test]
fn two_writers_at_full_speed_share_the_way() {
    if !root() {
        return;
    }
    let holder = Holder::start();
    let mut link = holder.welcomed(7);
    link.spawn(1, program(&["yes"]), 4321);
    link.spawn(2, program(&["yes"]), 4321);
    let mut received = [0u64; 3];
    while received[1] < 16 << 20 || received[2] < 16 << 20 {
        if let Got::Data(data) = link.next().expect("the connection lives") {
            let at = &mut received[data.id as usize];
            assert_eq!(data.offset, *at);
            *at += data.bytes.len() as u64;
            link.send(MasterToNode::Ack(Ack { proc: data.id, fd: 1, offset: *at }));
        }
    }
}
