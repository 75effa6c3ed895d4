//! What a program is started with: everything that a local child would inherit.

use bytes::Bytes;

use crate::terminal::Terminal;

/// The part of a launch that is equal for all its ranks. Built by the client from its own state; a node applies it to the
/// child *after* it has become the user, so that nothing here can give more than the user has.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProgramSpec {
    /// Argument vector; `argv[0]` is what is executed, looked up along `PATH` of `env` when it has no slash.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub argv: Vec<Bytes>,
    /// `NAME=value` entries.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub env: Vec<Bytes>,
    /// Absolute path of the working directory. A node that has no such directory uses `/` and says so.
    #[prost(bytes = "bytes", tag = "3")]
    pub cwd: Bytes,
    /// umask(2), 0 to 0o777.
    #[prost(uint32, tag = "4")]
    pub umask: u32,
    /// Resource limits; a limit above what the node's holder may give is lowered to that.
    #[prost(message, repeated, tag = "5")]
    pub limits: Vec<Limit>,
    /// Nice value, -20 to 19 (a user cannot go below the node's default of 0 unless RLIMIT_NICE there allows it).
    #[prost(sint32, tag = "6")]
    pub nice: i32,
    /// Scheduling policy and priority, see sched(7): 0 other, 1 FIFO, 2 RR, 3 batch, 5 idle.
    #[prost(uint32, tag = "7")]
    pub sched_policy: u32,
    #[prost(uint32, tag = "8")]
    pub sched_priority: u32,
    /// Ignored signals: bit n-1 is signal n.
    #[prost(fixed64, tag = "9")]
    pub ignored: u64,
    /// Blocked signals: bit n-1 is signal n.
    #[prost(fixed64, tag = "10")]
    pub blocked: u64,
    /// What descriptors 0, 1, 2 are: [`Stdio`] as numbers, in this order; missing ones mean [`Stdio::Null`].
    #[prost(enumeration = "Stdio", repeated, tag = "11")]
    pub stdio: Vec<i32>,
    /// Without the working directory the program is not started.
    #[prost(bool, tag = "12")]
    pub cwd_required: bool,
    /// Files on the node that become descriptors 0, 1, 2.
    #[prost(message, optional, boxed, tag = "13")]
    pub files: Option<Box<Files>>,
    /// Descriptors 0, 1 and 2 are a terminal, made for the program; its bytes are the streams 0 and 1.
    #[prost(message, optional, boxed, tag = "14")]
    pub terminal: Option<Box<Terminal>>,
    /// It runs in the node's own mount, network, UTS and IPC namespaces. For root only.
    #[prost(bool, tag = "15")]
    pub host: bool,
}

/// The feature of nodes, and of a ghostd, that put programs into the node's own namespaces.
pub const HOST: &str = "host";

/// Files on the node in place of standard input, output and error, opened as the user; empty: what `stdio` says.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Files {
    #[prost(bytes = "bytes", tag = "1")]
    pub stdin: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub stdout: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub stderr: Bytes,
}

/// A resource limit, see getrlimit(2).
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Limit {
    /// RLIMIT_* number.
    #[prost(uint32, tag = "1")]
    pub resource: u32,
    /// `u64::MAX`: unlimited.
    #[prost(uint64, tag = "2")]
    pub soft: u64,
    #[prost(uint64, tag = "3")]
    pub hard: u64,
}

/// What a standard descriptor of the program is on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Stdio {
    /// `/dev/null`.
    Null = 0,
    /// A stream to or from the client.
    Stream = 1,
}

impl ProgramSpec {
    /// What descriptor `fd` is.
    pub fn descriptor(&self, fd: usize) -> Stdio {
        self.stdio.get(fd).and_then(|&value| Stdio::try_from(value).ok()).unwrap_or(Stdio::Null)
    }

    /// The file on the node that becomes descriptor `fd`.
    pub fn file(&self, fd: usize) -> Option<&Bytes> {
        let files = self.files.as_ref()?;
        let path = match fd {
            0 => &files.stdin,
            1 => &files.stdout,
            _ => &files.stderr,
        };
        (fd < 3 && !path.is_empty()).then_some(path)
    }

    /// Whether this can be started at all; the reason if not. Bounds are the kernel's own, so that what passes here fails
    /// on the node only for the node's reasons.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.argv.first().is_none_or(Bytes::is_empty) {
            return Err("no command was given");
        }
        if self.argv.iter().chain(&self.env).chain((0..3).filter_map(|fd| self.file(fd))).any(|s| s.contains(&0))
            || self.cwd.contains(&0)
        {
            return Err("an argument, environment entry or directory contains a NUL byte");
        }
        if self.umask > 0o777 {
            return Err("the umask is above 0777");
        }
        if self.terminal.is_some() && (self.files.is_some() || self.descriptor(2) == Stdio::Stream) {
            return Err("a program in a terminal has no file and no other stream in place of it");
        }
        if self.limits.len() > 32 {
            return Err("there are more than 32 resource limits");
        }
        if !(-20..=19).contains(&self.nice) {
            return Err("the nice value is outside -20..19");
        }
        Ok(())
    }
}

/// Whose process it is; told by the master's kernel (SO_PEERCRED, SO_PEERGROUPS), never by the client.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Credentials {
    #[prost(uint32, tag = "1")]
    pub uid: u32,
    #[prost(uint32, tag = "2")]
    pub gid: u32,
    #[prost(uint32, repeated, tag = "3")]
    pub groups: Vec<u32>,
}
