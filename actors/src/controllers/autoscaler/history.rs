//! What was recommended and done lately, which holds back what is done now
//! (`stabilizeRecommendation`, `normalizeDesiredReplicas` and their like `WithBehaviors` in
//! upstream's horizontal.go): pure.

use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior,
};
use kubesim_runtime::Time;
use std::time::Duration;

/// `--horizontal-pod-autoscaler-downscale-stabilization`.
const WINDOW: i32 = 300;

/// Of one autoscaler, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    recommended: Vec<(Time, i32)>,
    /// How many pods more, and how many fewer.
    ups: Vec<(Time, i32)>,
    downs: Vec<(Time, i32)>,
}

/// A condition's reason and message.
pub type Why = (&'static str, &'static str);

/// What is to be, and why it is not what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Normalized {
    pub replicas: i32,
    /// `AbleToScale`, which stays true.
    pub able: Why,
    /// `ScalingLimited`, and whether it is.
    pub limited: (bool, Why),
}

/// The limits of an autoscaler, and what there is.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    pub least: i32,
    pub most: i32,
    pub current: i32,
    pub behavior: Option<&'a HorizontalPodAutoscalerBehavior>,
}

const FAST_UP: Why =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const FAST_DOWN: Why = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);
const TOO_MANY: Why =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: Why =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const WITHIN: Why = ("DesiredWithinRange", "the desired count is within the acceptable range");
const READY: Why = ("ReadyForNewScale", "recommended size matches current size");
const WAS_HIGHER: Why = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent \
     recommendation",
);
const WAS_LOWER: Why = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent \
     recommendation",
);

/// Rules as they hold, with their defaults (pkg/apis/autoscaling/v2/defaults.go).
struct Rules {
    window: i32,
    /// `Max`, `Min` or `Disabled`.
    select: String,
    policies: Vec<HPAScalingPolicy>,
}

impl Rules {
    fn of(rules: Option<&HPAScalingRules>, window: i32, policies: &[(&str, i32)]) -> Rules {
        let default = |&(kind, value): &(&str, i32)| HPAScalingPolicy {
            period_seconds: 15,
            type_: kind.to_owned(),
            value,
        };
        let given = rules.and_then(|rules| rules.policies.clone()).filter(|all| !all.is_empty());
        Rules {
            window: rules.and_then(|rules| rules.stabilization_window_seconds).unwrap_or(window),
            select: rules
                .and_then(|rules| rules.select_policy.clone())
                .unwrap_or_else(|| "Max".to_owned()),
            policies: given.unwrap_or_else(|| policies.iter().map(default).collect()),
        }
    }

    fn up(behavior: &HorizontalPodAutoscalerBehavior) -> Rules {
        Rules::of(behavior.scale_up.as_ref(), 0, &[("Pods", 4), ("Percent", 100)])
    }

    fn down(behavior: &HorizontalPodAutoscalerBehavior) -> Rules {
        Rules::of(behavior.scale_down.as_ref(), WINDOW, &[("Percent", 100)])
    }
}

fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

impl History {
    /// What there is counts as recommended when it is seen first.
    pub fn begin(&mut self, current: i32, now: Time) {
        if self.recommended.is_empty() {
            self.recommended.push((now, current));
        }
    }

    /// It was scaled from so many to so many.
    pub fn scaled(
        &mut self,
        from: i32,
        to: i32,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        now: Time,
    ) {
        // Without a behavior nobody looks at it.
        let Some(behavior) = behavior else { return };
        let (list, rules) = match to > from {
            true => (&mut self.ups, Rules::up(behavior)),
            false => (&mut self.downs, Rules::down(behavior)),
        };
        let longest = rules.policies.iter().map(|policy| policy.period_seconds).max().unwrap_or(0);
        list.retain(|(at, _)| *at + seconds(longest) >= now);
        list.push((now, (to - from).abs()));
    }

