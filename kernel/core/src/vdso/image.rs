//! The vDSO's ELF file, as the assembler lays it out.
//!
//! Everything is relative to the page's first byte, so it needs no linker of its own. The tables are what
//! musl and glibc search: `.dynsym` by way of `DT_HASH`, and the version `LINUX_2.6` (System V ABI,
//! chapter 5; Linux Standard Base, 10.7).
//!
//! The functions are those of `arch/x86/entry/vdso` on Linux; what they cannot answer, they ask the kernel
//! for by the system call of the same name.

use core::arch::global_asm;
use core::mem::offset_of;

use linux_raw_sys::general as abi;

use super::{Data, PAGE_BYTES};
use crate::time::{NANOS_PER_MICRO, NANOS_PER_SECOND, Rate};

unsafe extern "C" {
    static orrery_vdso: [u8; PAGE_BYTES];
}

/// The page, for the kernel to map.
pub fn page() -> &'static [u8; PAGE_BYTES] {
    // SAFETY: the assembler makes it as long, and nobody writes to it.
    unsafe { &orrery_vdso }
}

/// Clocks that count from the machine's start.
const MONOTONIC: u32 = 1 << abi::CLOCK_MONOTONIC
    | 1 << abi::CLOCK_MONOTONIC_RAW
    | 1 << abi::CLOCK_MONOTONIC_COARSE
    | 1 << abi::CLOCK_BOOTTIME;
/// Clocks that tell the date.
const REALTIME: u32 = 1 << abi::CLOCK_REALTIME | 1 << abi::CLOCK_REALTIME_COARSE;

