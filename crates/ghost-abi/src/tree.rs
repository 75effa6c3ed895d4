//! The records of the programs that follow a PID namespace's processes: who forked, executed, ended, was reaped, may have
//! stopped. Threads have none.
//!
//! A process is named by its `key`, which no other process of this boot has while this one can still be in a record: the
//! host's number of the thread group in the low half, and in the high half the low 32 bits of the microseconds between boot
//! and fork (`start_boottime`; exec keeps it, also from a thread that is not the leader, fs/exec.c, `de_thread()`). It is
//! to be compared, nothing else. All other numbers are those of the namespace that is followed; 0 stands for who is not in
//! it.
//!
//! Order: the ring has a process's `Fork` first, before anything that the process did, then its `Exec`s and `Changed`s as
//! they happened, `Exit`, and `Reaped` last. A fork's record lies after that of its parent's fork and before its parent's
//! exit. A number can be given anew before the `Reaped` of its last bearer: compare keys.

use crate::record::{Malformed, u32_at, u64_at};

/// Bytes of the ring buffer; a power of two and a multiple of the page size. Some 3,700 processes that fork, execute and
/// end fit in while nobody reads.
pub const RING_BYTES: u32 = 1 << 20;

/// Processes whose end can be followed at a time. Those beyond have no `Reaped`, may have `Exit` twice, and are counted as
/// dropped when they are forked.
pub const MEMBERS: u32 = 1 << 16;

/// First word of every record.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A [`Process`] follows.
    Fork = 1,
    /// A [`Process`] follows.
    Exec = 2,
    /// An [`Exit`] follows.
    Exit = 3,
    /// A [`Reaped`] follows.
    Reaped = 4,
    /// A [`Changed`] follows.
    Changed = 5,
    /// A [`Process`] follows; in lists only, never in the ring.
    Listed = 6,
}

/// What a process is at the instant of its fork or exec, or when it is listed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// [`Kind`].
    pub kind: u32,
    /// Process id of the real parent; 0 if it is outside of the namespace.
    pub parent: i32,
    /// Grows with each record of this load of the programs, dropped ones included. In a list: 0.
    pub seq: u64,
    pub key: u64,
    /// Key of the parent; 0 if it is outside of the namespace.
    pub parent_key: u64,
    /// At a fork, if who made it is not its parent (CLONE_PARENT): that one's key; else 0.
    pub creator_key: u64,
    /// Process id.
    pub pid: i32,
    /// Process group; 0 if it was made outside of the namespace.
    pub pgid: i32,
    /// Session; 0 if it was made outside of the namespace.
    pub sid: i32,
    /// Real user, in the initial user namespace.
    pub uid: u32,
    /// Effective user, in the initial user namespace.
    pub euid: u32,
    /// Real group, in the initial user namespace.
    pub gid: u32,
    /// In a list: wait status of a process that has [`Self::ENDED`], else 0.
    pub status: u32,
    /// In a list: [`Self::ENDED`] or 0; else 0.
    pub flags: u32,
    /// Name, ended by a NUL (`TASK_COMM_LEN`); at a fork the parent's.
    pub comm: [u8; 16],
}

impl Process {
    /// Size in bytes.
    pub const SIZE: usize = size_of::<Self>();
    /// Bit of `flags`: all threads have ended.
    pub const ENDED: u32 = 1;

