//! Files that are asked for of one process alone, as large as they are: pure.
//!
//! ```text
//!            somebody asks for                the last part
//!             its attributes                      came
//!  (named) -------------------> being read ------------------> whole ----> given up (LARGEST_HELD, LONG)
//!                                   |
//!                                   +--- PATIENCE without a part, an error, too large ---> failed
//! ```
//! Each look-up of the name gives a file of its own, unless there is one that is young enough. So whoever opens it reads one
//! snapshot to its end, however slowly and whoever else opens the same name meanwhile; its attributes and its content never
//! change, and the kernel asks for neither again.
//!
//! Invariants:
//! - At most [`LARGEST_HELD`] bytes are held, of the files being read, too; what was used last stays longest.
//! - One part of a file is asked for at a time, the next one when it has come.
//! - The kernel knows a file as long as it has not forgotten all look-ups of it; so long its number means no other.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ghost_proto::view::Part;

use super::FRESH;
use super::files::Place;

/// How long a reader waits for the next part: a node may be busy.
const PATIENCE: Duration = Duration::from_millis(3000);
/// Bytes of the largest file that is shown.
pub(super) const LARGEST: usize = 64 * 1024 * 1024;
/// Bytes of all.
const LARGEST_HELD: usize = 128 * 1024 * 1024;
/// Content that nobody has asked for so long is given up.
const LONG: Duration = Duration::from_secs(300);
/// Numbers have 24 bits in a node id.
const LAST: u32 = (1 << 24) - 1;

#[derive(Debug)]
enum State {
    Named,
    Reading { reading: u64, gathered: BytesMut, owner: u32, heard: Instant },
    Whole { content: Bytes, owner: u32, time_ns: u64 },
    Failed(i32),
    GivenUp,
}

#[derive(Debug)]
struct Snapshot {
    ghost: u32,
    place: Place,
    /// What it is called in a [`ghost_proto::view::ReadPart`].
    file: String,
    /// How often the kernel has it from us.
    lookups: u64,
    state: State,
    /// When it began to be read.
    begun: Instant,
    used: Instant,
}

/// What is to be asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub ghost: u32,
    pub file: String,
    pub reading: u64,
    pub offset: u64,
}

/// What is known of a snapshot's attributes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub place: Place,
    pub size: u64,
    /// Whose it was when it was read.
    pub owner: u32,
    pub time_ns: u64,
}

/// Whether somebody who asks can be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Known(Known),
    Wait,
    /// This is to be asked for first.
    Ask(Wanted),
    Fail(i32),
}

#[derive(Debug)]
pub(super) struct Snapshots {
    all: HashMap<u32, Snapshot>,
    /// The one that the next look-up may be given.
    newest: HashMap<(u32, Place), u32>,
    readings: HashMap<u64, u32>,
    last_number: u32,
    last_reading: u64,
    held: usize,
    /// When those were last looked for that nobody uses.
    tidied: Instant,
}

impl Snapshots {
    /// `first_reading`: larger than any that a server before has given.
    pub(super) fn new(first_reading: u64, now: Instant) -> Snapshots {
        Snapshots {
            all: HashMap::new(),
            newest: HashMap::new(),
            readings: HashMap::new(),
            last_number: 0,
            last_reading: first_reading,
            held: 0,
            tidied: now,
        }
    }

    /// The number of the file that a look-up of this name gives; `None`: there are too many. The kernel is told of it.
    pub(super) fn look_up(&mut self, ghost: u32, place: Place, file: &str, now: Instant) -> Option<u32> {
        let young = |snapshot: &Snapshot| match snapshot.state {
            State::Named | State::Reading { .. } => true,
            State::Whole { .. } => now.saturating_duration_since(snapshot.begun) < FRESH,
            State::Failed(_) | State::GivenUp => false,
        };
        if let Some(&number) = self.newest.get(&(ghost, place))
            && let Some(snapshot) = self.all.get_mut(&number)
            && young(snapshot)
        {
            snapshot.lookups += 1;
            snapshot.used = now;
            return Some(number);
        }
        let number = self.free_number()?;
        let snapshot =
            Snapshot { ghost, place, file: file.to_owned(), lookups: 1, state: State::Named, begun: now, used: now };
        self.all.insert(number, snapshot);
        self.newest.insert((ghost, place), number);
        Some(number)
    }

    fn free_number(&mut self) -> Option<u32> {
        if self.all.len() >= LAST as usize / 2 {
            return None;
        }
        loop {
            self.last_number = if self.last_number >= LAST { 1 } else { self.last_number + 1 };
            if !self.all.contains_key(&self.last_number) {
                return Some(self.last_number);
            }
        }
    }

