//! What a person types or a pipe brings, on its way from the host to a program's standard input.
//!
//! The line carries a [`PREAMBLE`], and then *frames*: a byte that says how many follow, 1 to 255, and those; a zero
//! is the end of the input. So bytes of any value pass, and a program sees the end as it would see that of a file.
//! The host makes frames with [`encode`], the kernel takes them apart in an [`InputBuffer`].
//!
//! The host sends before the kernel runs, and a serial port loses what its FIFO holds when a driver sets it up:
//! hence the preamble, which is longer than a FIFO, and whose last byte alone matters.

/// Longest frame, in bytes, without the byte before it.
const FRAME_MAX: usize = 255;
/// What the first frame follows.
pub const PREAMBLE: [u8; 33] = {
    let mut bytes = [0; 33];
    bytes[32] = START;
    bytes
};
/// The preamble's last byte.
const START: u8 = 0x02;
/// The frame that ends the input.
pub const END: [u8; 1] = [0];

/// Hands out the frames of `bytes`, in order, in pieces.
pub fn encode(bytes: &[u8], mut out: impl FnMut(&[u8])) {
    for frame in bytes.chunks(FRAME_MAX) {
        out(&[frame.len() as u8]);
        out(frame);
    }
}

/// Bytes that arrived and were not read yet.
#[derive(Debug)]
pub struct InputBuffer<const CAPACITY: usize> {
    bytes: [u8; CAPACITY],
    /// Where the oldest byte is.
    start: usize,
    len: usize,
    /// Whether the preamble is over.
    started: bool,
    /// Bytes that are missing of the frame that arrives.
    left: u8,
    ended: bool,
}

impl<const CAPACITY: usize> InputBuffer<CAPACITY> {
    /// An empty buffer, before or within the preamble.
    pub const fn new() -> Self {
        Self { bytes: [0; CAPACITY], start: 0, len: 0, started: false, left: 0, ended: false }
    }

    /// Whether a byte of the line can be taken.
    pub fn has_room(&self) -> bool {
        self.len < CAPACITY
    }

    /// Takes a byte of the line. Without room it is lost; behind the end, it means nothing.
    pub fn push(&mut self, byte: u8) {
        if self.ended {
            return;
        }
        if !self.started {
            self.started = byte == START;
            return;
        }
        if self.left == 0 {
            self.left = byte;
            self.ended = byte == 0;
            return;
        }
        self.left -= 1;
        if self.has_room() {
            self.bytes[(self.start + self.len) % CAPACITY] = byte;
            self.len += 1;
        }
    }

    /// Whether a read would give bytes, or the end.
    pub fn is_readable(&self) -> bool {
        self.len > 0 || self.ended
    }

    /// Moves bytes out, as many as there are and fit; `None` where a reader has to wait. 0 bytes are the
    /// end.
    pub fn read(&mut self, to: &mut [u8]) -> Option<usize> {
        if !self.is_readable() {
            return None;
        }
        let count = to.len().min(self.len);
        for byte in &mut to[..count] {
            *byte = self.bytes[self.start];
            self.start = (self.start + 1) % CAPACITY;
        }
        self.len -= count;
        Some(count)
    }

    /// Bytes that can be read.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no bytes can be read (the end may be there).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<const CAPACITY: usize> Default for InputBuffer<CAPACITY> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn what_was_sent_is_read(bytes: Vec<u8>, more in 0usize..600, reads in 1usize..9, lost in 0usize..32) {
            let mut sent = bytes;
            sent.extend((0..more).map(|n| n as u8));
            let mut line = PREAMBLE[lost..].to_vec();
            encode(&sent, |part| line.extend_from_slice(part));
            line.extend(END);
            line.push(7);
            let mut line = line.into_iter().peekable();
            let mut buffer = InputBuffer::<16>::new();
            let mut got = Vec::new();
            loop {
                while buffer.has_room() && line.peek().is_some() {
                    buffer.push(line.next().unwrap());
                }
                let mut part = vec![0; reads];
                match buffer.read(&mut part) {
                    Some(0) => break,
                    Some(count) => got.extend_from_slice(&part[..count]),
                    None => prop_assert!(line.peek().is_some(), "waits for ever"),
                }
            }
            prop_assert_eq!(got, sent);
        }
    }

    #[test]
    fn a_reader_waits_until_something_comes() {
        let mut buffer = InputBuffer::<4>::new();
        assert_eq!(buffer.read(&mut [0; 4]), None);
        PREAMBLE.iter().for_each(|&byte| buffer.push(byte));
        assert!(!buffer.is_readable());
        buffer.push(2);
        assert!(!buffer.is_readable());
        buffer.push(0);
        assert_eq!((buffer.len(), buffer.is_empty()), (1, false));
        assert_eq!(buffer.read(&mut []), Some(0));
        assert_eq!(buffer.read(&mut [9; 4]), Some(1));
        assert_eq!(buffer.read(&mut [0; 4]), None);
        buffer.push(5);
        assert_eq!(buffer.read(&mut [0; 4]), Some(1));
        buffer.push(0);
        assert!(buffer.is_readable() && buffer.is_empty());
        assert_eq!(buffer.read(&mut [0; 4]), Some(0));
    }
}
