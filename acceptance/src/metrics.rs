//! Reads Prometheus' text format, version 0.0.4, and takes nothing that a collector might not: each sample belongs to a
//! family that was announced with HELP and TYPE, nothing is there twice, histograms are what they claim to be.

use std::collections::{BTreeMap, BTreeSet};

/// All samples, by name and labels as they stand in the text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    samples: BTreeMap<String, f64>,
    kinds: BTreeMap<String, String>,
}

impl Metrics {
    /// Reads a whole text.
    ///
    /// # Errors
    /// The first line that is wrong, and why.
    pub fn parse(text: &str) -> Result<Metrics, String> {
        let mut metrics = Metrics::default();
        let mut helped = BTreeSet::new();
        let mut family = String::new();
        if !text.ends_with('\n') {
            return Err("the last line does not end".to_owned());
        }
        for line in text.lines() {
            let wrong = |why: &str| format!("{line:?}: {why}");
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').ok_or_else(|| wrong("no text"))?;
                if !is_name(name) || words.trim().is_empty() || !helped.insert(name.to_owned()) {
                    return Err(wrong("no name, no text, or a second one"));
                }
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').ok_or_else(|| wrong("no type"))?;
                if !helped.contains(name) || !["counter", "gauge", "histogram"].contains(&kind) {
                    return Err(wrong("without HELP, or of no known type"));
                }
                if metrics.kinds.insert(name.to_owned(), kind.to_owned()).is_some() {
                    return Err(wrong("a second one"));
                }
                name.clone_into(&mut family);
            } else {
                let (name, key, value) = sample(line).ok_or_else(|| wrong("no sample"))?;
                let suffixes: &[&str] = match metrics.kinds.get(&family).map(String::as_str) {
                    Some("histogram") => &["_bucket", "_sum", "_count"],
                    Some(_) => &[""],
                    None => &[],
                };
                if !suffixes.iter().any(|suffix| name.strip_suffix(suffix) == Some(&family)) {
                    return Err(wrong("not of the family above it"));
                }
                if metrics.samples.insert(key, value).is_some() {
                    return Err(wrong("a second one"));
                }
            }
        }
        metrics.check_histograms()?;
        Ok(metrics)
    }

    fn check_histograms(&self) -> Result<(), String> {
        for name in self.kinds.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let prefix = format!("{name}_bucket{{le=\"");
            let mut buckets: Vec<(f64, f64)> = Vec::new();
            for (key, &count) in &self.samples {
                if let Some(bound) = key.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix("\"}")) {
                    buckets.push((bound.parse().map_err(|_| format!("{key}: no bound"))?, count));
                }
            }
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            let last = buckets.last().copied();
            let all = self.samples.get(&format!("{name}_count")).copied();
            if !buckets.is_sorted_by(|one, next| one.1 <= next.1) {
                return Err(format!("{name}: its buckets are not cumulative"));
            }
            if last.is_none_or(|(bound, _)| bound != f64::INFINITY) || last.map(|(_, count)| count) != all {
                return Err(format!("{name}: the last bucket does not hold all"));
            }
            if !self.samples.contains_key(&format!("{name}_sum")) {
                return Err(format!("{name}: no sum"));
            }
        }
        Ok(())
    }

    /// A sample by name and labels, as `ghostproc_nodes{state="up"}`.
    #[track_caller]
    pub fn get(&self, key: &str) -> f64 {
        *self.samples.get(key).unwrap_or_else(|| panic!("{key} is not told"))
    }

    /// What was counted since an earlier text of the same ghostd: nothing that only grows has become less.
    ///
    /// # Errors
    /// What has.
    pub fn follows(&self, earlier: &Metrics) -> Result<(), String> {
        for (key, before) in &earlier.samples {
            let name = key.split('{').next().unwrap_or_default();
            let grows = self.kinds.iter().any(|(family, kind)| match kind.as_str() {
                "counter" => family == name,
                "histogram" => {
                    name.strip_prefix(family.as_str()).is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest))
                }
                _ => false,
            });
            match self.samples.get(key) {
                Some(now) if grows && now < before => return Err(format!("{key} was {before} and is {now}")),
                None if grows => return Err(format!("{key} has gone")),
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Name, name with labels, and value.
fn sample(line: &str) -> Option<(&str, String, f64)> {
    let (key, value) = line.rsplit_once(' ')?;
    let (name, labels) = match key.split_once('{') {
        Some((name, labels)) => (name, Some(labels.strip_suffix('}')?)),
        None => (key, None),
    };
    let is_label = |label: &str| {
        label.split_once('=').is_some_and(|(name, value)| {
            let inside = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            is_name(name) && inside.is_some_and(|inside| !inside.contains(['"', '\\', '\n']))
        })
    };
    let well = is_name(name) && labels.is_none_or(|labels| labels.split(',').all(is_label));
    let value: f64 = value.parse().ok().filter(|value: &f64| !value.is_nan())?;
    well.then(|| (name, key.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_total All.\n# TYPE a_total counter\na_total{x=\"y\"} 3\na_total{x=\"z\"} 0\n\
                        # HELP t_seconds Time.\n# TYPE t_seconds histogram\nt_seconds_bucket{le=\"0.5\"} 1\n\
                        t_seconds_bucket{le=\"+Inf\"} 2\nt_seconds_sum 1.5\nt_seconds_count 2\n";

    #[test]
    fn a_good_text_is_read() {
        let metrics = Metrics::parse(GOOD).unwrap();
        assert_eq!(metrics.get("a_total{x=\"y\"}"), 3.0);
        assert_eq!(metrics.follows(&metrics), Ok(()));
        let later = Metrics::parse(&GOOD.replace("x=\"y\"} 3", "x=\"y\"} 2")).unwrap();
        assert!(later.follows(&metrics).unwrap_err().contains("was 3 and is 2"));
    }

    #[test]
    fn each_fault_is_found() {
        for (from, to) in [
            ("# HELP a_total All.\n", ""),
            ("# TYPE a_total counter\n", ""),
            ("counter", "number"),
            ("a_total{x=\"z\"} 0", "a_total{x=\"y\"} 0"),
            ("a_total{x=\"z\"} 0", "b_total{x=\"z\"} 0"),
            ("a_total{x=\"z\"} 0", "a_total{x=z} 0"),
            ("a_total{x=\"z\"} 0", "a_total{x=\"z\"} none"),
            ("a_total{x=\"z\"} 0", "a-total{x=\"z\"} 0"),
            ("bucket{le=\"0.5\"} 1", "bucket{le=\"0.5\"} 3"),
            ("bucket{le=\"+Inf\"} 2", "bucket{le=\"9\"} 2"),
            ("count 2", "count 3"),
            ("t_seconds_sum 1.5\n", ""),
            ("t_seconds_count 2\n", "t_seconds_count 2"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            assert!(Metrics::parse(&GOOD.replace(from, to)).is_err(), "{from:?} -> {to:?} was taken");
        }
    }
}