    /// The kernel forgets so many look-ups.
    pub(super) fn forget(&mut self, number: u32, lookups: u64) {
        let Some(snapshot) = self.all.get_mut(&number) else { return };
        snapshot.lookups = snapshot.lookups.saturating_sub(lookups);
        if snapshot.lookups == 0 {
            self.remove(number);
        }
    }

    /// A ghost is not shown any more.
    pub(super) fn forget_ghost(&mut self, ghost: u32) {
        let its = self.all.iter().filter(|(_, snapshot)| snapshot.ghost == ghost);
        for number in its.map(|(&number, _)| number).collect::<Vec<_>>() {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u32) {
        self.set(number, State::GivenUp);
        if let Some(snapshot) = self.all.remove(&number) {
            let key = (snapshot.ghost, snapshot.place);
            if self.newest.get(&key) == Some(&number) {
                self.newest.remove(&key);
            }
        }
    }

    /// Another state, and what follows for the sums.
    fn set(&mut self, number: u32, state: State) {
        let Some(snapshot) = self.all.get_mut(&number) else { return };
        let before = std::mem::replace(&mut snapshot.state, state);
        self.held = self.held + snapshot.state.held() - before.held();
        if let State::Reading { reading, .. } = before {
            self.readings.remove(&reading);
        }
        if let State::Reading { reading, .. } = snapshot.state {
            self.readings.insert(reading, number);
        }
    }

    /// Somebody asks for attributes.
    pub(super) fn attributes(&mut self, number: u32, now: Instant) -> Answer {
        let Some(snapshot) = self.all.get_mut(&number) else { return Answer::Fail(libc::ESTALE) };
        snapshot.used = now;
        match &snapshot.state {
            State::Whole { content, owner, time_ns } => Answer::Known(Known {
                place: snapshot.place,
                size: content.len() as u64,
                owner: *owner,
                time_ns: *time_ns,
            }),
            State::Reading { .. } => Answer::Wait,
            State::Failed(errno) => Answer::Fail(*errno),
            State::GivenUp => Answer::Fail(libc::ESTALE),
            State::Named => {
                self.last_reading += 1;
                let reading = self.last_reading;
                snapshot.begun = now;
                let wanted = Wanted { ghost: snapshot.ghost, file: snapshot.file.clone(), reading, offset: 0 };
                let state = State::Reading { reading, gathered: BytesMut::new(), owner: 0, heard: now };
                self.set(number, state);
                Answer::Ask(wanted)
            }
        }
    }

    /// Which file of which ghost this is a reading of.
    pub(super) fn read_by(&self, reading: u64) -> Option<(u32, &str)> {
        let snapshot = self.all.get(self.readings.get(&reading)?)?;
        Some((snapshot.ghost, &snapshot.file))
    }

    /// A node has read on. Gives what is to be asked for next; everything else shows at the next [`Snapshots::attributes`].
    pub(super) fn take(&mut self, part: Part, time_ns: u64, now: Instant) -> Option<Wanted> {
        let number = *self.readings.get(&part.reading)?;
        let snapshot = self.all.get_mut(&number)?;
        let State::Reading { reading, gathered, owner, heard } = &mut snapshot.state else { return None };
        if part.offset != gathered.len() as u64 {
            return None;
        }
        if part.errno != 0 {
            // A file that its kernel does not have, or does not give out, is empty.
            let is_none = part.offset == 0 && part.errno != libc::ESTALE.unsigned_abs();
            let none = State::Whole { content: Bytes::new(), owner: part.owner, time_ns };
            self.set(number, if is_none { none } else { State::Failed(part.errno.cast_signed()) });
            return None;
        }
        *heard = now;
        *owner = if part.offset == 0 || part.owner == *owner { part.owner } else { 0 };
        gathered.extend_from_slice(&part.content);
        self.held += part.content.len();
        let (reading, size, owner) = (*reading, gathered.len(), *owner);
        if size > LARGEST {
            self.set(number, State::Failed(libc::EFBIG));
            return None;
        }
        if part.last {
            let content = std::mem::take(gathered).freeze();
            self.held -= content.len();
            self.set(number, State::Whole { content, owner, time_ns });
        }
        self.make_room(number);
        let snapshot = self.all.get(&number)?;
        matches!(snapshot.state, State::Reading { .. }).then(|| Wanted {
            ghost: snapshot.ghost,
            file: snapshot.file.clone(),
            reading,
            offset: size as u64,
        })
    }

    /// Gives up others until what is held is little enough; if there is none, the one that grows.
    fn make_room(&mut self, growing: u32) {
        while self.held > LARGEST_HELD {
            let whole = self.all.iter().filter(|(number, snapshot)| {
                **number != growing && matches!(&snapshot.state, State::Whole { content, .. } if !content.is_empty())
            });
            match whole.min_by_key(|(_, snapshot)| snapshot.used).map(|(&number, _)| number) {
                Some(number) => self.set(number, State::GivenUp),
                None => return self.set(growing, State::Failed(libc::ENOMEM)),
            }
        }
    }

    /// The content, for a reader; an errno if it is not there any more.
    pub(super) fn content(&mut self, number: u32, now: Instant) -> Result<Bytes, i32> {
        let snapshot = self.all.get_mut(&number).ok_or(libc::ESTALE)?;
        snapshot.used = now;
        match &snapshot.state {
            State::Whole { content, .. } => Ok(content.clone()),
            State::Failed(errno) => Err(*errno),
            _ => Err(libc::ESTALE),
        }
    }

    /// Ends readings of which nothing has come for long, and gives up what nobody has used for very long. Gives
    /// the ghosts whose node was late.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<u32> {
        let since = |at: Instant| now.saturating_duration_since(at);
        let late = self.readings.values().copied().filter(|number| {
            let state = self.all.get(number).map(|snapshot| &snapshot.state);
            matches!(state, Some(State::Reading { heard, .. }) if since(*heard) >= PATIENCE)
        });
        let mut ghosts = Vec::new();
        for number in late.collect::<Vec<_>>() {
            ghosts.extend(self.all.get(&number).map(|snapshot| snapshot.ghost));
            self.set(number, State::Failed(libc::ETIMEDOUT));
        }
        if since(self.tidied) < LONG / 4 {
            return ghosts;
        }
        self.tidied = now;
        let unused = self
            .all
            .iter()
            .filter(|(_, snapshot)| matches!(snapshot.state, State::Whole { .. }) && since(snapshot.used) >= LONG);
        for number in unused.map(|(&number, _)| number).collect::<Vec<_>>() {
            self.set(number, State::GivenUp);
        }
        ghosts
    }

