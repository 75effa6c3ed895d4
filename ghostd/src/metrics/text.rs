//! Prometheus' text format, version 0.0.4: what every collector reads. Written by hand: figures are plain numbers that the core
//! counts, and a library's registry of shared, atomic ones would have to be kept beside them.
//!
//! Invariants:
//! - A family has one HELP and one TYPE line, and its samples follow them.
//! - Names and labels are the program's own words; a label's value is escaped all the same.

use std::fmt::{Display, Write};

use super::Histogram;

/// What the HTTP answer is called.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text that grows by families.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// One figure that only grows.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// One figure that comes and goes.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// The same by the value of a label.
    pub fn counters<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (impl AsRef<str>, V)>,
    ) {
        self.family(name, "counter", help);
        self.samples(name, label, values);
    }

    pub fn gauges<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (impl AsRef<str>, V)>,
    ) {
        self.family(name, "gauge", help);
        self.samples(name, label, values);
    }

    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.cumulative() {
            self.sample(&bucket, &[("le", &bound.as_secs_f64().to_string())], count);
        }
        self.sample(&bucket, &[("le", "+Inf")], histogram.count());
        self.sample(&format!("{name}_sum"), &[], histogram.sum().as_secs_f64());
        self.sample(&format!("{name}_count"), &[], histogram.count());
    }

    pub fn into_string(self) -> String {
        self.0
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn samples<V: Display>(&mut self, name: &str, label: &str, values: impl IntoIterator<Item = (impl AsRef<str>, V)>) {
        for (which, value) in values {
            self.sample(name, &[(label, which.as_ref())], value);
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, which)) in labels.iter().enumerate() {
            let which = which.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{which}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn families_are_written_as_the_format_has_them() {
        let mut text = Text::default();
        text.counter("a_total", "All of \\ them.", 3);
        text.gauges("b", "By place.", "place", [("x", 1.5), ("q\"\\\n", -1.0)]);
        assert_eq!(
            text.into_string(),
            "# HELP a_total All of \\\\ them.\n# TYPE a_total counter\na_total 3\n# HELP b By place.\n# TYPE b gauge\n\
             b{place=\"x\"} 1.5\nb{place=\"q\\\"\\\\\\n\"} -1\n"
        );
    }

    #[test]
    fn a_histograms_buckets_are_cumulative_and_end_with_all() {
        let mut histogram = Histogram::default();
        histogram.observe(Duration::from_micros(200));
        histogram.observe(Duration::from_millis(1500));
        let mut text = Text::default();
        text.histogram("t_seconds", "Time.", &histogram);
        let text = text.into_string();
        let has = |line: &str| assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        has("t_seconds_bucket{le=\"0.0001\"} 0");
        has("t_seconds_bucket{le=\"0.00025\"} 1");
        has("t_seconds_bucket{le=\"1\"} 1");
        has("t_seconds_bucket{le=\"2.5\"} 2");
        has("t_seconds_bucket{le=\"+Inf\"} 2");
        has("t_seconds_sum 1.5002");
        has("t_seconds_count 2");
    }
}
