//! What firmware and boot loaders tell, made sense of: it may be in any order, overlap, or be
//! damaged, and must never lead to a panic or to memory that is not there.
//!
//! - [`memory_map`]: which physical memory is whose
//! - [`madt`]: which CPUs there are

pub mod madt;
pub mod memory_map;

#[cfg(test)]
mod tests;
