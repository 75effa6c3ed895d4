//! The C library's heap, for programs that move bulk data.

/// Memory that was freed stays with the process up to this many bytes, instead of going back to the kernel.
const KEPT: libc::c_int = 8 * 1024 * 1024;

/// Lets the heap keep what buffers of bulk data come from: giving their pages back and taking them anew, zeroed, at every
/// buffer costs more than what is done with the data.
///
/// To be called once, before threads are started. See mallopt(3): without it glibc maps blocks of 128 KiB and more one by one,
/// and trims the heap's top at twice that.
pub fn keep_freed_memory() {
    // SAFETY: mallopt changes the allocator's own settings only; it takes its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Gives freed memory back to the kernel now, whatever is to be kept otherwise: after work that needed much of it once.
pub fn give_back() {
    // SAFETY: malloc_trim takes the allocator's own locks and changes nothing that is in use.
    unsafe { libc::malloc_trim(0) };
}
