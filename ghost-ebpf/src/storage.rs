//! The task storage that makes a task a ghost, and that of the ghosts that make others.

use aya_ebpf::{
    bindings::{BPF_LOCAL_STORAGE_GET_F_CREATE, bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE, task_struct},
    cty::c_void,
    helpers::bpf_task_storage_get,
    macros::map,
    maps::PerCpuArray,
};
use ghost_abi::{Expecting, GhostState};

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

impl<T> TaskStorage<T> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    /// The task's value, or null: it has none, and with `flags` of 0 gets none. A new one is a copy of `initial`.
    ///
    /// # Safety
    /// `task` comes from the tracepoint or from `bpf_get_current_task_btf`, so that the verifier accepts it as a task;
    /// `initial` is null or what the verifier takes for a value of this map.
    #[inline(always)]
    unsafe fn get(&'static self, task: *const task_struct, initial: *mut T, flags: u32) -> *mut T {
        let map = core::ptr::from_ref(self).cast_mut().cast::<c_void>();
        // SAFETY: as this function's.
        unsafe { bpf_task_storage_get(map, task.cast_mut().cast(), initial.cast(), flags.into()) }.cast()
    }
}

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "GHOSTS")]
static GHOSTS: TaskStorage<GhostState> = TaskStorage::new();

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "EXPECTING")]
static EXPECTING: TaskStorage<Expecting> = TaskStorage::new();

/// Where a new ghost's first state is put together: too large for the stack.
#[map]
static NEWBORN: PerCpuArray<GhostState> = PerCpuArray::with_max_entries(1, 0);

/// The state of `task`, which comes from a tracepoint or is the running one; null if it is no ghost of this loader.
#[inline(always)]
pub fn state_of(task: *const task_struct) -> *mut GhostState {
    // SAFETY: see above; nothing is made.
    unsafe { GHOSTS.get(task, core::ptr::null_mut(), 0) }
}

/// A task has got a child: if a ghost was awaited from it, this is it, or is to make it in its turn. Fires before the child
/// runs for the first time (kernel/fork.c, `kernel_clone()`). It can be seen since a moment before: what is sent to it
/// in between is lost, and only who guesses its number can send it anything but a signal to its parent's group.
#[inline(always)]
pub fn forked(parent: *const task_struct, child: *const task_struct) {
    // SAFETY: both come from the tracepoint; a value that is not null is the task's.
    unsafe {
        let expecting = EXPECTING.get(parent, core::ptr::null_mut(), 0);
        if expecting.is_null() || (*expecting).ghost == 0 {
            return;
        }
        let Expecting { ghost, generations, tag } = *expecting;
        (*expecting).ghost = 0;
        if generations > 1 {
            let mut next = Expecting { ghost, generations: generations - 1, tag };
            EXPECTING.get(child, &raw mut next, BPF_LOCAL_STORAGE_GET_F_CREATE);
            return;
        }
        // Nothing else of it is ever changed; tracepoint programs run with preemption off.
        let Some(newborn) = NEWBORN.get_ptr_mut(0) else { return };
        (*newborn).ghost = ghost;
        (*newborn).tag = tag;
        GHOSTS.get(child, newborn, BPF_LOCAL_STORAGE_GET_F_CREATE);
    }
}
