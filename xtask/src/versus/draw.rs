//! Draws plots of curves as SVG, by plotters.

use anyhow::Result;
use plotters::{
    coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::ops::Range;

use super::figures::System;

const SIZE: (u32, u32) = (880, 604);
const HEAD_HEIGHT: u32 = 106;
const FOOT_HEIGHT: u32 = 56;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(33, 37, 41);
const GREY: RGBColor = RGBColor(108, 117, 125);
const GRID: RGBColor = RGBColor(226, 230, 234);

/// A plot as data.
pub struct Plot {
    /// Name of its file.
    pub file: &'static str,
    /// The large line at the top.
    pub title: &'static str,
    /// The small one below it.
    pub subtitle: String,
    /// The abscissa.
    pub x: Axis,
    /// The ordinate, which is always labelled by decades.
    pub y: Axis,
    /// Drawn in this order.
    pub curves: Vec<Curve>,
    /// Lines at the foot.
    pub foot: [String; 2],
}

/// What is along one side.
pub struct Axis {
    /// What it shows, and the unit.
    pub label: &'static str,
    /// How values are spaced.
    pub scale: Scale,
    /// How a value is written.
    pub show: fn(f64) -> String,
    /// Where the axis is labelled; every value of the curves where this is empty.
    pub ticks: Vec<f64>,
}

/// How values are spaced on an axis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithms.
    Log,
}

/// One kernel's figures of a kind.
pub struct Curve {
    /// Its name in the legend.
    pub name: String,
    /// Whose it is, which decides on the colour.
    pub system: System,
    /// The lighter of a kernel's two curves.
    pub is_second: bool,
    /// By their abscissas.
    pub points: Vec<Point>,
}

/// The median of some boots' figures, and how far they reach.
pub struct Point {
    /// The abscissa.
    pub x: f64,
    /// The median.
    pub y: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub most: f64,
}

impl Scale {
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.log10(),
        }
    }

    fn value(self, place: f64) -> f64 {
        match self {
            Self::Linear => place,
            Self::Log => 10f64.powf(place),
        }
    }
}

/// An axis with its ends, as plotters wants it; its own have no labels at values of one's choice.
#[derive(Clone)]
struct Ruler {
    scale: Scale,
    /// Where it begins and ends, as [`Scale::place`] has it.
    ends: Range<f64>,
    ticks: Vec<f64>,
}

impl Ruler {
    /// From the first to the last of the labels, and a part of that more at either end.
    fn new(axis: &Axis, ticks: Vec<f64>, margin: f64) -> Self {
        let scale = axis.scale;
        let (from, to) = (scale.place(ticks[0]), scale.place(ticks[ticks.len() - 1]));
        let margin = (to - from) * margin;
        Self { scale, ends: from - margin..to + margin, ticks }
    }
}

impl Ranged for Ruler {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (low, high): (i32, i32)) -> i32 {
        let part = (self.scale.place(*value) - self.ends.start) / (self.ends.end - self.ends.start);
        low + (f64::from(high - low) * part).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.scale.value(self.ends.start)..self.scale.value(self.ends.end)
    }
}

/// The labels 1, 2, 5 of each decade between two values, or where that is many decades the 1 only.
fn decades(least: f64, most: f64) -> Vec<f64> {
    let (first, last) = (least.log10().floor() as i32, most.log10().ceil() as i32);
    let steps: &[f64] = if last - first > 3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all =
        (first..=last).flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
    let all: Vec<f64> = all.collect();
    let from = all.iter().rposition(|&tick| tick <= least).unwrap_or(0);
    let to = all.iter().position(|&tick| tick >= most).unwrap_or(all.len() - 1);
    all[from..=to].to_vec()
}

/// A plot as SVG.
pub fn draw(plot: &Plot) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        drawn(plot, &root)
            .map_err(|error| anyhow::anyhow!("cannot draw {}: {error}", plot.file))?;
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn drawn(plot: &Plot, root: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
    root.fill(&WHITE)?;
    let (head, rest) = root.split_vertically(HEAD_HEIGHT);
    let (body, foot) = rest.split_vertically(SIZE.1 - HEAD_HEIGHT - FOOT_HEIGHT);
    let text = |area: &Area<'_>, text: &str, at: (i32, i32), size: u32, colour: RGBColor| {
        area.draw(&Text::new(text.to_owned(), at, (FONT, size).into_font().color(&colour)))
    };
    text(&head, plot.title, (24, 16), 27, INK)?;
    text(&head, &plot.subtitle, (24, 50), 16, GREY)?;
    text(&foot, &plot.foot[0], (24, 14), 14, GREY)?;
    text(&foot, &plot.foot[1], (24, 32), 14, GREY)?;
    legend(plot, &head)?;
    curves(plot, &body)
}

/// The curves' names in a row above the plot, where no curve can be in the way.
fn legend(plot: &Plot, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
    /// About what a character takes; an SVG's reader has fonts of its own.
    const CHARACTER_WIDTH: i32 = 8;
    const LINE_LEN: i32 = 26;
    let (mut x, y) = (88, 86);
    for curve in &plot.curves {
        let line = line(curve).stroke_width(3);
        let dashes = if curve.is_second { 2 } else { 1 };
        let len = if curve.is_second { 10 } else { LINE_LEN };
        for from in (0..dashes).map(|at| x + at * (LINE_LEN - len)) {
            area.draw(&PathElement::new([(from, y), (from + len, y)], line))?;
        }
        let style = (FONT, 16).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(curve.name.clone(), (x + LINE_LEN + 8, y), style))?;
        x += LINE_LEN + 8 + curve.name.len() as i32 * CHARACTER_WIDTH + 24;
    }
    Ok(())
}

