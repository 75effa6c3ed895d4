//! `/proc/PID/status` of a process elsewhere, as its ghost's: proc_pid_status(5).
//!
//! Lines that name an identity or carry rights are the ghost's own: other programs trust them (journald logs CapEff, polkit
//! compares Uid). The rest, its order included, is as the process's kernel gives it.

use std::collections::HashMap;

/// Lines that are the ghost's own.
const OWN: [&[u8]; 19] = [
    b"Tgid",
    b"Ngid",
    b"Pid",
    b"PPid",
    b"TracerPid",
    b"Uid",
    b"Gid",
    b"Groups",
    // Signals that wait for any process of the user, and his limit.
    b"SigQ",
    b"NStgid",
    b"NSpid",
    b"NSpgid",
    b"NSsid",
    b"CapInh",
    b"CapPrm",
    b"CapEff",
    b"CapBnd",
    b"CapAmb",
    b"NoNewPrivs",
];

/// The text of the process `there` as that of the ghost whose own is `own`; of the thread with number `tid`, if it is not
/// the first one.
pub(super) fn of_ghost(there: &[u8], own: &[u8], tid: Option<u32>) -> Vec<u8> {
    let ours: HashMap<&[u8], &[u8]> =
        lines(own).filter_map(|line| Some((key(line)?, line))).filter(|(key, _)| OWN.contains(key)).collect();
    let mut out = Vec::with_capacity(there.len() + 32);
    for line in lines(there) {
        match (key(line), tid) {
            (Some(key @ (b"Pid" | b"NSpid")), Some(tid)) => {
                out.extend_from_slice(key);
                out.extend_from_slice(format!(":\t{tid}").as_bytes());
            }
            (Some(key), _) if OWN.contains(&key) => match ours.get(key) {
                Some(line) => out.extend_from_slice(line),
                // This kernel has no such line.
                None => continue,
            },
            _ => out.extend_from_slice(line),
        }
        out.push(b'\n');
    }
    out
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&b| b == b'\n').filter(|line| !line.is_empty())
}

fn key(line: &[u8]) -> Option<&[u8]> {
    line.get(..line.iter().position(|&b| b == b':')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: &[u8] = b"Name:\tsleep\nUmask:\t0022\nState:\tT (stopped)\nTgid:\t300\nNgid:\t0\nPid:\t300\nPPid:\t1\n\
        TracerPid:\t12\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t64\nGroups:\t0\nNStgid:\t77\t300\nNSpid:\t77\t300\n\
        VmRSS:\t  1536 kB\nThreads:\t2\nSigQ:\t9/100\nSigIgn:\t0000000000000003\nCapEff:\t000001ffffffffff\nNew:\tthing\n";
    const GHOST: &[u8] = b"Name:\tbpsh\nState:\tD (disk sleep)\nTgid:\t4001\nNgid:\t0\nPid:\t4001\nPPid:\t4000\n\
        TracerPid:\t0\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nFDSize:\t3\nGroups:\t1000 2000 \n\
        NSpid:\t4001\nVmRSS:\t  9 kB\nThreads:\t1\nSigQ:\t5/200\nSigIgn:\tfffffffffffffeff\nCapEff:\t0000000000000000\n";

    #[test]
    fn identity_and_rights_are_the_ghosts() {
        let text = String::from_utf8(of_ghost(THERE, GHOST, None)).unwrap();
        assert_eq!(
            text,
            "Name:\tsleep\nUmask:\t0022\nState:\tT (stopped)\nTgid:\t4001\nNgid:\t0\nPid:\t4001\nPPid:\t4000\n\
             TracerPid:\t0\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nFDSize:\t64\n\
             Groups:\t1000 2000 \nNSpid:\t4001\nVmRSS:\t  1536 kB\nThreads:\t2\nSigQ:\t5/200\n\
             SigIgn:\t0000000000000003\nCapEff:\t0000000000000000\nNew:\tthing\n"
        );
    }

    #[test]
    fn a_thread_has_its_own_number_and_the_ghosts_process() {
        let text = String::from_utf8(of_ghost(THERE, GHOST, Some(301))).unwrap();
        for line in ["\nPid:\t301\n", "\nTgid:\t4001\n", "\nNSpid:\t301\n"] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn no_line_of_this_kernel_is_lost() {
        let own = std::fs::read("/proc/self/status").unwrap();
        assert_eq!(of_ghost(&own, &own, None), own);
    }
}
