//! `cargo xtask versus-linux` on hosts that lack what it needs: a status, and what to do.

use std::process::{Command, Output};

/// Runs it with nothing on `PATH`, in a target directory of its own.
fn versus_linux(arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("versus-linux").args(arguments).env("PATH", dir.path());
    command.env("CARGO_TARGET_DIR", dir.path().join("target")).output().unwrap()
}

fn refused(arguments: &[&str], words: &str) {
    let output = versus_linux(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(words), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn without_a_kernel_and_without_apt() {
    refused(&[], "Name a bzImage with --linux FILE");
    refused(&["--plots", "figures"], "`apt-cache` is not on PATH");
}

#[test]
fn what_cannot_be_is_refused() {
    refused(&["--linux", "/no/such/file"], "/no/such/file");
    refused(&["--linux", env!("CARGO_BIN_EXE_xtask")], "bzImage");
    refused(&["--from", "/no/such/dir"], "figures.json");
    refused(&["--only", "nonsense"], "null system call");
    refused(&["--boots", "0"], "1..=100");
    refused(&["--from", "a", "--linux", "b"], "cannot be used with");
}
