//! Files that are read in parts, as large as they are: maps of a process with many mappings, say.
//!
//! ```text
//!             ReadPart at 0                       the end, an error,
//!  (nothing) ---------------> open, at an offset -----------------------> (nothing)
//!                                                 OLD, or MOST others began since
//! ```
//! Invariants:
//! - Memory is one part, however large the file.
//! - A reading goes on through the descriptor that it began with: its content is what a reader on this node would get who
//!   reads as fast, and the process's for ever, whatever becomes of its number.
//! - What was read while the process belonged to two users one after the other is root's.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ghost_proto::view::{PART_SIZE, Part, ReadPart};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::sampler::{is_content, open, owner};

/// Readings that may be open at a time.
const MOST: usize = 16;
/// One that nobody has asked for so long is closed.
const OLD: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Reading {
    number: u64,
    directory: OwnedFd,
    file: File,
    offset: u64,
    owner: u32,
    used: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Readings {
    /// The one that was used last stands last.
    open: Vec<Reading>,
}

impl Readings {
    /// The next part, or why there is none.
    pub(super) fn answer(&mut self, proc: &impl AsFd, asked: &ReadPart, now: Instant) -> Part {
        let part = Part { reading: asked.reading, proc: asked.proc, offset: asked.offset, ..Part::default() };
        match self.read(proc, asked, now) {
            Ok((owner, content, last)) => Part { owner, content: content.into(), last, ..part },
            Err(why) => {
                let owner = directory(proc, asked).ok().and_then(|directory| owner(&directory)).unwrap_or(0);
                let errno = why.raw_os_error().unwrap_or(libc::EIO).unsigned_abs();
                Part { owner, errno, last: true, ..part }
            }
        }
    }

    fn read(&mut self, proc: &impl AsFd, asked: &ReadPart, now: Instant) -> io::Result<(u32, Vec<u8>, bool)> {
        let known = self.open.iter().position(|reading| reading.number == asked.reading);
        let mut reading = match known.map(|at| self.open.remove(at)) {
            Some(reading) if reading.offset == asked.offset => reading,
            None if asked.offset == 0 => Reading::begin(proc, asked, now)?,
            _ => return Err(Errno::ESTALE.into()),
        };
        let mut content = Vec::with_capacity(4096);
        // Each read gives less than there is room for: fs/seq_file.c `seq_read_iter` fills its own buffer.
        let length = Read::by_ref(&mut reading.file).take(PART_SIZE as u64).read_to_end(&mut content)?;
        reading.offset += length as u64;
        reading.used = now;
        if owner(&reading.directory) != Some(reading.owner) {
            reading.owner = 0;
        }
        let (owner, last) = (reading.owner, length < PART_SIZE);
        if !last {
            if self.open.len() >= MOST {
                self.open.remove(0);
            }
            self.open.push(reading);
        }
        Ok((owner, content, last))
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        self.open.retain(|reading| now.saturating_duration_since(reading.used) < OLD);
    }

    /// How long until one is too old; `None`: there is none.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        self.open.first().map(|reading| (reading.used + OLD).saturating_duration_since(now))
    }
}

impl Reading {
    fn begin(proc: &impl AsFd, asked: &ReadPart, now: Instant) -> io::Result<Reading> {
        if !is_content(&asked.file) {
            return Err(Errno::EACCES.into());
        }
        let directory = directory(proc, asked)?;
        let owner = owner(&directory).ok_or(Errno::ESRCH)?;
        let file = open(&directory, &asked.file, OFlag::O_RDONLY)?.into();
        Ok(Reading { number: asked.reading, directory, file, offset: 0, owner, used: now })
    }
}

fn directory(proc: &impl AsFd, asked: &ReadPart) -> nix::Result<OwnedFd> {
    open(proc, &asked.pid.to_string(), OFlag::O_DIRECTORY | OFlag::O_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proc() -> File {
        File::open("/proc").expect("/proc")
    }

    fn ask(reading: u64, file: &str, offset: u64) -> ReadPart {
        ReadPart { reading, proc: 3, pid: std::process::id(), file: file.into(), offset }
    }

    /// All of it, and in how many parts.
    fn whole(readings: &mut Readings, file: &str) -> (Vec<u8>, usize) {
        let (mut content, mut parts, now) = (Vec::new(), 0, Instant::now());
        loop {
            let part = readings.answer(&proc(), &ask(1, file, content.len() as u64), now);
            assert_eq!((part.reading, part.proc, part.errno, part.offset), (1, 3, 0, content.len() as u64));
            assert_eq!(part.owner, nix::unistd::geteuid().as_raw());
            assert!(part.content.len() <= PART_SIZE);
            parts += 1;
            content.extend_from_slice(&part.content);
            if part.last {
                return (content, parts);
            }
        }
    }

    #[test]
    fn a_small_file_is_one_part_and_leaves_nothing_open() {
        let mut readings = Readings::default();
        let (content, parts) = whole(&mut readings, "limits");
        assert_eq!((content, parts), (std::fs::read("/proc/self/limits").expect("limits"), 1));
        assert!(readings.open.is_empty());
    }

    #[test]
    fn a_large_file_comes_whole_in_parts() {
        let _mappings = ghost_sys::trials::many_mappings(8_000).expect("mmap");
        let mut readings = Readings::default();
        let (content, parts) = whole(&mut readings, "maps");
        assert!(parts >= 4, "{parts}");
        let text = String::from_utf8(content).expect("text");
        assert!(text.ends_with('\n') && text.lines().count() >= 8_000);
        let begins: Vec<u64> = text
            .lines()
            .map(|line| u64::from_str_radix(line.split_once('-').expect("a range").0, 16).expect("an address"))
            .collect();
        assert!(begins.is_sorted(), "no line came twice or torn");
        assert!(readings.open.is_empty());
    }

    #[test]
    fn what_is_not_given_out_and_what_is_not_known_has_a_reason() {
        let (mut readings, now) = (Readings::default(), Instant::now());
        let mut errno = |asked: &ReadPart| readings.answer(&proc(), asked, now).errno;
        assert_eq!(errno(&ask(1, "mem", 0)), libc::EACCES as u32);
        assert_eq!(errno(&ask(1, "task/1/maps", 0)), libc::EACCES as u32);
        assert_eq!(errno(&ask(1, "maps", 5)), libc::ESTALE as u32);
        assert_eq!(errno(&ReadPart { pid: 0, ..ask(1, "maps", 0) }), libc::ENOENT as u32);
    }

    #[test]
    fn readings_are_few_and_end() {
        let _mappings = ghost_sys::trials::many_mappings(8_000).expect("mmap");
        let (mut readings, now) = (Readings::default(), Instant::now());
        for number in 0..=MOST as u64 {
            assert!(!readings.answer(&proc(), &ask(number, "maps", 0), now).last);
        }
        let offset = PART_SIZE as u64;
        assert_eq!(readings.answer(&proc(), &ask(0, "maps", offset), now).errno, libc::ESTALE as u32);
        assert_eq!(readings.answer(&proc(), &ask(1, "maps", offset), now).errno, 0);
        assert_eq!(readings.pause(now), Some(OLD));
        readings.forget_old(now + OLD);
        assert_eq!(readings.pause(now), None);
    }
}
