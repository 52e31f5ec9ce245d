//! Plots of how costs grow, Linux's and Orrery's in each: which there are, and what they show of what was measured.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

use super::{
    boots::Plan,
    draw::{Axis, Curve, Plot, Point, Scale, draw},
    figures::{Measured, Record, System, median},
    targets::Targets,
};

/// Numbers of CPUs in plots over them.
const CPUS: [u32; 6] = [1, 2, 3, 4, 6, 8];
/// Names of the boots.
const SWEEP: &str = "sweep";
const SMP: &str = "cpus";

/// The boots that the plots' figures are from.
pub fn plans(targets: &Targets) -> Vec<Plan<'_>> {
    let kinds = [(SWEEP, &["forks", "pids"][..], &[1][..]), (SMP, &["cpus"], &CPUS)];
    let mut plans = Vec::new();
    for (name, groups, cpus) in kinds {
        if let Some((name, boot)) = targets.boots.get_key_value(name) {
            for &cpus in cpus {
                let plan = |system| Plan { name, boot, cpus, system, groups: groups.to_vec() };
                plans.extend(System::BOTH.map(plan));
            }
        }
    }
    plans
}

/// Writes the plots that there are figures for to a directory, which is created; returns their paths.
///
/// # Errors
/// Where there are none, or they cannot be written.
pub fn write(measured: &Measured, dir: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut paths = Vec::new();
    for plot in
        plots(measured).iter().filter(|plot| plot.curves.iter().any(|it| it.points.len() > 1))
    {
        let path = dir.join(plot.file);
        std::fs::write(&path, draw(plot)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        paths.push(path);
    }
    anyhow::ensure!(!paths.is_empty(), "no figures for plots; measure them with --plots");
    Ok(paths)
}

fn plots(measured: &Measured) -> Vec<Plot> {
    let both = |name: &str, is_second, points: &dyn Fn(System) -> Vec<Point>| {
        System::BOTH.map(|system| {
            let name =
                if name.is_empty() { system.to_string() } else { format!("{system}, {name}") };
            Curve { name, system, is_second, points: points(system) }
        })
    };
    let sweep = |metric: &'static str, suffix: &'static str| {
        move |system| over_names(measured, system, metric, suffix)
    };
    let over_cpus = |value: &'static dyn Fn(&Record) -> Option<f64>| {
        move |system| over_cpus(measured, system, value)
    };
    let counted = "instructions, one CPU (icount); lower is better".to_owned();
    let host = measured.host_cpus;
    let timed = format!(
        "medians over boots, bars from the least to the greatest (MTTCG); the host has {host} CPUs, shared where there are more"
    );
    let versions = format!(
        "{}, Linux {} and Orrery {} on QEMU {}",
        measured.date, measured.linux, measured.orrery, measured.qemu
    );
    let foot = [versions, measured.command.clone()];
    let cpus = || Axis {
        label: "virtual CPUs",
        scale: Scale::Linear,
        show: |value| format!("{value:.0}"),
        ticks: (1..=8).map(f64::from).collect(),
    };
    let instructions =
        || Axis { label: "instructions", scale: Scale::Log, show: quantity, ticks: vec![] };
    vec![
        Plot {
            file: "fork-memory.svg",
            title: "The fork call, by memory touched",
            subtitle: counted.clone(),
            x: Axis {
                label: "memory touched before the fork",
                scale: Scale::Log,
                show: kibibytes,
                ticks: vec![],
            },
            y: instructions(),
            curves: both("", false, &sweep("forks_", "k.fork_call")).into(),
            foot: foot.clone(),
        },
        Plot {
            file: "pid-allocation.svg",
            title: "The fork call, by PIDs in use",
            subtitle: counted,
            x: Axis {
                label: "live PIDs (threads of another process)",
                scale: Scale::Log,
                show: quantity,
                ticks: vec![],
            },
            y: instructions(),
            curves: both("", false, &sweep("pids_", ".fork_call")).into(),
            foot: foot.clone(),
        },
        Plot {
            file: "wake-cpus.svg",
            title: "Waking a thread on another CPU, by number of CPUs",
            subtitle: timed.clone(),
            x: cpus(),
            y: Axis {
                label: "futex wake to running, microseconds",
                scale: Scale::Log,
                show: quantity,
                ticks: vec![],
            },
            curves: both("p50", false, &over_cpus(&|record| microseconds(record, "cpus_wake.p50")))
                .into_iter()
                .chain(both(
                    "p99",
                    true,
                    &over_cpus(&|record| microseconds(record, "cpus_wake.p99")),
                ))
                .collect(),
            foot: foot.clone(),
        },
        Plot {
            file: "hackbench-cpus.svg",
            title: "Hackbench (pipes, one group), by number of CPUs",
            subtitle: timed,
            x: cpus(),
            y: Axis {
                label: "milliseconds for 40,000 messages",
                scale: Scale::Log,
                show: quantity,
                ticks: vec![],
            },
            curves: both("", false, &over_cpus(&|record| record.value("hack_pipe_g1_all.time")))
                .into(),
            foot,
        },
    ]
}

/// A metric whose name holds the abscissa, between `prefix` and `suffix`; zero has no place on a logarithmic axis.
fn over_names(measured: &Measured, system: System, prefix: &str, suffix: &str) -> Vec<Point> {
    let records = measured.records.iter().filter(|it| it.system == system && it.boot == SWEEP);
    let named = records.flat_map(|record| &record.figures).filter_map(|(name, figure)| {
        let x: f64 = name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok()?;
        (x > 0.0).then_some((x, figure.value))
    });
    points(named.collect())
}

