//! What the API shows of schedules.

use sluice_api::{
    Cursor, ErrorBody, ErrorCode, Page, PageQuery, Schedule, ScheduleDetail, ScheduleFilter,
    ScheduleTick, ScheduledRun, TICKS_SHOWN, TickQuery, page_items,
};
use sluice_model::{JobName, RunId, RunState, ScheduleName};

use super::super::Core;
use super::super::operator::{Called, Reply};
use super::super::runs::state_of;
use crate::store::{ScheduleRecord, Store, StoreError, TickRecord};

/// Schedules of one job that its explanation tells.
const TOLD_MAX: usize = 3;

impl<S: Store> Core<S> {
    pub(in crate::core) fn show_schedules(&mut self) -> Result<Vec<Schedule>, StoreError> {
        let records = self.store.schedules()?;
        let shown = records.iter().map(|record| self.show_schedule(record));
        shown.collect()
    }

    /// One page: all records are read, since they are few, and those of the page are shown.
    pub(in crate::core) fn list_schedules(
        &mut self,
        filter: &ScheduleFilter,
    ) -> Result<Called, StoreError> {
        let mut records = self.store.schedules()?;
        records.retain(|record| filter.job.as_ref().is_none_or(|job| record.job == *job));
        let query = PageQuery {
            limit: filter.limit,
            cursor: filter.cursor.clone(),
        };
        let page = match Page::of_list(records, &query, |record| record.name.to_string()) {
            Ok(page) => page,
            Err(wrong) => return Ok(Err(wrong)),
        };
        let shown = page.items.iter().map(|record| self.show_schedule(record));
        let items = shown.collect::<Result<_, _>>()?;
        let next = page.next;
        Ok(Ok(Reply::Schedules(Page { items, next })))
    }

    pub(in crate::core) fn describe_schedule(
        &mut self,
        name: &ScheduleName,
    ) -> Result<Called, StoreError> {
        let Some(record) = self.store.schedule(name)? else {
            return Ok(Err(no_schedule(name)));
        };
        let detail = ScheduleDetail {
            schedule: self.show_schedule(&record)?,
            ticks: self.show_ticks(&record, TICKS_SHOWN)?,
        };
        Ok(Ok(Reply::ScheduleDetail(Box::new(detail))))
    }

    pub(in crate::core) fn ticks_of_schedule(
        &mut self,
        name: &ScheduleName,
        query: &TickQuery,
    ) -> Result<Called, StoreError> {
        let (limit, before) = match asked_ticks(query) {
            Ok(asked) => asked,
            Err(wrong) => return Ok(Err(wrong)),
        };
        let Some(record) = self.store.schedule(name)? else {
            return Ok(Err(no_schedule(name)));
        };
        let mut ticks = self.store.ticks_before(record.id, before, limit + 1)?;
        let more = ticks.len() > limit;
        ticks.truncate(limit);
        let last = ticks.last().filter(|_| more);
        let next = last.map(|(mark, _)| Cursor::of(&[&mark.to_string()]));
        let shown = ticks.iter().map(|(_, tick)| self.show_tick(tick));
        let items = shown.collect::<Result<_, _>>()?;
        Ok(Ok(Reply::Ticks(Page { items, next })))
    }

    /// The answer to an order about a schedule.
    pub(super) fn schedule_as_it_is(&mut self, name: &ScheduleName) -> Result<Called, StoreError> {
        Ok(match self.store.schedule(name)? {
            Some(record) => Ok(Reply::Schedule(Box::new(self.show_schedule(&record)?))),
            None => Err(no_schedule(name)),
        })
    }

    pub(super) fn show_schedule(
        &mut self,
        record: &ScheduleRecord,
    ) -> Result<Schedule, StoreError> {
        let last_tick = match self.store.ticks(record.id, 1)?.pop() {
            Some(tick) => Some(self.show_tick(&tick)?),
            None => None,
        };
        let last_run = match self.store.last_launch(record.id)? {
            Some(TickRecord {
                run: Some(id),
                nominal,
                decided_at,
                ..
            }) => Some(ScheduledRun {
                id,
                state: self.state_of_run(id)?,
                scheduled_for: nominal,
                launched_at: decided_at,
            }),
            _ => None,
        };
        let queued = self.store.queued_ticks(record.id)?.len();
        Ok(Schedule {
            name: record.name.clone(),
            id: record.id,
            job: record.job.clone(),
            cron: record.cron.clone(),
            tz: record.tz.clone(),
            every: record.every.clone(),
            overlap: record.overlap,
            catch_up: record.catch_up,
            jitter: record.jitter.clone(),
            params: record.params.clone(),
            nodes: record.nodes.clone(),
            enabled: record.enabled,
            next_run_at: record.next.map(|(_, at)| at).filter(|_| record.enabled),
            last_run,
            last_tick,
            queued: u64::try_from(queued).unwrap_or(u64::MAX),
            claimed_by: record.claimed_by.clone(),
            claimed_until: record.claimed_until,
            created_at: record.created_at,
        })
    }

    fn show_ticks(
        &mut self,
        record: &ScheduleRecord,
        limit: u32,
    ) -> Result<Vec<ScheduleTick>, StoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut shown = Vec::new();
        for tick in self.store.ticks(record.id, limit)? {
            shown.push(self.show_tick(&tick)?);
        }
        Ok(shown)
    }

    fn show_tick(&mut self, tick: &TickRecord) -> Result<ScheduleTick, StoreError> {
        Ok(ScheduleTick {
            scheduled_for: tick.nominal,
            outcome: tick.outcome,
            run: tick.run,
            state: match tick.run {
                Some(run) => self.state_of_run(run)?,
                None => None,
            },
            why: tick.why.clone(),
            count: tick.count,
            decided_at: tick.decided_at,
        })
    }

    /// Where a run stands; `None` when it is forgotten.
    fn state_of_run(&mut self, id: RunId) -> Result<Option<RunState>, StoreError> {
        let progress = self.store.progress_of_run(id)?;
        Ok((progress.tasks > 0).then(|| state_of(&progress)))
    }

    /// What launches a job by itself, to be added to the explanation of its state.
    pub(in crate::core) fn why_scheduled(&mut self, job: &JobName) -> Result<String, StoreError> {
        let mut text = String::new();
        let of_job = self
            .store
            .schedules()?
            .into_iter()
            .filter(|it| it.job == *job);
        for record in of_job.take(TOLD_MAX) {
            let next = match record.next {
                Some((_, at)) if record.enabled => format!("launches it next at {at}"),
                _ if record.enabled => "has no tick any more".to_owned(),
                _ => "is paused".to_owned(),
            };
            text.push_str(&format!("; the schedule {} {next}", record.name));
        }
        Ok(text)
    }
}

/// How many ticks a page has at most, and the mark that they are behind.
fn asked_ticks(query: &TickQuery) -> Result<(usize, Option<u64>), ErrorBody> {
    let limit = page_items(Some(query.limit.unwrap_or(TICKS_SHOWN)))?;
    let before = match &query.cursor {
        Some(cursor) => {
            let [mark] = cursor.keys()?;
            Some(Cursor::key(&mark)?)
        }
        None => None,
    };
    Ok((limit, before))
}

pub(super) fn no_schedule(name: &ScheduleName) -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, format!("no schedule {name}"))
        .with_help("`sluice schedule list` lists them")
}
