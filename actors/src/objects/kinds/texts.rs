//! Texts of cells: ages, selectors, lists that go on.

use crate::objects::wall;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, MicroTime, Time};
use kubesim_runtime::Wall;
use std::collections::BTreeMap;

/// Seconds as people read them (apimachinery `pkg/util/duration`, `HumanDuration`).
pub fn duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |first: i64, unit: char, second: i64, smaller: char| match second {
        0 => format!("{first}{unit}"),
        _ => format!("{first}{unit}{second}{smaller}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(days, 'd', hours % 24, 'h'),
        _ if days < 2 * 365 => format!("{days}d"),
        _ if days < 8 * 365 => pair(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

pub fn since(then: Option<&Time>, now: Wall) -> String {
    let Some(then) = then else { return "<unknown>".to_owned() };
    let nanos = now.unix_nanos() - wall(then.0).unix_nanos();
    duration((nanos / 1_000_000_000) as i64)
}

pub fn since_micro(then: Option<&MicroTime>, now: Wall) -> String {
    since(then.map(|micro| Time(micro.0)).as_ref(), now)
}

/// `a=b,c=d`, or `<none>` (`labels.FormatLabels`).
pub fn labels(labels: Option<&BTreeMap<String, String>>) -> String {
    let pairs: Vec<_> =
        labels.into_iter().flatten().map(|(name, value)| format!("{name}={value}")).collect();
    or_none(pairs.join(","))
}

pub fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

/// A selector's requirements in the order of their keys, as a client would write them; empty for
/// everything (`metav1.LabelSelectorAsSelector`).
pub fn requirements(selector: &LabelSelector) -> String {
    let mut all: Vec<(&str, String)> = Vec::new();
    for (name, value) in selector.match_labels.iter().flatten() {
        all.push((name, format!("{name}={value}")));
    }
    for wanted in selector.match_expressions.iter().flatten() {
        let key = &wanted.key;
        let mut values = wanted.values.clone().unwrap_or_default();
        values.sort();
        let values = values.join(",");
        let text = match wanted.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.clone(),
            _ => format!("!{key}"),
        };
        all.push((key, text));
    }
    all.sort_by_key(|(name, _)| *name);
    let texts: Vec<String> = all.into_iter().map(|(_, text)| text).collect();
    texts.join(",")
}

/// The first three, and how many more (`listWithMoreString`).
pub fn first_three(all: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = all.collect();
    let shown = all[..all.len().min(3)].join(",");
    match all.len() {
        0 => "<unset>".to_owned(),
        1..=3 => shown,
        count => format!("{shown} + {} more...", count - 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of apimachinery's `duration_test.go`, `TestHumanDuration`.
    #[test]
    fn ages_are_as_upstream_writes_them() {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        const YEAR: i64 = 365 * DAY;
        let cases = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (1, "1s"),
            (70, "70s"),
            (190, "3m10s"),
            (70 * MINUTE, "70m"),
            (47 * HOUR, "47h"),
            (49 * HOUR, "2d1h"),
            (8 * DAY + 2 * HOUR, "8d"),
            (367 * DAY, "367d"),
            (2 * YEAR + 25 * DAY + 3 * HOUR, "2y25d"),
            (8 * YEAR + 1, "8y"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 5 * MINUTE, "3h5m"),
            (10 * MINUTE + 59, "10m"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn lists_go_on() {
        let list = |count: u32| first_three((0..count).map(|n| n.to_string()));
        assert_eq!(
            [list(0), list(1), list(3), list(5)],
            ["<unset>", "0", "0,1,2", "0,1,2 + 2 more..."]
        );
    }
}
