//! What a `struct kernel_siginfo` says. Its layout is the ABI's `siginfo_t` (kernel/signal.c, `siginfo_buildtime_checks`).

use crate::task::{Address, read};

/// `SEND_SIG_NOINFO`: sent by current, with no details (include/linux/sched/signal.h).
const NO_INFO: Address = 0;
/// `SEND_SIG_PRIV`: sent by the kernel.
const PRIVATE: Address = 1;

const SI_USER: i32 = 0;
const SI_KERNEL: i32 = 0x80;
const SI_TKILL: i32 = -6;

const CODE: u32 = 8;
const PID: u32 = 16;
const VALUE: u32 = 24;

/// A siginfo, taken apart.
pub struct SigInfo {
    pub code: i32,
    /// `si_value` if the code says that there is one.
    pub value: u64,
    /// `si_pid`: in whose namespace depends on how it was sent.
    pub alleged_pid: i32,
}

impl SigInfo {
    /// `info` may be one of two numbers instead of an address; a typed access to it would fault.
    #[inline(always)]
    pub fn read(info: Address) -> Self {
        if info == NO_INFO {
            return Self { code: SI_USER, value: 0, alleged_pid: 0 };
        }
        if info == PRIVATE {
            return Self { code: SI_KERNEL, value: 0, alleged_pid: 0 };
        }
        let code: i32 = read(info, CODE);
        let value = if code < 0 && code != SI_TKILL { read(info, VALUE) } else { 0 };
        let alleged_pid = if code <= 0 { read(info, PID) } else { 0 };
        Self { code, value, alleged_pid }
    }

    /// Sent by the kernel, not by a process. A process can give a positive code to itself only (`do_rt_sigqueueinfo`,
    /// `pidfd_send_signal`).
    #[inline(always)]
    pub fn is_kernels(&self) -> bool {
        self.code > 0
    }
}
