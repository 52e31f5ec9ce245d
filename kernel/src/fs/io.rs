//! Where the bytes of a read go and where those of a write come from: memory of the program that makes
//! the call, in one piece or several, or of the kernel.
//!
//! A file only ever sees [`IoTo`] and [`IoFrom`], so the same code serves a program's `readv` and the
//! kernel's loading of a program. Both count what has been moved: when a call fails after some of it,
//! the program is told of what was done, not of the failure.
//!
//! Copying may fault and takes the locks that faults take: no spinlock is held meanwhile.

use core::marker::PhantomData;

use orrery_core::errno::Errno;

use crate::arch::uaccess;

/// A piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins.
    pub address: u64,
    /// Its bytes.
    pub len_bytes: usize,
}

/// Whose memory it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Program,
    /// The kernel's; borrowed for as long as the cursor lives.
    Kernel,
}

/// How far a transfer has come.
struct Cursor<'a> {
    owner: Owner,
    /// What is left of the current segment.
    now: Segment,
    next: &'a [Segment],
    /// Bytes left in all segments.
    left_bytes: usize,
    /// These and what has been moved.
    total_bytes: usize,
}

impl<'a> Cursor<'a> {
    fn new(owner: Owner, segments: &'a [Segment]) -> Self {
        let (now, next) = match segments.split_first() {
            Some((first, rest)) => (*first, rest),
            None => (Segment { address: 0, len_bytes: 0 }, segments),
        };
        let left_bytes = segments.iter().map(|it| it.len_bytes).sum();
        Self { owner, now, next, left_bytes, total_bytes: left_bytes }
    }

    #[inline]
    fn one(owner: Owner, address: u64, len_bytes: usize) -> Self {
        let now = Segment { address, len_bytes };
        Self { owner, now, next: &[], left_bytes: len_bytes, total_bytes: len_bytes }
    }

    /// Moves up to `len_bytes` bytes; `step` moves a run of them (the address, the offset among these
    /// bytes, how many) and returns how many it has moved before it failed.
    #[inline(always)]
    fn transfer(
        &mut self,
        len_bytes: usize,
        mut step: impl FnMut(Owner, u64, usize, usize) -> usize,
    ) -> Result<usize, Errno> {
        let len_bytes = len_bytes.min(self.left_bytes);
        if len_bytes > self.now.len_bytes {
            return self.transfer_many(len_bytes, step);
        }
        let done = step(self.owner, self.now.address, 0, len_bytes);
        self.advance(done);
        if done < len_bytes { Err(Errno::EFAULT) } else { Ok(done) }
    }

    /// As [`Self::transfer`], but moves all of them or, as far as anybody is told, none.
    #[inline(always)]
    fn transfer_whole(
        &mut self,
        len_bytes: usize,
        step: impl FnMut(Owner, u64, usize, usize) -> usize,
    ) -> Result<usize, Errno> {
        let (now, next, left_bytes) = (self.now, self.next, self.left_bytes);
        self.transfer(len_bytes, step).inspect_err(|_| {
            (self.now, self.next, self.left_bytes) = (now, next, left_bytes);
        })
    }

    #[inline]
    fn done(&self) -> usize {
        self.total_bytes - self.left_bytes
    }

    /// Notes that so many bytes of the current segment have been moved.
    #[inline(always)]
    fn advance(&mut self, done: usize) {
        self.now.address += done as u64;
        self.now.len_bytes -= done;
        self.left_bytes -= done;
    }

    /// [`Self::transfer`] of bytes that are in more than one segment.
    #[cold]
    fn transfer_many(
        &mut self,
        len_bytes: usize,
        mut step: impl FnMut(Owner, u64, usize, usize) -> usize,
    ) -> Result<usize, Errno> {
        let mut moved = 0;
        while moved < len_bytes {
            while self.now.len_bytes == 0 {
                // Bytes are left, so a segment is.
                let Some((first, rest)) = self.next.split_first() else { return Ok(moved) };
                (self.now, self.next) = (*first, rest);
            }
            let run = self.now.len_bytes.min(len_bytes - moved);
            let done = step(self.owner, self.now.address, moved, run);
            self.advance(done);
            moved += done;
            if done < run {
                return Err(Errno::EFAULT);
            }
        }
        Ok(moved)
    }
}

/// Where a read puts its bytes.
pub struct IoTo<'a> {
    cursor: Cursor<'a>,
    borrowed: PhantomData<&'a mut [u8]>,
}

impl<'a> IoTo<'a> {
    /// A program's memory, in one piece.
    #[inline]
    pub fn program(address: u64, len_bytes: usize) -> Self {
        Self { cursor: Cursor::one(Owner::Program, address, len_bytes), borrowed: PhantomData }
    }

    /// A program's memory, in several pieces. The sum of their lengths fits in an `i64`.
    pub fn program_segments(segments: &'a [Segment]) -> Self {
        Self { cursor: Cursor::new(Owner::Program, segments), borrowed: PhantomData }
    }

