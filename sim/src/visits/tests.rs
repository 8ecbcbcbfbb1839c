use super::*;
use crate::world::testing::{self, Said};
use crate::world::visitors::Told;
use kubesim_actors::apiserver::Cache;
use kubesim_actors::objects::kinds::{Interner, Names};
use kubesim_actors::objects::{Key, Kind, Object, Uid};
use kubesim_actors::ports::api::{DeleteOptions, Propagation, Reason, Subresource};
use kubesim_runtime::{Digest, Hasher};
use serde_json::json;
use std::time::Duration;

const WORKER: &str = r#"
[[node]]
name = "w"
network = "lan"
address = "192.168.1.12"
[image.web]
tcp = [80]
[[workload]]
name = "x"
at = "8s"
generate = { deployments = 1, replicas = 2, image = "web" }
[[expect]]
name = "both run"
kind = "pods-ready"
count = 2
by = "40s"
"#;

fn scenario(more: &str) -> Arc<Scenario> {
    Arc::new(testing::scenario("", &format!("{WORKER}{more}")))
}

fn options() -> Options {
    Options { seed: 1, ..Options::default() }
}

fn secs(seconds: u64) -> Time {
    Time::from_secs(seconds)
}

fn scale(replicas: u32) -> Arc<Request> {
    let key = Key::new("default", "x-1");
    let patch = json!({"spec": {"replicas": replicas}});
    let subresource = Subresource::Main;
    Arc::new(Request::Patch { kind: Kind::Deployment, key, subresource, patch })
}

fn config_map(name: &str) -> Arc<Request> {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let object = Arc::new(Object::from_json(map).expect("a ConfigMap"));
    Arc::new(Request::Create { object })
}

fn digest(request: &Request) -> u64 {
    let mut hasher = Hasher::default();
    request.digest(&mut hasher);
    hasher.finish()
}

/// A run that somebody looks into is the run that it is without them, however it is paced.
#[test]
fn who_only_reads_changes_nothing() {
    let scenario = scenario("");
    let (alone, _) = testing::play(&scenario, Default::default());
    let mut run = Visited::new(&scenario, &options());
    run.world().expect_visitors();
    let mut views = Vec::new();
    let mut said = Said::default();
    while run.now() < run.end() {
        run.move_to(run.now() + Duration::from_micros(7_301), &mut said);
        let told = run.world().take_told().into_iter();
        views.extend(told.filter_map(|told| match told {
            Told::Published(cache) => Some(cache),
            _ => None,
        }));
    }
    let (report, end) = run.finish(&mut said);
    assert!(end.at >= secs(160));
    assert_eq!((report.digest, report.outcome), (alone.digest, Outcome::Passed));
    assert_eq!(report.events, alone.events);
    let last: &Cache = views.last().expect("something was published");
    assert_eq!(last.views[&Kind::Pod].len(), 2);
    assert!(views.windows(2).all(|pair| pair[0].revision <= pair[1].revision));
}

/// Two writes in one instant, some while the API server is away, one that is only tried, and some
/// after the scenario's end.
fn visited(scenario: &Arc<Scenario>, leave: Time) -> (Report, Record, Vec<Told>) {
    let mut run = Visited::new(scenario, &options());
    run.world().expect_visitors();
    let mut record = Record { of: Of::new(scenario, 1), visits: Vec::new(), end: None };
    let mut said = Said::default();
    let mut told = Vec::new();
    for (at, request, dry_run) in [
        (0, scale(9), false),
        (30, scale(3), false),
        (30, config_map("one"), false),
        (31, config_map("two"), true),
        (31, config_map("one"), false),
        (51, scale(4), false),
        (90, scale(1), false),
        (170, config_map("late"), false),
    ] {
        if secs(at) > leave {
            break;
        }
        run.move_to(secs(at), &mut said);
        record.visits.extend(run.visit(request, dry_run).map(|(_, visit)| visit));
        // Who is in a hurry changes nothing.
        run.move_to(secs(at), &mut said);
        told.extend(run.world().take_told());
    }
    run.move_to(leave, &mut said);
    told.extend(run.world().take_told());
    let (report, end) = run.finish(&mut said);
    record.end = Some(end);
    (report, record, told)
}

const RESTART: &str = r#"
[[fault]]
name = "restart"
kind = "kill"
actor = "apiserver"
nodes = "n1"
restart = "5s"
at = "50s"
"#;

fn through_text(record: &Record) -> Record {
    let mut text = record.of.line() + "\n";
    for visit in &record.visits {
        text += &format!("{}\n", visit.line().expect("a write"));
    }
    text += &record.end.map(|end| end.line() + "\n").unwrap_or_default();
    Record::read(&text).expect("a record")
}

#[test]
fn what_was_written_plays_again() {
    let scenario = scenario(RESTART);
    let (alone, _) = testing::play(&scenario, Default::default());
    for leave in [secs(30), Time::from_millis(31_001), secs(160), secs(200)] {
        let (report, record, _) = visited(&scenario, leave);
        let again = replay(&scenario, &options(), &through_text(&record), &mut Said::default());
        assert_eq!(again.failure, None, "{leave}");
        assert_eq!((again.digest, again.events), (report.digest, report.events), "{leave}");
        assert_eq!(again.virtual_time, report.virtual_time, "{leave}");
        assert_ne!(report.digest, alone.digest);
        assert_eq!(report.virtual_time, leave.since(Time::ZERO).min(scenario.duration));
    }
}

