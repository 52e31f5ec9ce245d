//! What a program finds on its stack: arguments, environment, and the auxiliary vector (System V ABI,
//! AMD64 supplement, 3.4.1; getauxval(3)).

use alloc::vec::Vec;

use linux_raw_sys::auxvec as aux;
use linux_raw_sys::auxvec::{AT_EXECFN, AT_NULL, AT_PLATFORM, AT_RANDOM};

use crate::errno::Errno;

/// Most bytes that arguments and environment may have together, pointers included: a quarter of
/// the customary stack.
pub const MAX_BYTES: usize = 2 << 20;
/// Most bytes of one argument (`MAX_ARG_STRLEN`).
pub const MAX_STRING_BYTES: usize = 128 << 10;

/// Facts for the auxiliary vector.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Where the program headers are; 0 if they are not in memory.
    pub headers_address: u64,
    /// How many there are.
    pub headers_count: u64,
    /// Where the program begins.
    pub entry: u64,
    /// Where the vDSO's ELF header is; 0 without one.
    pub vdso: u64,
    /// CPUID leaf 1's EDX.
    pub hardware: u64,
    /// Random bytes for the program.
    pub random: [u8; 16],
}

/// The stack as bytes that end at the top, and the stack pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The bytes from the stack pointer up to the top.
    pub bytes: Vec<u8>,
    /// The stack pointer, a multiple of 16.
    pub pointer: u64,
}

