//! virtio-console: the fast line to the host (Virtual I/O Device specification 1.2, §5.3).
//!
//! Transmits on port 0 only, polled. Bytes gather in one of two DMA buffers; a full one goes to the
//! device, and while the device reads it the other one fills. Small transfers are what is slow here
//! (measured: 2.9 MB/s at 64 bytes, 153 MB/s at 4 KiB), so nothing is sent before a buffer is full
//! or [`VirtioConsole::flush`] asks for it.
//!
//! # When the machine is going down
//!
//! Whoever reports a panic takes the console from whoever had it, at any instruction, with
//! all other CPUs stopped; so after [`VirtioConsole::find`] nothing here takes a lock or allocates,
//! and every wait is bounded. The one thing that must not be cut in two is a change of the virtqueue:
//! `busy` is set around it. A console that is found busy is started afresh ([`restart`](VirtioConsole::restart)),
//! with a queue in memory set aside for this. What was on its way may then arrive twice, or in part;
//! the reader of the stream copes with both.
//!
//! Neighbours: [`super::pci`] finds the device on q35; on microvm the command line says where it is;
//! `trace::stream` is the user.

use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence, fence};

use virtio_drivers::device::common::Feature;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};
use virtio_drivers::transport::{DeviceStatus, DeviceType, SomeTransport, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE};
use x86_64::{PhysAddr, VirtAddr};

use super::pci;
use crate::arch::cpu;
use crate::mm::{self, address, dma};

/// Port 0's transmit queue, without the multiport feature (§5.3.2).
const TRANSMIT_QUEUE: u16 = 1;
/// Entries of the queue: one for each buffer.
const QUEUE_LEN: usize = 2;
const BUFFER_PAGES: usize = 8;
const BUFFER_BYTES: usize = BUFFER_PAGES * PAGE_SIZE;
/// Polls after which a device that takes nothing is given up: seconds.
const PATIENCE_POLLS: u32 = 50_000_000;

/// A console that sends.
pub struct VirtioConsole {
    transport: SomeTransport<'static>,
    queue: ManuallyDrop<Queue>,
    /// Set while `queue` is being changed.
    busy: AtomicBool,
    /// Set when the device does not answer any more.
    given_up: bool,
    buffers: [Buffer; 2],
    /// Index of the buffer that fills.
    filling: usize,
    /// Bytes in it.
    filled_bytes: usize,
    lost_bytes: u64,
}

type Queue = VirtQueue<DmaMemory, QUEUE_LEN>;

/// A DMA buffer and what the device does with it.
struct Buffer {
    start: NonNull<u8>,
    /// The queue's token for it and its length, while the device has it.
    in_flight: Option<(u16, usize)>,
}

// SAFETY: the memory behind the pointer belongs to the buffer alone.
unsafe impl Send for Buffer {}

impl Buffer {
    fn new() -> Option<Self> {
        dma::alloc(BUFFER_PAGES).map(|(_, start)| Self { start, in_flight: None })
    }

    /// Its first `len_bytes` bytes.
    fn bytes(&self, len_bytes: usize) -> &'static [u8] {
        debug_assert!(len_bytes <= BUFFER_BYTES);
        // SAFETY: zeroed at first, never freed, and not written while the device has it: `write`
        // fills only a buffer that is not in flight.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), len_bytes) }
    }
}

impl VirtioConsole {
    /// The machine's first console: among the `virtio_mmio.device=` words of the command line, then
    /// on PCI. `None` when there is none, or it does not accept this driver.
    ///
    /// At boot, before other CPUs look for devices.
    pub fn find(command_line: &str) -> Option<Self> {
        on_mmio(command_line).or_else(on_pci).and_then(Self::start)
    }

    fn start(mut transport: SomeTransport<'static>) -> Option<Self> {
        let buffers = [Buffer::new()?, Buffer::new()?];
        let queue = start_device(&mut transport)?;
        DmaMemory::set_aside()?;
        Some(Self {
            transport,
            queue: ManuallyDrop::new(queue),
            busy: AtomicBool::new(false),
            given_up: false,
            buffers,
            filling: 0,
            filled_bytes: 0,
            lost_bytes: 0,
        })
    }