    /// A part cannot be asked for now: there is nobody to ask.
    pub(super) fn fail(&mut self, reading: u64, errno: i32) {
        if let Some(&number) = self.readings.get(&reading) {
            self.set(number, State::Failed(errno));
        }
    }

    /// When the next reading is over if nothing comes, or what nobody uses is to be looked for.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let tidy = (self.held > 0).then(|| self.tidied + LONG / 4);
        let heard = self.readings.values().filter_map(|number| match self.all.get(number)?.state {
            State::Reading { heard, .. } => Some(heard + PATIENCE),
            _ => None,
        });
        heard.chain(tidy).min()
    }
}

impl State {
    /// Bytes.
    fn held(&self) -> usize {
        match self {
            State::Reading { gathered, .. } => gathered.len(),
            State::Whole { content, .. } => content.len(),
            State::Named | State::Failed(_) | State::GivenUp => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: Place = Place::File(20);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn snapshots(first_reading: u64) -> Snapshots {
        Snapshots::new(first_reading, Instant::now())
    }

    fn part(reading: u64, offset: u64, content: &'static [u8], last: bool) -> Part {
        Part { reading, proc: 9, offset, owner: 1000, errno: 0, content: Bytes::from_static(content), last }
    }

    fn ask(answer: Answer) -> Wanted {
        match answer {
            Answer::Ask(wanted) => wanted,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_opener_has_a_snapshot_and_those_of_one_moment_share_it() {
        let (mut snapshots, now) = (snapshots(100), Instant::now());
        let first = snapshots.look_up(1, MAPS, "maps", now).expect("a number");
        let wanted = ask(snapshots.attributes(first, now));
        assert_eq!(wanted, Wanted { ghost: 1, file: "maps".into(), reading: 101, offset: 0 });
        assert_eq!(snapshots.look_up(1, MAPS, "maps", now), Some(first));
        assert_eq!(snapshots.attributes(first, now), Answer::Wait);
        let next = snapshots.take(part(101, 0, b"one ", false), 5, now);
        assert_eq!(next, Some(Wanted { offset: 4, ..wanted }));
        assert_eq!(snapshots.take(part(101, 4, b"two", true), 6, now), None);
        let known = Known { place: MAPS, size: 7, owner: 1000, time_ns: 6 };
        assert_eq!(snapshots.attributes(first, now), Answer::Known(known));
        assert_eq!(snapshots.look_up(1, MAPS, "maps", now + ms(999)), Some(first));
        let second = snapshots.look_up(1, MAPS, "maps", now + FRESH).expect("a number");
        assert_ne!(second, first);
        assert_eq!(ask(snapshots.attributes(second, now + FRESH)).reading, 102);
        snapshots.take(part(102, 0, b"other", true), 7, now + FRESH);
        assert_eq!(snapshots.content(first, now + FRESH), Ok(Bytes::from_static(b"one two")));
        assert_eq!(snapshots.content(second, now + FRESH), Ok(Bytes::from_static(b"other")));
        // The kernel has had the first one three times, the second once.
        snapshots.forget(first, 2);
        assert!(snapshots.content(first, now).is_ok());
        snapshots.forget(first, 1);
        assert_eq!(snapshots.content(first, now), Err(libc::ESTALE));
        snapshots.forget_ghost(1);
        assert!(snapshots.all.is_empty() && snapshots.held == 0 && snapshots.newest.is_empty());
        assert!(snapshots.readings.is_empty());
    }

    #[test]
    fn a_reading_without_an_answer_fails_and_the_next_begins_anew() {
        let (mut snapshots, now) = (snapshots(0), Instant::now());
        let first = snapshots.look_up(1, MAPS, "maps", now).expect("a number");
        assert!(matches!(snapshots.attributes(first, now), Answer::Ask(_)));
        assert!(snapshots.take(part(1, 0, b"begin", false), 0, now + ms(900)).is_some());
        let over = now + ms(900) + PATIENCE;
        assert_eq!(snapshots.next_expiry(), Some(over));
        assert!(snapshots.expire(over - ms(1)).is_empty());
        assert_eq!(snapshots.attributes(first, now), Answer::Wait);
        assert_eq!(snapshots.expire(over), [1]);
        assert_eq!(snapshots.attributes(first, now), Answer::Fail(libc::ETIMEDOUT));
        assert_eq!((snapshots.next_expiry(), snapshots.held), (None, 0));
        // Too late.
        assert_eq!(snapshots.take(part(1, 5, b"end", true), 0, over), None);
        assert_ne!(snapshots.look_up(1, MAPS, "maps", over), Some(first));
    }

    #[test]
    fn a_part_that_does_not_follow_is_none() {
        let (mut snapshots, now) = (snapshots(0), Instant::now());
        let file = snapshots.look_up(1, MAPS, "maps", now).expect("a number");
        snapshots.attributes(file, now);
        assert!(snapshots.take(part(1, 0, b"begin", false), 0, now).is_some());
        assert_eq!(snapshots.take(part(1, 0, b"begin", false), 0, now), None);
        assert_eq!(snapshots.take(part(2, 5, b"of another", true), 0, now), None);
        assert_eq!(snapshots.take(Part { owner: 0, ..part(1, 5, b" end", true) }, 0, now), None);
        // Of two users: root's.
        let known = Known { place: MAPS, size: 9, owner: 0, time_ns: 0 };
        assert_eq!(snapshots.attributes(file, now), Answer::Known(known));
        let failing = snapshots.look_up(2, MAPS, "maps", now).expect("a number");
        snapshots.attributes(failing, now);
        assert!(snapshots.take(part(2, 0, b"begin", false), 0, now).is_some());
        snapshots.take(Part { errno: 116, ..part(2, 5, b"", true) }, 0, now);
        assert_eq!(snapshots.attributes(failing, now), Answer::Fail(116));
        // One that the node's kernel does not have.
        let none = snapshots.look_up(3, MAPS, "maps", now).expect("a number");
        snapshots.attributes(none, now);
        snapshots.take(Part { errno: 2, ..part(3, 0, b"", true) }, 0, now);
        let known = Known { place: MAPS, size: 0, owner: 1000, time_ns: 0 };
        assert_eq!(snapshots.attributes(none, now), Answer::Known(known));
    }

    #[test]
    fn what_is_held_is_bounded_and_what_was_used_last_stays() {
        static BLOCK: [u8; 1 << 20] = [b'x'; 1 << 20];
        let (mut snapshots, now) = (snapshots(0), Instant::now());
        let mut read = |ghost: u32, blocks: u64, at: Instant| {
            let file = snapshots.look_up(ghost, MAPS, "maps", at).expect("a number");
            let Wanted { reading, .. } = ask(snapshots.attributes(file, at));
            for block in 0..blocks {
                snapshots.take(part(reading, block << 20, &BLOCK, block + 1 == blocks), 0, at);
                assert!(snapshots.held <= LARGEST_HELD);
            }
            (file, snapshots.content(file, at).map(|content| content.len()))
        };
        assert_eq!(read(9, 65, now).1, Err(libc::EFBIG));
        let files: Vec<u32> = (0..3).map(|ghost| read(ghost, 50, now + ms(u64::from(ghost))).0).collect();
        let there: Vec<bool> = files.iter().map(|file| snapshots.content(*file, now + ms(9)).is_ok()).collect();
        assert_eq!(there, [false, true, true]);
        snapshots.expire(now + ms(9) + LONG);
        assert_eq!(snapshots.held, 0);
        assert_eq!(snapshots.content(files[2], now), Err(libc::ESTALE));
    }
}
