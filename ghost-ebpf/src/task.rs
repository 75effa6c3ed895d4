//! What the kernel says of a task, read at the offsets that the loader took from BTF.

use aya_ebpf::{bindings::task_struct, helpers::bpf_get_current_task_btf};
pub use ghost_ebpf::kernel::{Address, read};

use crate::config::config;

/// Levels of PID namespaces (`MAX_PID_NS_LEVEL` of include/linux/pid_namespace.h).
const PID_NAMESPACE_LEVELS: u32 = 32;

/// The task that is running.
#[inline(always)]
pub fn current() -> *const task_struct {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task_btf() }.cast()
}

/// `task->signal`.
#[inline(always)]
pub fn signal(task: *const task_struct) -> Address {
    read(task as Address, config!(task_signal))
}

/// The process id of `task` as the loader sees it; 0 if it does not see it.
#[inline(always)]
pub fn process_id(task: *const task_struct) -> i32 {
    number_here(read(signal(task), config!(signal_tgid)))
}

/// The process group of `task` as the loader sees it; 0 if it does not see it.
#[inline(always)]
pub fn process_group(task: *const task_struct) -> i32 {
    number_here(read(signal(task), config!(signal_pgid)))
}

/// The number of a `struct pid` in the loader's PID namespace; 0 if it has none there.
///
/// The loader cannot know how deep its namespace is nested (a procfs shows only the levels below its own), so the right
/// entry of `pid->numbers` is recognised by the namespace's inode number.
#[inline(always)]
fn number_here(pid: Address) -> i32 {
    if pid == 0 {
        return 0;
    }
    let deepest: u32 = read(pid, config!(pid_level));
    let mut entry = pid + u64::from(config!(pid_numbers));
    for level in 0..=PID_NAMESPACE_LEVELS {
        if level > deepest {
            break;
        }
        let namespace: Address = read(entry, config!(upid_ns));
        if read::<u32>(namespace, config!(pid_namespace_inum)) == config!(pid_namespace) {
            return read(entry, config!(upid_nr));
        }
        entry += u64::from(config!(upid_size));
    }
    0
}
