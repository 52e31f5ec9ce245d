//! `cargo xtask versus-linux`: Linux and Orrery on the same virtual machine, with the same program, side by side.
//!
//! - `targets` reads `targets.toml`: what is booted, what is compared, and what Orrery is to reach;
//! - `linux` finds a kernel, `boots` boots both;
//! - `figures` is what was measured, and its file; `rank` the statistics;
//! - `table` judges and shows the rows, `plots` says what is plotted, `draw` draws it.
//!
//! Exit status: 0 if every target is met, 3 if not, 2 for wrong usage or where there is no Linux kernel.

mod boots;
mod draw;
mod figures;
mod linux;
mod plots;
mod table;
mod targets;

use anyhow::Result;
use clap::ValueEnum as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use crate::project::{Failure, Project, display};
use boots::{Bench, Plan};
use figures::{Measured, System};
use targets::{Mode, Row, Targets};

/// Status of a comparison in which a target is missed.
const EXIT_MISSED: u8 = 3;
/// Boots of each kernel for times: with five, figures that do not overlap have a probability of 2 in 252.
const BOOTS: u32 = 5;
/// CPUs of the host that others may use while times are taken, without a warning.
const BUSY: f64 = 0.1;

/// Options of `cargo xtask versus-linux`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The Linux kernel, a bzImage; without it Debian's is downloaded by apt and unpacked, not installed.
    #[arg(long, value_name = "FILE")]
    linux: Option<PathBuf>,
    /// Only rows with one of these words in their name or their figure's.
    #[arg(long, value_name = "METRIC", num_args = 1..)]
    only: Vec<String>,
    /// What is compared: icount (instructions, one CPU), mttcg (times, two CPUs), all.
    #[arg(long, value_enum, default_value_t = Modes::All)]
    mode: Modes,
    /// Boots of each kernel where figures are times, taken in turn; with less than 4 no difference is significant.
    #[arg(long, value_name = "N", default_value_t = BOOTS, value_parser = clap::value_parser!(u32).range(1..=100))]
    boots: u32,
    /// How the table is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Keep figures and the guests' output in this directory instead of target/orrery/versus-linux.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Boot nothing: show what an earlier run has kept in this directory.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["linux", "out", "boots"])]
    from: Option<PathBuf>,
    /// Instead of the table, measure what the scaling plots show, and write them to this directory as SVG.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["only", "format"])]
    plots: Option<PathBuf>,
    /// Host seconds after which one boot is given up.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Modes {
    Icount,
    Mttcg,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
    Markdown,
}

impl Modes {
    fn has(self, mode: Mode) -> bool {
        match self {
            Self::Icount => mode == Mode::Icount,
            Self::Mttcg => mode == Mode::Mttcg,
            Self::All => true,
        }
    }
}

/// Measures, or reads what was measured, and shows it.
///
/// # Errors
/// Status 2 where there is no kernel or nothing to show; and where a boot fails.
pub fn versus(project: &Project, options: &Options) -> Result<ExitCode> {
    let targets = Targets::load()?;
    let rows = rows(&targets, options)?;
    let mut plans = match &options.plots {
        Some(_) => plots::plans(&targets),
        None => plans(&targets, &rows),
    };
    plans.retain(|plan| options.mode.has(plan.boot.mode));
    let measured = match &options.from {
        Some(dir) => Measured::load(dir).map_err(|error| Failure::usage(format!("{error:#}")))?,
        None => measure(project, options, &targets, &plans)?,
    };
    if let Some(dir) = &options.plots {
        for path in plots::write(&measured, dir)? {
            println!("{}", path.display());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let lines = table::judge(&targets, &rows, &measured);
    match options.format {
        Format::Text => print!("{}", report(&measured, &table::text(&lines, table::Shape::Plain))),
        Format::Markdown => print!("{}", markdown(&measured, &lines)),
        Format::Json => {
            let Measured { date, command, linux, orrery, qemu, .. } = &measured;
            let value = serde_json::json!({
                "date": date, "command": command, "linux": linux, "orrery": orrery, "qemu": qemu, "rows": lines,
            });
            println!("{}", serde_json::to_string_pretty(&value)?);
        }
    }
    let met = table::all_met(&lines);
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::from(EXIT_MISSED) })
}

