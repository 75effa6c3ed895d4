//! The records of the ring buffer.

/// Size of [`SignalRecord`] in bytes.
pub const SIGNAL_RECORD_SIZE: usize = size_of::<SignalRecord>();
/// Size of [`ExitRecord`] in bytes.
pub const EXIT_RECORD_SIZE: usize = size_of::<ExitRecord>();

/// Bytes that are not what they should be: another length, or an unknown kind or scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("not a record of this version's kernel programs")
    }
}

impl core::error::Error for Malformed {}

/// First word of every record.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A [`SignalRecord`] follows.
    Signal = 1,
    /// An [`ExitRecord`] follows.
    Exit = 2,
}

/// At whom the sender aimed.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// At this process alone.
    Process = 0,
    /// At its process group: `kill(0)`, `kill(-pgid)`, `pidfd_send_signal` with `PIDFD_SIGNAL_PROCESS_GROUP`, or a terminal.
    Group = 1,
    /// At all that the sender may signal: `kill(-1)`.
    Everyone = 2,
}

/// Bits of [`SignalRecord::flags`].
pub struct SignalFlags;

impl SignalFlags {
    /// The kernel itself is the sender (terminal, parent's death of the namespace, out of memory): no permission is to be
    /// checked, the sender fields are zero.
    pub const KERNEL: u32 = 1;
    /// The sender has `CAP_KILL` in the user namespace of the loader.
    pub const PRIVILEGED: u32 = 2;
    /// The signal was sent while the ghost had it blocked and is seen only now, as the ghost discards it. The kernel no
    /// longer knows who sent it: `sender_uid` and `sender_euid` are the ghost's own, neither [`Self::KERNEL`] nor
    /// [`Self::PRIVILEGED`] is ever set, `scope` is `Process`, and `sender_pid` is the siginfo's, an allegation.
    pub const DELIVERED: u32 = 4;
    /// The target is a launcher ([`crate::GhostFlags::LAUNCHER`]), not a ghost.
    pub const LAUNCHER: u32 = 8;
}

/// A signal sent to a ghost, or one of a few sent to a launcher.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalRecord {
    /// [`Kind::Signal`].
    pub kind: u32,
    /// [`SignalFlags`].
    pub flags: u32,
    /// The target, as named at attachment.
    pub ghost: u64,
    /// Grows with each event of this load of the programs, dropped ones included: a gap tells of a dropped record.
    /// Records of one ghost lie in the ring in this order.
    pub seq: u64,
    /// For `Group` and `Everyone`: the same for all targets of one `kill()`. No target occurs twice under one call id,
    /// so whoever sends one group signal per call id and node sends as many as the sender did. 0 for `Process`.
    pub call: u64,
    /// `si_value` for signals sent with one (negative `si_code`), else 0.
    pub value: u64,
    /// Signal number, 1..=64.
    pub sig: u16,
    /// [`Scope`].
    pub scope: u16,
    /// `si_code` as a receiver would see it: `SI_USER` 0, `SI_KERNEL` 0x80, `SI_QUEUE` -1, `SI_TKILL` -6, …
    pub si_code: i32,
    /// The sender in the loader's PID namespace; 0 if the kernel sent it or the sender is not visible there.
    pub sender_pid: i32,
    /// The sender's real uid, in the initial user namespace.
    pub sender_uid: u32,
    /// The sender's effective uid, in the initial user namespace.
    pub sender_euid: u32,
    /// For `Group`: the process group in the loader's PID namespace, 0 if it is not visible there; else 0.
    pub pgid: i32,
}

impl SignalRecord {
    /// At whom the sender aimed; an unknown value is `Process`, the narrowest.
    pub const fn scope(&self) -> Scope {
        match self.scope {
            1 => Scope::Group,
            2 => Scope::Everyone,
            _ => Scope::Process,
        }
    }

    /// All bits of `flag` are set.
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag == flag
    }

    /// As it lies in the ring.
    pub fn to_bytes(&self) -> [u8; SIGNAL_RECORD_SIZE] {
        let mut bytes = [0; SIGNAL_RECORD_SIZE];
        bytes[0..4].copy_from_slice(&self.kind.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.flags.to_ne_bytes());
        for (at, word) in [self.ghost, self.seq, self.call, self.value].iter().enumerate() {
            bytes[8 + 8 * at..16 + 8 * at].copy_from_slice(&word.to_ne_bytes());
        }
        bytes[40..42].copy_from_slice(&self.sig.to_ne_bytes());
        bytes[42..44].copy_from_slice(&self.scope.to_ne_bytes());
        let rest = [
            self.si_code.cast_unsigned(),
            self.sender_pid.cast_unsigned(),
            self.sender_uid,
            self.sender_euid,
            self.pgid.cast_unsigned(),
        ];
        for (at, word) in rest.iter().enumerate() {
            bytes[44 + 4 * at..48 + 4 * at].copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() != SIGNAL_RECORD_SIZE {
            return Err(Malformed);
        }
        let aim = u32_at(bytes, 40)?.to_ne_bytes();
        Ok(Self {
            kind: u32_at(bytes, 0)?,
            flags: u32_at(bytes, 4)?,
            ghost: u64_at(bytes, 8)?,
            seq: u64_at(bytes, 16)?,
            call: u64_at(bytes, 24)?,
            value: u64_at(bytes, 32)?,
            sig: u16::from_ne_bytes([aim[0], aim[1]]),
            scope: u16::from_ne_bytes([aim[2], aim[3]]),
            si_code: u32_at(bytes, 44)?.cast_signed(),
            sender_pid: u32_at(bytes, 48)?.cast_signed(),
            sender_uid: u32_at(bytes, 52)?,
            sender_euid: u32_at(bytes, 56)?,
            pgid: u32_at(bytes, 60)?.cast_signed(),
        })
    }
}

