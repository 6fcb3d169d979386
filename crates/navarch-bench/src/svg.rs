//! Curves as SVG: two logarithmic axes, a line for each series.

use std::fmt::Write;

/// A line: its name and its points.
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// A drawing of series that have one unit.
pub struct Chart<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
    pub series: Vec<Series>,
}

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 120.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 46.0;
/// Colours that people with the common kinds of colour blindness can tell apart.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444"];

/// The charts below each other in one file.
#[must_use]
pub fn draw(charts: &[Chart<'_>]) -> String {
    let height = HEIGHT * charts.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (position, chart) in charts.iter().enumerate() {
        let _ = writeln!(out, "<g transform=\"translate(0 {})\">", HEIGHT * position as f64);
        chart.draw(&mut out);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

/// A logarithmic axis over whole powers of ten.
struct Axis {
    from: i32,
    to: i32,
    start: f64,
    length: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, start: f64, length: f64) -> Self {
        let positive = values.filter(|value| *value > 0.0 && value.is_finite());
        let (low, high) = positive
            .fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if low > high { (1.0, 10.0) } else { (low, high) };
        let from = low.log10().floor() as i32;
        Axis { from, to: (high.log10().ceil() as i32).max(from + 1), start, length }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.from)) / f64::from(self.to - self.from);
        self.start + self.length * share
    }

    fn decades(&self) -> impl Iterator<Item = f64> {
        (self.from..=self.to).map(|power| 10f64.powi(power))
    }
}

impl Chart<'_> {
    fn draw(&self, out: &mut String) {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Axis::over(points().map(|point| point.0), LEFT, WIDTH - LEFT - RIGHT);
        let y = Axis::over(points().map(|point| point.1), HEIGHT - BOTTOM, -(HEIGHT - TOP - BOTTOM));
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"18\" font-size=\"13\">{}</text>", escape(self.title));
        for value in x.decades() {
            let at = x.at(value);
            let _ = writeln!(
                out,
                "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>",
                bottom + 15.0
            );
        }
        for value in y.decades() {
            let at = y.at(value);
            let _ = writeln!(
                out,
                "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                LEFT - 6.0,
                at + 4.0
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(14 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 12.0,
            escape(self.x),
            (TOP + bottom) / 2.0,
            escape(self.y)
        );
        for (position, series) in self.series.iter().enumerate() {
            let colour = COLOURS.get(position % COLOURS.len()).copied().unwrap_or("#444444");
            let drawable = series.points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0);
            let places: Vec<String> =
                drawable.map(|(px, py)| format!("{:.1},{:.1}", x.at(*px), y.at(*py))).collect();
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                places.join(" ")
            );
            for place in &places {
                if let Some((px, py)) = place.split_once(',') {
                    let _ = writeln!(out, "<circle cx=\"{px}\" cy=\"{py}\" r=\"3\" fill=\"{colour}\"/>");
                }
            }
            let legend = TOP + 14.0 + 18.0 * position as f64;
            let _ = writeln!(
                out,
                "<path d=\"M{} {}h16\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"{}\" y=\"{legend}\">{}</text>",
                right + 12.0,
                legend - 4.0,
                right + 34.0,
                escape(&series.name)
            );
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_on_a_decade_is_on_its_line() {
        let axis = Axis::over([3.0, 700.0].into_iter(), 0.0, 300.0);
        assert_eq!((axis.at(1.0), axis.at(10.0), axis.at(1000.0)), (0.0, 100.0, 300.0));
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        let chart = |points: Vec<(f64, f64)>| Chart {
            title: "a < b",
            x: "x",
            y: "y",
            series: vec![Series { name: "s".to_owned(), points }],
        };
        for (points, circles) in [(vec![], 0), (vec![(0.0, 1.0)], 0), (vec![(1.0, 2.0), (10.0, 30.0)], 2)] {
            let text = draw(&[chart(points)]);
            assert_eq!(text.matches("<circle").count(), circles);
            assert!(text.contains("a &lt; b") && !text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }
}