    /// The name without what is behind it.
    pub fn name(&self) -> &[u8] {
        self.comm.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// The element of a list that stands first in `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] if `bytes` is shorter than [`Self::SIZE`], or something else stands there.
    pub fn listed(bytes: &[u8]) -> Result<Self, Malformed> {
        let process = Self::from_bytes(bytes.get(..Self::SIZE).ok_or(Malformed)?)?;
        if process.kind == Kind::Listed as u32 { Ok(process) } else { Err(Malformed) }
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() != Self::SIZE {
            return Err(Malformed);
        }
        Ok(Self {
            kind: u32_at(bytes, 0)?,
            parent: u32_at(bytes, 4)?.cast_signed(),
            seq: u64_at(bytes, 8)?,
            key: u64_at(bytes, 16)?,
            parent_key: u64_at(bytes, 24)?,
            creator_key: u64_at(bytes, 32)?,
            pid: u32_at(bytes, 40)?.cast_signed(),
            pgid: u32_at(bytes, 44)?.cast_signed(),
            sid: u32_at(bytes, 48)?.cast_signed(),
            uid: u32_at(bytes, 52)?,
            euid: u32_at(bytes, 56)?,
            gid: u32_at(bytes, 60)?,
            status: u32_at(bytes, 64)?,
            flags: u32_at(bytes, 68)?,
            comm: *bytes.get(72..).and_then(|rest| rest.first_chunk()).ok_or(Malformed)?,
        })
    }
}

/// The last thread of a process is ending: no instruction of the program runs any more. Its descriptors and memory are
/// still to be given back, and its parent does not know yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// [`Kind::Exit`].
    pub kind: u32,
    /// Wait status as `wait(2)` encodes it, with the core flag.
    pub status: u32,
    /// As [`Process::seq`].
    pub seq: u64,
    pub key: u64,
    /// Process id.
    pub pid: i32,
    /// Process group and session at the end, as in [`Process`].
    pub pgid: i32,
    pub sid: i32,
    /// Always zero.
    pub reserved: u32,
    /// Key of the process that inherits its children, if that is an ancestor that has asked for it (PR_SET_CHILD_SUBREAPER,
    /// prctl(2)); 0: the init of their namespace does, or there are more than [`Exit::ANCESTORS`] processes in between. What
    /// was the case at this instant: the children are handed on a little later.
    pub heir_key: u64,
}

impl Exit {
    /// Size in bytes.
    pub const SIZE: usize = size_of::<Self>();
    /// So many ancestors are looked at.
    pub const ANCESTORS: u32 = 32;

    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() != Self::SIZE {
            return Err(Malformed);
        }
        Ok(Self {
            kind: u32_at(bytes, 0)?,
            status: u32_at(bytes, 4)?,
            seq: u64_at(bytes, 8)?,
            key: u64_at(bytes, 16)?,
            pid: u32_at(bytes, 24)?.cast_signed(),
            pgid: u32_at(bytes, 28)?.cast_signed(),
            sid: u32_at(bytes, 32)?.cast_signed(),
            reserved: u32_at(bytes, 36)?,
            heir_key: u64_at(bytes, 40)?,
        })
    }
}

/// The process is no zombie any more: its parent has reaped it, or did not want to know. Told when the kernel frees the
/// task, an RCU grace period (milliseconds, under load tens of them) after the number became free. The kernel does that in
/// the context of any task, also of such in which it runs no tracing programs: then user space has to find out.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// [`Kind::Reaped`].
    pub kind: u32,
    /// The process id that it had.
    pub pid: i32,
    /// As [`Process::seq`]; 0 if user space has found out.
    pub seq: u64,
    pub key: u64,
}

impl Reaped {
    /// Size in bytes.
    pub const SIZE: usize = size_of::<Self>();

    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() != Self::SIZE {
            return Err(Malformed);
        }
        Ok(Self {
            kind: u32_at(bytes, 0)?,
            pid: u32_at(bytes, 4)?.cast_signed(),
            seq: u64_at(bytes, 8)?,
            key: u64_at(bytes, 16)?,
        })
    }
}

/// What a [`Changed`] tells.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The process takes a signal that stops it unless its group is orphaned; all its threads have to get there first. May
    /// be followed by [`Self::Stopped`].
    Stopping = 1,
    /// The process has stopped. Not told if its parent has asked not to be (`SA_NOCLDSTOP`, or SIGCHLD ignored).
    Stopped = 2,
    /// SIGCONT has been sent to a process that was stopped, or was about to: it runs.
    Continued = 3,
}

