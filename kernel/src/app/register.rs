//! Which applications the image has, and running one of them.
//!
//! Each [`app!`](crate::app!) puts an [`App`] into the linker section `.orrery.apps`, in whatever
//! crate it stands; `link.ld` lays them side by side between two symbols. An application's name is part of a
//! linker symbol as well, so that two of one name do not link.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;

use super::Args;
use crate::println;

/// Exit code of an application that failed.
const FAILED: i32 = 1;

/// One application.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct App {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Runs it. Its exit code, 0 to 127, becomes the status of the whole machine.
    pub main: fn(&Args<'static>) -> i32,
}

/// Registers an application:
///
/// ```ignore
/// orrery::app!(name = "hello", about = "greets", main = main);
///
/// fn main(args: &Args) -> Result<(), Failure> { … }
/// ```
///
/// `main` is a function of `&Args` that returns any [`Outcome`](crate::app::Outcome). Two applications of
/// one name do not link ("duplicate symbol: orrery application …").
#[macro_export]
macro_rules! app {
    (name = $name:literal, about = $about:literal, main = $main:expr $(,)?) => {
        const _: () = {
            #[used]
            #[unsafe(link_section = ".orrery.apps")]
            #[unsafe(export_name = concat!("orrery application ", $name))]
            static APP: $crate::app::App = $crate::app::App {
                name: $name,
                about: $about,
                main: |args| $crate::app::Outcome::exit_code($main(args)),
            };
        };
    };
}

/// Why an application failed, for the person who watches. Made by `?` from everything that can be
/// printed, or from text.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// What to print.
    pub fn message(&self) -> &str {
        &self.0
    }
}

impl<T: Display> From<T> for Failure {
    fn from(why: T) -> Self {
        Self(why.to_string())
    }
}

/// What an application or a task of it may return.
pub trait Outcome {
    /// The exit code; prints what failed.
    fn exit_code(self) -> i32;
}

impl Outcome for i32 {
    fn exit_code(self) -> i32 {
        self
    }
}

impl Outcome for () {
    fn exit_code(self) -> i32 {
        0
    }
}

impl<T: Outcome> Outcome for Result<T, Failure> {
    fn exit_code(self) -> i32 {
        match self {
            Ok(outcome) => outcome.exit_code(),
            Err(why) => {
                println!("{}: {}", crate::sched::current().name(), why.0);
                FAILED
            }
        }
    }
}

/// Every application, in no particular order.
pub fn all() -> &'static [App] {
    unsafe extern "C" {
        #[link_name = "__orrery_apps_start"]
        static START: [u64; 0];
        #[link_name = "__orrery_apps_end"]
        static END: [u64; 0];
    }
    let (start, end) = (&raw const START, &raw const END);
    let start = start.cast::<App>();
    let count = (end as usize - start as usize) / size_of::<App>();
    // SAFETY: the section holds whole `App`s and nothing else, aligned as they are: only `app!`
    // names it, and `link.ld` puts the two symbols around it.
    unsafe { core::slice::from_raw_parts(start, count) }
}

/// The application of this name.
pub fn find(name: &str) -> Option<&'static App> {
    all().iter().find(|app| app.name == name)
}

/// Runs what `workload=` asks for, `NAME,key=value,…`, in the calling task, and returns its exit
/// code. Complaints are printed.
pub fn run(words: &'static str) -> i32 {
    let (name, parameters) = words.split_once(',').unwrap_or((words, ""));
    let Some(app) = find(name) else {
        println!("{}", unknown(name));
        return FAILED;
    };
    let args = match Args::new(parameters) {
        Ok(args) => args,
        Err(why) => {
            println!("{name}: {why}");
            return FAILED;
        }
    };
    let code = (app.main)(&args);
    match args.finish() {
        Err(why) if code == 0 => {
            println!("{name}: {why}");
            FAILED
        }
        _ => code,
    }
}

fn unknown(name: &str) -> String {
    let mut apps = all().to_vec();
    apps.sort_unstable_by_key(|app| app.name);
    let lines: Vec<_> =
        apps.iter().map(|app| format!("  {:<12} {}", app.name, app.about)).collect();
    format!("orrery: there is no workload `{name}`; there are\n{}", lines.join("\n"))
}
