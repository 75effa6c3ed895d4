//! The task storage that makes a task a ghost.

use aya_ebpf::{
    bindings::{bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE, task_struct},
    helpers::bpf_task_storage_get,
};
use ghost_abi::GhostState;

/// BTF definition of a map of type task storage: the loader reads the types of the fields, never their values.
#[repr(C)]
struct TaskStorage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    /// `BPF_F_NO_PREALLOC`, which the kernel demands.
    map_flags: *const [i32; 1],
}

// SAFETY: the static is a description for the loader; nobody reads its pointers.
unsafe impl<T> Sync for TaskStorage<T> {}

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "GHOSTS")]
static GHOSTS: TaskStorage<GhostState> = TaskStorage {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

/// The state of `task`, or null if it is no ghost of this loader.
#[inline(always)]
pub fn state_of(task: *const task_struct) -> *mut GhostState {
    // SAFETY: `task` comes from the tracepoint or from `bpf_get_current_task_btf`, so the verifier accepts it as a task.
    unsafe {
        bpf_task_storage_get((&raw const GHOSTS).cast_mut().cast(), task.cast_mut().cast(), core::ptr::null_mut(), 0)
    }
    .cast()
}
