//! `crash KIND`: a program that ends badly: by a signal, by a panic, by its own stack.

use std::hint::black_box;

use programs::{memory, sys};

fn main() {
    let kind = std::env::args().nth(1).unwrap_or_default();
    println!("about to: {kind}");
    match kind.as_str() {
        "segv" => {
            memory::peek(0x1234 as *const u8);
        }
        "abort" => std::process::abort(),
        "panic" => panic!("on purpose"),
        "overflow" => {
            println!("{}", overflow(1));
        }
        "thread" => {
            let thread = std::thread::spawn(|| memory::poke(0x5678 as *mut u8, 1));
            println!("{:?}", thread.join());
        }
        "term" => {
            let _ = programs::signal::kill(programs::process::id(), libc::SIGTERM);
        }
        "kernel" => memory::poke(0xffff_8000_0000_0000 as *mut u8, 1),
        "exit" => {
            let _ = sys!(SYS_exit_group, 0x1_02ff);
        }
        _ => {
            eprintln!("usage: crash segv|abort|panic|overflow|thread|term|kernel|exit");
            std::process::exit(2);
        }
    }
    println!("still here");
}

/// `std` finds the guard page and tells, on an alternate stack.
#[expect(unconditional_recursion, reason = "the stack is to overflow")]
fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 200]);
    overflow(depth + 1) + frame[depth as usize % 200]
}