#[test]
fn answers_name_the_write_and_the_end_of_the_server_is_told() {
    let (_, record, told) = visited(&scenario(RESTART), secs(180));
    // Those at 0 s and 51 s found no server.
    let at: Vec<u64> = record.visits.iter().map(|visit| visit.at.as_millis() / 1000).collect();
    assert_eq!(at, [30, 30, 31, 31, 90, 170]);
    let answers: Vec<(u64, Option<Reason>)> = told
        .iter()
        .filter_map(|told| match told {
            Told::Answered { call, result } => {
                Some((*call, result.as_ref().err().map(|error| error.reason)))
            }
            _ => None,
        })
        .collect();
    let exists = Some(Reason::AlreadyExists);
    let mut expected = [(0, None), (1, None), (2, None), (3, exists), (4, None), (5, None)];
    let mut found = answers.clone();
    found.sort_by_key(|(call, _)| *call);
    expected.sort_by_key(|(call, _)| *call);
    assert_eq!(found, expected);
    assert_eq!(told.iter().filter(|told| matches!(told, Told::Ended)).count(), 1);
}

#[test]
fn another_run_than_the_recorded_one_has_failed() {
    let (_, record, _) = visited(&scenario(""), secs(120));
    let mut fewer = record.clone();
    fewer.visits.pop();
    let report = replay(&scenario(""), &options(), &fewer, &mut Said::default());
    assert_eq!(report.outcome, Outcome::Failed);
    let why = report.failure.expect("it says why");
    assert!(why.starts_with("this is not the run that was recorded: at 120"), "{why}");
    // Stopped before, it was not compared.
    let until = Some(Duration::from_secs(60));
    let early = Options { until, ..options() };
    assert_eq!(replay(&scenario(""), &early, &fewer, &mut Said::default()).failure, None);
}

#[test]
fn every_write_comes_through_as_text() {
    let mut kinds = Interner::default();
    let names = Names { group: "example.com", plural: "widgets", kind: "Widget", namespaced: true };
    let widget = kinds.kind(names, "v1");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "p-", "namespace": "a", "annotations": {"x": "\n\u{1f600}"},
            "uid": "11111111-2222-4333-8444-555555555555", "resourceVersion": "7"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running"},
    });
    let pod = Arc::new(Object::from_json(pod).expect("a pod"));
    let custom =
        json!({"metadata": {"name": "w", "namespace": "a"}, "spec": {"n": 1.5, "big": -3}});
    let custom = Arc::new(Object::from_json_of(widget, custom).expect("a widget"));
    let key = Key::new("a", "w");
    let uid = Uid::from_random(1, 2);
    let options = DeleteOptions {
        uid: Some(uid),
        version: Some(12),
        grace: Some(Duration::from_millis(1500)),
        propagation: Some(Propagation::Orphan),
    };
    let patch = json!({"status": {"a": null}});
    let requests = [
        Request::Create { object: Arc::clone(&pod) },
        Request::Update { object: Arc::clone(&pod) },
        Request::UpdateStatus { object: Arc::clone(&pod) },
        Request::UpdateEphemeralContainers { object: pod },
        Request::Create { object: Arc::clone(&custom) },
        Request::UpdateStatus { object: custom },
        Request::Patch {
            kind: widget,
            key: key.clone(),
            subresource: Subresource::Status,
            patch: patch.clone(),
        },
        Request::Patch {
            kind: Kind::Node,
            key: Key::cluster("n"),
            subresource: Subresource::Main,
            patch,
        },
        Request::Delete { kind: widget, key: key.clone(), options },
        Request::Delete { kind: Kind::Pod, key: key.clone(), options: DeleteOptions::default() },
        Request::Bind { pod: key, uid, node: "n1".into() },
    ];
    let of = Of { scenario: "s".into(), profile: Some("p".into()), seed: 3 };
    let visit = |(number, request): (u64, &Request)| Visit {
        at: Time::from_nanos(number),
        request: Arc::new(request.clone()),
        dry_run: number % 2 == 1,
    };
    let visits: Vec<Visit> = (0..).zip(&requests).map(visit).collect();
    let record = Record { of, visits, end: None };
    let read = through_text(&record);
    assert_eq!((read.of, read.end), (record.of, None));
    for (was, is) in record.visits.iter().zip(&read.visits) {
        assert_eq!((was.at, was.dry_run), (is.at, is.dry_run));
        assert_eq!(was.request.verb(), is.request.verb());
        assert_eq!(digest(&was.request), digest(&is.request), "{:?}", is.request);
    }
    assert_eq!(read.visits.len(), requests.len());
}

#[test]
fn a_record_that_is_none_says_where() {
    let head = Of { scenario: "s".into(), profile: None, seed: 1 }.line();
    let end = End { at: secs(1), digest: 5 }.line();
    let visit = |at| Visit { at: secs(at), request: scale(1), dry_run: false }.line().unwrap();
    let (early, late) = (visit(1), visit(2));
    let wrong = |text: String| Record::read(&text).expect_err("it is none");
    assert_eq!(wrong(String::new()), "it is no record of a run: it is empty");
    assert!(wrong("name = \"x\"\n".into()).starts_with("line 1: it is no record of a run: "));
    assert_eq!(
        wrong("{\"record\":9,\"scenario\":\"s\",\"seed\":1}\n".into()),
        "line 1: a record of form 9: known is 1"
    );
    let back = "line 3: it is of an earlier time than the line before";
    assert_eq!(wrong(format!("{head}\n{late}\n{early}\n")), back);
    assert_eq!(wrong(format!("{head}\n{end}\n{late}\n")), "line 3: it is behind the end");
    let odd = early.replace("Deployment", "Deplyment");
    let what = "line 2: no kind \"Deplyment\" in version \"apps/v1\"";
    assert_eq!(wrong(format!("{head}\n{odd}\n")), what);
    // The process was killed while it wrote.
    let torn = format!("{head}\n{early}\n{}", &late[..late.len() / 2]);
    assert_eq!(Record::read(&torn).expect("what is whole").visits.len(), 1);
}
