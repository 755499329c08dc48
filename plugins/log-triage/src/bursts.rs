//! When much more happened than usual.
//!
//! Time is cut into windows that begin at multiples of their length. A window is a **burst** of a series (all lines, or the
//! lines of one template) if it has at least `lines_min` of its lines, and at least `factor` times the **median** of the
//! windows in which the series has any (the lower one, if there are two). Bursts in adjacent windows are one.

use std::collections::BTreeMap;

/// Windows that are counted, over all series together: two numbers each, 4 MiB at most with the tree around them.
const WINDOWS_MAX: usize = 100_000;

/// Lines by window.
#[derive(Debug)]
pub(crate) struct Series {
    windows: BTreeMap<(Subject, i64), u32>,
    window_ms: i64,
    /// Lines of windows that found no room.
    pub(crate) left_out: u64,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// All lines.
    All,
    /// Those of a template.
    Template(usize),
}

/// Windows in a row with much more than usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Burst {
    pub(crate) subject: Subject,
    /// Where it begins, in milliseconds.
    pub(crate) from_ms: i64,
    /// Where it ends.
    pub(crate) to_ms: i64,
    pub(crate) lines: u64,
    /// What is usual in one window.
    pub(crate) median: u32,
    /// What its fullest window has.
    pub(crate) peak: u32,
}

impl Series {
    pub(crate) fn new(window_ms: i64) -> Self {
        Self {
            windows: BTreeMap::new(),
            window_ms,
            left_out: 0,
        }
    }

    /// Counts a line.
    pub(crate) fn add(&mut self, subject: Subject, ms: i64) {
        let key = (subject, ms.div_euclid(self.window_ms));
        if self.windows.len() >= WINDOWS_MAX && !self.windows.contains_key(&key) {
            self.left_out += 1;
            return;
        }
        let count = self.windows.entry(key).or_default();
        *count = count.saturating_add(1);
    }

    /// All bursts: those of all lines first, then by template; each in order of time.
    pub(crate) fn bursts(&self, factor: u32, lines_min: u32) -> Vec<Burst> {
        let mut bursts: Vec<Burst> = Vec::new();
        let mut rest = self.windows.iter().peekable();
        while let Some(&(&(subject, _), _)) = rest.peek() {
            let mut windows = Vec::new();
            while let Some((&(_, window), &count)) = rest.next_if(|((it, _), _)| *it == subject) {
                windows.push((window, count));
            }
            let median = median(windows.iter().map(|(_, count)| *count));
            let least = median.saturating_mul(factor).max(lines_min);
            let first = bursts.len();
            for (window, count) in windows.into_iter().filter(|(_, count)| *count >= least) {
                let from_ms = window * self.window_ms;
                match bursts[first..].last_mut() {
                    Some(burst) if burst.to_ms == from_ms => {
                        burst.to_ms += self.window_ms;
                        burst.lines += u64::from(count);
                        burst.peak = burst.peak.max(count);
                    }
                    _ => bursts.push(Burst {
                        subject,
                        from_ms,
                        to_ms: from_ms + self.window_ms,
                        lines: u64::from(count),
                        median,
                        peak: count,
                    }),
                }
            }
        }
        bursts
    }
}

/// The lower median; 0 of nothing.
fn median(counts: impl Iterator<Item = u32>) -> u32 {
    let mut counts: Vec<u32> = counts.collect();
    counts.sort_unstable();
    let middle = counts.len().saturating_sub(1) / 2;
    counts.get(middle).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_far_above_the_median_and_adjacent_ones_are_one() {
        let mut series = Series::new(1000);
        let mut add = |subject, window: i64, count: usize| {
            (0..count).for_each(|_| series.add(subject, window * 1000 + 999));
        };
        // The median of 2, 2, 3, 40, 30, 25 is 3, of which five times is 15.
        for (window, count) in [(-2, 2), (-1, 2), (3, 3), (5, 40), (6, 30), (9, 25)] {
            add(Subject::All, window, count);
        }
        // Always the same is no burst, and neither is a little.
        for window in 0..5 {
            add(Subject::Template(0), window, 50);
        }
        add(Subject::Template(1), 0, 1);
        add(Subject::Template(1), 1, 9);
        let burst = |from_ms, to_ms, lines, peak| Burst {
            subject: Subject::All,
            from_ms,
            to_ms,
            lines,
            median: 3,
            peak,
        };
        assert_eq!(
            series.bursts(5, 10),
            [burst(5_000, 7_000, 70, 40), burst(9_000, 10_000, 25, 25)]
        );
        assert_eq!(series.bursts(5, 41), []);
    }

    #[test]
    fn windows_are_bounded() {
        let mut series = Series::new(1);
        for ms in 0..WINDOWS_MAX as i64 + 5 {
            series.add(Subject::All, ms);
        }
        series.add(Subject::All, 0);
        assert_eq!((series.windows.len(), series.left_out), (WINDOWS_MAX, 5));
        assert_eq!(median([].into_iter()), 0);
        assert_eq!(median([4, 1, 3, 2].into_iter()), 2);
    }
}
