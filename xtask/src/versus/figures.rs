//! What lbench printed, boot by boot, and the file that keeps it.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, path::Path};

/// Name of the file in the directory of a comparison.
const FILE: &str = "figures.json";

/// The two that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// The one to beat.
    Linux,
    /// This repository's.
    Orrery,
}

impl System {
    /// Both, in the order in which they are shown.
    pub const BOTH: [Self; 2] = [Self::Linux, Self::Orrery];

    /// For file names.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Orrery => "orrery",
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linux => "Linux",
            Self::Orrery => "Orrery",
        })
    }
}

/// A value and its unit: `@ metric value unit`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// In the unit.
    pub value: f64,
    /// As lbench has it; `ticks` of the TSC are instructions where the machine counts them.
    pub unit: String,
}

/// One boot's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Name of the boot in the list of targets.
    pub boot: String,
    /// Whose.
    pub system: System,
    /// Number of CPUs.
    pub cpus: u32,
    /// The kernel's command line.
    pub cmdline: String,
    /// CPUs of the host that were busy with other things just before the boot; `None` where it does not matter.
    pub others_busy: Option<f64>,
    /// By metric.
    pub figures: BTreeMap<String, Figure>,
}

impl Record {
    /// The value of a metric.
    pub fn value(&self, metric: &str) -> Option<f64> {
        self.figures.get(metric).map(|figure| figure.value)
    }

    #[cfg(test)]
    pub fn empty(system: System, boot: &str) -> Self {
        let (boot, cmdline) = (boot.to_owned(), String::new());
        Self { boot, system, cpus: 1, cmdline, others_busy: None, figures: BTreeMap::new() }
    }
}

/// All that one run of the command measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// When, `YYYY-MM-DD`.
    pub date: String,
    /// The command that measured it.
    pub command: String,
    /// Linux's version, or more of it.
    pub linux: String,
    /// Orrery's revision.
    pub orrery: String,
    /// The emulator's version.
    pub qemu: String,
    /// QEMU's arguments but for the kernel's.
    pub lines: Vec<String>,
    /// CPUs of the host.
    pub host_cpus: usize,
    /// In the order in which they were booted.
    pub records: Vec<Record>,
}

impl Measured {
    /// Writes it to a directory, which is created.
    ///
    /// # Errors
    /// Where that cannot be done.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        let text = serde_json::to_string_pretty(self)?;
        std::fs::create_dir_all(dir)
            .and_then(|()| std::fs::write(&path, text))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads what [`Measured::save`] wrote.
    ///
    /// # Errors
    /// Where there is none, or it is of another make.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is malformed", path.display()))
    }

    /// The unit of a metric.
    pub fn unit(&self, metric: &str) -> Option<&str> {
        self.records.iter().find_map(|record| record.figures.get(metric)).map(|it| it.unit.as_str())
    }
}

/// The figures in lbench's output; other lines are passed over.
pub fn parse(text: &str) -> BTreeMap<String, Figure> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.trim_end().strip_prefix("@ ")?.split(' ');
            let (metric, value, unit) = (words.next()?, words.next()?, words.next()?);
            let value = value.parse().ok().filter(|value: &f64| value.is_finite())?;
            let figure = Figure { value, unit: unit.to_owned() };
            words.next().is_none().then(|| (metric.to_owned(), figure))
        })
        .collect()
}

/// What went wrong in a run of lbench that says this, if anything did.
pub fn failure(text: &str) -> Option<String> {
    let failed = |line: &&str| {
        let status = line.strip_prefix("# group ").and_then(|rest| rest.split(' ').nth(2));
        line.starts_with("# FAIL") || status.is_some_and(|status| status != "0")
    };
    let mut failed = text.lines().map(str::trim_end).filter(failed);
    match failed.next() {
        Some(line) => Some(format!("lbench says `{line}`")),
        None if !text.contains("# lbench done") => {
            Some("lbench did not come to its end".to_owned())
        }
        None => None,
    }
}

/// The middle of a sample; `None` of an empty one.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[half]),
        _ => Some((sorted[half - 1] + sorted[half]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OUTPUT: &str = "[    0.1] Run /init\r\n# lbench start\r\n@ null_syscall 312.00 ticks\r\n\
        @ t.p50 -3 ns\r\n# cpu: @ home\r\n@ broken nan ticks\r\n@ short 3\r\n@ long 3 ns of time\r\n\
        # group base status 0 guest_s 0.51\r\n# lbench done\r\n";

    #[test]
    fn figures_are_found_among_other_lines() {
        let figures = parse(OUTPUT);
        let names: Vec<_> = figures.keys().collect();
        assert_eq!(names, ["null_syscall", "t.p50"]);
        assert_eq!(figures["null_syscall"], Figure { value: 312.0, unit: "ticks".into() });
        assert_eq!(figures["t.p50"].value, -3.0);
    }

    #[test]
    fn a_group_that_failed_is_no_figure() {
        assert_eq!(failure(OUTPUT), None);
        let failed = OUTPUT.replace("base status 0", "base status 256");
        assert!(failure(&failed).unwrap().contains("group base status 256"));
        assert!(failure(&OUTPUT.replace("@ broken", "# FAIL pipe errno 24")).is_some());
        assert!(failure("# lbench start\n").unwrap().contains("end"));
    }

    #[test]
    fn the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn what_was_measured_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record { figures: parse(OUTPUT), ..Record::empty(System::Linux, "counted") };
        let text = |text: &str| text.to_owned();
        let measured = Measured {
            date: text("2026-01-01"),
            command: text("c"),
            linux: text("6.1"),
            orrery: text("abc"),
            qemu: text("7.2"),
            lines: vec![text("-m 1G")],
            host_cpus: 2,
            records: vec![record],
        };
        measured.save(&dir.path().join("a/b")).unwrap();
        assert_eq!(Measured::load(&dir.path().join("a/b")).unwrap(), measured);
        assert_eq!(measured.unit("t.p50"), Some("ns"));
        let error = Measured::load(dir.path()).unwrap_err();
        assert!(error.to_string().contains("figures.json"), "{error:#}");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(metric in "[a-z][a-z0-9_.]{0,20}", cents in -1_000_000_000i64..1_000_000_000) {
            let value = cents as f64 / 100.0;
            let figures = parse(&format!("noise\n@ {metric} {value:.2} ticks\r\n"));
            prop_assert_eq!(figures[&metric].value, value);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (parse(&text), failure(&text));
        }
    }
}
