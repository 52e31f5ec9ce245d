//! The table: each row's figures, their ratio, the target and the verdict.
//!
//! An instruction count is what it is. A time is the median over boots, and a target on times is a claim about
//! distributions: the rank test compares Orrery's boots with Linux's, these multiplied by the target, and says with
//! which probability an order so uneven comes about by chance.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{
    figures::{Measured, System, median},
    targets::{Limit, Mode, Row, Targets},
};
use latency::rank::mann_whitney;

/// Probability above which an order may be chance.
const CHANCE: f64 = 0.05;

/// What became of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is met.
    Met,
    /// It is not.
    Missed,
    /// There is no figure to judge by.
    NoFigure,
    /// There is no target.
    ForInformation,
}

/// One kernel's figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// Over the boots.
    pub median: f64,
    /// Median over the boots of each one's 99th percentile.
    pub p99: Option<f64>,
    /// Each boot's figure.
    pub samples: Vec<f64>,
}

/// A row, judged.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// What is measured.
    pub name: String,
    /// How.
    pub mode: Mode,
    /// Names of the boots that Linux's and Orrery's figures are from.
    pub boots: [String; 2],
    /// Of the figures; empty where they have none.
    pub unit: String,
    /// Linux's figure.
    pub linux: Option<Side>,
    /// Orrery's.
    pub orrery: Option<Side>,
    /// Orrery's over Linux's.
    pub ratio: Option<f64>,
    /// The target.
    pub limit: Option<Limit>,
    /// Of the rank test, where figures are times: against the target, or where there is none, against Linux.
    pub p: Option<f64>,
    /// The outcome.
    pub verdict: Verdict,
}

/// Judges these rows by what was measured.
pub fn judge(targets: &Targets, rows: &[&Row], measured: &Measured) -> Vec<Line> {
    rows.iter().map(|row| line(targets.mode(row), row, measured)).collect()
}

fn line(mode: Mode, row: &Row, measured: &Measured) -> Line {
    let side = |system| {
        let formula = row.formula(system)?;
        let samples = formula.samples(&measured.records, system);
        let p99 = formula.p99().map(|p99| p99.samples(&measured.records, system));
        let p99 = p99.filter(|_| mode == Mode::Mttcg).and_then(|samples| median(&samples));
        Some(Side { median: median(&samples)?, p99, samples })
    };
    let pure = row.formula(System::Orrery).is_some_and(|formula| formula.is_pure());
    let (linux, orrery) = (side(System::Linux), side(System::Orrery));
    let both = linux.as_ref().zip(orrery.as_ref());
    // A ratio of ratios says nothing.
    let ratio = both.filter(|_| !pure).map(|(linux, orrery)| orrery.median / linux.median);
    let limit = row.limit();
    let verdict = match (limit, &orrery, ratio) {
        (None, ..) => Verdict::ForInformation,
        (Some(Limit::Ratio(limit)), _, Some(ratio)) => met(ratio <= limit),
        (Some(Limit::AtMost(limit)), Some(orrery), _) => met(orrery.median <= limit),
        _ => Verdict::NoFigure,
    };
    let scale = match limit {
        Some(Limit::Ratio(limit)) => limit,
        _ => 1.0,
    };
    let p = both.filter(|_| mode == Mode::Mttcg).map(|(linux, orrery)| {
        let goal: Vec<_> = linux.samples.iter().map(|sample| sample * scale).collect();
        mann_whitney(&orrery.samples, &goal).p_two_sided
    });
    let of = |system| row.formula(system).map(|formula| formula.terms()).unwrap_or_default();
    let boots = System::BOTH.map(|system| {
        let mut names: Vec<_> = of(system).iter().map(|term| term.boot.as_str()).collect();
        names.dedup();
        names.join("-")
    });
    let metric = of(System::Orrery).first().map(|term| term.metric.clone()).unwrap_or_default();
    let unit = match measured.unit(&metric) {
        _ if pure => "",
        Some("ticks") if mode == Mode::Icount => "instr",
        unit => unit.unwrap_or_default(),
    };
    let (name, unit) = (row.name.clone(), unit.to_owned());
    Line { name, mode, boots, unit, linux, orrery, ratio, limit, p, verdict }
}

