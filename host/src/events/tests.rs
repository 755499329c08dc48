//! The ring, and watchers of it.

#![allow(clippy::unwrap_used)]

use sluice_model::JobName;

use super::*;

const LIFE: [u8; 16] = [7; 16];

fn life(byte: u8) -> LifeNonce {
    LifeNonce::from_random([byte; 16])
}

fn job(n: u64) -> Event {
    let name: JobName = format!("j{n}").parse().unwrap();
    Event::job(name, UnixMs(1))
}

fn names(events: &[Event]) -> Vec<&str> {
    let name = |event: &'_ Event| event.kind == EventKind::Job;
    assert!(events.iter().all(name));
    events
        .iter()
        .map(|event| event.name.as_deref().unwrap())
        .collect()
}

#[test]
fn a_ring_gives_what_came_after_a_place_as_long_as_it_has_all_of_it() {
    let mut ring = Ring::new(LifeNonce::from_random(LIFE), 3);
    let read = ring.read(&Since::Now);
    assert!(!read.missed && read.place == 0 && read.events.is_empty());
    for n in 1..=5 {
        ring.push(job(n));
    }
    assert_eq!(ring.kept.len(), 3);
    assert_eq!(
        names(&ring.read(&Since::Place(2)).events),
        ["j3", "j4", "j5"]
    );
    assert_eq!(names(&ring.read(&Since::Place(4)).events), ["j5"]);
    assert!(ring.read(&Since::Place(5)).events.is_empty());
    for gone in [0, 1, 6, u64::MAX] {
        let read = ring.read(&Since::Place(gone));
        assert!(read.missed && read.place == 5, "{gone}");
    }
    let many = Ring::new(life(1), 2 * TAKEN_MAX);
    let mut many = many;
    for n in 0..2 * TAKEN_MAX as u64 {
        many.push(job(n));
    }
    assert_eq!(many.read(&Since::Place(0)).events.len(), TAKEN_MAX);
}

#[test]
fn an_id_of_another_life_or_of_nobody_is_missed_and_never_an_error() {
    let mut ring = Ring::new(life(1), 10);
    ring.push(job(1));
    ring.push(job(2));
    let since = |text: &str| ring.read(&Since::Id(text.to_owned()));
    let read = since(&id_of(life(1), 1));
    assert!(!read.missed);
    assert_eq!(names(&read.events), ["j2"]);
    let own = life(1).to_string();
    let others = [
        id_of(life(2), 1),
        id_of(life(1), 3),
        String::new(),
        "x".to_owned(),
        own.clone(),
        format!("{own}."),
        format!("{own}.-1"),
        format!("{own}.99999999999999999999999"),
        "é.1".to_owned(),
    ];
    for other in others {
        assert!(since(&other).missed, "{other}");
    }
}

#[test]
fn what_cannot_be_passed_on_is_told_as_everything_when_there_is_room() {
    let (to, mut inbox) = mpsc::channel(1);
    let mut teller = Teller { to, owed: None };
    teller.tell(Changes::default(), UnixMs(1));
    teller.tell(Changes::default(), UnixMs(2));
    teller.settle();
    assert!(teller.owed.is_some());
    assert!(matches!(inbox.try_recv(), Ok(Input::Changed(changes, _)) if changes.is_empty()));
    teller.settle();
    assert!(teller.owed.is_none());
    let told = inbox.try_recv();
    assert!(matches!(told, Ok(Input::Changed(changes, _)) if changes.is_everything()));
    drop(inbox);
    teller.tell(Changes::everything(), UnixMs(3));
    assert!(teller.owed.is_none());
}

fn changed(name: &str) -> Changes {
    Changes::of(vec![Changed::Job(name.parse().unwrap())])
}

fn shown(told: &Told) -> String {
    match told {
        Told::Event { event, .. } => format!(
            "{} {}",
            event.kind.as_str(),
            event.name.as_deref().unwrap_or("-")
        ),
        Told::At { .. } => "at".to_owned(),
    }
}

fn id(told: &Told) -> String {
    let (Told::Event { id, .. } | Told::At { id }) = told;
    id.clone()
}

#[tokio::test(start_paused = true)]
async fn a_watcher_is_told_what_it_asked_for_resumes_and_hears_that_it_lives() {
    let stop = CancellationToken::new();
    let (mut teller, events, work) = open(life(3), Clock::start(), stop.clone());
    let owner = tokio::spawn(work);
    let filter = EventFilter {
        job: Some("a".parse().unwrap()),
        ..EventFilter::default()
    };
    let mut watcher = events.watch(filter.clone(), None).await.unwrap();
    let first = watcher.next().await.unwrap();
    assert_eq!(shown(&first), "at");
    teller.tell(changed("b"), UnixMs(1));
    teller.tell(changed("a"), UnixMs(2));
    let told = watcher.next().await.unwrap();
    assert_eq!(shown(&told), "job a");
    // What it did not ask for moves its place all the same.
    teller.tell(changed("b"), UnixMs(3));
    let alive = watcher.next().await.unwrap();
    assert_eq!(
        (shown(&alive).as_str(), id(&alive)),
        ("at", id_of(life(3), 3))
    );
    drop(watcher);
    let mut again = events
        .watch(filter.clone(), Some(id(&first)))
        .await
        .unwrap();
    assert_eq!(again.next().await.unwrap(), told);
    let other = id_of(life(4), 1);
    let mut restarted = events.watch(filter, Some(other)).await.unwrap();
    assert_eq!(shown(&restarted.next().await.unwrap()), "missed -");
    stop.cancel();
    assert_eq!(restarted.next().await, None);
    owner.await.unwrap();
}

#[tokio::test]
async fn a_slow_reader_holds_up_nobody_and_is_told_what_it_missed_and_there_is_a_bound_on_watchers()
{
    let stop = CancellationToken::new();
    let (mut teller, events, work) = open(life(3), Clock::start(), stop.clone());
    tokio::spawn(work);
    let all = EventFilter::default();
    let mut slow = events.watch(all.clone(), None).await.unwrap();
    assert_eq!(shown(&slow.next().await.unwrap()), "at");
    let mut quick = events.watch(all.clone(), None).await.unwrap();
    assert_eq!(shown(&quick.next().await.unwrap()), "at");
    for n in 0..=KEPT_MAX {
        teller.tell(changed(&format!("j{n}")), UnixMs(1));
        assert_eq!(shown(&quick.next().await.unwrap()), format!("job j{n}"));
    }
    assert_eq!(shown(&slow.next().await.unwrap()), "missed -");
    teller.tell(changed("last"), UnixMs(1));
    assert_eq!(shown(&slow.next().await.unwrap()), "job last");

    let mut held = Vec::new();
    while held.len() < WATCHERS_MAX - 2 {
        held.push(events.watch(all.clone(), None).await.unwrap());
    }
    let refused = events.watch(all.clone(), None).await.err().unwrap();
    assert_eq!(refused.code.http_status(), 429);
    drop(quick);
    assert!(events.watch(all, None).await.is_ok());
    stop.cancel();
}