    /// Queues all bytes, and waits when both buffers are full. A device that takes nothing for seconds is
    /// given up: what it should have had is counted in [`lost_bytes`](Self::lost_bytes).
    pub fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if !self.wait_for(self.filling) {
                self.lost_bytes += bytes.len() as u64;
                return;
            }
            let (now, later) = bytes.split_at(bytes.len().min(BUFFER_BYTES - self.filled_bytes));
            // SAFETY: the buffer has room for `now`, and the device does not have it.
            unsafe {
                let at = self.buffers[self.filling].start.add(self.filled_bytes);
                at.copy_from_nonoverlapping(NonNull::from(now).cast(), now.len());
            }
            self.filled_bytes += now.len();
            bytes = later;
            if self.filled_bytes == BUFFER_BYTES {
                self.send();
            }
        }
    }

    /// Sends what has been written, and waits until the host has all of it.
    pub fn flush(&mut self) {
        self.send();
        for buffer in 0..self.buffers.len() {
            self.wait_for(buffer);
        }
    }

    /// Bytes that never reached the host because the device did not take them.
    pub fn lost_bytes(&self) -> u64 {
        self.lost_bytes
    }

    /// Gives the filling buffer to the device, and begins with the other one.
    fn send(&mut self) {
        if self.filled_bytes == 0 || !self.wait_for(self.filling) {
            return;
        }
        self.begin_change();
        self.post(self.filling, self.filled_bytes);
        if !self.given_up {
            self.filling = 1 - self.filling;
            self.filled_bytes = 0;
        }
        self.end_change();
    }

    /// Gives the device the first `len_bytes` of a buffer that it does not have.
    fn post(&mut self, buffer: usize, len_bytes: usize) {
        let bytes = self.buffers[buffer].bytes(len_bytes);
        // SAFETY: the bytes are neither freed nor written before the queue gives the token back.
        match unsafe { self.queue.add(&[bytes], &mut []) } {
            Ok(token) => self.buffers[buffer].in_flight = Some((token, len_bytes)),
            // There is an entry for each buffer: the device has corrupted the queue.
            Err(_) => return self.give_up(),
        }
        // The device looks at the index after it has cleared "do not notify", and we at that after
        // the index is written (§2.7.13.4.1); the queue itself has no fence between the two.
        fence(Ordering::SeqCst);
        if self.queue.should_notify() {
            self.transport.notify(TRANSMIT_QUEUE);
        }
    }

    /// Waits until the device does not have this buffer; `false` if it keeps it for ever.
    fn wait_for(&mut self, buffer: usize) -> bool {
        if self.busy.load(Ordering::Relaxed) {
            self.restart();
        }
        let mut polls = 0;
        while !self.given_up && self.buffers[buffer].in_flight.is_some() {
            if self.take_back() {
                continue;
            }
            polls += 1;
            if polls == PATIENCE_POLLS {
                self.give_up();
            }
            cpu::pause();
        }
        !self.given_up
    }

    /// Takes one buffer back that the device is done with, if there is one.
    fn take_back(&mut self) -> bool {
        let Some(token) = self.queue.peek_used() else { return false };
        let owner = |buffer: &Buffer| buffer.in_flight.is_some_and(|(its, _)| its == token);
        let Some(index) = self.buffers.iter().position(owner) else {
            self.give_up();
            return false;
        };
        let Some((_, len_bytes)) = self.buffers[index].in_flight else { return false };
        let bytes = self.buffers[index].bytes(len_bytes);
        self.begin_change();
        // SAFETY: the bytes that were added with this token.
        if unsafe { self.queue.pop_used(token, &[bytes], &mut []) }.is_ok() {
            self.buffers[index].in_flight = None;
        } else {
            self.give_up();
        }
        self.end_change();
        !self.given_up
    }

    /// From here to [`Self::end_change`], whoever takes the console away has to start the
    /// device afresh.
    fn begin_change(&self) {
        self.busy.store(true, Ordering::Relaxed);
        // The only one to look is this CPU, or one that looks after this one has stopped.
        compiler_fence(Ordering::SeqCst);
    }

    fn end_change(&self) {
        compiler_fence(Ordering::SeqCst);
        self.busy.store(false, Ordering::Relaxed);
    }

    /// Sends nothing any more, and counts what is on the way as lost.
    fn give_up(&mut self) {
        self.given_up = true;
        let in_flight = self.buffers.iter().filter_map(|buffer| buffer.in_flight);
        self.lost_bytes += in_flight.map(|(_, len_bytes)| len_bytes as u64).sum::<u64>();
        self.lost_bytes += self.filled_bytes as u64;
        self.filled_bytes = 0;
    }

    /// Starts the device afresh after the owner was stopped in the middle of a change of the queue,
    /// and gives it again what it may not have read.
    fn restart(&mut self) {
        self.transport.set_status(DeviceStatus::empty());
        // The old queue may be inconsistent: it is neither used nor dropped.
        match start_device(&mut self.transport) {
            Some(queue) => self.queue = ManuallyDrop::new(queue),
            None => self.give_up(),
        }
        // If both buffers were full, the one that fills next is the older.
        for buffer in [self.filling, 1 - self.filling] {
            if let Some((_, len_bytes)) = self.buffers[buffer].in_flight.take()
                && !self.given_up
            {
                self.post(buffer, len_bytes);
            }
        }
        self.end_change();
    }
}

/// Negotiates and makes the transmit queue (§3.1.1). No interrupts are wanted.
fn start_device(transport: &mut SomeTransport<'static>) -> Option<Queue> {
    transport.begin_init(Feature::VERSION_1);
    let Ok(mut queue) = Queue::new(transport, TRANSMIT_QUEUE, false, false) else {
        transport.set_status(DeviceStatus::FAILED);
        return None;
    };
    queue.set_dev_notify(false);
    transport.finish_init();
    Some(queue)
}

/// A device as `virtio_mmio.device=` announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioDevice {
    /// Physical address of its registers.
    pub address: u64,
    /// Bytes of registers.
    pub len_bytes: u64,
}