/// A kernel's colour.
fn colour(system: System) -> RGBColor {
    match system {
        System::Linux => RGBColor(201, 87, 34),
        System::Orrery => RGBColor(21, 101, 170),
    }
}

/// A curve's colour.
fn line(curve: &Curve) -> RGBAColor {
    colour(curve.system).mix(if curve.is_second { 0.55 } else { 1.0 })
}

/// Whether the end of a curve has another's so near above it that its figure goes below.
fn is_crowded(curve: &Curve, curves: &[Curve], ordinate: &Ruler) -> bool {
    let end = |curve: &Curve| curve.points.last().map(|point| ordinate.scale.place(point.y));
    let near = (ordinate.ends.end - ordinate.ends.start) * 0.09;
    let own = end(curve);
    let above = curves.iter().filter_map(end).filter(|&other| own.is_some_and(|own| other > own));
    above.into_iter().any(|other| own.is_some_and(|own| other - own < near))
}

fn curves(plot: &Plot, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let (x, y) = (&plot.x, &plot.y);
    let all = || plot.curves.iter().flat_map(|curve| &curve.points);
    let mut across: Vec<f64> =
        if x.ticks.is_empty() { all().map(|it| it.x).collect() } else { x.ticks.clone() };
    across.sort_by(f64::total_cmp);
    across.dedup();
    let least = all().map(|it| it.least).fold(f64::INFINITY, f64::min);
    let most = all().map(|it| it.most).fold(0.0, f64::max);
    // Room for the figures at the curves' ends.
    let up = decades(least * 0.8, most * 1.3);
    let ordinate = Ruler::new(y, up, 0.0);
    let mut chart = ChartBuilder::on(area)
        .margin_left(16)
        .margin_right(36)
        .x_label_area_size(54)
        .y_label_area_size(72)
        .build_cartesian_2d(Ruler::new(x, across, 0.04), ordinate.clone())?;
    let label = (FONT, 16).into_font().color(&INK);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GREY)
        .label_style(label.clone())
        .axis_desc_style(label)
        .x_desc(x.label)
        .y_desc(y.label)
        .x_label_formatter(&|&value| (x.show)(value))
        .y_label_formatter(&|&value| (y.show)(value))
        .draw()?;
    for curve in &plot.curves {
        let line = line(curve);
        let places = curve.points.iter().map(|point| (point.x, point.y));
        if curve.is_second {
            chart.draw_series(DashedLineSeries::new(places.clone(), 6, 5, line.stroke_width(2)))?;
        } else {
            chart.draw_series(LineSeries::new(places.clone(), line.stroke_width(3)))?;
        }
        let reach = curve.points.iter().filter(|point| point.least < point.most);
        chart.draw_series(reach.map(|point| {
            let bar = [point.least, point.most].map(|value| (point.x, value));
            PathElement::new(bar, line.stroke_width(1))
        }))?;
        chart.draw_series(places.map(|place| Circle::new(place, 4, line.filled())))?;
        let (side, offset) = match is_crowded(curve, &plot.curves, &ordinate) {
            true => (VPos::Top, 8),
            false => (VPos::Bottom, -8),
        };
        let style = (FONT, 15).into_font().color(&colour(curve.system));
        let style = style.pos(Pos::new(HPos::Right, side));
        chart.draw_series(curve.points.last().map(|point| {
            let text = Text::new((y.show)(point.y), (8, offset), style);
            EmptyElement::at((point.x, point.y)) + text
        }))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_enclose_the_values() {
        assert_eq!(decades(30.0, 900.0), [20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        assert_eq!(decades(3000.0, 4e7), [1e3, 1e4, 1e5, 1e6, 1e7, 1e8]);
    }

    #[test]
    fn logarithms_are_evenly_spaced() {
        let axis = Axis { label: "", scale: Scale::Log, show: |_| String::new(), ticks: vec![] };
        let ruler = Ruler::new(&axis, vec![10.0, 1000.0], 0.0);
        assert_eq!([10.0, 100.0, 1000.0].map(|value| ruler.map(&value, (0, 200))), [0, 100, 200]);
        assert_eq!(ruler.range(), 10.0..1000.0);
    }
    #[test]
    fn figures_at_the_ends_make_room_for_each_other() {
        let axis = Axis { label: "", scale: Scale::Log, show: |_| String::new(), ticks: vec![] };
        let ordinate = Ruler::new(&axis, vec![1.0, 10_000.0], 0.0);
        let curve = |y| Curve {
            name: String::new(),
            system: System::Linux,
            is_second: false,
            points: vec![Point { x: 1.0, y, least: y, most: y }],
        };
        let curves = [curve(100.0), curve(90.0), curve(10.0)];
        let crowded = |at: usize| is_crowded(&curves[at], &curves, &ordinate);
        assert_eq!([0, 1, 2].map(crowded), [false, true, false]);
    }
}