/// The rows that the options choose.
fn rows<'a>(targets: &'a Targets, options: &Options) -> Result<Vec<&'a Row>> {
    let chosen = |row: &&Row| {
        let called = options.only.iter().any(|word| row.is_called(word));
        (options.only.is_empty() || called) && options.mode.has(targets.mode(row))
    };
    let rows: Vec<_> = targets.rows.iter().filter(chosen).collect();
    if rows.is_empty() {
        let names: Vec<_> = targets.rows.iter().map(|row| row.name.as_str()).collect();
        return Err(Failure::usage(format!(
            "--only {}: no such row with this --mode; there are:\n  {}",
            options.only.join(" "),
            names.join("\n  ")
        )));
    }
    Ok(rows)
}

/// The boots that these rows' figures are from, each with the groups of lbench that it takes.
fn plans<'a>(targets: &'a Targets, rows: &[&'a Row]) -> Vec<Plan<'a>> {
    let mut groups: BTreeMap<(&str, System), BTreeSet<&str>> = BTreeMap::new();
    for row in rows {
        for system in System::BOTH {
            for term in row.formula(system).map(|formula| formula.terms()).unwrap_or_default() {
                let of_boot = groups.entry((&term.boot, system)).or_default();
                of_boot.extend(row.groups.iter().map(String::as_str));
            }
        }
    }
    groups
        .into_iter()
        .filter_map(|((name, system), groups)| {
            let (name, boot) = targets.boots.get_key_value(name)?;
            let groups = groups.into_iter().collect();
            Some(Plan { name, boot, cpus: boot.cpus, system, groups })
        })
        .collect()
}

/// Boots all that is planned, times several times and in turn.
fn measure(
    project: &Project,
    options: &Options,
    targets: &Targets,
    plans: &[Plan<'_>],
) -> Result<Measured> {
    let kernel = linux::kernel(project, options.linux.as_deref())?;
    let image = std::fs::read(&kernel)
        .map_err(|error| Failure::usage(format!("--linux {}: {error}", kernel.display())))?;
    let Some(version) = linux::version(&image) else {
        return Err(Failure::usage(format!(
            "--linux {}: not a Linux kernel for x86; a bzImage is wanted, such as /boot/vmlinuz-*",
            kernel.display()
        )));
    };
    let out = match &options.out {
        Some(dir) => dir.clone(),
        None => project.out_dir()?.join("versus-linux"),
    };
    let bench = Bench::new(project, targets, kernel, &out, Duration::from_secs(options.timeout))?;
    let rounds = |plan: &Plan<'_>| match plan.boot.mode {
        Mode::Icount => 1,
        Mode::Mttcg => options.boots,
    };
    let all: u32 = plans.iter().map(rounds).sum();
    let mut lines: Vec<_> =
        plans.iter().map(|plan| (plan.name, bench.shown_line(plan.boot))).collect();
    lines.dedup();
    let mut measured = Measured {
        date: time::OffsetDateTime::now_utc().date().to_string(),
        command: command(options),
        linux: version,
        orrery: revision(project),
        qemu: boots::qemu_version(),
        lines: lines.into_iter().map(|(name, line)| format!("{name}: {line}")).collect(),
        host_cpus: std::thread::available_parallelism().map_or(1, usize::from),
        records: Vec::new(),
    };
    for round in 0..plans.iter().map(rounds).max().unwrap_or(0) {
        for plan in plans.iter().filter(|plan| round < rounds(plan)) {
            let begun = Instant::now();
            let (number, groups) = (measured.records.len() + 1, plan.groups.join(","));
            eprint!(
                "[{number}/{all}] {}, smp {}, {}: {groups} …",
                plan.name, plan.cpus, plan.system
            );
            let boot = || bench.boot(plan, round as usize + 1);
            let record = match boot() {
                // Now and then Linux hangs while it brings up its CPUs on a busy host; Orrery has no such excuse.
                Err(error) if plan.system == System::Linux && plan.boot.mode == Mode::Mttcg => {
                    eprintln!(" {error:#}; once more");
                    boot()?
                }
                other => other?,
            };
            measured.records.push(record);
            eprintln!(" {:.0} s", begun.elapsed().as_secs_f64());
            // After each, so that little is lost where a later one fails.
            measured.save(&out)?;
        }
    }
    eprintln!("figures: {}", out.display());
    if let Some(warning) = busy_warning(&measured) {
        eprintln!("warning: {warning}");
    }
    Ok(measured)
}

/// A word on boots that others may have disturbed.
fn busy_warning(measured: &Measured) -> Option<String> {
    let watched: Vec<f64> = measured.records.iter().filter_map(|it| it.others_busy).collect();
    let disturbed = watched.iter().filter(|&&busy| busy > BUSY).count();
    let most = watched.iter().copied().fold(0.0, f64::max);
    (disturbed > 0).then(|| {
        format!(
            "{disturbed} of {} boots for times began while other work kept the host busy (up to {most:.1} CPUs): \
             such times are not to be trusted",
            watched.len()
        )
    })
}

/// The table with what it takes to understand and to repeat it.
fn report(measured: &Measured, tables: &str) -> String {
    let mut text = format!("{}\n\n{tables}", title(measured));
    // Writing to a string does not fail.
    for line in &measured.lines {
        let _ = writeln!(text, "{line}");
    }
    let mut said = BTreeSet::new();
    for record in &measured.records {
        if said.insert((&record.boot, record.system)) {
            let _ = writeln!(text, "{}, {}: {}", record.boot, record.system, record.cmdline);
        }
    }
    if let Some(warning) = busy_warning(measured) {
        let _ = writeln!(text, "{warning}");
    }
    text
}

fn markdown(measured: &Measured, lines: &[table::Line]) -> String {
    let tables = table::text(lines, table::Shape::Markdown);
    format!("{}: `{}`\n\n{tables}", title(measured), measured.command)
}

fn title(measured: &Measured) -> String {
    let Measured { date, linux, orrery, qemu, .. } = measured;
    format!("{date}, Linux {linux} and Orrery {orrery} on QEMU {qemu}")
}

/// The command that measures the same again; where files lie is nobody else's business.
fn command(options: &Options) -> String {
    let mut command = Command::new("cargo");
    command.args(["xtask", "versus-linux"]);
    if let Some(name) = options.linux.as_deref().and_then(Path::file_name) {
        command.arg("--linux").arg(name);
    }
    if !options.only.is_empty() {
        command.arg("--only").args(&options.only);
    }
    if let Some(mode) = options.mode.to_possible_value().filter(|_| options.mode != Modes::All) {
        command.args(["--mode", mode.get_name()]);
    }
    if options.boots != BOOTS {
        command.args(["--boots", &options.boots.to_string()]);
    }
    if let Some(dir) = &options.plots {
        command.arg("--plots").arg(dir);
    }
    display(&command)
}

/// The checkout's revision, with a word on changes that are not committed.
fn revision(project: &Project) -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--exclude=*"]).current_dir(&project.root);
    let output = git.output().ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|| "of unknown revision".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &str) -> Options {
        Cli::parse_from(std::iter::once("versus-linux").chain(line.split_whitespace())).options
    }

    fn planned(line: &str) -> Vec<String> {
        let targets = Targets::load().unwrap();
        let rows = rows(&targets, &options(line)).unwrap();
        let plans = plans(&targets, &rows);
        let shown = |plan: &Plan<'_>| format!("{} {} {:?}", plan.name, plan.system, plan.groups);
        plans.iter().map(shown).collect()
    }

    #[test]
    fn only_what_rows_need_is_booted() {
        assert_eq!(
            planned("--only null_syscall vfork"),
            ["counted Linux [\"base\", \"proc\"]", "counted Orrery [\"base\", \"proc\"]"]
        );
        assert_eq!(
            planned("--only sched_switch"),
            [
                "counted Linux [\"ctx\", \"trace\"]",
                "counted Orrery [\"ctx\", \"trace\"]",
                "traced Orrery [\"ctx\", \"trace\"]",
            ]
        );
        let timed = planned("--mode mttcg");
        assert!(timed.iter().all(|it| it.starts_with("timed") || it.starts_with("polling")));
        // Linux and Orrery take turns.
        assert!(
            timed.chunks(2).all(|pair| pair[0].contains("Linux") && pair[1].contains("Orrery"))
        );
    }

    #[test]
    fn words_that_name_no_row_are_refused() {
        let targets = Targets::load().unwrap();
        for line in ["--only nonsense", "--mode icount --only xwake"] {
            let error = rows(&targets, &options(line)).unwrap_err();
            assert_eq!(error.downcast_ref::<Failure>().unwrap().code, 2);
            assert!(error.to_string().contains("null system call"), "{error}");
        }
    }

    #[test]
    fn the_command_is_shown_without_places() {
        let given =
            options("--linux /far/away/vmlinuz --out here/x --mode icount --boots 9 --only a b");
        assert_eq!(
            command(&given),
            "cargo xtask versus-linux --linux vmlinuz --only a b --mode icount --boots 9"
        );
        assert_eq!(command(&options("")), "cargo xtask versus-linux");
    }
}
