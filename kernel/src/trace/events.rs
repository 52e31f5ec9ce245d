//! Every event of the kernel, in one table.
//!
//! Each line becomes two functions: `name(fields…)`, which may be called from anywhere, and
//! `name_at(irq, now, fields…)` for where interrupts are off and the time is known. The macro interns the
//! statement `category:name field={=type} …` in the ELF's `.defmt` section as defmt's own macros
//! do (a byte whose symbol *name* is the JSON and whose *address* is the index), and writes the
//! frame itself: defmt's path is out of line and costs four times as much.
//!
//! The host binds to events and fields by name: renaming one is a change of the interface.
//! `docs/trace-format.md` has the encoding.
//!
//! The previous task of a switch is not written: it is whoever ran, which the block's head or the
//! switch before says. `seq` is the task's wake count, modulo 256: it is raised by each successful
//! wake and travels with the task, so that the host need not guess causes from clocks.

use super::record::{self, Category, Field};
use crate::arch::irq::IrqOff;

macro_rules! field_type {
    (str) => {
        &str
    };
    (bytes) => {
        &[u8]
    };
    ($type:ident) => {
        $type
    };
}

macro_rules! defmt_type {
    (bytes) => {
        "{=[u8]}"
    };
    ($type:ident) => {
        concat!("{=", stringify!($type), "}")
    };
}

macro_rules! events {
    ($($(#[$doc:meta])* $category:ident $word:literal: $name:ident / $name_at:ident
        { $($field:ident: $type:ident),* })*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name($($field: field_type!($type)),*) {
            if record::any_enabled::<{ Category::$category as u32 }>() {
                record::write_now(index::$name(), 0 $(+ Field::len_bytes($field))*, |_at| {
                    // SAFETY: `write` gives room for all fields.
                    unsafe { $(let _at = Field::write($field, _at);)* }
                });
            }
        }

        #[doc = concat!("[`", stringify!($name), "`] where interrupts are off and the time is known.")]
        #[inline(always)]
        // One argument a field; the longest event is one over clippy's limit.
        #[allow(clippy::too_many_arguments)]
        pub fn $name_at(_irq: &IrqOff, _now_ticks: u64 $(, $field: field_type!($type))*) {
            if record::any_enabled::<{ Category::$category as u32 }>() {
                record::write(_irq, _now_ticks, index::$name(), 0 $(+ Field::len_bytes($field))*, |_at| {
                    // SAFETY: `write` gives room for all fields.
                    unsafe { $(let _at = Field::write($field, _at);)* }
                });
            }
        }
    )*
        /// Where each statement stands in the `.defmt` section.
        mod index {$(
            #[inline(always)]
            pub fn $name() -> u16 {
                #[unsafe(link_section = concat!(".defmt.trace.", stringify!($name)))]
                #[unsafe(export_name = concat!(
                    "{\"package\":\"orrery\",\"tag\":\"defmt_trace\",\"data\":\"",
                    $word, ":", stringify!($name) $(, " ", stringify!($field), "=", defmt_type!($type))*,
                    "\",\"disambiguator\":\"0\",\"crate_name\":\"orrery\"}"
                ))]
                static STATEMENT: u8 = 0;
                &raw const STATEMENT as usize as u16
            }
        )*}
    };
}

