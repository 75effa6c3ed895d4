//! Reading kernel memory at the offsets that the loader took from BTF. Neither way can fault.

use aya_ebpf::{cty::c_void, helpers::bpf_probe_read_kernel};

/// An address in the kernel; 0 if a read on the way failed.
pub type Address = u64;

/// Reads a value of the kernel by a helper, which checks the address; its default, zero, if that fails.
#[inline(always)]
pub fn read<T: Default>(base: Address, offset: u32) -> T {
    // SAFETY: the helper checks the address; `T` is an integer, valid whatever is there.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.unwrap_or_default()
}

/// Reads a field of a structure whose type the verifier knows, by a plain load: some ten times as fast.
///
/// The verifier demands that a field of this size begins at the offset, and gives the kernel's exception table an entry for
/// the load: a pointer that is null or stale yields zero (kernel/bpf/verifier.c, `convert_ctx_accesses()`: `BPF_PROBE_MEM`).
///
/// # Safety
/// `base` is a pointer that the verifier knows the type of: an argument of the tracepoint, or read by this function from a
/// field that is a pointer. `offset` comes from the configuration, which the verifier knows.
#[inline(always)]
pub unsafe fn field<T: Copy>(base: *const c_void, offset: u32) -> T {
    // SAFETY: as this function's. Volatile, since two loads of one field are two looks at what others change.
    unsafe { base.byte_add(offset as usize).cast::<T>().read_volatile() }
}
