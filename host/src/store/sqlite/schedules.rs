//! Schedules and ticks in SQLite.

use rusqlite::{Row as SqlRow, params};
use sluice_model::{Fence, RunId, ScheduleId, ScheduleName, UnixMs};

use super::super::StoreError;
use super::super::schedules::{ScheduleRecord, ScheduleStore, TickRecord};
use super::SqliteStore;
use super::rows::{
    blob, bytes, counter, int, json, maybe_time, select, text, time, to_json, wrong,
};

const SCHEDULE_COLUMNS: &str = "id, name, job, cron, tz, every, overlap, catch_up, jitter, params, nodes, enabled, \
     created_at, considered, next_nominal, next_at, fence, claimed_by, claimed_until";

const TICK_COLUMNS: &str = "nominal, outcome, run, why, count, decided_at";

fn read_schedule(row: &SqlRow<'_>) -> rusqlite::Result<ScheduleRecord> {
    Ok(ScheduleRecord {
        id: bytes(row, 0, "a schedule id", ScheduleId::from_slice)?,
        name: text(row, 1, "a schedule's name")?,
        job: text(row, 2, "a job name")?,
        cron: row.get(3)?,
        tz: row.get(4)?,
        every: row.get(5)?,
        overlap: text(row, 6, "what becomes of overlapping ticks")?,
        catch_up: text(row, 7, "what becomes of missed ticks")?,
        jitter: row.get(8)?,
        params: json(row, 9)?,
        nodes: json(row, 10)?,
        enabled: row.get(11)?,
        created_at: time(row, 12)?,
        considered: time(row, 13)?,
        next: maybe_time(row, 14)?.zip(maybe_time(row, 15)?),
        fence: Fence(counter(row, 16)?),
        claimed_by: row.get(17)?,
        claimed_until: maybe_time(row, 18)?,
    })
}

fn read_tick(row: &SqlRow<'_>) -> rusqlite::Result<TickRecord> {
    Ok(TickRecord {
        nominal: time(row, 0)?,
        outcome: text(row, 1, "what became of a tick")?,
        run: match row.get_ref(2)?.as_blob_or_null()? {
            None => None,
            Some(id) => Some(RunId::from_slice(id).ok_or_else(|| wrong(2, "a run id"))?),
        },
        why: row.get(3)?,
        count: counter(row, 4)?,
        decided_at: time(row, 5)?,
    })
}

