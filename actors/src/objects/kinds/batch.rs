//! `batch/v1`.

use super::cells::{AGE, Cell, Column, NAME, Shown, column, time, wide};
use super::declaration::{ALL, New, STATUS, namespaced, rules};
use super::{Declaration, Fields, Kind, Rules, templates, texts};
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

/// The jobs to come are completed when they are made; of their pods upstream's defaults are set.
fn complete_template(fields: &mut Fields) {
    templates::complete(fields, "spec.jobTemplate.spec.template");
}

fn cron_job(fields: &Fields, causes: &mut Causes) {
    let schedule = fields.text("spec.schedule");
    if schedule.is_empty() {
        causes.required("spec.schedule", "");
    } else if let Some(why) = bad_schedule(schedule) {
        causes.invalid("spec.schedule", format_args!("{schedule:?}"), why);
    }
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

/// What is wrong with a schedule (robfig/cron v3 `ParseStandard`): five fields, or a word.
fn bad_schedule(schedule: &str) -> Option<String> {
    const WORDS: [&str; 7] =
        ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    if schedule.starts_with('@') {
        let known = WORDS.contains(&schedule) || schedule.starts_with("@every ");
        return (!known).then(|| format!("unrecognized descriptor: {schedule}"));
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != 5 {
        let found = fields.len();
        let shown = fields.join(" ");
        return Some(format!("expected exactly 5 fields, found {found}: [{shown}]"));
    }
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let bounds: [(u32, u32, &[&str], u32); 5] =
        [(0, 59, &[], 0), (0, 23, &[], 0), (1, 31, &[], 0), (1, 12, &MONTHS, 1), (0, 6, &DAYS, 0)];
    let mut each = fields.iter().zip(bounds);
    each.find_map(|(field, bound)| field.split(',').find_map(|part| bad_range(part, bound)))
}

/// `*`, `7`, `1-5`, `mon-fri`, each perhaps with a step behind a slash.
fn bad_range(text: &str, (low, high, names, first): (u32, u32, &[&str], u32)) -> Option<String> {
    let (range, step) = match text.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (text, None),
    };
    let number = |text: &str| {
        let named = names.iter().position(|name| *name == text.to_lowercase());
        let named = named.and_then(|at| u32::try_from(at).ok()).map(|at| at + first);
        named.or_else(|| text.parse().ok()).ok_or_else(|| {
            format!(
                "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"
            )
        })
    };
    let bounds = match range.split_once('-') {
        _ if ["*", "?"].contains(&range) => Ok((low, high)),
        Some((begin, end)) => number(begin).and_then(|begin| Ok((begin, number(end)?))),
        None => number(range).map(|one| (one, one)),
    };
    let (begin, end) = match bounds {
        Ok(bounds) => bounds,
        Err(why) => return Some(why),
    };
    if begin < low {
        return Some(format!("beginning of range ({begin}) below minimum ({low}): {text}"));
    }
    if end > high {
        return Some(format!("end of range ({end}) above maximum ({high}): {text}"));
    }
    if begin > end {
        return Some(format!("beginning of range ({begin}) beyond end of range ({end}): {text}"));
    }
    match step.map(number) {
        Some(Err(why)) => Some(why),
        Some(Ok(0)) => Some(format!("step of range should be a positive number: {text}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::bad_schedule;

    #[test]
    fn schedules_are_read_as_cron_reads_them() {
        for good in ["* * * * *", "*/5 0-6,12 1 jan-mar MON", "@hourly", "@every 90s", "0 0 1 1 ?"]
        {
            assert_eq!(bad_schedule(good), None, "{good}");
        }
        for (bad, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@never", "unrecognized descriptor: @never"),
        ] {
            assert_eq!(bad_schedule(bad).as_deref(), Some(why), "{bad}");
        }
        assert!(
            bad_schedule("x * * * *").is_some_and(|why| why.starts_with("failed to parse int"))
        );
    }
}
