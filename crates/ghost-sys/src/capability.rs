//! Capabilities: what daemons give up of root's, and the one that bpsh has by its file, with what comes with it.
//!
//! With CAP_CHECKPOINT_RESTORE ghosts can choose their numbers (kernel/fork.c, `set_tid`). A program that gains a capability
//! by its file is executed as a privileged one (fs/exec.c, `begin_new_exec`, `secureexec`): its process is not dumpable, its
//! soft stack limit is cut to 8 MiB, and the C library removes variables such as TMPDIR and LD_LIBRARY_PATH. What bpsh hands on
//! must be what it was given.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

// include/uapi/linux/capability.h; capabilities(7) says what each is for.
pub const CAP_DAC_OVERRIDE: u32 = 1;
pub const CAP_DAC_READ_SEARCH: u32 = 2;
pub const CAP_KILL: u32 = 5;
pub const CAP_NET_BIND_SERVICE: u32 = 10;
pub const CAP_NET_ADMIN: u32 = 12;
pub const CAP_SYS_PTRACE: u32 = 19;
pub const CAP_SYS_ADMIN: u32 = 21;
pub const CAP_SYS_RESOURCE: u32 = 24;
pub const CAP_PERFMON: u32 = 38;
pub const CAP_BPF: u32 = 39;
pub const CAP_CHECKPOINT_RESTORE: u32 = 40;
/// `_LINUX_CAPABILITY_VERSION_3`, whose data are two of `struct __user_cap_data_struct`: the low 32 capabilities and the high ones.
const VERSION: u32 = 0x2008_0522;
const VFS_CAP_REVISION_2: u32 = 0x0200_0000;
const VFS_CAP_FLAGS_EFFECTIVE: u32 = 1;
/// `_STK_LIM`, to which the kernel cuts a larger limit.
const STACK_OF_SECURE: u64 = 8 << 20;

