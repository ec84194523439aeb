//! The cells a worker counts in: one writer each, added up by whoever scrapes.
//!
//! A cell is written by the thread of its worker only, so counting is a load and a store, no locked instruction and no
//! line shared between cores. Readers on other threads see each cell whole, and possibly a moment late; two cells read
//! in one scrape need not be of the same instant.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto;

/// A closed set of label values, of which every one is a series.
pub trait Label: Copy + 'static {
    /// Names of the labels this set gives values to.
    const NAMES: &'static [&'static str];
    /// Every member, in the order of [`Label::index`].
    const ALL: &'static [Self];
    /// Place among [`Label::ALL`].
    fn index(self) -> usize;
    /// One value for each of [`Label::NAMES`].
    fn values(self) -> &'static [&'static str];
}

/// What only grows. One writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// What rises and falls. One writer.
#[derive(Debug, Default)]
pub struct Level(AtomicU64);

/// A counter for each member of a closed set. `N` is the size of that set.
#[derive(Debug)]
pub struct By<L, const N: usize>([Counter; N], PhantomData<fn(L)>);

/// Durations, sorted into [`BOUNDS`], for each member of a closed set. `N` is the size of that set.
#[derive(Debug)]
pub struct Latency<L, const N: usize>([Buckets<{ BOUNDS.len() }>; N], PhantomData<fn(L)>);

/// Upper bounds of the latency buckets, in nanoseconds, ascending. A hit takes microseconds, a question gives up after
/// 4 s; 1.8 s is when an asker gets a stale answer.
pub const BOUNDS: [u64; 17] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    1_900_000_000,
    4_000_000_000,
    8_000_000_000,
];

/// Values sorted into buckets, whose upper bounds whoever records and reads them knows. One writer.
#[derive(Debug)]
pub(super) struct Buckets<const N: usize> {
    /// How many were at most the bound of the same index, and more than the bound before.
    counts: [Counter; N],
    /// How many were more than the last bound.
    beyond: Counter,
    sum: Counter,
}

/// What a histogram shows: the counts up to each bound, how many there are, and their sum.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// How many were at most the bound of the same index, those of smaller bounds included.
    pub cumulative: Vec<u64>,
    pub count: u64,
    /// In the unit of the bounds.
    pub sum: u64,
}

// === impl Distribution ===

impl Distribution {
    /// Both together; they have the same bounds.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        for (mine, theirs) in self.cumulative.iter_mut().zip(other.cumulative) {
            *mine += theirs;
        }
        Self { count: self.count + other.count, sum: self.sum.wrapping_add(other.sum), ..self }
    }
}

// === impl Counter ===

impl Counter {
    /// Counts one. For the thread of this worker only.
    pub fn bump(&self) {
        self.add(1);
    }

    /// Counts `n`. For the thread of this worker only: a second writer would lose counts, silently.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes over what somebody else on this thread has counted.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Level ===

impl Level {
    /// One more. For the thread of this worker only.
    pub fn rise(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
    }

    /// One less, never below none. For the thread of this worker only.
    pub fn fall(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    /// How many there are.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl By ===

impl<L: Label, const N: usize> By<L, N> {
    /// Counts one `label`. For the thread of this worker only.
    pub fn bump(&self, label: L) {
        self.add(label, 1);
    }

    /// Takes over what somebody else on this thread has counted of `label`.
    pub fn set(&self, label: L, count: u64) {
        self.0[label.index()].set(count);
    }

    /// Counts `n` of `label`. For the thread of this worker only.
    pub fn add(&self, label: L, n: u64) {
        self.0[label.index()].add(n);
    }

    /// The count of `label` so far.
    pub fn value(&self, label: L) -> u64 {
        self.0[label.index()].value()
    }
}

impl<L: Label, const N: usize> Default for By<L, N> {
    fn default() -> Self {
        const { assert!(N == L::ALL.len(), "a cell for each label") }
        Self(std::array::from_fn(|_| Counter::default()), PhantomData)
    }
}

// === impl Latency ===

impl<L: Label, const N: usize> Latency<L, N> {
    /// Counts that a `label` took `elapsed`. For the thread of this worker only.
    pub fn record(&self, label: L, elapsed: Duration) {
        self.0[label.index()].record(&BOUNDS, nanoseconds(elapsed));
    }

    /// The times of `label` in all these cells, in nanoseconds, sorted into [`BOUNDS`].
    pub fn distribution<'a>(all: impl Iterator<Item = &'a Self> + Clone, label: L) -> Distribution {
        Buckets::sum(all.map(|it| &it.0[label.index()]))
    }
}

impl<L: Label, const N: usize> Default for Latency<L, N> {
    fn default() -> Self {
        const { assert!(N == L::ALL.len(), "a histogram for each label") }
        Self(std::array::from_fn(|_| Buckets::default()), PhantomData)
    }
}

// === impl Buckets ===

impl<const N: usize> Buckets<N> {
    /// Counts `value`. For the thread of this worker only.
    #[inline]
    pub(super) fn record(&self, bounds: &[u64; N], value: u64) {
        // From the short end: hits, which are the many, leave after one comparison.
        match bounds.iter().position(|bound| value <= *bound) {
            Some(at) => self.counts[at].bump(),
            None => self.beyond.bump(),
        }
        self.sum.add(value);
    }

