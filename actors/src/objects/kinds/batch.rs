//! `batch/v1`.

use super::cells::{AGE, Cell, Column, NAME, Shown, column, time, wide};
use super::declaration::{ALL, New, STATUS, namespaced, rules};
use super::{Declaration, Fields, Kind, Rules, templates, texts};
use crate::objects::schedule::{self, Schedule};
use crate::objects::validation::Causes;
use crate::objects::{names, wall};
use k8s_openapi::api::batch::v1::{CronJob, Job, JobCondition};
use serde_json::{Value, json};

pub(super) static JOB: Declaration = Declaration {
    categories: ALL,
    subresources: STATUS,
    fields: &["status.successful"],
    columns: &[
        NAME,
        column("Status", Cell::Made(status)),
        column("Completions", Cell::Made(completions)),
        column("Duration", Cell::Made(duration)),
        AGE,
        wide("Containers", Cell::Containers("spec.template.spec")),
        wide("Images", Cell::Images("spec.template.spec")),
        wide("Selector", Cell::Selector("spec.selector")),
    ],
    generation: true,
    rules: Some(Rules {
        create: generate_selector,
        defaults: |fields| complete(fields, "spec"),
        validate: |fields, causes| job("spec", fields, causes),
        update: job_update,
        ..rules::<Job>()
    }),
    ..namespaced(Kind::Job, "batch/v1", "jobs")
};

fn status(shown: &Shown<'_>) -> Value {
    let conditions: Vec<JobCondition> = shown.fields.part("status.conditions");
    let has = |kind: &str| {
        let found = conditions.iter().find(|condition| condition.type_ == kind);
        found.is_some_and(|condition| condition.status == "True")
    };
    let ended = ["Complete", "Failed"].into_iter().find(|kind| has(kind));
    match ended {
        Some(word) => word,
        None if shown.meta.deletion_timestamp.is_some() => "Terminating",
        None if has("Suspended") => "Suspended",
        None if has("FailureTarget") => "FailureTarget",
        None => "Running",
    }
    .into()
}

fn completions(shown: &Shown<'_>) -> Value {
    let done = shown.fields.number("status.succeeded").unwrap_or_default();
    let side_by_side = shown.fields.number("spec.parallelism").unwrap_or_default();
    match shown.fields.number("spec.completions") {
        Some(wanted) => format!("{done}/{wanted}"),
        None if side_by_side > 1 => format!("{done}/1 of {side_by_side}"),
        None => format!("{done}/1"),
    }
    .into()
}

fn duration(shown: &Shown<'_>) -> Value {
    let at = |path: &str| time(shown.fields.text(path)).map(|time| wall(time.0));
    let Some(start) = at("status.startTime") else { return "".into() };
    let end = at("status.completionTime").unwrap_or(shown.now);
    let nanos = end.unix_nanos() - start.unix_nanos();
    texts::duration((nanos / 1_000_000_000) as i64).into()
}

/// `SetDefaults_Job` (pkg/apis/batch/v1/defaults.go). `spec` is where the job's spec is.
fn complete(fields: &mut Fields, spec: &str) {
    let at = |field: &str| format!("{spec}.{field}");
    if fields.at(&at("completions")).is_none() && fields.at(&at("parallelism")).is_none() {
        fields.set(&at("completions"), 1);
        fields.set(&at("parallelism"), 1);
    }
    fields.default(&at("parallelism"), 1);
    fields.default(&at("backoffLimit"), 6);
    fields.default(&at("completionMode"), "NonIndexed");
    fields.default(&at("suspend"), false);
    fields.default(&at("manualSelector"), false);
    fields.default(&at("podReplacementPolicy"), "TerminatingOrFailed");
    templates::complete(fields, &at("template"));
}

/// A job selects its pods by its own uid, unless it is told otherwise
/// (`generateSelector` of pkg/registry/batch/job/strategy.go).
fn generate_selector(fields: &mut Fields, new: New<'_>) {
    if fields.flag("spec.manualSelector") {
        return;
    }
    let uid = new.uid.to_string();
    let labels = "spec.template.metadata.labels";
    let mut all = fields.at(labels).cloned().unwrap_or_else(|| json!({}));
    for (label, value) in [
        ("batch.kubernetes.io/controller-uid", uid.as_str()),
        ("batch.kubernetes.io/job-name", new.name),
        ("controller-uid", uid.as_str()),
        ("job-name", new.name),
    ] {
        all[label] = value.into();
    }
    fields.set(labels, all);
    if fields.at("spec.selector").is_none() {
        let own = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
        fields.set("spec.selector", own);
    }
}

fn job(spec: &str, fields: &Fields, causes: &mut Causes) {
    let at = |field: &str| format!("{spec}.{field}");
    let numbers = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    ];
    for name in numbers {
        templates::not_negative(fields, &[&at(name)], causes);
    }
    let mode = fields.text(&at("completionMode"));
    if !["NonIndexed", "Indexed"].contains(&mode) {
        causes.unsupported(at("completionMode"), mode, &["Indexed", "NonIndexed"]);
    }
    templates::pod(&at("template"), fields, causes);
    let policy = fields.text(&at("template.spec.restartPolicy"));
    if !["OnFailure", "Never"].contains(&policy) {
        let why = "valid values: \"OnFailure\", \"Never\"";
        causes.required(at("template.spec.restartPolicy"), why);
    }
}