/// The process may have stopped or gone on: what it is now, `/proc/PID/stat` says.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// [`Kind::Changed`].
    pub kind: u32,
    /// [`Change`].
    pub change: u32,
    /// As [`Process::seq`].
    pub seq: u64,
    pub key: u64,
    /// Process id.
    pub pid: i32,
    /// The signal: SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU or SIGCONT.
    pub sig: u32,
}

impl Changed {
    /// Size in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// What happened; an unknown value is `Stopping`, after which nothing is certain.
    pub const fn change(&self) -> Change {
        match self.change {
            2 => Change::Stopped,
            3 => Change::Continued,
            _ => Change::Stopping,
        }
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() != Self::SIZE {
            return Err(Malformed);
        }
        Ok(Self {
            kind: u32_at(bytes, 0)?,
            change: u32_at(bytes, 4)?,
            seq: u64_at(bytes, 8)?,
            key: u64_at(bytes, 16)?,
            pid: u32_at(bytes, 24)?.cast_signed(),
            sig: u32_at(bytes, 28)?,
        })
    }
}

/// One entry of the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    Fork(Process),
    Exec(Process),
    Exit(Exit),
    Reaped(Reaped),
    Changed(Changed),
}

impl Record {
    /// Takes an entry of the ring buffer apart.
    ///
    /// # Errors
    /// [`Malformed`] if the kind is unknown or the length is not that kind's.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        match u32_at(bytes, 0)? {
            kind if kind == Kind::Fork as u32 => Process::from_bytes(bytes).map(Self::Fork),
            kind if kind == Kind::Exec as u32 => Process::from_bytes(bytes).map(Self::Exec),
            kind if kind == Kind::Exit as u32 => Exit::from_bytes(bytes).map(Self::Exit),
            kind if kind == Kind::Reaped as u32 => Reaped::from_bytes(bytes).map(Self::Reaped),
            kind if kind == Kind::Changed as u32 => Changed::from_bytes(bytes).map(Self::Changed),
            _ => Err(Malformed),
        }
    }

    /// The process that it is about.
    pub const fn key(&self) -> u64 {
        match self {
            Self::Fork(process) | Self::Exec(process) => process.key,
            Self::Exit(exit) => exit.key,
            Self::Reaped(reaped) => reaped.key,
            Self::Changed(changed) => changed.key,
        }
    }

    /// Process id of the process that it is about.
    pub const fn pid(&self) -> i32 {
        match self {
            Self::Fork(process) | Self::Exec(process) => process.pid,
            Self::Exit(exit) => exit.pid,
            Self::Reaped(reaped) => reaped.pid,
            Self::Changed(changed) => changed.pid,
        }
    }
}

