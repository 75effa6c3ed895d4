use super::super::flags::Prefix;
use super::*;
use bytes::Bytes;
use std::io::{PipeReader, PipeWriter, Read, pipe};

struct Bench {
    output: Output<PipeWriter>,
    stdout: PipeReader,
    stderr: PipeReader,
    acknowledged: Vec<[usize; 2]>,
}

impl Bench {
    fn new(style: Style, nodes: &[i32]) -> Bench {
        let ((stdout, out), (stderr, err)) = (pipe().expect("pipe"), pipe().expect("pipe"));
        let nodes_named = nodes.iter().map(|node| (*node, String::new())).collect();
        let output = Output::new(style, nodes_named, out, err);
        Bench { output, stdout, stderr, acknowledged: vec![[0; 2]; nodes.len()] }
    }

    fn push(&mut self, rank: usize, channel: Channel, text: &str) {
        self.output.push(rank, channel, Bytes::copy_from_slice(text.as_bytes()));
        self.write();
    }

    fn finish(&mut self, rank: usize) {
        self.output.finish(rank, String::new(), false);
        self.write();
    }

    fn write(&mut self) {
        let mut broken = Vec::new();
        for credit in self.output.write(&mut broken) {
            self.acknowledged[credit.rank][credit.channel] += credit.bytes;
        }
        assert!(broken.is_empty(), "{broken:?}");
    }

    /// What has come out on a channel so far.
    fn shown(&mut self, channel: Channel) -> String {
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 4096];
        let reader = [&self.stdout, &self.stderr][channel];
        while let Ok(n @ 1..) = ghost_sys::nowait::read_buf(reader, &mut &mut buffer[..], usize::MAX) {
            bytes.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8(bytes).expect("text")
    }
}

const SORTED: Style = Style { lines: None, prefix: None, sorted: true, divider: false, form: Form::Streams };

#[test]
fn the_column_of_the_magazine() {
    let style = Style { lines: Some(100), prefix: Some(Prefix::Padded), divider: true, ..SORTED };
    let mut bench = Bench::new(style, &[0, 1, 2, 3, 4]);
    bench.push(4, 0, "total 0\n");
    bench.push(3, 0, "total 224856\n-rw-rw-r-- 1 forrest 9220");
    for rank in [4, 1, 0, 2] {
        if rank != 4 {
            bench.push(rank, 0, "total 0\n");
        }
        bench.finish(rank);
    }
    bench.push(3, 0, " 230021709 Dec 17 01:38 myoutput\n");
    bench.finish(3);
    assert!(bench.output.is_drained());
    assert_eq!(bench.shown(0), include_str!("golden/prefix_sorted_divider.txt"));
}

#[test]
fn sorted_shows_the_first_live_and_the_others_in_turn() {
    // Ranks in the order 7, 3 of nodes: node 3 is rank 1.
    let mut bench = Bench::new(SORTED, &[7, 3]);
    bench.push(0, 0, "seven");
    assert_eq!((bench.shown(0), bench.acknowledged[0][0]), (String::new(), 5));
    bench.push(1, 0, "three");
    bench.push(1, 1, "error 3");
    assert_eq!((bench.shown(0).as_str(), bench.shown(1).as_str()), ("three", "error 3"));
    bench.push(0, 1, "error 7");
    bench.finish(1);
    assert_eq!((bench.shown(0).as_str(), bench.shown(1).as_str()), ("seven", "error 7"));
    bench.push(0, 0, "!");
    assert_eq!(bench.shown(0), "!");
    assert!(!bench.output.is_drained());
    bench.finish(0);
    assert!(bench.output.is_drained());
    assert_eq!(bench.acknowledged, [[6, 7], [5, 7]]);
}

#[test]
fn much_output_before_its_turn_goes_through_a_file() {
    let mut bench = Bench::new(SORTED, &[0, 1]);
    let line = "x".repeat(99) + "\n";
    for _ in 0..5000 {
        bench.push(1, 0, &line);
    }
    assert_eq!(bench.acknowledged[1][0], 500_000);
    bench.output.finish(1, String::new(), false);
    bench.output.finish(0, String::new(), false);
    let mut length = 0;
    while !bench.output.is_drained() {
        bench.write();
        let mut buffer = vec![0; 65536];
        length += bench.stdout.read(&mut buffer).expect("read");
        bench.output.room(0);
    }
    length += bench.shown(0).len();
    assert_eq!(length, 500_000);
}

#[test]
fn unsorted_bytes_pass_as_they_come_and_wait_for_the_reader() {
    let mut bench = Bench::new(Style { sorted: false, ..SORTED }, &[0, 1]);
    let bytes = Bytes::from(vec![b'y'; 1 << 20]);
    bench.output.push(1, 0, bytes);
    bench.write();
    assert_eq!(bench.output.waiting().map(|(channel, _)| channel).collect::<Vec<_>>(), [0]);
    assert_eq!(bench.acknowledged[1][0], 0);
    // A reader of one output that stops does not stop the other.
    bench.push(0, 1, "still here");
    assert_eq!(bench.shown(1), "still here");
    let mut length = 0;
    while length < 1 << 20 {
        length += bench.shown(0).len();
        bench.output.room(0);
        bench.write();
    }
    assert_eq!((bench.acknowledged[1][0], bench.output.is_drained()), (1 << 20, true));
}

#[test]
fn a_message_comes_at_once() {
    let mut bench = Bench::new(SORTED, &[0, 1]);
    bench.output.message("1: down");
    bench.write();
    assert_eq!(bench.shown(1), "1: down\n");
}

#[test]
fn gathered_output_is_acknowledged_at_once_and_shown_when_it_is_known() {
    let mut bench = Bench::new(Style { sorted: false, form: Form::Gathered { colour: false }, ..SORTED }, &[0, 1]);
    bench.push(0, 0, "same\n");
    bench.push(1, 0, "same\n");
    assert_eq!((bench.shown(0), bench.acknowledged[0][0]), (String::new(), 5));
    bench.finish(0);
    assert!(!bench.output.is_drained() || bench.shown(0).is_empty());
    bench.finish(1);
    assert_eq!(bench.shown(0), "---------------\n0-1 (2)\n---------------\nsame\n");
    assert!(bench.output.is_drained());
}

#[test]
fn events_carry_both_outputs_on_one() {
    let mut bench = Bench::new(Style { sorted: false, form: Form::Events, ..SORTED }, &[0, 1]);
    bench.push(1, 1, "error\n");
    bench.finish(1);
    let line = bench.shown(0);
    assert!(line.contains(r#""rank":1,"node":1,"stream":"stderr","text":"error\n""#), "{line}");
    assert_eq!((bench.shown(1), bench.acknowledged[1][1]), (String::new(), 6));
}
