//! Nodes that lack something that a new version needs: they get their row, and count for nothing.

use sluice_model::{ExecutionId, NodeName, UnixMs};

use super::{Advance, Followed, Member, RolloutRecord, Sign, names};

impl RolloutRecord {
    /// What a node says that lacks something tells nothing of the version, also not in the moment in which it lacks it no
    /// longer and has not tried again. From then on it is judged as all others.
    pub(super) fn note_misfits(&mut self, members: &[Member]) {
        let candidate = self.candidate;
        let at = |it: &&Followed| it.runs && it.version == candidate;
        for member in members {
            let Some(followed) = member.execution.as_ref().filter(at) else {
                continue;
            };
            if member.misfit {
                self.lacking.insert(followed.id);
            } else if !matches!(followed.sign, Sign::Failed(_) | Sign::Unwell { .. }) {
                self.lacking.remove(&followed.id);
            }
        }
    }

    /// Whether what this execution says is not held against the version.
    pub(super) fn is_excused(&self, id: ExecutionId) -> bool {
        self.excused.contains(&id) || self.lacking.contains(&id)
    }

    /// Those that lack something take no room.
    pub(super) fn send_to_misfits(
        &mut self,
        misfits: &[&Member],
        advance: &mut Advance,
        now: UnixMs,
    ) {
        advance.admitted.extend(misfits.iter().map(|it| it.node));
        if !misfits.is_empty() {
            let named: Vec<&NodeName> = misfits.iter().map(|it| &it.name).collect();
            let what = format!(
                "{} gets version {}, and lacks what it needs",
                names(&named),
                self.candidate
            );
            self.note(now, what);
        }
    }
}