    /// The cells of all workers, added up.
    pub(super) fn sum<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Distribution {
        let mut below = 0;
        let cumulative = (0..N).map(|at| {
            below += all.clone().map(|it| it.counts[at].value()).sum::<u64>();
            below
        });
        let cumulative = cumulative.collect();
        let beyond: u64 = all.clone().map(|it| it.beyond.value()).sum();
        Distribution { cumulative, count: below + beyond, sum: all.map(|it| it.sum.value()).fold(0, u64::wrapping_add) }
    }
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| Counter::default()),
            beyond: Counter::default(),
            sum: Counter::default(),
        }
    }
}

/// How cells of one kind, one from each worker, become the series of a metric.
pub(super) trait Cells {
    const TYPE: proto::MetricType;
    const NAMES: &'static [&'static str];

    /// One series for each label, the cells of all workers added up.
    fn sum(cells: &[&Self]) -> Vec<proto::Metric>;
}

impl Cells for Counter {
    const TYPE: proto::MetricType = proto::MetricType::COUNTER;
    const NAMES: &'static [&'static str] = &[];

    fn sum(cells: &[&Self]) -> Vec<proto::Metric> {
        vec![counter(float(cells.iter().map(|cell| cell.value()).sum()))]
    }
}

impl Cells for Level {
    const TYPE: proto::MetricType = proto::MetricType::GAUGE;
    const NAMES: &'static [&'static str] = &[];

    fn sum(cells: &[&Self]) -> Vec<proto::Metric> {
        vec![gauge(float(cells.iter().map(|cell| cell.value()).sum()))]
    }
}

impl<L: Label, const N: usize> Cells for By<L, N> {
    const TYPE: proto::MetricType = proto::MetricType::COUNTER;
    const NAMES: &'static [&'static str] = L::NAMES;

    fn sum(cells: &[&Self]) -> Vec<proto::Metric> {
        let series = L::ALL.iter().map(|label| {
            let mut metric = counter(float(cells.iter().map(|by| by.value(*label)).sum()));
            metric.set_label(pairs(L::NAMES, label.values()));
            metric
        });
        series.collect()
    }
}

impl<L: Label, const N: usize> Cells for Latency<L, N> {
    const TYPE: proto::MetricType = proto::MetricType::HISTOGRAM;
    const NAMES: &'static [&'static str] = L::NAMES;

    fn sum(cells: &[&Self]) -> Vec<proto::Metric> {
        let series = L::ALL.iter().map(|label| {
            let all = Self::distribution(cells.iter().copied(), *label);
            let mut metric = histogram(&BOUNDS, &all);
            metric.set_label(pairs(L::NAMES, label.values()));
            metric
        });
        series.collect()
    }
}

/// The label pairs of one series.
pub(super) fn pairs(names: &[&str], values: &[&str]) -> Vec<proto::LabelPair> {
    debug_assert_eq!(names.len(), values.len(), "a value for each label");
    let pairs = names.iter().zip(values).map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    pairs.collect()
}

/// A series without labels that shows `value`.
pub(super) fn gauge(value: f64) -> proto::Metric {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    proto::Metric::from_gauge(gauge)
}

/// A series without labels that shows how many there have been.
pub(super) fn counter(value: f64) -> proto::Metric {
    let mut counter = proto::Counter::default();
    counter.set_value(value);
    let mut metric = proto::Metric::default();
    metric.set_counter(counter);
    metric
}

/// A series without labels that shows durations; `bounds` in nanoseconds.
pub(super) fn histogram(bounds: &[u64], all: &Distribution) -> proto::Metric {
    // No bucket for +Inf here: the encoder writes it from the count, in the spelling Prometheus wants.
    let buckets = bounds.iter().zip(&all.cumulative).map(|(bound, below)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_cumulative_count(*below);
        bucket.set_upper_bound(seconds(*bound));
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(all.count);
    histogram.set_sample_sum(seconds(all.sum));
    let mut metric = proto::Metric::default();
    metric.set_histogram(histogram);
    metric
}

/// A duration as the cells count it; beyond five centuries all are alike.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into())
}

pub(super) fn seconds(nanoseconds: u64) -> f64 {
    float(nanoseconds) / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are doubles; exact up to 2^53")]
pub(super) fn float(value: u64) -> f64 {
    value as f64
}