/// The end of a task with storage: of a ghost or of a launcher.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitRecord {
    /// [`Kind::Exit`].
    pub kind: u32,
    /// Threads of the process still alive; 0 when the process is dead with this task, as with every well-behaved ghost.
    pub live: u32,
    /// Who, as named at attachment.
    pub ghost: u64,
    /// As [`SignalRecord::seq`].
    pub seq: u64,
    /// Wait status as `wait(2)` encodes it.
    pub status: u32,
    /// [`crate::GhostState::flags`] at the end.
    pub flags: u32,
    /// Its process id as the loader sees it.
    pub pid: i32,
    /// Always zero.
    pub reserved: u32,
}

impl ExitRecord {
    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() != EXIT_RECORD_SIZE {
            return Err(Malformed);
        }
        Ok(Self {
            kind: u32_at(bytes, 0)?,
            live: u32_at(bytes, 4)?,
            ghost: u64_at(bytes, 8)?,
            seq: u64_at(bytes, 16)?,
            status: u32_at(bytes, 24)?,
            flags: u32_at(bytes, 28)?,
            pid: u32_at(bytes, 32)?.cast_signed(),
            reserved: u32_at(bytes, 36)?,
        })
    }
}

/// One entry of the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    Signal(SignalRecord),
    Exit(ExitRecord),
}

impl Record {
    /// Takes an entry of the ring buffer apart.
    ///
    /// # Errors
    /// [`Malformed`] if the kind is unknown or the length is not that kind's.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        match u32_at(bytes, 0)? {
            kind if kind == Kind::Signal as u32 => SignalRecord::from_bytes(bytes).map(Self::Signal),
            kind if kind == Kind::Exit as u32 => ExitRecord::from_bytes(bytes).map(Self::Exit),
            _ => Err(Malformed),
        }
    }
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, Malformed> {
    let word = bytes.get(offset..).and_then(|rest| rest.first_chunk()).ok_or(Malformed)?;
    Ok(u32::from_ne_bytes(*word))
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Result<u64, Malformed> {
    let word = bytes.get(offset..).and_then(|rest| rest.first_chunk()).ok_or(Malformed)?;
    Ok(u64::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn no_padding_and_enough_of_them() {
        assert_eq!(SIGNAL_RECORD_SIZE, 64);
        assert_eq!(EXIT_RECORD_SIZE, 40);
        // Each entry has a header of 8 bytes (BPF_RINGBUF_HDR_SZ).
        assert!(crate::RING_BYTES as usize / (SIGNAL_RECORD_SIZE + 8) >= 100_000);
    }

    #[test]
    fn fields_are_read_where_they_are_written() {
        let mut bytes = [0u8; SIGNAL_RECORD_SIZE];
        bytes[0..4].copy_from_slice(&1u32.to_ne_bytes());
        bytes[offset_of!(SignalRecord, sig)..][..2].copy_from_slice(&9u16.to_ne_bytes());
        bytes[offset_of!(SignalRecord, scope)..][..2].copy_from_slice(&1u16.to_ne_bytes());
        bytes[offset_of!(SignalRecord, pgid)..][..4].copy_from_slice(&(-7i32).to_ne_bytes());
        bytes[offset_of!(SignalRecord, si_code)..][..4].copy_from_slice(&(-1i32).to_ne_bytes());
        bytes[offset_of!(SignalRecord, value)..][..8].copy_from_slice(&42u64.to_ne_bytes());
        let Ok(Record::Signal(record)) = Record::from_bytes(&bytes) else { panic!("not a signal") };
        assert_eq!(
            (record.sig, record.scope(), record.pgid, record.si_code, record.value),
            (9, Scope::Group, -7, -1, 42)
        );
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(Record::from_bytes(&[]), Err(Malformed));
        assert_eq!(Record::from_bytes(&[9; 64]), Err(Malformed));
        let mut short = [0; 63];
        short[0] = 1;
        assert_eq!(Record::from_bytes(&short), Err(Malformed));
        short[0] = 2;
        assert_eq!(Record::from_bytes(&short[..31]), Err(Malformed));
    }
}