fn over_cpus(
    measured: &Measured,
    system: System,
    value: &dyn Fn(&Record) -> Option<f64>,
) -> Vec<Point> {
    let records = measured.records.iter().filter(|it| it.system == system && it.boot == SMP);
    points(records.filter_map(|it| Some((f64::from(it.cpus), value(it)?))).collect())
}

/// One point for each abscissa.
fn points(mut values: Vec<(f64, f64)>) -> Vec<Point> {
    values.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let groups = values.chunk_by(|a, b| a.0 == b.0);
    groups
        .filter_map(|group| {
            let of: Vec<f64> = group.iter().map(|value| value.1).collect();
            Some(Point { x: group[0].0, y: median(&of)?, least: of[0], most: of[of.len() - 1] })
        })
        .collect()
}

fn microseconds(record: &Record, metric: &str) -> Option<f64> {
    Some(record.value(metric)? / record.value("tsc_hz")? * 1e6)
}

fn kibibytes(value: f64) -> String {
    match value {
        kib if kib >= 1048576.0 => format!("{:.0} GiB", kib / 1048576.0),
        kib if kib >= 1024.0 => format!("{:.0} MiB", kib / 1024.0),
        kib => format!("{kib:.0} KiB"),
    }
}

/// A number in three digits at most: 31.3 M, 4 k, 12.5.
fn quantity(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        size if size >= 999_500.0 => (value / 1e6, " M"),
        size if size >= 999.5 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{scaled:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::figures::parse;

    /// Figures of a sweep and of two numbers of CPUs, two boots each.
    fn measured() -> Measured {
        let sweep = "@ forks_64k.fork_call 4000 ticks\n@ forks_1048576k.fork_call 31300000 ticks\n\
            @ pids_0.fork_call 1 ticks\n@ pids_1.fork_call 4000 ticks\n@ pids_100000.fork_call 4100 ticks\n";
        let timed = "@ tsc_hz 1000000000 Hz\n@ cpus_wake.p50 20000 ticks\n@ cpus_wake.p99 90000 ticks\n\
            @ hack_pipe_g1_all.time 80 ms\n";
        let mut records = Vec::new();
        for system in System::BOTH {
            records.push(Record { figures: parse(sweep), ..Record::empty(system, SWEEP) });
            for (cpus, wake) in [(1, "20000"), (1, "40000"), (8, "30000")] {
                let figures = parse(&timed.replace("20000", wake));
                records.push(Record { cpus, figures, ..Record::empty(system, SMP) });
            }
        }
        Measured {
            date: "2026-01-31".into(),
            command: "cargo xtask versus-linux --plots DIR".into(),
            linux: "6.1".into(),
            orrery: "abc".into(),
            qemu: "7.2".into(),
            lines: vec![],
            host_cpus: 2,
            records,
        }
    }

    #[test]
    fn every_plot_has_both_kernels_and_says_where_it_is_from() {
        let dir = tempfile::tempdir().unwrap();
        let paths = write(&measured(), &dir.path().join("figures")).unwrap();
        let names: Vec<_> =
            paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(
            names,
            ["fork-memory.svg", "pid-allocation.svg", "wake-cpus.svg", "hackbench-cpus.svg"]
        );
        for path in &paths {
            let svg = std::fs::read_to_string(path).unwrap();
            for word in ["<svg", "Linux", "Orrery", "2026-01-31", "--plots DIR", "QEMU 7.2"] {
                assert!(svg.contains(word), "{}: no {word}", path.display());
            }
        }
        let fork = std::fs::read_to_string(&paths[0]).unwrap();
        assert!(fork.contains("64 KiB") && fork.contains("1 GiB") && fork.contains("31.3 M"));
        assert!(std::fs::read_to_string(&paths[2]).unwrap().contains("the host has 2 CPUs"));
    }

    #[test]
    fn points_are_medians_with_their_reach() {
        let made = points(vec![(2.0, 9.0), (1.0, 5.0), (1.0, 1.0), (1.0, 3.0)]);
        let shown: Vec<_> = made.iter().map(|it| (it.x, it.y, it.least, it.most)).collect();
        assert_eq!(shown, [(1.0, 3.0, 1.0, 5.0), (2.0, 9.0, 9.0, 9.0)]);
        // Zero PIDs have no place on the axis.
        let pids = over_names(&measured(), System::Linux, "pids_", ".fork_call");
        assert_eq!(pids.iter().map(|it| it.x).collect::<Vec<_>>(), [1.0, 100_000.0]);
    }

    #[test]
    fn without_figures_there_is_nothing_to_draw() {
        let dir = tempfile::tempdir().unwrap();
        let none = Measured { records: vec![], ..measured() };
        assert!(write(&none, dir.path()).unwrap_err().to_string().contains("--plots"));
    }

    #[test]
    fn labels_are_short() {
        for (value, text) in [
            (31_293_611.0, "31.3 M"),
            (4045.0, "4.04 k"),
            (10_000.0, "10 k"),
            (0.5, "0.5"),
            (120.0, "120"),
            (999.9, "1 k"),
        ] {
            assert_eq!(quantity(value), text);
        }
        assert_eq!([64.0, 1024.0, 1_048_576.0].map(kibibytes), ["64 KiB", "1 MiB", "1 GiB"]);
    }
}
