//! System calls without libc, for a child that shares its parent's memory.
//!
//! libc's wrappers write `errno`, which such a child would write into its parent's thread. These give the kernel's own
//! answer: a result, or an errno as a negative number.

use std::ffi::c_void;

#[cfg(target_arch = "x86_64")]
use std::arch::asm;

/// A system call with up to six arguments.
///
/// # Safety
/// The arguments must be what the system call asks for: pointers valid, memory that it writes not in other use.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) unsafe fn syscall(number: i64, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result: isize;
    // SAFETY: the caller answers for the arguments; the kernel changes rax, rcx and r11 only (syscall entry of x86-64).
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// clone3(2): the child runs `entry(argument)` on the stack that `arguments` names and never comes back.
///
/// # Safety
/// As clone3(2) asks; with CLONE_VM, what `argument` points to and the stack live until the child has left this memory.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn clone3(
    arguments: &libc::clone_args,
    entry: unsafe extern "C" fn(*const c_void) -> !,
    argument: *const c_void,
) -> isize {
    let result: isize;
    // SAFETY: in the parent this is an ordinary system call. In the child, which has its own registers, rsp is the top of
    // the new stack, 16-aligned, as the call instruction of the ABI wants it; r8 and r9 are kept by the kernel.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r8",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") arguments, in("rsi") size_of::<libc::clone_args>(),
            in("r8") entry, in("r9") argument,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
use std::arch::asm;

/// A system call with up to six arguments.
///
/// # Safety
/// The arguments must be what the system call asks for: pointers valid, memory that it writes not in other use.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(crate) unsafe fn syscall(number: i64, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result: isize;
    // SAFETY: the caller answers for the arguments; the kernel changes x0 only.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack)
        );
    }
    result
}

/// clone3(2): the child runs `entry(argument)` on the stack that `arguments` names and never comes back.
///
/// # Safety
/// As clone3(2) asks; with CLONE_VM, what `argument` points to and the stack live until the child has left this memory.
#[cfg(target_arch = "aarch64")]
pub(crate) unsafe fn clone3(
    arguments: &libc::clone_args,
    entry: unsafe extern "C" fn(*const c_void) -> !,
    argument: *const c_void,
) -> isize {
    let result: isize;
    // SAFETY: in the parent this is an ordinary system call. In the child, which has its own registers, sp is the top of
    // the new stack, 16-aligned; x9 and x10 are kept by the kernel.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x10",
            "blr x9",
            "brk 1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") arguments => result,
            in("x1") size_of::<libc::clone_args>(),
            in("x9") entry, in("x10") argument,
            lateout("x30") _,
        );
    }
    result
}
