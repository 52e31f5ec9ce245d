//! The vDSO, searched as C libraries search it, and run.

use core::ffi::c_int;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::*;
use crate::time::NANOS_PER_SECOND;

const PT_DYNAMIC: u32 = 2;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_VERSYM: u64 = 0x6fff_fff0;
const DT_VERDEF: u64 = 0x6fff_fffc;

/// Both pages, mapped as a program has them.
struct Mapped(*mut u8);

impl Mapped {
    fn new(data: Data) -> Self {
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: new memory, filled before it is made read-only and executable.
        unsafe {
            let at = core::ptr::null_mut();
            let start = mmap_anonymous(at, 2 * PAGE_BYTES, flags, MapFlags::PRIVATE).unwrap();
            let start = start.cast::<u8>();
            start.cast::<Data>().write(data);
            let code = start.add(PAGE_BYTES);
            code.copy_from_nonoverlapping(page().as_ptr(), PAGE_BYTES);
            mprotect(start.cast(), PAGE_BYTES, MprotectFlags::READ).unwrap();
            let executable = MprotectFlags::READ | MprotectFlags::EXEC;
            mprotect(code.cast(), PAGE_BYTES, executable).unwrap();
            Self(start)
        }
    }

    /// Where a function is: what musl's `__vdsosym` does.
    fn find(&self, name: &str) -> *const u8 {
        let page = page();
        let word = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
        let half = |at: usize| u16::from_le_bytes(page[at..at + 2].try_into().unwrap());
        let quad = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
        let segments = quad(32) as usize;
        let dynamic = (0..usize::from(half(56)))
            .map(|index| segments + index * usize::from(half(54)))
            .find(|&segment| word(segment) == PT_DYNAMIC)
            .map(|segment| quad(segment + 8) as usize)
            .unwrap();
        let tag = |tag: u64| {
            let mut at = dynamic;
            while quad(at) != tag {
                assert_ne!(quad(at), 0, "no tag {tag:#x}");
                at += 16;
            }
            quad(at + 8) as usize
        };
        let string = |offset: u32| {
            let at = tag(DT_STRTAB) + offset as usize;
            let end = at + page[at..].iter().position(|&byte| byte == 0).unwrap();
            core::str::from_utf8(&page[at..end]).unwrap()
        };
        // One bucket, which begins with the first symbol; each leads to the next.
        let hash = tag(DT_HASH);
        assert_eq!(word(hash), 1);
        let mut index = word(hash + 8) as usize;
        while index != 0 {
            let symbol = tag(DT_SYMTAB) + index * 24;
            if string(word(symbol)) == name {
                let version = half(tag(DT_VERSYM) + index * 2);
                assert_eq!(
                    self.version(version, &string, &half, &word, tag(DT_VERDEF)),
                    "LINUX_2.6"
                );
                assert_ne!(half(symbol + 6), 0, "{name} is undefined");
                // SAFETY: inside the page.
                return unsafe { self.0.add(PAGE_BYTES + quad(symbol + 8) as usize) };
            }
            index = word(hash + 12 + index * 4) as usize;
        }
        panic!("no symbol {name}");
    }

    fn version<'a>(
        &self,
        number: u16,
        string: &impl Fn(u32) -> &'a str,
        half: &impl Fn(usize) -> u16,
        word: &impl Fn(usize) -> u32,
        mut definition: usize,
    ) -> &'a str {
        while half(definition + 4) != number {
            assert_ne!(word(definition + 16), 0, "no version {number}");
            definition += word(definition + 16) as usize;
        }
        let name = string(word(definition + word(definition + 12) as usize));
        assert_eq!(word(definition + 8), elf_hash(name));
        name
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; no function in it runs any more.
        unsafe { munmap(self.0.cast(), 2 * PAGE_BYTES).unwrap() };
    }
}

/// System V ABI, figure 5-13.
fn elf_hash(name: &str) -> u32 {
    name.bytes().fold(0u32, |hash, byte| {
        let hash = (hash << 4).wrapping_add(u32::from(byte));
        let top = hash & 0xF000_0000;
        (hash ^ (top >> 24)) & !top
    })
}

type ClockFunction = unsafe extern "C" fn(c_int, *mut [i64; 2]) -> c_int;

const HZ: u64 = 2_600_000_000;
const OFFSET: u64 = 1_700_000_000 * NANOS_PER_SECOND;

fn mapped() -> Mapped {
    Mapped::new(Data::new(Rate::new(HZ), OFFSET, CpuNumber::Rdtscp))
}

