//! The vDSO (vdso(7)): code that the kernel maps into every program, which reads the clock and the CPU's
//! number without a system call.
//!
//! It is one page, a complete ELF shared object that C libraries find by `AT_SYSINFO_EHDR` and search for
//! their functions. The page before it has the [`Data`] that the code reads. Both are the same for all
//! programs and never change once the clock is known.
//!
//! ```text
//!   AT_SYSINFO_EHDR − 4096   Data           mapped r--
//!   AT_SYSINFO_EHDR          image.rs       mapped r-x
//! ```
//!
//! It is here, and not with the kernel, so that the host's tests can run it.

#[cfg(target_arch = "x86_64")]
mod image;

#[cfg(target_arch = "x86_64")]
pub use image::page;

use crate::time::Rate;

/// Bytes of each of the two pages.
pub const PAGE_BYTES: usize = 4096;

/// What the code reads. It knows where each field is.
#[repr(C, align(4096))]
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// [`Rate::mult`] of the time-stamp counter.
    mult: u64,
    /// What to add to `CLOCK_MONOTONIC` to get `CLOCK_REALTIME`, in nanoseconds.
    realtime_offset_nanos: u64,
    /// Resolution of the clocks, in nanoseconds.
    resolution_nanos: u64,
    /// 1 if RDTSCP tells the CPU's number.
    has_rdtscp: u64,
}

/// Whether the CPU's number can be had without a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuNumber {
    /// RDTSCP tells it (IA32_TSC_AUX was set).
    Rdtscp,
    /// A system call does.
    SystemCall,
}

impl Data {
    /// With these clocks.
    pub const fn new(rate: Rate, realtime_offset_nanos: u64, cpu_number: CpuNumber) -> Self {
        Self {
            mult: rate.mult(),
            realtime_offset_nanos,
            resolution_nanos: 1,
            has_rdtscp: matches!(cpu_number, CpuNumber::Rdtscp) as u64,
        }
    }
}

#[cfg(all(test, target_arch = "x86_64", not(miri)))]
mod tests;
