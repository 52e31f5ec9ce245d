//! Pages that are in memory, and bringing them there before they are touched: mincore(2), mlock(2), `MAP_POPULATE`.

use orrery_core::errno::Errno;
use orrery_core::space::{Access, Area, PAGE_BYTES, tables};

use super::backing::Backing;
use super::fault::Fault;
use super::map::range_end;
use super::{Inner, Space};
use crate::mm::frames;

impl Space {
    /// Whether something is mapped everywhere in a range.
    ///
    /// # Errors
    /// `ENOMEM` if not; `EINVAL` for an unaligned address or a range beyond the window.
    pub fn check_mapped(&self, start: u64, len_bytes: u64) -> Result<(), Errno> {
        let end = range_end(start, len_bytes).ok_or(Errno::EINVAL)?;
        let is_mapped = self.inner.lock().areas.covers(start, end);
        if is_mapped { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// Says of each page from `start` on whether it is in memory: 1, or 0 where touching it would take some.
    ///
    /// # Errors
    /// `ENOMEM` at the first page where nothing is mapped.
    pub fn presence(&self, start: u64, pages: &mut [u8]) -> Result<(), Errno> {
        let inner = self.inner.lock();
        let mut address = start;
        for page in pages {
            let area = inner.areas.find(address).ok_or(Errno::ENOMEM)?;
            *page = self.is_present(&inner, area, address).into();
            address += PAGE_BYTES;
        }
        Ok(())
    }

    /// Under the lock.
    fn is_present(&self, _lock: &Inner, area: &Area<Backing>, address: u64) -> bool {
        let is_mapped = !tables::translate(self, self.root, address).is_empty();
        is_mapped
            || area.backing.object().is_some_and(|(object, offset)| {
                object.is_present((offset + (address - area.start)) / PAGE_BYTES)
            })
    }

    /// Brings the pages of a range into memory as if the program had touched them, so or, where `access` does not
    /// say how, as a program would that owns them; as long as `goes_on`. The last eighth of the memory is for those
    /// who need it now.
    ///
    /// # Errors
    /// The [`Fault`] at the first page that cannot be had.
    pub fn populate(
        &self,
        start: u64,
        len_bytes: u64,
        access: Option<Access>,
        goes_on: impl Fn() -> bool,
    ) -> Result<(), Fault> {
        let pages = (start..start + len_bytes).step_by(PAGE_BYTES as usize);
        for address in pages.take_while(|_| goes_on()) {
            let (free, total) = frames::free_and_total();
            if free < total / 8 {
                return Err(Fault::OutOfMemory);
            }
            let access = match access {
                Some(access) => access,
                None => self.owner_s_access(address)?,
            };
            self.fault(address, access)?;
        }
        Ok(())
    }

    /// A page that the program may write and shares with nobody is written, so that it is copied now.
    fn owner_s_access(&self, address: u64) -> Result<Access, Fault> {
        let inner = self.inner.lock();
        let area = inner.areas.find(address).ok_or(Fault::NotMapped)?;
        let is_shared = matches!(area.backing, Backing::Shared(..));
        Ok(if area.protection.writable() && !is_shared { Access::Write } else { Access::Read })
    }
}
