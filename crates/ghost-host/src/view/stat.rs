//! `/proc/PID/stat` of a process elsewhere, as its ghost's: proc_pid_stat(5).
//!
//! Everything that names an identity or a time is this host's, and is taken from the ghost's own line. Addresses are left
//! out, as the kernel does for a reader who may not trace the process (fs/proc/array.c `do_task_stat`): the line is one for
//! all readers.

/// Field numbers of proc_pid_stat(5), from 1; the first two stand before the closing parenthesis.
const STARTTIME: usize = 22;
const RSS: usize = 24;
/// ppid, pgrp, session, tty_nr, tpgid; starttime; exit_signal.
const IDENTITY: [usize; 7] = [4, 5, 6, 7, 8, STARTTIME, 38];
/// startcode, endcode: 1 stands for "hidden".
const CODE: [usize; 2] = [26, 27];
/// startstack, kstkesp, kstkeip; wchan; start_data to env_end; exit_code.
const ADDRESSES: [usize; 12] = [28, 29, 30, 35, 45, 46, 47, 48, 49, 50, 51, 52];
/// ppid, pgrp, session, tty_nr, tpgid: one after the other.
const FAMILY: usize = 5;
/// How many fields every supported kernel has.
const FIELDS: usize = 52;

/// A line, taken apart.
struct Line<'a> {
    pid: &'a [u8],
    name: &'a [u8],
    /// From field 3 on.
    fields: Vec<&'a [u8]>,
}

impl<'a> Line<'a> {
    /// The name may hold anything, parentheses and blanks included: it ends with the last one.
    fn parse(line: &'a [u8]) -> Option<Line<'a>> {
        let open = line.iter().position(|&b| b == b'(')?;
        let close = line.iter().rposition(|&b| b == b')')?;
        let fields: Vec<&[u8]> = line.get(close + 1..)?.trim_ascii().split(|&b| b == b' ').collect();
        (fields.len() >= FIELDS - 2).then_some(Line {
            pid: line.get(..open)?.trim_ascii(),
            name: line.get(open + 1..close)?,
            fields,
        })
    }

    fn field(&self, number: usize) -> Option<&'a [u8]> {
        self.fields.get(number.checked_sub(3)?).copied()
    }

    fn number(&self, field: usize) -> Option<u64> {
        std::str::from_utf8(self.field(field)?).ok()?.parse().ok()
    }
}

/// A thread other than the first, for [`of_ghost`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Thread<'a> {
    pub tid: u32,
    /// The line of the process's first thread there.
    pub first: &'a [u8],
}

/// The line of the process `there` as that of the ghost whose own line is `own`. `None` if one of them is no such line.
pub(super) fn of_ghost(there: &[u8], own: &[u8], thread: Option<Thread<'_>>, pages: PageRatio) -> Option<Vec<u8>> {
    let (line, ghost) = (Line::parse(there)?, Line::parse(own)?);
    let tid = thread.map(|thread| thread.tid.to_string());
    let mut out = Vec::with_capacity(there.len() + 16);
    out.extend_from_slice(tid.as_ref().map_or(ghost.pid, |tid| tid.as_bytes()));
    out.extend_from_slice(b" (");
    out.extend_from_slice(line.name);
    out.push(b')');
    for (field, number) in line.fields.iter().zip(3usize..) {
        out.push(b' ');
        if number == STARTTIME
            && let Some(thread) = thread
        {
            // As much later than the process as it was there.
            let later = line.number(STARTTIME)?.saturating_sub(Line::parse(thread.first)?.number(STARTTIME)?);
            out.extend_from_slice((ghost.number(STARTTIME)? + later).to_string().as_bytes());
        } else if IDENTITY.contains(&number) {
            out.extend_from_slice(ghost.field(number)?);
        } else if CODE.contains(&number) {
            out.push(b'1');
        } else if ADDRESSES.contains(&number) {
            out.push(b'0');
        } else if number == RSS {
            match line.number(RSS) {
                Some(count) => out.extend_from_slice(pages.of(count).to_string().as_bytes()),
                None => out.extend_from_slice(field),
            }
        } else {
            out.extend_from_slice(field);
        }
    }
    out.push(b'\n');
    Some(out)
}

/// The name in a line, as `comm` shows it.
pub(super) fn name(line: &[u8]) -> Option<Vec<u8>> {
    let mut name = Line::parse(line)?.name.to_vec();
    name.push(b'\n');
    Some(name)
}

/// `sched`: its first line names the process, `NAME (PID, #threads: N)` (kernel/sched/debug.c `proc_sched_show_task`).
pub(super) fn sched(there: &[u8], pid: u32) -> Vec<u8> {
    let end = there.iter().position(|&b| b == b'\n').unwrap_or(there.len());
    let (line, rest) = there.split_at(end);
    const AFTER: &[u8] = b", #threads: ";
    let number = line.windows(AFTER.len()).rposition(|window| window == AFTER).and_then(|after| {
        let open = line.get(..after)?.iter().rposition(|&b| b == b'(')?;
        Some((line.get(..=open)?, line.get(after..)?))
    });
    let Some((before, after)) = number else { return there.to_vec() };
    [before, pid.to_string().as_bytes(), after, rest].concat()
}

/// Parent, process group, session, terminal and its foreground group, as the line has them: what names an identity and is not
/// for ever.
pub(super) fn family(line: &[u8]) -> Option<Vec<u8>> {
    let close = line.iter().rposition(|&b| b == b')')?;
    let mut words = line.get(close + 1..)?.trim_ascii().splitn(FAMILY + 2, |&b| b == b' ').skip(1);
    let family: Vec<&[u8]> = words.by_ref().take(FAMILY).collect();
    (family.len() == FAMILY && words.next().is_some()).then(|| family.join(&b' '))
}