fn job_update(new: &Fields, old: &Fields, causes: &mut Causes) {
    let mut fixed = vec!["spec.selector", "spec.podFailurePolicy", "spec.backoffLimitPerIndex"];
    if new.text("spec.completionMode") != "Indexed" {
        fixed.push("spec.completions");
    }
    fixed.push("spec.completionMode");
    // The template of one that is suspended and has not begun may still be changed by queues.
    if !old.flag("spec.suspend") {
        fixed.push("spec.template");
    }
    templates::immutable(new, old, &fixed, causes);
}

const POD: &str = "spec.jobTemplate.spec.template.spec";

pub(super) static CRON_JOB: Declaration = Declaration {
    short: &["cj"],
    categories: ALL,
    subresources: STATUS,
    columns: &[
        NAME,
        column("Schedule", Cell::Or("spec.schedule", "")),
        column("Timezone", Cell::Or("spec.timeZone", "<none>")),
        Column { kind: "boolean", ..column("Suspend", Cell::Made(suspend)) },
        Column { kind: "integer", ..column("Active", Cell::Count("status.active")) },
        column("Last Schedule", Cell::Since("status.lastScheduleTime", "<none>")),
        AGE,
        wide("Containers", Cell::Containers(POD)),
        wide("Images", Cell::Images(POD)),
        wide("Selector", Cell::Selector("spec.jobTemplate.spec.selector")),
    ],
    generation: true,
    name: cron_name,
    rules: Some(Rules {
        defaults: |fields| {
            fields.default("spec.concurrencyPolicy", "Allow");
            fields.default("spec.suspend", false);
            fields.default("spec.successfulJobsHistoryLimit", 3);
            fields.default("spec.failedJobsHistoryLimit", 1);
            complete_template(fields);
        },
        validate: cron_job,
        ..rules::<CronJob>()
    }),
    ..namespaced(Kind::CronJob, "batch/v1", "cronjobs")
};

/// Its jobs' names are longer by eleven characters (`ValidateCronJobCreate`).
fn cron_name(name: &str) -> Vec<String> {
    let mut wrong = names::subdomain(name);
    if name.len() > 52 {
        wrong.push("must be no more than 52 characters".to_owned());
    }
    wrong
}

fn suspend(shown: &Shown<'_>) -> Value {
    match shown.fields.at("spec.suspend").and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    }
    .into()
}

/// Cron reads a zone before the fields; that there may be none is told by itself.
fn without_zone(schedule: &str) -> &str {
    let zone = |word: &str| word.starts_with("TZ=") || word.starts_with("CRON_TZ=");
    match schedule.split_once(' ') {
        Some((word, rest)) if zone(word) => rest,
        _ => schedule,
    }
}

/// `validateTimeZone`, and that a schedule names no zone itself.
fn time_zone(fields: &Fields, causes: &mut Causes) {
    let schedule = fields.text("spec.schedule");
    if schedule.contains("TZ") {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        causes.invalid("spec.schedule", format_args!("{schedule:?}"), why);
    }
    let Some(name) = fields.at("spec.timeZone").and_then(Value::as_str) else { return };
    let mut invalid = |why: &str| causes.invalid("spec.timeZone", format_args!("{name:?}"), why);
    if name.is_empty() {
        invalid("timeZone must be nil or non-empty string");
    } else if name.eq_ignore_ascii_case("Local") {
        invalid(
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        );
    } else if schedule::zone(name).is_none() {
        invalid(&format!("unknown time zone {name}"));
    }
}

/// The jobs to come are completed when they are made; of their pods upstream's defaults are set.
fn complete_template(fields: &mut Fields) {
    templates::complete(fields, "spec.jobTemplate.spec.template");
}

fn cron_job(fields: &Fields, causes: &mut Causes) {
    let schedule = fields.text("spec.schedule");
    if schedule.is_empty() {
        causes.required("spec.schedule", "");
    } else if let Err(why) = Schedule::parse(without_zone(schedule)) {
        causes.invalid("spec.schedule", format_args!("{schedule:?}"), why);
    }
    time_zone(fields, causes);
    let numbers = [
        "spec.startingDeadlineSeconds",
        "spec.successfulJobsHistoryLimit",
        "spec.failedJobsHistoryLimit",
    ];
    templates::not_negative(fields, &numbers, causes);
    let policy = fields.text("spec.concurrencyPolicy");
    let supported = ["Allow", "Forbid", "Replace"];
    if !supported.contains(&policy) {
        causes.unsupported("spec.concurrencyPolicy", policy, &supported);
    }
    let template = "spec.jobTemplate.spec";
    templates::pod(&format!("{template}.template"), fields, causes);
    let policy = fields.text(&format!("{template}.template.spec.restartPolicy"));
    if !["OnFailure", "Never"].contains(&policy) {
        let why = "valid values: \"OnFailure\", \"Never\"";
        causes.required(format_args!("{template}.template.spec.restartPolicy"), why);
    }
}
