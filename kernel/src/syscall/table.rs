//! Which number is which call. In the order of the areas, not of the numbers.

use linux_raw_sys::general::*;

use super::{Args, SysResult, futex, memory, process, signal, time, unknown};

/// Calls the function of a number.
#[inline(always)]
pub(super) fn call(number: u64, args: &Args) -> SysResult {
    // Numbers beyond 32 bits are no calls; the table is one jump.
    match u32::try_from(number).unwrap_or(u32::MAX) {
        __NR_mmap => memory::mmap(args),
        __NR_munmap => memory::munmap(args),
        __NR_mprotect => memory::mprotect(args),
        __NR_mremap => memory::mremap(args),
        __NR_madvise => memory::madvise(args),
        __NR_brk => memory::brk(args),
        __NR_msync => memory::msync(args),
        __NR_mlock | __NR_mlock2 | __NR_munlock => memory::mlock(args),
        __NR_mlockall | __NR_munlockall => memory::mlockall(args),

        __NR_fork => process::fork(args),
        __NR_vfork => process::vfork(args),
        __NR_clone => process::clone(args),
        __NR_clone3 => process::clone3(args),
        __NR_execve => process::execve(args),
        __NR_execveat => process::execveat(args),
        __NR_exit => process::exit(args),
        __NR_exit_group => process::exit_group(args),
        __NR_wait4 => process::wait4(args),
        __NR_waitid => process::waitid(args),

        __NR_rt_sigaction => signal::rt_sigaction(args),
        __NR_rt_sigprocmask => signal::rt_sigprocmask(args),
        __NR_rt_sigpending => signal::rt_sigpending(args),
        __NR_rt_sigsuspend => signal::rt_sigsuspend(args),
        __NR_rt_sigtimedwait => signal::rt_sigtimedwait(args),
        __NR_rt_sigqueueinfo => signal::rt_sigqueueinfo(args),
        __NR_rt_tgsigqueueinfo => signal::rt_tgsigqueueinfo(args),
        __NR_rt_sigreturn => signal::rt_sigreturn(args),
        __NR_sigaltstack => signal::sigaltstack(args),
        __NR_kill => signal::kill(args),
        __NR_tkill => signal::tkill(args),
        __NR_tgkill => signal::tgkill(args),
        __NR_pidfd_send_signal => signal::pidfd_send_signal(args),
        __NR_pause => signal::pause(args),
        __NR_restart_syscall => signal::restart_syscall(args),

        __NR_futex => futex::futex(args),
        __NR_set_robust_list => futex::set_robust_list(args),
        __NR_get_robust_list => futex::get_robust_list(args),
        __NR_set_tid_address => futex::set_tid_address(args),

        __NR_clock_gettime => time::clock_gettime(args),
        __NR_clock_getres => time::clock_getres(args),
        __NR_clock_settime => time::clock_settime(args),
        __NR_gettimeofday => time::gettimeofday(args),
        __NR_time => time::time(args),
        __NR_nanosleep => time::nanosleep(args),
        __NR_clock_nanosleep => time::clock_nanosleep(args),

        _ => unknown(number),
    }
}
