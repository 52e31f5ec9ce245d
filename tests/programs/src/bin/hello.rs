//! The least that a user tries first: arguments, environment, a thread, an exit status.
//!
//! `hello [--status N] [ARGS…]`

use std::collections::BTreeMap;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    println!("Hello, world! {} arguments", args.len());
    for (number, arg) in args.iter().enumerate() {
        println!("argument {}: {arg:?}", number + 1);
    }
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    for (key, value) in &environment {
        println!("{key}={value}");
    }
    let sums: Vec<_> = (0..4u64)
        .map(|n| std::thread::spawn(move || (n * 1000..(n + 1) * 1000).sum::<u64>()))
        .collect();
    let sum: u64 = sums.into_iter().map(|thread| thread.join().unwrap_or(0)).sum();
    println!("four threads add up to {sum}");
    eprintln!("and a line for standard error");
    let status = match &args[..] {
        [flag, number, ..] if flag == "--status" => number.parse().unwrap_or(2),
        _ => 0,
    };
    std::process::exit(status);
}
