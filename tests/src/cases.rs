//! The failure matrix: what must come out when things go wrong, by number, and which tests show it.
//!
//! A test names its cases in its function's name, as in `case_13_half_the_fleet_is_away` or `case_11_18_cascade`. The
//! table is made by reading the sources, so that a case without a test cannot hide.

use std::collections::BTreeMap;

use crate::tidy::Project;
use crate::tidy::mask::{line_of, mask};

/// Every case, by number from 1: what happens, and what must come of it.
pub const CASES: [&str; 99] = [
    "a node joins while a daemon job runs: it runs the job within 5 s",
    "an execution waits for its node, the node comes back: sent, running",
    "an execution runs, its node reconnects: not restarted, nothing sent again",
    "a short disconnect: the work runs on untouched",
    "a node is away longer than lost_after: the job's on_lost happens, and shows",
    "deploy with all nodes here: all receive, all run, the job is running",
    "deploy with some nodes away: theirs wait with a reason, the rest run; they follow on return",
    "deploy with no matching node: queued, starts by itself on the first one",
    "five nodes join: five executions more",
    "five nodes leave: their executions end, the job runs on the rest",
    "deployed while its node is away and nothing was ever sent: sent and running on return",
    "ten nodes run a job, five join: fifteen run",
    "one node up, one down, deploy: one runs, the other follows on return",
    "two nodes run a job, a third joins: three run",
    "a node drops and returns before it counts as disconnected: nothing restarts, nothing sent again",
    "a lost node was replaced and returns: its instance stops, no two count as one",
    "a dead node still counts as connected, deploy: sent in its next session, runs",
    "the same, and two more jobs meanwhile: all three run; what waits blocks nothing",
    "an execution completes without a link: reported on return, recorded once",
    "an execution fails without a link and is updated meanwhile: outcome at the old attempt, the new version runs",
    "every edge killed and restarted: the same work resumes",
    "the same, then an update: the update runs",
    "a node is gone for ever: only its own rows wait, memory does not grow with retries",
    "a launch is answered while no scheduler runs: durable, starts when one does",
    "a crash between storing a run and its work: neither or both",
    "two schedulers see one due item: one wins",
    "a run of three tasks: each executed once, one status",
    "a claim runs out: claimed again with a higher fence",
    "the old claimant finishes late: refused by the fence",
    "limit 1, two launches: the second waits, then runs",
    "a crash after a run was marked started: claimed again, no second run",
    "a schedule missed six ticks: skip, one or all, as it says",
    "failover at a tick: exactly one run",
    "mixed results: the run failed, with each task's part",
    "orchestrator killed before a commit: the client hears an error, there is no row",
    "orchestrator killed after a commit, before the send: sent after the restart",
    "orchestrator killed after the send, before the ack: sent again, no second effect",
    "edge killed after its ack, before the start: starts it, without a link too",
    "edge killed in a download: goes on where it was, hash checked, temporary file swept",
    "edge killed in an update, the old stopped, the new not started: rolls forward",
    "edge killed after the end, before the outcome is on disk: again if idempotent, else indeterminate",
    "edge's disk full: no ack, refused with that reason and tried again, running work untouched",
    "orchestrator's disk full: writes refused, sessions stay, resumes",
    "fsync fails: the program ends, the next start reads what is on disk",
    "torn tail of a store's log: cut, and the session closes the gap",
    "a flipped bit in the edge's store: noticed, work runs on, snapshot asked for",
    "a flipped bit in the orchestrator's store: refuses to start, says how to recover",
    "a damaged component in the cache: noticed, fetched again; without a link the old version runs on",
    "the edge's store lost, same certificate: new incarnation, snapshot",
    "power cut and no network: boots and runs what it had",
    "the edge's clock is ten years off: no timer fires, certificates flagged",
    "the orchestrator's clock jumps an hour: nobody is disconnected",
    "suspended for eight hours: daemons kept, session renewed",
    "the orchestrator stalls for a minute: nobody is disconnected for it",
    "30 % loss at 200 ms: all equal within 30 s",
    "only edge to orchestrator works: the edge redials, no work twice",
    "only orchestrator to edge works: disconnected, its work runs on, no work twice",
    "everything ten times and out of order: one effect",
    "one change lost, the next arrives: asks from where it is, ends equal",
    "the edge's address changes: same session",
    "UDP blocked or large packets lost: an error that names it, backoff",
    "8 kbit/s: a download never starves the control stream, its progress shows",
    "an old session closes after the new one opened: the new one stays",
    "a flapping link for an hour: no restarts, the log stays small",
    "a captured Hello is replayed: nothing changes",
    "certificate revoked while connected: closed within a heartbeat",
    "certificate expired while away: renews, the work never stops",
    "a copied state directory, both run: one is fenced, an alarm",
    "two edges on one directory: the second ends at the lock and says why",
    "a wiped machine under its old name: with its token the same node and its work; without, refused, saying how",
    "a deleted node calls: refused, stops its work, keeps its data",
    "orchestrator restored from a day ago: those nodes held, nothing stops",
    "orchestrator's store empty, same authority: every node held, nothing stops",
    "two orchestrators after a failover: one wins by its fence",
    "an older edge: served in its dialect; what needs more is refused there alone",
    "a newer edge: speaks the older dialect",
    "orchestrator upgraded and downgraded: a newer store is refused, never damaged",
    "two updates while away: only the last runs, the first is never fetched",
    "an update and back to the same content while away: no restart",
    "deleted while away: purged on return, the name free at once",
    "deleted and made again under its name: another job, the old state never returns",
    "a canary fails: rolled back by itself, absent nodes only ever get the good version",
    "a new version fails on an edge: the old one runs on, says so, the job is degraded",
    "a crash loop: backoff, then quarantine; other jobs never notice",
    "a row that the edge cannot digest: refused alone; a guard ends a loop of starts",
    "a component with an unknown import or broken bytes: refused, what ran runs on",
    "a component that cannot be had: pending with the next try's time, the old version runs",
    "a rollout with nodes away: they consume no budget",
    "a label moves a node out of the selector and back: stopped, then runs",
    "drain during a rollout, or while away: ends or waits visibly",
    "paused, then edges reconnect: nothing starts",
    "10,000 edges reconnect at once: all equal within a minute, none missed",
    "one deploy to 10,000 edges: syncs are shared, no transaction for each",
    "30 days of churn: the ledger is bounded by live rows",
    "30 days without a link: outcomes kept, telemetry dropped and counted",
    "away past the horizon of removals: a snapshot, no zombie",
    "1,000 updates a second to one job: edges see one for each round trip at most",
    "a crash at every single write: all invariants hold",
    "something waits without a reason: the tests fail",
];