events! {
    /// The CPU goes from the running task to `next`. `prev_state` is the state that the previous
    /// task goes into: 0 runnable, 1 interruptible, 2 uninterruptible, 5 zombie, 6 dead. `seq` is `next`'s.
    Sched "sched": sched_switch / sched_switch_at { next: u32, prev_state: u8, seq: u8 }
    /// The running task wakes `pid`, which goes to CPU `target`.
    Wake "wake": sched_wakeup / sched_wakeup_at { pid: u32, target: u8, seq: u8 }
    /// `pid` is put on this CPU's run queue, which now holds `queued` waiting tasks.
    Wake "wake": sched_enqueue / sched_enqueue_at { pid: u32, queued: u16, seq: u8 }
    /// `count` tasks that others woke are taken from this CPU's inbox.
    Wake "wake": inbox_drain / inbox_drain_at { count: u16 }
    /// This CPU wants to reschedule, on behalf of `pid` (0: a slice has ended).
    Sched "sched": need_resched / need_resched_at { pid: u32 }
    /// `pid` moves from the queue of CPU `from` to that of `to`: 0 sent there (a wake, or its affinity), 1 pulled.
    Sched "sched": sched_migrate / sched_migrate_at { pid: u32, from: u8, to: u8, seq: u8, reason: u8 }
    /// An inter-processor interrupt is sent: 0 reschedule, 1 call function, 2 stop.
    Irq "irq": ipi_send / ipi_send_at { target: u8, kind: u8 }
    /// An inter-processor interrupt has come.
    Irq "irq": ipi_receive / ipi_receive_at { kind: u8 }
    /// An interrupt handler begins.
    Irq "irq": irq_enter / irq_enter_at { vector: u8 }
    /// An interrupt handler is done (deferred work and preemption follow).
    Irq "irq": irq_exit / irq_exit_at { vector: u8 }
    /// Deferred work of this kind begins at interrupt exit: 2 wakes the drain,
    /// 3 wakes the work queue's task.
    Work "work": softirq_enter / softirq_enter_at { kind: u8 }
    /// Deferred work of this kind is done.
    Work "work": softirq_exit / softirq_exit_at { kind: u8 }
    /// The work-queue task begins the work item whose function is at this address.
    Work "work": work_start / work_start_at { function: u64 }
    /// The work item is done.
    Work "work": work_end / work_end_at { function: u64 }
    /// The CPU's timer is set to expire at `deadline` ticks.
    Timer "timer": timer_arm / timer_arm_at { deadline: u64 }
    /// A timer has expired, `late` ticks after its deadline, for the sake of task `pid`.
    Timer "timer": timer_expire / timer_expire_at { late: u32, pid: u32 }
    /// The CPU has nothing to run: 0 it polls, 1 it halts.
    Idle "idle": idle_enter / idle_enter_at { mode: u8 }
    /// The CPU polls or halts no more.
    Idle "idle": idle_exit / idle_exit_at { mode: u8 }
    /// Preemption was off for `ticks`, longer than the threshold; ended at address `site`.
    Latency "latency": preempt_off / preempt_off_at { ticks: u32, site: u64 }
    /// Interrupts were off for `ticks`, longer than the threshold; ended at address `site`.
    Latency "latency": irq_off / irq_off_at { ticks: u32, site: u64 }
    /// Task `pid` exists now, made by `parent`.
    Task "task": task_new / task_new_at { pid: u32, parent: u32 }
    /// What task `pid` is: class 0 FIFO, 1 RR, 2 fair, 3 idle; `priority` 0–99 in the first two.
    Task "task": task_attr / task_attr_at { pid: u32, class: u8, priority: u8, nice: i8, affinity: u64, name: str }
    /// Task `pid` has ended with this code.
    Task "task": task_exit / task_exit_at { pid: u32, code: i32 }
    /// Task `pid` existed when tracing started.
    Task "task": task_dump / task_dump_at { pid: u32, parent: u32, state: u8, cpu: u8 }
    /// The spinlock at this address was waited for, for `ticks`; CPU `owner` had it, or, for 255, a task that did
    /// not run.
    Lock "lock": lock_contended / lock_contended_at { lock: u64, ticks: u32, owner: u8 }
    /// A page fault at `ip` on `address`, with the CPU's error code.
    Fault "fault": page_fault / page_fault_at { address: u64, ip: u64, code: u32 }
    /// A program calls `number`, with these first arguments.
    Syscall "syscall": syscall_enter / syscall_enter_at { number: u32, first: u64, second: u64, third: u64 }
    /// The call is done: a value, or a negative error number.
    Syscall "syscall": syscall_exit / syscall_exit_at { number: u32, result: i64 }
    /// A program calls a number that the kernel does not have.
    Process "process": syscall_unknown / syscall_unknown_at { number: u32 }
    /// The running thread has made thread or process `child`, with these `CLONE_` flags.
    Process "process": process_fork / process_fork_at { child: u32, flags: u32 }
    /// The process `pid` begins another program.
    Process "process": process_exec / process_exec_at { pid: u32, name: str }
    /// The process `pid` has ended, with this status word of wait4(2).
    Process "process": process_exit / process_exit_at { pid: u32, status: u32 }
    /// The zombie `pid` is gone.
    Process "process": process_reap / process_reap_at { pid: u32 }
    /// The process of thread `pid` is killed because memory has run out.
    Process "process": oom_kill / oom_kill_at { pid: u32 }
    /// Address space `space` is forked; the copy is `child`.
    Memory "memory": mm_fork / mm_fork_at { space: u32, child: u32 }
    /// CPUs `cpus` (a bit each) are told to forget `pages` translations; 2^32 - 1 is all.
    Memory "memory": tlb_shootdown / tlb_shootdown_at { cpus: u64, pages: u32 }
    /// No memory is left for what address space `space` touches at `address`.
    Memory "memory": oom / oom_at { space: u32, address: u64 }
    /// The process `pid` is sent a signal, with this `si_code`.
    Signal "signal": signal_generate / signal_generate_at { pid: u32, signal: u8, code: i32 }
    /// The running thread takes a signal; `handler` is the address of what it runs, 0 for the default action.
    Signal "signal": signal_deliver / signal_deliver_at { signal: u8, code: i32, handler: u64 }
    /// The process `pid` has stopped, by this signal.
    Signal "signal": job_stop / job_stop_at { pid: u32, signal: u8 }
    /// The process `pid` goes on after a stop.
    Signal "signal": job_continue / job_continue_at { pid: u32 }
    /// An application marks a moment.
    Mark "mark": mark / mark_at { value: u64, text: str }
    /// A line of the kernel's log, as the defmt frame that `defmt-decoder` reads.
    Log "log": log / log_at { frame: bytes }
}
