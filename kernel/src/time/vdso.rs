//! The pages of the vDSO: `orrery_core::vdso`, with this machine's clock.

use alloc::string::String;
use alloc::sync::Arc;
use core::cell::UnsafeCell;

use orrery_core::errno::Errno;
use orrery_core::time::Rate;
use orrery_core::vdso::{self, CpuNumber, Data, PAGE_BYTES};

use crate::arch::features;
use crate::mm::address::{self, VirtAddr};
use crate::mm::space::{
    Access, AreaFlags, Backing, MapRequest, PageError, PageSource, Placement, Protection,
    SourcePage, Space,
};

struct DataPage(UnsafeCell<Data>);

// SAFETY: written by `init`, before any other use.
unsafe impl Sync for DataPage {}

static DATA: DataPage =
    DataPage(UnsafeCell::new(Data::new(Rate::new(0), 0, CpuNumber::SystemCall)));

/// # Safety
/// Once, before any program runs.
pub(super) unsafe fn init(rate: Rate, realtime_offset_nanos: u64) {
    let cpu_number =
        if features::detect().rdtscp { CpuNumber::Rdtscp } else { CpuNumber::SystemCall };
    // SAFETY: nobody reads it yet (caller).
    unsafe { *DATA.0.get() = Data::new(rate, realtime_offset_nanos, cpu_number) };
}

/// The two pages, the data first. They are part of the image and never freed.
struct Pages;

impl PageSource for Pages {
    fn page(&self, index: u64, _access: Access) -> Result<SourcePage, PageError> {
        let page: *const u8 = match index {
            0 => DATA.0.get().cast_const().cast(),
            1 => vdso::page().as_ptr(),
            _ => return Err(PageError::BeyondEnd),
        };
        Ok(SourcePage::Pinned(address::virt_to_phys(VirtAddr::from_ptr(page)).as_u64()))
    }

    fn name(&self) -> String {
        String::from("[vdso]")
    }

    fn identity(&self) -> u64 {
        0
    }
}

/// Maps it into a program. Returns the address of its ELF header, `AT_SYSINFO_EHDR`.
///
/// # Errors
/// `ENOMEM`.
pub fn map(space: &Space) -> Result<u64, Errno> {
    const PAGE: u64 = PAGE_BYTES as u64;
    let data = space.map(&MapRequest {
        hint: 0,
        len_bytes: 2 * PAGE,
        protection: Protection::READ,
        placement: Placement::Anywhere,
        backing: Backing::Private(Arc::new(Pages), 0),
        flags: AreaFlags::NONE,
    })?;
    let code = data + PAGE;
    space.protect(code, PAGE, Protection::READ_EXECUTE)?;
    Ok(code)
}