    /// The kernel's memory.
    pub fn kernel(bytes: &'a mut [u8]) -> Self {
        let cursor = Cursor::one(Owner::Kernel, bytes.as_mut_ptr() as u64, bytes.len());
        Self { cursor, borrowed: PhantomData }
    }

    /// Bytes that still fit.
    #[inline]
    pub fn left(&self) -> usize {
        self.cursor.left_bytes
    }

    /// Bytes put so far.
    #[inline]
    pub fn done(&self) -> usize {
        self.cursor.done()
    }

    /// Puts as many of these bytes as fit; returns how many.
    ///
    /// # Errors
    /// `EFAULT` if the memory cannot be written; some bytes may have been put.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        self.cursor.transfer(bytes.len(), |owner, to, offset, len| {
            Self::put_run(bytes, owner, to, offset, len)
        })
    }

    /// [`Self::put`] of what is still there for others, should it fail: then nothing counts as put.
    ///
    /// # Errors
    /// `EFAULT`.
    #[inline]
    pub fn put_whole(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        self.cursor.transfer_whole(bytes.len(), |owner, to, offset, len| {
            Self::put_run(bytes, owner, to, offset, len)
        })
    }

    /// Moves a run of these bytes, as `transfer` wants it.
    #[inline(always)]
    fn put_run(bytes: &[u8], owner: Owner, to: u64, offset: usize, len: usize) -> usize {
        // Inside, by the contract of `transfer`; where that is broken nothing is moved.
        let Some(bytes) = bytes.get(offset..offset + len) else { return 0 };
        match owner {
            Owner::Program => uaccess::copy_out_partly(to, bytes),
            Owner::Kernel => {
                // SAFETY: inside the slice that `kernel` borrowed exclusively.
                unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, len) };
                len
            }
        }
    }

    /// Puts up to so many zero bytes; returns how many.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn put_zeroes(&mut self, len_bytes: usize) -> Result<usize, Errno> {
        static ZEROES: [u8; 512] = [0; 512];
        let len_bytes = len_bytes.min(self.left());
        for at in (0..len_bytes).step_by(ZEROES.len()) {
            self.put(&ZEROES[..ZEROES.len().min(len_bytes - at)])?;
        }
        Ok(len_bytes)
    }
}

/// Where a write takes its bytes from.
pub struct IoFrom<'a> {
    cursor: Cursor<'a>,
    borrowed: PhantomData<&'a [u8]>,
}

impl<'a> IoFrom<'a> {
    /// A program's memory, in one piece.
    #[inline]
    pub fn program(address: u64, len_bytes: usize) -> Self {
        Self { cursor: Cursor::one(Owner::Program, address, len_bytes), borrowed: PhantomData }
    }

    /// A program's memory, in several pieces. The sum of their lengths fits in an `i64`.
    pub fn program_segments(segments: &'a [Segment]) -> Self {
        Self { cursor: Cursor::new(Owner::Program, segments), borrowed: PhantomData }
    }

    /// The kernel's memory.
    pub fn kernel(bytes: &'a [u8]) -> Self {
        let cursor = Cursor::one(Owner::Kernel, bytes.as_ptr() as u64, bytes.len());
        Self { cursor, borrowed: PhantomData }
    }

    /// Bytes that are left.
    #[inline]
    pub fn left(&self) -> usize {
        self.cursor.left_bytes
    }

    /// Bytes taken so far.
    #[inline]
    pub fn done(&self) -> usize {
        self.cursor.done()
    }

    /// Fills these bytes, as far as there are so many; returns how many there were.
    ///
    /// # Errors
    /// `EFAULT` if the memory cannot be read; some bytes may have been taken.
    #[inline]
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<usize, Errno> {
        self.cursor.transfer(bytes.len(), |owner, from, offset, len| {
            Self::take_run(bytes, owner, from, offset, len)
        })
    }

    /// [`Self::take`], after whose failure nothing counts as taken.
    ///
    /// # Errors
    /// `EFAULT`.
    #[inline]
    pub fn take_whole(&mut self, bytes: &mut [u8]) -> Result<usize, Errno> {
        self.cursor.transfer_whole(bytes.len(), |owner, from, offset, len| {
            Self::take_run(bytes, owner, from, offset, len)
        })
    }

    /// Moves a run to these bytes, as `transfer` wants it.
    #[inline(always)]
    fn take_run(bytes: &mut [u8], owner: Owner, from: u64, offset: usize, len: usize) -> usize {
        let Some(bytes) = bytes.get_mut(offset..offset + len) else { return 0 };
        match owner {
            Owner::Program => uaccess::copy_in_partly(bytes, from),
            Owner::Kernel => {
                // SAFETY: inside the slice that `kernel` borrowed.
                unsafe {
                    core::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), len);
                };
                len
            }
        }
    }

    /// Does not count what was taken: the write as a whole has failed.
    pub fn forget_done(&mut self) {
        self.cursor.total_bytes = self.cursor.left_bytes;
    }

    /// Takes all bytes that are left and forgets them.
    pub fn discard(&mut self) {
        self.cursor.left_bytes = 0;
    }
}
