//! Programs that are to die at a persist point by name: see `sluice_state_dir::failpoint`.
//!
//! ```text
//!   kill -9, start with SLUICE_FAILPOINT=POINT -> something happens -> it aborts there -> start without, all converges
//! ```

use crate::e2e::process::assert_aborted;
use crate::e2e::{Cluster, JsonLog, wait};

/// The variable, as the programs of test builds know it.
const VARIABLE: &str = "SLUICE_FAILPOINT";

impl Cluster {
    /// Kills the orchestrator and starts it anew, to die at this point, perhaps while it starts.
    #[track_caller]
    pub fn doom_orchestrator(&mut self, point: &str) {
        self.kill_orchestrator();
        let mut command = self.orchestrator_command();
        command.env(VARIABLE, point);
        if let Err(status) = self.start_orchestrator_by(&mut command) {
            assert_aborted("the orchestrator", status);
        }
    }

    /// Waits until the doomed orchestrator has died where it should, and starts it again.
    ///
    /// # Panics
    ///
    /// When it does not, or dies of something else.
    #[track_caller]
    pub fn revive_orchestrator(&mut self, point: &str) {
        self.wait_orchestrator_doom(point);
        self.start_orchestrator();
    }

    /// Waits until the doomed orchestrator has died where it should.
    ///
    /// # Panics
    ///
    /// When it does not, or dies of something else.
    #[track_caller]
    pub fn wait_orchestrator_doom(&mut self, point: &str) {
        if self.orchestrator_runs() {
            let status = self.orchestrator().wait_end(wait::LONG);
            assert_aborted("the orchestrator", status);
        }
        assert_said(&self.log(), point);
    }

    /// Kills an edge and starts it anew, to die at this point, perhaps while it starts.
    #[track_caller]
    pub fn doom_edge(&mut self, name: &str, point: &str) {
        self.kill_edge(name);
        let mut command = self.edge_command(name);
        command.env(VARIABLE, point);
        self.spawn_edge(name, &mut command);
    }

    /// Waits until the doomed edge has died where it should.
    ///
    /// # Panics
    ///
    /// When it does not, or dies of something else.
    #[track_caller]
    pub fn wait_doom(&mut self, name: &str, point: &str) {
        let status = self.edge(name).wait_end(wait::LONG);
        assert_aborted(name, status);
        assert_said(&self.edge_log(name), point);
    }
}

/// Lines that other threads may still write between a thread's last words and its abort.
const LATER_LINES_MAX: usize = 4;

/// The last thing that a process said was the name of its point.
#[track_caller]
fn assert_said(log: &JsonLog, point: &str) {
    let text = log.text();
    let last: Vec<&str> = text.lines().rev().take(1 + LATER_LINES_MAX).collect();
    let mut parts = point.split('/');
    let what = parts.next().unwrap_or_default();
    let place = parts.next().unwrap_or_default();
    let expected = format!("failpoint {what}/{place}: aborting");
    assert!(
        last.contains(&expected.as_str()),
        "it died elsewhere: {last:#?}"
    );
}
