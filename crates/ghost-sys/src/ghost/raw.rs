//! System calls without libc, for code that runs in shared memory.

use core::arch::asm;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("ghosts are written for x86_64: this file and the kernel programs need a port");

/// `struct clone_args` of linux/sched.h, the first 88 bytes (CLONE_ARGS_SIZE_VER2).
#[repr(C)]
#[derive(Default)]
pub struct CloneArguments {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// Makes a system call; gives what the kernel gave: a result, or a negative errno.
///
/// # Safety
/// The arguments must be right for the call: the kernel reads and writes the memory that they point to.
#[inline(always)]
pub unsafe fn call(number: libc::c_long, arguments: [usize; 4]) -> isize {
    let result: isize;
    // SAFETY: the x86_64 convention: number in rax, arguments in rdi, rsi, rdx, r10; rcx and r11 are lost. The caller
    // answers for the arguments.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// clone3(2) onto a stack of its own, where the child calls `entry(argument)`. Gives the PID, or a negative errno.
///
/// # Safety
/// `arguments` must name a stack whose end is a multiple of 16 and that nobody else uses while the child lives; flags must
/// be such that the child may run `entry` (CLONE_VM without CLONE_SETTLS: it must not touch thread-local storage).
pub unsafe fn clone_onto<T>(
    arguments: &CloneArguments,
    entry: extern "C" fn(*const T) -> !,
    argument: *const T,
) -> isize {
    let result: isize;
    // SAFETY: in the parent this is a plain system call. The child starts after the same instruction with rax = 0 and rsp at
    // the end of its own stack, takes the function and its argument from registers, and never comes back here.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") core::ptr::from_ref(arguments),
            in("rsi") size_of::<CloneArguments>(),
            in("r12") entry as usize,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}
