//! The PID namespace that is followed: who belongs to it, and under which number.
//!
//! A process belongs when its `struct pid` has a number in the namespace, which holds for those in namespaces below it too.
//! The kernel gives these numbers at fork and nobody can shed them, so nothing escapes (kernel/pid.c, `alloc_pid()`).

use aya_ebpf::{bindings::task_struct, cty::c_void, helpers::bpf_get_current_task_btf, macros::map, maps::Array};
use ghost_abi::tree;
use ghost_ebpf::kernel::{Address, field, read};

use crate::config::config;

#[map]
static NAMESPACE: Array<tree::Namespace> = Array::with_max_entries(1, 0);

/// The namespace that is followed; one without a process before [`choose`] has run.
#[derive(Clone, Copy)]
pub struct Namespace {
    address: Address,
    level: u32,
}

impl Namespace {
    #[inline(always)]
    pub fn followed() -> Self {
        match NAMESPACE.get_ptr(0) {
            // SAFETY: a live map value, written once before any other program is attached.
            Some(value) => unsafe { Self { address: (*value).address, level: (*value).level as u32 } },
            None => Self { address: 0, level: 0 },
        }
    }

    /// The number of a `struct pid` here; 0 if it has none.
    ///
    /// # Safety
    /// `pid` is a pointer that the verifier knows the type of.
    #[inline(always)]
    unsafe fn number(self, pid: *const c_void) -> i32 {
        // SAFETY: as this function's. Most processes of a host are told apart here, without the helper.
        if unsafe { field::<u32>(pid, config!(pid_level)) } < self.level {
            return 0;
        }
        // Namespaces are nested 32 deep at most (include/linux/pid_namespace.h, MAX_PID_NS_LEVEL). The mask says so to verifiers that
        // know no bound of a product (6.1: kernel/bpf/verifier.c, `adjust_scalar_min_max_vals()`).
        let offset = self.level * config!(upid_size) & 0xffff;
        let entry = pid as Address + u64::from(config!(pid_numbers)) + u64::from(offset);
        // Nobody has chosen a namespace, or the pid is null: no address is 0.
        let address: Address = read(entry, config!(upid_ns));
        if address == 0 || address != self.address { 0 } else { read(entry, config!(upid_nr)) }
    }

    /// The process id of a task here; 0 if it is not in the namespace, or has been reaped.
    ///
    /// # Safety
    /// `signal` is a `signal_struct` that the verifier knows the type of.
    #[inline(always)]
    pub unsafe fn process(self, signal: *const c_void) -> i32 {
        // SAFETY: as this function's.
        unsafe { self.number(field(signal, config!(signal_tgid))) }
    }

    /// How deep the namespace is nested that a process is an inhabitant of; 0 if it has been reaped.
    ///
    /// # Safety
    /// As [`Self::process`].
    #[inline(always)]
    pub unsafe fn level_of(signal: *const c_void) -> u32 {
        // SAFETY: as this function's.
        unsafe { field(field(signal, config!(signal_tgid)), config!(pid_level)) }
    }

    /// The process group here; 0 if it was made outside of the namespace.
    ///
    /// # Safety
    /// As [`Self::process`].
    #[inline(always)]
    pub unsafe fn group(self, signal: *const c_void) -> i32 {
        // SAFETY: as this function's.
        unsafe { self.number(field(signal, config!(signal_pgid))) }
    }

    /// The session here; 0 if it was made outside of the namespace.
    ///
    /// # Safety
    /// As [`Self::process`].
    #[inline(always)]
    pub unsafe fn session(self, signal: *const c_void) -> i32 {
        // SAFETY: as this function's.
        unsafe { self.number(field(signal, config!(signal_sid))) }
    }
}

/// Follows the namespace in which the running task's next child would be: setns(2) chooses it, and the loader cannot find
/// out by itself how deep it is nested.
#[inline(always)]
pub fn choose() {
    let Some(value) = NAMESPACE.get_ptr_mut(0) else { return };
    // SAFETY: the helper gives a task that the verifier knows, from which the other pointers are read; the map value is
    // live, and nobody else uses it yet.
    unsafe {
        let task: *const task_struct = bpf_get_current_task_btf().cast();
        let proxy: *const c_void = field(task.cast(), config!(task_nsproxy));
        let namespace: *const c_void = field(proxy, config!(nsproxy_pid_namespace));
        (*value).level = field::<u32>(namespace, config!(pid_namespace_level)).into();
        (*value).inode = field::<u32>(namespace, config!(pid_namespace_inum)).into();
        (*value).address = namespace as Address;
    }
}