/// When the process of this line was made, in clock ticks since its host's boot; `None` if it is no such line.
pub fn start(line: &[u8]) -> Option<u64> {
    Line::parse(line)?.number(STARTTIME)
}

/// How sizes in pages of one host become sizes in pages of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageRatio {
    /// Bytes of a page.
    pub there: u64,
    pub here: u64,
}

impl PageRatio {
    fn of(self, pages: u64) -> u64 {
        if self.there == self.here || self.here == 0 { pages } else { pages.saturating_mul(self.there) / self.here }
    }
}

/// `statm`: seven sizes in pages.
pub(super) fn statm(there: &[u8], pages: PageRatio) -> Vec<u8> {
    if pages.there == pages.here {
        return there.to_vec();
    }
    let words = there.trim_ascii().split(|&b| b == b' ').map(|word| {
        let count = std::str::from_utf8(word).ok().and_then(|word| word.parse().ok());
        count.map_or_else(|| String::from_utf8_lossy(word).into_owned(), |count| pages.of(count).to_string())
    });
    let mut line = words.collect::<Vec<_>>().join(" ").into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: &[u8] = b"77 (a) S 1 (x) R 1 77 77 34816 80 4194304 100 2 3 4 500 60 7 8 20 5 3 0 999 7340032 150 \
        18446744073709551615 93824992231424 93824992251424 140737488346784 5 6 0 65536 4096 2 1 0 0 17 3 0 0 9 10 11 \
        93824992264176 93824992265640 93824992268288 140737488347111 140737488347131 140737488347131 140737488351211 0\n";
    const OWN: &[u8] =
        b"4001234 (bpsh) D 4001200 4001234 4001000 1025 4001234 1077936192 0 0 0 0 0 0 0 0 20 0 1 0 123456 \
        8192 20 18446744073709551615 1 2 3 0 0 0 2147483647 0 0 1 0 0 17 0 0 0 0 0 0 1 1 1 1 1 1 1 0\n";
    const SAME: PageRatio = PageRatio { there: 4096, here: 4096 };

    /// As words, the pid first, the name second.
    fn words(line: Vec<u8>) -> Vec<String> {
        let text = String::from_utf8(line).unwrap();
        let (head, rest) = text.trim_end().rsplit_once(") ").unwrap();
        let (pid, name) = head.split_once(" (").unwrap();
        [pid, name].into_iter().chain(rest.split(' ')).map(str::to_owned).collect()
    }

    #[test]
    fn identity_and_time_are_the_ghosts_all_else_the_processs() {
        let line = words(of_ghost(THERE, OWN, None, SAME).unwrap());
        assert_eq!(line.len(), FIELDS);
        let head = ["4001234", "a) S 1 (x", "R", "4001200", "4001234", "4001000", "1025", "4001234", "4194304"];
        assert_eq!(line[..9], head);
        // utime, stime, nice, num_threads, starttime, vsize, rss
        let figures = [14, 15, 19, 20, 22, 23, 24].map(|field| line[field - 1].as_str());
        assert_eq!(figures, ["500", "60", "5", "3", "123456", "7340032", "150"]);
        assert_eq!(line[25..35], ["1", "1", "0", "0", "0", "0", "65536", "4096", "2", "0"]);
        assert!(line[44..].iter().all(|word| word == "0"));
    }

    #[test]
    fn a_thread_began_as_much_later_as_there() {
        let second = String::from_utf8(THERE.to_vec()).unwrap().replace(" 999 ", " 1009 ").replace("77 (", "78 (");
        let thread = Thread { tid: 78, first: THERE };
        let line = words(of_ghost(second.as_bytes(), OWN, Some(thread), SAME).unwrap());
        assert_eq!((line[0].as_str(), line[21].as_str(), line[3].as_str()), ("78", "123466", "4001200"));
    }

    #[test]
    fn the_kernels_own_lines_are_understood() {
        let own = std::fs::read("/proc/self/stat").unwrap();
        let line = of_ghost(&own, &own, None, SAME).unwrap();
        let blanks = |line: &[u8]| line.iter().filter(|&&b| b == b' ').count();
        assert_eq!(blanks(&line), blanks(&own));
        assert!(start(&own).is_some());
        let parent = std::os::unix::process::parent_id().to_string();
        assert!(family(&own).unwrap().starts_with(parent.as_bytes()));
        assert_eq!(name(&own).unwrap(), std::fs::read("/proc/self/comm").unwrap());
    }

    #[test]
    fn sched_names_the_ghost() {
        let of = |line: &str| String::from_utf8(sched(line.as_bytes(), 77)).unwrap();
        assert_eq!(
            of("a (1, #threads: 9) (5 (300, #threads: 2)\nse.x : 300\n"),
            "a (1, #threads: 9) (5 (77, #threads: 2)\nse.x : 300\n"
        );
        assert_eq!([of(""), of("torn (30")], ["", "torn (30"]);
    }

    #[test]
    fn torn_lines_are_refused() {
        for length in 0..THERE.len() / 2 {
            assert!(of_ghost(&THERE[..length], OWN, None, SAME).is_none());
        }
        assert!(of_ghost(THERE, b"", None, SAME).is_none());
    }

    #[test]
    fn pages_of_another_size() {
        let ratio = PageRatio { there: 65536, here: 4096 };
        assert_eq!(words(of_ghost(THERE, OWN, None, ratio).unwrap())[23], "2400");
        assert_eq!(statm(b"10 2 1 0 0 3 0\n", ratio), b"160 32 16 0 0 48 0\n");
        assert_eq!(statm(b"10 2 1 0 0 3 0\n", SAME), b"10 2 1 0 0 3 0\n");
    }
}
