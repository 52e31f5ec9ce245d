//! Reads Orrery traces on the host: a library, and the program `trace-tools` on top of it.
//!
//! Floors, bottom up; a module imports only from those above it in this list:
//! - [`transport`]: bytes to packets, resynchronisation, what was lost
//! - [`schema`]: what the statements of one build mean
//! - [`events`]: records as typed events
//! - [`merge`]: one order out of many CPUs' orders
//! - [`session`] and [`trace`]: a stream decoded as it comes, and a whole one in memory;
//!   [`recording`] and [`input`]: the file it is kept in, and where it comes from
//! - [`model`]: tasks and CPUs replayed as state machines
//! - [`analyses`]: what a trace says, as plain data
//! - [`views`]: that data as text, JSON and tables
//!
//! Beside them, [`symbols`] turns addresses into functions and lines, [`exit`] says what the program's
//! exit status means, and [`synthetic`] makes streams for tests and benchmarks. Nothing above `transport` knows of serial lines, nothing at all
//! knows of the machine that ran the kernel.
//!
//! ```no_run
//! use std::path::Path;
//! use trace_tools::input::Input;
//!
//! # fn main() -> Result<(), trace_tools::Error> {
//! let trace = Input::open(Path::new("boot.orrec"), None)?.into_trace(|_| {})?;
//! for event in trace.iter().filter(|event| event.name() == "sched_switch") {
//!     println!("{} cpu {}: {} -> {:?}", event.time_ticks, event.cpu, event.pid, event.u64("next"));
//! }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod analyses;
mod error;
pub mod events;
pub mod exit;
pub mod input;
pub mod merge;
pub mod model;
pub mod recording;
pub mod schema;
pub mod session;
pub mod symbols;
pub mod synthetic;
pub mod trace;
pub mod transport;
pub mod views;

pub use error::Error;
pub use exit::Exit;
pub use orrery_core::trace::wire::Stream;
pub use schema::Schema;
pub use session::{Decoder, Item, Session};
pub use trace::Trace;
