//! The time-stamp counter: the kernel's clock and its trace's. Under `-icount shift=0` it counts
//! executed instructions.

use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicU64, Ordering};

use super::{cpu, features, pit};

static HZ: AtomicU64 = AtomicU64::new(0);

/// Rates that a measurement may give; anything else means that it went wrong.
const PLAUSIBLE_HZ: core::ops::RangeInclusive<u64> = 50_000_000..=20_000_000_000;
/// Measurements taken. An emulator that loses its CPU at the wrong moment spoils one, in either
/// direction, so the middle one counts.
const MEASUREMENTS: usize = 3;
/// Measurements tried for that.
const ATTEMPTS: usize = 10;

/// Ticks since reset.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: RDTSC reads a counter; CR4.TSD only matters outside ring 0.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Lets RDTSCP tell programs the number of this CPU (IA32_TSC_AUX; SDM vol. 3, 18.17.2).
///
/// # Safety
/// By CPU `cpu`, once.
pub(super) unsafe fn tell_cpu_number(cpu: u32) {
    const IA32_TSC_AUX: u32 = 0xC000_0103;
    if features::detect().rdtscp {
        // SAFETY: the register exists with RDTSCP, and means nothing to the kernel.
        unsafe { x86_64::registers::model_specific::Msr::new(IA32_TSC_AUX).write(cpu.into()) };
    }
}

/// Ticks in a second, as calibrated at boot; 0 before.
#[inline]
pub fn hz() -> u64 {
    HZ.load(Ordering::Relaxed)
}

/// Ticks in so many microseconds; 0 before calibration.
pub fn from_us(us: u64) -> u64 {
    (u128::from(us) * u128::from(hz()) / 1_000_000) as u64
}

/// Microseconds in so many ticks, rounded down; 0 before calibration.
pub fn to_us(ticks: u64) -> u64 {
    (u128::from(ticks) * 1_000_000).checked_div(u128::from(hz())).unwrap_or(0) as u64
}

/// How the rate was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// CPUID leaf 15h, the crystal's rate and the ratio.
    CpuidCrystal,
    /// CPUID leaf 4000_0010h, a hypervisor's word.
    CpuidHypervisor,
    /// Measured against the interval timer.
    Pit,
}

/// Finds the rate.
///
/// # Errors
/// When neither CPUID nor an interval timer tells.
pub(super) fn calibrate() -> Result<Source, &'static str> {
    let (hz, source) = if let Some(hz) = crystal() {
        (hz, Source::CpuidCrystal)
    } else if let Some(hz) = hypervisor() {
        (hz, Source::CpuidHypervisor)
    } else {
        (measure().unwrap_or(0), Source::Pit)
    };
    if !PLAUSIBLE_HZ.contains(&hz) {
        return Err("the rate of the time-stamp counter cannot be found: CPUID does not tell and \
                    there is no interval timer; with QEMU's microvm use pit=on");
    }
    HZ.store(hz, Ordering::Relaxed);
    Ok(source)
}

/// The median of a few measurements. On a busy host one may come to nothing, so some more are
/// tried.
fn measure() -> Option<u64> {
    let mut measured = [0; MEASUREMENTS];
    let mut count = 0;
    for _ in 0..ATTEMPTS {
        // SAFETY: boot; nobody else uses the interval timer.
        if let Some(hz) = unsafe { pit::measure_tsc_hz() }
            && PLAUSIBLE_HZ.contains(&hz)
        {
            measured[count] = hz;
            count += 1;
            if count == MEASUREMENTS {
                break;
            }
        }
    }
    let measured = &mut measured[..count];
    measured.sort_unstable();
    measured.get(count / 2).copied()
}

/// SDM vol. 3, 18.7.3. All three registers must be filled for this to be a frequency.
fn crystal() -> Option<u64> {
    if __cpuid(0).eax < 0x15 {
        return None;
    }
    let leaf = __cpuid(0x15);
    (leaf.eax != 0 && leaf.ebx != 0 && leaf.ecx != 0)
        .then(|| u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax))
}

/// The "generic CPUID space" that VMware defined and KVM fills: EAX is kHz.
fn hypervisor() -> Option<u64> {
    if !features::detect().hypervisor || __cpuid(0x4000_0000).eax < 0x4000_0010 {
        return None;
    }
    let khz = __cpuid(0x4000_0010).eax;
    (khz != 0).then(|| u64::from(khz) * 1000)
}

/// Waits, busily; for devices that ask for it at boot.
pub fn delay_us(us: u64) {
    let end = now() + from_us(us);
    while now() < end {
        cpu::spin(100);
        cpu::pause();
    }
}