    /// Holds what is desired against what was, and the limits.
    pub fn normalize(&mut self, desired: i32, limits: Limits<'_>, now: Time) -> Normalized {
        let (stable, able) = match limits.behavior {
            None => self.stable(desired, WINDOW, WINDOW, (i32::max, WAS_HIGHER), now),
            Some(behavior) => {
                let (up, down) = (Rules::up(behavior).window, Rules::down(behavior).window);
                let longest = up.max(down);
                match desired >= limits.current {
                    true => self.stable(desired, up, longest, (i32::min, WAS_LOWER), now),
                    false => self.stable(desired, down, longest, (i32::max, WAS_HIGHER), now),
                }
            }
        };
        let (replicas, why) = match limits.behavior {
            None => plain_limits(stable, limits),
            Some(behavior) => self.rates(stable, limits, behavior, now),
        };
        Normalized { replicas, able, limited: (replicas != stable, why) }
    }

    /// The best recommendation of the last `window` seconds. Those of the last `longest` are kept.
    fn stable(
        &mut self,
        desired: i32,
        window: i32,
        longest: i32,
        (better, why): (fn(i32, i32) -> i32, Why),
        now: Time,
    ) -> (i32, Why) {
        let recent = self.recommended.iter().filter(|(at, _)| *at + seconds(window) > now);
        let stable = recent.map(|(_, one)| *one).fold(desired, better);
        self.recommended.retain(|(at, _)| *at + seconds(longest) >= now);
        self.recommended.push((now, desired));
        (stable, if stable == desired { READY } else { why })
    }

    /// `convertDesiredReplicasWithBehaviorRate`.
    fn rates(
        &self,
        desired: i32,
        limits: Limits<'_>,
        behavior: &HorizontalPodAutoscalerBehavior,
        now: Time,
    ) -> (i32, Why) {
        let Limits { least, most, current, .. } = limits;
        if desired > current {
            let limit = self.up_limit(current, &Rules::up(behavior), now).max(current);
            let (allowed, why) = if most > limit { (limit, FAST_UP) } else { (most, TOO_MANY) };
            if desired > allowed {
                return (allowed, why);
            }
        } else if desired < current {
            let limit = self.down_limit(current, &Rules::down(behavior), now).min(current);
            let (allowed, why) = if least < limit { (limit, FAST_DOWN) } else { (least, TOO_FEW) };
            if desired < allowed {
                return (allowed, why);
            }
        }
        (desired, WITHIN)
    }

