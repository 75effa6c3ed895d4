//! The pin on the real kernel: what sleeps on it, and what it takes to wake it. Needs root.

use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ghost_host::pin::{Event, Pin, PinFile};

fn next(pin: &mut Pin) -> Event {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(event) = pin.next_event().expect("the pin is served") {
            return event;
        }
        assert!(Instant::now() < deadline, "nothing came from the pin");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn file(pin: &mut Pin) -> PinFile {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        assert_eq!(pin.next_event().expect("the pin is served"), None);
        if let Some(file) = pin.take_file() {
            return file;
        }
        assert!(Instant::now() < deadline, "no pin file was opened");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Where a test's pin is mounted; goes after the pin.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        // Not what is below it: were it still mounted, that would be the pin's.
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A mount of its own for each test, taken off at the end.
fn mounted(name: &str) -> (Place, Pin) {
    let directory = std::env::temp_dir().join(format!("ghostproc-pin-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory for the mount");
    let pin = Pin::mount(&directory).expect("mounting needs root and /dev/fuse");
    (Place(directory), pin)
}

#[test]
fn a_read_is_answered_with_what_it_is_told_and_names_its_reader() {
    let (_place, mut pin) = mounted("answer");
    let opened = file(&mut pin);
    let number = opened.number;
    let reader = std::thread::spawn(move || {
        let mut answer = [0; 8];
        let length = std::fs::File::from(opened.fd).read_at(&mut answer, 5 << 12).expect("the read is answered");
        (length, answer)
    });
    match next(&mut pin) {
        Event::Read { token, file, uid, offset, pid } => {
            assert_eq!((file, uid, offset), (number, 0, 5 << 12));
            assert!(pid > 0);
            pin.answer(token, b"12345678").expect("the reader waits");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(reader.join().expect("no panic"), (8, *b"12345678"));
}

#[test]
fn files_have_numbers_of_their_own() {
    let (_place, mut pin) = mounted("numbers");
    let (a, b) = (file(&mut pin), file(&mut pin));
    assert_ne!(a.number, b.number);
}

#[test]
fn a_killed_reader_stays_until_it_is_answered() {
    let (_place, mut pin) = mounted("kill");
    let opened = file(&mut pin);
    let mut child = std::process::Command::new("dd")
        .args(["bs=8", "count=1", "status=none"])
        .stdin(std::fs::File::from(opened.fd))
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("dd runs");
    let Event::Read { token, .. } = next(&mut pin) else { panic!("a read was expected") };
    child.kill().expect("the child is ours");
    assert_eq!(next(&mut pin), Event::Interrupted { unique: token.unique() });
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(child.try_wait().expect("it is our child"), None, "it died before its answer");
    pin.answer(token, b"8 bytes.").expect("it still waits");
    assert_eq!(child.wait().expect("it is our child").signal(), Some(9));
}

#[test]
fn no_server_no_sleep() {
    let (_place, mut pin) = mounted("end");
    let opened = file(&mut pin);
    let reader = std::thread::spawn(move || std::fs::File::from(opened.fd).read_at(&mut [0; 8], 0));
    let Event::Read { .. } = next(&mut pin) else { panic!("a read was expected") };
    drop(pin);
    let error = reader.join().expect("no panic").expect_err("nobody is there to answer");
    assert!(matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::ENOTCONN)), "{error}");
}

#[test]
fn a_successor_is_given_the_reads_that_were_taken_up_and_those_that_were_not() {
    let (place, mut pin) = mounted("successor");
    let (taken, waiting) = (file(&mut pin), file(&mut pin));
    let numbers = [taken.number, waiting.number];
    let read = |file: PinFile| {
        std::thread::spawn(move || {
            let mut answer = [0; 8];
            std::fs::File::from(file.fd).read_at(&mut answer, 1 << 12).expect("the read is answered");
            answer
        })
    };
    let first = read(taken);
    match next(&mut pin) {
        Event::Read { file, .. } => assert_eq!(file, numbers[0]),
        other => panic!("{other:?}"),
    }
    let device = pin.as_fd().try_clone_to_owned().expect("a copy");
    pin.leave();
    drop(pin);
    let second = read(waiting);
    let mut pin = Pin::take_over(device, &place.0, 1 << 40).expect("the kernel can send again (6.9)");
    for _ in 0..2 {
        match next(&mut pin) {
            Event::Read { token, file, .. } => {
                let answer = if file == numbers[0] { b"sleeper1" } else { b"sleeper2" };
                pin.answer(token, answer).expect("the reader waits");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((first.join().expect("no panic"), second.join().expect("no panic")), (*b"sleeper1", *b"sleeper2"));
    assert!(file(&mut pin).number >= 1 << 40, "no number comes again");
}
