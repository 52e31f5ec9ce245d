//! What the latency suite measures: each boot measures all that `docs/latency.md` says it does, and under `-icount`
//! two boots tell the same, to the tick.

use std::collections::BTreeMap;

use orrery_core::region::Region;
use orrery_tests::programs::OnLinux;
use orrery_tests::{Guest, Outcome};
use trace_tools::events::Known;

const DOCUMENT: &str = include_str!("../../docs/latency.md");
const REPEAT: usize = 15;
/// What a boot has one sample of.
const ONCE: &str = "boot-to-init";

/// Who measures: the headings of the document's tables end so.
#[derive(Clone, Copy)]
enum By {
    Program,
    Application,
}

/// A boot as the column "needs" sees it.
#[derive(Clone, Copy)]
struct Machine {
    cpus: u32,
    /// What a CPU does that has been idle for long.
    long_idle: &'static str,
}

impl By {
    /// What the document says that this machine measures, and how often.
    fn documented(self, machine: Machine) -> BTreeMap<String, usize> {
        let heading = match self {
            Self::Program => "### By the program",
            Self::Application => "### By the application",
        };
        let samples = |name: &str| if name == ONCE { 1 } else { REPEAT };
        rows(heading, machine).into_iter().map(|name| (name.clone(), samples(&name))).collect()
    }

    fn run(self, guest: Guest) -> Outcome {
        let guest = guest.trace("mark").snapshot().memory("512M");
        match self {
            Self::Program => guest.program("latency", &["--repeat", &REPEAT.to_string()]).run(),
            Self::Application => guest.workload(&format!("latency,repeat={REPEAT}")).run(),
        }
    }
}

/// The metrics below this heading that the machine can measure.
fn rows(heading: &str, machine: Machine) -> Vec<String> {
    let (_, section) = DOCUMENT.split_once(heading).expect("the document has the heading");
    let section = section.split_once("\n#").map_or(section, |(section, _)| section);
    let mut names = Vec::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, metrics, _, ops, needs, _] = columns[..] else { panic!("five bars: {row}") };
        assert!(ops.parse::<u32>().is_ok(), "OPS is a number: {row}");
        let is_there = |need: &str| match need {
            "" => true,
            "2 CPUs" => machine.cpus >= 2,
            "polling" | "halted" => need == machine.long_idle,
            _ => panic!("an unknown need: {row}"),
        };
        if needs.split(", ").all(is_there) {
            names.extend(metrics.split(' ').map(|name| name.trim_matches('`').to_owned()));
        }
    }
    names
}

/// The marks of a run that are regions.
fn marks(outcome: &Outcome) -> Vec<String> {
    let trace = outcome.ended_with(0);
    let marks = trace.known().filter_map(|(_, known)| match known {
        Known::Mark { text, .. } => Some(text.to_text()),
        _ => None,
    });
    marks.collect()
}

/// How many samples of each metric these lines are.
fn counts<'a>(lines: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        let region = Region::parse(line).unwrap_or_else(|| panic!("not a region: {line}"));
        let region = region.unwrap_or_else(|why| panic!("{why}"));
        *counts.entry(region.name().to_owned()).or_default() += 1;
    }
    counts
}

fn repeats_to_the_tick(by: By) {
    let machine = Machine { cpus: 1, long_idle: "polling" };
    let [first, second] = [(), ()].map(|()| marks(&by.run(Guest::new().icount())));
    assert_eq!(counts(first.iter().map(String::as_str)), by.documented(machine));
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first, second, "two runs differ");
    }
    assert_eq!(first.len(), second.len(), "one run tells more");
}

fn measures_two_cpus(by: By) {
    let machine = Machine { cpus: 2, long_idle: "halted" };
    let marks = marks(&by.run(Guest::new().smp(2)));
    assert_eq!(counts(marks.iter().map(String::as_str)), by.documented(machine));
}

#[test]
fn latency_program_repeats_to_the_tick() {
    repeats_to_the_tick(By::Program);
}

#[test]
fn latency_application_repeats_to_the_tick() {
    repeats_to_the_tick(By::Application);
}

#[test]
fn latency_program_measures_two_cpus() {
    measures_two_cpus(By::Program);
}

#[test]
fn latency_application_measures_two_cpus() {
    measures_two_cpus(By::Application);
}

/// Which metrics is a matter of the host; that each is a documented one and told as often as is asked for is not.
#[test]
fn latency_program_runs_on_linux() {
    let run = OnLinux::run("latency", &["--stdout", "--repeat", &REPEAT.to_string()]);
    assert_eq!(run.status, 0);
    let text = String::from_utf8(run.stdout).expect("UTF-8");
    let counts = counts(text.lines());
    let machine = |long_idle| Machine { cpus: 2, long_idle };
    let mut documented = By::Program.documented(machine("polling"));
    documented.append(&mut By::Program.documented(machine("halted")));
    assert!(counts.contains_key("null-call"), "{counts:?}");
    for (name, count) in counts {
        assert_eq!(documented.get(&name), Some(&count), "samples of {name}");
    }
}

#[test]
fn latency_program_names_what_it_does_not_understand() {
    for (arguments, complaint) in [
        (&["--only"][..], "no value behind --only"),
        (&["--repeat", "0"][..], "from 1 to 101, not `0`"),
        (&["--idle", "never"][..], "not `never`"),
        (&["all"][..], "`all` means nothing"),
    ] {
        let outcome = Guest::new().program("latency", arguments).run();
        outcome.exited_with(2);
        let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
        assert!(said.contains(complaint), "{arguments:?}: {said}");
    }
}
