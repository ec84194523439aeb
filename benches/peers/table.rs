//! What was measured, and how it is shown: medians, and as ratios to the yardsticks.

use std::fmt;
use std::time::Duration;

use super::client::Tally;

/// What an answer cost the server, and how many there were.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// CPU time of the server per answer.
    pub micros: f64,
    pub per_second: f64,
}

/// One server, one round. Memory in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub hot: Option<Cost>,
    pub wide: Option<Cost>,
    pub miss: Option<Cost>,
    pub paced: Option<Cost>,
    pub idle_memory: Option<u64>,
    pub full_memory: Option<u64>,
    pub start: Option<Duration>,
    pub tally: Tally,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for column in COLUMNS {
            if let Some(value) = (column.value)(self) {
                write!(f, "{} {value:.*}  ", column.name, column.digits)?;
            }
        }
        let Tally { answered, lost, wrong } = self.tally;
        write!(f, "({answered} answers, {lost} lost, {wrong} wrong)")
    }
}

/// A figure of the table.
struct Column {
    name: &'static str,
    digits: usize,
    /// Whether a ratio to the others says something.
    compared: bool,
    value: fn(&Figures) -> Option<f64>,
}

#[rustfmt::skip]
const COLUMNS: &[Column] = &[
    Column { name: "hit hot, us", digits: 2, compared: true, value: |it| Some(it.hot?.micros) },
    Column { name: "hit wide, us", digits: 2, compared: true, value: |it| Some(it.wide?.micros) },
    Column { name: "miss, us", digits: 2, compared: true, value: |it| Some(it.miss?.micros) },
    Column { name: "hit at 20k/s, us", digits: 2, compared: true, value: |it| Some(it.paced?.micros) },
    Column { name: "hits/s", digits: 0, compared: false, value: |it| Some(it.hot?.per_second) },
    Column { name: "misses/s", digits: 0, compared: false, value: |it| Some(it.miss?.per_second) },
    Column { name: "idle, MiB", digits: 1, compared: false, value: |it| Some(mebibytes(it.idle_memory?)) },
    Column { name: "full, MiB", digits: 1, compared: false, value: |it| Some(mebibytes(it.full_memory?)) },
    Column { name: "start, ms", digits: 1, compared: false, value: |it| Some(it.start?.as_secs_f64() * 1e3) },
];

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Everything measured, server by server.
pub struct Table {
    rows: Vec<(&'static str, Vec<Figures>)>,
}

impl Table {
    pub fn new(names: impl Iterator<Item = &'static str>) -> Self {
        Self { rows: names.map(|name| (name, Vec::new())).collect() }
    }

    pub fn add(&mut self, name: &str, figures: Figures) {
        let row = self.rows.iter_mut().find(|(row, _)| *row == name).expect("a server of this table");
        row.1.push(figures);
    }

    /// Nobody gave a wrong answer.
    pub fn is_sound(&self) -> bool {
        self.rows.iter().flat_map(|(_, rounds)| rounds).all(|figures| figures.tally.wrong == 0)
    }

    fn median(&self, name: &str, column: &Column) -> Option<f64> {
        let (_, rounds) = self.rows.iter().find(|(row, _)| *row == name)?;
        let mut values: Vec<f64> = rounds.iter().filter_map(column.value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    fn write_ratios(&self, f: &mut fmt::Formatter<'_>, to: &str) -> fmt::Result {
        if !self.rows.iter().any(|(name, _)| *name == to) {
            return Ok(());
        }
        write!(f, "\n| as a ratio to {to} |")?;
        let compared: Vec<&Column> = COLUMNS.iter().filter(|column| column.compared).collect();
        for column in &compared {
            write!(f, " {} |", column.name.trim_end_matches(", us"))?;
        }
        writeln!(f, "\n|---|{}", "---:|".repeat(compared.len()))?;
        for (name, _) in &self.rows {
            write!(f, "| {name} |")?;
            for column in &compared {
                let ratio = self.median(name, column).zip(self.median(to, column));
                write_cell(f, ratio.map(|(one, other)| one / other), 2)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| server CPU per answer; median |")?;
        for column in COLUMNS {
            write!(f, " {} |", column.name)?;
        }
        writeln!(f, " lost | wrong |\n|---|{}", "---:|".repeat(COLUMNS.len() + 2))?;
        for (name, rounds) in &self.rows {
            write!(f, "| {name} |")?;
            for column in COLUMNS {
                write_cell(f, self.median(name, column), column.digits)?;
            }
            let sum = |part: fn(&Tally) -> u64| rounds.iter().map(|figures| part(&figures.tally)).sum::<u64>();
            writeln!(f, " {} | {} |", sum(|it| it.lost), sum(|it| it.wrong))?;
        }
        self.write_ratios(f, "echo")?;
        self.write_ratios(f, "dnsdist")
    }
}

fn write_cell(f: &mut fmt::Formatter<'_>, value: Option<f64>, digits: usize) -> fmt::Result {
    match value {
        Some(value) => write!(f, " {value:.digits$} |"),
        None => write!(f, " - |"),
    }
}
