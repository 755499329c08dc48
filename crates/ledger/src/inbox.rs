//! The receiving side: whether an offered change applies to the set on this disk.

use sluice_model::Revision;

/// What a complete change says of itself. `base` absent means a snapshot: the whole set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The revision that the change starts from; `None` for a snapshot.
    pub base: Option<Revision>,
    /// The revision that the set has afterwards.
    pub to: Revision,
}

/// What to do with an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Apply it in one transaction; if the digest differs afterwards, undo and ask for a snapshot.
    Apply,
    /// Already here: acknowledge the revision that this disk holds, again.
    AckAgain,
    /// It starts after what is here: ask for everything from this disk's revision.
    AskFrom(Revision),
}

/// The receiver's rule. Holds only the revision that is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inbox {
    rev: Revision,
}

impl Inbox {
    /// A receiver whose disk holds `rev`.
    pub fn new(rev: Revision) -> Self {
        Self { rev }
    }

    /// The revision on disk.
    pub fn rev(self) -> Revision {
        self.rev
    }

    /// Judges an offer. A snapshot applies unless it would go back; a snapshot at the revision that is here applies
    /// too, because it was asked for to mend the rows.
    pub fn judge(self, offer: Offer) -> Verdict {
        match offer.base {
            None if offer.to >= self.rev => Verdict::Apply,
            None => Verdict::AckAgain,
            Some(_) if offer.to <= self.rev => Verdict::AckAgain,
            Some(base) if base > self.rev => Verdict::AskFrom(self.rev),
            Some(_) => Verdict::Apply,
        }
    }

    /// Records that a change up to `to` is on disk.
    pub fn handle_applied(&mut self, to: Revision) {
        assert!(to >= self.rev, "a set never goes back in revision");
        self.rev = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(base: Option<u64>, to: u64) -> Offer {
        Offer {
            base: base.map(Revision),
            to: Revision(to),
        }
    }

    #[test]
    fn a_change_applies_only_where_it_continues_what_is_here() {
        let inbox = Inbox::new(Revision(7));
        for (offered, verdict) in [
            (offer(Some(7), 8), Verdict::Apply),
            (offer(Some(5), 9), Verdict::Apply),
            (offer(Some(5), 7), Verdict::AckAgain),
            (offer(Some(1), 2), Verdict::AckAgain),
            (offer(Some(8), 9), Verdict::AskFrom(Revision(7))),
            (offer(None, 7), Verdict::Apply),
            (offer(None, 20), Verdict::Apply),
            (offer(None, 6), Verdict::AckAgain),
        ] {
            assert_eq!(inbox.judge(offered), verdict, "{offered:?}");
        }
    }
}