/// Builds it to end at `top`, a multiple of 16. `name` is the path that is executed.
///
/// # Errors
/// `E2BIG` if it is more than [`MAX_BYTES`]; `ENOMEM`.
pub fn build(
    top: u64,
    arguments: &[Vec<u8>],
    environment: &[Vec<u8>],
    name: &[u8],
    facts: &Facts,
) -> Result<Stack, Errno> {
    const PLATFORM: &[u8] = b"x86_64";
    let lengths = arguments.iter().chain(environment).map(|string| string.len() + 1);
    let strings_bytes = lengths.sum::<usize>() + name.len() + 1 + PLATFORM.len() + 1 + 16;
    let fixed = [
        (aux::AT_SYSINFO_EHDR, facts.vdso),
        (aux::AT_HWCAP, facts.hardware),
        (aux::AT_PAGESZ, 4096),
        (aux::AT_CLKTCK, 100),
        (aux::AT_PHDR, facts.headers_address),
        (aux::AT_PHENT, super::elf::PROGRAM_HEADER_BYTES as u64),
        (aux::AT_PHNUM, facts.headers_count),
        (aux::AT_BASE, 0),
        (aux::AT_FLAGS, 0),
        (aux::AT_ENTRY, facts.entry),
        (aux::AT_UID, 0),
        (aux::AT_EUID, 0),
        (aux::AT_GID, 0),
        (aux::AT_EGID, 0),
        (aux::AT_SECURE, 0),
        (aux::AT_HWCAP2, 0),
    ];
    const POINTING: usize = 3; // AT_RANDOM, AT_EXECFN, AT_PLATFORM
    // What has no value is left out.
    let is_left_out =
        |&(kind, value): &(u32, u64)| value == 0 && matches!(kind, aux::AT_SYSINFO_EHDR);
    let fixed: Vec<_> = fixed.into_iter().filter(|entry| !is_left_out(entry)).collect();
    let words = 1 + arguments.len() + 1 + environment.len() + 1 + 2 * (fixed.len() + POINTING + 1);
    if strings_bytes + words * 8 + 16 > MAX_BYTES {
        return Err(Errno::E2BIG);
    }
    let strings_at = top - strings_bytes as u64;
    let pointer = (strings_at - words as u64 * 8) / 16 * 16;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact((top - pointer) as usize).map_err(|_| Errno::ENOMEM)?;
    let mut next_string = strings_at;
    let mut place = |len_bytes: usize| {
        let at = next_string;
        next_string += len_bytes as u64;
        at
    };
    let push_word = |bytes: &mut Vec<u8>, word: u64| bytes.extend_from_slice(&word.to_le_bytes());
    push_word(&mut bytes, arguments.len() as u64);
    for list in [arguments, environment] {
        for string in list {
            push_word(&mut bytes, place(string.len() + 1));
        }
        push_word(&mut bytes, 0);
    }
    let pointing: [(u32, u64); POINTING] = [
        (AT_EXECFN, place(name.len() + 1)),
        (AT_PLATFORM, place(PLATFORM.len() + 1)),
        (AT_RANDOM, place(facts.random.len())),
    ];
    for (kind, value) in fixed.into_iter().chain(pointing).chain([(AT_NULL, 0)]) {
        push_word(&mut bytes, kind.into());
        push_word(&mut bytes, value);
    }
    bytes.resize((strings_at - pointer) as usize, 0);
    // In the order in which they were placed.
    let strings = arguments.iter().chain(environment).map(Vec::as_slice);
    for string in strings.chain([name, PLATFORM]) {
        bytes.extend_from_slice(string);
        bytes.push(0);
    }
    bytes.extend_from_slice(&facts.random);
    Ok(Stack { bytes, pointer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const TOP: u64 = 0x7fff_ffff_e000;

    fn facts() -> Facts {
        Facts {
            headers_address: 64,
            headers_count: 3,
            entry: 9,
            vdso: 0,
            hardware: 7,
            random: [5; 16],
        }
    }

    struct Reader(Stack);

    impl Reader {
        fn word(&self, at: u64) -> u64 {
            let at = (at - self.0.pointer) as usize;
            u64::from_le_bytes(self.0.bytes[at..at + 8].try_into().unwrap())
        }
        fn string(&self, at: u64) -> &[u8] {
            let rest = &self.0.bytes[(at - self.0.pointer) as usize..];
            &rest[..rest.iter().position(|&byte| byte == 0).unwrap()]
        }
    }

    #[test]
    fn a_c_library_finds_everything() {
        let arguments = vec![b"sh".to_vec(), b"-c".to_vec(), b"".to_vec()];
        let environment = vec![b"A=1".to_vec()];
        let it = Reader(build(TOP, &arguments, &environment, b"/bin/sh", &facts()).unwrap());
        let pointer = it.0.pointer;
        assert_eq!(pointer % 16, 0);
        assert_eq!(pointer + it.0.bytes.len() as u64, TOP);
        assert_eq!(it.word(pointer), 3);
        for (index, argument) in arguments.iter().enumerate() {
            assert_eq!(it.string(it.word(pointer + 8 + index as u64 * 8)), &argument[..]);
        }
        assert_eq!(it.word(pointer + 32), 0);
        assert_eq!(it.string(it.word(pointer + 40)), b"A=1");
        assert_eq!(it.word(pointer + 48), 0);
        let mut at = pointer + 56;
        let mut seen = vec![];
        while it.word(at) != 0 {
            let (kind, value) = (it.word(at) as u32, it.word(at + 8));
            match kind {
                AT_EXECFN => assert_eq!(it.string(value), b"/bin/sh"),
                AT_PLATFORM => assert_eq!(it.string(value), b"x86_64"),
                AT_RANDOM => {
                    assert_eq!(it.word(value), 0x0505_0505_0505_0505);
                    assert_eq!(value + 16, TOP);
                }
                _ => {}
            }
            seen.push(kind);
            at += 16;
        }
        assert!(seen.contains(&aux::AT_PHDR) && !seen.contains(&aux::AT_SYSINFO_EHDR));
    }

    #[test]
    fn too_much_is_refused() {
        let long = vec![vec![b'x'; 1 << 20]; 2];
        assert_eq!(build(TOP, &long, &[], b"p", &facts()), Err(Errno::E2BIG));
        let many = vec![vec![]; 300_000];
        assert_eq!(build(TOP, &many, &[], b"p", &facts()), Err(Errno::E2BIG));
    }
}
