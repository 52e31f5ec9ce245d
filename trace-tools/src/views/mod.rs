//! The data of the floors below as text, JSON lines and tables.

mod events;
mod tables;
mod time;

pub use events::{EventWriter, Format, panic_text};
pub use tables::{info_text, regions_text, report_text};
pub use time::{duration, timestamp};
