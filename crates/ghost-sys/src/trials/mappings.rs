//! Many mappings of memory.

use std::io;
use std::ptr;

/// Mappings that are there as long as this is.
#[derive(Debug)]
pub struct Mappings {
    begin: *mut libc::c_void,
    length: usize,
}

/// Makes so many mappings, each of one page. Neighbours differ in their protection, or the kernel would join them
/// (mm/vma.c `can_vma_merge_after`).
///
/// # Errors
/// ENOMEM: more than `vm.max_map_count`.
pub fn many_mappings(count: usize) -> io::Result<Mappings> {
    const PAGE: usize = 4096;
    let length = count * PAGE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at a place that the kernel chooses.
    let begin = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
    if begin == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let mappings = Mappings { begin, length };
    for page in (0..count).step_by(2) {
        // SAFETY: a page of the mapping made above, of which nobody has a reference.
        if unsafe { libc::mprotect(begin.wrapping_byte_add(page * PAGE), PAGE, libc::PROT_READ) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(mappings)
}

impl Drop for Mappings {
    fn drop(&mut self) {
        // SAFETY: the mapping that `many_mappings` made; nobody has a reference to it.
        unsafe { libc::munmap(self.begin, self.length) };
    }
}
