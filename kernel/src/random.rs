//! Random numbers: ChaCha20, keyed once.
//!
//! With a seed on the command line everything random is the same from run to run. Without one the CPU's
//! generator gives the key or, where it has none, the time at which the first number is asked for.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::arch::{cpu, tsc};
use crate::options;
use crate::sync::SpinLock;

static GENERATOR: SpinLock<Option<ChaCha20Rng>> = SpinLock::new("random", None);

fn keyed() -> ChaCha20Rng {
    if let Some(seed) = options::given_seed() {
        return ChaCha20Rng::seed_from_u64(seed);
    }
    let mut key = [0; 32];
    for word in key.chunks_exact_mut(8) {
        let random = cpu::random().unwrap_or_else(tsc::now);
        word.copy_from_slice(&random.to_le_bytes());
    }
    ChaCha20Rng::from_seed(key)
}

/// The next number.
pub fn next_u64() -> u64 {
    GENERATOR.lock().get_or_insert_with(keyed).next_u64()
}

/// Fills bytes. Preemption is off meanwhile: not too many at a time.
pub fn fill(bytes: &mut [u8]) {
    GENERATOR.lock().get_or_insert_with(keyed).fill_bytes(bytes);
}
