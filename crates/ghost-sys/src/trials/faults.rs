//! Faults of the processor: the kernel answers each with a signal.

use std::ptr;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Reads where nothing is mapped: SIGSEGV.
    Unmapped,
    /// Reads beyond the end of a mapped file: SIGBUS.
    BeyondFile,
    /// An instruction that does not exist: SIGILL.
    Instruction,
    /// Divides by zero: SIGFPE.
    Division,
}

/// Commits it. Comes back only if the signal is ignored in a way that the kernel does not force.
pub fn fault(which: Fault) {
    match which {
        // SAFETY: not memory of anybody's: the read faults and gives nothing.
        Fault::Unmapped => unsafe {
            let nowhere: *const u8 = ptr::without_provenance(16);
            let _ = ptr::read_volatile(nowhere);
        },
        // SAFETY: a new mapping of an empty file: nobody else's memory, and the read of it faults.
        Fault::BeyondFile => unsafe {
            let file = libc::memfd_create(c"empty".as_ptr(), 0);
            let page = libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE, file, 0);
            if page != libc::MAP_FAILED {
                let _ = ptr::read_volatile(page.cast::<u8>());
            }
        },
        // SAFETY: traps; no register or memory is changed.
        Fault::Instruction => unsafe {
            #[cfg(target_arch = "x86_64")]
            std::arch::asm!("ud2", options(nomem, nostack));
            #[cfg(not(target_arch = "x86_64"))]
            libc::raise(libc::SIGILL);
        },
        // SAFETY: traps; were it to go on, the registers that are declared would be changed.
        Fault::Division => unsafe {
            #[cfg(target_arch = "x86_64")]
            std::arch::asm!("div {0:e}", in(reg) 0u32, inout("eax") 1u32 => _, inout("edx") 0u32 => _, options(nomem, nostack));
            #[cfg(not(target_arch = "x86_64"))]
            libc::raise(libc::SIGFPE);
        },
    }
}