impl ScheduleStore for SqliteStore {
    fn insert_schedule(&mut self, schedule: &ScheduleRecord) -> Result<(), StoreError> {
        let sql = format!(
            "INSERT INTO schedule ({SCHEDULE_COLUMNS})
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)"
        );
        self.execute(
            "keep a schedule",
            &sql,
            params![
                blob(schedule.id.to_bytes()),
                schedule.name.as_str(),
                schedule.job.as_str(),
                schedule.cron,
                schedule.tz,
                schedule.every,
                schedule.overlap.as_str(),
                schedule.catch_up.as_str(),
                schedule.jitter,
                to_json(&schedule.params),
                to_json(&schedule.nodes),
                schedule.enabled,
                schedule.created_at.0,
                schedule.considered.0,
                schedule.next.map(|(nominal, _)| nominal.0),
                schedule.next.map(|(_, at)| at.0),
                int(schedule.fence.0),
                schedule.claimed_by,
                schedule.claimed_until.map(|until| until.0)
            ],
        )?;
        self.note_schedule(schedule.id)
    }

    fn schedule(&mut self, name: &ScheduleName) -> Result<Option<ScheduleRecord>, StoreError> {
        let sql = select(SCHEDULE_COLUMNS, "schedule WHERE name = ?1");
        self.one("look a schedule up", &sql, [name.as_str()], read_schedule)
    }

    fn schedules(&mut self) -> Result<Vec<ScheduleRecord>, StoreError> {
        let sql = select(SCHEDULE_COLUMNS, "schedule ORDER BY name");
        self.all("list schedules", &sql, [], read_schedule)
    }

    fn set_schedule(
        &mut self,
        id: ScheduleId,
        enabled: bool,
        considered: UnixMs,
        next: Option<(UnixMs, UnixMs)>,
    ) -> Result<(), StoreError> {
        self.execute(
            "pause or resume a schedule",
            "UPDATE schedule SET enabled = ?2, considered = ?3, next_nominal = ?4, next_at = ?5, fence = fence + 1,
                claimed_by = NULL, claimed_until = NULL
             WHERE id = ?1",
            params![
                blob(id.to_bytes()),
                enabled,
                considered.0,
                next.map(|(nominal, _)| nominal.0),
                next.map(|(_, at)| at.0)
            ],
        )?;
        self.note_schedule(id)
    }

    fn delete_schedule(&mut self, id: ScheduleId) -> Result<(), StoreError> {
        self.note_schedule(id)?;
        let sql = "DELETE FROM schedule WHERE id = ?1";
        self.execute("delete a schedule", sql, [blob(id.to_bytes())])?;
        Ok(())
    }

    fn next_schedule_at(&mut self) -> Result<Option<UnixMs>, StoreError> {
        let found = self.one(
            "look for the next tick",
            "SELECT min(max(next_at, coalesce(claimed_until + 1, next_at))) FROM schedule
             WHERE enabled = 1 AND next_at IS NOT NULL",
            [],
            |row| maybe_time(row, 0),
        )?;
        Ok(found.flatten())
    }

    fn claim_schedule(
        &mut self,
        worker: &str,
        now: UnixMs,
        until: UnixMs,
    ) -> Result<Option<ScheduleRecord>, StoreError> {
        let sql = format!(
            "UPDATE schedule SET claimed_by = ?1, claimed_until = ?3, fence = fence + 1
             WHERE id = (SELECT id FROM schedule WHERE enabled = 1 AND next_at <= ?2
                    AND (claimed_by IS NULL OR claimed_until < ?2)
                ORDER BY next_at, id LIMIT 1)
             RETURNING {SCHEDULE_COLUMNS}"
        );
        let claimed = self.one(
            "claim a schedule",
            &sql,
            params![worker, now.0, until.0],
            read_schedule,
        )?;
        self.changed |= claimed.is_some();
        Ok(claimed)
    }

    fn finish_schedule(
        &mut self,
        id: ScheduleId,
        worker: &str,
        fence: Fence,
        considered: UnixMs,
        next: Option<(UnixMs, UnixMs)>,
    ) -> Result<bool, StoreError> {
        let done = self.execute(
            "finish with a schedule",
            "UPDATE schedule SET considered = ?4, next_nominal = ?5, next_at = ?6, claimed_by = NULL,
                claimed_until = NULL
             WHERE id = ?1 AND claimed_by = ?2 AND fence = ?3",
            params![
                blob(id.to_bytes()),
                worker,
                int(fence.0),
                considered.0,
                next.map(|(nominal, _)| nominal.0),
                next.map(|(_, at)| at.0)
            ],
        )?;
        self.note_schedule(id)?;
        Ok(done == 1)
    }

    fn release_schedules(&mut self) -> Result<usize, StoreError> {
        self.execute(
            "end claims on schedules",
            "UPDATE schedule SET claimed_by = NULL, claimed_until = NULL, fence = fence + 1 WHERE claimed_by IS NOT NULL",
            [],
        )
    }

    fn put_tick(&mut self, schedule: ScheduleId, tick: &TickRecord) -> Result<bool, StoreError> {
        let put = self.execute(
            "decide a tick",
            "INSERT INTO schedule_tick (schedule, nominal, outcome, run, why, count, decided_at, open)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?4 IS NOT NULL)
             ON CONFLICT (schedule, nominal) DO NOTHING",
            params![
                blob(schedule.to_bytes()),
                tick.nominal.0,
                tick.outcome.as_str(),
                tick.run.map(|run| blob(run.to_bytes())),
                tick.why,
                int(tick.count),
                tick.decided_at.0
            ],
        )?;
        self.note_schedule(schedule)?;
        Ok(put == 1)
    }

    fn decide_queued(
        &mut self,
        schedule: ScheduleId,
        tick: &TickRecord,
    ) -> Result<bool, StoreError> {
        let done = self.execute(
            "decide a tick that waited",
            "UPDATE schedule_tick SET outcome = ?3, run = ?4, why = ?5, decided_at = ?6, open = ?4 IS NOT NULL
             WHERE schedule = ?1 AND nominal = ?2 AND outcome = 'queued'",
            params![
                blob(schedule.to_bytes()),
                tick.nominal.0,
                tick.outcome.as_str(),
                tick.run.map(|run| blob(run.to_bytes())),
                tick.why,
                tick.decided_at.0
            ],
        )?;
        self.note_schedule(schedule)?;
        Ok(done == 1)
    }

    fn run_of_tick(
        &mut self,
        schedule: ScheduleId,
        nominal: UnixMs,
    ) -> Result<Option<RunId>, StoreError> {
        self.one(
            "look for a tick's run",
            "SELECT id FROM run WHERE schedule = ?1 AND nominal = ?2",
            params![blob(schedule.to_bytes()), nominal.0],
            |row| bytes(row, 0, "a run id", RunId::from_slice),
        )
    }

    fn open_runs(&mut self, schedule: ScheduleId) -> Result<Vec<RunId>, StoreError> {
        let id = blob(schedule.to_bytes());
        // Seen once to have ended, a run is not looked at again.
        self.execute(
            "note which runs have ended",
            "UPDATE schedule_tick SET open = 0 WHERE schedule = ?1 AND open = 1
                AND NOT EXISTS (SELECT 1 FROM task WHERE task.run = schedule_tick.run AND task.phase <> 'ended')",
            [&id],
        )?;
        self.all(
            "list a schedule's open runs",
            "SELECT run FROM schedule_tick WHERE schedule = ?1 AND open = 1 ORDER BY seq",
            [&id],
            |row| bytes(row, 0, "a run id", RunId::from_slice),
        )
    }

    fn queued_ticks(&mut self, schedule: ScheduleId) -> Result<Vec<UnixMs>, StoreError> {
        self.all(
            "list ticks that wait",
            "SELECT nominal FROM schedule_tick WHERE schedule = ?1 AND outcome = 'queued' ORDER BY nominal",
            [blob(schedule.to_bytes())],
            |row| time(row, 0),
        )
    }

    fn schedules_with_queue(&mut self) -> Result<Vec<ScheduleRecord>, StoreError> {
        let sql = select(
            SCHEDULE_COLUMNS,
            "schedule WHERE id IN (SELECT schedule FROM schedule_tick WHERE outcome = 'queued') ORDER BY id",
        );
        self.all(
            "list schedules with ticks that wait",
            &sql,
            [],
            read_schedule,
        )
    }

    fn ticks(&mut self, schedule: ScheduleId, count: usize) -> Result<Vec<TickRecord>, StoreError> {
        let sql = select(
            TICK_COLUMNS,
            "schedule_tick WHERE schedule = ?1 ORDER BY seq DESC LIMIT ?2",
        );
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let of = params![blob(schedule.to_bytes()), count];
        self.all("list a schedule's ticks", &sql, of, read_tick)
    }

    fn ticks_before(
        &mut self,
        schedule: ScheduleId,
        before: Option<u64>,
        count: usize,
    ) -> Result<Vec<(u64, TickRecord)>, StoreError> {
        let sql = format!(
            "SELECT {TICK_COLUMNS}, seq FROM schedule_tick WHERE schedule = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3"
        );
        // What a client sends as a mark may be larger than any.
        let before = before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let of = params![blob(schedule.to_bytes()), before, count];
        self.all("list a schedule's ticks", &sql, of, |row| {
            Ok((counter(row, 6)?, read_tick(row)?))
        })
    }

    fn last_launch(&mut self, schedule: ScheduleId) -> Result<Option<TickRecord>, StoreError> {
        let sql = select(
            TICK_COLUMNS,
            "schedule_tick WHERE schedule = ?1 AND run IS NOT NULL ORDER BY seq DESC LIMIT 1",
        );
        let of = [blob(schedule.to_bytes())];
        self.one("look a schedule's last run up", &sql, of, read_tick)
    }

    fn trim_ticks(&mut self, schedule: ScheduleId, kept: usize) -> Result<(), StoreError> {
        self.execute(
            "forget old ticks",
            "DELETE FROM schedule_tick WHERE schedule = ?1 AND open = 0 AND outcome <> 'queued' AND seq <=
                (SELECT seq FROM schedule_tick WHERE schedule = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
            params![
                blob(schedule.to_bytes()),
                i64::try_from(kept).unwrap_or(i64::MAX)
            ],
        )?;
        Ok(())
    }
}
