//! A terminal on the node: what it is made like, and what changes of it.
//!
//! ```text
//! bpsh                       ghostd                    holder
//!   Launch (Terminal)  ->      Spawn (Terminal)  ->      opens it; the program's descriptors 0, 1, 2
//!   Resize             ->      Resize            ->      TIOCSWINSZ: the kernel tells the foreground group
//! ```
//! Its bytes are the streams 0 and 1 of the process: stream 2 there is none.

use bytes::Bytes;

/// Feature of a node's hello, and of ghostd's: terminals can be had.
pub const FEATURE: &str = "terminal";

/// What a terminal is to be like when the program begins.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Terminal {
    #[prost(message, optional, tag = "1")]
    pub size: Option<Size>,
    /// None: what the kernel gives a new one.
    #[prost(message, optional, tag = "2")]
    pub modes: Option<Modes>,
}

/// A window's size; see `TIOCSWINSZ` in ioctl_tty(2). Each number is at most 65535.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Size {
    #[prost(uint32, tag = "1")]
    pub rows: u32,
    #[prost(uint32, tag = "2")]
    pub columns: u32,
    #[prost(uint32, tag = "3")]
    pub width: u32,
    #[prost(uint32, tag = "4")]
    pub height: u32,
}

/// The modes of a terminal as Linux numbers them (include/uapi/asm-generic/termbits.h), see termios(3).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Modes {
    #[prost(uint32, tag = "1")]
    pub input: u32,
    #[prost(uint32, tag = "2")]
    pub output: u32,
    #[prost(uint32, tag = "3")]
    pub control: u32,
    #[prost(uint32, tag = "4")]
    pub local: u32,
    /// One byte each, by index: VINTR, VQUIT, VERASE, …
    #[prost(bytes = "bytes", tag = "5")]
    pub characters: Bytes,
}

/// From bpsh: the window has another size now.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ResizeRank {
    #[prost(uint32, tag = "1")]
    pub rank: u32,
    #[prost(message, optional, tag = "2")]
    pub size: Option<Size>,
}

/// The same, to a node.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Resize {
    #[prost(fixed64, tag = "1")]
    pub proc: u64,
    #[prost(message, optional, tag = "2")]
    pub size: Option<Size>,
}
