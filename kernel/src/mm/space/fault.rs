//! Page faults, and what else needs the page behind an address.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use orrery_core::errno::Errno;
use orrery_core::space::{
    Access, Area, AreaFlags, Content, OutOfMemory, PAGE_BYTES, Protection, Update, WINDOW_END,
    WINDOW_START, tables,
};
use x86_64::PhysAddr;

use super::backing::{Backing, PageError, PageSource};
use super::{Inner, Recent, Space};
use crate::arch::irq;
use crate::mm::address::phys_to_virt;
use crate::trace::events;

/// Why an access is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is mapped there (`SEGV_MAPERR`).
    NotMapped,
    /// The area does not permit it (`SEGV_ACCERR`).
    Protection,
    /// The file ends before it (`BUS_ADRERR`).
    Bus,
    /// No memory is left: the program is killed.
    OutOfMemory,
}

impl From<OutOfMemory> for Fault {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<PageError> for Fault {
    fn from(why: PageError) -> Self {
        match why {
            PageError::BeyondEnd => Self::Bus,
            PageError::OutOfMemory => Self::OutOfMemory,
        }
    }
}

/// Who may wait for a futex (futex(2), `FUTEX_PRIVATE_FLAG`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Visibility {
    Private,
    Shared,
}

/// What a futex's address means, whatever space it is seen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FutexKey {
    /// An address in the space of this number.
    Private {
        /// [`Space::id`]
        space: u64,
        /// Its address there.
        address: u64,
    },
    /// A place in an object that several spaces may map.
    Shared {
        /// [`PageSource::identity`]
        object: u64,
        /// Bytes from its start.
        offset: u64,
    },
}

/// Pages below a stack that nothing else may be in, so that an overflow faults (Linux's
/// `stack_guard_gap`).
const STACK_GUARD_BYTES: u64 = 256 * PAGE_BYTES;

impl Space {
    /// Makes `access` to `address` possible, if the program may. For page faults, with interrupts on.
    ///
    /// # Errors
    /// See [`Fault`].
    #[inline]
    pub fn fault(&self, address: u64, access: Access) -> Result<(), Fault> {
        debug_assert!(irq::are_enabled());
        if !(WINDOW_START..WINDOW_END).contains(&address) {
            return Err(Fault::NotMapped);
        }
        let mut inner = self.inner.lock();
        let mut update = Update::<Self>::new(self, self.root);
        let recent = inner.recent;
        let is_recent = recent.start <= address && address < recent.end;
        let result = if is_recent && allows(recent.protection, access) {
            update.fault(address, access, recent.protection, || Ok::<_, Fault>(Content::Zero))
        } else {
            self.fault_in(&mut inner, &mut update, address, access)
        };
        update.flush();
        if result == Ok(true) {
            self.add_resident(1);
        }
        drop(inner);
        update.release();
        match result {
            Ok(_) => Ok(()),
            Err(why) => {
                if why == Fault::OutOfMemory {
                    events::oom(self.id as u32, address);
                }
                Err(why)
            }
        }
    }

    /// A fault in an area that has to be looked for.
    #[inline(never)]
    fn fault_in(
        &self,
        inner: &mut Inner,
        update: &mut Update<'_, Self>,
        address: u64,
        access: Access,
    ) -> Result<bool, Fault> {
        let area = inner.area_at(address)?;
        if !allows(area.protection, access) {
            return Err(Fault::Protection);
        }
        if matches!(area.backing, Backing::Anonymous) {
            let Area { start, end, protection, .. } = area;
            inner.recent = Recent { start, end, protection };
        }
        update.fault(address, access, area.protection, || content(&area, address))
    }

    /// Under the lock.
    #[inline(always)]
    pub(super) fn add_resident(&self, pages: u64) {
        let resident = self.resident.load(Ordering::Relaxed);
        self.resident.store(resident + pages, Ordering::Relaxed);
    }

    /// Under the lock.
    pub(super) fn remove_resident(&self, pages: u64) {
        self.past_resident.store(self.max_resident_pages(), Ordering::Relaxed);
        self.resident.store(self.resident_pages().saturating_sub(pages), Ordering::Relaxed);
    }