/// A test that names a case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CaseTest {
    /// The file, relative to the project.
    pub path: String,
    /// Counted from 1.
    pub line: usize,
    /// The function.
    pub name: String,
}

/// Tests by the number of the case. Numbers that no case has are in it too, so that they show.
pub fn tests_by_case(project: &Project) -> BTreeMap<usize, Vec<CaseTest>> {
    let mut by_case: BTreeMap<usize, Vec<CaseTest>> = BTreeMap::new();
    for file in project.files.iter().filter(|file| file.is_rust()) {
        let masked = mask(&file.text);
        for (at, _) in masked.match_indices("fn case_") {
            let rest = &masked[at + "fn ".len()..];
            let end = rest
                .find(|c: char| c != '_' && !c.is_alphanumeric())
                .unwrap_or(rest.len());
            let name = &rest[..end];
            for number in numbers(name) {
                by_case.entry(number).or_default().push(CaseTest {
                    path: file.path.clone(),
                    line: line_of(&masked, at),
                    name: name.to_owned(),
                });
            }
        }
    }
    by_case
}

/// The numbers at the start: of `case_2_18_words` and of `case_2_case_18_words` both.
fn numbers(name: &str) -> Vec<usize> {
    name.split('_')
        .filter(|&part| part != "case")
        .map_while(|part| part.parse().ok())
        .collect()
}

/// The table, for people.
pub fn table(by_case: &BTreeMap<usize, Vec<CaseTest>>) -> String {
    let mut text = String::new();
    let mut without = Vec::new();
    for (at, title) in CASES.iter().enumerate() {
        let number = at + 1;
        let Some(tests) = by_case.get(&number) else {
            without.push(number);
            continue;
        };
        text.push_str(&format!("{number:>4}  {title}\n"));
        for test in tests {
            text.push_str(&format!(
                "        {} ({}:{})\n",
                test.name, test.path, test.line
            ));
        }
    }
    if !without.is_empty() {
        text.push_str("without a test of their own:\n");
        for number in &without {
            text.push_str(&format!("{number:>4}  {}\n", CASES[number - 1]));
        }
    }
    text.push_str(&format!(
        "failure matrix: {} of {} cases have tests\n",
        CASES.len() - without.len(),
        CASES.len()
    ));
    text
}

/// Numbers that tests name and no case has.
pub fn unknown(by_case: &BTreeMap<usize, Vec<CaseTest>>) -> Vec<&CaseTest> {
    by_case
        .iter()
        .filter(|(number, _)| !(1..=CASES.len()).contains(number))
        .flat_map(|(_, tests)| tests)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::SourceFile;

    #[test]
    fn tests_are_found_by_the_numbers_in_their_names() {
        let mut project = Project::default();
        project.files.push(SourceFile::new(
            "tests/tests/a.rs",
            "//! fn case_1_in_a_comment\nfn case_13_one() {}\n    async fn case_2_18_two_cases() {}\nfn case_100_case_7_two_words() {}",
        ));
        project
            .files
            .push(SourceFile::new("README.md", "fn case_4_not_rust() {}"));
        let found = tests_by_case(&project);
        let numbers: Vec<usize> = found.keys().copied().collect();
        assert_eq!(numbers, [2, 7, 13, 18, 100]);
        assert_eq!(found[&18][0].line, 3);
        assert_eq!(found[&18][0].name, "case_2_18_two_cases");
        assert_eq!(unknown(&found).len(), 1);
        let text = table(&found);
        assert!(text.contains("case_13_one (tests/tests/a.rs:2)"), "{text}");
        assert!(
            text.contains("failure matrix: 4 of 99 cases have tests"),
            "{text}"
        );
    }
}
