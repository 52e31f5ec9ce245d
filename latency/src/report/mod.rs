//! Comparisons for people and for programs. JSON is [`Report`] as it stands; the rest is made of it.

mod junit;
mod table;

use serde::Serialize;

pub use junit::junit;
pub use table::{breakdown_text, markdown, text};

use crate::{
    baseline::Key,
    compare::{Comparison, Verdict},
};

/// A comparison and what it is a comparison of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What `base` is.
    pub base: String,
    /// What `now` is.
    pub now: String,
    /// What the figures hold for.
    pub key: Key,
    /// Metric by metric.
    #[serde(flatten)]
    pub comparison: Comparison,
}

impl Report {
    /// The result in one line.
    pub fn verdict(&self) -> String {
        let regressions = self.comparison.regressions().len();
        let mut line = format!("{} metrics, {regressions} regressions", self.comparison.rows.len());
        for (verdict, what) in
            [(Verdict::Faster, "faster"), (Verdict::New, "new"), (Verdict::Unjudged, "not judged")]
        {
            let count = self.comparison.count(verdict);
            if count > 0 {
                line += &format!(", {count} {what}");
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compare::{Breakdown, Row},
        figure::Precision,
    };
    use trace_tools::analyses::{END, Path, Step};

    fn report() -> Report {
        let path = |ticks| Path {
            steps: vec![
                Step { to: "syscall_enter number=202".into(), ticks: 40 },
                Step { to: "sched_wakeup".into(), ticks },
                Step { to: END.into(), ticks: 100 },
            ],
            taken: 15,
            repetitions: 15,
        };
        let row = |metric: &str, now_ticks, verdict| Row {
            metric: metric.into(),
            precision: Precision::Exact,
            base_ticks: Some(100.0),
            now_ticks,
            limit_ticks: Some(103.0),
            p: None,
            verdict,
            figure: None,
            note: None,
            breakdown: None,
        };
        let mut slower = row("wake/futex", Some(140.0), Verdict::Slower);
        slower.breakdown = Some(Breakdown::of(&path(300), &path(340)));
        let rows = vec![
            row("null-call", Some(100.5), Verdict::Same),
            row("old", None, Verdict::Gone),
            slower,
        ];
        let key = || "k".to_owned();
        Report {
            base: "baseline".into(),
            now: "this tree".into(),
            key: Key { compiler: key(), qemu: key(), cpu: key(), crates: key() },
            comparison: Comparison { rows },
        }
    }

    #[test]
    fn the_text_names_the_step_that_grew() {
        let text = text(&report());
        assert!(text.contains("null-call"), "{text}");
        assert!(text.contains("+40.0 %") && text.contains("SLOWER"), "{text}");
        assert!(text.contains("syscall_enter number=202 -> sched_wakeup"), "{text}");
        assert!(text.contains("3 metrics, 2 regressions"), "{text}");
    }

    #[test]
    fn junit_has_a_failure_for_each_regression() {
        let xml = junit(&report()).unwrap();
        assert!(xml.contains(r#"tests="3""#) && xml.contains(r#"failures="2""#), "{xml}");
        assert!(xml.contains("wake/futex") && xml.contains("sched_wakeup"), "{xml}");
    }

    #[test]
    fn markdown_is_a_table() {
        let text = markdown(&report());
        assert!(text.lines().any(|line| line.starts_with("| wake/futex")), "{text}");
        assert!(text.contains("|---") || text.contains("| ---"), "{text}");
    }

    #[test]
    fn json_has_everything() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["rows"][2]["verdict"], "slower");
        assert_eq!(json["rows"][2]["breakdown"]["grew_most"]["now_ticks"], 340);
        assert_eq!(json["rows"][1]["now_ticks"], serde_json::Value::Null);
    }
}
