//! Tasks that say themselves when they were at work: each writes its launch's number and the time, twice, into a file of its
//! own. So what was executed, how often, and how many at the same time is read from the edges' files, not from what the
//! orchestrator says of itself.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail, ensure};

use super::Cluster;

/// What the edges' files say.
#[derive(Clone, Copy, Debug)]
pub struct Executed {
    /// Each a launch of its own.
    pub tasks: usize,
    /// At one moment.
    pub most_at_once: usize,
}

/// A task that lasts long enough to overlap with another one.
pub fn pipeline(limit: usize, lasts: &str) -> String {
    format!(
        "name = \"tick\"\nkind = \"batch\"\nconcurrency = {limit}\n[params]\nn = {{ type = \"integer\" }}\n\
         [input.generate]\ncount = 2\ninterval = \"{lasts}\"\ntemplate = '${{param.n}} ${{seq}} ${{now}}'\n\
         [output.file]\npath = \"${{execution.id}}.out\"\n"
    )
}

/// Reads what was executed from the edges' files: each of so many launches, once.
pub fn executed(cluster: &Cluster, edges: &[&str], launches: usize) -> Result<Executed> {
    let mut spans = Vec::with_capacity(launches);
    let mut times = BTreeMap::new();
    for edge in edges {
        for file in std::fs::read_dir(cluster.edge_file(edge, ""))? {
            let (number, span) = read(&file?.path())?;
            *times.entry(number).or_insert(0) += 1;
            spans.push(span);
        }
    }
    for (number, times) in &times {
        ensure!(*times == 1, "launch {number} was executed {times} times");
    }
    ensure!(
        times.keys().copied().eq(0..launches),
        "{} of {launches} launches were executed",
        times.len()
    );
    Ok(Executed {
        tasks: spans.len(),
        most_at_once: most_at_once(spans),
    })
}

/// A task's file: the launch's number, when its first record was made and when its last.
fn read(path: &Path) -> Result<(usize, (String, String))> {
    let text = std::fs::read_to_string(path)?;
    let mut records = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    match (
        records.next().as_deref(),
        records.next().as_deref(),
        records.next(),
    ) {
        (Some([number, "0", first]), Some([same, "1", last]), None) if number == same => {
            Ok((number.parse()?, ((*first).to_owned(), (*last).to_owned())))
        }
        _ => bail!("{} does not have its two records: {text:?}", path.display()),
    }
}

/// How many spans share a moment, at most. Times of one clock in one format are in the order of their texts.
fn most_at_once(spans: Vec<(String, String)>) -> usize {
    let mut moments: Vec<(String, bool)> = Vec::with_capacity(spans.len() * 2);
    // What began and ended within one millisecond shares it with nobody that can be told.
    for (first, last) in spans.into_iter().filter(|(first, last)| first < last) {
        moments.push((first, true));
        moments.push((last, false));
    }
    // In one and the same millisecond an end comes first.
    moments.sort();
    let (mut now, mut most) = (0_usize, 0);
    for (_, begins) in moments {
        if begins {
            now += 1;
            most = most.max(now);
        } else {
            now = now.saturating_sub(1);
        }
    }
    most
}
