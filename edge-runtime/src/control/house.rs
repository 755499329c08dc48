//! What the loop looks after now and then: artifacts that nothing needs any more, and the reserve of disk room.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{Loop, RESERVES};

/// How often components that nothing names are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(6 * 3600);

/// How often it is looked for what launches brought and nothing reads any more: it may be large.
const STDINS_SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Bytes of each reserve.
const RESERVE_BYTES: u64 = 256 * 1024;

/// How often the reserve is made again after it was given up.
const RESERVE_EVERY: Duration = Duration::from_secs(60);

impl Loop {
    /// Sweeps the cache now and then, and keeps the reserve.
    pub(super) fn keep_house(&mut self) {
        let now = Instant::now();
        if now >= self.sweep_at {
            self.sweep_at = now + SWEEP_EVERY;
            let artifacts = self.around.artifacts.clone();
            let used = self.core.components_in_use();
            self.around.runtime.spawn_blocking(move || {
                told_of_sweep(artifacts.sweep(&used, SystemTime::now()));
            });
        }
        if now >= self.stdins_sweep_at {
            self.stdins_sweep_at = now + STDINS_SWEEP_EVERY;
            let artifacts = self.around.artifacts.clone();
            let used = self.core.stdins_in_use();
            self.around.runtime.spawn_blocking(move || {
                told_of_sweep(artifacts.sweep_stdins(&used, SystemTime::now()));
            });
        }
        let [for_rows, for_ends] = RESERVES.map(|name| self.around.state_dir.join(name));
        if self.core.waits_for_room() {
            self.reserve_at = now + RESERVE_EVERY;
            // Gone already, or not to be had: then there is nothing to give up.
            let _ = std::fs::remove_file(for_rows);
            if self.core.retains_an_end() {
                let _ = std::fs::remove_file(for_ends);
            }
        } else if now >= self.reserve_at {
            self.reserve_at = now + RESERVE_EVERY;
            // Ends come first: they cannot be had again, rows can.
            if let Err(error) = make_reserve(&for_ends).and_then(|()| make_reserve(&for_rows)) {
                tracing::debug!(%error, "store.no_reserve");
            }
        }
    }
}

fn told_of_sweep(swept: std::io::Result<usize>) {
    match swept {
        Ok(0) => {}
        Ok(swept) => tracing::info!(event = "artifact.swept", swept),
        Err(error) => tracing::warn!(event = "artifact.sweep_failed", %error),
    }
}

fn make_reserve(path: &std::path::Path) -> std::io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|found| found.len() == RESERVE_BYTES) {
        return Ok(());
    }
    let file = std::fs::File::create(path)?;
    let flags = rustix::fs::FallocateFlags::empty();
    rustix::fs::fallocate(&file, flags, 0, RESERVE_BYTES)?;
    Ok(())
}
