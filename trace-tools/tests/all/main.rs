//! Tests of the whole path, from bytes to reports and exit statuses.

mod analyses;
mod cli;
mod damage;
mod elf;
mod recording;
mod stream;
