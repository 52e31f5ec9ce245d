//! Compaction: removes the zero bytes that fixed-width fields are full of.
//!
//! Seven input bytes become one *map* byte and those of the seven that are not zero, in order; bit
//! *i* of the map says whether byte *i* is there. The map's top bit set means that a run follows:
//! the low seven bits count whole groups of seven zero bytes. This is the idea of rzCOBS without
//! its framing, which packets do not need: they carry their length.
//!
//! A group costs at most 8 bytes for 7, so the encoder's output is at most
//! [`max_len`]`(input.len())`; the decoder is told how many bytes to expect and rejects the rest.

/// Bytes that one map byte speaks for.
const GROUP: usize = 7;
const RUN: u8 = 0x80;

/// Largest number of bytes that [`encode`] makes of `len` bytes.
pub const fn max_len(len: usize) -> usize {
    len + len.div_ceil(GROUP)
}

/// Writes the compacted form of `input` to `output` and returns its length, or `None` where
/// `output` is too short ([`max_len`] bytes always suffice).
pub fn encode(input: &[u8], output: &mut [u8]) -> Option<usize> {
    let mut out = 0;
    let mut groups = input.chunks(GROUP).peekable();
    while let Some(group) = groups.next() {
        if group.iter().all(|&byte| byte == 0) {
            let mut run = 1u8;
            while run < !RUN && groups.next_if(|next| next.iter().all(|&byte| byte == 0)).is_some()
            {
                run += 1;
            }
            *output.get_mut(out)? = RUN | run;
            out += 1;
            continue;
        }
        let map_at = out;
        out += 1;
        let mut map = 0u8;
        for (bit, &byte) in group.iter().enumerate() {
            if byte != 0 {
                map |= 1 << bit;
                *output.get_mut(out)? = byte;
                out += 1;
            }
        }
        *output.get_mut(map_at)? = map;
    }
    Some(out)
}

/// Why compacted bytes could not be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The input ends inside a group.
    Truncated,
    /// The input holds more than the output has room for, or sets a bit beyond the output's end.
    TooLong,
    /// The input ends before the output is full.
    TooShort,
    /// A map byte that [`encode`] never writes.
    Malformed,
}

/// Restores exactly `output.len()` bytes from `input`.
///
/// # Errors
/// [`Error`] where `input` is not what [`encode`] makes of `output.len()` bytes.
pub fn decode(input: &[u8], output: &mut [u8]) -> Result<(), Error> {
    let total = output.len();
    let mut input = input.iter();
    let mut at = 0;
    while let Some(&map) = input.next() {
        if at == total {
            return Err(Error::TooLong);
        }
        if map & RUN != 0 {
            let run = (map & !RUN) as usize;
            if run == 0 {
                return Err(Error::Malformed);
            }
            if at + (run - 1) * GROUP >= total {
                return Err(Error::TooLong);
            }
            let end = total.min(at + run * GROUP);
            output[at..end].fill(0);
            at = end;
            continue;
        }
        if map == 0 {
            return Err(Error::Malformed);
        }
        for bit in 0..GROUP {
            let byte = if map & 1 << bit != 0 {
                match input.next() {
                    Some(&0) => return Err(Error::Malformed),
                    Some(&byte) => byte,
                    None => return Err(Error::Truncated),
                }
            } else {
                0
            };
            if at < total {
                output[at] = byte;
                at += 1;
            } else if byte != 0 {
                return Err(Error::TooLong);
            }
        }
    }
    if at == total { Ok(()) } else { Err(Error::TooShort) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    fn sparse() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..4096)
    }

    proptest! {
        #[test]
        fn round_trips(input in sparse()) {
            let mut wire = vec![0; max_len(input.len())];
            let len = encode(&input, &mut wire).unwrap();
            let mut back = vec![0xAA; input.len()];
            prop_assert_eq!(decode(&wire[..len], &mut back), Ok(()));
            prop_assert_eq!(back, input);
        }

        #[test]
        fn decode_survives_anything(input: Vec<u8>, len in 0usize..512) {
            let mut out = vec![0; len];
            if decode(&input, &mut out).is_ok() {
                let mut again = vec![0; max_len(len)];
                let written = encode(&out, &mut again).unwrap();
                let mut twice = vec![0; len];
                prop_assert_eq!(decode(&again[..written], &mut twice), Ok(()));
                prop_assert_eq!(twice, out);
            }
        }

        #[test]
        fn a_short_output_is_refused(input in sparse(), cut in 1usize..64) {
            let mut wire = vec![0; max_len(input.len())];
            let len = encode(&input, &mut wire).unwrap();
            let mut short = vec![0; len.saturating_sub(cut)];
            prop_assert_eq!(encode(&input, &mut short), if len == 0 { Some(0) } else { None });
        }
    }

    #[test]
    fn zeros_cost_almost_nothing() {
        let mut wire = [0; 1024];
        assert_eq!(encode(&[0; 700], &mut wire), Some(1));
    }
}