fn met(is: bool) -> Verdict {
    if is { Verdict::Met } else { Verdict::Missed }
}

/// Whether no target is missed.
pub fn all_met(lines: &[Line]) -> bool {
    lines.iter().all(|line| matches!(line.verdict, Verdict::Met | Verdict::ForInformation))
}

/// The two shapes of a table of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// For a terminal.
    Plain,
    /// For a document.
    Markdown,
}

/// The tables, one for each mode that has rows.
pub fn text(lines: &[Line], shape: Shape) -> String {
    let mut text = String::new();
    for mode in [Mode::Icount, Mode::Mttcg] {
        let of_mode: Vec<_> = lines.iter().filter(|line| line.mode == mode).collect();
        if of_mode.is_empty() {
            continue;
        }
        let table = match mode {
            Mode::Icount => counted(&of_mode, shape),
            Mode::Mttcg => timed(&of_mode, shape),
        };
        let heading = match mode {
            Mode::Icount => "One CPU, instructions counted (icount)",
            Mode::Mttcg => "Two CPUs, ticks of the host's time (MTTCG), medians over boots",
        };
        // Writing to a string does not fail.
        let _ = match shape {
            Shape::Plain => writeln!(text, "{heading}\n{table}\n"),
            Shape::Markdown => writeln!(text, "{heading}:\n\n{table}\n"),
        };
    }
    text
}

fn counted(lines: &[&Line], shape: Shape) -> Table {
    let head = ["metric", "boot", "Linux", "Orrery", "unit", "ratio", "target", "verdict"];
    let mut table = empty(&head, shape, &[2, 3, 5]);
    for line in lines {
        table.add_row([
            line.name.clone(),
            boots(line),
            figure(line.linux.as_ref()),
            figure(line.orrery.as_ref()),
            line.unit.clone(),
            optional(line.ratio, |ratio| format!("{ratio:.3}")),
            optional(line.limit, |limit| limit.to_string()),
            verdict(line),
        ]);
    }
    table
}

fn timed(lines: &[&Line], shape: Shape) -> Table {
    let head = [
        "metric", "boot", "Linux", "p99", "Orrery", "p99", "ratio", "target", "p", "boots",
        "verdict",
    ];
    let mut table = empty(&head, shape, &[2, 3, 4, 5, 6, 8, 9]);
    for line in lines {
        let p99 = |side: &Option<Side>| optional(side.as_ref().and_then(|side| side.p99), number);
        let count = |side: &Option<Side>| side.as_ref().map_or(0, |side| side.samples.len());
        table.add_row([
            line.name.clone(),
            boots(line),
            figure(line.linux.as_ref()),
            p99(&line.linux),
            figure(line.orrery.as_ref()),
            p99(&line.orrery),
            optional(line.ratio, |ratio| format!("{ratio:.3}")),
            optional(line.limit, |limit| limit.to_string()),
            optional(line.p, |p| format!("{p:.3}")),
            format!("{}+{}", count(&line.linux), count(&line.orrery)),
            verdict(line),
        ]);
    }
    table
}

