//! Threads that end as threads, not with their process.

/// Ends the calling thread alone, with a code that counts if it is the process's leader (exit(2), not exit(3)). The leader
/// stays a zombie until the others have ended.
pub fn end_thread(code: u8) -> ! {
    // SAFETY: one integer. What the thread has not dropped is lost, which is no matter to memory safety; its stack is still
    // mapped when the kernel runs nothing of it any more.
    unsafe { libc::syscall(libc::SYS_exit, libc::c_long::from(code)) };
    unreachable!("exit(2) does not come back")
}
