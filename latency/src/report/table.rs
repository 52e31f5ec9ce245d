//! Comparisons as text and as Markdown.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use super::Report;
use crate::compare::{Breakdown, Row};

const HEADINGS: [&str; 8] =
    ["metric", "kind", "base", "now", "change", "limit", "repetitions", "verdict"];
/// Headings whose columns are words.
const WORDS: [&str; 3] = ["metric", "kind", "verdict"];

/// The comparison as text: the table, the paths of what is worst, and a line that sums up.
pub fn text(report: &Report) -> String {
    let mut text = format!("base: {}\nnow:  {}\n\n", report.base, report.now);
    text += &rows(report, presets::NOTHING);
    text += "\n";
    for row in report.comparison.regressions() {
        if let Some(breakdown) = &row.breakdown {
            // Writing to a string does not fail.
            let _ = write!(text, "\n{}", breakdown_text(&row.metric, breakdown));
        }
    }
    let _ = writeln!(text, "\n{}", report.verdict());
    text
}

/// The comparison as Markdown, for a comment on a change.
pub fn markdown(report: &Report) -> String {
    let mut text = format!("Latency: {} against {}\n\n", report.now, report.base);
    text += &rows(report, presets::ASCII_MARKDOWN);
    let _ = writeln!(text, "\n\n{}", report.verdict());
    for row in report.comparison.regressions() {
        if let Some(breakdown) = &row.breakdown {
            let _ = write!(text, "\n```text\n{}```\n", breakdown_text(&row.metric, breakdown));
        }
    }
    text
}

/// Two builds' paths side by side.
pub fn breakdown_text(metric: &str, breakdown: &Breakdown) -> String {
    let mut text =
        format!("{metric}, step by step (everything traced, which costs some itself):\n");
    let mut table =
        table(&["from", "to", "base", "now", "change"], presets::NOTHING, &["from", "to"]);
    for step in &breakdown.steps {
        let ticks = |side: Option<u64>| side.map_or("-".to_owned(), |ticks| ticks.to_string());
        let change =
            if step.growth() == 0 { String::new() } else { format!("{:+}", step.growth()) };
        table.add_row([
            step.from.clone(),
            step.to.clone(),
            ticks(step.base_ticks),
            ticks(step.now_ticks),
            change,
        ]);
    }
    let _ = writeln!(text, "{table}");
    if let Some(step) = &breakdown.grew_most {
        let _ = writeln!(text, "grew most: {} -> {} ({:+})", step.from, step.to, step.growth());
    }
    text
}

fn rows(report: &Report, preset: &str) -> String {
    let mut table = table(&HEADINGS, preset, &WORDS);
    for row in &report.comparison.rows {
        table.add_row(cells(row));
    }
    table.trim_fmt()
}

fn table(headings: &[&str], preset: &str, words: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(preset).set_header(headings);
    for (heading, column) in headings.iter().zip(table.column_iter_mut()) {
        let is_words = words.contains(heading);
        let alignment = if is_words { CellAlignment::Left } else { CellAlignment::Right };
        column.set_cell_alignment(alignment);
    }
    table
}

fn cells(row: &Row) -> [String; HEADINGS.len()] {
    let dash = || "-".to_owned();
    let ticks = |ticks: Option<f64>| ticks.map_or_else(dash, number);
    let change = row.growth().map_or_else(dash, |growth| format!("{:+.1} %", growth * 100.0));
    let repetitions = row.figure.as_ref().map_or_else(dash, |figure| {
        let boots = figure.boot_medians_ticks.len();
        match row.precision {
            crate::figure::Precision::Exact => {
                format!("{} of {}", figure.agreeing, figure.repetitions)
            }
            _ if boots > 1 => format!("{} in {boots} boots", figure.repetitions),
            _ => figure.repetitions.to_string(),
        }
    });
    let mut verdict = row.verdict.as_str().to_owned();
    if let Some(p) = row.p {
        let _ = write!(verdict, " (p = {p:.4})");
    }
    if let Some(note) = &row.note {
        let _ = write!(verdict, ": {note}");
    }
    [
        row.metric.clone(),
        row.precision.as_str().to_owned(),
        ticks(row.base_ticks),
        ticks(row.now_ticks),
        change,
        ticks(row.limit_ticks),
        repetitions,
        verdict,
    ]
}

/// Ticks with as many decimals as say something.
fn number(ticks: f64) -> String {
    if ticks >= 1_000.0 || ticks.fract() == 0.0 {
        format!("{ticks:.0}")
    } else {
        format!("{ticks:.2}")
    }
}