/// The namespace that is followed: the value of the map `NAMESPACE`, filled in by the object's program
/// `choose_namespace`, which runs once, before the others are attached.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its `struct pid_namespace`; stays the same while the loader keeps a descriptor of the namespace.
    pub address: u64,
    /// How deep it is nested; the initial one has 0.
    pub level: u64,
    /// Inode number, by which the loader sees that it is the right one.
    pub inode: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn no_padding() {
        assert_eq!([Process::SIZE, Exit::SIZE, Reaped::SIZE, Changed::SIZE], [88, 48, 24, 32]);
        // Each entry has a header of 8 bytes (BPF_RINGBUF_HDR_SZ).
        let life = 2 * Process::SIZE + Exit::SIZE + Reaped::SIZE + 4 * 8;
        assert!(RING_BYTES as usize / life >= 3_700);
    }

    #[test]
    fn fields_are_read_where_they_are_written() {
        let mut bytes = [0u8; Process::SIZE];
        let mut put = |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
        put(0, &1u32.to_ne_bytes());
        put(offset_of!(Process, parent), &1i32.to_ne_bytes());
        put(offset_of!(Process, seq), &2u64.to_ne_bytes());
        put(offset_of!(Process, key), &3u64.to_ne_bytes());
        put(offset_of!(Process, parent_key), &4u64.to_ne_bytes());
        put(offset_of!(Process, creator_key), &12u64.to_ne_bytes());
        put(offset_of!(Process, pid), &5i32.to_ne_bytes());
        put(offset_of!(Process, pgid), &6i32.to_ne_bytes());
        put(offset_of!(Process, sid), &7i32.to_ne_bytes());
        put(offset_of!(Process, uid), &8u32.to_ne_bytes());
        put(offset_of!(Process, euid), &9u32.to_ne_bytes());
        put(offset_of!(Process, gid), &10u32.to_ne_bytes());
        put(offset_of!(Process, status), &11u32.to_ne_bytes());
        put(offset_of!(Process, flags), &1u32.to_ne_bytes());
        put(offset_of!(Process, comm), b"sort\0big");
        let mut comm = [0; 16];
        comm[..8].copy_from_slice(b"sort\0big");
        let expected = Process {
            kind: 1,
            parent: 1,
            seq: 2,
            key: 3,
            parent_key: 4,
            creator_key: 12,
            pid: 5,
            pgid: 6,
            sid: 7,
            uid: 8,
            euid: 9,
            gid: 10,
            status: 11,
            flags: 1,
            comm,
        };
        assert_eq!(Record::from_bytes(&bytes), Ok(Record::Fork(expected)));
        assert_eq!(expected.name(), b"sort");
        assert_eq!(Process::listed(&bytes), Err(Malformed));
        bytes[0] = Kind::Listed as u8;
        assert_eq!(Process::listed(&bytes).map(|process| process.pid), Ok(5));
        assert_eq!(Record::from_bytes(&bytes), Err(Malformed), "lists are not in the ring");
    }

    #[test]
    fn the_short_ones_too() {
        let mut bytes = [0u8; Exit::SIZE];
        bytes[0] = Kind::Exit as u8;
        bytes[offset_of!(Exit, status) + 1] = 3;
        bytes[offset_of!(Exit, key)] = 4;
        bytes[offset_of!(Exit, pid)] = 5;
        bytes[offset_of!(Exit, pgid)] = 6;
        bytes[offset_of!(Exit, sid)] = 7;
        bytes[offset_of!(Exit, heir_key)] = 8;
        let exit = Exit { kind: 3, status: 3 << 8, seq: 0, key: 4, pid: 5, pgid: 6, sid: 7, reserved: 0, heir_key: 8 };
        assert_eq!(Record::from_bytes(&bytes), Ok(Record::Exit(exit)));
        let mut bytes = [0u8; Reaped::SIZE];
        bytes[0] = Kind::Reaped as u8;
        bytes[offset_of!(Reaped, pid)] = 9;
        bytes[offset_of!(Reaped, seq)] = 2;
        bytes[offset_of!(Reaped, key)] = 7;
        assert_eq!(Record::from_bytes(&bytes), Ok(Record::Reaped(Reaped { kind: 4, pid: 9, seq: 2, key: 7 })));
        let mut bytes = [0u8; Changed::SIZE];
        bytes[0] = Kind::Changed as u8;
        bytes[offset_of!(Changed, change)] = 2;
        bytes[offset_of!(Changed, sig)] = 20;
        let record = Record::from_bytes(&bytes);
        let changed = Changed { kind: 5, change: 2, seq: 0, key: 0, pid: 0, sig: 20 };
        assert_eq!((record, changed.change()), (Ok(Record::Changed(changed)), Change::Stopped));
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(Record::from_bytes(&[]), Err(Malformed));
        assert_eq!(Record::from_bytes(&[9; Process::SIZE]), Err(Malformed));
        for kind in 1..=5 {
            for length in 0..100 {
                let mut bytes = [0; 100];
                bytes[0] = kind;
                let sizes = [88, 88, Exit::SIZE, Reaped::SIZE, Changed::SIZE];
                let right = sizes[usize::from(kind) - 1] == length;
                assert_eq!(Record::from_bytes(&bytes[..length]).is_ok(), right, "kind {kind}, {length} bytes");
            }
        }
    }
}
