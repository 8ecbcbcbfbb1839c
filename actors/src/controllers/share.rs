//! Numbers of pods that are given as such or as a share of all (`IntOrString`).

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// `intstr.GetScaledValueFromIntOrPercent`; what is neither is 25 %, upstream's default.
pub fn of(value: &IntOrString, total: i32, up: bool) -> i32 {
    let percent = match value {
        IntOrString::Int(count) => return (*count).max(0),
        IntOrString::String(text) => {
            let number = text.trim_end_matches('%').parse::<i64>();
            number.unwrap_or(25).clamp(0, 1_000_000)
        }
    };
    let hundredths = i64::from(total) * percent;
    let rounded = if up { (hundredths + 99) / 100 } else { hundredths / 100 };
    i32::try_from(rounded).unwrap_or(i32::MAX)
}