global_asm!(
    r#"
    .pushsection .rodata.vdso, "a", @progbits
    .balign 4096
    .global orrery_vdso
    .hidden orrery_vdso
orrery_vdso:
.Lvdso:
    # ELF header
    .byte 0x7f, 'E', 'L', 'F', 2, 1, 1, 0
    .quad 0
    .short 3, 62                        # ET_DYN, EM_X86_64
    .long 1
    .quad 0                             # no entry point
    .quad .Lvdso_segments - .Lvdso
    .quad 0                             # no sections: nobody links with it
    .long 0
    .short 64, 56, 3, 64, 0, 0

.Lvdso_segments:
    .long 1, 5                          # PT_LOAD, R+X: the whole page
    .quad 0, 0, 0, .Lvdso_end - .Lvdso, .Lvdso_end - .Lvdso, 4096
    .long 2, 4                          # PT_DYNAMIC, R
    .quad .Lvdso_dynamic - .Lvdso, .Lvdso_dynamic - .Lvdso, .Lvdso_dynamic - .Lvdso
    .quad .Lvdso_dynamic_end - .Lvdso_dynamic, .Lvdso_dynamic_end - .Lvdso_dynamic, 8
    .long 4, 4                          # PT_NOTE, R
    .quad .Lvdso_note - .Lvdso, .Lvdso_note - .Lvdso, .Lvdso_note - .Lvdso
    .quad .Lvdso_note_end - .Lvdso_note, .Lvdso_note_end - .Lvdso_note, 4

.Lvdso_dynamic:
    .quad 14, .Lvdso_soname - .Lvdso_strings            # DT_SONAME
    .quad 4, .Lvdso_hash - .Lvdso                       # DT_HASH
    .quad 5, .Lvdso_strings - .Lvdso                    # DT_STRTAB
    .quad 10, .Lvdso_strings_end - .Lvdso_strings       # DT_STRSZ
    .quad 6, .Lvdso_symbols - .Lvdso                    # DT_SYMTAB
    .quad 11, 24                                        # DT_SYMENT
    .quad 0x6ffffff0, .Lvdso_versions - .Lvdso          # DT_VERSYM
    .quad 0x6ffffffc, .Lvdso_definitions - .Lvdso       # DT_VERDEF
    .quad 0x6ffffffd, 2                                 # DT_VERDEFNUM
    .quad 0, 0
.Lvdso_dynamic_end:

.Lvdso_note:
    .long 6, 4, 0                       # name, description, type: the version it is like
    .asciz "Linux"
    .balign 4
    .long 0x060100
.Lvdso_note_end:

    .balign 8
.Lvdso_hash:                            # one bucket: six symbols are searched quickly
    .long 1, 7
    .long 1
    .long 0, 2, 3, 4, 5, 6, 0

    .macro vdso_symbol name, function
    .long .Lvdso_name_\name - .Lvdso_strings
    .byte 0x12, 0                       # STB_GLOBAL, STT_FUNC
    .short 1                            # defined
    .quad .Lvdso_\function - .Lvdso
    .quad .Lvdso_\function\()_end - .Lvdso_\function
    .endm
    .balign 8
.Lvdso_symbols:
    .quad 0, 0, 0
    vdso_symbol clock_gettime, clock_gettime
    vdso_symbol gettimeofday, gettimeofday
    vdso_symbol time, time
    vdso_symbol getcpu, getcpu
    vdso_symbol clock_getres, clock_getres
    .long .Lvdso_version - .Lvdso_strings           # the version's own symbol
    .byte 0x11, 0                                   # STB_GLOBAL, STT_OBJECT
    .short 0xfff1                                   # SHN_ABS
    .quad 0, 0

.Lvdso_versions:
    .short 0, 2, 2, 2, 2, 2, 2

    .balign 8
.Lvdso_definitions:
    .short 1, 1, 1, 1                   # base version: the file's name
    .long 0xdeebfa1                     # the ELF hash of linux-vdso.so.1
    .long 20, 28
    .long .Lvdso_soname - .Lvdso_strings, 0
    .short 1, 0, 2, 1
    .long 0x3ae75f6                     # the ELF hash of LINUX_2.6
    .long 20, 0
    .long .Lvdso_version - .Lvdso_strings, 0

.Lvdso_strings:
    .byte 0
.Lvdso_soname: .asciz "linux-vdso.so.1"
.Lvdso_version: .asciz "LINUX_2.6"
.Lvdso_name_clock_gettime: .asciz "__vdso_clock_gettime"
.Lvdso_name_gettimeofday: .asciz "__vdso_gettimeofday"
.Lvdso_name_time: .asciz "__vdso_time"
.Lvdso_name_getcpu: .asciz "__vdso_getcpu"
.Lvdso_name_clock_getres: .asciz "__vdso_clock_getres"
.Lvdso_strings_end:

    .balign 16
    # RAX: nanoseconds since the machine's start. Uses RDX. The fence keeps the counter from being read
    # before what comes before the call (SDM vol. 2, RDTSC).
    .macro vdso_monotonic
    lfence
    rdtsc
    shl rdx, 32
    or rax, rdx
    mul qword ptr [rip + .Lvdso - 4096 + {mult}]
    shrd rax, rdx, {shift}
    .endm

    # RAX: seconds, RDX: nanoseconds, from nanoseconds in RAX. Uses RCX.
    .macro vdso_split
    xor edx, edx
    mov ecx, {second}
    div rcx
    .endm

    .macro vdso_system_call number
    mov eax, \number
    syscall
    ret
    .endm

    # int clock_gettime(clockid_t edi, struct timespec *rsi)
.Lvdso_clock_gettime:
    cmp edi, 31
    ja 3f
    mov ecx, {monotonic_clocks}
    bt ecx, edi
    jc 1f
    mov ecx, {realtime_clocks}
    bt ecx, edi
    jnc 3f
    vdso_monotonic
    add rax, [rip + .Lvdso - 4096 + {realtime}]
    jmp 2f
1:  vdso_monotonic
2:  vdso_split
    mov [rsi], rax
    mov [rsi + 8], rdx
    xor eax, eax
    ret
3:  vdso_system_call {nr_clock_gettime}
.Lvdso_clock_gettime_end:

    # int gettimeofday(struct timeval *rdi, struct timezone *rsi)
    .balign 16
.Lvdso_gettimeofday:
    test rdi, rdi
    jz 1f
    vdso_monotonic
    add rax, [rip + .Lvdso - 4096 + {realtime}]
    vdso_split
    mov [rdi], rax
    mov eax, edx
    xor edx, edx
    mov ecx, {micro}
    div ecx
    mov [rdi + 8], rax
1:  test rsi, rsi
    jz 2f
    mov qword ptr [rsi], 0
2:  xor eax, eax
    ret
.Lvdso_gettimeofday_end:

    # time_t time(time_t *rdi)
    .balign 16
.Lvdso_time:
    vdso_monotonic
    add rax, [rip + .Lvdso - 4096 + {realtime}]
    vdso_split
    test rdi, rdi
    jz 1f
    mov [rdi], rax
1:  ret
.Lvdso_time_end:

    # int getcpu(unsigned *rdi, unsigned *rsi, void *rdx); there is one node.
    .balign 16
.Lvdso_getcpu:
    cmp qword ptr [rip + .Lvdso - 4096 + {has_rdtscp}], 0
    je 3f
    rdtscp
    test rdi, rdi
    jz 1f
    mov [rdi], ecx
1:  test rsi, rsi
    jz 2f
    mov dword ptr [rsi], 0
2:  xor eax, eax
    ret
3:  vdso_system_call {nr_getcpu}
.Lvdso_getcpu_end:

    # int clock_getres(clockid_t edi, struct timespec *rsi)
    .balign 16
.Lvdso_clock_getres:
    cmp edi, 31
    ja 2f
    mov ecx, {monotonic_clocks} | {realtime_clocks}
    bt ecx, edi
    jnc 2f
    test rsi, rsi
    jz 1f
    mov rax, [rip + .Lvdso - 4096 + {resolution}]
    mov qword ptr [rsi], 0
    mov [rsi + 8], rax
1:  xor eax, eax
    ret
2:  vdso_system_call {nr_clock_getres}
.Lvdso_clock_getres_end:

.Lvdso_end:
    # The rest of the page, and an error if it is longer.
    .org orrery_vdso + {page}, 0
    .popsection
"#,
    mult = const offset_of!(Data, mult),
    realtime = const offset_of!(Data, realtime_offset_nanos),
    resolution = const offset_of!(Data, resolution_nanos),
    has_rdtscp = const offset_of!(Data, has_rdtscp),
    shift = const Rate::SHIFT,
    second = const NANOS_PER_SECOND,
    micro = const NANOS_PER_MICRO,
    monotonic_clocks = const MONOTONIC,
    realtime_clocks = const REALTIME,
    nr_clock_gettime = const abi::__NR_clock_gettime,
    nr_clock_getres = const abi::__NR_clock_getres,
    nr_getcpu = const abi::__NR_getcpu,
    page = const PAGE_BYTES,
);