    /// Copies bytes out of the space, which need not be loaded, whatever the areas permit but
    /// `PROT_NONE`.
    ///
    /// # Errors
    /// The [`Fault`] at the first byte that cannot be read; those before it have been copied.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let len_bytes = bytes.len();
        self.each_page(address, len_bytes, Access::Read, |page, at, len| {
            // SAFETY: the page is mapped and the lock keeps it; `at..at + len` is in `bytes`.
            unsafe { core::ptr::copy_nonoverlapping(page, bytes[at..at + len].as_mut_ptr(), len) };
        })
    }

    /// Copies bytes into the space, which need not be loaded, where the areas permit writing.
    ///
    /// # Errors
    /// The [`Fault`] at the first byte that cannot be written; those before it have been.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.each_page(address, bytes.len(), Access::Write, |page, at, len| {
            // SAFETY: the page is the program's and the lock keeps it; `at..at + len` is in `bytes`.
            unsafe { core::ptr::copy_nonoverlapping(bytes[at..at + len].as_ptr(), page, len) };
        })
    }

    fn each_page(
        &self,
        address: u64,
        len_bytes: usize,
        access: Access,
        mut visit: impl FnMut(*mut u8, usize, usize),
    ) -> Result<(), Fault> {
        let mut at = 0;
        while at < len_bytes {
            let here = address.checked_add(at as u64).ok_or(Fault::NotMapped)?;
            let offset = here % PAGE_BYTES;
            let len = ((PAGE_BYTES - offset) as usize).min(len_bytes - at);
            self.fault(here, access)?;
            let inner = self.inner.lock();
            if let Some(page) = tables::accessible(self, self.root, here, access) {
                let page = phys_to_virt(PhysAddr::new(page + offset));
                visit(page.as_mut_ptr(), at, len);
                at += len;
            }
            // Otherwise another thread has unmapped or forked it meanwhile: once more.
            drop(inner);
        }
        Ok(())
    }

    /// What identifies the futex at `address`.
    ///
    /// # Errors
    /// `EFAULT` if nothing is mapped there, or may not be read; `EINVAL` if the address is not a multiple of 4.
    pub fn futex_key(&self, address: u64, visibility: Visibility) -> Result<FutexKey, Errno> {
        if !address.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        if address >= WINDOW_END {
            return Err(Errno::EFAULT);
        }
        let private = FutexKey::Private { space: self.id, address };
        if visibility == Visibility::Private {
            return Ok(private);
        }
        let inner = self.inner.lock();
        let area = inner.areas.find(address).filter(|area| area.protection.readable());
        let area = area.ok_or(Errno::EFAULT)?;
        Ok(match &area.backing {
            Backing::Shared(object, offset) => FutexKey::Shared {
                object: object.identity(),
                offset: offset + (address - area.start),
            },
            Backing::Anonymous | Backing::Private(..) => private,
        })
    }
}

#[inline(always)]
fn allows(protection: Protection, access: Access) -> bool {
    match access {
        Access::Read => protection.readable(),
        Access::Write => protection.writable(),
        Access::Execute => protection.executable(),
    }
}

/// The page of an area that has none there yet.
fn content(area: &Area<Backing>, address: u64) -> Result<Content, Fault> {
    let index = |offset: u64| (offset + (address - area.start)) / PAGE_BYTES;
    let object: &Arc<dyn PageSource>;
    Ok(match &area.backing {
        Backing::Anonymous => Content::Zero,
        Backing::Private(source, offset) => {
            object = source;
            Content::Private(object.page(index(*offset), Access::Read)?)
        }
        Backing::Shared(source, offset) => {
            object = source;
            // Even one that is only read shows what others write.
            Content::Shared(object.page(index(*offset), Access::Write)?)
        }
    })
}

impl Inner {
    /// The area that contains `address`, after the stack has grown there if it may.
    fn area_at(&mut self, address: u64) -> Result<Area<Backing>, Fault> {
        let area = self.areas.first_above(address).ok_or(Fault::NotMapped)?.clone();
        if area.start <= address {
            return Ok(area);
        }
        let start = address / PAGE_BYTES * PAGE_BYTES;
        let grown = area.end - start;
        let total = self.areas.bytes() + (area.start - start);
        let below = self.areas.last_below(area.start).map_or(0, |below| {
            let is_guard = !below.protection.readable() || below.flags.contains(AreaFlags::STACK);
            below.end + if is_guard { 0 } else { STACK_GUARD_BYTES }
        });
        if !area.flags.contains(AreaFlags::STACK)
            || grown > self.limits.stack_bytes
            || total > self.limits.total_bytes
            || start < below
        {
            return Err(Fault::NotMapped);
        }
        let more = Area { start, end: area.start, ..area.clone() };
        self.areas.insert(more).map_err(|_| Fault::OutOfMemory)?;
        Ok(Area { start, ..area })
    }
}