fn empty(head: &[&str], shape: Shape, right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_preset(match shape {
        Shape::Plain => presets::NOTHING,
        Shape::Markdown => presets::ASCII_MARKDOWN,
    });
    table.set_header(head);
    for &at in right {
        if let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Linux's and Orrery's, where they are not of the same name.
fn boots(line: &Line) -> String {
    let [linux, orrery] = &line.boots;
    if linux == orrery { linux.clone() } else { format!("{linux}, {orrery}") }
}

fn verdict(line: &Line) -> String {
    let word = match line.verdict {
        Verdict::Met => "met",
        Verdict::Missed => "MISSED",
        Verdict::NoFigure => "NO FIGURE",
        Verdict::ForInformation => "",
    };
    match line.p {
        Some(p) if p > CHANCE => {
            format!("{word}, not significant").trim_start_matches(", ").to_owned()
        }
        _ => word.to_owned(),
    }
}

fn figure(side: Option<&Side>) -> String {
    optional(side.map(|side| side.median), number)
}

fn optional<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

/// A number with as many digits as say something, thousands apart.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        _ if value.fract() == 0.0 => 0,
        size if size < 10.0 => 3,
        size if size < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{:.digits$}", value.abs());
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), ""), |parts| parts);
    let mut out = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::figures::{Record, parse};
    use proptest::prelude::*;

    /// Boots of both kernels with these figures for a metric.
    fn measured(boot: &str, metric: &str, linux: &[f64], orrery: &[f64]) -> Measured {
        let record = |system, value: &f64| {
            let figures = parse(&format!("@ {metric} {value} ticks\n"));
            Record { figures, ..Record::empty(system, boot) }
        };
        let linux = linux.iter().map(|value| record(System::Linux, value));
        let orrery = orrery.iter().map(|value| record(System::Orrery, value));
        Measured {
            date: String::new(),
            command: String::new(),
            linux: String::new(),
            orrery: String::new(),
            qemu: String::new(),
            lines: vec![],
            host_cpus: 2,
            records: linux.chain(orrery).collect(),
        }
    }

    fn judged(metric: &str, measured: &Measured) -> Line {
        let targets = Targets::load().unwrap();
        let rows: Vec<_> = targets.rows.iter().filter(|row| row.is_called(metric)).collect();
        judge(&targets, &rows[..1], measured).remove(0)
    }

    #[test]
    fn a_count_is_compared_with_its_target() {
        // The target is a quarter.
        let line = judged("null_syscall", &measured("counted", "null_syscall", &[312.0], &[78.0]));
        assert_eq!((line.ratio, line.verdict, line.p), (Some(0.25), Verdict::Met, None));
        assert_eq!(line.unit, "instr");
        let line = judged("null_syscall", &measured("counted", "null_syscall", &[312.0], &[79.0]));
        assert_eq!(line.verdict, Verdict::Missed);
        assert!(!all_met(&[line]));
        let line = judged("null_syscall", &measured("counted", "null_syscall", &[312.0], &[]));
        assert_eq!(line.verdict, Verdict::NoFigure);
        assert!(text(&[line], Shape::Plain).contains("NO FIGURE"));
    }

    #[test]
    fn a_limit_of_its_own_needs_no_linux() {
        let metric = "fork_small.fork_call";
        let line = judged(metric, &measured("counted", metric, &[], &[4300.0]));
        assert_eq!((line.ratio, line.verdict), (None, Verdict::Met));
        let line = judged(metric, &measured("counted", metric, &[42_000.0], &[4301.0]));
        assert_eq!(line.verdict, Verdict::Missed);
    }

    #[test]
    fn times_are_judged_by_rank_against_the_target() {
        let linux = [1000.0, 1010.0, 1020.0, 1030.0, 1040.0];
        let of = |orrery: &[f64]| judged("exec", &measured("timed", "exec", &linux, orrery));
        let clear = of(&[300.0, 301.0, 302.0, 303.0, 304.0]);
        assert_eq!(clear.verdict, Verdict::Met);
        assert!(clear.p.unwrap() < 0.01, "{clear:?}");
        let near = of(&[480.0, 530.0, 509.0, 490.0, 540.0]);
        assert_eq!(near.verdict, Verdict::Met);
        assert!(near.p.unwrap() > 0.05, "{near:?}");
        let table = text(&[clear, near], Shape::Markdown);
        assert!(table.contains("| met, not significant |") && table.contains("5+5"), "{table}");
    }

    #[test]
    fn numbers_are_readable() {
        for (value, text) in [
            (2_001_298.4, "2,001,298"),
            (312.0, "312"),
            (45.25, "45.2"),
            (1.018, "1.018"),
            (-1234.0, "-1,234"),
            (0.0, "0"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    proptest! {
        #[test]
        fn the_verdict_is_the_ratios(linux in 1u32..1_000_000, orrery in 1u32..1_000_000) {
            let (linux, orrery) = (f64::from(linux), f64::from(orrery));
            let line = judged("null_syscall", &measured("counted", "null_syscall", &[linux], &[orrery]));
            prop_assert_eq!(line.verdict == Verdict::Met, orrery / linux <= 0.25);
        }

        #[test]
        fn digits_are_kept(value in 100u64..1 << 53) {
            prop_assert_eq!(number(value as f64).replace(',', ""), value.to_string());
        }
    }
}
