//! `sluice schedule`: what launches batch jobs by the clock.

use sluice_api::{
    Schedule, ScheduleCreate, ScheduleDetail, ScheduleFilter, ScheduleTick, TickQuery, routes,
};
use sluice_model::{JobName, ScheduleName};

use super::run::params_of;
use crate::args::{Format, ScheduleCreateArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::out::Out;
use crate::render;

pub(super) async fn create(
    client: &Client,
    out: &Out,
    args: ScheduleCreateArgs,
) -> Result<(), Failure> {
    let request = ScheduleCreate {
        name: args.name,
        job: args.job,
        cron: args.cron,
        tz: args.tz,
        every: args.every,
        overlap: args.overlap,
        catch_up: args.catch_up,
        jitter: args.jitter,
        params: params_of(args.params)?,
        nodes: args.nodes,
    };
    let schedule: Schedule = client.post_json(routes::SCHEDULES, &request).await?;
    out.show(&schedule, |_| {
        format!(
            "{} launches {}{}\n",
            schedule.name,
            schedule.job,
            next(&schedule)
        )
    })
}

pub(super) async fn list(client: &Client, out: &Out, job: Option<JobName>) -> Result<(), Failure> {
    let filter = ScheduleFilter {
        job,
        ..ScheduleFilter::default()
    };
    let schedules: Vec<Schedule> = client.list(routes::SCHEDULES, &filter, usize::MAX).await?;
    if schedules.is_empty() && out.format == Format::Table {
        out.say("no schedule");
        return Ok(());
    }
    out.show(&schedules, |style| render::schedules(style, &schedules))
}

pub(super) async fn describe(
    client: &Client,
    out: &Out,
    name: &ScheduleName,
) -> Result<(), Failure> {
    let detail: ScheduleDetail = client.get(&path(routes::SCHEDULE, name)).await?;
    out.show(&detail, |style| render::schedule_detail(style, &detail))
}

pub(super) async fn history(
    client: &Client,
    out: &Out,
    name: &ScheduleName,
    limit: u32,
) -> Result<(), Failure> {
    let query = TickQuery {
        limit: Some(limit),
        cursor: None,
    };
    let path = path(routes::SCHEDULE_HISTORY, name);
    let items_max = usize::try_from(limit).unwrap_or(usize::MAX);
    let ticks: Vec<ScheduleTick> = client.list(&path, &query, items_max).await?;
    if ticks.is_empty() && out.format == Format::Table {
        out.say("it had no tick yet");
        return Ok(());
    }
    out.show(&ticks, |style| render::ticks(style, &ticks))
}

pub(super) async fn pause(client: &Client, out: &Out, name: &ScheduleName) -> Result<(), Failure> {
    let schedule: Schedule = client.post(&path(routes::SCHEDULE_PAUSE, name)).await?;
    out.show(&schedule, |_| {
        format!("{name} is paused; what it launched goes on\n")
    })
}

pub(super) async fn resume(client: &Client, out: &Out, name: &ScheduleName) -> Result<(), Failure> {
    let schedule: Schedule = client.post(&path(routes::SCHEDULE_RESUME, name)).await?;
    out.show(&schedule, |_| {
        format!("{name} is resumed{}\n", next(&schedule))
    })
}

pub(super) async fn delete(client: &Client, out: &Out, name: &ScheduleName) -> Result<(), Failure> {
    out.confirm(&format!("Delete the schedule {name} with its history?"))?;
    let schedule: Schedule = client.delete(&path(routes::SCHEDULE, name)).await?;
    out.show(&schedule, |_| {
        format!("{name} is deleted; what it launched goes on\n")
    })
}

/// Says which schedules name a job that was just deleted. That it is deleted stands, so nothing here fails.
pub(super) async fn left_behind(client: &Client, out: &Out, job: &JobName) {
    let filter = ScheduleFilter {
        job: Some(job.clone()),
        ..ScheduleFilter::default()
    };
    let Ok(left) = client
        .list::<Schedule>(routes::SCHEDULES, &filter, usize::MAX)
        .await
    else {
        return;
    };
    for schedule in left {
        out.say(&format!(
            "the schedule {0} still names {job}: each of its ticks is refused until a job of that name is deployed again; \
             `sluice schedule delete {0}` ends it",
            schedule.name
        ));
    }
}

fn next(schedule: &Schedule) -> String {
    match schedule.next_run_at {
        Some(time) => format!(", next at {}", render::at(time)),
        None => String::new(),
    }
}

fn path(template: &str, name: &ScheduleName) -> String {
    routes::fill(template, &[name.as_str()])
}
