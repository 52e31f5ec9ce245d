//! Branches on bits of a word in memory, in two instructions: the compiler loads what is atomic into a register first,
//! which on the hottest paths costs an instruction and a register each time.

/// Whether the static atomic word at this path, of this width, has any of these bits set. Relaxed.
///
/// The width is `u8` (an `AtomicBool` is one) or `u32`; `$bits` is a constant.
macro_rules! any_bit_set {
    (u8 $word:path, $bits:expr) => {
        any_bit_set!(@ "test byte ptr [rip + {word}], {bits}", $word, $bits)
    };
    (u32 $word:path, $bits:expr) => {
        any_bit_set!(@ "test dword ptr [rip + {word}], {bits}", $word, $bits)
    };
    (@ $test:literal, $word:path, $bits:expr) => {
        'is_set: {
            // SAFETY: reads a static, which is always there; the jump leaves the block by its label.
            unsafe {
                core::arch::asm!(
                    $test,
                    "jnz {yes}",
                    word = sym $word,
                    bits = const $bits,
                    yes = label { break 'is_set true },
                    options(nostack, readonly),
                );
            }
            false
        }
    };
}

pub(crate) use any_bit_set;