/// Gives a program's file the capability, as `setcap cap_checkpoint_restore=ep FILE` does.
///
/// # Errors
/// EPERM: not root. ENOTSUP: the file system keeps no such attributes.
pub fn give_checkpoint_restore(file: &Path) -> io::Result<()> {
    let path = CString::new(file.as_os_str().as_bytes())?;
    // `struct vfs_cap_data`: flags, then permitted and inheritable of the low 32 capabilities and of the high ones.
    let words = [VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE, 0, 0, 1 << (CAP_CHECKPOINT_RESTORE - 32), 0];
    let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    // SAFETY: both strings end with NUL, and the value has the length that is given.
    let result = unsafe {
        libc::setxattr(path.as_ptr(), c"security.capability".as_ptr(), bytes.as_ptr().cast(), bytes.len(), 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// From now on neither this process nor what it starts gains rights by executing a program (no_new_privs, prctl(2)).
///
/// # Errors
/// The kernel is older than Linux 3.5.
pub fn gain_nothing_more() -> io::Result<()> {
    // SAFETY: no memory is passed.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives up all capabilities but these, as far as this thread has them: to be called before there are others. After
/// [`gain_nothing_more`] no program that it starts gets them back (security/commoncap.c, `cap_bprm_creds_from_file`).
///
/// # Errors
/// The kernel refuses, which it has no reason for.
pub fn keep_only(kept: &[u32]) -> io::Result<()> {
    // Beyond the last one that the kernel knows: EINVAL. Without the right to it (given up before): EPERM, and nothing is lost.
    for capability in (0..64).filter(|capability| !kept.contains(capability)) {
        // SAFETY: no memory is passed.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    let header = [VERSION, 0];
    // Effective, permitted, inheritable; twice.
    let mut data = [0u32; 6];
    let wanted = kept.iter().fold(0u64, |set, capability| set | 1 << capability);
    // SAFETY: both arrays have the layout of this version, and are written or read as far as they go.
    unsafe {
        if libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        for (half, words) in data.chunks_mut(3).enumerate() {
            let mask = (wanted >> (32 * half)) as u32;
            words[1] &= mask;
            words[0] = words[1];
            words[2] = 0;
        }
        if libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether this process was executed as a privileged program. Makes it an ordinary one again as far as that goes: it is
/// dumpable, so that its files in /proc are its user's.
pub fn begin() -> bool {
    // SAFETY: no memory is passed.
    unsafe {
        let secure = libc::getauxval(libc::AT_SECURE) != 0;
        if secure {
            libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        }
        secure
    }
}

/// The environment as it was given to this process.
///
/// # Errors
/// `/proc` is not mounted.
pub fn environment() -> io::Result<Vec<Vec<u8>>> {
    let bytes = std::fs::read("/proc/self/environ")?;
    Ok(bytes.split(|&byte| byte == 0).filter(|entry| !entry.is_empty()).map(<[u8]>::to_vec).collect())
}

/// The soft stack limit before it was cut: the parent's, which is where a limit comes from unless it was changed in between.
pub fn stack_limit(soft: u64, hard: u64) -> u64 {
    if soft != STACK_OF_SECURE {
        return soft;
    }
    let path = format!("/proc/{}/limits", std::os::unix::process::parent_id());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let row = text.lines().find_map(|line| line.strip_prefix("Max stack size"));
    let parents = match row.and_then(|row| row.split_whitespace().next()) {
        Some("unlimited") => u64::MAX,
        Some(number) => number.parse().unwrap_or(soft),
        None => soft,
    };
    parents.clamp(soft, hard.max(soft))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read_whole() {
        let entries = environment().expect("environ");
        let path = std::env::var_os("PATH").expect("PATH");
        assert!(entries.contains(&[b"PATH=", path.as_bytes()].concat()));
        assert!(!begin(), "tests are no privileged program");
        assert_eq!(stack_limit(1 << 20, u64::MAX), 1 << 20, "a limit that was not cut stays");
    }

    /// In a thread of its own: capabilities are a thread's.
    #[test]
    fn what_is_given_up_is_gone() {
        let status = || std::fs::read_to_string("/proc/thread-self/status").expect("status");
        let row = |status: &str, name: &str| {
            let row = status.lines().find_map(|line| line.strip_prefix(name)).expect("row");
            u64::from_str_radix(row.trim(), 16).expect("hexadecimal")
        };
        let before = status();
        std::thread::spawn(move || {
            gain_nothing_more().expect("no more");
            keep_only(&[CAP_KILL, CAP_BPF]).expect("less");
            let (after, kept) = (status(), 1 << CAP_KILL | 1 << CAP_BPF);
            for name in ["CapPrm:", "CapEff:"] {
                assert_eq!(row(&after, name), row(&before, "CapPrm:") & kept, "{name}");
            }
            assert_eq!(row(&after, "CapInh:"), 0);
            // Tests may run without the right to it.
            if row(&before, "CapEff:") & 1 << 8 != 0 {
                assert_eq!(row(&after, "CapBnd:"), row(&before, "CapBnd:") & kept);
            }
            assert_eq!(row(&after, "NoNewPrivs:"), 1);
            // And a program that root executes does not get it back.
            let output = std::process::Command::new("cat").arg("/proc/self/status").output().expect("cat");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(row(&text, "CapPrm:") & !kept, 0);
        })
        .join()
        .expect("the thread");
    }

    #[test]
    fn a_file_gets_the_capability() {
        let file = std::env::temp_dir().join(format!("capability-{}", std::process::id()));
        std::fs::write(&file, "").expect("file");
        let given = give_checkpoint_restore(&file);
        let path = CString::new(file.as_os_str().as_bytes()).expect("path");
        let mut value = [0u8; 64];
        // SAFETY: the kernel writes at most the length of `value`.
        let length = unsafe {
            libc::getxattr(path.as_ptr(), c"security.capability".as_ptr(), value.as_mut_ptr().cast(), value.len())
        };
        std::fs::remove_file(&file).expect("remove");
        // Tests may run without the right to it.
        match given {
            Ok(()) => assert_eq!((length, value[0], value[13]), (20, 1, 1)),
            Err(why) => assert_eq!(why.raw_os_error(), Some(libc::EPERM)),
        }
    }
}