fn clock_function(mapped: &Mapped, name: &str) -> ClockFunction {
    // SAFETY: that is its type.
    unsafe { core::mem::transmute::<*const u8, ClockFunction>(mapped.find(name)) }
}

/// What the clock shows now by the formula, in nanoseconds.
fn expected(offset: u64) -> u64 {
    // SAFETY: reads a counter.
    let ticks = unsafe { core::arch::x86_64::_rdtsc() };
    Rate::new(HZ).to_nanos(ticks) + offset
}

#[test]
fn the_clocks_are_those_of_the_formula() {
    let mapped = mapped();
    let clock_gettime = clock_function(&mapped, "__vdso_clock_gettime");
    for (clock, offset) in [(0, OFFSET), (1, 0), (4, 0), (5, OFFSET), (6, 0), (7, 0)] {
        let mut time = [-1; 2];
        let before = expected(offset);
        // SAFETY: `time` is a `struct timespec`.
        assert_eq!(unsafe { clock_gettime(clock, &mut time) }, 0);
        let after = expected(offset);
        assert!((0..NANOS_PER_SECOND as i64).contains(&time[1]));
        let nanos = time[0] as u64 * NANOS_PER_SECOND + time[1] as u64;
        assert!((before..=after).contains(&nanos), "clock {clock}: {before} {nanos} {after}");
    }
}

#[test]
fn other_clocks_are_asked_of_the_kernel() {
    let mapped = mapped();
    for function in ["__vdso_clock_gettime", "__vdso_clock_getres"] {
        let function = clock_function(&mapped, function);
        let mut time = [-1; 2];
        // SAFETY: `time` is a `struct timespec`.
        unsafe {
            assert_eq!(function(2, &mut time), 0);
            assert!(time[0] >= 0);
            assert_eq!(function(3, &mut time), 0);
            assert_eq!(function(100, &mut time), -(linux_raw_sys::errno::EINVAL as i32));
            assert_eq!(function(-1, &mut time), -(linux_raw_sys::errno::EINVAL as i32));
        }
    }
}

#[test]
fn seconds_and_microseconds() {
    let mapped = mapped();
    // SAFETY: these are their types; the pointers are null or to what the functions write.
    unsafe {
        type GetTimeOfDay = unsafe extern "C" fn(*mut [i64; 2], *mut [i32; 2]) -> c_int;
        let gettimeofday =
            core::mem::transmute::<*const u8, GetTimeOfDay>(mapped.find("__vdso_gettimeofday"));
        let (mut time, mut zone) = ([-1; 2], [-1; 2]);
        let before = expected(OFFSET) / 1000;
        assert_eq!(gettimeofday(&mut time, &mut zone), 0);
        let after = expected(OFFSET) / 1000;
        assert!((before..=after).contains(&(time[0] as u64 * 1_000_000 + time[1] as u64)));
        assert_eq!(zone, [0; 2]);
        assert_eq!(gettimeofday(core::ptr::null_mut(), core::ptr::null_mut()), 0);

        type Time = unsafe extern "C" fn(*mut i64) -> i64;
        let time = core::mem::transmute::<*const u8, Time>(mapped.find("__vdso_time"));
        let mut seconds = -1;
        let returned = time(&mut seconds);
        assert_eq!(returned, seconds);
        assert!((expected(OFFSET) / NANOS_PER_SECOND).abs_diff(seconds as u64) <= 1);
        assert!(time(core::ptr::null_mut()) >= seconds);
    }
}

#[test]
fn resolution_and_cpu() {
    for data in [mapped(), Mapped::new(Data::new(Rate::new(HZ), 0, CpuNumber::SystemCall))] {
        // SAFETY: these are their types; the pointers are null or to what the functions write.
        unsafe {
            type GetCpu = unsafe extern "C" fn(*mut u32, *mut u32, *mut u8) -> c_int;
            let getcpu = core::mem::transmute::<*const u8, GetCpu>(data.find("__vdso_getcpu"));
            let (mut cpu, mut node) = (u32::MAX, u32::MAX);
            assert_eq!(getcpu(&mut cpu, &mut node, core::ptr::null_mut()), 0);
            assert!(cpu != u32::MAX && node == 0);
            let null = core::ptr::null_mut();
            assert_eq!(getcpu(core::ptr::null_mut(), core::ptr::null_mut(), null), 0);
        }
        let function = clock_function(&data, "__vdso_clock_getres");
        let mut resolution = [-1; 2];
        // SAFETY: `resolution` is a `struct timespec`.
        assert_eq!(unsafe { function(1, &mut resolution) }, 0);
        assert_eq!(resolution, [0, 1]);
    }
}
