//! Programs that nobody wrote for this kernel: Debian's busybox, and a benchmark for Linux with two C libraries.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orrery_tests::programs::{OnLinux, SEARCH_PATH, left_nothing};
use orrery_tests::{Guest, Outcome, skip};

const APPLETS: [&str; 31] = [
    "sh", "tr", "ls", "wc", "ps", "cat", "seq", "sleep", "grep", "head", "tail", "sort", "uniq",
    "sed", "awk", "cut", "find", "xargs", "mkdir", "rm", "cp", "mv", "ln", "touch", "true",
    "false", "env", "tee", "expr", "basename", "kill",
];

/// A directory with busybox and its names; `None` where there is no static busybox on the host.
fn root_with_busybox() -> Option<tempfile::TempDir> {
    let places = ["/bin/busybox", "/usr/bin/busybox"];
    let busybox = places.iter().map(PathBuf::from).find(|path| path.is_file())?;
    let root = tempfile::tempdir().unwrap();
    let bin = root.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::create_dir(root.path().join("tmp")).unwrap();
    std::fs::copy(busybox, bin.join("busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", bin.join(applet)).unwrap();
    }
    Some(root)
}

fn shell(root: &Path, script: &str, cpus: u32) -> Outcome {
    let guest = Guest::checked().smp(cpus).trace("process,task").bundle(root);
    guest
        .environment(&[&format!("PATH={SEARCH_PATH}")])
        .program("/bin/busybox", &["sh", "-c", script])
        .run()
}

const SCRIPTS: [&str; 13] = [
    "for i in 1 2 3; do echo $i | tr 123 abc; done; ls /bin | wc -l; (exit 3) || echo $?",
    "echo one two three | while read a b c; do echo $c $b $a; done",
    "x=$(echo nested $(echo inner | tr a-z A-Z)); echo \"$x\"; exit 7",
    "cd /tmp; echo data > f; cat f f > g; wc -c < g; cp g h; mv h i; ls; rm f g i; ls | wc -l",
    "seq 1 1000 | sort -rn | head -3 | tr '\\n' ' '; seq 1 100 | awk '{s+=$1} END {print s}'",
    "trap 'echo trapped' USR1; kill -USR1 $$; echo after; trap 'echo bye' EXIT; exit 4",
    "f() { [ $1 -le 1 ] && echo 1 || { a=$(f $(($1 - 1))); echo $((a * $1)); }; }; f 6",
    "cat /no/such/file 2>&1 | sed 's/busybox: //'; echo ${PIPESTATUS:-none}; false || echo no",
    "mkdir -p /tmp/a/b; touch /tmp/a/b/c; find /tmp/a | sort; rm -r /tmp/a; echo /bin/b*; cat << END\nhere $((6 * 7))\nEND",
    "seq 1 20 | xargs -n 5 echo | tee /tmp/t | wc -l; sort -r /tmp/t | head -1; rm /tmp/t",
    "yes | head -2; seq 1 100000 | head -1; echo done",
    "i=0; while [ $i -lt 30 ]; do i=$((i+1)); (exit $i); [ $? = $i ] || echo wrong; done; echo $i",
    "kill -9 $$",
];

#[test]
fn busybox_does_what_it_does_in_a_chroot() {
    let Some(root) = root_with_busybox() else {
        return skip("busybox_does_what_it_does_in_a_chroot", "no /bin/busybox");
    };
    for (number, script) in SCRIPTS.iter().enumerate() {
        let Some(linux) = OnLinux::in_root(root.path(), &["/bin/busybox", "sh", "-c", script])
        else {
            return skip("busybox_does_what_it_does_in_a_chroot", "the host allows no chroot");
        };
        let outcome = shell(root.path(), script, [1, 2, 4][number % 3]);
        linux.is_what_happened_in(&outcome);
    }
}

/// Not compared: a shell in the background opens /dev/null, which a chroot has not.
#[test]
fn a_shell_has_jobs_in_the_background() {
    let Some(root) = root_with_busybox() else {
        return skip("a_shell_has_jobs_in_the_background", "no /bin/busybox");
    };
    let script = "sleep 0.01 & wait $!; echo $?; sleep 100 & kill $!; wait $!; echo $?; \
                  for i in 1 2 3; do (exit $i) & wait $! || echo $?; done";
    let outcome = shell(root.path(), script, 4);
    outcome.exited_with(0);
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    assert_eq!(text, "0\n143\n1\n2\n3\n", "{}", outcome.story());
}

#[test]
fn ps_lists_the_tasks() {
    let Some(root) = root_with_busybox() else {
        return skip("ps_lists_the_tasks", "no /bin/busybox");
    };
    let outcome = shell(root.path(), "sleep 100 & ps; kill $!", 2);
    outcome.exited_with(0);
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    for name in ["sleep 100", "ps", "init", "sh -c"] {
        assert!(text.lines().any(|line| line.contains(name)), "{name} is not in:\n{text}");
    }
}

#[test]
fn a_shell_reads_its_script_from_standard_input() {
    let Some(root) = root_with_busybox() else {
        return skip("a_shell_reads_its_script_from_standard_input", "no /bin/busybox");
    };
    let script = b"echo first\nfor i in 1 2; do\necho $i | tr 12 ab\ndone\nexit 9\n";
    let guest =
        || Guest::new().trace("process").bundle(root.path()).program("/bin/busybox", &["sh"]);
    for guest in [guest().stdin(script), guest().live_stdin(script)] {
        let outcome = guest.run();
        outcome.exited_with(9);
        assert_eq!(outcome.stdout, b"first\na\nb\n", "{}", outcome.story());
    }
}

/// Every group of the benchmark comes to its end with status 0: the ones named, or those that run unasked.
fn lbench(name: &str, cpus: u32, named: &[&str]) {
    let guest = Guest::new().smp(cpus).memory("2G").trace("off").timeout(Duration::from_secs(900));
    let outcome = guest.environment(&["lbench_scale=5"]).program(name, named).run();
    outcome.exited_with(0);
    left_nothing(&outcome);
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    let groups: Vec<&str> = text.lines().filter(|line| line.starts_with("# group")).collect();
    assert_eq!(groups.len(), if named.is_empty() { 10 } else { named.len() }, "{text}");
    assert!(groups.iter().all(|line| line.contains(" status 0 ")), "{groups:#?}");
    assert!(text.contains("# lbench done"), "{text}");
}

#[test]
fn lbench_with_glibc() {
    for cpus in [1, 2] {
        lbench("lbench", cpus, &[]);
    }
}

#[test]
fn lbench_with_musl() {
    for cpus in [1, 2] {
        lbench("lbench-musl", cpus, &[]);
    }
}

#[test]
fn lbench_sweeps() {
    for cpus in [1, 3] {
        lbench("lbench-musl", cpus, &["forks", "pids", "cpus"]);
    }
}
