//! The Prometheus text format, version 0.0.4, written line by line: for families of thousands of series, which as objects
//! would be megabytes at each scrape.

use std::fmt::{Display, Write};

use super::cells::{Distribution, float};

/// A scrape being written.
#[derive(Debug, Default)]
pub(super) struct Text(String);

/// One family of it.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

/// The labels of a series, in order.
pub(super) type Labels<'a> = [(&'static str, &'a str)];

impl Text {
    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, help, "counter")
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, help, "gauge")
    }

    pub(super) fn histogram(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, help, "histogram")
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }

    fn family(&mut self, name: &'static str, help: &str, kind: &str) -> Family<'_> {
        put(&mut self.0, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { text: &mut self.0, name }
    }
}

impl Family<'_> {
    /// One series.
    pub(super) fn value(&mut self, labels: &Labels<'_>, value: impl Display) -> &mut Self {
        self.line("", labels, None, value);
        self
    }

    /// The series of one histogram. Bounds and sum are counted in parts of `unit`: 1e9 turns nanoseconds to seconds.
    pub(super) fn distribution(&mut self, labels: &Labels<'_>, bounds: &[u64], all: &Distribution, unit: f64) {
        for (bound, below) in bounds.iter().zip(&all.cumulative) {
            self.line("_bucket", labels, Some(&(float(*bound) / unit).to_string()), below);
        }
        self.line("_bucket", labels, Some("+Inf"), all.count);
        self.line("_sum", labels, None, float(all.sum) / unit);
        self.line("_count", labels, None, all.count);
    }

    fn line(&mut self, suffix: &str, labels: &Labels<'_>, bound: Option<&str>, value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut separator = '{';
        for (label, value) in all {
            put(self.text, format_args!("{separator}{label}=\""));
            for letter in value.chars() {
                match letter {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        put(self.text, format_args!(" {value}\n"));
    }
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_ends_in_infinity_sum_and_count() {
        let mut text = Text::default();
        let all = Distribution { cumulative: vec![1, 3], count: 4, sum: 5_000_000_000 };
        text.histogram("h", "Help.").distribution(&[("zone", "a\"b\nc\\")], &[250_000, 1_000_000_000], &all, 1e9);
        let expected = "# HELP h Help.\n# TYPE h histogram\n\
            h_bucket{zone=\"a\\\"b\\nc\\\\\",le=\"0.00025\"} 1\n\
            h_bucket{zone=\"a\\\"b\\nc\\\\\",le=\"1\"} 3\n\
            h_bucket{zone=\"a\\\"b\\nc\\\\\",le=\"+Inf\"} 4\n\
            h_sum{zone=\"a\\\"b\\nc\\\\\"} 5\n\
            h_count{zone=\"a\\\"b\\nc\\\\\"} 4\n";
        assert_eq!(text.into_string(), expected);
    }

    #[test]
    fn a_series_without_labels_has_no_braces() {
        let mut text = Text::default();
        text.counter("c_total", "Help.").value(&[], 7);
        assert!(text.into_string().ends_with("\nc_total 7\n"));
    }
}