impl MmioDevice {
    /// Reads `SIZE@ADDRESS:IRQ` (Linux's `virtio_mmio.device`): decimal or `0x…` numbers, the
    /// size optionally with `K` or `M`. The interrupt is not used and may be left out. `None` when the
    /// text is no such thing, or the registers cannot be there.
    pub fn parse(text: &str) -> Option<Self> {
        let (size, place) = text.split_once('@')?;
        let address = place.split(':').next()?;
        let (size, unit) = match size.as_bytes().last()? {
            b'K' | b'k' => (&size[..size.len() - 1], 1 << 10),
            b'M' | b'm' => (&size[..size.len() - 1], 1 << 20),
            _ => (size, 1),
        };
        let device = Self {
            address: number(address)?,
            len_bytes: number(size)?.checked_mul(unit).filter(|len| *len <= 1 << 20)?,
        };
        let end = device.address.checked_add(device.len_bytes)?;
        let is_there = device.address != 0 && device.address.is_multiple_of(4);
        (is_there && end <= PHYSICAL_END && device.len_bytes >= MIN_REGISTER_BYTES)
            .then_some(device)
    }
}

/// Physical addresses have at most 52 bits.
const PHYSICAL_END: u64 = 1 << 52;
/// Registers without the device's own configuration (§4.2.2).
const MIN_REGISTER_BYTES: u64 = 0x100;

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn on_mmio(command_line: &str) -> Option<SomeTransport<'static>> {
    command_line
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix("virtio_mmio.device="))
        .filter_map(MmioDevice::parse)
        .find_map(|device| {
            let registers = mm::map_mmio(device.address, device.len_bytes);
            let header = NonNull::new(registers.as_mut_ptr::<VirtIOHeader>())?;
            // SAFETY: mapped for good; aligned (`parse`); the command line promises that such a
            // device is there, and the transport checks its magic number.
            let transport =
                unsafe { MmioTransport::new(header, device.len_bytes as usize) }.ok()?;
            (transport.device_type() == DeviceType::Console).then(|| transport.into())
        })
}

fn on_pci() -> Option<SomeTransport<'static>> {
    // SAFETY: drivers look for devices at boot only, one after the other.
    let mut root = unsafe { pci::root() };
    let (device, _) = pci::devices(&root)
        .find(|(_, info)| virtio_device_type(info) == Some(DeviceType::Console))?;
    pci::enable_polled(&mut root, device);
    PciTransport::new::<DmaMemory, _>(&mut root, device).ok().map(SomeTransport::from)
}

/// Memory for virtqueues: from the frames until [`DmaMemory::set_aside`], then only what that has
/// set aside, since the frames may be locked for ever when it is wanted. Queues live as long as the
/// machine, so nothing is given back.
struct DmaMemory;

/// Blocks that a queue takes, a page each: descriptors with the available ring; the used ring.
const QUEUE_PAGES: usize = 2;

/// Physical addresses of the pages that are set aside; 0 is none.
static SET_ASIDE: [AtomicU64; QUEUE_PAGES] = [const { AtomicU64::new(0) }; QUEUE_PAGES];
/// Whether pages have been set aside.
static SEALED: AtomicBool = AtomicBool::new(false);

impl DmaMemory {
    /// Sets pages for one more queue aside.
    fn set_aside() -> Option<()> {
        for slot in &SET_ASIDE {
            let (physical, _) = dma::alloc(1)?;
            slot.store(physical.as_u64(), Ordering::Relaxed);
        }
        SEALED.store(true, Ordering::Relaxed);
        Some(())
    }

    /// A page that was set aside.
    fn take() -> Option<(PhysAddr, NonNull<u8>)> {
        let taken = SET_ASIDE.iter().map(|slot| slot.swap(0, Ordering::Relaxed));
        let physical = taken.into_iter().find(|physical| *physical != 0).map(PhysAddr::new)?;
        let start = NonNull::new(address::phys_to_virt(physical).as_mut_ptr())?;
        Some((physical, start))
    }
}

// SAFETY: blocks come from the frame allocator, zeroed, page-aligned, once each; buffers that are
// shared are in the direct map, where a physical address is a subtraction away.
unsafe impl Hal for DmaMemory {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (u64, NonNull<u8>) {
        let sealed = SEALED.load(Ordering::Relaxed);
        let block = match pages {
            1 if sealed => Self::take(),
            _ if sealed => None,
            _ => dma::alloc(pages),
        };
        // An address of 0 is how the crate wants to hear that there is no memory.
        block.map_or((0, NonNull::dangling()), |(physical, start)| (physical.as_u64(), start))
    }

    unsafe fn dma_dealloc(_physical: u64, _start: NonNull<u8>, _pages: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(physical: u64, len_bytes: usize) -> NonNull<u8> {
        let registers = mm::map_mmio(physical, len_bytes as u64);
        NonNull::new(registers.as_mut_ptr()).expect("kernel addresses are not null")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> u64 {
        address::virt_to_phys(VirtAddr::from_ptr(buffer.cast::<u8>().as_ptr())).as_u64()
    }

    unsafe fn unshare(_physical: u64, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}
