//! Terminals: pairs of pseudo terminals, window sizes, and the modes of one that is read raw.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, fchown};

/// A window's size, see `TIOCGWINSZ` in ioctl_tty(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
    pub width: u16,
    pub height: u16,
}

/// The size of the window of a terminal.
///
/// # Errors
/// ENOTTY: it is none.
pub fn size(terminal: impl AsFd) -> io::Result<Size> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize.
    if unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Size { rows: size.ws_row, columns: size.ws_col, width: size.ws_xpixel, height: size.ws_ypixel })
}

/// Sets it; either side of a pair will do. If it is another one, the foreground group gets SIGWINCH (drivers/tty/tty_io.c
/// `tty_do_resize()`, drivers/tty/pty.c `pty_resize()`).
///
/// # Errors
/// ENOTTY, EIO: it has been hung up.
pub fn set_size(terminal: impl AsFd, size: Size) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: size.width, ws_ypixel: size.height };
    // SAFETY: TIOCSWINSZ reads one winsize.
    if unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Modes of a terminal as the kernel has them (include/uapi/asm-generic/termbits.h `struct termios`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    pub input: u32,
    pub output: u32,
    pub control: u32,
    pub local: u32,
    pub characters: [u8; CHARACTERS],
}

/// The kernel's NCCS.
pub const CHARACTERS: usize = 19;

#[repr(C)]
#[derive(Clone, Copy)]
struct KernelTermios {
    modes: [u32; 4],
    line: u8,
    characters: [u8; CHARACTERS],
}

/// The modes of a terminal.
///
/// # Errors
/// ENOTTY: it is none. EIO: it has been hung up.
pub fn modes(terminal: impl AsFd) -> io::Result<Modes> {
    let kernel = get(terminal.as_fd())?;
    let [input, output, control, local] = kernel.modes;
    Ok(Modes { input, output, control, local, characters: kernel.characters })
}

/// Sets them when everything that was written has been put out. In the background of a terminal this is for a process that ignores
/// SIGTTOU, or has it blocked, only.
///
/// # Errors
/// ENOTTY, EIO.
pub fn set_modes(terminal: impl AsFd, modes: &Modes) -> io::Result<()> {
    let fd = terminal.as_fd();
    let Modes { input, output, control, local, characters } = *modes;
    let kernel = KernelTermios { modes: [input, output, control, local], characters, ..get(fd)? };
    // SAFETY: TCSETSW reads one struct termios.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TCSETSW, &raw const kernel) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn get(fd: BorrowedFd<'_>) -> io::Result<KernelTermios> {
    let mut kernel = KernelTermios { modes: [0; 4], line: 0, characters: [0; CHARACTERS] };
    // SAFETY: TCGETS writes one struct termios, which is smaller than libc's.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TCGETS, &raw mut kernel) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(kernel)
}

impl Modes {
    /// The same, but every byte goes through as it is, at once and in both directions: cfmakeraw(3).
    #[must_use]
    pub fn raw(&self) -> Modes {
        let mut characters = self.characters;
        (characters[libc::VMIN], characters[libc::VTIME]) = (1, 0);
        let ignore = libc::IGNBRK | libc::BRKINT | libc::PARMRK | libc::ISTRIP;
        let change = libc::INLCR | libc::IGNCR | libc::ICRNL | libc::IXON;
        Modes {
            input: self.input & !(ignore | change),
            output: self.output & !libc::OPOST,
            control: self.control & !(libc::CSIZE | libc::PARENB) | libc::CS8,
            local: self.local & !(libc::ECHO | libc::ECHONL | libc::ICANON | libc::ISIG | libc::IEXTEN),
            characters,
        }
    }

    /// The character that ends the input of who reads lines.
    pub const fn end_of_file(&self) -> u8 {
        self.characters[libc::VEOF]
    }
}

/// Both sides of a new terminal.
#[derive(Debug)]
pub struct Pair {
    /// Does not block.
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Makes one in the devpts of this mount namespace, for a user: nobody else may open it, but who is in its group may write to it where the
/// file system says which group that is (its option gid=, the group tty; see write(1)).
///
/// # Errors
/// ENOENT: no devpts. ENOSPC: it has no more. EMFILE, ENFILE.
pub fn open(uid: u32) -> io::Result<Pair> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = nix::fcntl::open("/dev/ptmx", flags, Mode::empty())?;
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int; TIOCGPTPEER takes open(2)'s flags and gives a new descriptor of the other side, whatever name that
    // has, or has not, in this mount namespace (drivers/tty/pty.c `ptm_open_peer()`).
    let slave = unsafe {
        if libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits());
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let group = Gid::from_raw(nix::sys::stat::fstat(&slave)?.st_gid);
    let everybodys = group.as_raw() == 0;
    let mode = if everybodys { Mode::S_IRUSR | Mode::S_IWUSR } else { Mode::from_bits_truncate(0o620) };
    fchmod(&slave, mode)?;
    fchown(&slave, Some(Uid::from_raw(uid)), Some(group))?;
    fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(Pair { master, slave })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_a_size_and_modes_and_passes_bytes() {
        let pair = open(nix::unistd::getuid().as_raw()).expect("a terminal");
        let wanted = Size { rows: 33, columns: 77, width: 1, height: 2 };
        set_size(&pair.master, wanted).expect("set");
        assert_eq!(size(&pair.slave).expect("size"), wanted);
        assert!(size(std::fs::File::open("/dev/null").expect("null")).is_err());

        let first = modes(&pair.slave).expect("modes");
        assert_eq!(first.end_of_file(), 4);
        let raw = first.raw();
        set_modes(&pair.slave, &raw).expect("set");
        assert_eq!(modes(&pair.slave).expect("modes"), raw);
        nix::unistd::write(&pair.master, b"\x03\x1a\r").expect("keys");
        let mut read = [0; 8];
        assert_eq!(nix::unistd::read(&pair.slave, &mut read), Ok(3));
        assert_eq!(&read[..3], b"\x03\x1a\r");
        nix::unistd::write(&pair.slave, b"a\nb").expect("output");
        drop(pair.slave);
        assert_eq!(nix::unistd::read(&pair.master, &mut read), Ok(3));
        assert_eq!(&read[..3], b"a\nb", "not changed on its way");
        assert_eq!(nix::unistd::read(&pair.master, &mut read), Err(nix::errno::Errno::EIO), "everybody is gone");
    }

    #[test]
    fn it_belongs_to_its_user() {
        let pair = open(4242).or_else(|why| if nix::unistd::geteuid().is_root() { Err(why) } else { open(0) });
        let Ok(pair) = pair else { panic!("{pair:?}") };
        let stat = nix::sys::stat::fstat(&pair.slave).expect("stat");
        assert!(stat.st_uid == 4242 || !nix::unistd::geteuid().is_root());
        assert_eq!(stat.st_mode & 0o107, 0, "{:o}", stat.st_mode);
    }
}
