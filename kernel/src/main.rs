//! The boot story, top to bottom.
#![no_std]
#![no_main]

#[cfg(feature = "app")]
extern crate app as _;

use orrery::boot::BootInfo;
use orrery::{
    arch, console, init, mm, options, panic, process, sched, syscall, time, trace, watchdog,
};

static HOOKS: arch::Hooks = arch::Hooks {
    interrupt: sched::interrupt::on_interrupt,
    preempt: sched::switch::preempt_current,
    lock_contended: trace::on_lock_contended,
    long_section: trace::on_long_section,
    fatal_exception: panic::on_exception,
    page_fault: process::fault::on_kernel_page_fault,
    user_page_fault: process::fault::on_user_page_fault,
    user_exception: process::fault::on_user_exception,
    return_to_user: process::return_to_user,
    stop: panic::on_stop,
};

/// Where every loader's door leads to: the boot CPU, on the boot stack, interrupts off.
#[unsafe(no_mangle)]
fn kernel_main(boot: &'static BootInfo) -> ! {
    // SAFETY: each once, in this order, on the boot CPU with interrupts off.
    let platform = unsafe {
        arch::init_boot_cpu();
        mm::init(boot);
        arch::set_hooks(&HOOKS);
        arch::syscall::set_handler(syscall::on_syscall);
        arch::init_platform(boot)
    };
    // SAFETY: the platform is known, and no program runs yet.
    unsafe { time::init() };
    options::parse(boot.command_line());
    mm::space::init_pcids(options::get().pcid);
    // From here on the boot CPU is its own idle task, though nothing else runs yet.
    sched::init_boot_cpu();
    watchdog::boot_goes_on();
    let others = arch::smp::start_others(&platform.cpus, sched::run_secondary);
    trace::init(boot.command_line());
    watchdog::boot_goes_on();
    console::input::init(boot);
    init::announce(boot, &platform, &others);
    watchdog::boot_goes_on();
    init::create();
    sched::idle::run()
}