    /// `calculateScaleUpLimitWithScalingRules`.
    fn up_limit(&self, current: i32, rules: &Rules, now: Time) -> i32 {
        if rules.select == "Disabled" {
            return current;
        }
        let limits = rules.policies.iter().map(|policy| {
            let start = current - changed(&self.ups, policy.period_seconds, now);
            match policy.type_.as_str() {
                "Pods" => start.saturating_add(policy.value),
                // Rounded up, or one pod would never become two.
                _ => (f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
            }
        });
        let chosen = if rules.select == "Min" { limits.min() } else { limits.max() };
        chosen.unwrap_or(current)
    }

    /// `calculateScaleDownLimitWithBehaviors`.
    fn down_limit(&self, current: i32, rules: &Rules, now: Time) -> i32 {
        if rules.select == "Disabled" {
            return current;
        }
        let limits = rules.policies.iter().map(|policy| {
            let start = current + changed(&self.downs, policy.period_seconds, now);
            match policy.type_.as_str() {
                "Pods" => start.saturating_sub(policy.value),
                _ => (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
            }
        });
        let chosen = if rules.select == "Min" { limits.max() } else { limits.min() };
        chosen.unwrap_or(current)
    }
}

/// How many pods came or went in the last so many seconds.
fn changed(events: &[(Time, i32)], period: i32, now: Time) -> i32 {
    events.iter().filter(|(at, _)| *at + seconds(period) > now).map(|(_, count)| *count).sum()
}

/// `convertDesiredReplicasWithRules`: at most twice as many at a time, or four.
fn plain_limits(desired: i32, Limits { least, most, current, .. }: Limits<'_>) -> (i32, Why) {
    let limit = current.saturating_mul(2).max(4);
    let (allowed, why) = if most > limit { (limit, FAST_UP) } else { (most, TOO_MANY) };
    if desired < least {
        (least, TOO_FEW)
    } else if desired > allowed {
        (allowed, why)
    } else {
        (desired, WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn behavior(value: Value) -> HorizontalPodAutoscalerBehavior {
        serde_json::from_value(value).expect("a behavior")
    }

    fn limits(current: i32, behavior: Option<&HorizontalPodAutoscalerBehavior>) -> Limits<'_> {
        Limits { least: 1, most: 100, current, behavior }
    }

    fn at(seconds: u64) -> Time {
        Time::from_secs(1000 + seconds)
    }

    #[test]
    fn without_a_behavior_it_goes_up_at_once_and_down_after_five_minutes() {
        let mut history = History::default();
        history.begin(10, at(0));
        let up = history.normalize(15, limits(10, None), at(0));
        assert_eq!((up.replicas, up.able, up.limited), (15, READY, (false, WITHIN)));
        let down = history.normalize(3, limits(15, None), at(15));
        assert_eq!((down.replicas, down.able), (15, WAS_HIGHER));
        assert_eq!(history.normalize(3, limits(15, None), at(299)).replicas, 15);
        assert_eq!(history.normalize(3, limits(15, None), at(301)).replicas, 3);
    }

    #[test]
    fn without_a_behavior_it_at_most_doubles() {
        let mut history = History::default();
        let many = history.normalize(90, limits(10, None), at(0));
        assert_eq!((many.replicas, many.limited), (20, (true, FAST_UP)));
        assert_eq!(history.normalize(90, limits(1, None), at(0)).replicas, 4);
        let most = history.normalize(190, limits(80, None), at(0));
        assert_eq!((most.replicas, most.limited), (100, (true, TOO_MANY)));
        let least = History::default().normalize(0, limits(2, None), at(0));
        assert_eq!((least.replicas, least.limited), (1, (true, TOO_FEW)));
    }

    #[test]
    fn policies_bound_what_comes_and_goes_in_their_periods() {
        let slow = behavior(json!({
            "scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]},
            "scaleDown": {"stabilizationWindowSeconds": 0,
                "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]},
        }));
        let mut history = History::default();
        let up = history.normalize(20, limits(4, Some(&slow)), at(0));
        assert_eq!((up.replicas, up.limited), (6, (true, FAST_UP)));
        history.scaled(4, 6, Some(&slow), at(0));
        assert_eq!(history.normalize(20, limits(6, Some(&slow)), at(15)).replicas, 6);
        assert_eq!(history.normalize(20, limits(6, Some(&slow)), at(61)).replicas, 8);
        let down = history.normalize(1, limits(8, Some(&slow)), at(70));
        assert_eq!((down.replicas, down.limited), (4, (true, FAST_DOWN)));
        history.scaled(8, 4, Some(&slow), at(70));
        assert_eq!(history.normalize(1, limits(4, Some(&slow)), at(85)).replicas, 4);
    }

    #[test]
    fn the_chosen_policy_is_the_one_that_changes_most_or_least() {
        for (select, up, down) in [("Max", 20, 5), ("Min", 11, 9), ("Disabled", 10, 10)] {
            let policies = json!([{"type": "Pods", "value": 1, "periodSeconds": 60},
                                  {"type": "Percent", "value": 100, "periodSeconds": 60}]);
            let fewer = json!([{"type": "Pods", "value": 1, "periodSeconds": 60},
                               {"type": "Percent", "value": 50, "periodSeconds": 60}]);
            let rules = behavior(json!({
                "scaleUp": {"selectPolicy": select, "policies": policies},
                "scaleDown": {"selectPolicy": select, "policies": fewer,
                              "stabilizationWindowSeconds": 0},
            }));
            let with = |desired| {
                History::default().normalize(desired, limits(10, Some(&rules)), at(0)).replicas
            };
            assert_eq!((with(50), with(1)), (up, down), "{select}");
        }
    }

    #[test]
    fn windows_hold_back_either_way() {
        let calm = behavior(json!({"scaleUp": {"stabilizationWindowSeconds": 60}}));
        let mut history = History::default();
        history.begin(2, at(0));
        let up = history.normalize(4, limits(2, Some(&calm)), at(15));
        assert_eq!((up.replicas, up.able), (2, WAS_LOWER));
        assert_eq!(history.normalize(4, limits(2, Some(&calm)), at(61)).replicas, 4);
    }
}
